"""Tells transformers' Auto classes about the table, and costs nothing until they are used.

`install` puts an import hook in place, which waits for the modules of transformers that hold the Auto classes. Right
after such a module has run, its mappings learn the names of decahub's classes; the classes themselves are imported
when they are looked up. So `import decahub` needs neither torch nor transformers, no import of ours runs in the middle
of an import of theirs, which could be circular, and every lookup still gives the real class.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from types import ModuleType
from typing import Any

from decahub.registry import METHODS, ModelEntry, TaskEntry, find_modules, list_new_auto_classes, list_pipelines


AUTO_FOLDER = "transformers.models.auto"


def load_class(path: str) -> type:
    """The class at `<module>.<name>`."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


class DeferredClasses(MutableMapping):
    """What is registered in an Auto mapping, plus classes that are imported when they are looked up."""

    def __init__(
        self,
        registered: MutableMapping[Any, Any],
        references: Mapping[str, str | dict[str, str]],
        load_key: Callable[[str], Any] = load_class,
    ):
        self._registered, self._references, self._load_key = registered, dict(references), load_key

    def __getitem__(self, key: Any) -> Any:
        if key not in self._registered:
            reference = self._references[_describe_key(key)]
            if isinstance(reference, str):
                self._registered[key] = load_class(reference)
            else:
                self._registered[key] = {backend: load_class(path) for backend, path in reference.items()}
        return self._registered[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._registered[key] = value

    def __delitem__(self, key: Any) -> None:
        self[key]  # raises KeyError for a stranger
        del self._registered[key]
        self._references.pop(_describe_key(key), None)

    def __contains__(self, key: Any) -> bool:
        return key in self._registered or _describe_key(key) in self._references

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys([*self._registered, *map(self._load_key, self._references)]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _describe_key(key: Any) -> str:
    """A `model_type` is itself; a configuration class is its path, by which it is known before it is imported."""
    if isinstance(key, str):
        return key
    return f"{getattr(key, '__module__', '')}.{getattr(key, '__qualname__', '')}"


def defer_models(mapping: Any, auto_class: str) -> None:
    """Adds to the mapping of an Auto class what the table has for it."""
    _defer(mapping, lambda entry: entry.auto_classes.get(auto_class))
    for entry, _ in _iterate_entries():
        if auto_class in entry.auto_classes:  # pipelines look in these names for the models that they support
            mapping._model_mapping[entry.model_type] = entry.auto_classes[auto_class]


def _defer(mapping: Any, select: Callable[[ModelEntry], str | dict[str, str] | None]) -> None:
    references = {}
    for entry, modules in _iterate_entries():
        names = select(entry)
        if names:
            references[_qualify(entry.config, modules)] = _qualify(names, modules)
    # `register` wants classes. The attribute it fills is also what transformers' other modules read.
    mapping._extra_content = DeferredClasses(mapping._extra_content, references)


def _iterate_entries() -> Iterator[tuple[ModelEntry, dict[str, str]]]:
    for method in METHODS.values():
        for entry in method.models:
            yield entry, find_modules(method, entry)


def _qualify(names: str | dict[str, str], modules: dict[str, str]) -> Any:
    if isinstance(names, str):
        return f"{modules[names]}.{names}"
    return {backend: f"{modules[name]}.{name}" for backend, name in names.items()}


def _register_configs(module: ModuleType) -> None:
    references = {entry.model_type: _qualify(entry.config, modules) for entry, modules in _iterate_entries()}
    mapping = module.CONFIG_MAPPING
    mapping._extra_content = DeferredClasses(mapping._extra_content, references, load_key=str)


def _register_models(module: ModuleType) -> None:
    for auto_class in {name for entry, _ in _iterate_entries() for name in entry.auto_classes}:
        if auto_class not in list_new_auto_classes():
            defer_models(getattr(module, auto_class)._model_mapping, auto_class)
    import_module("decahub.auto").publish()


def _register_processors(mapping: str, attribute: str) -> Callable[[ModuleType], None]:
    return lambda module: _defer(getattr(module, mapping), attrgetter(attribute))


def _publish_again(module: ModuleType) -> None:
    # `transformers.processing_utils` runs the package's `__init__` a second time, which replaces the package in
    # `sys.modules` and with it what was set on it.
    if "decahub.auto" in sys.modules:
        import_module("decahub.auto").publish()


def _load_pipelines(module: ModuleType) -> None:
    for name in list_pipelines():
        import_module(name)


class WithoutDefault(dict):
    """What transformers knows of a pipeline that has no default model."""

    def __missing__(self, key: str) -> Any:
        if key == "default":
            raise ValueError("`model` must be given to `pipeline`, as there is no default model for this task.")
        raise KeyError(key)


def _register_pipeline(task: TaskEntry) -> Callable[[ModuleType], None]:
    def register(module: ModuleType) -> None:
        registry = import_module("transformers.pipelines").PIPELINE_REGISTRY
        registry.register_pipeline(
            task.name,
            pipeline_class=getattr(module, str(task.pipeline)),
            # A module may load its models in its own way.
            pt_model=getattr(module, "ModelLoader", None) or getattr(import_module("transformers"), task.auto_class),
        )
        registry.supported_tasks[task.name] = WithoutDefault(registry.supported_tasks[task.name])

    return register


def _get_actions() -> dict[str, Callable[[ModuleType], None]]:
    """What to do once a module has run, by its name."""
    return {
        f"{AUTO_FOLDER}.configuration_auto": _register_configs,
        f"{AUTO_FOLDER}.modeling_auto": _register_models,
        f"{AUTO_FOLDER}.image_processing_auto": _register_processors("IMAGE_PROCESSOR_MAPPING", "image_processors"),
        f"{AUTO_FOLDER}.feature_extraction_auto": _register_processors(
            "FEATURE_EXTRACTOR_MAPPING", "feature_extractor"
        ),
        f"{AUTO_FOLDER}.processing_auto": _register_processors("PROCESSOR_MAPPING", "processor"),
        "transformers.processing_utils": _publish_again,
        "transformers.pipelines": _load_pipelines,
        # Whichever of the two is imported first, a pipeline is registered when its own module has run.
        **{module: _register_pipeline(task) for module, task in list_pipelines().items()},
    }


class _Finder:
    """Finds the modules of `_get_actions` as Python itself would, and has the action follow when one has run."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        action = _get_actions().get(fullname) if fullname.startswith(("transformers.", "decahub.")) else None
        spec = PathFinder.find_spec(fullname, path, target) if action else None
        if action is None or spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


_FINDER = _Finder()


def install() -> None:
    """Registers decahub's classes with transformers: now, or as soon as it is imported. Repeating it is harmless."""
    if _FINDER in sys.meta_path:
        return
    sys.meta_path.insert(0, _FINDER)
    actions = _get_actions()
    # Told before any of them acts: what an action imports is found by the finder.
    for name in [name for name in actions if name in sys.modules]:
        actions[name](import_module(name))  # waits, should another thread be in the middle of it
