"""Pipeline "image-quality-assessment": an image in, one quality score and a quality level out."""

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm
from transformers import Pipeline


SHARE_OF_RANGE = 1e-5  # scores are rounded to it: other numbers of threads differ by less
OPTIONS = ("num_crops", "crop_strategy", "seed", "small_image")
ADDRESS = re.compile(r"https?://|data:", re.IGNORECASE)
USED_BY = {"num_crops": ("grid", "random"), "seed": ("random",)}  # strategies that an option has an effect on


class ImageQualityAssessmentPipeline(Pipeline):
    """Scores the quality of images without a reference.

    An input is a path, an address, a PIL image or an array; a list, a generator or a column of a dataset holds
    several; a folder stands for all images in it, in the order of their names. Images are computed one by one, each
    with its crops as the batch, so the answer for an image does not depend on what else is asked, in what order, or
    on `batch_size`.

    Args of a call:
        num_crops (`int`, *optional*): Crops of an image; by default as the image processor has it.
        crop_strategy (`str`, *optional*): `"grid"`, `"random"`, `"center"`, `"five"` or `"dense"`, one pass over the
            whole image.
        seed (`int`, *optional*): Of random crops.
        small_image (`str`, *optional*): What happens to images smaller than a crop: `"resize"`, `"pad"`, `"error"`.
        return_crops (`bool`, *optional*, defaults to `False`): Whether to return the box and score of each crop.
        return_quality_map (`bool`, *optional*, defaults to `False`): Whether to return scores over the image.
        show_progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar for several images.

    Returns for each image:
        `dict`: `score`, calibrated and on the scale of the training labels; `score_std`, its deviation over crops
        before calibration; `level` and `level_probs`; `num_crops`; `lower_is_better`, whether a larger score is a
        worse image; with `return_crops` `crops`, a list of `box` (top, left, bottom, right) and `score`; with
        `return_quality_map` `quality_map`: `scores` (rows of the image, top first), `window_size` and `step` in
        pixels.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> assess = pipeline("image-quality-assessment", model="model_cards/pmt-iqa-lite0-synthetic")
    >>> assess("photo.jpg")["score"]
    71.3
    ```
    """

    _load_image_processor = True
    _load_feature_extractor = _load_processor = _load_tokenizer = False

    def __call__(self, inputs: Any, show_progress: bool = False, **kwargs: Any) -> Any:
        if isinstance(inputs, (str, os.PathLike)) and Path(inputs).is_dir():
            inputs = list_images(Path(inputs))
        kwargs.pop("batch_size", None)  # one image at a time, see above
        if _is_one(inputs) or not isinstance(inputs, Iterable) or isinstance(inputs, (bytes, bytearray)):
            return self._assess(inputs, kwargs)
        if isinstance(inputs, Iterator):
            return self._iterate(inputs, show_progress, kwargs)
        inputs = list(inputs) if not hasattr(inputs, "__len__") else inputs
        if not len(inputs):
            raise ValueError("`inputs` must hold at least one image; got none.")
        return list(self._iterate(inputs, show_progress, kwargs))

    def _iterate(self, inputs: Iterable, show_progress: bool, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for item in tqdm(inputs, desc="Scoring images", disable=not show_progress):
            yield self._assess(item, kwargs)

    def _assess(self, item: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if not _is_one(item) or (isinstance(item, dict) and "image" not in item):
            raise TypeError(
                "`inputs` must be images: paths, PIL images, arrays of 2 or 3 dimensions, or rows of a dataset with a "
                f"column `image`; got {type(item).__name__}. Open bytes with `PIL.Image.open(io.BytesIO(...))`."
            )
        is_path = isinstance(item, (str, os.PathLike)) and not ADDRESS.match(str(item))
        if is_path and not Path(item).is_file():
            raise FileNotFoundError(f"`inputs` must be images that exist; there is no file {os.fspath(item)!r}.")
        return super().__call__(os.fspath(item) if is_path else item, **kwargs)

    def _sanitize_parameters(
        self, return_crops: bool | None = None, return_quality_map: bool | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = [name for name in options if name not in OPTIONS]
        if unknown:
            known = ", ".join([*OPTIONS, "return_crops", "return_quality_map"])
            raise ValueError(
                f"`{unknown[0]}` must be an option of the pipeline, of {known}, or `show_progress` of a call."
            )
        # What a call leaves out stays as the pipeline was built.
        given = {name: value for name, value in options.items() if value is not None}
        if return_quality_map is not None:
            given["with_map"] = return_quality_map
        return given, {}, {} if return_crops is None else {"return_crops": return_crops}

    def preprocess(self, image: Any, with_map: bool = False, **options: Any) -> dict[str, Any]:
        if isinstance(image, dict):  # a row of a dataset
            image = image["image"]
        image = ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else image
        strategy = options.get("crop_strategy", self.image_processor.crop_strategy)
        for name, strategies in USED_BY.items():
            if name in options and strategy not in strategies:
                raise ValueError(
                    f"`{name}` must come with `crop_strategy` {' or '.join(strategies)}; got it with {strategy!r}, "
                    "which does not use it."
                )
        is_dense = strategy == "dense"
        prepared: dict[str, Any] = {"crops": None, "whole": None, "boxes": None}
        if not is_dense:
            crops = self.image_processor(image, return_tensors="pt", **options)
            prepared["crops"], prepared["boxes"] = crops["pixel_values"], crops["crop_boxes"][0]
        if is_dense or with_map:
            dense = {**options, "crop_strategy": "dense"}
            prepared["whole"] = self.image_processor(image, return_tensors="pt", **dense)["pixel_values"]
        return prepared

    def _forward(self, prepared: dict[str, Any]) -> dict[str, Any]:
        outputs = quality_map = None
        if prepared["crops"] is not None:
            outputs = self.model(prepared["crops"])
        if prepared["whole"] is not None:
            quality_map = self.model.compute_quality_map(prepared["whole"])
        return {"outputs": outputs, "quality_map": quality_map, "boxes": prepared["boxes"]}

    def postprocess(self, results: dict[str, Any], return_crops: bool = False) -> dict[str, Any]:
        outputs, quality_map, config = results["outputs"], results["quality_map"], self.model.config
        source = quality_map if outputs is None else outputs
        scores = (quality_map.score_map if outputs is None else outputs.crop_scores).double().flatten()
        answer: dict[str, Any] = {
            "score": self._round(self.model.calibrate(source.score)[0]),
            "score_std": self._round(scores.std(correction=0)),
            "level": int(source.level_probs[0].argmax()),
            "level_probs": [round(value, 5) for value in source.level_probs[0].double().tolist()],
            "num_crops": len(scores),
            "lower_is_better": config.lower_is_better,
        }
        if return_crops:
            answer["crops"] = self._describe_crops(scores, results["boxes"])
        if quality_map is not None:
            rows = self.model.calibrate(quality_map.score_map)[0]
            step = max(config.feature_strides)
            scores_of_rows = [[self._round(value) for value in row] for row in rows]
            answer["quality_map"] = {"scores": scores_of_rows, "window_size": config.crop_size, "step": step}
        return answer

    def _describe_crops(self, scores: torch.Tensor, boxes: torch.Tensor | None) -> list[dict[str, Any]]:
        if boxes is None:
            raise ValueError("`return_crops` must be false with `crop_strategy='dense'`, whose crops are in its map.")
        calibrated = self.model.calibrate(scores)
        return [
            {"box": box, "score": self._round(score)} for box, score in zip(boxes.tolist(), calibrated, strict=True)
        ]

    def _round(self, value: torch.Tensor) -> float:
        config = self.model.config
        digits = -math.floor(math.log10((config.score_high - config.score_low) * SHARE_OF_RANGE) + 1e-9)
        return round(float(value), digits)


def _is_one(inputs: Any) -> bool:
    """Whether the inputs are one image."""
    if isinstance(inputs, (str, os.PathLike, Image.Image, dict)):
        return True
    return hasattr(inputs, "ndim") and inputs.ndim in (2, 3)


def list_images(folder: Path) -> list[str]:
    """Image files of a folder, by name."""
    suffixes = Image.registered_extensions()
    found = [str(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes and path.is_file()]
    if not found:
        raise FileNotFoundError(f"`inputs` must hold image files if it is a folder; {str(folder)!r} holds none.")
    return found


__all__ = ["ImageQualityAssessmentPipeline"]
