"""Wrong inputs across the methods and the command line: each is answered by one sentence about what was given.

A message names the argument and the value, and says what is allowed or what to do, with no traceback behind it.
"""

import re
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from decahub import (
    DistilledDataset,
    DoorpingConfig,
    DrumLmConfig,
    EmoConfig,
    EmoForImageClassification,
    EmoImageProcessor,
    MpdSubtypingConfig,
    MpdSubtypingFeatureExtractor,
    MpdSubtypingModel,
    RawGnnConfig,
    RawGnnFeatureExtractor,
    RawGnnForNodeClassification,
    ReliantConfig,
    ReliantFeatureExtractor,
    ReliantForNodeClassification,
    TinyMimConfig,
    TinyMimForPreTraining,
)
from decahub.cli.main import main
from decahub.evaluation import evaluate_model
from decahub.hub import stage_repository
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.procedures import drum_lm, emo, tinymim
from tests.hub.builders import build_drum_folder, build_model_folder


LONGEST = 400  # characters of a message
IMAGE = Image.new("RGB", (6, 5))


def build_graph(**changes):
    features, edges = np.ones((4, 3), np.float32), np.array([[0, 1, 2], [1, 2, 3]])
    return {"node_features": features, "edge_index": edges} | changes


def classify_labels(labels):
    model = EmoForImageClassification(EmoConfig(num_labels=2)).eval()
    return model(torch.zeros(len(labels), 3, 32, 32), labels=torch.tensor(labels))


def build_reliant(**fields):
    return ReliantForNodeClassification(ReliantConfig(num_features=3, num_labels=2, **fields))


def fit_cohort(**columns):
    generator = np.random.default_rng(0)
    table = {
        "id": [str(index) for index in range(30)],
        "group": ["SZ", "control"] * 15,
        "age": generator.uniform(20, 60, 30),
        "sex": ["F", "M", "M"] * 10,
        "site": ["a"] * 30,
        "x": generator.normal(size=30),
    }
    extractor = MpdSubtypingFeatureExtractor(["x"], id_column="id", selection="none")
    return extractor.fit({name: np.asarray(values) for name, values in {**table, **columns}.items()})


def run_reliant(**inputs):
    graph = {"node_features": torch.ones(4, 3), "edge_index": torch.zeros(2, 1, dtype=torch.long)}
    return build_reliant()(**graph | inputs)


def evaluate(**options):
    rows = [{"image": IMAGE, "label": 0}]
    model = EmoForImageClassification(EmoConfig(num_labels=2))
    return evaluate_model(model, EmoImageProcessor(), rows, "image-classification", label_names=["a", "b"], **options)


WRONG = {
    # EMO and image processors
    "size": (
        lambda: EmoImageProcessor()(IMAGE, size={"height": -5, "width": 8}),
        r"`size.height` must be at least 1 pixel; got -5",
    ),
    "saved size": (
        lambda: EmoImageProcessor(size={"shortest_edge": 0}),
        r"`size.shortest_edge` must be at least 1 pixel; got 0\. Give a height and a width",
    ),
    "standard deviation": (
        lambda: EmoImageProcessor(image_std=[0.2, 0.0, 0.2]),
        r"`image_std` must be above 0 and finite; got 0\.0\. Switch the step off by `do_normalize=False`",
    ),
    "rescale factor": (
        lambda: EmoImageProcessor()(IMAGE, rescale_factor=float("inf")),
        r"`rescale_factor` must be above 0 and finite; got inf\..*`do_rescale=False`",
    ),
    "label": (lambda: classify_labels([0, 7]), r"`labels` must hold class ids in \[0, 2\) or -100 .*got 7"),
    "depths": (lambda: EmoConfig(depths=[3, 3, 0, 3]), r"`depths` must hold values of at least 1; got \[3, 3, 0, 3\]"),
    "augmentation": (
        lambda: emo.Arguments(augmentation={"erasing_prob": "often"}),
        r"`erasing_prob` in `augmentation` must be a number; got 'often'\. Change it",
    ),
    "switch": (
        lambda: emo.Arguments(
            task="semantic-segmentation", augmentation={"crop_size": [8, 8], "distort_colors": "yes"}
        ),
        r"`distort_colors` in `augmentation` must be true or false; got 'yes'",
    ),
    "batch size": (lambda: evaluate(batch_size=0), r"`batch_size` must be at least 1; got 0"),
    # TinyMIM
    "image size": (lambda: TinyMimConfig(image_size=33), r"`image_size` must be a multiple of .* \(16\); got 33"),
    "relations": (
        lambda: TinyMimConfig(relation_pairs=[["query", "keys"]]),
        r"`relation_pairs` must hold pairs of \['q', 'k', 'v'\]; got \['query', 'keys'\]",
    ),
    "teacher": (
        lambda: TinyMimForPreTraining(TinyMimConfig(image_size=32, patch_size=8)).attach_teacher("vit"),
        "`model` must be a model of transformers; got str",
    ),
    "stage": (
        lambda: tinymim.Arguments(stage="pretrain"),
        r"`stage` must be one of reconstruct, distill, finetune, segment; got 'pretrain'\. Choose",
    ),
    # Cohorts
    "no controls": (
        lambda: fit_cohort(group=["SZ", "BD"] * 15),
        r"must have controls, 'control' in 'group', to compare with; got none",
    ),
    "missing value": (lambda: fit_cohort(x=[float("nan")] + [1.0, 2.0] * 14 + [3.0]), r"no missing values .*rows 0"),
    "person twice": (lambda: fit_cohort(id=["a"] * 30), r"`id` must differ for everybody; 'a' occurs twice"),
    "sizes of embeddings": (
        lambda: MpdSubtypingConfig(num_features=10),
        r"`latent_dims` must be below the 10 columns that encoders read; got 10",
    ),
    "few patients": (
        lambda: MpdSubtypingModel(MpdSubtypingConfig(num_features=12)).fit(torch.randn(9, 12)),
        r"must hold at least 20 patients for 5 base clusters .*got 9",
    ),
    # Graphs
    "walk": (lambda: RawGnnConfig(walk_length=0), "`walk_length` must be at least 1; got 0"),
    "edges": (
        lambda: RawGnnFeatureExtractor()(build_graph(edge_index=np.array([[0.5], [1.0]]))),
        "`edge_index` must hold integers, the ids of nodes; got float64",
    ),
    "class weights": (
        lambda: ReliantConfig(num_labels=2, class_weight=[1.0, -1.0]),
        r"`class_weight` must be 'balanced' or a positive number for each of 2 classes .*got \[1\.0, -1\.0\]",
    ),
    "threshold": (
        lambda: ReliantFeatureExtractor(sensitive_threshold=float("nan")),
        "`sensitive_threshold` must be a finite number.*got nan",
    ),
    "proxy": (lambda: run_reliant(proxy=torch.ones(9)), r"`proxy` must have shape \(2,\) or \(4, 2\); got \(9,\)"),
    # Distilled datasets
    "trigger": (
        lambda: DoorpingConfig(num_labels=3, trigger_size=40),
        r"`trigger_size` and `trigger_margin` must add up to at most `image_size` \(32\); got 40 \+ 1",
    ),
    "target": (
        lambda: DoorpingConfig(num_labels=3, target_label=3),
        r"`target_label` must be in \[0, 3\); got 3",
    ),
    "attacked table": (
        lambda: DistilledDataset(DoorpingConfig(num_labels=3, images_per_class=1, attack="naive")).to_dataset(),
        r"`attack` must be 'naive' for this dataset, which contains a backdoor \(naive\); got None",
    ),
    # Drum LM
    "MIDI": (lambda: read_midi(b""), "`source` must be a readable MIDI file; the given 0 bytes"),
    "velocities": (
        lambda: DrumRoll([[1, 0]], velocities=[[200, 0]], offsets=[[0, 0]]),
        "`velocities` must be from 1 to 127 at each hit; got 200",
    ),
    "backbone": (
        lambda: DrumLmConfig(backbone_config={"model_type": "nothing-known"}),
        "`backbone_config` must have a `model_type` that transformers knows; got 'nothing-known'",
    ),
    "adapter": (
        lambda: drum_lm.Arguments(backbone="some/model", tokenization="text", adapter={"rank": 8}),
        r"`rank` in `adapter` is not an option of `LoraConfig`\. Known: .* and \d+ more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_input_is_answered_by_one_sentence(call, message):
    with pytest.raises((ValueError, TypeError, StrictDataclassError), match=message) as caught:
        call()
    sentence = str(caught.value).rpartition("Error: ")[2] or str(caught.value)  # behind the words of strict classes
    assert "\n" not in sentence.strip()
    assert len(sentence) < LONGEST


# The command line


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    parent = tmp_path_factory.mktemp("models")
    build_model_folder(parent / "images")
    build_drum_folder(parent / "drums")
    IMAGE.save(parent / "image.png")
    (parent / "beat.mid").write_bytes(DrumCodec().to_midi(DrumRoll(np.eye(6, dtype=bool)[np.arange(64) % 6])))
    return parent


COMMANDS = {
    "output folder": (
        ("predict", "drums", "beat.mid", "--output-dir", "image.png"),
        "`--output-dir` must be a folder; got the file 'image.png'",
    ),
    "output file": (("predict", "images", "image.png", "--output", "a.txt"), "must end in .csv or .json; got 'a.txt'"),
    "top k": (("predict", "images", "image.png", "--top-k", "0"), "`--top-k` must be at least 1; got 0"),
    "pitch": (
        ("predict", "drums", "beat.mid", "--pitch-map", "60:tom"),
        "argument --pitch-map: must be a pitch and a drum such as 60=tom, or 60=none; got '60:tom'",
    ),
    "meter": (
        ("predict", "drums", "beat.mid", "--time-signature", "six"),
        "argument --time-signature: must be a time signature such as 6/8, or last; got 'six'",
    ),
    "fill": (
        ("predict", "drums", "beat.mid", "--bars", "4", "--fill", "9"),
        "`--fill` must be new bars of the answer, from 2 to 3, counted from 0; got 9",
    ),
    "temperature": (
        ("predict", "drums", "beat.mid", "--temperature", "-1"), "`--temperature` must be a number from 0 to 1e"
    ),
    "recipe": (("train", "emo/cifar11"), "got 'emo/cifar11'. Did you mean 'emo/cifar10'"),
    "argument": (("train", "emo/cifar10", "--learning_rat", "1"), "`learning_rat` .* Did you mean `learning_rate`"),
    "repository": (
        ("publish", "images", "me/a b", "--dry-run"), "`repo_id` must be '<owner>/<name>' of letters.*; got 'me/a b'"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "message"), COMMANDS.values(), ids=COMMANDS)
def test_a_wrong_option_is_answered_by_one_line(models, monkeypatch, capsys, words, message):
    monkeypatch.chdir(models)
    try:
        code = main(list(words))
    except SystemExit as stop:  # argparse
        code = stop.code

    error = capsys.readouterr().err.strip()
    assert code == 2
    assert "Traceback" not in error
    assert re.search(message, error.splitlines()[-1]), error


def test_a_node_that_does_not_exist_is_named_as_the_option(tmp_path, capsys):
    np.savez(tmp_path / "graph.npz", **build_graph(edge_index=np.array([[0, 1], [1, 2], [2, 3]])))
    RawGnnForNodeClassification(RawGnnConfig(num_features=3)).save_pretrained(tmp_path / "model")
    RawGnnFeatureExtractor(num_features=3).save_pretrained(tmp_path / "model")

    assert main(["predict", str(tmp_path / "model"), str(tmp_path / "graph.npz"), "--nodes", "99"]) == 2
    assert "`--nodes` must hold ids in [0, 4); got 99." in capsys.readouterr().err


def test_a_repository_without_owner_is_refused_before_the_folder_is_read(models, tmp_path):
    shutil.copytree(models / "images", tmp_path / "images")

    with pytest.raises(ValueError, match=r"`repo_id` must be '<owner>/<name>'; got 'emo'\. Put the owner in front"):
        stage_repository(tmp_path / "images", "emo", tmp_path / "staging")
