"""What the arguments of the procedures refuse before anything is loaded."""

import dataclasses
import importlib

import pytest

from decahub.hub import CardArguments
from decahub.procedures import (
    PROCEDURES,
    cmt,
    doorping,
    drum_lm,
    emo,
    mpd_subtyping,
    pmt_iqa,
    raw_gnn,
    reliant,
    tinymim,
)  # fmt: skip
from decahub.recipes import find_recipe, list_recipes
from decahub.registry import METHODS
from decahub.training import find_method, load_recipe


CARD = {f"card_{name}": "text" for name in ("title", "summary", "intended_use", "limits")}


def test_every_ready_method_has_a_procedure():
    assert set(PROCEDURES) == {name for name, method in METHODS.items() if method.is_ready}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_accepted(name, monkeypatch):
    monkeypatch.chdir(find_recipe(name).parents[4])  # images and splits are paths in the checkout
    procedure = importlib.import_module(f"decahub.procedures.{find_method(name, PROCEDURES)}")
    arguments_class = dataclasses.make_dataclass("Arguments", [], bases=(CardArguments, procedure.Arguments))

    arguments = load_recipe(arguments_class, [name])

    assert arguments.method == name.partition("/")[0]


@pytest.mark.parametrize(
    ("procedure", "given", "message"),
    [
        (emo, {"processor": {"do_centre_crop": False}}, r"`do_centre_crop` in `processor`.*`do_center_crop`\?"),
        (emo, {"processor": {"size": {"heihgt": 32}}}, r"`heihgt` in `processor.size`.*`height`\?"),
        (emo, {"augmentation": {"flip_probability": 0}}, r"`flip_probability` in `augmentation`.*`flip_prob`\?"),
        (emo, {"config": {"label_smoothin": 0.1}, "pretrained": "x"}, r"in `config`.*`label_smoothing`\?"),
        (emo, {"decode_head": "pspnet"}, "`decode_head` must come with the task 'semantic-segmentation'"),
        (emo, {"task": "image_classification"}, "`task` must be one of image-classification, semantic-segmentation"),
        (emo, {"max_train_samples": 0}, "`max_train_samples` must be at least 1; got 0"),
        (emo, {"metric_for_best_model": "accuracy", "eval_epochs": 1}, "`monitor_split` must be another split.*None"),
        (
            drum_lm,
            {"metric_for_best_model": "bits_per_step", "eval_epochs": 1, "eval_split": "validation"},
            "`monitor_split` must be another split than `eval_split` .'validation'.*got 'validation'",
        ),
        (cmt, {"augmentation": {"rotation_range": 1}}, "`rotation_range` in `augmentation`"),
        (cmt, {"augmentation": {"sampler": 1}}, "`sampler` in `augmentation`"),
        (cmt, {"pretrained": "x", "image_backbone": "y"}, "`image_backbone` must not come with `pretrained`"),
        (cmt, {"pretrained": "x", "focus_attention": True}, "Add `--focus_attention false`"),
        (cmt, {"gt_sampling_fade_epoch": 3}, "`gt_sampling_fade_epoch` must come with `gt_sampling`; got 3"),
        (cmt, {"gt_sampling": {"car": 2}, "gt_sampling_fade_epoch": -1}, "`gt_sampling_fade_epoch` must not be neg"),
        (tinymim, {"stage": "finetune", "teacher": "x"}, "`teacher` is an argument of the stage 'distill'; got 'x'"),
        (tinymim, {"stage": "finetune", "mixing": {"mixup": 1}}, r"`mixup` in `mixing`.*`mixup_alpha`\?"),
        (tinymim, {"stage": "segment", "mixing": {"mixup_alpha": 1}}, "`mixing` is an argument of the stage 'finet"),
        (tinymim, {"stage": "distil"}, "`stage` must be one of reconstruct, distill, finetune, segment; got 'distil'"),
        (tinymim, {"stage": "distill"}, "`teacher` must be a model folder or Hub id for the stage 'distill'"),
        (raw_gnn, {"nodes_per_batch": -5}, "`nodes_per_batch` must be at least 1; got -5"),
        (raw_gnn, {"feature_extractor": {"normalise_features": True}}, r"`normalize_features`\?"),
        (raw_gnn, {"splits_file": "none.json"}, "`splits_file` must be a file; 'none.json' does not exist"),
        (
            mpd_subtyping,
            {"feature_extractor": {"top_k": "many"}},
            "`top_k` in `feature_ex.* a whole number; got 'many'",
        ),
        (reliant, {}, "`teacher` must be given to distill the student 'akd-sgc'.*fairness weight 10"),
        (reliant, {"variant": "gcn-teacher", "config": {"fairness_weight": 3}}, "`teacher` must be given.*weight 3"),
        (reliant, {"variant": "gcn-teacher", "proxy_learning_rate": 0.1}, "`proxy_learning_rate` must come with"),
        (
            reliant,
            {"teacher": "x", "teacher_output": "probs"},
            "`teacher_output` must be left out without a",
        ),
        (
            raw_gnn,
            {"per_device_train_batch_size": 512},
            "left out for a graph: set `nodes_per_batch`; got 512",
        ),
        (
            tinymim,
            {"stage": "finetune", "labeled_seed": 3},
            "`labeled_seed` must be left out without `num_",
        ),
        (
            doorping,
            {"num_train_epochs": 50},
            "`num_train_epochs` must be left out for a distill",
        ),
        (doorping, {"warmup_ratio": 0.1}, "`warmup_ratio` must be left out for a distillation"),
        (
            pmt_iqa,
            {"optimizer": "official", "lr_scheduler_type": "linear"},
            "`lr_scheduler_type` must be left out",
        ),
        (emo, {"greater_is_better": False}, "`greater_is_better` must be left out without `metric_for_best_model`"),
        (reliant, {"variant": "gcn-teacher", "images": ["none.png"]}, "'none.png' does not exist"),
        (drum_lm, {"adapter": {"r": 4}}, "`adapter` must come with a `backbone`"),
        (drum_lm, {"tokenization": "text"}, "`backbone` must be given for the tokenization 'text'"),
        (drum_lm, {"backbone": "x", "adapter": {"lora_alfa": 4}}, r"`lora_alfa` in `adapter`.*`lora_alpha`\?"),
        (
            drum_lm,
            {"config": {"backbone_config": {"model_type": "llama", "hiden_size": 4}}},
            r"`hiden_size` in `config.backbone_config`.*`hidden_size`\?",
        ),
    ],
)
def test_refuses_what_a_run_cannot_use(procedure, given, message):
    if "adapter" in given:
        pytest.importorskip("peft")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        procedure.Arguments(**given)


def test_method_of_a_recipe(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("method: raw_gnn\nseed: 3\n")

    assert find_method("emo/cifar10", PROCEDURES) == "emo"
    assert find_method(str(own), PROCEDURES) == "raw_gnn"
    assert load_recipe(raw_gnn.Arguments, [str(own)]).seed == 3
    with pytest.raises(ValueError, match="`method` of the recipe .*mine.yaml' must be 'emo' here; got 'raw_gnn'"):
        load_recipe(emo.Arguments, [str(own)])
    own.write_text("seed: 3\n")
    with pytest.raises(ValueError, match="`method` must be in the recipe .*mine.yaml', one of emo"):
        find_method(str(own), PROCEDURES)


@pytest.mark.parametrize("name", ["emo/cifar10", "examples/emo/cifar10.yaml", "/somewhere/emo/cifar10.yml"])
def test_finds_a_recipe_by_an_older_path(name):
    assert find_recipe(name).parts[-3:] == ("recipes", "emo", "cifar10.yaml")


def test_refuses_an_unknown_recipe_with_the_nearest_name():
    with pytest.raises(FileNotFoundError, match=r"got 'emo/cifr10'. Did you mean 'emo/cifar10'\?"):
        find_recipe("emo/cifr10")


@pytest.mark.parametrize(
    ("columns", "message"),
    [("nine", "of the model, 'six'; got 'nine'"), ("ninee", "one of six, nine or a `DrumMap`; got 'ninee'")],
)
def test_columns_of_drums_are_checked_before_data_is_read(columns, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        drum_lm.run(drum_lm.Arguments(dataset=str(tmp_path / "none"), processor={"columns": columns}))
