"""The audit: rows for every network, verdicts by clean predictions and control, one page, and what is refused."""

import json
import re

import pytest
import torch

from decahub import DistilledDataset
from decahub.cli.main import main
from decahub.procedures.audit_page import encode_image
from decahub.procedures.doorping_audit import audit_distilled_dataset, decide, measure_network, train_network
from tests.tiny.doorping import tiny_config
from tests.unit.procedures.test_doorping import NAMES, build_rows


NAMED = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
QUICK = ("strip", "quantization", "spectral_signatures", "fine_tuning")


def build(seed=0, **fields) -> DistilledDataset:
    torch.manual_seed(seed)
    return DistilledDataset(tiny_config(**{"algorithm": "dd", "distill_learning_rate": 0.1, **NAMED, **fields}))


@pytest.fixture(scope="module")
def rows():
    return build_rows(9, seed=1)


@pytest.fixture(scope="module")
def report(rows):
    return audit_distilled_dataset(build(attack="doorping"), rows, control=build(), num_networks=2, defenses=QUICK)


def test_report_has_a_row_for_each_network(report):
    assert [(row["architecture"], row["seed"]) for row in report.networks] == [("own", 0), ("own", 1)]
    assert report.networks[0]["num_non_target"] == 27
    assert report.networks[0]["asr_control"] is not None
    assert [result.name for result in report.defenses] == list(QUICK)
    assert "no" in report.verdict or "backdoor" in report.verdict


def test_few_images_of_a_class_give_no_verdict(report):
    result = next(result for result in report.defenses if result.name == "spectral_signatures")

    assert not result.applicable
    assert "only 3 images of a class" in result.reason


def test_page_holds_its_images_and_no_address(report, tmp_path):
    page = report.save(tmp_path / "audit")

    text = page.read_text()
    assert text.count("data:image/png;base64,") == len(report.images) >= 2
    assert not re.search(r"https?://", text)
    assert "It is not a certificate" in text
    content = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert content["verdict"] == report.verdict
    assert sorted(path.name for path in page.parent.iterdir()) == ["audit.html", "audit.json"]


def test_tables_have_the_numbers_of_the_report(report):
    text = report.to_markdown()

    assert f"{report.networks[1]['cta']:.3f}" in text
    assert "| spectral_signatures | dataset | no verdict |" in text


def test_networks_of_a_set_are_the_same_for_a_seed():
    distilled = build(algorithm="dc")

    first, second, other = (train_network(distilled, epochs=2, seed=seed) for seed in (0, 0, 1))

    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.features[0].weight, other.features[0].weight)


def test_training_on_other_images_leaves_the_set_alone():
    distilled = build(algorithm="dc")
    before = distilled.synthetic_images.detach().clone()

    changed = train_network(distilled, epochs=2, images=before + 1)
    own = train_network(distilled, epochs=2)

    assert torch.equal(distilled.synthetic_images, before)
    assert not torch.equal(changed.features[0].weight, own.features[0].weight)


def test_scores_are_those_of_stamped_images(rows):
    distilled = build(attack="naive", target_label=1)
    network = train_network(distilled)
    images, labels = torch.randn(20, 3, 12, 12), torch.arange(20) % 4

    scores = measure_network(distilled, network, None, images, labels)

    with torch.no_grad():
        triggered = network(distilled.apply_trigger(images)).logits.argmax(1)
    others = labels != 1
    assert scores["asr_non_target"] == pytest.approx(float((triggered[others] == 1).double().mean()))
    assert scores["asr_control"] is None


def judge(attack="doorping", **scores):
    row = {"architecture": "own", "num_non_target": 900, "clean_target_rate": 0.03, "asr_control": 0.05}
    return decide(build(attack=attack), [{**row, "asr_non_target": 0.9, "asr_quantized": 0.04, **scores}])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "is a backdoor .* does not work as an image of 8 bits"),
        ({"asr_quantized": 0.85}, "is a backdoor .* works as an image of 8 bits, too"),
        ({"asr_control": 0.91}, "fools networks of a clean set as often: it is a strong patch"),
        ({"asr_control": None}, "Without a control it is undecided"),
        ({"asr_non_target": 0.035}, "no more often than clean images"),
        ({"asr_non_target": None}, "^Undecided"),
        ({"attack": None, "asr_non_target": 0.02}, "^A white patch in the corner leads .* no more often"),
    ],
    ids=["unclamped", "survives", "strong patch", "no control", "no effect", "no images", "clean"],
)
def test_verdict(scores, message):
    assert re.search(message, judge(**scores))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architectures": ["resnet50"]}, "`architectures` must be among own, convnet, .*; got 'resnet50'"),
        ({"architectures": []}, "`architectures` must be among .*; got 'none'"),
        ({"defenses": ["prayer"]}, "`defenses` must be among neural_cleanse, .*; got 'prayer'"),
        ({"num_networks": 0}, "`num_networks` must be at least 1; got 0"),
        ({"epochs": -1}, "`epochs` must be at least 1; got -1"),
        ({"epochs": 30}, "`epochs` must be left out for a set of DD, which has steps of its own"),
        ({"control": build(attack="naive")}, "`control` must be a clean set; got one with the attack 'naive'"),
        ({"control": build(image_size=14)}, r"`control` must have the `image_size` of the set \(12\); got 14"),
    ],
    ids=[
        "architecture",
        "no architecture",
        "defense",
        "networks",
        "epochs",
        "epochs of DD",
        "attacked control",
        "other control",
    ],
)
def test_refuses(options, message, rows):
    with pytest.raises(ValueError, match=message):
        audit_distilled_dataset(build(), rows, **options)


def test_refuses_other_classes(rows):
    names = ["ant", "bee", "cow", "dog"]
    distilled = build(id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})
    with pytest.raises(ValueError, match="`dataset` must have the classes of the set, ant, bee, cow, dog; got ant"):
        audit_distilled_dataset(distilled, rows)


def test_command_writes_the_page(tmp_path, capsys):
    build(attack="naive").save_pretrained(tmp_path / "set")
    for row_number, row in enumerate(build_rows(4)):
        folder = tmp_path / "data" / "test" / NAMES[row["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{row_number}.png")
    words = ["audit", str(tmp_path / "set"), "--dataset", str(tmp_path / "data"), "--defenses", "strip"]

    assert main([*words, "--output-dir", str(tmp_path / "audit")]) == 0

    output = capsys.readouterr().out
    assert "| own | 0 |" in output
    assert (tmp_path / "audit" / "audit.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "`--limit` must be at least 1; got 0"),
        (["--epochs", "-1"], "`epochs` must be at least 1; got -1."),
        (["--epochs", "30"], "`epochs` must be left out for a set of DD, which has steps of its own."),
        (["--defenses", "prayer"], "got 'prayer'"),
    ],
)
def test_command_refuses(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build().save_pretrained("set")

    assert main(["audit", "set", "--dataset", "cifar10", *words]) == 2
    assert message in capsys.readouterr().err


def test_command_keeps_a_report_that_is_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build().save_pretrained("set")
    for name in ("audit/audit.html", "other/audit.json", "file.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    words = ["audit", "set", "--dataset", "nowhere"]

    assert [main([*words, *more]) for more in ([], ["--output-dir", "other"], ["--output-dir", "file.txt"])] == [2] * 3
    messages = capsys.readouterr().err
    replace = "exists already. Choose another `--output-dir`, or replace it with `--overwrite`."
    assert f"`audit/audit.html` {replace}" in messages
    assert f"`other/audit.json` {replace}" in messages
    assert "`--output-dir` must be a folder; got the file 'file.txt'." in messages

    assert main([*words, "--overwrite"]) == 2
    assert "'nowhere'" in capsys.readouterr().err  # it gets as far as the data


def test_images_are_png():
    address = encode_image(torch.rand(1, 3, 5))

    assert address.startswith("data:image/png;base64,iVBOR")
