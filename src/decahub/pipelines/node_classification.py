"""Pipeline "node-classification": a graph in, a class with its probability for each node out."""

import copy
import inspect
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from transformers import Pipeline


FEW_TARGETS = 0.1  # share of the nodes up to which they are computed alone


class NodeClassificationPipeline(Pipeline):
    """Classifies the nodes of a graph, all of them or those asked for.

    One input is a graph in any form that the model's feature extractor takes: a torch-geometric `Data`, a networkx
    graph, a dict of arrays, a pair `(node_features, edge_index)` or a row of `decahub.load_dataset`. As everywhere in
    transformers a list holds several inputs; a list of graphs that is itself one input, `pipe([[graph, other]])`, is
    answered in one forward pass over the disjoint union.

    Args of a call:
        nodes (sequence, *optional*): The nodes to answer for, in this order; by default all. Names where the graph has
            names (networkx, `node_names`), else numbers from 0. For a list of graphs one such sequence for each.
        top_k (`int`, *optional*): Classes in `probabilities`, the most probable ones; by default all.
        batch_size_nodes (`int`, *optional*): Compute the answers for this many nodes at a time, in bounded memory; the
            answers are the same. A model that cannot (its `forward` takes no `target_nodes`) computes all at once.
        return_data (`bool`, defaults to `False`): Whether a torch-geometric `Data` is answered by a `Data`: a copy of
            it with `probabilities` `(num_nodes, num_labels)`, `predictions` `(num_nodes,)`, the most probable class,
            and `label_names`. Nodes that were not asked for have NaN and -1. Not together with `top_k`.

    Returns for each input:
        `list[dict]`: for each node `node` (its name, or its number), `label` (`str`), `score` (`float`, its
        probability) and `probabilities` (`dict[str, float]`, best first). For a list of graphs a list of these for
        each. With `return_data` a `Data`, or a list of them.

    Example:
    ```python
    >>> from transformers import pipeline
    >>> classify = pipeline("node-classification", model="model_cards/raw-gnn-texas")
    >>> classify({"node_features": features, "edge_index": edges}, nodes=[4, 7], top_k=1)
    [{'node': 4, 'label': 'class 3', 'score': 0.98, 'probabilities': {'class 3': 0.98}}, ...]
    ```
    """

    _load_feature_extractor = True
    _load_image_processor = _load_processor = _load_tokenizer = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        if batch_size > 1:
            raise ValueError(
                f"`batch_size` must be 1 for graphs; got {batch_size}. Give a list of graphs as one input: "
                "`pipe([[graph, other]])`."
            )
        if isinstance(inputs, list) and not inputs:
            raise ValueError("`inputs` must hold at least one graph; got an empty list.")
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        nodes: Any = None,
        top_k: int | None = None,
        batch_size_nodes: int | None = None,
        return_data: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value in (("top_k", top_k), ("batch_size_nodes", batch_size_nodes)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
                raise ValueError(f"`{name}` must be a whole number, or None; got {value!r}.")
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, or None; got {value}.")
        if not isinstance(return_data, bool):
            raise ValueError(f"`return_data` must be True or False; got {return_data!r}.")
        if return_data and top_k is not None:
            raise ValueError(f"`top_k` must be left out with `return_data`, which has all classes; got {top_k}.")
        return (
            ({} if nodes is None else {"nodes": nodes}) | ({"return_data": True} if return_data else {}),
            {} if batch_size_nodes is None else {"batch_size_nodes": batch_size_nodes},
            {} if top_k is None else {"top_k": top_k},
        )

    def preprocess(self, graph: Any, nodes: Any = None, return_data: bool = False) -> dict[str, Any]:
        graphs = graph if isinstance(graph, list) else [graph]
        if return_data and (other := next((item for item in graphs if not _is_data(item)), None)) is not None:
            raise ValueError(
                f"`return_data` must be left out for a graph that is no torch-geometric `Data`; got "
                f"{type(other).__name__}."
            )
        options = {"needs_labels": False}
        if "needs_labels" not in inspect.signature(self.feature_extractor.__call__).parameters:
            options = {}
        extracted = self.feature_extractor(graph, return_tensors="pt", **options)
        num_nodes = extracted["node_features"].shape[0]
        sizes = extracted["num_nodes_per_graph"].tolist() if isinstance(graph, list) else [num_nodes]
        names = list(extracted.get("node_names") or [])
        parts = [names[sum(sizes[:index]) :][:size] or range(size) for index, size in enumerate(sizes)]
        if nodes is None:
            asked = [torch.arange(size) for size in sizes]
        elif isinstance(graph, list):
            if len(nodes) != len(sizes):
                raise ValueError(
                    f"`nodes` must hold one sequence of ids for each of the {len(sizes)} graphs; got {len(nodes)}."
                )
            asked = [_read_nodes(ids, part) for ids, part in zip(nodes, parts, strict=True)]
        else:
            asked = [_read_nodes(nodes, parts[0])]
        inputs = {name: extracted[name] for name in self.feature_extractor.model_input_names}
        return {
            "inputs": inputs,
            "nodes": asked,
            "sizes": sizes,
            "names": parts,
            "is_list": isinstance(graph, list),
            "graphs": graphs if return_data else None,
        }

    def _forward(self, prepared: dict[str, Any], batch_size_nodes: int | None = None) -> Any:
        from decahub.models.shared.modes import evaluation_mode

        inputs, sizes = prepared["inputs"], prepared["sizes"]
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        nodes = torch.cat([ids + start for ids, start in zip(prepared["nodes"], starts, strict=True)])
        targets, places = nodes.unique(return_inverse=True)  # a model computes each target once
        takes_targets = "target_nodes" in inspect.signature(self.model.forward).parameters
        is_few = len(targets) <= FEW_TARGETS * sum(sizes)
        with evaluation_mode(self.model):
            if takes_targets and (is_few or batch_size_nodes is not None):
                batches = targets.split(batch_size_nodes or len(targets))
                logits = torch.cat([self.model(**inputs, target_nodes=batch).logits for batch in batches])[places]
            else:
                logits = self.model(**inputs).logits[nodes]
        return {**{name: prepared[name] for name in ("nodes", "names", "is_list", "graphs")}, "logits": logits}

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = None) -> Any:
        names = self.model.config.id2label
        probabilities = outputs["logits"].float().softmax(-1)
        if outputs["graphs"] is not None:
            parts = probabilities.split([len(ids) for ids in outputs["nodes"]])
            sizes = [len(own_names) for own_names in outputs["names"]]
            filled = [
                _add_answers(graph, ids, part, size, list(names.values()))
                for graph, ids, part, size in zip(outputs["graphs"], outputs["nodes"], parts, sizes, strict=True)
            ]
            return filled if outputs["is_list"] else filled[0]
        best, classes = probabilities.topk(min(top_k or len(names), len(names)))
        rows = zip(best.tolist(), classes.tolist(), strict=True)
        answers: list[list[dict[str, Any]]] = []
        for ids, own_names in zip(outputs["nodes"], outputs["names"], strict=True):
            answers.append([])
            for node in ids.tolist():
                scores, labels = next(rows)
                ranked = {names[label]: score for label, score in zip(labels, scores, strict=True)}
                answers[-1].append(
                    {"node": own_names[node], "label": names[labels[0]], "score": scores[0], "probabilities": ranked}
                )
        return answers if outputs["is_list"] else answers[0]


def _is_data(graph: Any) -> bool:
    """Whether it is a `Data` of torch-geometric, which is not imported for that."""
    return hasattr(graph, "edge_index") and type(graph).__module__.partition(".")[0] == "torch_geometric"


def _add_answers(
    graph: Any, nodes: torch.Tensor, probabilities: torch.Tensor, num_nodes: int, label_names: list[str]
) -> Any:
    """A copy of a `Data`, which shares its tensors, with the answers for some of its nodes."""
    answered = copy.copy(graph)
    everywhere = probabilities.new_full((num_nodes, len(label_names)), torch.nan)
    everywhere[nodes] = probabilities
    answered.probabilities = everywhere
    answered.predictions = torch.full((num_nodes,), -1, device=nodes.device)
    answered.predictions[nodes] = probabilities.argmax(-1)
    answered.label_names = label_names
    return answered


def _read_nodes(nodes: Any, names: Sequence[str | int]) -> torch.Tensor:
    """Places of nodes as a tensor, after a look at each."""
    if not isinstance(names, range):
        places = {str(name): place for place, name in enumerate(names)}
        asked = [str(node) for node in (nodes.tolist() if hasattr(nodes, "tolist") else nodes)]
        unknown = [node for node in asked if node not in places]
        if unknown or not asked:
            raise ValueError(
                f"`nodes` must be a non-empty sequence of names of nodes, such as {names[0]!r}; got "
                f"{unknown[0] if unknown else 'none'!r}" + (f" and {len(unknown) - 1} more." if unknown[1:] else ".")
            )
        return torch.tensor([places[node] for node in asked])
    if isinstance(nodes, list | tuple) and any(isinstance(node, str) for node in nodes):
        raise ValueError(
            f"`nodes` must be numbers in [0, {len(names)}), since the nodes have no names; got {nodes!r}."
        )
    ids = torch.as_tensor(nodes)
    if ids.ndim != 1 or not ids.numel() or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(
            f"`nodes` must be a non-empty sequence of node ids (integers); got {ids.dtype} of shape "
            f"{tuple(ids.shape)}. For one node write `nodes=[7]`."
        )
    outside = (ids < 0) | (ids >= len(names))
    if outside.any():
        raise ValueError(
            f"`nodes` must hold ids in [0, {len(names)}); got {int(ids[outside][0])}"
            + (f" and {int(outside.sum()) - 1} more." if outside.sum() > 1 else ".")
        )
    return ids.long()


__all__ = ["NodeClassificationPipeline"]
