"""Pipeline "few-shot-instance-segmentation": an image and a few examples in, masks of all their instances out."""

import colorsys
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import Pipeline


DEFAULT_THRESHOLD = 0.5
GOLDEN_RATIO = 0.618034  # successive hues at this distance on the color circle stay far apart
MASK_OPACITY = 0.5


class FewShotInstanceSegmentationPipeline(Pipeline):
    """Segments every instance of classes that a few annotated examples show.

    An input is an image: PIL, path, URL, array or tensor; a list holds several. Images differ in size and are answered
    one at a time.

    Args of a call:
        support (`Mapping[str, Sequence[tuple]]`, *optional*): class name to its examples, pairs of an image and one
            instance in it: a mask (array, image, or path of an image), a box `[x0, y0, x1, y1]`, a COCO RLE, or
            polygons. It is encoded once for all images of a call, by `model.register_support` for several calls.
        support_memory (`RefTSupportMemory`, path or Hub id, *optional*): encoded support; by default the one that was
            saved beside the weights, if there is one.
        threshold (`float`, defaults to 0.5): Least score.
        max_detections (`int`, defaults to 100): Most instances of an image.

    Returns for each image:
        `list[dict]`, best first: `label` (`str`), `label_id` (`int`), `score` (`float`), `box` (`list[int]`,
        `[x0, y0, x1, y1]` in pixels with exclusive ends) and `segmentation` (a COCO RLE, `{"size", "counts"}`). It is
        what JSON can hold; `draw_overlay` draws it.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> segment = pipeline("few-shot-instance-segmentation", model="model_cards/reft-refshapes-prototype")
    >>> segment("scene.png", support={"heart": [("example.png", "example_mask.png")]})
    [{'segmentation': {'size': [128, 128], 'counts': ...}, 'label_id': 0, 'label': 'heart', ...}, ...]
    ```
    """

    _load_processor = True
    _load_feature_extractor = _load_image_processor = _load_tokenizer = False

    def __call__(
        self,
        inputs: Any,
        support: Mapping[str, Sequence[tuple[Any, Any]]] | None = None,
        support_memory: Any = None,
        **kwargs: Any,
    ) -> Any:
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        if batch_size > 1:
            raise ValueError(f"`batch_size` must be 1, as images differ in size; got {batch_size}.")
        if isinstance(inputs, list) and not inputs:
            raise ValueError("`inputs` must hold at least one image; got an empty list.")
        kwargs["support_memory"] = self.build_memory(support, support_memory)
        return super().__call__(inputs, **kwargs)

    def build_memory(
        self, support: Mapping[str, Sequence[tuple[Any, Any]]] | None = None, support_memory: Any = None
    ) -> Any:
        """The memory that a call with these arguments uses; `None` for none.

        Raises:
            ValueError: If both are given, or the support cannot be used.
        """
        if support is not None and support_memory is not None:
            raise ValueError("`support` must not be given with `support_memory`; choose one of them.")
        if support is not None:
            return self.model.register_support(support, processor=self.processor)
        if support_memory is None:
            return self.model.support_memory
        if isinstance(support_memory, (str, os.PathLike)):
            return self.model.load_support_memory(support_memory)
        return support_memory

    def _sanitize_parameters(
        self, support_memory: Any = None, threshold: float | None = None, max_detections: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
            raise ValueError(f"`threshold` must be in [0, 1]; got {threshold!r}.")
        is_count = isinstance(max_detections, Integral) and not isinstance(max_detections, bool)
        if max_detections is not None and not (is_count and max_detections >= 1):
            raise ValueError(f"`max_detections` must be a whole number of at least 1; got {max_detections!r}.")
        given = {"threshold": threshold, "max_detections": max_detections}
        memory = {} if support_memory is None else {"support_memory": support_memory}
        return {}, memory, {**memory, **{name: value for name, value in given.items() if value is not None}}

    def preprocess(self, image: Any) -> dict[str, Any]:
        if isinstance(image, (str, os.PathLike)):
            image = self.processor.image_processor.fetch_images(os.fspath(image))
        inputs = self.processor(images=image, return_tensors="pt")
        size = (image.height, image.width) if isinstance(image, Image.Image) else _find_size(image)
        return {"inputs": dict(inputs), "size": size}

    def _forward(self, prepared: dict[str, Any], support_memory: Any = None) -> dict[str, Any]:
        inputs = prepared["inputs"]
        pixel_values = inputs["pixel_values"].to(self.model.dtype)
        outputs = self.model(pixel_values=pixel_values, pixel_mask=inputs["pixel_mask"], support_memory=support_memory)
        logits = {name: outputs[name] for name in ("class_queries_logits", "masks_queries_logits")}
        return {**logits, "pixel_mask": inputs["pixel_mask"], "size": prepared["size"]}

    def postprocess(
        self,
        answer: dict[str, Any],
        support_memory: Any = None,
        threshold: float = DEFAULT_THRESHOLD,
        max_detections: int = 100,
    ) -> list[dict[str, Any]]:
        from transformers.utils import ModelOutput

        is_episode = self.model.config.classifier == "prototype"
        names = support_memory.class_names if is_episode else self.model.config.id2label
        outputs = ModelOutput(
            class_queries_logits=answer["class_queries_logits"], masks_queries_logits=answer["masks_queries_logits"]
        )
        return self.processor.post_process_instance_segmentation(
            outputs,
            threshold=threshold,
            target_sizes=[answer["size"]],
            pixel_mask=answer["pixel_mask"],
            label_names=names,
            max_detections=max_detections,
            return_coco_annotation=True,
        )[0]

    @staticmethod
    def draw_overlay(image: Image.Image, instances: Sequence[Mapping[str, Any]]) -> Image.Image:
        """The image with the mask, the box and the name of each instance; a color for each class.

        Args:
            image (`PIL.Image.Image`): what was segmented.
            instances (`Sequence[Mapping]`): what the pipeline returned.
        """
        from pycocotools import mask as coco_mask

        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        colors = [choose_color(instance["label_id"]) for instance in instances]
        for instance, color in zip(reversed(instances), reversed(colors), strict=True):
            inside = coco_mask.decode(instance["segmentation"]).astype(bool)
            pixels = np.where(inside[..., None], (1 - MASK_OPACITY) * pixels + MASK_OPACITY * np.array(color), pixels)
        overlay = Image.fromarray(pixels.round().astype(np.uint8))
        draw = ImageDraw.Draw(overlay)
        for instance, color in zip(instances, colors, strict=True):
            x0, y0, x1, y1 = instance["box"]
            draw.rectangle([x0, y0, x1 - 1, y1 - 1], outline=color)
            text = f"{instance['label']} {instance['score']:.2f}"
            corner = (x0, max(0, y0 - 11))
            draw.rectangle(draw.textbbox(corner, text), fill=(0, 0, 0))
            draw.text(corner, text, fill=color)
        return overlay


def choose_color(index: int) -> tuple[int, int, int]:
    """Red, green and blue of a class, in [0, 255]."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _find_size(image: Any) -> tuple[int, int]:
    """Height and width of an array or a tensor, whose channels may come first."""
    shape = tuple(torch.as_tensor(image).shape)
    if len(shape) == 2:
        return shape[0], shape[1]
    return (shape[1], shape[2]) if shape[0] in (1, 3, 4) else (shape[0], shape[1])


__all__ = ["FewShotInstanceSegmentationPipeline"]
