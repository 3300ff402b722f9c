"""`load_dataset`: sources in their order, columns, and one clear sentence for every error."""

from dataclasses import fields

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from decahub.data import DATASETS, IGNORE_INDEX, load_dataset
from decahub.data.loading import DATA_DIR_VARIABLE


OPTIONAL_FIELDS = (
    "columns", "label_names", "void_label", "hub_id", "hub_columns", "hub_note", "builder", "split_names", "sensitive",
    "sensitive_names", "degree_features", "novel_labels",
)  # fmt: skip
FEATURES = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "eel"])}


def make_image(value, mode="RGB", size=(7, 5)):
    return Image.new(mode, size, value)


def write_splits(folder, splits=("train", "test"), columns=None, features=None):
    """Parquet files with as many rows as their place in `splits`, plus one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(splits, start=2):
        rows = columns or {"image": [make_image((9, 8, 7))] * number, "label": list(range(number))}
        datasets.Dataset.from_dict(rows, features=datasets.Features(features or FEATURES)).to_parquet(
            folder / f"{split}.parquet"
        )
    return folder


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


@pytest.mark.parametrize("entry", DATASETS.values(), ids=DATASETS)
def test_entry_is_complete(entry):
    required = [field.name for field in fields(entry) if field.name not in OPTIONAL_FIELDS]

    assert [name for name in required if not getattr(entry, name)] == []


def test_catalog_imports_no_library(run_python):
    output = run_python(
        "import sys, decahub.data.catalog; print([m for m in ('torch', 'datasets', 'numpy') if m in sys.modules])"
    )

    assert output.strip() == "[]"


def test_reads_the_explicit_directory(tmp_path):
    write_splits(tmp_path / "cifar10")

    loaded = load_dataset("cifar10", tmp_path)

    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "test": 3}
    assert loaded["test"][2]["label"] == 2
    assert loaded["test"][2]["image"].size == (7, 5)


def test_explicit_directory_wins_over_the_variable(tmp_path, monkeypatch):
    write_splits(tmp_path / "variable" / "cifar10", splits=("train", "test"))
    write_splits(tmp_path / "explicit" / "cifar10", splits=("test", "train"))
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "variable"))

    assert len(load_dataset("cifar10", tmp_path / "explicit")["test"]) == 2
    assert len(load_dataset("cifar10")["test"]) == 3


def test_absent_data_lists_every_path_tried(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("sign_digits", tmp_path)

    for split in ("train", "validation", "test"):
        assert str(tmp_path / "sign_digits" / f"{split}.parquet") in str(error.value)


def test_absent_explicit_directory_does_not_fall_back_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: pytest.fail("asked the Hub"))

    with pytest.raises(FileNotFoundError, match="cifar10"):
        load_dataset("cifar10", tmp_path)


def test_names_the_hub_repository_when_offline(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))

    with pytest.raises(FileNotFoundError, match=r"cifar10/train\.parquet.*Hub repository uoft-cs/cifar10"):
        load_dataset("cifar10")


def test_says_what_to_set_where_nothing_could_be_tried():
    with pytest.raises(FileNotFoundError, match=rf"tried nowhere.*Set `--data-dir` or \${DATA_DIR_VARIABLE}"):
        load_dataset("camvid")


def test_hub_columns_are_renamed(monkeypatch):
    rows = datasets.Dataset.from_dict(
        {"img": [make_image((1, 2, 3))], "label": [1]},
        datasets.Features(img=FEATURES["image"], label=FEATURES["label"]),
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or datasets.DatasetDict(test=rows))

    loaded = load_dataset("cifar10")

    assert (asked, loaded["test"].column_names) == (["uoft-cs/cifar10"], ["image", "label"])


def test_void_pixels_become_the_ignored_label(tmp_path):
    mask = np.array([[0, 11, 3], [10, 11, 255]], dtype=np.uint8)
    write_splits(
        tmp_path / "camvid",
        splits=("train", "val", "test"),
        columns={"image": [make_image(5)], "mask": [Image.fromarray(mask)], "name": ["frame"]},
        features={"image": datasets.Image(), "mask": datasets.Image(), "name": datasets.Value("string")},
    )

    loaded = load_dataset("camvid", tmp_path)

    row = loaded["validation"][0]
    assert np.array(row["annotation"]).tolist() == [[0, IGNORE_INDEX, 3], [10, IGNORE_INDEX, 255]]
    assert row["name"] == "frame"


@pytest.mark.parametrize(
    ("columns", "features", "kind", "message"),
    [
        (
            {"photo": [make_image(1)], "label": [0]},
            {"photo": datasets.Image(), "label": FEATURES["label"]},
            ValueError,
            "column `image` is missing from split 'train'.*it has photo, label.*rename_column",
        ),
        (
            {"image": [make_image(1)], "label": [0]},
            {"image": datasets.Image(), "label": datasets.Value("int64")},
            TypeError,
            "column `label` of split 'train'.*must be a `datasets.ClassLabel`; got Value.*cast_column",
        ),
        (
            {"image": [make_image(1)] * 3, "label": [0, 2, -1]},
            FEATURES,
            ValueError,
            r"column `label` of split 'train'.*must hold class ids in \[0, 3\); got -1 in row 2",
        ),
        (
            {"image": [make_image(1)] * 2, "label": [1, None]},
            FEATURES,
            ValueError,
            "got None in row 1",
        ),
    ],
    ids=["missing column", "wrong type", "unlabeled", "null label"],
)
def test_refuses_bad_columns(tmp_path, columns, features, kind, message):
    folder = write_splits(tmp_path / "mine", splits=("train",), columns=columns, features=features)

    with pytest.raises(kind, match=message):
        load_dataset(folder, family="image-classification")


def test_refuses_label_out_of_range(tmp_path):
    three_names = datasets.Features(FEATURES).arrow_schema.metadata
    four_names = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c", "d"]))
    rows = datasets.Dataset.from_dict({"image": [make_image(1)] * 2, "label": [1, 3]}, features=four_names)
    pq.write_table(rows.data.table.replace_schema_metadata(three_names), tmp_path / "train.parquet")

    with pytest.raises(ValueError, match=r"must hold class ids in \[0, 3\); got 3 in row 1"):
        load_dataset(tmp_path, family="image-classification")


def test_reads_own_image_folder(tmp_path):
    for split, name in (("train", "ant"), ("train", "bee"), ("test", "ant"), ("test", "bee")):
        path = tmp_path / split / name / "one.png"
        path.parent.mkdir(parents=True)
        make_image((1, 2, 3)).save(path)

    loaded = load_dataset(tmp_path, family="image-classification")

    assert loaded["test"].features["label"].names == ["ant", "bee"]


def test_own_data_needs_a_family(tmp_path):
    with pytest.raises(
        ValueError, match="`family` must be one of cohorts, drum-generation, few-shot-instance-segmentation, image-"
    ):
        load_dataset(write_splits(tmp_path / "mine"))


def test_refuses_another_family_for_a_known_name():
    with pytest.raises(ValueError, match="`family` of 'cifar10' must be 'image-classification'; got 'semantic"):
        load_dataset("cifar10", family="semantic-segmentation")


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"got 'cifar-10'\. Did you mean 'cifar10'"):
        load_dataset("cifar-10", family="image-classification")


@pytest.mark.parametrize("name", ["no/such/folder", "/no_such_folder"])
def test_absent_own_folder_is_named(name):
    with pytest.raises(FileNotFoundError, match=r"`.*` was not found; tried the folder .*no"):
        load_dataset(name, family="image-classification")


def test_sklearn_digits_has_a_fixed_stratified_split():
    loaded, again = load_dataset("sklearn_digits"), load_dataset("sklearn_digits")
    shares = [np.bincount(rows["label"][:]) / len(rows) for rows in loaded.values()]

    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1437, "test": 360}
    assert np.abs(shares[0] - shares[1]).max() < 1 / 360  # at most one image of difference
    assert loaded["test"]["label"][:] == again["test"]["label"][:]


def test_sklearn_digits_keep_their_gray_values():
    from sklearn.datasets import load_digits

    loaded = load_dataset("sklearn_digits")

    pixels = {(np.array(row["image"]).tobytes(), row["label"]) for rows in loaded.values() for row in rows}
    original = load_digits()
    scaled = np.round(original.images * 255 / 16).astype(np.uint8)
    assert pixels == {(image.tobytes(), label) for image, label in zip(scaled, original.target, strict=True)}
