"""Arguments of the pipeline "drum-generation": each is checked before anything is computed."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .midi.codec import MOST
from .midi.meter import check_time_signature
from .render.synthesis import MAXIMUM_SAMPLING_RATE, MINIMUM_SAMPLING_RATE


# The least whole number of each.
LEAST = {
    "bars": 1, "prompt_bars": 0, "start_bar": 0, "steps_per_bar": 1, "track": 0, "batch_size": 1,
    "top_k": 0, "num_return_sequences": 1, "max_hits_per_step": 0,
}  # fmt: skip
SWITCHES = ("do_sample", "forbid_repeat", "strict", "allow_empty", "expressive")
LEAST_TEMPERATURE = 1e-6  # scores that are divided by less may be infinite
# From, to, and of what; a tempo that a MIDI file can state, and a temperature that leaves numbers finite.
RANGES = {"tempo": (3.6, 60e6, " quarter notes a minute"), "temperature": (0.0, 1e6, ""), "top_p": (0.0, 1.0, "")}


def check_arguments(given: dict[str, Any], allowed_outputs: Sequence[str]) -> None:
    """Refuses values of another kind or out of range, and names them."""
    check_numbers(given)
    for name in SWITCHES:
        if name in given and given[name] not in (True, False):
            raise ValueError(f"`{name}` must be True or False; got {given[name]!r}.")
    if "time_signature" in given:
        check_meter(given["time_signature"])
    fill = given.get("fill", False)
    is_bars = is_sequence(fill) and all(is_integer(bar) and bar > 0 for bar in fill)
    if not isinstance(fill, bool) and not is_bars:
        raise ValueError(
            f"`fill` must be True for the last bar, or bars counted from 0 such as [7, 15] or range(14, 16), and not "
            f"bar 0, which follows no other; got {fill!r}."
        )
    outputs = given.get("outputs", ())
    if not is_sequence(outputs) or any(name not in allowed_outputs for name in outputs):
        raise ValueError(f"`outputs` must be a sequence of {', '.join(allowed_outputs)}; got {outputs!r}.")
    if not is_sequence(given.get("forbid_columns", ())):
        raise ValueError(
            f"`forbid_columns` must be a sequence of columns, such as ['crash']; got {given['forbid_columns']!r}."
        )


def check_numbers(given: dict[str, Any]) -> None:
    """Refuses numbers of another kind or out of range."""
    for name, least in LEAST.items():
        if name in given and not (is_integer(given[name]) and given[name] >= least):
            raise ValueError(f"`{name}` must be a whole number, at least {least}; got {given[name]!r}.")
    for name in ("bars", "prompt_bars", "num_return_sequences"):
        if given.get(name, 0) > MOST:
            raise ValueError(f"`{name}` must be at most {MOST}; got {given[name]!r}.")
    for name, (low, high, unit) in RANGES.items():
        value = given.get(name, low)
        if not (is_integer(value) or isinstance(value, (float, np.floating))) or not low <= value <= high:
            raise ValueError(f"`{name}` must be a number from {low:g} to {high:g}{unit}; got {value!r}.")
    if given.get("top_p") == 0:
        raise ValueError("`top_p` must be above 0; got 0.")
    if 0 < given.get("temperature", 0) < LEAST_TEMPERATURE:
        raise ValueError(
            f"`temperature` must be 0 or at least {LEAST_TEMPERATURE:g}; got {given['temperature']!r}. 0 always takes "
            "the most probable."
        )
    seed = given.get("seed", 0)
    if not is_integer(seed) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"`seed` must be a whole number of 64 bits; got {seed!r}.")
    rate = given.get("sampling_rate", MINIMUM_SAMPLING_RATE)
    if not is_integer(rate) or not MINIMUM_SAMPLING_RATE <= rate <= MAXIMUM_SAMPLING_RATE:
        raise ValueError(
            f"`sampling_rate` must be a whole number in [{MINIMUM_SAMPLING_RATE}, {MAXIMUM_SAMPLING_RATE}]; got "
            f"{rate!r}."
        )


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_sequence(value: Any) -> bool:
    """Whether it holds values, one after another, and is no text."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def check_meter(time_signature: Any) -> None:
    """Refuses what is no meter that MIDI can state."""
    if isinstance(time_signature, str) and time_signature in ("last", "error"):
        return
    pair = tuple(time_signature) if is_sequence(time_signature) else ()
    if len(pair) != 2 or not all(map(is_integer, pair)):
        raise ValueError(
            f"`time_signature` must be two whole numbers, such as (3, 4), or 'last'; got {time_signature!r}."
        )
    check_time_signature(pair)


__all__ = ["check_arguments", "check_numbers"]
