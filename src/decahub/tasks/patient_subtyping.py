"""Patient subtyping: the subtype of each patient of a table, and what speaks for a partition."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measurement import Measurement, MeasurementContext, Report, Scores
from .output_files import OutputFiles
from .task import Task, evaluating


TRUTH = "subtype"  # column of a generated cohort
ENDINGS = (".csv", ".tsv")
CHECKS = ("jaccard", "significance", "mixture", "prediction_strength")
SCORES = (
    "ari", "prediction_strength", "jaccard", "significance_p", "mixture_p", "in_distribution", "nearest_probability",
)  # fmt: skip
NO_DIAGNOSIS = "A subtype is a group of similar patients in one table, not a diagnosis."


class PatientSubtyping(Task):
    """A subtype for each patient; examples are patients."""

    shares = ("in_distribution",)
    columns = ("table", "id", "subtype", "probability", "out of distribution")
    input_kind = "a table in CSV"

    def check_labels(self, model: Any, label_names: Sequence[str] | None) -> list[str]:
        """Subtypes are found, not given."""
        return []

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        outputs = model(batch["features"])
        return {"features": batch["features"].double().cpu(), "labels": outputs.subtypes.cpu()}

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """Assign the patients of a table, and check the partition on them.

        Where the true subtypes are known, in the column `subtype`, `ari` is the agreement with them.
        """
        import numpy as np

        features, truth = self.read_patients(processor, self.sample_rows(rows, context.limit))
        with evaluating(model):
            outputs = model(features.to(model.device))
        labels, features = outputs.subtypes.cpu().numpy(), features.double().numpy()
        result = {
            "in_distribution": float(1 - outputs.out_of_distribution.double().mean()),
            "nearest_probability": float(outputs.subtype_probabilities.amax(1).double().mean()),
        }
        if min(truth) >= 0:
            from sklearn.metrics import adjusted_rand_score

            result["ari"] = float(adjusted_rand_score(truth, labels))
        if len(np.unique(labels)) == model.config.num_subtypes > 1:
            found = self.build_metric().measure(
                features=features, labels=labels, model=model, refit="frozen", quick=True, checks=CHECKS
            )
            result |= found["scores"]
        return self.build_measurement(result, [], len(labels))

    def read_patients(self, processor: Any, rows: Any) -> tuple[Any, list[int]]:
        """Features of the patients of a table, and their true subtypes; -1 where these are unknown.

        Raises:
            ValueError: If the feature extractor refuses the table, it holds controls only, or its column `subtype` is
                none of subtypes.
        """
        from decahub.data.cohorts import to_columns

        table = to_columns(rows)
        batch = processor(table)
        is_patient = batch["is_patient"]
        if int(is_patient.sum()) == 0:
            raise ValueError("`dataset` must hold patients; all are controls.")
        features = batch["features"][is_patient]
        if TRUTH not in table:
            return features, [-1] * len(features)
        truth = table[TRUTH][is_patient.numpy()].tolist()
        truth = [-1 if value is None or value != value else value for value in truth]
        for value in truth:
            if not isinstance(value, (int, float)) or value % 1 != 0:
                raise ValueError(
                    f"column `{TRUTH}` must hold the numbers of true subtypes, -1 where unknown; got {value!r}. "
                    "Rename it if it is something else."
                )
        return features, truth

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        return {name: result[name] for name in SCORES if name in result}

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        if remote:
            return (
                "from transformers import AutoFeatureExtractor, AutoModel\n\n"
                f'model = AutoModel.from_pretrained("{facts.model_id}", trust_remote_code=True)\n'
                "feature_extractor = AutoFeatureExtractor.from_pretrained("
                f'"{facts.model_id}", trust_remote_code=True)\n'
                "table = ...  # a pandas table with the columns of `feature_extractor`\n"
                'print(model(feature_extractor(table)["features"]).subtype_probabilities)'
            )
        return (
            "import pandas\n"
            "from transformers import pipeline\n\n"
            f'assign = pipeline("{self.name}", model="{facts.model_id}"{trust})\n'
            'print(assign(pandas.read_csv("patients.csv")))'
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        return (
            "`ari` is the agreement with the true subtypes of a generated cohort; the other scores are checks of the "
            f"partition of the measured patients. {NO_DIAGNOSIS}"
        )

    def list_inputs(self, arguments: Any) -> list[Any]:
        paths = super().list_inputs(arguments)
        for path in paths:
            if path.suffix not in ENDINGS:
                raise ValueError(f"`INPUT` must end in {' or '.join(ENDINGS)}; got {str(path)!r}.")
        return paths

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        from decahub.data.cohorts import read_csv

        answers = predictor(read_csv(item, predictor.feature_extractor.id_column))
        rows: list[Sequence[Any]] = [
            (
                Path(item).name,
                answer["id"],
                answer["subtype"] or f"none (nearest: {answer['nearest_subtype']})",
                round(answer["probability"], 4),
                answer["out_of_distribution"],
            )
            for answer in answers
        ]
        if files.folder is not None:
            files.write(files.choose(Path(item), "_subtypes.csv"), write_answers(answers))
        return rows


def write_answers(answers: Sequence[Mapping[str, Any]]) -> bytes:
    """A table in CSV of what the pipeline answered, with the probability of each subtype."""
    text = io.StringIO(newline="")
    names = list(answers[0]["probabilities"])
    writer = csv.writer(text)
    writer.writerow(["id", "subtype", "nearest_subtype", "out_of_distribution", *names])
    for answer in answers:
        probabilities = [answer["probabilities"][name] for name in names]
        row = [answer["id"], answer["subtype"] or "", answer["nearest_subtype"], answer["out_of_distribution"]]
        writer.writerow([*row, *probabilities])
    return text.getvalue().encode()


def build_check_report(validity: Mapping[str, Any]) -> Report:
    """The checks of the training patients as a table for the card."""
    rows = [
        (name.replace("_", " "), record["outcome"], record["rule"], record["sentence"])
        for name, record in validity["checks"].items()
    ]
    columns = ("check", "outcome", "rule", "what it found")
    verdict = f"Verdict by a fixed rule: {validity['verdict']}. {NO_DIAGNOSIS}"
    return Report("Checks of the subtypes", columns, rows, verdict)
