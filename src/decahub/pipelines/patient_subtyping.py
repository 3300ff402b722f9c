"""Pipeline "patient-subtyping": a table of patients in, a subtype for each out."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Pipeline


DIGITS = 5
STRANGER = "unlike the patients of the fit: a subtype would mean nothing"


class PatientSubtypingPipeline(Pipeline):
    """Gives each patient of a table the subtype whose votes are the most.

    A table is a pandas table, a `datasets.Dataset`, a mapping of columns or a list of rows, with the columns that the
    model's feature extractor was fitted on; columns are matched by name. Controls in it are left out. A subtype is a
    group of similar patients. It is not a diagnosis, and says nothing about whether someone is ill.

    Args of a call:
        keep_controls (`bool`, *optional*, defaults to `False`): Whether to answer for controls as well.

    Returns for each patient:
        `dict`: `id`, or the row of the table where it has no ids; `subtype`, `None` for someone unlike the patients of
        the fit; `nearest_subtype`; `probability` of it, and `probabilities` of all; `out_of_distribution`;
        `reconstruction_error` in standard deviations; `note`.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> assign = pipeline("patient-subtyping", model="model_cards/mpd-subtyping-synthetic")
    >>> assign(table)[0]["subtype"]
    'subtype 1'
    ```
    """

    _load_feature_extractor = True
    _load_image_processor = _load_processor = _load_tokenizer = False

    def __call__(self, inputs: Any, **kwargs: Any) -> list[dict[str, Any]]:
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], Mapping):
            from decahub.models.mpd_subtyping.cohort_table import read_columns

            inputs = read_columns(inputs)  # one table, not several inputs
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, keep_controls: bool = False, **unknown: Any) -> tuple[dict, dict, dict]:
        if unknown:
            name = next(iter(unknown))
            raise ValueError(f"`{name}` must be an option of the pipeline, keep_controls; it does not exist.")
        return {"keep_controls": keep_controls}, {}, {}

    def preprocess(self, table: Any, keep_controls: bool = False) -> dict[str, Any]:
        batch = self.feature_extractor(table)
        rows = torch.arange(len(batch["features"]))
        if "is_patient" in batch and not keep_controls:
            rows = rows[batch["is_patient"]]
        if not len(rows):
            raise ValueError("`inputs` must hold patients; the table has controls only.")
        names = batch["id"] if "id" in batch else [None] * len(batch["features"])
        return {"features": batch["features"][rows], "ids": [names[row] or int(row) for row in rows]}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"ids": inputs["ids"], "outputs": self.model(inputs["features"])}

    def postprocess(self, results: dict[str, Any]) -> list[dict[str, Any]]:
        outputs, names = results["outputs"], self.model.config.id2label
        if outputs.subtypes is None:
            raise ValueError("`model` must be fitted; this one has no subtypes yet.")
        answers = []
        for row, identifier in enumerate(results["ids"]):
            probabilities = [round(value, DIGITS) for value in outputs.subtype_probabilities[row].double().tolist()]
            nearest, is_stranger = int(outputs.subtypes[row]), bool(outputs.out_of_distribution[row])
            answers.append(
                {
                    "id": identifier,
                    "subtype": None if is_stranger else names[nearest],
                    "nearest_subtype": names[nearest],
                    "probability": probabilities[nearest],
                    "probabilities": {names[index]: value for index, value in enumerate(probabilities)},
                    "out_of_distribution": is_stranger,
                    "reconstruction_error": round(float(outputs.reconstruction_error[row]), DIGITS),
                    "note": STRANGER if is_stranger else "",
                }
            )
        return answers


__all__ = ["PatientSubtypingPipeline"]
