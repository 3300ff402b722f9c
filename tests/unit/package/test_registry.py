"""The table holds together, and transformers' Auto classes know it in any import order."""

import copy
import pickle
import subprocess
import sys
import tomllib
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel

import decahub
from decahub.registration import DeferredClasses, install
from decahub.registry import METHODS, PUBLIC_NAMES, ModelEntry, find_modules, list_new_auto_classes


USE_AUTO_CLASSES = """
import importlib, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

importlib.import_module(sys.argv[1])
import decahub
from PIL import Image
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers import AutoModelForSemanticSegmentation, pipeline

assert not [name for name in sys.modules if name.startswith("decahub.models.")], "classes were imported too early"
config = AutoConfig.for_model("emo")
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda _: AutoModel._model_mapping[type(config)], range(4)))
assert found == [decahub.EmoModel] * 4
for auto_class, model_class in {
    AutoModel: decahub.EmoModel,
    AutoBackbone: decahub.EmoBackbone,
    AutoModelForImageClassification: decahub.EmoForImageClassification,
    AutoModelForSemanticSegmentation: decahub.EmoForSemanticSegmentation,
}.items():
    assert type(auto_class.from_config(config)) is model_class

with tempfile.TemporaryDirectory() as folder:
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    decahub.EmoImageProcessor().save_pretrained(folder)
    assert type(AutoImageProcessor.from_pretrained(folder)) is decahub.EmoImageProcessor
    assert type(AutoImageProcessor.from_pretrained(folder, backend="pil")) is decahub.EmoImageProcessorPil
    answer = pipeline("image-classification", model=folder)(Image.new("RGB", (70, 50)))
assert {row["label"] for row in answer} == {"LABEL_0", "LABEL_1"}
"""


@pytest.mark.parametrize("first", ["decahub", "transformers.models.auto.modeling_auto", "transformers.pipelines"])
def test_auto_classes_know_the_models_whatever_is_imported_first(run_python, first):
    run_python(USE_AUTO_CLASSES, first)


def test_nothing_is_registered_twice():
    """The library would tell of it on the screen of every user."""
    script = "from transformers import pipeline; import decahub"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_method_has_an_extra_and_a_paper():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {method.extra for method in METHODS.values()} <= set(project["optional-dependencies"])
    assert all(method.arxiv or method.doi for method in METHODS.values())


def test_classes_of_every_ready_method_load():
    for method in METHODS.values():
        for entry in method.models:
            config_class = getattr(decahub, entry.config)
            assert config_class.model_type == entry.model_type
            for name in entry.auto_classes.values():
                assert getattr(decahub, name).config_class is config_class


def test_no_model_takes_the_number_of_items_of_a_step_for_its_loss():
    """Their losses are means over a batch. Without the mark `Trainer` would not divide those that it accumulates."""
    classes = [getattr(decahub, name) for name in PUBLIC_NAMES if name not in list_new_auto_classes()]
    models = [value for value in classes if isinstance(value, type) and issubclass(value, PreTrainedModel)]

    unmarked = [model.__name__ for model in models if getattr(model, "accepts_loss_kwargs", None) is not False]

    assert models
    assert not unmarked


def test_method_may_have_several_model_types_in_files_of_their_own():
    entry = ModelEntry(
        "distill_convnet",
        "ConvNetConfig",
        {"AutoModelForImageClassification": "ConvNetForImageClassification"},
        image_processors={"torchvision": "ConvNetImageProcessor", "pil": "ConvNetImageProcessorPil"},
        feature_extractor="ConvNetFeatureExtractor",
        processor="ConvNetProcessor",
        file_stem="convnet",
    )

    assert find_modules(METHODS["doorping"], entry) == {
        "ConvNetConfig": "decahub.models.doorping.configuration_convnet",
        "ConvNetForImageClassification": "decahub.models.doorping.modeling_convnet",
        "ConvNetImageProcessor": "decahub.models.doorping.image_processing_convnet",
        "ConvNetImageProcessorPil": "decahub.models.doorping.image_processing_pil_convnet",
        "ConvNetFeatureExtractor": "decahub.models.doorping.feature_extraction_convnet",
        "ConvNetProcessor": "decahub.models.doorping.processing_convnet",
    }


def test_installing_again_changes_nothing():
    before = list(sys.meta_path)

    install()

    assert sys.meta_path == before


def test_registering_by_hand_again_is_harmless():
    processors = {"torchvision": decahub.EmoImageProcessor, "pil": decahub.EmoImageProcessorPil}

    for _ in range(2):
        AutoConfig.register("emo", decahub.EmoConfig)
        AutoModel.register(decahub.EmoConfig, decahub.EmoModel)
        AutoBackbone.register(decahub.EmoConfig, decahub.EmoBackbone)
        AutoImageProcessor.register(decahub.EmoConfig, image_processor_classes=dict(processors))

    assert type(AutoModel.from_config(AutoConfig.for_model("emo"))) is decahub.EmoModel


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda mapping: pickle.loads(pickle.dumps(mapping))],
    ids=["copied", "copied deeply", "pickled"],
)
def test_mapping_can_be_duplicated(duplicate):
    mapping = duplicate(AutoModel._model_mapping)

    assert mapping[decahub.EmoConfig] is decahub.EmoModel


class TestDeferredClasses:
    @pytest.fixture
    def classes(self):
        return DeferredClasses({int: str}, {"collections.OrderedDict": "fractions.Fraction"})

    def test_membership_imports_nothing(self):
        classes = DeferredClasses({}, {"collections.OrderedDict": "no_such_module.Class"})

        assert OrderedDict in classes
        assert int not in classes
        assert None not in classes

    def test_lookup_gives_the_real_class(self, classes):
        assert classes[OrderedDict] is Fraction
        assert classes[int] is str

    def test_lookup_gives_classes_by_backend(self):
        classes = DeferredClasses({}, {"emo": {"pil": "fractions.Fraction"}}, load_key=str)

        assert classes["emo"] == {"pil": Fraction}

    def test_stranger_is_a_key_error(self, classes):
        with pytest.raises(KeyError, match="builtins.float"):
            classes[float]

    def test_iteration_covers_both_kinds_once(self, classes):
        classes[OrderedDict]

        assert dict(classes) == {int: str, OrderedDict: Fraction}
        assert len(classes) == 2

    def test_entry_can_be_replaced(self, classes):
        classes[OrderedDict] = float

        assert classes[OrderedDict] is float
        assert len(classes) == 2

    def test_entry_can_be_removed(self, classes):
        del classes[OrderedDict]

        assert OrderedDict not in classes
        assert list(classes) == [int]
