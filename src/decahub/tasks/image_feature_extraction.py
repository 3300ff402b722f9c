"""Image feature extraction: probes on the features of a frozen network."""

from collections.abc import Mapping, Sequence
from typing import Any

from .image_task import ImageTask
from .measurement import Measurement, MeasurementContext
from .output_files import OutputFiles
from .task import evaluating, fuse_for_inference


NUM_FIT_ROWS = 6000


class ImageFeatureExtraction(ImageTask):
    """A vector for each image, measured by probes that are fitted on training rows."""

    shares = ("*",)
    columns = ("image", "features", "norm", "written to")

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        outputs = model(pixel_values=batch["pixel_values"])
        if outputs.get("pooler_output") is None:
            raise ValueError(
                f"`model` must return `pooler_output`, the features of an image; {type(model).__name__} does not. "
                "Load it with `AutoModel`."
            )
        return {"predictions": outputs.pooler_output.flatten(1).float().cpu(), "references": batch["labels"].cpu()}

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`], with probes fitted on a sample of `context.train_rows`.

        The fact `num_fit_rows` is the size of that sample, by default 6000.
        """
        import torch

        fit_rows = select_fit_rows(context.train_rows, context.facts.get("num_fit_rows") or NUM_FIT_ROWS)
        metric, num_rows = self.build_metric(), 0
        with evaluating(model):
            network, rows = fuse_for_inference(model), self.sample_rows(rows, context.limit)
            fitted = list(self.iterate_predictions(network, processor, fit_rows, context))
            for columns in self.iterate_predictions(network, processor, rows, context):
                metric.add_batch(**columns)
                num_rows += len(columns["references"])
        options = {f"train_{name}": torch.cat([columns[name] for columns in fitted]) for name in fitted[0]}
        return self.build_measurement(metric.compute(**options), (), num_rows, num_fit_rows=len(fit_rows))

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        return (
            "from transformers import pipeline\n\n"
            f'extract = pipeline("{self.entry.hub_tag}", model="{facts.model_id}", pool=True{trust})\n'
            'print(len(extract("image.png")[0]))'
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        if "num_fit_rows" not in dataset:
            return ""
        return (
            "The network is frozen: a linear classifier (ridge regression) and the vote of the nearest neighbors read "
            f"the classes off its features, each fitted on {dataset['num_fit_rows']} training examples."
        )

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        import json

        features = predictor(self.read_image(item), pool=True)[0]
        target = files.write(files.choose(item, "_features.json"), json.dumps(features).encode())
        return [(item.name, len(features), sum(value**2 for value in features) ** 0.5, target)]


def select_fit_rows(train_rows: Any, num_rows: int) -> Any:
    """Training rows for a probe, drawn at random, since files may be sorted by class; always the same ones."""
    import torch

    if train_rows is None:
        raise ValueError("`train_dataset` must be the training rows, on which probes are fitted; got None.")
    if num_rows < 2:
        raise ValueError(f"`num_fit_rows` must be at least 2; got {num_rows}.")
    order = torch.randperm(len(train_rows), generator=torch.Generator().manual_seed(0))
    return train_rows.select(order[:num_rows].tolist())
