"""NIfTI maps of people, such as ALFF, to a table: voxels of a mask, or means of the regions of an atlas."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np


NORMALIZATIONS = (None, "mALFF", "zALFF")
AFFINE_TOLERANCE = 1e-3  # millimeters


def read_maps(
    paths: Sequence[str | os.PathLike],
    *,
    mask: str | os.PathLike | None = None,
    atlas: str | os.PathLike | None = None,
    normalization: str | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Features of one map for each person.

    Args:
        paths (`Sequence`): Files of the maps, all in one space.
        mask (path, *optional*): Map whose nonzero voxels are the features, and over which maps are normalized.
        atlas (path, *optional*): Map of whole numbers; the mean of each number but 0 is a feature. One of `mask` and
            `atlas` must be given.
        normalization (`str`, *optional*): `"mALFF"` divides a map by its mean in the mask, or in the atlas;
            `"zALFF"` subtracts the mean and divides by the standard deviation.

    Returns:
        `tuple`: `np.ndarray` of shape `(people, features)`, and the names of the features.

    Raises:
        ImportError: If `nibabel` is not installed.
        ValueError: If a map has another shape or affine, is not finite in the mask, or the mask is empty.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"`normalization` must be one of {', '.join(map(str, NORMALIZATIONS))}; got {normalization!r}."
        )
    if (mask is None) == (atlas is None):
        raise ValueError("one of `mask` and `atlas` must be given; got both or neither.")
    if not len(paths):
        raise ValueError("`paths` must name at least one map; got none.")
    space, affine = _load(mask if atlas is None else atlas)
    labels = np.rint(space).astype(np.int64) if atlas is not None else (space != 0).astype(np.int64)
    inside = labels != 0
    if not inside.any():
        raise ValueError(f"`{'mask' if atlas is None else 'atlas'}` must have voxels other than 0; got none.")
    regions, region_of = np.unique(labels[inside], return_inverse=True)
    sizes = np.bincount(region_of)
    rows = []
    for path in paths:
        values = _normalize(_load_like(path, space.shape, affine)[inside], normalization, path)
        rows.append(values if atlas is None else np.bincount(region_of, values) / sizes)
    names = [f"voxel_{index}" for index in range(len(rows[0]))]
    return np.stack(rows), names if atlas is None else [f"region_{label}" for label in regions]


def _load(path: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError('NIfTI maps need nibabel: pip install "decahub[mpd_subtyping]".') from error
    image = nibabel.load(path)
    return np.asarray(image.get_fdata(dtype=np.float64)), image.affine


def _load_like(path: Any, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    values, own = _load(path)
    if values.shape != shape:
        raise ValueError(
            f"every map must have the shape {shape} of the mask or atlas; {str(path)!r} has {values.shape}."
        )
    distance = float(np.abs(own - affine).max())
    if distance > AFFINE_TOLERANCE:
        raise ValueError(
            f"every map must have the affine of the mask or atlas; that of {str(path)!r} differs by {distance:.3g}. "
            "Resample it to the same space."
        )
    return values


def _normalize(values: np.ndarray, normalization: str | None, path: Any) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"every map must be finite within the mask or atlas; {str(path)!r} is not.")
    if normalization is None:
        return values
    spread = values.mean() if normalization == "mALFF" else values.std()
    if spread == 0:
        raise ValueError(f"{normalization} must divide by something other than 0; {str(path)!r} gives 0.")
    return values / spread if normalization == "mALFF" else (values - values.mean()) / spread


__all__ = ["read_maps"]
