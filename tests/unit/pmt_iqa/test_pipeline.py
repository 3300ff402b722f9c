"""The pipeline "image-quality-assessment" and `decahub predict`: the same image always gets the same answer."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from transformers import pipeline

from decahub import PmtIqaForImageQualityAssessment, PmtIqaImageProcessor
from decahub.cli.main import main
from tests.tiny.pmt_iqa import CROP_SIZE, tiny_config


TASK = "image-quality-assessment"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = PmtIqaForImageQualityAssessment(tiny_config(calibration=[100.0, 0.0, 0.0, 0.5])).eval()
    model.save_pretrained(folder)
    PmtIqaImageProcessor(crop_size={"height": CROP_SIZE, "width": CROP_SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.RandomState(0)
    for index, size in enumerate([(90, 70), (64, 64), (65, 130), (30, 40)]):
        smooth = Image.fromarray(generator.randint(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size[::-1])
        smooth.save(folder / f"photo_{index}.png")
    return folder


@pytest.fixture
def assess(folder):
    return pipeline(TASK, model=str(folder))


def test_answer_is_json_and_complete(assess, images):
    answer = assess(str(images / "photo_0.png"), return_crops=True, return_quality_map=True)

    assert json.loads(json.dumps(answer)) == answer
    assert answer["num_crops"] == len(answer["crops"]) == 9
    assert sum(answer["level_probs"]) == pytest.approx(1, abs=1e-4)
    assert answer["level"] == int(np.argmax(answer["level_probs"]))
    assert answer["lower_is_better"] is False
    assert np.shape(answer["quality_map"]["scores"]) == (2, 2)  # 96 x 96 pixels after filling up
    assert answer["crops"][0]["box"] == [0, 0, 64, 64]


def test_score_is_calibrated(assess, images):
    image = Image.open(images / "photo_0.png")
    raw = assess.model(**assess.image_processor(image, return_tensors="pt")).score

    assert assess(image)["score"] == pytest.approx(100 / (1 + np.exp(-float(raw) / 0.5)), abs=1e-3)


def test_same_answer_in_any_batch_and_order(assess, images):
    paths = sorted(map(str, images.iterdir()))
    alone = [assess(path) for path in paths]

    assert assess(paths) == alone
    assert assess(paths[::-1], batch_size=3) == alone[::-1]
    assert list(assess(iter(paths))) == alone
    assert assess(str(images)) == alone
    assert assess([Image.open(path) for path in paths]) == alone


def test_same_answer_with_any_number_of_threads(assess, images):
    threads, path = torch.get_num_threads(), str(images / "photo_2.png")
    answers = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        answers.append([assess(path, crop_strategy=strategy)["score"] for strategy in ("grid", "dense")])
    torch.set_num_threads(threads)

    assert answers[0] == answers[1] == answers[2]


def test_same_answer_after_saving(assess, images, tmp_path):
    assess.model.save_pretrained(tmp_path)
    assess.image_processor.save_pretrained(tmp_path)

    again = pipeline(TASK, model=str(tmp_path))

    assert again(str(images / "photo_0.png")) == assess(str(images / "photo_0.png"))


def test_column_of_a_dataset(assess, images):
    paths = sorted(map(str, images.iterdir()))
    rows = Dataset.from_dict({"image": paths}, features=Features(image=ImageFeature()))

    assert assess(rows["image"]) == assess(paths)
    assert assess(rows) == assess(paths)


@pytest.mark.parametrize(("strategy", "num_crops"), [("center", 1), ("five", 5), ("random", 9), ("dense", 4)])
def test_strategies(assess, images, strategy, num_crops):
    path = str(images / "photo_0.png")

    answer = assess(path, crop_strategy=strategy)

    assert answer["num_crops"] == num_crops
    assert answer == assess(path, crop_strategy=strategy)


def test_seed_moves_random_crops(assess, images):
    boxes = [
        assess(str(images / "photo_2.png"), crop_strategy="random", seed=seed, return_crops=True)["crops"][0]["box"]
        for seed in (1, 2)
    ]

    assert boxes[0] != boxes[1]


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ([], {}, ValueError, "`inputs` must hold at least one image"),
        ("photo_9.png", {}, FileNotFoundError, "there is no file '.*photo_9.png'"),
        ("photo_0.png", {"crops": 3}, ValueError, "`crops` must be an option of the pipeline"),
        ("photo_0.png", {"crop_strategy": "dense", "return_crops": True}, ValueError, "`return_crops` must be false"),
        ("photo_3.png", {"small_image": "error"}, ValueError, "at least 64 x 64 pixels"),
    ],
    ids=["empty", "missing", "option", "dense", "small"],
)
def test_refuses(assess, images, inputs, options, error, message):
    with pytest.raises(error, match=message):
        assess(str(images / inputs) if inputs else inputs, **options)


@pytest.mark.parametrize("inputs", [None, 5, b"png", [5], [["a.png"]], {"photo": "a.png"}], ids=repr)
def test_refuses_what_is_no_image(assess, inputs):
    with pytest.raises(TypeError, match="`inputs` must be images: .*; got (NoneType|int|bytes|list|dict)"):
        assess(inputs)


@pytest.mark.parametrize(
    "options",
    [{"seed": 3}, {"seed": 3, "crop_strategy": "center"}, {"num_crops": 4, "crop_strategy": "five"}],
    ids=["grid", "center", "five"],
)
def test_refuses_options_without_effect(assess, images, options):
    with pytest.raises(ValueError, match=r"`(seed|num_crops)` must come with `crop_strategy` .*random; got it with"):
        assess(str(images / "photo_0.png"), **options)


def test_options_of_the_pipeline_hold_until_a_call_changes_them(assess, folder, images):
    path = str(images / "photo_0.png")
    built = pipeline(TASK, model=str(folder), num_crops=4, return_crops=True)

    assert built(path) == assess(path, num_crops=4, return_crops=True)
    assert built(path, return_crops=False) == assess(path, num_crops=4)
    assert built(path, crop_strategy="random", seed=1) == assess(
        path, num_crops=4, crop_strategy="random", seed=1, return_crops=True
    )
    assert len(built(path, num_crops=1)["crops"]) == 1


def test_predict_refuses_a_number_of_crops_without_effect(folder, images, capsys):
    assert main(["predict", str(folder), str(images), "--num-crops", "4", "--crop-strategy", "five"]) == 2
    assert "`--num-crops` must come with `--crop-strategy` grid or random; got it with five" in capsys.readouterr().err


def test_predict_ranks_a_folder(folder, images, tmp_path, capsys):
    output_dir = tmp_path / "ranking"

    code = main(["predict", str(folder), str(images), "--output-dir", str(output_dir), "--num-crops", "4"])

    assert code == 0
    rows = list(csv.DictReader((output_dir / "ranking.csv").open()))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert Image.open(output_dir / "contact_sheet.png").size == (4 * 168 + 8, 186 + 8)
    assert rows[0]["image"] in capsys.readouterr().out


def test_predict_names_a_damaged_image_and_ranks_the_others(folder, images, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")

    code = main(["predict", str(folder), str(images / "photo_0.png"), str(broken)])

    assert code == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_predict_refuses_to_overwrite(folder, images, tmp_path, capsys):
    (tmp_path / "ranking.csv").write_text("mine")

    assert main(["predict", str(folder), str(images), "--output-dir", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_predict_replaces_no_input_and_ranks_no_contact_sheet(folder, images, tmp_path, capsys):
    photos = shutil.copytree(images, tmp_path / "photos")
    sheet = photos / "contact_sheet.png"
    words = ["predict", str(folder), "--output-dir", str(photos), "--overwrite"]
    for _ in range(2):
        assert main([*words, str(photos)]) == 0
        assert "contact_sheet" not in capsys.readouterr().out
    before = sheet.read_bytes()

    assert main([*words, str(sheet)]) == 2

    assert f"`{sheet}` is one of the inputs. Choose another `--output-dir`." in capsys.readouterr().err
    assert sheet.read_bytes() == before


def test_predict_ranks_dmos_from_low_to_high(folder, images, tmp_path):
    model = PmtIqaForImageQualityAssessment.from_pretrained(folder)
    model.config.lower_is_better = True
    model.save_pretrained(tmp_path / "model")
    PmtIqaImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "model")

    main(["predict", str(tmp_path / "model"), str(images), "--output", str(tmp_path / "answers.csv")])

    scores = [float(row["score"]) for row in csv.DictReader((tmp_path / "answers.csv").open())]
    assert scores == sorted(scores)
