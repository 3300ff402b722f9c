"""Names of classes: those given, those of the catalog, or those that the rows carry."""

from collections.abc import Sequence
from typing import Any

from .catalog import DATASETS


def read_label_names(rows: Any) -> list[str] | None:
    """The names that a column of class ids, or of instances with one, carries; maps of classes carry none."""
    features = getattr(rows, "features", {})
    feature = features.get("label", features.get("labels"))
    if "annotations" in features:
        instance = getattr(features["annotations"], "feature", None)
        feature = instance.get("label") if isinstance(instance, dict) else None
    return getattr(getattr(feature, "feature", feature), "names", None)


def get_label_names(dataset: str, rows: Any, given: Sequence[str] = ()) -> list[str]:
    """Names of the classes of a dataset, in the order of their ids.

    Args:
        dataset (`str`): Name in the catalog, or path of a user's own dataset.
        rows (`datasets.Dataset`): One of its splits.
        given (`Sequence[str]`, *optional*): Names that come before all others.

    Raises:
        ValueError: If neither the catalog nor the rows name the classes, and none are given.
    """
    if given:
        return list(given)
    if dataset in DATASETS:
        return list(DATASETS[dataset].label_names)
    names = read_label_names(rows)
    if not names:
        raise ValueError(f"`label_names` must name the classes of {dataset!r}, whose rows do not; got none.")
    return names


__all__ = ["get_label_names", "read_label_names"]
