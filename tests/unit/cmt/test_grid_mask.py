"""GridMask: stripes, their share, seeds."""

import pytest
import torch

from decahub.models.cmt.camera.grid_mask import apply_grid_mask, sample_grid_mask


def test_mask_is_a_union_of_rows_and_columns():
    for seed in range(20):
        mask = sample_grid_mask(13, 17, torch.Generator().manual_seed(seed))

        rows, columns = mask.all(1), mask.all(0)
        assert torch.equal(mask, rows[:, None] | columns)
        assert not rows.all()
        assert not columns.all()


def test_stripes_are_periodic_and_half_as_wide_as_the_period():
    for seed in range(20):
        mask = sample_grid_mask(60, 400, torch.Generator().manual_seed(seed))

        columns = mask.all(0).int()
        starts = (columns.diff() == 1).nonzero().flatten()
        ends = (columns.diff() == -1).nonzero().flatten()
        period = int(starts.diff()[0])
        assert starts.diff().eq(period).all()
        width = int(ends[ends > starts[0]][0] - starts[0])
        assert width == min(int(period / 2 + 0.5), period - 1)
        assert 2 <= period < 60


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (0.7, 0.7), (1.0, 1)])
def test_grid_is_applied_as_often_as_asked(probability, expected):
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.ones(1, 1, 1, 8, 9)

    applied = [bool((apply_grid_mask(pixel_values, generator, probability) == 0).any()) for _ in range(400)]

    assert sum(applied) / 400 == pytest.approx(expected, abs=0.07)


def test_all_cameras_share_a_mask_and_input_stays():
    pixel_values = torch.randn(2, 3, 3, 10, 12)
    before = pixel_values.clone()

    masked = apply_grid_mask(pixel_values, torch.Generator().manual_seed(1), probability=1)

    kept = masked != 0
    assert torch.equal(kept, kept[:1, :1, :1].expand_as(kept))
    assert torch.equal(masked[kept], pixel_values[kept])
    assert torch.equal(pixel_values, before)


def test_seed_decides():
    pixel_values = torch.ones(3, 20, 30)

    first, second = (apply_grid_mask(pixel_values, torch.Generator().manual_seed(5), 1) for _ in range(2))

    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.5}, r"`probability` must lie in \[0, 1\]; got 1.5"),
        ({}, "`height` must be at least 3; got 2"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        apply_grid_mask(torch.ones(3, 2, 5), torch.Generator().manual_seed(0), **{"probability": 1, **arguments})
