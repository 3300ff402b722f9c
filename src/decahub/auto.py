"""Auto classes for tasks that transformers has none for.

They work as transformers' own: `from_pretrained`, `from_config`, `register`. They are also set on `transformers` and
`transformers.models.auto`, where `register_for_auto_class` and saved custom pipelines look for an Auto class by name.
"""

import sys
from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from decahub.registration import AUTO_FOLDER, defer_models
from decahub.registry import list_new_auto_classes


class _NewAutoModelClass(_BaseAutoModelClass):
    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())  # type: ignore[assignment]
        defer_models(cls._model_mapping, cls.__name__)


def _build_auto_class(name: str) -> type:
    doc = f"Loads the model that a configuration asks for, as `{name}` of a task that transformers does not know."
    return type(name, (_NewAutoModelClass,), {"__doc__": doc, "__module__": __name__})


_AUTO_CLASSES = {name: _build_auto_class(name) for name in list_new_auto_classes()}
globals().update(_AUTO_CLASSES)


def publish() -> None:
    """Sets the Auto classes on transformers' own packages, under which others look them up."""
    for module in ("transformers", AUTO_FOLDER):
        for name, auto_class in _AUTO_CLASSES.items():
            setattr(sys.modules[module], name, auto_class)


__all__ = list(_AUTO_CLASSES)

publish()
