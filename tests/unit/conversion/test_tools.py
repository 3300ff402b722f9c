"""What all converters share: tables of names and the deterministic fill."""

import pytest
import torch

from conversion.checkpoint import find_changed_tensors, strip_prefix
from conversion.deterministic_fill import fill_input, fill_labels, fill_tensor
from conversion.name_map import NameMap


ROWS = [
    ("stem.*", "patch_embedding.*"),
    ("stage{stage+1}.{block}.conv.*", "stages.{stage}.blocks.{block}.convolution.*"),
    ("scale.{level}.{2*place}.*", "levels.{level}.{place}.*"),
]


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("stem.weight", "patch_embedding.weight"),
        ("stage1.0.conv.running_mean", "stages.0.blocks.0.convolution.running_mean"),
        ("stage10.11.conv.bias", "stages.9.blocks.11.convolution.bias"),
        ("scale.3.4.weight", "levels.3.2.weight"),
    ],
)
def test_names_translate_both_ways(official, ours):
    name_map = NameMap(ROWS)

    assert name_map.convert(official) == ours
    assert name_map.revert(ours) == official


@pytest.mark.parametrize(
    "name",
    ["stage0.0.conv.weight", "scale.3.3.weight", "stage1.x.conv.weight", "stage01.0.conv.weight", "stem.a.weight", ""],
    ids=["below-offset", "no-multiple", "no-number", "leading-zero", "too-deep", "empty"],
)
def test_refuses_names_of_no_row(name):
    with pytest.raises(ValueError, match=f"'{name}' matches none of 3"):
        NameMap(ROWS).convert(name)


def test_refuses_rows_with_different_placeholders():
    with pytest.raises(ValueError, match="equal placeholders; got 'a.{block}'"):
        NameMap([("a.{block}", "b.{stage}")])


def test_fill_is_the_documented_stream():
    # The CRC-32 of "head.bias" is 976205810, and RandomState(976205810).random_sample(3) is:
    uniform = torch.tensor([0.12456425, 0.79392195, 0.26031572])

    filled = fill_tensor("head.bias", (3,))

    torch.testing.assert_close(filled, 0.4 * (uniform - 0.5), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("name", "shape", "low", "high"),
    [
        ("norm.running_mean", (500,), -0.2, 0.2),
        ("norm.running_var", (500,), 0.5, 1.5),
        ("norm.weight", (500,), 0.5, 1.5),
        ("conv.weight", (50, 3, 2, 2), -0.5, 0.5),
        ("input_is_no_entry.bias", (20, 25), -0.2, 0.2),
    ],
)
def test_fill_fits_the_kind_of_tensor(name, shape, low, high):
    filled = fill_tensor(name, shape)

    assert filled.dtype == torch.float32
    assert low <= filled.min() < low + 0.05
    assert high - 0.05 < filled.max() <= high


def test_fill_counts_batches():
    filled = fill_tensor("norm.num_batches_tracked", ())

    assert filled.dtype == torch.int64
    assert filled.item() == 7


def test_salt_changes_everything_but_counters():
    assert not torch.equal(fill_tensor("a.weight", (3, 2)), fill_tensor("a.weight", (3, 2), salt="s"))
    assert torch.equal(fill_tensor("a.weight", (3, 2), salt="s"), fill_tensor("sa.weight", (3, 2)))


def test_inputs_have_unit_variance_and_labels_their_range():
    pixels, labels = fill_input("case", (2, 3, 40, 50)), fill_labels("case", (400,), 7)

    assert pixels.var().item() == pytest.approx(1, abs=0.02)
    assert labels.unique().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("after", "is_changed"),
    [
        (torch.tensor([0.0, float("nan")]), False),
        (torch.tensor([-0.0, float("nan")]), True),
        (torch.tensor([0.0, 1.0]), True),
        (torch.tensor([[0.0, float("nan")]]), True),
        (torch.tensor([0.0, float("nan")]).double(), True),
    ],
    ids=["same", "sign-of-zero", "value", "shape", "type"],
)
def test_comparison_sees_every_bit(after, is_changed):
    before = torch.tensor([0.0, float("nan")])

    assert find_changed_tensors({"a": before}, {"a": after}) == (["a"] if is_changed else [])


def test_comparison_sees_absent_tensors():
    tensor = torch.zeros(())

    assert find_changed_tensors({"a": tensor, "b": tensor}, {"b": tensor, "c": tensor}) == ["a", "c"]


def test_prefix_is_stripped_only_if_all_names_have_it():
    tensor = torch.zeros(1)

    assert list(strip_prefix({"module.module.a": tensor, "module.module.b": tensor}, "module.")) == ["a", "b"]
    assert list(strip_prefix({"module.a": tensor, "b": tensor}, "module.")) == ["module.a", "b"]
