"""Names of classes: which source comes first, and what happens without any."""

import datasets
import pytest

from decahub.data import DATASETS, get_label_names


def build_rows(feature):
    return datasets.Dataset.from_dict({"label": [0, 1]}, features=datasets.Features({"label": feature}))


ROWS = build_rows(datasets.ClassLabel(names=["cat", "dog"]))


def test_given_names_come_before_the_catalog_and_the_rows():
    assert get_label_names("cifar10", ROWS, ["a", "b"]) == ["a", "b"]


def test_names_of_the_catalog_come_before_those_of_the_rows():
    assert get_label_names("cifar10", ROWS) == list(DATASETS["cifar10"].label_names)


def test_a_data_set_of_ones_own_is_read():
    assert get_label_names("images", ROWS) == ["cat", "dog"]


def test_rows_without_names_are_refused():
    with pytest.raises(ValueError, match="`label_names` must name the classes of 'images'"):
        get_label_names("images", build_rows(datasets.Value("int64")))
