"""Images -> `pixel_values`: resize, scale to [0, 1], normalize."""

from typing import Any

import numpy as np
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling


class NewMethodImageProcessing:
    """What both backends share."""

    model_input_names = ["pixel_values"]
    do_convert_rgb = True
    do_resize = True
    size = {"height": 32, "width": 32}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD

    def _preprocess(self, images: list, *args: Any, **kwargs: Any):
        if not images:
            raise ValueError("`images` must hold at least one image; got an empty list.")
        for index, image in enumerate(images):
            values = image.numpy(force=True) if isinstance(image, torch.Tensor) else image
            if not np.isfinite(values).all():
                raise ValueError(f"`images` must hold finite pixels; image {index} holds NaN or infinity.")
        return super()._preprocess(images, *args, **kwargs)


class NewMethodImageProcessor(NewMethodImageProcessing, TorchvisionBackend):
    """Image processor of NewMethod on torchvision."""


__all__ = ["NewMethodImageProcessor"]
