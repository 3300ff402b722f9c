"""Semantic segmentation: mean IoU, and maps of classes as palette images."""

import colorsys
import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .image_task import ImageTask
from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles
from .task import fuse_for_inference


logger = logging.getLogger(__name__)

MAX_PALETTE = 256  # classes
GOLDEN_RATIO = 0.618034  # successive hues at this distance on the color circle stay far apart


class SemanticSegmentation(ImageTask):
    """A class for each pixel."""

    columns = ("image", "class", "area", "written to")
    written = ("*_segmentation.png",)

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        outputs = model(pixel_values=batch["pixel_values"])
        sizes = [tuple(labels.shape) for labels in batch["labels"]]
        maps = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return {"predictions": [ids.cpu() for ids in maps], "references": [ids.cpu() for ids in batch["labels"]]}

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`]; the values of the annotations are compared with the classes first."""
        from decahub.data.semantic_segmentation import check_annotations

        names = self.check_labels(model, context.label_names)
        rows, do_reduce = self.sample_rows(rows, context.limit), getattr(processor, "do_reduce_labels", False)
        absent = check_annotations(rows, names, "the measured split", bool(do_reduce))
        if absent:
            logger.warning(f"No pixel of the measured split shows {', '.join(absent)}: the mean leaves them out.")
        return super().measure(model, processor, rows, context)

    def get_metric_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"num_labels": len(label_names)}

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        scores = {name: result[name] for name in ("mean_iou", "mean_accuracy", "overall_accuracy")}
        by_class = zip(label_names, result["per_category_iou"], strict=True)
        # A class that the dataset lacks has no score.
        return scores | {f"iou_{name}": value for name, value in by_class if not math.isnan(value)}

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        return (
            "from transformers import pipeline\n\n"
            f'segment = pipeline("{self.entry.hub_tag}", model="{facts.model_id}"{trust})\n'
            'print([(part["label"], part["mask"]) for part in segment("image.png")])'
        )

    def build_predictor(self, arguments: Any) -> Any:
        """Model and image processor: the pipeline gives a mask for each class, not a map."""
        model, processor = self.load(arguments.model)
        return fuse_for_inference(model), processor

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        import torch

        model, processor = predictor
        image = self.read_image(item)
        target = files.choose(item, "_segmentation.png")
        with torch.inference_mode():
            outputs = model(**processor(image, return_tensors="pt"))
        classes = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
        names = model.config.id2label
        files.write(target, encode_segmentation(classes.numpy(), len(names)))
        ids, counts = classes.unique(return_counts=True)
        areas = sorted(zip(ids.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])
        return [(item.name, names[label], count / classes.numel(), target) for label, count in areas]


def encode_segmentation(classes: Any, num_labels: int) -> bytes:
    """Class ids as a PNG: with a palette, so that a viewer shows colors; 16-bit gray for more than 256 classes."""
    from PIL import Image

    has_palette = num_labels <= MAX_PALETTE
    image = Image.fromarray(classes.astype("uint8" if has_palette else "uint16"))
    if has_palette:
        image.putpalette([round(255 * part) for index in range(num_labels) for part in choose_color(index)])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def choose_color(index: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a class."""
    return colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1, 0.7, 0.95)
