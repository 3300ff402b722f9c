"""Two-way translation of state-dict names by a table of templates.

A row of the table pairs the authors' template with ours:

    ("stage{stage+1}.{block}.v.conv.*", "stages.{stage}.blocks.{block}.value.*")

`{block}` stands for a whole number, `{stage+1}` and `{2*level}` for numbers computed from the one on the other side,
and `*` for the last piece of the name (`weight`, `running_mean`, ...).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property


_PLACEHOLDER = re.compile(r"\{(?:(?P<factor>\d+)\*)?(?P<name>[a-z_]+)(?:\+(?P<offset>\d+))?\}|(?P<leaf>\*)")
_NUMBER = r"(0|[1-9][0-9]*)"
_LEAF = r"([A-Za-z_][A-Za-z0-9_]*)"


@dataclass(frozen=True)
class Slot:
    """A placeholder, `factor * value + offset`; one that is named `"*"` is the last piece of a name."""

    name: str
    factor: int = 1
    offset: int = 0

    def parse(self, text: str) -> int | str | None:
        """Value of a matched piece; `None` if no whole number of at least 0 gives it."""
        if self.name == "*":
            return text
        value, remainder = divmod(int(text) - self.offset, self.factor)
        return value if value >= 0 and remainder == 0 else None

    def render(self, value: int | str) -> str:
        return value if self.name == "*" else str(self.factor * value + self.offset)


@dataclass(frozen=True)
class Template:
    """A family of state-dict names."""

    text: str

    @cached_property
    def slots(self) -> list[Slot]:
        return [
            Slot("*") if found["leaf"] else Slot(found["name"], int(found["factor"] or 1), int(found["offset"] or 0))
            for found in _PLACEHOLDER.finditer(self.text)
        ]

    @cached_property
    def literals(self) -> list[str]:
        """The fixed pieces between the placeholders, one more than there are placeholders."""
        starts = [0] + [found.end() for found in _PLACEHOLDER.finditer(self.text)]
        ends = [found.start() for found in _PLACEHOLDER.finditer(self.text)] + [len(self.text)]
        return [self.text[start:end] for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def pattern(self) -> re.Pattern:
        pieces = [re.escape(self.literals[0])]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            pieces += [_LEAF if slot.name == "*" else _NUMBER, re.escape(literal)]
        return re.compile("".join(pieces))

    def parse(self, name: str) -> dict[str, int | str] | None:
        """Values of the placeholders in `name`, or `None` if it does not belong to the family."""
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        values = {slot.name: slot.parse(text) for slot, text in zip(self.slots, found.groups(), strict=True)}
        return None if None in values.values() else values

    def render(self, values: dict[str, int | str]) -> str:
        """The name with these values."""
        pieces = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            pieces += [slot.render(values[slot.name]), literal]
        return "".join(pieces)


class NameMap:
    """Translates names by the first row that matches, in either direction.

    Args:
        rows (`Iterable[tuple[str, str]]`): pairs of templates, the authors' first. Both sides of a row must hold the
            same placeholders.

    Raises:
        ValueError: If the two sides of a row differ in their placeholders.
    """

    def __init__(self, rows: Iterable[tuple[str, str]]):
        self.rows = [(Template(official), Template(ours)) for official, ours in rows]
        for official, ours in self.rows:
            if {slot.name for slot in official.slots} != {slot.name for slot in ours.slots}:
                raise ValueError(
                    f"`rows` must pair templates with equal placeholders; got {official.text!r} and {ours.text!r}."
                )

    def convert(self, name: str) -> str:
        """Our name of the authors' tensor `name`.

        Raises:
            ValueError: If no row matches.
        """
        return self._translate(name, self.rows)

    def revert(self, name: str) -> str:
        """The authors' name of our tensor `name`.

        Raises:
            ValueError: If no row matches.
        """
        return self._translate(name, [(ours, official) for official, ours in self.rows])

    @staticmethod
    def _translate(name: str, rows: list[tuple[Template, Template]]) -> str:
        for source, target in rows:
            values = source.parse(name)
            if values is not None:
                return target.render(values)
        raise ValueError(f"`name` must match a row of the table of names; {name!r} matches none of {len(rows)}.")


__all__ = ["NameMap"]
