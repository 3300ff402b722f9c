"""One driver for all: model + processor + dataset + task -> [`~decahub.tasks.Measurement`]."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from decahub.data.label_names import read_label_names
from decahub.tasks import Measurement, MeasurementContext, get_task


def evaluate_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Any,
    task: str,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    label_names: Sequence[str] | None = None,
    train_dataset: Any = None,
    facts: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> Measurement:
    """Measure a model on one split.

    The model is put into eval mode and gets its modes back; the global random state is left alone, so a call in the
    middle of training does not change what the run learns. A model that offers `fuse()` is measured by its fused copy,
    whose outputs are equal up to rounding.

    Args:
        model (`PreTrainedModel`): On any device, in any precision.
        processor: What the model was trained with; images and graphs pass through it as a user's would.
        dataset (`datasets.Dataset`): One split with the columns of the task's family (`decahub.load_dataset`). Graphs
            go through `decahub.data.select_split(graphs, "test/0")` first.
        task (`str`): A key of `decahub.registry.TASKS`.
        batch_size (`int`, *optional*, defaults to 32): Rows per forward pass; graphs go one by one.
        limit (`int`, *optional*): Measure a sample of this many rows, or nodes, balanced over classes.
        label_names (`Sequence[str]`, *optional*): Classes of the dataset in the order of their ids; by default those
            of its column of class ids.
        train_dataset (`datasets.Dataset`, *optional*): Training split, for tasks that fit a probe on it.
        facts (`Mapping`, *optional*): `Measurement.facts` to repeat, such as `{"num_fit_rows": 6000}`.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        [`~decahub.tasks.Measurement`] with the scores of the task, the headline first:

        - drum generation: `bits_per_step` after the prompt, and `bits_per_step_of_lines`, separators and end left out;
        - image classification: `accuracy` and, where there are more than five classes, `top_5_accuracy`;
        - image quality assessment: `srcc`, `plcc`, `plcc_fit`, `krcc`, `rmse`, `rmse_fit`, `level_accuracy`,
          `level_accuracy_within_one`, and within the sources of the dataset `srcc_within`, `plcc_within`;
        - image feature extraction: `linear_probe_accuracy` and `knn_accuracy` of probes on `pooler_output`;
        - semantic segmentation: `mean_iou`, `mean_accuracy`, `overall_accuracy` and `iou_<class>`;
        - node classification: `accuracy`, `macro_f1` and, for two classes, `roc_auc`;
        - fair node classification: `accuracy`, `roc_auc`, `f1`, `statistical_parity_difference`,
          `equal_opportunity_difference`, `majority_class_accuracy`, and for each group `accuracy_group_<id>`,
          `positive_rate_group_<id>`, `true_positive_rate_group_<id>`;
        - 3D object detection: `nds`, `mean_ap`, `translation_error`, `scale_error`, `orientation_error`,
          `velocity_error`, `attribute_error` and `ap_<class>`;
        - patient subtyping: `ari` where true subtypes are known, `prediction_strength`, `jaccard`, `significance_p`,
          `mixture_p`, `in_distribution` (share of patients like those of the fit), `nearest_probability`.

        What the data leaves undefined is left out.

    Raises:
        TypeError: If `dataset` is a dictionary of splits.
        ValueError: If the task is unknown, there is nothing to measure, or its classes are not the model's.
    """
    record = get_task(task)
    if isinstance(dataset, dict):
        raise TypeError(
            f"`dataset` must be one split; got a dict of {', '.join(dataset)}. Choose one: `dataset['test']`."
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; got {batch_size}.")
    if not len(dataset):
        raise ValueError("`dataset` must hold at least one row; got none.")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all; got {limit}.")
    context = MeasurementContext(
        batch_size=batch_size,
        limit=limit,
        label_names=label_names if label_names is not None else read_label_names(dataset),
        train_rows=train_dataset,
        facts=facts or {},
        show_progress=show_progress,
    )
    return record.measure(model, processor, dataset, context)
