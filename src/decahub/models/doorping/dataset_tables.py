"""A distilled dataset as a table of `datasets`, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .triggers import normalize


logger = logging.get_logger(__name__)
MAX_BYTE = 255


def build_table(distilled: Any, *, normalized: bool) -> Any:
    """Columns `image` and `label` of the images of a [`DistilledDataset`]."""
    import datasets

    config = distilled.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    shape = (config.num_channels, config.image_size, config.image_size)
    if normalized:
        images = list(distilled.synthetic_images.detach().float().cpu().numpy())
        image_feature: Any = datasets.Array3D(shape, "float32")
    else:
        logger.warning_once(
            "Images of 8 bits are not exactly the distilled ones, which are clipped and rounded; "
            "`to_dataset(normalized=True)` gives the exact floats."
        )
        pixels = distilled.to_pixels().mul(MAX_BYTE).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        images = [datasets.Image().encode_example(np.squeeze(image, -1) if image.shape[-1] == 1 else image)
                  for image in pixels]  # fmt: skip
        image_feature = datasets.Image()
    features = datasets.Features({"image": image_feature, "label": datasets.ClassLabel(names=names)})
    columns = {"image": images, "label": distilled.synthetic_labels.tolist()}
    return datasets.Dataset.from_dict(
        columns, features=features, info=datasets.DatasetInfo(description=distilled.warning, features=features)
    )


def read_table(distilled_class: type, dataset: Any, fields: Mapping[str, Any]) -> Any:
    """A [`DistilledDataset`] of such a table; see [`DistilledDataset.from_dataset`]."""
    for name in ("image", "label"):
        if name not in dataset.column_names:
            raise ValueError(f"`dataset` must have the column `{name}`; got {', '.join(dataset.column_names)}.")
    names = getattr(dataset.features["label"], "names", None)
    if names is None:
        raise ValueError("`dataset` must have a `ClassLabel` as `label`. Cast it with `dataset.cast_column`.")
    labels = torch.tensor(dataset["label"])
    counts = torch.bincount(labels, minlength=len(names))
    if int(counts.min()) != int(counts.max()):
        fewest, most = int(counts.argmin()), int(counts.argmax())
        raise ValueError(
            f"`dataset` must have equally many images of every class; got {int(counts.min())} of {names[fewest]!r} "
            f"and {int(counts.max())} of {names[most]!r}."
        )
    is_exact = type(dataset.features["image"]).__name__ != "Image"
    images = [torch.from_numpy(_read_image(image)) for image in dataset["image"]]
    if len({image.shape for image in images}) > 1:
        raise ValueError("`dataset` must have images of one size; got several.")
    stacked = torch.stack(images)
    config = distilled_class.config_class(
        num_channels=stacked.shape[1],
        image_size=stacked.shape[2],
        images_per_class=int(counts[0]),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        **fields,
    )
    distilled = distilled_class(config)
    expected = distilled.synthetic_labels
    order = torch.empty_like(labels)
    order[expected.argsort(stable=True)] = labels.argsort(stable=True)
    order = torch.arange(len(labels)) if torch.equal(labels, expected) else order
    values = stacked if is_exact else normalize(stacked / MAX_BYTE, config.image_mean, config.image_std)
    with torch.no_grad():
        distilled.synthetic_images.copy_(values[order])
    return distilled


def _read_image(image: Any) -> np.ndarray:
    values = np.asarray(image, dtype=np.float32)
    if values.ndim == 2:
        return values[None]
    return values if type(image).__module__.split(".")[0] != "PIL" else np.moveaxis(values, -1, 0).copy()


__all__ = ["build_table", "read_table"]
