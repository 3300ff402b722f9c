"""What a teacher knows about the nodes of a graph: scores and, for adversarial distillation, hidden features."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..shared.modes import evaluation_mode
from ..shared.npz_files import read_npz


TEACHER_OUTPUTS = ("logits", "log_probs", "probs")
SUM_ATOL = 2e-3  # of probabilities; files of the authors have four decimals
LEAST_PROBABILITY = 1e-12  # in place of a zero, whose logarithm no loss could bear


@dataclass
class TeacherKnowledge:
    """Scores and embeddings of a teacher, checked.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): what the teacher gave, as `teacher_output`
            says; afterwards scores of which a softmax gives its probabilities.
        embedding (`torch.FloatTensor` of shape `(num_nodes, embedding_size)`, *optional*): hidden features.
        teacher_output (`str`): `"logits"`, `"log_probs"` or `"probs"`.

    Raises:
        ValueError: If shapes do not fit, values are not finite, or probabilities of a node do not sum to 1.
    """

    logits: torch.Tensor
    embedding: torch.Tensor | None = None
    teacher_output: str = "logits"

    def __post_init__(self):
        if self.teacher_output not in TEACHER_OUTPUTS:
            raise ValueError(f"`teacher_output` must be one of {list(TEACHER_OUTPUTS)}; got {self.teacher_output!r}.")
        for name in ("logits", "embedding"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise TypeError(f"`{name}` of a teacher must be a tensor of floats; got {_describe(value)}.")
            if value.ndim != 2:
                raise ValueError(f"`{name}` of a teacher must have two dimensions; got {tuple(value.shape)}.")
            value = value.detach()
            if name == "logits" and self.teacher_output != "logits":
                value = self._to_log_probs(value)
            if name == "logits":
                self._check_scores(value)
            if not torch.isfinite(value).all():
                raise ValueError(f"`{name}` of a teacher must be finite; got NaN or infinity.")
            setattr(self, name, value)
        if self.embedding is not None and self.embedding.shape[0] != self.logits.shape[0]:
            raise ValueError(
                f"`embedding` of a teacher must have {self.logits.shape[0]} rows, as its logits have; got "
                f"{self.embedding.shape[0]}."
            )

    def _check_scores(self, value: torch.Tensor) -> None:
        if value.shape[1] < 2:
            raise ValueError(
                f"`logits` of a teacher must have a column for each class, two at least; got {tuple(value.shape)}. "
                "From one score `s` of class 1, make `torch.stack([torch.zeros_like(s), s], dim=1)`."
            )
        if self.teacher_output != "logits" or not len(value):
            return
        if (value >= 0).all() and ((value.sum(-1) - 1).abs() <= SUM_ATOL).all():
            raise ValueError(
                "`logits` must be scores with `teacher_output='logits'`; got numbers that sum to 1 for each node. Say "
                "`teacher_output='probs'` for probabilities."
            )

    def _to_log_probs(self, value: torch.Tensor) -> torch.Tensor:
        probabilities = value.exp() if self.teacher_output == "log_probs" else value
        if (probabilities < 0).any():
            raise ValueError("`logits` must not be negative with `teacher_output='probs'`. Are they logits?")
        off = (probabilities.sum(-1) - 1).abs()
        if not (off <= SUM_ATOL).all():
            row = int(off.nan_to_num(nan=torch.inf).argmax())
            raise ValueError(
                f"`logits` must sum to 1 for each node with `teacher_output={self.teacher_output!r}`; got "
                f"{probabilities[row].sum().item():g} for node {row}. Say `teacher_output='logits'` for scores."
            )
        if self.teacher_output == "log_probs":
            return value.clamp(min=float(np.log(LEAST_PROBABILITY)))
        return value.clamp(min=LEAST_PROBABILITY).log()

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.logits.shape[0]

    @property
    def embedding_size(self) -> int | None:
        """Width of the embeddings, if there are any."""
        return None if self.embedding is None else self.embedding.shape[1]

    def to_batch(self) -> dict[str, torch.Tensor]:
        """What the steps read: `teacher_logits` and, if there is one, `teacher_embedding`."""
        batch = {"teacher_logits": self.logits}
        return batch if self.embedding is None else {**batch, "teacher_embedding": self.embedding}

    def check_fits(self, num_nodes: int, num_labels: int, needs_embedding: bool = False) -> Self:
        """Itself, if it fits a graph and a student.

        Args:
            num_nodes (`int`): of the graph.
            num_labels (`int`): of the student.
            needs_embedding (`bool`): as framework `"akd"` does.

        Raises:
            ValueError: If it does not.
        """
        if tuple(self.logits.shape) != (num_nodes, num_labels):
            raise ValueError(
                f"`logits` of the teacher must have shape ({num_nodes}, {num_labels}); got "
                f"{tuple(self.logits.shape)}. Was it trained on this graph and these labels?"
            )
        if needs_embedding and self.embedding is None:
            raise ValueError("`embedding` of the teacher must be given with framework 'akd'; it has none.")
        return self

    @classmethod
    @torch.no_grad()
    def from_model(
        cls,
        teacher: nn.Module,
        node_features: torch.Tensor,
        edge_index: torch.Tensor,
        teacher_output: str = "logits",
        embedding_module: nn.Module | None = None,
    ) -> Self:
        """Asks a model, in evaluation mode and without gradients.

        Args:
            teacher (`torch.nn.Module`): called as `teacher(node_features, edge_index)`: one of our models, a model of
                torch-geometric, or any other. It returns scores, or a tuple of scores and embeddings, or an object
                with `logits` and perhaps `node_embeddings`.
            node_features (`torch.FloatTensor` of shape `(num_nodes, num_features)`): of the graph.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): of the graph.
            teacher_output (`str`): what its scores are: `"logits"`, `"log_probs"` or `"probs"`.
            embedding_module (`torch.nn.Module`, *optional*): part of the teacher whose output is the embedding, for
                example its first layer; by default what the teacher returns beside its scores.

        Example:
        ```python
        >>> knowledge = TeacherKnowledge.from_model(gat, data.x, data.edge_index, embedding_module=gat.convs[0])

        ```
        """
        caught: list[torch.Tensor] = []
        hook = None
        if embedding_module is not None:
            if all(module is not embedding_module for module in teacher.modules()):
                raise ValueError("`embedding_module` must be a part of `teacher`.")
            hook = embedding_module.register_forward_hook(lambda module, inputs, output: caught.append(output))
        try:
            with evaluation_mode(teacher):
                outputs = teacher(node_features, edge_index)
        finally:
            if hook is not None:
                hook.remove()
        logits, embedding = _split_outputs(outputs)
        return cls(logits.clone(), caught[0].clone() if caught else embedding, teacher_output)

    @classmethod
    def from_file(cls, path: str | os.PathLike, teacher_output: str = "logits") -> Self:
        """Reads `logits` and, if it is there, `embedding` from a `.safetensors` or `.npz` file.

        Args:
            path (`str` or `PathLike`): the file. One that [`~TeacherKnowledge.save`] wrote holds logits.
            teacher_output (`str`): what `logits` are: `"logits"`, `"log_probs"` or `"probs"`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is of another kind, lacks `logits`, or its content does not fit.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"`path` must name a file; '{path}' does not exist.")
        arrays = _read_arrays(path)
        if "logits" not in arrays:
            raise ValueError(f"`{path.name}` must hold an array `logits`; got {sorted(arrays)}.")
        arrays = {name: array if array.is_floating_point() else array.float() for name, array in arrays.items()}
        return cls(arrays["logits"], arrays.get("embedding"), teacher_output)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a `.safetensors` file, complete or not at all."""
        path = Path(path)
        tensors = {"logits": self.logits} | ({} if self.embedding is None else {"embedding": self.embedding})
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".knowledge-") as folder:
            temporary = Path(folder) / "knowledge.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
            os.replace(temporary, path)


def _read_arrays(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_npz(path).items() if array.dtype.kind in "fiub"}
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in '.safetensors' or '.npz'; got {path.name!r}.")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}


def _split_outputs(outputs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    if isinstance(outputs, torch.Tensor):
        return outputs, None
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
        return outputs[0], outputs[1]
    if getattr(outputs, "logits", None) is not None:
        return outputs.logits, getattr(outputs, "node_embeddings", None)
    raise TypeError(
        "`teacher` must return scores, a tuple of scores and embeddings, or an object with `logits`; got "
        f"{type(outputs).__name__}."
    )


def _describe(value: Any) -> str:
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__


__all__ = ["TEACHER_OUTPUTS", "TeacherKnowledge"]
