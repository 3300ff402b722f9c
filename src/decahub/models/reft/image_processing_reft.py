"""Images, annotations and support -> tensors; logits -> instances.

Sizes follow Mask2Former. Boxes are `[x0, y0, x1, y1]` in pixels with exclusive ends, masks `(height, width)`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import Mask2FormerImageProcessor
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ImageInput
from transformers.models.mask2former.image_processing_mask2former import (
    Mask2FormerImageProcessorKwargs,
    binary_mask_to_rle,
)
from transformers.processing_utils import Unpack
from transformers.utils import TensorType, logging

from ..shared.checks import PROCESSOR_KEYS, refuse_unknown
from ..shared.image_processing import ImageReading, check_sizes_and_scales, is_float, prepare_images
from ..shared.pixels import to_rgb
from .configuration_reft import check_support_crop
from .masks.crops import crop_square
from .masks.instances import compute_box, read_instance
from .masks.predictions import Instances, draw_map, find_instances
from .masks.rle import encode_rle


logger = logging.get_logger(__name__)
BYTE = 255
MASK_STRIDE = 4  # of mask logits
MAX_DETECTIONS = 100  # of an image, as COCO counts
ANNOTATION_KEYS = ("segmentation", "label_id", "iscrowd")


class RefTImageProcessorKwargs(Mask2FormerImageProcessorKwargs, total=False):
    """Keywords of a call: those of Mask2Former, and two for support.

    Args:
        support_size (`int`, *optional*, defaults to 320): side of a support crop; a multiple of 32, at least 64.
        support_context (`float`, *optional*, defaults to 1.5): side of the crop as a multiple of the longer side of
            the instance's box.
    """

    support_size: int
    support_context: float


class RefTImageProcessor(ImageReading, Mask2FormerImageProcessor):
    """Image processor of RefT: images as for Mask2Former, square crops for support, instances with COCO masks."""

    valid_kwargs = RefTImageProcessorKwargs
    support_size = 320
    support_context = 1.5

    def __init__(self, **kwargs: Unpack[RefTImageProcessorKwargs]):
        allowed = [
            *RefTImageProcessorKwargs.__annotations__,
            *self._list_inherited_options(),
            *PROCESSOR_KEYS,
            "max_size",
        ]
        refuse_unknown((name for name in kwargs if name[:1] != "_"), allowed, f"an option of {type(self).__name__}")
        check_sizes_and_scales(kwargs)
        # Not that of `ImageReading`, which refuses `max_size`; files of Mask2Former on the Hub have it.
        Mask2FormerImageProcessor.__init__(self, **kwargs)
        check_support_crop(self.support_size, self.support_context)

    @staticmethod
    def _list_inherited_options() -> list[str]:
        return list(Mask2FormerImageProcessorKwargs.__annotations__)

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        instance_id_to_semantic_id: list[dict[int, int]] | dict[int, int] | None = None,
        annotations: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        **kwargs: Unpack[RefTImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepares images, and targets if there are annotations.

        Args:
            images: one image or a list: PIL, numpy or torch, gray, RGB or RGBA.
            segmentation_maps: maps of instance ids, as Mask2Former takes them; instances cannot overlap there.
            instance_id_to_semantic_id: classes of these ids.
            annotations (`Sequence[Sequence[Mapping]]`, *optional*): for each image its instances, with `segmentation`
                (mask, COCO RLE or polygons) and `label_id`; those with a true `iscrowd` are left out.
            kwargs: any attribute of the class, for this call.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` `(batch_size, 3, height, width)`, padded to multiples of
            32, `pixel_mask` (1 where there is image), and for targets the lists `mask_labels` of
            `(num_instances, height, width)` and `class_labels` of `(num_instances,)`.

        Raises:
            ValueError: If there is no image, a pixel is not finite or out of range, or annotations do not fit.
        """
        if annotations is not None and segmentation_maps is not None:
            raise ValueError("`annotations` must not be given with `segmentation_maps`; choose one of them.")
        data_format = kwargs.get("input_data_format")
        images = self._read_images(images, data_format, kwargs.get("image_mean"))
        encoded = super().preprocess(images, segmentation_maps, instance_id_to_semantic_id, **kwargs)
        if segmentation_maps is not None:  # padding is no part of an instance
            encoded["mask_labels"] = [(masks == 1).float() for masks in encoded["mask_labels"]]
        if annotations is None:
            return encoded
        if len(annotations) != len(images):
            raise ValueError(f"`annotations` must hold a list for each image ({len(images)}); got {len(annotations)}.")
        encoded["mask_labels"], encoded["class_labels"] = [], []
        for index, (image, instances) in enumerate(zip(images, annotations, strict=True)):
            try:
                masks, classes = _read_annotations(instances, *_get_size(image, data_format))
            except (TypeError, ValueError) as error:
                raise type(error)(f"`annotations` of image {index}: {error}") from error
            encoded["mask_labels"].append(_fit_masks(masks, torch.as_tensor(encoded["pixel_mask"][index])))
            encoded["class_labels"].append(classes)
        return encoded

    def _read_images(self, images: Any, data_format: Any, image_mean: Any = None) -> list[Any]:
        """Images in the range of bytes, with three channels, or as many as there are means."""
        means = self.image_mean if image_mean is None else image_mean
        num_channels = len(means) if isinstance(means, (list, tuple)) else 3
        prepared = prepare_images(self.fetch_images(images), data_format)
        return [_to_rgb(image, index, data_format, num_channels) for index, image in enumerate(prepared)]

    def preprocess_support(
        self,
        images: Sequence[Any],
        masks: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        rle: Sequence[Mapping[str, Any]] | None = None,
        polygons: Sequence[Any] | None = None,
        return_tensors: str | TensorType = "pt",
        support_size: int | None = None,
        support_context: float | None = None,
    ) -> BatchFeature:
        """Cuts a square around the instance of each shot.

        Args:
            images (`Sequence`): one image, path or URL for each shot.
            masks (`Sequence`, *optional*): one instance for each image: a mask or the path of its image, or whatever
                else can be seen from its form: a box, a COCO RLE, polygons.
            boxes (`Sequence`, *optional*): boxes `[x0, y0, x1, y1]` instead; all of the box counts as the instance.
            rle (`Sequence[Mapping]`, *optional*): COCO RLEs instead.
            polygons (`Sequence`, *optional*): polygons `[[x0, y0, x1, y1, ...], ...]` instead.
            return_tensors (`str`): "pt" or "np".
            support_size (`int`, *optional*): for this call.
            support_context (`float`, *optional*): for this call.

        Returns:
            [`~transformers.BatchFeature`] with `support_pixel_values` `(num_shots, 3, size, size)`, `support_masks`
            `(num_shots, size, size)` of `bool`, and `support_valid` `(num_shots,)`, False for an empty mask.

        Raises:
            TypeError: If an instance is nothing that is known.
            ValueError: If instances do not fit their images, or are given in several ways.
        """
        size = self.support_size if support_size is None else support_size
        context = self.support_context if support_context is None else support_context
        check_support_crop(size, context)
        given = {"mask": masks, "box": boxes, "rle": rle, "polygons": polygons}
        chosen = [kind for kind, instances in given.items() if instances is not None]
        if len(chosen) != 1:
            raise ValueError(
                "Exactly one of `masks`, `boxes`, `rle` and `polygons` must be given; got "
                f"{', '.join(chosen) or 'none'}."
            )
        kind, instances = chosen[0], given[chosen[0]]
        paths = [os.fspath(image) if isinstance(image, os.PathLike) else image for image in images]
        prepared = self._read_images(paths, None)
        if len(prepared) != len(instances):
            raise ValueError(f"`images` must be as many as the instances ({len(instances)}); got {len(prepared)}.")
        prepared = self._prepare_image_like_inputs(prepared, do_convert_rgb=True, input_data_format=None)
        fill = [mean * BYTE for mean in self.image_mean]
        crops, cuts = [], []
        for index, (image, instance) in enumerate(zip(prepared, instances, strict=True)):
            try:
                mask = read_instance(instance, *image.shape[-2:], kind=None if kind == "mask" else kind)
            except (TypeError, ValueError) as error:
                raise type(error)(f"shot {index}: {error}") from error
            crop, cut = crop_square(image, torch.from_numpy(mask.copy()), compute_box(mask), context, size, fill)
            crops.append(crop)
            cuts.append(cut)
        pixel_values = self.rescale_and_normalize(
            torch.stack(crops),
            self.do_rescale,
            self.rescale_factor,
            self.do_normalize,
            self.image_mean,
            self.image_std,
        )
        support_masks = torch.stack(cuts)
        valid = support_masks.flatten(1).any(1)
        if not valid.all():
            logger.warning_once(f"The mask of support shot {int((~valid).nonzero()[0])} is empty; it does not count.")
        data = {"support_pixel_values": pixel_values, "support_masks": support_masks, "support_valid": valid}
        return BatchFeature(data, tensor_type=return_tensors)

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: Sequence[tuple[int, int]] | None = None,
        pixel_mask: torch.Tensor | None = None,
        label_names: Sequence[str] | Mapping[int, str] | None = None,
        max_detections: int = MAX_DETECTIONS,
        return_coco_annotation: bool = False,
        return_map: bool = False,
        rle_format: str = "coco",
        parity_mode: str | None = None,
    ) -> list[Any]:
        """Instances of each image, best first; they may overlap.

        Args:
            outputs ([`RefTForFewShotInstanceSegmentationOutput`]): of the model.
            threshold (`float`): least score, which is the class probability times the mean mask probability.
            target_sizes (`Sequence[tuple[int, int]]`, *optional*): height and width of each image; by default the
                masks have the size of the input without padding.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*): that of the input. Without
                it padding counts as image, which shifts the masks of padded images.
            label_names (`Sequence[str]` or `Mapping[int, str]`, *optional*): names of the label ids:
                `model.config.id2label`, or `memory.class_names` for a prototype classifier.
            max_detections (`int`): most instances of an image.
            return_coco_annotation (`bool`): whether to give each mask as an RLE under `segmentation` instead.
            return_map (`bool`): whether to return one map of instance ids for each image instead, the best on top.
            rle_format (`str`): "coco", or "transformers" for row-major pairs of start and length.
            parity_mode (`str`, *optional*): "transformers" returns what transformers' Mask2Former processor does,
                with masks that went through 384 x 384 pixels.

        Returns:
            For each image a list of dictionaries with `mask` (`torch.BoolTensor`) or `segmentation`, `label_id`,
            `label`, `score` and `box`. With `return_map`, for each image a dictionary with `segmentation`, -1 where
            there is no instance, and `segments_info`.

        Raises:
            ValueError: If options or sizes do not fit.
        """
        _check_options(
            threshold,
            label_names,
            pixel_mask,
            max_detections,
            return_coco_annotation,
            return_map,
            rle_format,
            parity_mode,
        )
        if outputs.class_queries_logits.isnan().any():
            raise ValueError("`outputs` must hold no NaN; check the weights of the model and its inputs.")
        if parity_mode == "transformers":
            sizes = None if target_sizes is None else [tuple(int(side) for side in size) for size in target_sizes]
            return super().post_process_instance_segmentation(
                outputs, threshold=threshold, target_sizes=sizes, return_coco_annotation=return_coco_annotation
            )
        batch_size, _, height, width = outputs.masks_queries_logits.shape
        input_size = (height * MASK_STRIDE, width * MASK_STRIDE)
        num_labels = outputs.class_queries_logits.shape[-1] - 1
        _check_inputs(batch_size, input_size, num_labels, target_sizes, pixel_mask, label_names)
        results: list[Any] = []
        for index in range(batch_size):
            visible = input_size if pixel_mask is None else _find_visible_size(pixel_mask[index])
            target = visible if target_sizes is None else tuple(int(side) for side in target_sizes[index])
            instances = find_instances(
                outputs.class_queries_logits[index],
                outputs.masks_queries_logits[index],
                input_size,
                visible,
                target,
                threshold,
                max_detections,
            )
            rows = _describe(instances, label_names, rle_format if return_coco_annotation else None)
            if return_map:
                infos = [
                    {"id": place, **{key: row[key] for key in ("label_id", "label", "score", "box")}}
                    for place, row in enumerate(rows)
                ]
                results.append({"segmentation": draw_map(instances), "segments_info": infos})
            else:
                results.append(rows)
        return results


def _check_options(
    threshold: float,
    label_names: Any,
    pixel_mask: Any,
    max_detections: int,
    return_coco_annotation: bool,
    return_map: bool,
    rle_format: str,
    parity_mode: str | None,
) -> None:
    """Refuses options of post-processing that are out of range, or that the others leave without effect."""
    for name, value, allowed in (
        ("parity_mode", parity_mode, (None, "transformers")),
        ("rle_format", rle_format, ("coco", "transformers")),
    ):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {[*allowed]}; got {value!r}.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must be in [0, 1]; got {threshold}.")
    if max_detections < 1:
        raise ValueError(f"`max_detections` must be at least 1; got {max_detections}.")
    is_parity = parity_mode == "transformers"
    ignored = {
        "label_names": is_parity and label_names is not None,
        "pixel_mask": is_parity and pixel_mask is not None,
        "max_detections": is_parity and max_detections != MAX_DETECTIONS,
        "return_map": is_parity and return_map,
        "return_coco_annotation": return_map and return_coco_annotation,
        "rle_format": rle_format != "coco" and (return_map or not return_coco_annotation),
    }
    for name, is_ignored in ignored.items():
        if is_ignored:
            raise ValueError(f"`{name}` has no effect with these options; leave it out, or change the others.")


def _check_inputs(
    batch_size: int,
    input_size: tuple[int, int],
    num_labels: int,
    target_sizes: Any,
    pixel_mask: Any,
    label_names: Any,
) -> None:
    """Refuses sizes and names that do not fit the outputs."""
    for name, values in (("target_sizes", target_sizes), ("pixel_mask", pixel_mask)):
        if values is not None and len(values) != batch_size:
            raise ValueError(f"`{name}` must hold one entry per image ({batch_size}); got {len(values)}.")
    if pixel_mask is not None and tuple(pixel_mask.shape[1:]) != input_size:
        raise ValueError(
            f"`pixel_mask` must have the size of the input, {input_size}; got {tuple(pixel_mask.shape[1:])}."
        )
    if label_names is not None and len(label_names) < num_labels:
        raise ValueError(f"`label_names` must name {num_labels} classes; got {len(label_names)}.")


def _describe(
    instances: Instances, label_names: Sequence[str] | Mapping[int, str] | None, rle_format: str | None
) -> list[dict[str, Any]]:
    rows = []
    masks = instances.masks.cpu().numpy()
    label_ids, scores = instances.label_ids.tolist(), instances.scores.tolist()
    for place, (mask, label_id, score) in enumerate(zip(masks, label_ids, scores, strict=True)):
        row: dict[str, Any] = {"mask": instances.masks[place]}
        if rle_format == "coco":
            row = {"segmentation": encode_rle(mask)}
        elif rle_format == "transformers":
            row = {"segmentation": binary_mask_to_rle(mask.astype(np.uint8))}
        label = f"LABEL_{label_id}" if label_names is None else label_names[label_id]
        rows.append({**row, "label_id": label_id, "label": label, "score": score, "box": compute_box(mask)})
    return rows


def _to_rgb(image: Any, index: int, data_format: Any, wanted: int) -> Any:
    """An image with three channels, white where it is transparent; floats in [0, 1] in the range of bytes."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    image = image * BYTE if is_float(image) else image
    axis = 0 if _has_channels_first(image, data_format) else -1
    num_channels = image.shape[axis]
    if num_channels == wanted:
        return image
    pixels = torch.as_tensor(image)
    if num_channels == 1:
        return pixels.repeat_interleave(3, dim=axis)
    if num_channels == 4:
        colors, alpha = pixels.float().split([3, 1], dim=axis)
        colors = BYTE + (colors - BYTE) * alpha / BYTE
        return colors if pixels.is_floating_point() else colors.round().to(pixels.dtype)
    raise ValueError(f"`images` must have 1, 3 or 4 channels; image {index} has shape {tuple(image.shape)}.")


def _has_channels_first(image: Any, data_format: Any) -> bool:
    return data_format == "channels_first" or (data_format is None and image.shape[0] in (1, 3, 4))


def _get_size(image: Any, data_format: Any) -> tuple[int, int]:
    """Height and width of an image that `prepare_images` returned."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return tuple(image.shape[-2:] if _has_channels_first(image, data_format) else image.shape[:2])


def _read_annotations(
    instances: Sequence[Mapping[str, Any]], height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks `(num_instances, height, width)` and label ids of an image."""
    kept = [instance for instance in instances if not instance.get("iscrowd")]
    for instance in kept:
        refuse_unknown(instance, ANNOTATION_KEYS, "a key of an annotation")
        missing = [key for key in ("segmentation", "label_id") if key not in instance]
        if missing:
            raise ValueError(f"an annotation must have `segmentation` and `label_id`; `{missing[0]}` is missing.")
    masks = [read_instance(instance["segmentation"], height, width) for instance in kept]
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)
    return torch.from_numpy(stacked.copy()), torch.tensor([int(instance["label_id"]) for instance in kept]).long()


def _fit_masks(masks: torch.Tensor, pixel_mask: torch.Tensor) -> torch.Tensor:
    """Masks at the size of the resized image, padded like it."""
    height, width = _find_visible_size(pixel_mask)
    if len(masks) == 0:
        return torch.zeros((0, *pixel_mask.shape))
    resized = F.interpolate(masks[None].float(), size=(height, width), mode="nearest-exact")[0]
    return F.pad(resized, (0, pixel_mask.shape[1] - width, 0, pixel_mask.shape[0] - height))


def _find_visible_size(pixel_mask: torch.Tensor) -> tuple[int, int]:
    """Height and width of the image inside its padding."""
    return int(pixel_mask.any(1).sum()), int(pixel_mask.any(0).sum())


__all__ = ["RefTImageProcessor", "RefTImageProcessorKwargs"]
