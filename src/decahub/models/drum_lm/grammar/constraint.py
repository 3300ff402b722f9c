"""The language of grooves over token ids, as tables: which token may follow, at any place, for many rows at once.

A groove is `(line{steps_per_bar} separator){bars - 1} line{steps_per_bar} end`, each line in its canonical token ids.
A trie holds the ids of all lines, of the separator and of the end mark; where a row stands is its place in the trie
and its counts of steps and bars. Only the tokens of this writing (13 for six columns and SmolLM2) have a column in the
tables, so that nothing here grows with the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import LogitsProcessor

from .canonical_ids import build_lines, find_canonical_ids
from .controls import LineControls


UNLIMITED = 2**31
WITHIN_BAR, AT_START, BAR_COMPLETE = range(3)
# Whether a line, the separator and the end mark may stand within a bar, at the beginning of a groove (prompts without
# a bar begin with a separator), and after a complete bar, by whether it is the last and whether there are enough.
SITUATIONS = (
    (True, False, False),
    (True, True, False),
    *((False, not is_last, is_enough) for is_last in (False, True) for is_enough in (False, True)),
)


@dataclass
class GrammarState:
    """Where each row of a batch stands."""

    # All of shape (batch_size,), but for `bar_lines` of shape (batch_size, steps_per_bar).
    place: torch.Tensor  # in the trie: 0 between lines, then within one; `DrumGrammar.done` or `.outside` at the end
    step: torch.Tensor  # complete lines of the bar
    bars: torch.Tensor  # complete bars
    bars_min: torch.Tensor  # before these no end mark may stand
    bars_max: torch.Tensor  # after these the end mark must stand
    situation: torch.Tensor  # what the counts permit to stand next: a row of `SITUATIONS`
    # `None` unless bars are to be compared.
    bar_lines: torch.Tensor | None = None  # of the latest bar, as numbers; from `step` on of the bar before, else -1
    is_repeat: torch.Tensor | None = None  # whether the bar is that before it so far
    is_same_line: torch.Tensor | None = None  # whether the latest line is that of the bar before

    def select(self, rows: torch.Tensor) -> "GrammarState":
        """State of these rows."""
        return self._map(lambda own: own[rows])

    def where(self, condition: torch.Tensor, other: "GrammarState") -> "GrammarState":
        """This state in the rows where `condition` holds, `other` in the rest."""
        return self._map(
            lambda own, theirs: torch.where(condition.view(-1, *[1] * (own.dim() - 1)), own, theirs), other
        )

    def _map(self, change: Callable[..., torch.Tensor], *others: "GrammarState") -> "GrammarState":
        values = [[getattr(state, item.name) for state in (self, *others)] for item in fields(self)]
        return GrammarState(*(None if each[0] is None else change(*each) for each in values))


class DrumGrammar:
    r"""What may be written where, for one tokenizer.

    Args:
        tokenizer: Tokenizer of transformers, of a language model or of
            [`~decahub.models.drum_lm.tokenization.build_line_tokenizer`].
        columns (`int`, defaults to 6): Characters of a line.
        steps_per_bar (`int`, defaults to 16): Lines of a bar.
        separator (`str`, defaults to `"SEP"`): Line after each bar but the last.
        end (`str`, defaults to `"END"`): Line after the last bar.

    Attributes:
        token_ids (`list[int]`): The ids that occur in grooves, in ascending order.
        stop_id (`int` or `None`): The id that completes the end mark, if it stands nowhere else: generation may stop
            at it.
        closing_ids (`list[int]`): The ids that may follow the end mark: end of sequence and padding.

    Raises:
        ValueError: If the tokenizer cannot write a line, or joins characters across a line end.

    Example:
    ```python
    >>> from decahub.models.drum_lm.grammar.constraint import DrumGrammar
    >>> from decahub.models.drum_lm.tokenization import build_line_tokenizer
    >>> grammar = DrumGrammar(build_line_tokenizer(), steps_per_bar=2)
    >>> grammar.encode("--o---\n---o--\nSEP\n")
    [12, 8, 3]

    ```
    """

    _table_names = (
        *("ids", "columns_of_ids", "targets", "kinds", "lines_below", "hits"),
        *("following", "allowed", "allowed_marks"),
    )

    def __init__(
        self, tokenizer: Any, columns: int = 6, steps_per_bar: int = 16, separator: str = "SEP", end: str = "END"
    ):
        for name, value in (("columns", columns), ("steps_per_bar", steps_per_bar)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value}.")
        self.columns, self.steps_per_bar, self.separator, self.end = columns, steps_per_bar, separator, end
        self.lines = build_lines(columns)
        self._tokenizer = tokenizer
        self._canonical = find_canonical_ids(tokenizer, self.lines, separator, end)
        self.token_ids = sorted({token for ids in self._canonical.values() for token in ids})
        last, *others = reversed(self._canonical[end])
        elsewhere = {token for text, ids in self._canonical.items() if text != end for token in ids} | set(others)
        self.stop_id = None if last in elsewhere else last
        special = [getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad")]
        self.closing_ids = sorted({token for token in special[1:] if token is not None} or {last})
        self.leading_ids = sorted({token for token in special if token is not None} - set(self.token_ids))
        self._build_tables()

    def _build_tables(self) -> None:
        """The trie, dense: (place, column of the token) -> target, and what lies below each target."""
        column_of = {token: column for column, token in enumerate(self.token_ids)}
        children: list[dict[int, int]] = [{}]
        leaves = []  # place before the last token, its column
        for text, ids in self._canonical.items():
            place = 0
            for token in ids[:-1]:
                column = column_of[token]
                if column not in children[place]:
                    children[place][column] = len(children)
                    children.append({})
                place = children[place][column]
            leaves.append((place, column_of[ids[-1]], text))
        num_places, num_lines, num_ids = len(children), len(self.lines), len(self.token_ids)
        self.done, self.outside, self._first_line = num_places, num_places + 1, num_places + 2
        # One column more, for all ids that occur in no groove.
        targets = torch.full((num_places + 2, num_ids + 1), self.outside)
        for place, own in enumerate(children):
            for column, target in own.items():
                targets[place, column] = target
        targets[self.done] = self.done
        for number, (place, column, text) in enumerate(leaves):
            if targets[place, column] != self.outside:
                raise ValueError(
                    "`tokenizer` must not write a line with the beginning of another's token ids; it does for "
                    f"{text!r}. Use another tokenizer, or the tokenization 'line'."
                )
            targets[place, column] = self.done if text == self.end else self._first_line + number
        self.targets = targets
        self.kinds, self.lines_below = self._describe_targets(targets, num_places, num_lines)
        self.following, self.allowed, self.allowed_marks = self._tabulate_situations()
        self.hits = torch.tensor([[mark == "o" for mark in line[:-1]] for line in self.lines])
        self.ids = torch.tensor(self.token_ids)
        highest = max(self.token_ids + self.closing_ids + self.leading_ids)
        self.columns_of_ids = torch.full((highest + 2,), num_ids)
        self.columns_of_ids[self.ids] = torch.arange(num_ids)

    def _describe_targets(
        self, targets: torch.Tensor, num_places: int, num_lines: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Kinds and lines that can still be completed from each target, a leaf being a line itself."""
        separator = self._first_line + num_lines
        below = torch.zeros(separator + 1, num_lines + 2, dtype=torch.bool)
        below[self._first_line :, : num_lines + 1] = torch.eye(num_lines + 1, dtype=torch.bool)
        below[self.done, num_lines + 1] = True
        for place in reversed(range(num_places)):  # children have higher numbers than their parents
            below[place] = below[targets[place]].any(0)
        kinds = torch.stack([below[:, :num_lines].any(1), below[:, num_lines], below[:, num_lines + 1]], dim=1)
        return kinds, below[:, :num_lines].contiguous()

    def _tabulate_situations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """By situation and place: where each token leads, which may be written, which of these begin no line."""
        kinds = self.kinds[self.targets] & torch.tensor(SITUATIONS)[:, None, None]
        is_legal = kinds.any(-1)
        is_legal[:, self.done] = True
        following = torch.where(is_legal, self.targets, self.outside)
        # A separator at the beginning is read where it stands, and never begun.
        kinds[AT_START, 0, :, 1] = False
        kinds[:, self.done :] = False
        allowed, allowed_marks = kinds[:, :, :-1].any(-1), kinds[:, :, :-1, 1:].any(-1)
        return following, allowed, allowed_marks

    def to(self, device: torch.device | str) -> "DrumGrammar":
        """Move the tables."""
        for name in self._table_names:
            setattr(self, name, getattr(self, name).to(device))
        return self

    def canonical_ids(self, line: str) -> list[int]:
        """Token ids of one line, with its line end, or of the end mark."""
        text = line if line in self._canonical else line + "\n"
        if text not in self._canonical:
            raise ValueError(
                f"`line` must be {self.columns} characters out of '-' and 'o', {self.separator!r} or {self.end!r}; "
                f"got {line!r}."
            )
        return list(self._canonical[text])

    def encode(self, text: str) -> list[int]:
        """Canonical token ids of a text of complete lines."""
        return [token for line in text.splitlines() for token in self.canonical_ids(line)]

    def count_tokens(self, bars: int) -> int:
        """The most tokens that this many bars can take, with separators and end mark: a bound for `max_new_tokens`."""
        longest = max(len(self._canonical[line]) for line in self.lines)
        separators = (bars - 1) * len(self._canonical[self.separator + "\n"])
        return bars * self.steps_per_bar * longest + separators + len(self._canonical[self.end])

    def start(
        self,
        batch_size: int = 1,
        bars_min: int | Sequence[int] | torch.Tensor = 1,
        bars_max: int | Sequence[int] | torch.Tensor | None = None,
        compare_bars: bool = False,
    ) -> GrammarState:
        """State before the first token; `compare_bars` keeps the lines of a bar to compare the next one with."""
        device = self.ids.device
        zeros = torch.zeros(batch_size, dtype=torch.long, device=device)
        bounds = [torch.as_tensor(UNLIMITED if bars is None else bars) for bars in (bars_min, bars_max)]
        bars_min, bars_max = (bound.to(device, torch.long).expand(batch_size) for bound in bounds)
        state = GrammarState(zeros, zeros, zeros, bars_min, bars_max, torch.full_like(zeros, AT_START))
        if compare_bars:
            state.bar_lines = torch.full((batch_size, self.steps_per_bar), -1, device=device)
            state.is_repeat = state.is_same_line = zeros.bool()
        return state

    def find_allowed(self, state: GrammarState, line_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Which of `token_ids` may come next, `(batch_size, num_ids)`; nothing after the end mark.

        `line_mask`, `(batch_size or 1, num_lines)`, tells which lines may be written.
        """
        if line_mask is None:
            return self.allowed[state.situation, state.place]
        lines = (self.lines_below[self.targets[state.place, :-1]] & line_mask[:, None]).any(-1)
        return (lines & (state.situation < BAR_COMPLETE)[:, None]) | self.allowed_marks[state.situation, state.place]

    def advance(self, state: GrammarState, tokens: torch.Tensor) -> GrammarState:
        """State after one more token in each row; a row with a wrong one is `outside` from then on."""
        columns = self.columns_of_ids[tokens.clamp(0, len(self.columns_of_ids) - 1)]
        targets = self.following[state.situation, state.place, columns]
        lines = targets - self._first_line
        is_separator = lines == len(self.lines)
        is_line = (lines >= 0) & ~is_separator
        step = torch.where(is_separator, 0, state.step + is_line)
        is_full = step == self.steps_per_bar
        bars = state.bars + (is_line & is_full)
        bounds = (bars >= state.bars_min) + 2 * (bars >= state.bars_max)
        following = GrammarState(
            place=targets.where(lines < 0, 0),
            step=step,
            bars=bars,
            bars_min=state.bars_min,
            bars_max=state.bars_max,
            situation=torch.where(is_full, BAR_COMPLETE + bounds, step + bars == 0),
        )
        if state.bar_lines is not None:
            index = state.step.clamp(max=self.steps_per_bar - 1)[:, None]
            before = state.bar_lines.gather(1, index)[:, 0]
            is_same = lines == before
            following.bar_lines = state.bar_lines.scatter(1, index, torch.where(is_line, lines, before)[:, None])
            following.is_repeat = torch.where(is_separator, state.bars > 0, state.is_repeat & (~is_line | is_same))
            following.is_same_line = torch.where(is_line, is_same, state.is_same_line)
        return following

    def find_starts(self, ids: torch.Tensor) -> torch.Tensor:
        """Where the groove begins in each row, after padding and begin tokens; `(batch_size,)`."""
        is_leading = torch.isin(ids, torch.tensor(self.leading_ids, dtype=ids.dtype, device=ids.device))
        return is_leading.long().cumprod(1).sum(1)

    def read(self, ids: torch.Tensor, state: GrammarState, starts: torch.Tensor) -> tuple[GrammarState, torch.Tensor]:
        """State after the columns of `ids`, and the column at which each row left the grammar (`num_tokens` if none).

        `state` is that before the groove, which begins in each row at the column `starts`.
        """
        num_tokens = ids.shape[1]
        left_at = torch.full_like(starts, num_tokens)
        first, last = (int(starts.min()), int(starts.max())) if len(starts) else (0, 0)
        for column in range(first, num_tokens):
            following = self.advance(state, ids[:, column])
            state = following if column >= last else following.where(starts <= column, state)
            left_at = torch.where((state.place == self.outside) & (left_at == num_tokens), column, left_at)
        return state, left_at

    def walk(
        self,
        ids: Sequence[int] | Sequence[Sequence[int]] | torch.Tensor,
        bars_min: int | Sequence[int] | torch.Tensor = 1,
        bars_max: int | Sequence[int] | torch.Tensor | None = None,
        starts: torch.Tensor | None = None,
        compare_bars: bool = False,
    ) -> GrammarState:
        """State after given tokens, such as those of prompts, which may end within a line.

        Padding and begin tokens are passed over; `starts` tells where each groove begins if other text stands before
        it. A `ValueError` tells where a row ceases to be the canonical writing of a groove.
        """
        ids = torch.as_tensor(ids, dtype=torch.long, device=self.ids.device)
        ids = ids[None] if ids.dim() == 1 else ids
        starts = self.find_starts(ids) if starts is None else starts
        first = self.start(len(ids), bars_min, bars_max, compare_bars)
        state, left_at = self.read(ids, first, starts)
        wrong = (state.place == self.outside).nonzero()
        if len(wrong):
            raise self.describe_problem(ids, first, starts, left_at, wrong[0])
        return state

    def describe_problem(
        self, ids: torch.Tensor, first: GrammarState, starts: torch.Tensor, left_at: torch.Tensor, row: torch.Tensor
    ) -> ValueError:
        """What is wrong in a row that left the grammar; the arguments are those of [`~DrumGrammar.read`] and `row`."""
        ids, starts, column = ids[row], starts[row], int(left_at[row])
        before, _ = self.read(ids[:, :column], first.select(row), starts)
        allowed = self.ids[self.find_allowed(before)[0]].tolist()
        options = ", ".join(repr(self._decode([token])) for token in allowed[:8]) or "nothing"
        written = self._decode(ids[0, int(starts) : column].tolist())[-24:]
        token = int(ids[0, column])
        place = f"bar {int(before.bars) + int(before.step < self.steps_per_bar)}, line {int(before.step) + 1}"
        return ValueError(
            f"`input_ids` must be grooves in canonical tokens; row {int(row)} is not from column {column} on "
            f"({place}): after {written!r} stands {self._decode([token])!r} (id {token}) instead of {options}. Write "
            "prompts with the processor, with fewer bars than `bars_max`."
        )

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class DrumGrammarLogitsProcessor(LogitsProcessor):
    r"""Lets a causal language model write valid grooves only, whatever its weights and the temperature.

    Give it to `generate(logits_processor=[...])`; transformers puts temperature, top-k and top-p after it. Rows may
    stand at different places, be padded on the left, be reordered by a beam search, or come back shorter from assisted
    generation. A processor serves one call of `generate` at a time, and may serve several in turn. After the end mark
    a row may only write the end of sequence and padding; so does a row that something else drove out of the grammar.

    Args:
        grammar ([`DrumGrammar`]): The grammar.
        bars_min (`int` or `Sequence[int]`, defaults to 16): Least bars, those of the prompt included; one for all
            samples or one for each. `num_return_sequences` and beams take those of their sample.
        bars_max (`int` or `Sequence[int]`, *optional*): Most bars; by default `bars_min`.
        starts (`Sequence[int]`, *optional*): For each sample the column of its `input_ids` where the groove begins, if
            other text than padding and begin tokens stands before it.
        forbid_columns, force, max_hits_per_step, density_bias, forbid_repeat, fill_bars: As in
            [`~decahub.models.drum_lm.grammar.controls.LineControls`].

    Raises:
        TypeError: If `grammar` is none.
        ValueError: If an argument is outside its range; at the first token, if a prompt is not the beginning of a
            groove in canonical tokens, with the place. A prompt that is the latest one and a single token more cannot
            be told from a token that was written; take another processor for it.

    Example:
    ```python
    >>> from decahub import DrumLmConfig, DrumLmForCausalLM
    >>> from decahub.models.drum_lm.grammar.constraint import DrumGrammar, DrumGrammarLogitsProcessor
    >>> from decahub.models.drum_lm.tokenization import build_line_tokenizer
    >>> tokenizer = build_line_tokenizer()
    >>> processor = DrumGrammarLogitsProcessor(DrumGrammar(tokenizer), bars_min=2)
    >>> prompt = tokenizer("--oo--\n----o-\n", return_tensors="pt")
    >>> model = DrumLmForCausalLM(DrumLmConfig())
    >>> ids = model.generate(**prompt, logits_processor=[processor], do_sample=True, max_new_tokens=40)
    >>> len(tokenizer.decode(ids[0]).splitlines())  # 32 lines, separator and end mark
    34

    ```
    """

    def __init__(
        self,
        grammar: DrumGrammar,
        bars_min: int | Sequence[int] = 16,
        bars_max: int | Sequence[int] | None = None,
        *,
        starts: Sequence[int] | None = None,
        forbid_columns: Sequence[int] = (),
        force: object = None,
        max_hits_per_step: int | None = None,
        density_bias: float | Sequence[float] | None = None,
        forbid_repeat: bool = False,
        fill_bars: Sequence[Any] | None = None,
    ):
        # By what it can, not by its class, of which remote code may have made two.
        if not hasattr(grammar, "find_allowed"):
            raise TypeError(f"`grammar` must be a DrumGrammar, which a tokenizer gives; got {type(grammar).__name__}.")
        self.grammar = grammar
        self.bars_min = _to_whole_numbers("bars_min", bars_min)
        self.bars_max = self.bars_min if bars_max is None else _to_whole_numbers("bars_max", bars_max)
        if (self.bars_min < 1).any():
            raise ValueError(f"`bars_min` must be at least 1; got {int(self.bars_min.min())}.")
        if (self.bars_max < self.bars_min).any():
            raise ValueError(f"`bars_max` must be at least `bars_min` ({bars_min}); got {bars_max}.")
        self.starts = None if starts is None else torch.as_tensor(starts)
        self.controls = LineControls(
            grammar, forbid_columns, force, max_hits_per_step, density_bias, forbid_repeat, fill_bars
        )
        self._prompt: torch.Tensor | None = None
        self._found: tuple[GrammarState, torch.Tensor] | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores with everything excluded that is no groove."""
        grammar = self.grammar
        if scores.device != grammar.ids.device:
            grammar.to(scores.device)
            self.controls.to(scores.device)
        is_new = not self._follows(input_ids)
        if is_new:
            self._prompt = None  # a prompt that is refused is none to continue
            self._check_vocabulary(scores.shape[1])
            self._begin(input_ids)
        allowed = self._find_allowed()
        is_over = self._state.place >= grammar.done
        if is_new and not (allowed.any(1) | is_over).all():
            self._prompt = None
            row = int((~allowed.any(1) & ~is_over).nonzero()[0])
            raise ValueError(
                f"`input_ids` must end where the controls leave a token; row {row} ends within a line that "
                "they exclude."
            )
        return self._mask(scores, allowed, is_over)

    def is_settled(self, input_ids: torch.LongTensor) -> bool:
        """Whether the next token of each row is the same for any scores: the only one left, or padding after the end.

        Rows are those of the last call with a token more. See
        [`~decahub.models.drum_lm.grammar.jump_forward.jump_forward`].
        """
        if not self._follows(input_ids):
            return False
        return bool(((self._find_allowed().sum(1) == 1) | (self._state.place >= self.grammar.done)).all())

    def _find_allowed(self) -> torch.Tensor:
        """Which tokens may come next; found once for each state."""
        if self._found is None or self._found[0] is not self._state:
            allowed = self.grammar.find_allowed(self._state, self.controls.find_lines(self._state))
            self._found = self._state, allowed
        return self._found[1]

    def _check_vocabulary(self, vocab_size: int) -> None:
        """Refuse a model of another vocabulary; padding that was added to the tokenizer alone cannot be written."""
        if self.grammar.token_ids[-1] >= vocab_size:
            raise ValueError(
                f"`grammar` must be of the tokenizer and the columns of the model; its tokens go up to "
                f"{self.grammar.token_ids[-1]}, and the model scores {vocab_size}."
            )
        closing = [token for token in self.grammar.closing_ids if token < vocab_size]
        self._closing_ids = torch.tensor(closing, device=self.grammar.ids.device)

    def _mask(self, scores: torch.FloatTensor, allowed: torch.Tensor, is_over: torch.Tensor) -> Any:
        ids = self.grammar.ids
        kept = scores[:, ids]
        if self.controls.bias is not None:
            kept = kept + self.controls.bias[self._state.place].to(kept.dtype)
        masked = torch.full_like(scores, -torch.inf)
        masked[:, ids] = kept.masked_fill(~allowed, -torch.inf)
        if is_over.any():
            # A constant, for a model whose scores are restricted to grooves gives the closing tokens none to speak of.
            masked[:, self._closing_ids] = torch.where(is_over[:, None], 0.0, masked[:, self._closing_ids])
        return masked

    def _begin(self, input_ids: torch.Tensor) -> None:
        """State after the prompts, each of which must be the beginning of a groove."""
        rows = len(input_ids)
        self._bounds = [self._spread(name, getattr(self, name), rows) for name in ("bars_min", "bars_max")]
        self._starts = self.grammar.find_starts(input_ids)
        if self.starts is not None:
            self._starts = self._spread("starts", self.starts, rows).to(input_ids.device)
        if self.controls.forced_masks is not None:
            self._check_samples("force", len(self.controls.forced_masks), rows)
        if self.controls.fills is not None:
            self._check_samples("fill_bars", len(self.controls.fills), rows)
        self._state = self.grammar.walk(
            input_ids, *self._bounds, starts=self._starts, compare_bars=self.controls.compare_bars
        )
        self._prompt = self._history = input_ids.clone()

    def _spread(self, name: str, values: torch.Tensor, rows: int) -> torch.Tensor:
        """One value for each row from one for all or one for each sample, whose rows stand together."""
        if values.dim() == 0:
            return values.expand(rows)
        self._check_samples(name, len(values), rows)
        return values.repeat_interleave(rows // len(values))

    def _check_samples(self, name: str, count: int, rows: int) -> None:
        if rows % count:
            raise ValueError(f"`{name}` must have one entry for each sample; got {count} for {rows} rows.")

    def _follows(self, input_ids: torch.Tensor) -> bool:
        """Whether these rows go on from the latest prompt; then the state is that after them.

        It is found from that one step before where that is known, else read again: a history that was cropped, or a
        new prompt that begins with the last one.
        """
        prompt = self._prompt
        if prompt is None:
            return False
        history = self._history
        is_next = input_ids.shape == (len(history), history.shape[1] + 1)
        if is_next and torch.equal(input_ids[:, :-1], history):
            self._state = self.grammar.advance(self._state, input_ids[:, -1])
        elif torch.equal(input_ids, history):
            return True
        elif not torch.equal(input_ids[:, : prompt.shape[1]], prompt):
            return False
        elif is_next and (order := self._find_order(input_ids[:, :-1])) is not None:
            self._state = self.grammar.advance(self._state.select(order), input_ids[:, -1])
        else:
            first = self.grammar.start(len(input_ids), *self._bounds, compare_bars=self.controls.compare_bars)
            state, left_at = self.grammar.read(input_ids, first, self._starts)
            outside = self.grammar.outside
            wrong = ((state.place == outside) & (self._state.place != outside)).nonzero()
            if len(wrong):
                raise self.grammar.describe_problem(input_ids, first, self._starts, left_at, wrong[0])
            self._state = state
        self._history = input_ids.clone()
        return True

    def _find_order(self, histories: torch.Tensor) -> torch.Tensor | None:
        """For each row the earlier row that it continues, as a beam search reorders them; `None` if one has none."""
        # Rows are compared by a sum with odd weights that wraps around, and then in full.
        weights = torch.arange(histories.shape[1], device=histories.device) * 0x9E3779B97F4A7C1 + 1
        own, earlier = ((rows * weights).sum(1) for rows in (histories, self._history))
        bounds = torch.stack([bound.to(histories.device) for bound in self._bounds] + [self._starts], dim=1)
        same = (own[:, None] == earlier) & (bounds[:, None] == bounds).all(-1)
        order = same.int().argmax(1)
        return order if torch.equal(self._history[order], histories) and same.any(1).all() else None


def _to_whole_numbers(name: str, values: Any) -> torch.Tensor:
    try:
        numbers = torch.as_tensor(values)
        is_whole = not numbers.is_floating_point() and numbers.dtype != torch.bool
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"`{name}` must be a whole number, or one for each sample; got {values!r}.")
    return numbers


__all__ = ["DrumGrammar", "DrumGrammarLogitsProcessor", "GrammarState"]
