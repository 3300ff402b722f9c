"""Images -> `pixel_values`: resize, stamp a trigger on the bytes if one is wanted, scale to [0, 1], normalize.

A trigger is stamped after resizing, on whole bytes, as an attacker who edits image files does it.
"""

from typing import Any

import numpy as np
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from ..shared.image_processing import PlainImageProcessing


MAX_BYTE = 255
STATISTICS = {
    "fashion_mnist": ([0.2861], [0.3530]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "cifar10-dd": ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]),
    "stl10": ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    "stl10-dd": ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]),
    "svhn": ([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970]),
    "svhn-dd": ([0.4379, 0.4440, 0.4729], [0.1980, 0.2010, 0.1970]),
    "cifar100": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    "cifar100-dd": ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]),
}
"""Mean and standard deviation of the authors' code for DC, and where it differs with `-dd` for DD."""


class DoorpingImageProcessorKwargs(ImagesKwargs, total=False):
    """Keywords of a call, beside those of all image processors.

    Args:
        do_stamp (`bool`): Whether the white patch of NaiveAttack is stamped on every image.
        trigger_size (`int`): Height and width of the patch.
        trigger_margin (`int`): Pixels between the patch and the lower right corner.
    """

    do_stamp: bool
    trigger_size: int
    trigger_margin: int


class DoorpingImageProcessing(PlainImageProcessing):
    """What both backends share."""

    valid_kwargs = DoorpingImageProcessorKwargs
    size = {"height": 32, "width": 32}
    resample = PILImageResampling.BILINEAR
    do_center_crop = False
    crop_size = None
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_stamp = False
    trigger_size = 2
    trigger_margin = 1

    def __init__(self, **kwargs: Unpack[DoorpingImageProcessorKwargs]):
        super().__init__(**kwargs)
        self.do_convert_rgb = kwargs.get("do_convert_rgb", len(self.image_mean) == 3)

    @classmethod
    def from_statistics(cls, name: str, algorithm: str = "dc", **kwargs: Any) -> "DoorpingImageProcessing":
        """Image processor with the mean and deviation that the authors' code has for a dataset.

        Args:
            name (`str`): `"fashion_mnist"`, `"cifar10"`, `"stl10"`, `"svhn"` or `"cifar100"`.
            algorithm (`str`): `"dd"` has other constants than the others.
            kwargs: Further options.

        Raises:
            ValueError: If the dataset is unknown.
        """
        if name not in STATISTICS:
            known = [key for key in STATISTICS if not key.endswith("-dd")]
            raise ValueError(f"`name` must be one of {', '.join(known)}; got {name!r}.")
        key = f"{name}-dd" if algorithm == "dd" and f"{name}-dd" in STATISTICS else name
        mean, std = STATISTICS[key]
        return cls(image_mean=list(mean), image_std=list(std), **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        *,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        prepared, takes_floats = self._read_images(images, do_convert_rgb, input_data_format, kwargs)
        data = {"pixel_values": self._preprocess_images(prepared, takes_floats, kwargs)}
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _preprocess(self, images: list, *args: Any, **kwargs: Any) -> Any:
        do_stamp = kwargs.pop("do_stamp", False)
        size, margin = kwargs.pop("trigger_size"), kwargs.pop("trigger_margin")
        if not do_stamp:
            return super()._preprocess(images, *args, **kwargs)
        resized = {**kwargs, "do_rescale": False, "do_normalize": False, "return_tensors": None}
        images = list(super()._preprocess(images, *args, **resized)["pixel_values"])
        images = [stamp_white(image, size, margin, not kwargs["do_rescale"]) for image in images]
        return super()._preprocess(images, *args, **{**kwargs, "do_resize": False})

    def post_process_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images of 8 bits of what a network sees.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized.

        Returns:
            `torch.ByteTensor` of that shape; pixels outside [0, 1] are clipped.
        """
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.image_mean, self.image_std))
        return (pixel_values * std + mean).clamp(0, 1).mul(MAX_BYTE).round().to(torch.uint8)


class DoorpingImageProcessor(DoorpingImageProcessing, TorchvisionBackend):
    """Image processor of DoorPing on torchvision."""


def stamp_white(image: Any, size: int, margin: int, is_scaled: bool = False) -> Any:
    """A copy of an image, channels first, with a white patch near the lower right corner.

    Raises:
        ValueError: If the patch does not lie inside of the image.
    """
    height, width = image.shape[-2:]
    if size < 1 or margin < 0 or size + margin > min(height, width):
        raise ValueError(
            f"`trigger_size` and `trigger_margin` must put the patch inside of the image ({height} x {width}); got "
            f"{size} and {margin}."
        )
    image = image.clone() if isinstance(image, torch.Tensor) else np.array(image)
    image[..., height - margin - size : height - margin, width - margin - size : width - margin] = (
        1 if is_scaled else MAX_BYTE
    )
    return image


__all__ = ["STATISTICS", "DoorpingImageProcessor", "DoorpingImageProcessorKwargs"]
