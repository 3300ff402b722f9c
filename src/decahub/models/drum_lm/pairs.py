"""Prompts and completions for training, from drum rolls written as text.

By default silence is judged by whole bars. The authors' pairs, byte for byte, are those of
`build_pair(text, strip_rule="first_beat")`: there, 16 lines are a bar in every meter, and a bar that begins with a
silent beat counts as silent.
"""

from collections.abc import Sequence


LINES_PER_BEAT = 4
STRIP_RULES = ("first_beat", "bar")


def strip_silence(lines: Sequence[str], bar_lines: int = 16, rule: str = "first_beat") -> list[str]:
    """Lines without the silent bars at their beginning; an incomplete bar is never dropped.

    The rule `"bar"` drops bars without a hit. `"first_beat"`, the authors' rule, looks at the first four lines of each
    bar only, so that a bar that begins later is lost.
    """
    if rule not in STRIP_RULES:
        raise ValueError(f"`rule` must be one of {', '.join(STRIP_RULES)}; got {rule!r}.")
    _check_positive("bar_lines", bar_lines)
    tested = bar_lines if rule == "bar" else LINES_PER_BEAT
    start = 0
    while start + bar_lines <= len(lines) and not any("o" in line for line in lines[start : start + tested]):
        start += bar_lines
    return list(lines[start:])


def trim_silence(lines: Sequence[str], bar_lines: int = 16, min_lines: int = 0) -> list[str]:
    """Lines without the silent bars at their end, but at least `min_lines` of them."""
    _check_positive("bar_lines", bar_lines)
    played = max((index + 1 for index, line in enumerate(lines) if "o" in line), default=0)
    return list(lines[: max(-(-played // bar_lines) * bar_lines, min_lines)])


def insert_separators(lines: Sequence[str], bar_lines: int = 16, separator: str = "SEP") -> list[str]:
    """Lines with a separator after each complete bar."""
    _check_positive("bar_lines", bar_lines)
    separated = []
    for index, line in enumerate(lines, start=1):
        separated.append(line)
        if index % bar_lines == 0:
            separated.append(separator)
    return separated


def build_pair(
    text: str,
    prompt_bars: int = 2,
    bar_lines: int = 16,
    separator: str = "SEP",
    end: str = "END",
    strip_rule: str = "bar",
    trim_empty: bool = False,
    min_bars: int = 8,
) -> tuple[str, str] | None:
    """The prompt that a model is given and the completion that it learns, from the text of a groove.

    `None` for a groove with no more than `min_bars` bars after the silence at its beginning, which is dropped as by
    [`strip_silence`]. The separator follows each bar but the last, and `end` is the last line. `trim_empty` ends right
    after the last bar with a hit, so that a model is not taught to write silence; one bar is completed at least.
    """
    _check_positive("prompt_bars", prompt_bars)
    if min_bars < prompt_bars:
        raise ValueError(f"`min_bars` must be at least `prompt_bars` ({prompt_bars}); got {min_bars!r}.")
    lines = strip_silence(text.splitlines(), bar_lines, strip_rule)
    if len(lines) <= min_bars * bar_lines:
        return None
    if trim_empty:
        lines = trim_silence(lines, bar_lines, min_lines=(prompt_bars + 1) * bar_lines)
    num_prompt_lines = prompt_bars * bar_lines
    prompt = insert_separators(lines[:num_prompt_lines], bar_lines, separator)
    completion = insert_separators(lines[num_prompt_lines:], bar_lines, separator)
    if completion[-1] == separator:
        completion.pop()
    return "".join(f"{line}\n" for line in prompt), "\n".join([*completion, end])


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"`{name}` must be positive; got {value!r}.")


__all__ = ["build_pair", "insert_separators", "strip_silence", "trim_silence"]
