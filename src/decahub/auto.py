"""Auto classes for tasks that transformers has none for.

They work as transformers' own: `from_pretrained`, `from_config`, `register`. They are also set on `transformers` and
`transformers.models.auto`, where `register_for_auto_class` and saved custom pipelines look for an Auto class by name.
"""

import sys
from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from decahub.registration import AUTO_FOLDER, defer_models


class _NewAutoModelClass(_BaseAutoModelClass):
    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._model_mapping = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())  # type: ignore[assignment]
        defer_models(cls._model_mapping, cls.__name__)


class AutoModelForFewShotInstanceSegmentation(_NewAutoModelClass):
    """Loads the model for few-shot instance segmentation that a configuration asks for."""


class AutoModelForImageQualityAssessment(_NewAutoModelClass):
    """Loads the model for image quality assessment that a configuration asks for."""


class AutoModelForNodeClassification(_NewAutoModelClass):
    """Loads the model for node classification that a configuration asks for."""


class AutoModelForObjectDetection3D(_NewAutoModelClass):
    """Loads the model for 3D object detection that a configuration asks for."""


def publish() -> None:
    """Sets the Auto classes on transformers' own packages, under which others look them up."""
    for module in ("transformers", AUTO_FOLDER):
        for name in __all__:
            setattr(sys.modules[module], name, globals()[name])


__all__ = [
    "AutoModelForFewShotInstanceSegmentation",
    "AutoModelForImageQualityAssessment",
    "AutoModelForNodeClassification",
    "AutoModelForObjectDetection3D",
]

publish()
