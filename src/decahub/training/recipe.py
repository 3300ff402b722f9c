"""Recipes: a YAML file, then `--key value` from the command line, into a dataclass of arguments.

python train.py emo/cifar10 --learning_rate 1e-3 --no_ema_warmup --max_grad_norm none --config.drop_path_rate 0.1
"""

import copy
import logging
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from decahub.options import suggest
from decahub.recipes import find_recipe


if TYPE_CHECKING:
    from _typeshed import DataclassInstance


logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound="DataclassInstance")

BOOLEANS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}
NONE_WORDS = ("none", "null", "~")
OPTION = re.compile(r"--[A-Za-z]")
METHOD = "method"  # key of a recipe that names the method; the folder of a recipe does so as well


class RecipeError(ValueError):
    """A recipe or a command line that does not match the arguments of a script."""


class _RecipeLoader(yaml.SafeLoader):
    """YAML in which, unlike YAML 1.1, `no` is a word, `1e-3` a number, and no key is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, key in enumerate(keys):
            if any(key.value == earlier.value for earlier in keys[:place]):
                line = key.start_mark.line + 1
                raise RecipeError(f"A recipe must have each key once; got {key.value!r} again in line {line}.")
        return super().construct_mapping(node, deep)


_RecipeLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_recipe(
    arguments_class: type[Arguments], argv: Sequence[str] | None = None, *, program: str | None = None
) -> Arguments:
    """Fill a dataclass of arguments from a recipe and from the command line, which wins.

    The first word is the name of a recipe of decahub (`emo/cifar10`) or the path of a YAML file, unless it starts with
    `--`; every further one is `--key value`, `--key=value`, `--flag` or `--no_flag`. Lists are several values, or a
    YAML list; mappings are YAML (`"{a: 1}"`) and replace that of the recipe, of which `--key.a 1` sets one entry;
    `none` unsets what can be unset (`null` within mappings). `--help` shows all keys.

    Args:
        arguments_class (`type`): a dataclass whose fields have types that YAML can hold. If it has an attribute
            `method`, a recipe of another method is refused.
        argv (`Sequence[str]`, *optional*): words of the command line; those of this process by default.
        program (`str`, *optional*): what `--help` calls the program; by default the script.

    Raises:
        FileNotFoundError: If the recipe does not exist.
        RecipeError: If a key is unknown, given without a value, or of the wrong type.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    values: dict[str, Any] = {}
    path = None
    if words and not words[0].startswith("-"):
        name = words.pop(0)
        path = find_recipe(name)
        values = _read_yaml(path)
        _check_method(arguments_class, name, values)
    if "-h" in words or "--help" in words:
        program = program or Path(sys.argv[0]).name
        sys.stdout.write(_describe_arguments(arguments_class, values, path, program))
        raise SystemExit(0)
    hints = get_type_hints(arguments_class)
    names = [item.name for item in fields(arguments_class) if item.init]
    _refuse_unknown(values, names, source="the recipe")
    options, entries = _read_options(words, names, hints)
    adapt = getattr(arguments_class, "adapt_recipe", None)  # texts of a card belong to the recipe's own dataset
    values = values if adapt is None else adapt(values, options)
    options = {name: _convert(name, value, hints[name]) for name, value in options.items()}
    _warn_of_lost_entries(values, options)
    values = {**{name: _convert(name, value, hints[name]) for name, value in values.items()}, **options}
    for keys, value in entries.items():
        _set_entry(values, keys, value, arguments_class)
    try:
        return arguments_class(**values)
    except TypeError as error:  # a field without default
        raise RecipeError(f"The recipe is not complete: {error}. Add the key to the YAML file.") from error


def find_method(name: str, methods: Iterable[str]) -> str:
    """The method, one of `methods`, that a recipe is for: its key `method`, or else the name of its folder.

    Raises:
        FileNotFoundError: If the recipe does not exist.
        RecipeError: If it names no method, or an unknown one.
    """
    methods = list(methods)
    path = find_recipe(name)
    method = _read_yaml(path).get(METHOD, path.resolve().parent.name)
    if method not in methods:
        raise RecipeError(
            f"`{METHOD}` must be in the recipe {name!r}, one of {', '.join(methods)}: add the line `{METHOD}: ...`."
        )
    return method


def _describe_arguments(arguments_class: Any, values: Mapping[str, Any], path: Path | None, program: str) -> str:
    """The text of `--help`: each argument once, with its value in the recipe or else its default."""
    lines = [f"usage: {program} [recipe] [--key value ...]", ""]
    lines.append(f"Values are those of {path}." if path else "Values are the defaults; those of a recipe come first.")
    for item in fields(arguments_class):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        value = values.get(item.name, "(required)" if default is MISSING else default)
        text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"  --{item.name} {' '.join(text.split())}")
        lines += textwrap.wrap(item.metadata.get("help", ""), 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def recipe_to_yaml(arguments: Any) -> str:
    """All arguments as YAML that `load_recipe` reads back to an equal instance."""
    return yaml.safe_dump(asdict(arguments), sort_keys=False, allow_unicode=True, width=100)


def _check_method(arguments_class: type, name: str, values: dict[str, Any]) -> None:
    """Takes the key `method` out of a recipe, after a look at it."""
    given, expected = values.pop(METHOD, None), getattr(arguments_class, METHOD, None)
    if None not in (given, expected) and given != expected:
        raise RecipeError(f"`{METHOD}` of the recipe {name!r} must be {expected!r} here; got {given!r}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} must be valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold a mapping of keys to values; got a {type(values).__name__}.")
    return values


def _read_options(
    words: list[str], names: list[str], hints: dict[str, Any]
) -> tuple[dict[str, Any], dict[tuple[str, ...], Any]]:
    """Words of the command line as {key: value}, and those for entries of mappings as {keys: value}.

    Values are still text or lists of it.
    """
    values: dict[str, Any] = {}
    entries: dict[tuple[str, ...], Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        if not OPTION.match(word):
            raise RecipeError(f"The command line must be `[recipe] --key value ...`; got {word!r} without a key.")
        key, has_value, value = word[2:].partition("=")
        key, *inner = key.split(".")
        key = key.replace("-", "_")
        position += 1
        following = []
        while not has_value and position < len(words) and not OPTION.match(words[position]):
            following.append(words[position])
            position += 1
        if inner:
            _refuse_unknown([key], names, source="the command line")
            _refuse_entry(key, inner, hints[key])
            entries[key, *inner] = value if has_value else _join(".".join([key, *inner]), following, list[str])
            continue
        switch = key.removeprefix("no_")
        if key not in names and switch in names and not has_value and not following:
            if hints[switch] is not bool:
                raise RecipeError(f"`--{key}` must name a switch; `{switch}` is {_describe(hints[switch])}.")
            values[switch] = "false"
            continue
        _refuse_unknown([key], names, source="the command line")
        values[key] = value if has_value else _join(key, following, hints[key])
    return values, entries


def _refuse_entry(key: str, inner: list[str], hint: Any) -> None:
    name = ".".join([key, *inner])
    if dict not in (_strip_none(hint), get_origin(_strip_none(hint))):
        raise RecipeError(f"`{key}` must be a mapping to have an entry `{name}`; it is {_describe(hint)}.")
    if not all(inner):
        raise RecipeError(f"`--{name}` must name an entry of `{key}`, as `--{key}.name value` does.")


def _set_entry(values: dict[str, Any], keys: tuple[str, ...], value: Any, arguments_class: Any) -> None:
    """Set an entry of a mapping, in a copy of the recipe's or of the default one."""
    name, *inner, last = keys
    if name not in values:
        item = next(item for item in fields(arguments_class) if item.name == name)
        values[name] = None if item.default is None or item.default_factory is MISSING else item.default_factory()
    mapping = values[name] = copy.deepcopy(values[name] or {})
    for key in inner:
        mapping = mapping.setdefault(key, {})
        if not isinstance(mapping, dict):
            raise RecipeError(f"`{'.'.join(keys[:-1])}` must be a mapping to have an entry {last!r}; got {mapping!r}.")
    try:
        parsed = [yaml.load(text, Loader=_RecipeLoader) for text in ([value] if isinstance(value, str) else value)]
    except yaml.YAMLError as error:
        raise RecipeError(f"`{'.'.join(keys)}` must be YAML; got {value!r}.") from error
    mapping[last] = parsed[0] if isinstance(value, str) else parsed


def _warn_of_lost_entries(values: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Say which entries of the recipe a mapping of the command line has replaced."""
    for name, option in options.items():
        known = values.get(name)
        lost = [str(key) for key in known if key not in option] if option and isinstance(known, dict) else []
        if lost:
            logger.warning(
                "`--%s` replaces the whole mapping of the recipe, with %s. To set single entries: `--%s.%s ...`.",
                name,
                ", ".join(lost),
                name,
                next(iter(option)),
            )


def _join(key: str, following: list[str], hint: Any) -> Any:
    if not following and _strip_none(hint) is bool:
        return "true"
    if not following:
        raise RecipeError(f"`{key}` must be followed by a value; got none.")
    if len(following) == 1:
        return following[0]
    if get_origin(_strip_none(hint)) is list:
        return following
    raise RecipeError(
        f"`{key}` must be one value; got {len(following)}: {' '.join(following)}. Quote it if it is one."
    )


def _refuse_unknown(keys: Iterable[str], names: list[str], *, source: str) -> None:
    for key in keys:
        if key not in names:
            raise RecipeError(f"`{key}` in {source} is not an argument of this script. {suggest(key, names)}")


def _strip_none(hint: Any) -> Any:
    """The type without `| None`."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _convert(name: str, value: Any, hint: Any) -> Any:
    """`value` of YAML or of the command line as the type that the field has."""
    optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
    if optional and (value is None or (isinstance(value, str) and value.lower() in NONE_WORDS)):
        return None
    kind = _strip_none(hint)
    origin = get_origin(kind)
    try:
        if origin is Literal:
            return {str(choice): choice for choice in get_args(kind)}[str(value)]
        if not {list, dict} & {origin, kind}:
            return _convert_scalar(value, kind)
        parsed = yaml.load(value, Loader=_RecipeLoader) if isinstance(value, str) else value
        if list in (origin, kind):
            items = parsed if isinstance(parsed, (list, tuple)) else [value]
            item_kind = get_args(kind)[0] if get_args(kind) else Any
            return [item if item_kind is Any else _convert(name, item, item_kind) for item in items]
        if not isinstance(parsed, dict):
            raise ValueError
        return parsed
    except RecipeError:
        raise
    except (KeyError, ValueError, TypeError, yaml.YAMLError) as error:
        raise RecipeError(f"`{name}` must be {_describe(hint)}; got {value!r}.") from error


def _convert_scalar(value: Any, kind: type) -> Any:
    if kind is bool:
        return BOOLEANS[str(value).lower()]
    if isinstance(value, (bool, list, dict)) or value is None or (kind is int and isinstance(value, float)):
        raise TypeError
    return kind(value)


def _describe(hint: Any) -> str:
    kind = _strip_none(hint)
    if get_origin(kind) is Literal:
        words = "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    else:
        words = getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
    return words if kind is hint else f"{words} or none"
