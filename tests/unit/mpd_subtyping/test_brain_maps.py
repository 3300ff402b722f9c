"""NIfTI maps become tables; maps of another space are refused."""

import numpy as np
import pytest

from decahub.models.mpd_subtyping.brain_maps import read_maps


nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
SHAPE, AFFINE = (3, 4, 5), np.diag([2.0, 2.0, 3.0, 1.0])


def write(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, dtype=np.float64), affine), path)
    return path


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, SHAPE)
    maps = [2 + generator.random(SHAPE) for _ in range(2)]
    return {
        "labels": labels,
        "maps": maps,
        "atlas": write(tmp_path / "atlas.nii.gz", labels),
        "paths": [write(tmp_path / f"{index}.nii.gz", values) for index, values in enumerate(maps)],
    }


def test_means_of_regions(files):
    features, names = read_maps(files["paths"], atlas=files["atlas"])

    assert names == ["region_1", "region_2"]
    for row, values in zip(features, files["maps"], strict=True):
        expected = [values[files["labels"] == label].mean() for label in (1, 2)]
        np.testing.assert_allclose(row, expected)


@pytest.mark.parametrize("normalization", [None, "mALFF", "zALFF"])
def test_voxels_of_a_mask(files, normalization):
    features, names = read_maps(files["paths"], mask=files["atlas"], normalization=normalization)

    inside = files["labels"] != 0
    assert features.shape == (2, inside.sum()) == (2, len(names))
    values = files["maps"][1][inside]
    expected = {"mALFF": values / values.mean(), "zALFF": (values - values.mean()) / values.std(), None: values}
    np.testing.assert_allclose(features[1], expected[normalization])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones((3, 4, 6))}, r"the shape \(3, 4, 5\) of the mask or atlas; .* has \(3, 4, 6\)"),
        ({"affine": np.diag([2.0, 2.0, 3.01, 1.0])}, "the affine of the mask or atlas; .* differs by 0.01"),
        ({"values": np.full(SHAPE, np.nan)}, "must be finite within the mask or atlas"),
    ],
    ids=["shape", "affine", "NaN"],
)
def test_refuses_a_map(files, tmp_path, change, message):
    path = write(tmp_path / "odd.nii.gz", **{"values": np.ones(SHAPE), **change})

    with pytest.raises(ValueError, match=message):
        read_maps([files["paths"][0], path], atlas=files["atlas"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of `mask` and `atlas` must be given"),
        ({"mask": "m.nii", "atlas": "a.nii"}, "one of `mask` and `atlas` must be given"),
        ({"mask": "m.nii", "normalization": "fALFF"}, "`normalization` must be one of .*got 'fALFF'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        read_maps(["map.nii"], **options)
