"""Image quality: agreement of scores with those of people, and images from the best to the worst."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .image_task import ImageTask
from .measurement import Scores
from .output_files import OutputFiles
from .task import TOLERANCE


MAX_SOURCES = 5  # whose scores are listed one by one
HEADLINES = (
    "srcc", "plcc", "plcc_fit", "krcc", "rmse", "rmse_fit", "level_accuracy", "level_accuracy_within_one",
    "srcc_within", "plcc_within",
)  # fmt: skip
RANKING, CONTACT_SHEET = "ranking.csv", "contact_sheet.png"
STRATEGIES = ("grid", "random", "center", "five", "dense")
COUNTED = ("grid", "random")  # those whose number of crops is chosen


class ImageQualityAssessment(ImageTask):
    """A score and a quality level for each image."""

    shares = ("level_accuracy", "level_accuracy_within_one")
    columns = ("rank", "image", "score", "level", "deviation")
    written = (CONTACT_SHEET,)

    def check_labels(self, model: Any, label_names: Sequence[str] | None) -> list[str]:
        """Scores have no classes."""
        return []

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {name: batch[name] for name in ("pixel_values", "crop_mask") if name in batch}
        outputs, labels = model(**inputs), batch["labels"].float().cpu()
        levels = model.binner(labels.nan_to_num(model.config.score_low))
        return {
            "predictions": model.calibrate(outputs.score).cpu(),
            "references": labels.double(),
            "predicted_levels": outputs.level_probs.argmax(-1).cpu(),
            "levels": levels.masked_fill(~labels.isfinite(), -1),
            "sources": batch.get("source") or [""] * len(labels),
        }

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        names = [name for name in HEADLINES if name in result]
        if len(result["counts"]) <= MAX_SOURCES:
            names += [f"srcc_{source}" for source in result["counts"]]
        return {name: result[name] for name in names if math.isfinite(result[name])}

    def count(self, result: Mapping[str, Any]) -> dict[str, int]:
        return {f"srcc_{source}": number for source, number in result["counts"].items()}

    def tolerance(self, metric: str, value: float, n: int, is_sample: bool) -> float | None:
        """As for all tasks; errors are in the unit of the labels."""
        if metric.startswith("rmse") and not is_sample:
            return TOLERANCE * max(1.0, value)
        return super().tolerance(metric, value, n, is_sample)

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        if remote:
            return (
                "from PIL import Image\n"
                "from transformers import AutoImageProcessor\n"
                "from transformers.dynamic_module_utils import get_class_from_dynamic_module\n\n"
                f'model_class = get_class_from_dynamic_module("{facts.class_reference}", "{facts.model_id}")\n'
                f'model = model_class.from_pretrained("{facts.model_id}", trust_remote_code=True)\n'
                f'processor = AutoImageProcessor.from_pretrained("{facts.model_id}", trust_remote_code=True)\n'
                'print(model(**processor(Image.open("photo.jpg"), return_tensors="pt")).score)'
            )
        return (
            "from transformers import pipeline\n\n"
            f'assess = pipeline("{self.name}", model="{facts.model_id}"{trust})\n'
            'print(assess("photo.jpg"))'
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        return (
            "`srcc` and `krcc` compare ranks; `plcc` is on the scores as they are, `plcc_fit` and `rmse_fit` after a "
            "logistic fit on the measured images. `srcc_within` is the mean over the sources of the dataset."
        )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--num-crops", type=int, help="crops of an image (default: as the model was saved)")
        parser.add_argument("--crop-strategy", choices=STRATEGIES, help="where crops are; dense: everywhere")

    def list_inputs(self, arguments: Any) -> list[Any]:
        if arguments.num_crops is not None and arguments.num_crops < 1:
            raise ValueError(f"`--num-crops` must be at least 1; got {arguments.num_crops}.")
        if arguments.num_crops is not None and arguments.crop_strategy not in (None, *COUNTED):
            raise ValueError(
                f"`--num-crops` must come with `--crop-strategy` {' or '.join(COUNTED)}; got it with "
                f"{arguments.crop_strategy}, which does not use it."
            )
        return super().list_inputs(arguments)

    def check_outputs(self, arguments: Any, files: OutputFiles) -> None:
        if files.folder is not None:
            for name in (RANKING, CONTACT_SHEET):
                files.check(files.folder / name)

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        answer = predictor(self.read_image(item), num_crops=arguments.num_crops, crop_strategy=arguments.crop_strategy)
        return [(item, answer["score"], answer["level"], answer["score_std"])]

    def finish(
        self, rows: Sequence[Sequence[Any]], predictor: Any, arguments: Any, files: OutputFiles
    ) -> list[Sequence[Any]]:
        """Images from the best to the worst; with `--output-dir` also as `ranking.csv` and `contact_sheet.png`."""
        sign = 1 if predictor.model.config.lower_is_better else -1
        ranked = sorted(rows, key=lambda row: (sign * row[1], str(row[0])))
        table: list[Sequence[Any]] = [
            (rank, item.name, *values) for rank, (item, *values) in enumerate(ranked, start=1)
        ]
        if files.folder is not None:
            from .contact_sheet import draw_contact_sheet

            paths = [str(item) for item, *_ in ranked]
            files.write(files.folder / RANKING, _encode([*self.columns, "path"], table, paths))
            captions = [f"{rank}  {score:g}" for rank, _, score, *_ in table]
            files.write(files.folder / CONTACT_SHEET, draw_contact_sheet(list(map(Path, paths)), captions))
        return table


def _encode(header: Sequence[str], table: Sequence[Sequence[Any]], paths: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    rows = [(*row, path) for row, path in zip(table, paths, strict=True)]
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()
