"""The one way in which a tokenizer writes each line of a groove: its canonical token ids.

A line may be split into tokens in many ways that all decode to the same text; a language model has seen only the one
that its tokenizer produces. Lines can be written one by one if no token reaches across a line end, which is checked.
"""

from collections.abc import Sequence
from typing import Any


def build_lines(columns: int) -> list[str]:
    """All lines in the order of their bits, column 0 the most significant; each with its line end."""
    table = str.maketrans("01", "-o")
    return [f"{number:0{columns}b}".translate(table) + "\n" for number in range(2**columns)]


def find_canonical_ids(tokenizer: Any, lines: Sequence[str], separator: str, end: str) -> dict[str, tuple[int, ...]]:
    """Token ids of each line, of the separator with its line end and of the end mark, in this order.

    A `ValueError` tells if the tokenizer cannot write one of them, or a token reaches across a line end.
    """
    separator_line = separator + "\n"
    texts = [*lines, separator_line, end]
    prefix = _encode(tokenizer, [separator_line], texts)[0]
    written = _encode(tokenizer, [separator_line + text for text in texts], texts)
    canonical = {}
    for text, ids in zip(texts, written, strict=True):
        if ids[: len(prefix)] != prefix:
            raise _merged(separator_line, text)
        canonical[text] = tuple(ids[len(prefix) :])
    _check_spelling(tokenizer, prefix, canonical, separator_line)
    _check_line_ends(tokenizer, prefix, canonical, separator_line, [lines[0], lines[-1], separator_line])
    return canonical


def _encode(tokenizer: Any, texts: list[str], symbols: Sequence[str]) -> list[list[int]]:
    try:
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    except Exception as error:  # the tokenizers library has no class of its own for a word it does not know
        raise ValueError(
            f"`tokenizer` must be able to write {symbols[0]!r}, {symbols[-2]!r} and {symbols[-1]!r}; it "
            f"failed: {error}"
        ) from error
    return [list(ids) for ids in encoded]


def _check_spelling(
    tokenizer: Any, prefix: list[int], canonical: dict[str, tuple[int, ...]], separator_line: str
) -> None:
    """Each text must come back from its ids, which an unknown or a lower-cased symbol does not."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    sequences = [prefix + list(ids) for ids in canonical.values()]
    decoded = tokenizer.batch_decode(sequences, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    for (text, ids), spelled in zip(canonical.items(), decoded, strict=True):
        if not ids or unknown in ids or not spelled.endswith(separator_line + text):
            raise ValueError(
                f"`tokenizer` must be able to write {text!r}; it reads back {spelled!r} after {separator_line!r}. Use "
                "one that keeps line ends, case and the characters '-' and 'o', or the tokenization 'line'."
            )


def _check_line_ends(
    tokenizer: Any,
    prefix: list[int],
    canonical: dict[str, tuple[int, ...]],
    separator_line: str,
    neighbors: list[str],
) -> None:
    """No token may reach across a line end: each text before and after lines that end and begin in all ways."""
    *lines, end = canonical
    pairs = [(line, neighbor) for line in lines for neighbor in (*neighbors, end)]
    pairs += [(neighbor, text) for text in canonical for neighbor in neighbors]
    written = _encode(tokenizer, [separator_line + first + second for first, second in pairs], lines)
    for (first, second), ids in zip(pairs, written, strict=True):
        if tuple(ids) != (*prefix, *canonical[first], *canonical[second]):
            raise _merged(first, second)


def _merged(first: str, second: str) -> ValueError:
    return ValueError(
        f"`tokenizer` must not join characters across a line end; it does between {first!r} and {second!r}. Use "
        "another tokenizer, or the tokenization 'line'."
    )


__all__ = ["build_lines", "find_canonical_ids"]
