"""Quality levels: classes that are made of labels, for the second task.

`level = rule((label - low) / width)`, computed in float32 as in the authors' code, and kept in `[0, num_levels)`.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch


RULES = ("floor", "round")
OVERFLOWS = ("clamp", "error")


@dataclass(frozen=True)
class QualityLevelBinner:
    """Maps labels to quality levels; the level grows with the label.

    Args:
        low (`float`): Lowest label.
        high (`float`): Highest label.
        num_levels (`int`, defaults to 10): Number of levels.
        rule (`str`, defaults to `"floor"`): `"floor"`, or `"round"`, which rounds halves to the even level.
        width (`float`, *optional*): Range of labels of one level; `(high - low) / num_levels` by default.
        on_overflow (`str`, defaults to `"clamp"`): Labels outside of the levels go to the nearest one, or are refused
            (`"error"`).
        absolute (`bool`, defaults to `False`): Whether the sign of a label is dropped first (LIVE).
    """

    low: float
    high: float
    num_levels: int = 10
    rule: str = "floor"
    width: float | None = None
    on_overflow: str = "clamp"
    absolute: bool = False

    def __post_init__(self):
        if self.rule not in RULES:
            raise ValueError(f"`rule` must be one of {', '.join(RULES)}; got {self.rule!r}.")
        if self.on_overflow not in OVERFLOWS:
            raise ValueError(f"`on_overflow` must be one of {', '.join(OVERFLOWS)}; got {self.on_overflow!r}.")

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Levels of labels.

        Args:
            labels (`torch.FloatTensor`): Finite labels of any shape.

        Returns:
            `torch.LongTensor` of the same shape.

        Raises:
            ValueError: If `on_overflow` is `"error"` and a label lies outside of the levels.
        """
        labels = labels.float()
        labels = labels.abs() if self.absolute else labels
        width = (self.high - self.low) / self.num_levels if self.width is None else self.width
        # Widths such as 0.1 have no exact float: multiplied by their inverse, labels such as 0.25 keep their tie.
        shifted = labels - self.low
        position = shifted * round(1 / width) if width < 1 and _is_whole(1 / width) else shifted / width
        levels = (position.floor() if self.rule == "floor" else position.round()).long()
        if self.on_overflow == "error":
            wrong = labels[(levels < 0) | (levels >= self.num_levels)]
            if len(wrong):
                raise ValueError(
                    f"`labels` must give levels in [0, {self.num_levels}); got {wrong.flatten()[0]:g}. Set "
                    "`num_levels` higher, or `on_overflow` to 'clamp'."
                )
        return levels.clamp(0, self.num_levels - 1)

    def with_options(self, **changes: Any) -> "QualityLevelBinner":
        """The same rule with some fields changed."""
        return replace(self, **changes)


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-9


LEVEL_PRESETS = {
    "live": QualityLevelBinner(0.0, 100.0, width=10.0, absolute=True),
    "live_challenge": QualityLevelBinner(0.0, 100.0, rule="round", width=10.0),
    "koniq10k": QualityLevelBinner(0.0, 100.0, rule="round", width=10.0),
    "bid": QualityLevelBinner(0.0, 5.0, width=0.5),
    "csiq": QualityLevelBinner(0.0, 1.0, num_levels=11, rule="round", width=0.1),
    "tid2013": QualityLevelBinner(0.0, 9.0),
    "kadid10k": QualityLevelBinner(1.0, 5.0),
    "spaq": QualityLevelBinner(0.0, 100.0),
    "biq2021": QualityLevelBinner(0.0, 1.0),
}
"""Rules of datasets. The first five are the authors'; they used none of the others."""

__all__ = ["LEVEL_PRESETS", "QualityLevelBinner"]
