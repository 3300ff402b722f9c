"""The catalog against the files it describes; needs `DECAHUB_DATA_DIR`."""

import numpy as np
import pytest

from decahub.data import DATASETS, IGNORE_INDEX, load_dataset


def test_cifar10_is_the_described_one(data_dir):
    loaded = load_dataset("cifar10", data_dir)

    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 50_000, "test": 10_000}
    assert loaded["train"][:10]["label"] == [1, 1, 6, 0, 4, 7, 2, 8, 0, 1]  # check values of the data's README
    assert tuple(loaded["train"].features["label"].names) == DATASETS["cifar10"].label_names


@pytest.mark.parametrize("name", ["fashion_mnist", "sign_digits"])
def test_catalog_names_the_classes_of_the_files(data_dir, name):
    loaded = load_dataset(name, data_dir)

    assert {tuple(rows.features["label"].names) for rows in loaded.values()} == {DATASETS[name].label_names}


def test_camvid_has_eleven_classes_and_ignored_pixels(data_dir):
    loaded = load_dataset("camvid", data_dir)

    values = set(np.unique([np.array(row["annotation"]) for row in loaded["validation"]]).tolist())
    assert values == {*range(len(DATASETS["camvid"].label_names)), IGNORE_INDEX}
