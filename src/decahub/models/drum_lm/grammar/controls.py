"""What else may be asked of the lines that a grammar lets through: fixed hits, silent columns, sparse or new bars."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    from .constraint import DrumGrammar, GrammarState

FREE = -1  # a cell of `force` that may be a hit or a rest


class LineControls:
    """Which lines may be written at each step, and how welcome the hits of each column are.

    Args:
        grammar ([`DrumGrammar`]): The grammar.
        forbid_columns (`Sequence[int]`, defaults to `()`): Columns without hits.
        force (array of shape `(num_steps, columns)` or `(batch_size, num_steps, columns)`, *optional*): 1 for a hit, 0
            for a rest, -1 for a free cell; steps count from the beginning of the groove, so that cells of the prompt
            are there but have no effect. Steps after the last are free.
        max_hits_per_step (`int`, *optional*): Most hits of a line.
        density_bias (`float` or `Sequence[float]`, *optional*): Added to the log odds of a hit, of all columns or one
            for each.
        forbid_repeat (`bool`, defaults to `False`): Whether a bar must differ from that before it. A bar that `force`
            or another control makes the same stays.
        fill_bars (`Sequence[int]` or `Sequence[Sequence[int]]`, *optional*): Bars, counted from 0 at the beginning of
            the groove, that are fills; one list for all or one for each sample. In the second half of a fill, of two
            lines in a row at least one differs from that of the bar before, so that four or more of eight do.

    Raises:
        ValueError: If an argument is outside its range, or controls leave no line at some step.
    """

    def __init__(
        self,
        grammar: "DrumGrammar",
        forbid_columns: Sequence[int] = (),
        force: object = None,
        max_hits_per_step: int | None = None,
        density_bias: float | Sequence[float] | None = None,
        forbid_repeat: bool = False,
        fill_bars: Sequence[Any] | None = None,
    ):
        self.forbid_repeat = forbid_repeat
        self.compare_bars = forbid_repeat or fill_bars is not None
        self.fills = None if fill_bars is None else mark_bars(fill_bars).to(grammar.hits.device)
        self.steps_per_bar = grammar.steps_per_bar
        self.has_fixed = bool(len(forbid_columns)) or max_hits_per_step is not None
        self.line_mask = self._find_lines(grammar.hits, forbid_columns, max_hits_per_step)
        self.forced_masks = None if force is None else self._find_forced(grammar.hits, force)
        self.bias = None if density_bias is None else self._compute_bias(grammar, density_bias)

    def _find_lines(
        self, hits: torch.Tensor, forbid_columns: Sequence[int], max_hits_per_step: int | None
    ) -> torch.Tensor:
        """Lines that are allowed at every step."""
        columns = hits.shape[1]
        mask = torch.ones(len(hits), dtype=torch.bool, device=hits.device)
        for column in forbid_columns:
            try:
                is_column = 0 <= operator.index(column) < columns
            except TypeError:
                is_column = False
            if not is_column:
                raise ValueError(f"`forbid_columns` must be whole numbers in [0, {columns}); got {column!r}.")
            mask &= ~hits[:, column]
        if max_hits_per_step is not None:
            if max_hits_per_step < 0:
                raise ValueError(f"`max_hits_per_step` must not be negative; got {max_hits_per_step}.")
            mask &= hits.sum(1) <= max_hits_per_step
        return mask

    def _find_forced(self, hits: torch.Tensor, force: object) -> torch.Tensor:
        """Lines allowed at each step, `(1 or batch_size, num_steps + 1, num_lines)`; the last step is free."""
        cells = read_force(force, hits.shape[1]).to(hits.device)
        cells = cells[None] if cells.dim() == 2 else cells
        wrong_rest = (cells == 1).float() @ (~hits).float().T
        wrong_hit = (cells == 0).float() @ hits.float().T
        masks = (wrong_rest + wrong_hit == 0) & self.line_mask
        impossible = (~masks.any(-1)).nonzero()
        if len(impossible):
            raise ValueError(
                f"`force` must leave a line at each step; with the other controls none is left at step "
                f"{int(impossible[0, 1])}. Do not force hits in `forbid_columns` or more than `max_hits_per_step`."
            )
        return torch.cat([masks, self.line_mask.expand(len(masks), 1, -1)], dim=1)

    def _compute_bias(self, grammar: "DrumGrammar", density_bias: float | Sequence[float]) -> torch.Tensor:
        """What each token earns at each place, the bias of the hits that it settles, `(num_places, num_ids)`."""
        try:
            bias = torch.as_tensor(density_bias, dtype=torch.float, device=grammar.hits.device)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`density_bias` must be one number or {grammar.columns}; got {density_bias!r}."
            ) from error
        if bias.dim() > 1 or (bias.dim() == 1 and len(bias) != grammar.columns):
            raise ValueError(f"`density_bias` must be one number or {grammar.columns}; got shape {tuple(bias.shape)}.")
        if not bias.isfinite().all():
            raise ValueError("`density_bias` must be finite; use `forbid_columns` to exclude hits.")
        # A hit is settled where all lines that can still be completed have it.
        below = grammar.lines_below.float()
        is_settled = (below @ grammar.hits.float() == below.sum(1, keepdim=True)) & (below.sum(1, keepdim=True) > 0)
        earned = is_settled.float() @ bias.expand(grammar.columns)
        targets = grammar.targets[:, :-1]
        is_line = grammar.kinds[targets, 0]
        return torch.where(is_line, earned[targets] - earned[: len(targets), None], 0.0)

    def to(self, device: torch.device | str) -> "LineControls":
        """Move the tables."""
        for name in ("line_mask", "forced_masks", "bias", "fills"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(device))
        return self

    def find_lines(self, state: "GrammarState") -> torch.Tensor | None:
        """Lines that may be written in each row, `(batch_size or 1, num_lines)`; `None` if all may be."""
        mask = self.line_mask[None] if self.has_fixed else None
        if self.forced_masks is not None:
            step = state.bars * self.steps_per_bar + state.step
            mask = self._look_up(self.forced_masks, step)
        if not self.compare_bars:
            return mask
        must_differ = state.is_repeat & (state.step == self.steps_per_bar - 1) & self.forbid_repeat
        if self.fills is not None:
            is_later_half = state.step > self.steps_per_bar // 2
            must_differ = must_differ | (self._look_up(self.fills, state.bars) & is_later_half & state.is_same_line)
        mask = self.line_mask[None] if mask is None else mask
        before = state.bar_lines.gather(1, state.step.clamp(max=self.steps_per_bar - 1)[:, None]).clamp(min=0)
        different = mask.expand(len(before), -1).scatter(1, before, False)
        return torch.where((must_differ & different.any(1))[:, None], different, mask)

    @staticmethod
    def _look_up(table: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """What `table`, `(1 or num_samples, num_places, ...)`, has at a place in each row; beyond it the last."""
        rows = torch.arange(len(place), device=place.device) // max(len(place) // len(table), 1)
        rows = rows if len(table) > 1 else torch.zeros_like(rows)
        return table[rows, place.clamp(max=table.shape[1] - 1)]


def mark_bars(fill_bars: Sequence[Any]) -> torch.Tensor:
    """Whether each bar is a fill, `(1 or num_samples, num_bars)`; the last, beyond all of them, is none."""
    samples = [fill_bars] if all(isinstance(bar, int) for bar in fill_bars) else list(fill_bars)
    for bar in (bar for bars in samples for bar in bars):
        if not isinstance(bar, int) or bar < 1:
            raise ValueError(f"`fill_bars` must be whole numbers, at least 1; got {bar!r}. Bar 0 follows no other.")
    fills = torch.zeros(len(samples), max((bar for bars in samples for bar in bars), default=0) + 2, dtype=torch.bool)
    for row, bars in enumerate(samples):
        fills[row, list(bars)] = True
    return fills


def read_force(force: Any, columns: int) -> torch.Tensor:
    """Cells that are fixed or free, as whole numbers; see [`LineControls`]."""
    try:
        cells = torch.as_tensor(force)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`force` must be numbers in rows of {columns} columns; {error}.") from error
    if cells.dim() not in (2, 3) or cells.shape[-1] != columns:
        raise ValueError(
            f"`force` must have the shape (num_steps, {columns}) or (batch_size, num_steps, {columns}); got "
            f"{tuple(cells.shape)}."
        )
    wrong = cells[(cells != 1) & (cells != 0) & (cells != FREE)]
    if len(wrong):
        raise ValueError(f"`force` must hold 1 (hit), 0 (rest) and {FREE} (free); got {wrong[0].item()}.")
    return cells.to(torch.long)


__all__ = ["LineControls", "read_force"]
