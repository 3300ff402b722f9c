"""Image classification: top-k accuracy, and the most probable classes of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from .image_task import ImageTask
from .output_files import OutputFiles


TOP_K = (1, 5)


class ImageClassification(ImageTask):
    """One class for each image."""

    shares = ("*",)
    columns = ("image", "class", "probability")

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return {"predictions": model(**inputs).logits.float().cpu(), "references": batch["labels"].cpu()}

    def get_metric_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {"k": [k for k in TOP_K if k < len(label_names)]}

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("{self.entry.hub_tag}", model="{facts.model_id}"{trust})\n'
            'print(classify("image.png"))'
        )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--top-k", type=int, default=1, help="classes to show for each image (default: 1)")

    def list_inputs(self, arguments: Any) -> list[Any]:
        if arguments.top_k < 1:
            raise ValueError(f"`--top-k` must be at least 1; got {arguments.top_k}.")
        return super().list_inputs(arguments)

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        answers = predictor(self.read_image(item), top_k=arguments.top_k)
        return [(item.name, answer["label"], answer["score"]) for answer in answers]
