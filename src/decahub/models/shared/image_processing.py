"""Images -> `pixel_values`, segmentation maps -> `labels`, pixel logits -> maps of class ids.

A room's classes are `class <Method>ImageProcessor(ImageProcessing, TorchvisionBackend)` and the same with
`PilBackend`, each with the sizes that it resizes and crops to.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from .ignore_index import IGNORED_PIXEL


class ImageProcessingKwargs(ImagesKwargs, total=False):
    """Keywords of a call.

    Args:
        do_reduce_labels (`bool`, *optional*, defaults to `False`): whether label 0 of segmentation maps means "none"
            (it becomes 255, which is ignored) and the others shift down by 1, as in ADE20K.
    """

    do_reduce_labels: bool


class ImageProcessing:
    """What both backends share; images are channel-first arrays or tensors.

    By default the usual evaluation transform: the shorter side is resized (bicubic), the center cropped, and pixels
    are scaled to [0, 1] and normalized with ImageNet's mean and standard deviation.
    """

    valid_kwargs = ImageProcessingKwargs
    model_input_names = ["pixel_values"]
    do_convert_rgb = True
    do_resize = True
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    do_center_crop = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_reduce_labels = False

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[ImageProcessingKwargs],
    ) -> BatchFeature:
        """Prepares images, and their segmentation maps if there are any.

        Args:
            images: one image or a list: PIL, numpy or torch, gray, RGB or RGBA, uint8 or float. Set
                `do_rescale=False` for pixels that lie in [0, 1] already.
            segmentation_maps: one map of class ids for each image, resized and cropped alike (nearest neighbor).
            kwargs: any attribute of the class, for this call.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` `(batch_size, channels, height, width)` and, for maps,
            `labels` `(batch_size, height, width)`.

        Raises:
            ValueError: If there is no image, a pixel is not finite, channels do not fit `image_mean`, or the number
                of maps differs from that of images.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None,
        *,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        return_tensors: str | TensorType | None,
        do_reduce_labels: bool,
        **kwargs: Any,
    ) -> BatchFeature:
        if isinstance(images, (list, tuple)) and len(images) == 0:
            raise ValueError("`images` must hold at least one image; got an empty list.")
        device = {"device": kwargs["device"]} if kwargs.get("device") is not None else {}
        prepared = self._prepare_image_like_inputs(
            images, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, **device
        )
        self._check_images(prepared, kwargs["image_mean"] if kwargs["do_normalize"] else None)
        data = {"pixel_values": self._preprocess(prepared, return_tensors=None, **kwargs)["pixel_values"]}
        if segmentation_maps is not None:
            maps = self._prepare_image_like_inputs(
                segmentation_maps,
                expected_ndims=2,
                do_convert_rgb=False,
                input_data_format=ChannelDimension.FIRST,
                **device,
            )
            if len(maps) != len(prepared):
                raise ValueError(
                    f"`segmentation_maps` must hold one map per image ({len(prepared)}); got {len(maps)}."
                )
            data["labels"] = self._preprocess_maps(maps, do_reduce_labels, kwargs)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _preprocess_maps(self, maps: list, do_reduce_labels: bool, kwargs: dict[str, Any]) -> list:
        if do_reduce_labels:
            maps = [reduce_labels(segmentation_map) for segmentation_map in maps]
        nearest = {"do_normalize": False, "do_rescale": False, "resample": PILImageResampling.NEAREST}
        processed = self._preprocess(maps, return_tensors=None, **{**kwargs, **nearest})["pixel_values"]
        # Pixels that the crop adds around a smaller image have no class.
        covered = [segmentation_map * 0 + 1 for segmentation_map in maps]
        covered = self._preprocess(covered, return_tensors=None, **{**kwargs, **nearest})["pixel_values"]
        labels = []
        for segmentation_map, is_covered in zip(processed, covered, strict=True):
            is_tensor = isinstance(segmentation_map, torch.Tensor)
            ids = segmentation_map[0].long() if is_tensor else segmentation_map[0].astype("int64")
            ids[is_covered[0] == 0] = IGNORED_PIXEL
            labels.append(ids)
        return labels

    @staticmethod
    def _check_images(images: list, image_mean: float | list[float] | None) -> None:
        for index, image in enumerate(images):
            values = image.numpy(force=True) if isinstance(image, torch.Tensor) else image
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"`images` must hold finite pixels; image {index} holds NaN or infinity.")
            num_channels = len(image_mean) if isinstance(image_mean, (list, tuple)) else None
            if num_channels not in (None, 1, image.shape[0]):
                raise ValueError(
                    f"`images` must have {num_channels} channels, as `image_mean` has; image {index} has "
                    f"{image.shape[0]}."
                )

    def center_crop(self, image: Any, size: SizeDict, **kwargs: Any) -> Any:
        """Middle of an image, rounded as torchvision does; smaller images are padded with zeros."""
        spare_height, spare_width = image.shape[-2] - size.height, image.shape[-1] - size.width
        if spare_height < 0 or spare_width < 0:
            return super().center_crop(image, size, **kwargs)
        top, left = round(spare_height / 2), round(spare_width / 2)
        return image[..., top : top + size.height, left : left + size.width]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: list[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[torch.Tensor] | list[SemanticSegmentationPostProcessorOutput]:
        """Maps of class ids. Logits are resized before the argmax: they are smaller than the image.

        Args:
            outputs ([`~transformers.modeling_outputs.SemanticSegmenterOutput`]): of the model.
            target_sizes (`list[tuple[int, int]]`, *optional*): height and width of each map; without them maps have
                the size of the logits.
            return_segmentation_scores (`bool`): whether to return the resized logits beside the maps.

        Returns:
            `list[torch.LongTensor]` of shape `(height, width)`; with `return_segmentation_scores`, a list of outputs
            with `segmentation` and `segmentation_scores`.

        Raises:
            ValueError: If the number of `target_sizes` differs from the batch size.
        """
        scores = list(outputs.logits)
        if target_sizes is not None:
            if len(target_sizes) != len(scores):
                raise ValueError(
                    f"`target_sizes` must hold one size per image ({len(scores)}); got {len(target_sizes)}."
                )
            sizes = [tuple(int(side) for side in size) for size in target_sizes]
            scores = [
                functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
                for logits, size in zip(scores, sizes, strict=True)
            ]
        maps = [logits.argmax(0) for logits in scores]
        if not return_segmentation_scores:
            return maps
        return [
            SemanticSegmentationPostProcessorOutput({"segmentation": segmentation, "segmentation_scores": logits})
            for segmentation, logits in zip(maps, scores, strict=True)
        ]


def reduce_labels(segmentation_map: Any) -> Any:
    """Label 0 becomes 255, the others shift down by 1, 255 stays."""
    where = torch.where if isinstance(segmentation_map, torch.Tensor) else np.where
    ignored = (segmentation_map == 0) | (segmentation_map == IGNORED_PIXEL)
    return where(ignored, IGNORED_PIXEL, segmentation_map - 1)
