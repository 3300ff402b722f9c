"""How a method joins transformers' own test suites: one short class for each kind of thing that it has.

    class TinyModelTest(ModelConformance, unittest.TestCase):
        models = {"base": TinyModel, "image-classification": TinyForImageClassification}
        dimensions = {"batch_size": 3, "hidden_size": 16, "num_hidden_layers": 2, ...}

        def build_config(self): ...
        def build_inputs(self): ...

A test of the suites that cannot fit a method is named in `skips`, with the reason and the test of ours in
its place. The suites are fetched when this module is imported; without them every module that imports it is skipped.
"""

import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from unittest import mock

import torch
from transformers import set_seed
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.auto import modeling_auto

from .suites import OUR_SKIP, load_suite


_modeling = load_suite("test_modeling_common")
_image_processing = load_suite("test_image_processing_common")
_processing = load_suite("test_processing_common")
_feature_extraction = load_suite("test_feature_extraction_common")
_backbone = load_suite("test_backbone_common")
_configuration = load_suite("test_configuration_common")


@dataclass(frozen=True)
class OurSkip:
    """A test of the suites that does not fit a method.

    Args:
        reason (`str`): what the test assumes that does not hold here.
        instead (`str`): the test of ours in its place, as `path/of/file.py::test_name`.
    """

    reason: str
    instead: str


class Conformance:
    """What all kinds have in common: one seed and one filter of warnings for every test, skips with their reason."""

    is_conformance = True  # the report counts the tests of classes that say so
    skips: dict[str, OurSkip] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, skip in cls.__dict__.get("skips", {}).items():
            if not hasattr(cls, name):
                raise AttributeError(f"`{cls.__name__}.skips` must name tests of the suites; got {name!r}.")
            setattr(cls, name, _build_skipping_test(skip))

    def setUp(self):
        super().setUp()
        set_seed(0)  # the suites draw inputs and weights without seeding
        # They look for deprecations among recorded warnings, which a filter of the process (`-W`) may hide.
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("always", FutureWarning)


def _build_skipping_test(skip: OurSkip):
    def test(self):
        self.skipTest(f"{OUR_SKIP}{skip.reason} Instead: {skip.instead}")

    return test


class ModelConformance(Conformance, _modeling.ModelTesterMixin):
    """Configuration and models of one method.

    Attributes:
        models (`dict[str, type]`): task (`"base"`, `"backbone"` or a task of transformers' Auto classes, such as
            `"image-classification"`) -> class. Other tasks are allowed; their labels come from `build_labels`.
        dimensions (`dict[str, Any]`): what the suites read off their "model tester": `batch_size`, `seq_length`,
            `hidden_size`, `num_hidden_layers`, `num_attention_heads`, ...
        common_properties (`list[str]`): attributes that the configuration must have.
    """

    models: dict[str, type] = {}
    dimensions: dict = {}
    common_properties: list[str] = ["hidden_size"]
    test_resize_embeddings = False  # no method has a vocabulary of its own
    test_can_init_all_missing_weights_before_2023 = True  # the suite would skip files without a copyright line

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.all_model_classes = tuple(cls.models.values())

    def build_config(self):
        raise NotImplementedError("Return a configuration of well under a million parameters.")

    def build_inputs(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError("Return the keyword arguments of the base model's `forward`.")

    def prepare_inputs(self, model_class: type, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs of one class, where it needs others than the base model."""
        return inputs

    def build_labels(self, task: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Labels of a task that transformers does not know."""
        return {}

    def setUp(self):
        super().setUp()
        config_class = type(self.build_config())
        self.enterContext(_announce(config_class.model_type, self.models))
        self.model_tester = SimpleNamespace(
            is_training=True,
            get_config=self.build_config,
            prepare_config_and_inputs_for_common=lambda: (self.build_config(), self.build_inputs()),
            **self.dimensions,
        )
        self.config_tester = _configuration.ConfigTester(
            self, config_class=config_class, has_text_modality=False, common_properties=list(self.common_properties)
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        inputs = self.prepare_inputs(model_class, inputs)
        if return_labels:
            task = next(task for task, known in self.models.items() if issubclass(model_class, known))
            inputs.update(self.build_labels(task, inputs))
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()


class BackboneConformance(Conformance, _backbone.BackboneTesterMixin):
    """A backbone as a part of other models.

    Attributes:
        backbone_class (`type`): the class; its configuration has at least three stages.
        has_attentions (`bool`): whether it returns attention maps.
    """

    backbone_class: type

    def build_config(self):
        raise NotImplementedError("Return a configuration of well under a million parameters.")

    def build_inputs(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError("Return `pixel_values`.")

    def setUp(self):
        super().setUp()
        self.all_model_classes = (self.backbone_class,)
        self.config_class = type(self.build_config())
        self.model_tester = SimpleNamespace(
            prepare_config_and_inputs_for_common=lambda: (self.build_config(), self.build_inputs())
        )


class ImageProcessorConformance(Conformance, _image_processing.ImageProcessingTestMixin):
    """An image processor in all its backends.

    Attributes:
        processor_classes (`dict[str, type]`): `"torchvision"` and, if there is one, `"pil"` -> class.
        processor_arguments (`dict[str, Any]`): arguments that make it quick, sizes above all.
        num_labels (`int`): labels of the made-up segmentation outputs.
    """

    processor_classes: dict[str, type] = {}
    processor_arguments: dict = {}
    num_labels = 5
    test_cast_dtype = True  # anything but `None` switches the suite's dtype test on

    def setUp(self):
        self.image_processor_tester_class = _build_image_processing_tester(self)
        super().setUp()
        set_seed(0)


class SegmentationPostProcessConformance(_image_processing.PostProcessSemanticSegmentationTestMixin):
    """To be added to `ImageProcessorConformance` where there is `post_process_semantic_segmentation`."""


class FeatureExtractorConformance(Conformance, _feature_extraction.FeatureExtractionSavingTestMixin):
    """A feature extractor: set `feature_extraction_class` and `feat_extract_dict`, its arguments."""


class ProcessorConformance(Conformance, _processing.ProcessorTesterMixin):
    """A processor of several parts.

    Attributes:
        processor_class (`type`): the class.
        parts (`dict[str, Callable]`): name of the part (`"image_processor"`, `"feature_extractor"`, ...) -> what makes
            it.
    """

    parts: dict = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, build in cls.parts.items():
            setattr(cls, f"_setup_{name}", staticmethod(build))


@contextmanager
def _announce(model_type: str, models: dict[str, type]):
    """Name a method's classes in transformers' static tables, by which the suites recognize roles, for one test."""
    with ExitStack() as stack:
        for task, model_class in models.items():
            table = "MODEL" if task == "base" else f"MODEL_FOR_{task.upper().replace('-', '_')}"
            names = getattr(modeling_auto, f"{table}_MAPPING_NAMES", None)
            if names is not None:  # else a task that transformers does not know
                stack.enter_context(mock.patch.dict(names, {model_type: model_class.__name__}))
        yield


def _build_image_processing_tester(test: ImageProcessorConformance) -> type:
    class Tester(_image_processing.ImageProcessingTester):
        def __init__(self, parent):
            arguments = {"batch_size": 3, "min_resolution": 20, "max_resolution": 40, "num_labels": test.num_labels}
            super().__init__(parent, **arguments, **test.processor_arguments)

        def _get_image_processing_classes(self):
            return test.processor_classes

        def prepare_post_process_semantic_segmentation_inputs(self):
            height, width = 6, 9
            logits = torch.randn(self.batch_size, self.num_labels, height, width)
            shape = {"num_labels": self.num_labels, "height": height, "width": width}
            return {"outputs": SemanticSegmenterOutput(logits=logits)}, shape

    return Tester
