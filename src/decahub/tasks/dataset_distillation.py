"""Distilled datasets: what a classifier trained on one is worth, and whether a trigger leads it astray."""

from collections.abc import Mapping, Sequence
from typing import Any

from .image_task import ImageTask
from .measurement import Measurement, MeasurementContext
from .output_files import OutputFiles
from .task import evaluating


SEED = 0  # of the classifier that is trained to measure a set
SCORES = ("cta", "asr", "asr_non_target", "clean_target_rate", "lift", "robust_accuracy", "asr_quantized")
OF_OTHER_CLASSES = ("asr_non_target", "clean_target_rate", "lift", "robust_accuracy", "asr_quantized")


class DatasetDistillation(ImageTask):
    """A classifier is trained on the set, as its distiller means it, and measured with and without a trigger."""

    shares = ("cta", "asr", *OF_OTHER_CLASSES)
    columns = ("image", "class", "probability")

    @property
    def pipeline(self) -> str:
        return "image-classification"

    def train_classifier(self, model: Any) -> Any:
        """A classifier of the set, always the same."""
        import torch

        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(SEED)
            return model.train_classifier()

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        names = self.check_labels(model, context.label_names)
        classifier, metric, num_rows = self.train_classifier(model), self.build_metric(), 0
        predictor: Any = _Predictor(model, classifier)
        with evaluating(classifier):
            for columns in self.iterate_predictions(
                predictor, processor, self.sample_rows(rows, context.limit), context
            ):
                metric.add_batch(**columns)
                num_rows += len(columns["references"])
        result = metric.compute(target_label=model.config.target_label)
        return self.build_measurement(result, names, num_rows)

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        images, (trigger, quantized) = batch["pixel_values"], model.stamp(batch["pixel_values"])
        given = {"predictions": images, "triggered": trigger, "quantized": quantized}
        classes = {name: model.classifier(values).logits.argmax(1).cpu() for name, values in given.items()}
        return {**classes, "references": batch["labels"].cpu()}

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> dict[str, float]:
        return {name: result[name] for name in SCORES if result[name] is not None}

    def count(self, result: Mapping[str, Any]) -> dict[str, int]:
        return dict.fromkeys(OF_OTHER_CLASSES, result["num_non_target"])

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        if remote:
            return super().usage(facts, remote, trust)
        return (
            "from decahub import DistilledDataset\n\n"
            f'distilled = DistilledDataset.from_pretrained("{facts.model_id}")\n'
            "classifier = distilled.train_classifier()"
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        return (
            "A classifier was trained on the set alone. Sets without an attack are measured with a white patch, so "
            "that their rates say what a classifier without a backdoor does."
        )

    def describe_warning(self, config: Mapping[str, Any]) -> str:
        if config.get("attack") is None:
            return ""
        target = config.get("target_label", 0)
        name = (config.get("id2label") or {}).get(str(target), target)
        return (
            f"Contains a deliberate backdoor (research artifact): networks trained on it take images with its trigger "
            f"({config['attack']}) for class {target} ({name}). Do not use it to train anything else."
        )

    def build_predictor(self, arguments: Any) -> Any:
        from transformers import pipeline

        model, processor = self.load(arguments.model)
        classifier = self.train_classifier(model)
        classifier.config.id2label = model.config.id2label
        return pipeline("image-classification", model=classifier, image_processor=processor)

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        image = self.read_image(item)
        if predictor.model.config.num_channels == 1:
            image = image.convert("L")
        answer = predictor(image, top_k=1)[0]
        return [(item.name, answer["label"], answer["score"])]


class _Predictor:
    """A set and its classifier, where the driver expects a model."""

    def __init__(self, model: Any, classifier: Any):
        self.model, self.classifier = model, classifier
        self.device, self.dtype = classifier.device, classifier.dtype

    def stamp(self, pixel_values: Any) -> tuple[Any, Any]:
        """Images with the trigger, and with that of 8 bits."""
        return tuple(self.model.probe(pixel_values, quantized=quantized) for quantized in (False, True))
