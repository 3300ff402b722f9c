"""Each script of DoorPing runs from end to end on a tiny folder, and what it writes loads."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from decahub import DistilledDataset
from tests.unit.procedures.test_doorping import CONFIG, NAMES, build_rows

from . import scripts
from .scripts import EXAMPLES, run


SCRIPTS = EXAMPLES / "doorping"
PROCESSOR = "{size: {height: 12, width: 12}}"


@pytest.fixture
def words(tmp_path):
    for split, number in (("train", 6), ("test", 3)):
        for index, row in enumerate(build_rows(number)):
            folder = tmp_path / "data" / split / NAMES[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            row["image"].save(folder / f"{index}.png")
    config = json.dumps({**CONFIG, "algorithm": "dd", "attack": "doorping"})
    return [
        "--dataset", tmp_path / "data",
        "--card_license", "mit",
        "--processor", PROCESSOR,
        "--config", config,
        "--max_steps", "3",
        "--per_device_train_batch_size", "8",
    ]  # fmt: skip


def test_train_writes_a_set_that_loads(words, tmp_path):
    run(SCRIPTS / "train.py", "doorping/fashion_mnist_doorping", *words, "--output_dir", tmp_path / "run")

    folder = tmp_path / "run" / "model"
    distilled = DistilledDataset.from_pretrained(folder)
    assert distilled.config.attack == "doorping"
    assert distilled.train_classifier()(torch.zeros(2, 3, 12, 12)).logits.shape == (2, 4)
    card = (folder / "README.md").read_text()
    assert card.index("Contains a deliberate backdoor") < card.index("## Scores")
    assert "- backdoor\n" in card


def test_decahub_train_does_as_the_script(words, tmp_path):
    words = ["doorping/fashion_mnist_doorping", *words]

    output = scripts.decahub("train", *words, "--output_dir", tmp_path / "command")
    expected = run(SCRIPTS / "train.py", *words, "--output_dir", tmp_path / "script")

    assert output.replace("/command/", "/script/").startswith(expected)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("command", "script"))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_reproduce_compares_attacks_and_keeps_runs(words, tmp_path):
    results = tmp_path / "results"
    plan = [{"dataset": str(tmp_path / "data"), "distiller": "DD", "attacks": ["clean", "DoorPing"], "seeds": [0]}]
    options = ["--plan", json.dumps(plan), "--transfer", "{DD: [convnet]}", "--results_dir", results]
    fields = {key: value for key, value in CONFIG.items() if key != "outer_loops"}
    words = [*words[4:6], "--config", json.dumps(fields), *words[8:], *options, "--output_dir", tmp_path / "runs"]

    run(SCRIPTS / "reproduce.py", "doorping/reproduce", *words)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")}
    run(SCRIPTS / "reproduce.py", "doorping/reproduce", *words)

    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.json")} == first
    main = json.loads((results / "doorping.json").read_text())
    assert {row["model"] for row in main["rows"]} == {"DD: clean", "DD: DoorPing"}
    control = json.loads((results / "doorping_control.json").read_text())
    assert [part["second"] for part in control["comparisons"]] == [
        "DD: DoorPing, on clean networks", "DD: DoorPing, as an 8-bit image", "DD: DoorPing, without trigger"
    ]  # fmt: skip
    models = {row["model"] for row in json.loads((results / "doorping_defenses.json").read_text())["rows"]}
    assert "DD: DoorPing: neural_cleanse" in models


def test_train_classifier_writes_a_classifier_that_knows_what_it_learned_from(words, tmp_path):
    run(SCRIPTS / "train.py", "doorping/fashion_mnist_doorping", *words, "--output_dir", tmp_path / "run")
    words = [*words[:4], "--distilled", tmp_path / "run" / "model", "--output_dir", tmp_path / "classifier"]

    with pytest.raises(ValueError, match="`card_limits` must say"):
        run(SCRIPTS / "train_classifier.py", *words)
    run(SCRIPTS / "train_classifier.py", *words, "--card_limits", "It has a backdoor.")

    folder = tmp_path / "classifier" / "model"
    network = AutoModelForImageClassification.from_pretrained(folder)
    distilled = DistilledDataset.from_pretrained(tmp_path / "run" / "model")
    images = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(network(images).logits, distilled.train_classifier()(images).logits)
    assert set(network.config.label2id) == set(NAMES)
    assert "It has a backdoor." in (folder / "README.md").read_text()
