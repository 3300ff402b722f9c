"""Options: a field with its help, the nearest name for a misspelled one, what a callable, config or processor takes.

On the ground floor: imports no other library.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, get_args


# Keywords that every config of transformers takes although they are not fields.
CONFIG_KEYWORDS = ("model_type", "num_labels", "torch_dtype", "name_or_path")
# What the image processors of transformers understand in `size` and `crop_size`.
SIZE_KEYS = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
MOST_NAMES = 20  # that a message lists
# What a value of a plain annotation must be, and what a message calls it.
KINDS = {bool: ((bool,), "true or false"), int: ((int,), "a whole number"), float: ((int, float), "a number"),
         str: ((str,), "a text")}  # fmt: skip
SIZES = ("size", "crop_size", "pad_size")


def argument(default: Any, help: str) -> Any:
    """Dataclass field with a default and the help text that `--help` shows."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that helps after a misspelled name: the nearest known one, or all of them."""
    known = list(known)
    nearest = get_close_matches(str(name), known, n=1)
    if nearest:
        return f"Did you mean `{nearest[0]}`?"
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"Known: {', '.join(known[:MOST_NAMES]) or 'none'}{more}."


def list_options(takes: Callable[..., Any] | Iterable[str]) -> list[str]:
    """Names of the keyword arguments that `takes` understands.

    It is a config class of transformers (its fields), an image processor class (its attributes), any other class or
    function (its parameters), or the names themselves.
    """
    if not callable(takes):
        return list(takes)
    if hasattr(takes, "valid_kwargs"):
        return list(takes.valid_kwargs.__annotations__)
    if isinstance(takes, type) and hasattr(takes, "model_type"):
        aliases = getattr(takes, "attribute_map", {})
        return [*(field.name for field in dataclasses.fields(takes)), *aliases, *CONFIG_KEYWORDS]
    parameters = inspect.signature(takes).parameters.values()
    return [item.name for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]


def check_options(
    name: str,
    options: Mapping[str, Any],
    takes: Callable[..., Any] | Iterable[str],
    *,
    given: Iterable[str] = (),
    nested: Mapping[str, Callable[..., Any] | Iterable[str]] | None = None,
) -> None:
    """Refuse a mapping with a key that what receives it does not know, at any depth, with the nearest known one.

    The mapping is called `name` and passed to `takes` (see [`list_options`]), beside the arguments in `given`, which a
    user may not replace. `nested` names what receives the mapping under a key; sizes of image processors are known.
    """
    known = [option for option in list_options(takes) if option not in tuple(given)]
    parameters: Mapping[str, inspect.Parameter] = {}
    # Configs and image processors check their values themselves.
    if callable(takes) and not hasattr(takes, "valid_kwargs") and not hasattr(takes, "model_type"):
        parameters = inspect.signature(takes).parameters
    receivers = {**dict.fromkeys(SIZES, SIZE_KEYS), **(nested or {})}
    for key, value in options.items():
        if key not in known:
            receiver = f" of `{takes.__name__}`" if hasattr(takes, "__name__") else ""
            raise ValueError(f"`{key}` in `{name}` is not an option{receiver}. {suggest(key, known)}")
        if isinstance(value, Mapping) and key in receivers:
            check_options(f"{name}.{key}", value, receivers[key])
        elif key in parameters:
            check_kind(f"`{key}` in `{name}`", value, parameters[key].annotation)


def check_kind(place: str, value: Any, annotation: Any) -> None:
    """Refuse a value that is not of its annotation if that is plain, such as `float` or `int | None`."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = [kind for kind in parts if kind is not NoneType]
    if value is None or not kinds or any(kind not in KINDS for kind in kinds):
        return
    allowed = tuple(item for kind in kinds for item in KINDS[kind][0])
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(KINDS[kind][1] for kind in kinds)
        raise ValueError(f"{place} must be {wanted}; got {value!r}. Change it in the recipe or on the command line.")
