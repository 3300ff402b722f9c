"""Node classification: accuracy over the labeled nodes of one split, and the classes of the nodes of a graph."""

import csv
import inspect
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decahub.data.catalog import DATASETS

from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles
from .task import Task, evaluating, move_to_model


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


UNLABELED = -100
FEW_TARGETS = 0.1  # share of the nodes up to which they are computed alone
# What a graph brings along that is not for the model: answers, and which nodes they are for.
ANSWERS = ("labels", "sensitive", "train_mask", "validation_mask", "test_mask", "evaluation_mask")


class NodeClassification(Task):
    """A class for each node of a graph; examples are labeled nodes."""

    shares = ("*",)
    columns = ("graph", "node", "class", "probability")
    pipeline = "node-classification"  # also for tasks that measure the same answers otherwise

    def check_labels(self, model: Any, label_names: Sequence[str] | None) -> list[str]:
        """Names of the classes. Numbers, which graphs without names have, contradict no name."""
        own = list(model.config.id2label.values())
        numbers = [str(index) for index in range(len(own))]
        if label_names is not None and len(label_names) == len(own) and numbers in (own, list(label_names)):
            return list(label_names) if own == numbers else own
        return super().check_labels(model, label_names)

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        mask = batch["evaluation_mask"]
        return self.gather(predict_nodes(model, batch, mask & (batch["labels"] != UNLABELED)), batch, mask)

    def gather(
        self, logits: "torch.Tensor", inputs: Mapping[str, Any], mask: "torch.Tensor"
    ) -> dict[str, "torch.Tensor"]:
        """The arguments of the metric's `add_batch` for the labeled nodes of a mask."""
        chosen = (mask & (inputs["labels"] != UNLABELED)).nonzero().squeeze(1)
        return {"predictions": logits[chosen].detach().cpu(), "references": inputs["labels"][chosen].cpu()}

    def measure(self, model: "PreTrainedModel", processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`], graph by graph; `context.limit` counts nodes."""
        import torch

        from decahub.data.sampling import sample_indices

        names = self.check_labels(model, context.label_names)
        one_by_one = MeasurementContext(batch_size=1, show_progress=context.show_progress)
        with evaluating(model):
            parts = list(self.iterate_predictions(model, processor, rows, one_by_one))
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        num_nodes = len(columns["references"])
        if not num_nodes:
            raise ValueError("`dataset` must hold labeled nodes in the split; got none.")
        if context.limit is not None and context.limit < num_nodes:
            chosen = sample_indices(columns["references"].numpy(), num_nodes, context.limit)
            columns = {name: values[chosen] for name, values in columns.items()}
        return self.measure_columns(columns, names)

    def measure_columns(self, columns: Mapping[str, Any], label_names: Sequence[str]) -> Measurement:
        """Scores of what `gather` returned; nothing is stored, so it is cheap enough for every epoch."""
        return self.build_measurement(self.build_metric().measure(**columns), label_names, len(columns["references"]))

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        num_features = facts.config["num_features"]
        if remote:
            return (
                "import torch\n"
                "from transformers import AutoFeatureExtractor\n"
                "from transformers.dynamic_module_utils import get_class_from_dynamic_module\n\n"
                f'graph = {{"x": torch.rand(4, {num_features}), "edge_index": torch.tensor([[0, 1, 2], [1, 2, 3]])}}\n'
                f'model_class = get_class_from_dynamic_module("{facts.class_reference}", "{facts.model_id}")\n'
                f'model = model_class.from_pretrained("{facts.model_id}", trust_remote_code=True)\n'
                "feature_extractor = AutoFeatureExtractor.from_pretrained("
                f'"{facts.model_id}", trust_remote_code=True)\n'
                'print(model(**feature_extractor(graph, return_tensors="pt")).logits.softmax(-1))'
            )
        example = ""
        if facts.dataset:
            example = f'# Or the graph of the scores: `decahub.load_dataset("{facts.dataset.name}")["graph"][0]`\n'
        return (
            "import torch\n"
            "from torch_geometric.data import Data\n"
            "from transformers import pipeline\n\n"
            f"graph = Data(x=torch.rand(4, {num_features}), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))\n"
            f"{example}"
            f'classify = pipeline("node-classification", model="{facts.model_id}"{trust})\n'
            "print(classify(graph, nodes=[0, 3]))"
        )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--top-k", type=int, default=1, help="classes to show for each node (default: 1)")
        parser.add_argument("--nodes", nargs="+", help="names or numbers of the nodes to classify; by default all")
        parser.add_argument(
            "--data-dir", type=Path, help="directory of the graphs that are named; by default $DECAHUB_DATA_DIR"
        )

    def list_inputs(self, arguments: Any) -> list[Any]:
        if arguments.top_k < 1:
            raise ValueError(f"`--top-k` must be at least 1; got {arguments.top_k}.")
        known = [entry.name for entry in DATASETS.values() if entry.family == self.entry.family]
        inputs: list[str] = []
        for name in arguments.inputs:
            found = [name] if name in known or Path(name).is_file() else find_graphs(Path(name))
            inputs += found
            if not found:
                raise FileNotFoundError(
                    f"An input must be a .npz file, a table nodes.csv (with edges.csv), a folder with either, or one "
                    f"of {', '.join(known)}; got {name!r}."
                )
        return inputs

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        graph, nodes = load_graph(item, arguments.data_dir), arguments.nodes
        if nodes is not None and graph.get("node_names") is None and all(node.isdecimal() for node in nodes):
            nodes = [int(node) for node in nodes]
        try:
            answers = predictor(graph, nodes=nodes, top_k=arguments.top_k)
        except ValueError as error:
            raise ValueError(str(error).replace("`nodes`", "`--nodes`")) from error
        if files.folder is not None:
            files.write(files.choose(Path(item), "_predictions.csv"), write_answers(answers))
        return [
            (Path(item).name, answer["node"], label, probability)
            for answer in answers
            for label, probability in answer["probabilities"].items()
        ]


def write_answers(answers: Sequence[Mapping[str, Any]]) -> bytes:
    """A table in CSV of what the pipeline answered: node, class and probability, and those of further classes."""
    num_classes = max(len(answer["probabilities"]) for answer in answers)
    further = [f"{column}_{place}" for place in range(2, num_classes + 1) for column in ("class", "probability")]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["node", "class", "probability", *further])
    for answer in answers:
        ranked = [value for item in answer["probabilities"].items() for value in item]
        writer.writerow([answer["node"], *ranked])
    return text.getvalue().encode()


def find_graphs(folder: Path) -> list[str]:
    """The graphs in a user's own folder; none where it does not exist."""
    from decahub.data.graph_files import find_graph_files

    return [str(path) for path in find_graph_files(folder).get("graph", ())] if folder.is_dir() else []


def load_graph(name: str, data_dir: Path | None) -> Any:
    """A graph from a file, or from the dataset of that name."""
    from decahub.data import load_dataset
    from decahub.data.graph_files import read_unlabeled_graph

    if Path(name).is_file():
        return read_unlabeled_graph(Path(name))
    return load_dataset(name, data_dir)["graph"][0]


def predict_nodes(model: Any, inputs: Mapping[str, Any], mask: "torch.Tensor | None" = None) -> "torch.Tensor":
    """Class scores of the nodes of a graph, in float32 at least.

    Where `mask` selects few nodes and the model takes `target_nodes`, the others are not computed, and get NaN.
    """
    import torch

    graph = {name: value for name, value in inputs.items() if name not in ANSWERS}
    targets = torch.tensor([]) if mask is None else mask.to(inputs["edge_index"].device).nonzero().squeeze(1)
    takes_targets = "target_nodes" in inspect.signature(model.forward).parameters
    if mask is not None and takes_targets and 0 < len(targets) <= FEW_TARGETS * len(mask):
        few = model(**graph, target_nodes=targets).logits
        logits = few.new_full((len(mask), few.shape[1]), torch.nan).index_copy(0, targets, few)
    else:
        logits = model(**graph).logits
    return logits if logits.dtype == torch.float64 else logits.float()


def evaluate_nodes(
    model: "PreTrainedModel",
    inputs: Mapping[str, Any],
    mask: "torch.Tensor",
    task: str = "node-classification",
    *,
    with_loss: bool = False,
) -> Measurement:
    """Measure a model on some nodes of a graph, from tensors that are at hand: cheap enough for every epoch.

    The model is put into eval mode and gets its modes back; the global random state is left alone.

    Args:
        model (`PreTrainedModel`): A node classifier, on any device, in any precision.
        inputs (`Mapping`): Tensors of one graph (`decahub.data.node_classification.build_graph_inputs`); all but
            labels, groups and masks are passed to the model.
        mask (`torch.BoolTensor` of shape `(num_nodes,)`): Nodes to measure; those without a label are left out.
        task (`str`, *optional*, defaults to `"node-classification"`): Or `"fair-node-classification"`, for which
            `inputs` holds `sensitive`.
        with_loss (`bool`, *optional*, defaults to `False`): Whether to add the score `loss`, the mean cross entropy.

    Returns:
        [`Measurement`]: What the data leaves undefined is left out.

    Raises:
        ValueError: If the task does not classify nodes, or the mask holds no labeled node.
    """
    return evaluate_parts(model, inputs, {"": mask}, task, with_loss=with_loss)[""]


def evaluate_parts(
    model: "PreTrainedModel",
    inputs: Mapping[str, Any],
    masks: Mapping[str, "torch.Tensor"],
    task: str = "node-classification",
    *,
    with_loss: bool = False,
) -> dict[str, Measurement]:
    """As [`evaluate_nodes`], for several parts of the nodes, masks by name, in one forward pass."""
    import torch
    from torch.nn.functional import cross_entropy

    from . import get_task

    record = get_task(task)
    if not isinstance(record, NodeClassification):
        raise ValueError(f"`task` must classify nodes; got {task!r}. Use `evaluate_model`.")
    for mask in masks.values():
        _check_mask(mask, inputs["labels"])
    wanted = torch.stack(list(masks.values())).any(0) & (inputs["labels"] != UNLABELED)
    with evaluating(model):
        logits = predict_nodes(model, move_to_model(inputs, model), wanted).to(inputs["labels"].device)
    id2label: Any = model.config.id2label
    measurements = {}
    for name, mask in masks.items():
        measurement = record.measure_columns(record.gather(logits, inputs, mask), list(id2label.values()))
        if with_loss:
            labels = inputs["labels"].masked_fill(~mask, UNLABELED)
            measurement.scores["loss"] = float(cross_entropy(logits, labels, ignore_index=UNLABELED))
        measurements[name] = measurement
    return measurements


def join_scores(measurements: Mapping[str, Measurement]) -> Scores:
    """The scores of several parts in one dictionary, called `<part>_<score>`."""
    return {
        f"{part}_{score}": value
        for part, measurement in measurements.items()
        for score, value in measurement.scores.items()
    }


def _check_mask(mask: "torch.Tensor", labels: "torch.Tensor") -> None:
    import torch

    if mask.shape != labels.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"`mask` must be booleans of shape {tuple(labels.shape)}; got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    if not (mask & (labels != UNLABELED)).any():
        raise ValueError(f"`mask` must select at least one labeled node; got {int(mask.sum())} nodes, none labeled.")
