"""What a model remembers of the support of each class, so that it is encoded once.

Each class has its own tensors, which adding, removing or merging other classes never touches. Batches over classes are
padded only when they are asked for.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import cached_file

from ..configuration_reft import NUM_FEATURE_LEVELS, RefTConfig


MEMORY_FILE = "support_memory.safetensors"
FORMAT_VERSION = "1"
# Fields that decide what the support of an image is; labels, losses and training may change.
ENCODING_FIELDS = (
    "activation_function", "backbone_config", "classifier", "common_stride", "decoder_layers", "dim_feedforward",
    "encoder_feedforward_dim", "encoder_layers", "enforce_input_projection", "feature_size", "feature_strides",
    "hidden_dim", "mask_feature_size", "max_support_queries_per_class", "num_attention_heads", "num_queries",
    "pre_norm", "query_selection", "shot_reduction", "support_context", "support_size", "support_topk",
)  # fmt: skip
IGNORED_BACKBONE_FIELDS = ("transformers_version", "dtype", "_name_or_path", "id2label", "label2id", "architectures")


def compute_config_hash(config: RefTConfig) -> str:
    """Hash of the fields that decide what a memory holds."""
    fields = {name: getattr(config, name) for name in ENCODING_FIELDS}
    backbone = fields["backbone_config"].to_dict()
    fields["backbone_config"] = {
        name: value for name, value in backbone.items() if name not in IGNORED_BACKBONE_FIELDS
    }
    text = json.dumps(fields, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class RefTSupport:
    """Support classes as the references take them; a batch of one serves all images.

    Args:
        class_centers (`tuple[torch.FloatTensor]` of shape `(batch_size or 1, num_ways, feature_size)`): each level,
            coarse to fine.
        class_mask (`torch.BoolTensor` of shape `(batch_size or 1, num_ways)`, *optional*): False for a class without
            valid shots; none if there is no such class.
        object_queries (`torch.FloatTensor` of shape `(batch_size or 1, num_ways, num_tokens, hidden_dim)`): support
            object queries of all shots.
        object_query_mask (`torch.BoolTensor` of shape `(batch_size or 1, num_ways, num_tokens)`, *optional*): which
            exist; none if all do.
        prototypes (`torch.FloatTensor` of shape `(batch_size or 1, num_ways, hidden_dim)`): means of the normalized
            first object queries.
    """

    class_centers: tuple[torch.Tensor, ...]
    class_mask: torch.Tensor | None
    object_queries: torch.Tensor
    object_query_mask: torch.Tensor | None
    prototypes: torch.Tensor


@dataclass(frozen=True)
class ClassSupport:
    """The support of one class.

    Args:
        class_id (`int`, *optional*): label id; none for the prototype classifier, whose labels count the classes.
        num_shots (`int`): valid shots.
        centers (`torch.FloatTensor` of shape `(3, feature_size)`): coarse to fine.
        center_weights (`torch.DoubleTensor` of shape `(3,)`): weights of the centers in a running mean.
        object_queries (`torch.FloatTensor` of shape `(num_tokens, hidden_dim)`): of all shots.
        object_query_scores (`torch.FloatTensor` of shape `(num_tokens,)`): by which they were selected.
        prototype (`torch.FloatTensor` of shape `(hidden_dim,)`): mean of the normalized first object queries.
    """

    class_id: int | None
    num_shots: int
    centers: torch.Tensor
    center_weights: torch.Tensor
    object_queries: torch.Tensor
    object_query_scores: torch.Tensor
    prototype: torch.Tensor

    def add_shots(self, other: "ClassSupport", max_queries: int | None) -> "ClassSupport":
        """The same class with further shots; as if all had come at once."""
        num_shots = self.num_shots + other.num_shots
        weights = torch.stack([self.center_weights, other.center_weights])
        weights = (weights / weights.sum(0))[..., None].to(self.centers.dtype)
        shares = torch.tensor([self.num_shots, other.num_shots], dtype=torch.float64) / num_shots
        shares = shares.to(self.prototype)
        merged = replace(
            self,
            num_shots=num_shots,
            centers=weights[0] * self.centers + weights[1] * other.centers,
            center_weights=self.center_weights + other.center_weights,
            object_queries=torch.cat([self.object_queries, other.object_queries]),
            object_query_scores=torch.cat([self.object_query_scores, other.object_query_scores]),
            prototype=shares[0] * self.prototype + shares[1] * other.prototype,
        )
        return merged.keep_best(max_queries)

    def keep_best(self, max_queries: int | None) -> "ClassSupport":
        """With at most `max_queries` object queries, those with the highest scores, in their order."""
        if max_queries is None or len(self.object_queries) <= max_queries:
            return self
        best = self.object_query_scores.sort(descending=True, stable=True).indices[:max_queries].sort().values
        return replace(
            self, object_queries=self.object_queries[best], object_query_scores=self.object_query_scores[best]
        )


class RefTSupportMemory:
    """Support of named classes; `model.register_support` makes it, `model(..., support_memory=memory)` reads it.

    A memory is never changed: `add`, `remove` and `merge` return another one, which shares the tensors of the classes
    that stay.

    Args:
        classes (`Mapping[str, ClassSupport]`): names to supports, in the order of the classes.
        config_hash (`str`): of [`compute_config_hash`]; only models with the same one can use it.
        max_queries (`int`, *optional*): `config.max_support_queries_per_class`.
    """

    def __init__(self, classes: Mapping[str, ClassSupport], config_hash: str, max_queries: int | None = None):
        self.classes = dict(classes)
        self.config_hash = config_hash
        self.max_queries = max_queries
        self._batch: RefTSupport | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def __contains__(self, name: object) -> bool:
        return name in self.classes

    def __repr__(self) -> str:
        shots = ", ".join(f"{name}: {support.num_shots}" for name, support in self.classes.items())
        return f"{type(self).__name__}({{{shots}}})"

    @property
    def class_names(self) -> list[str]:
        """Names, in the order of `class_ids` and of the batch."""
        return list(self.classes)

    @property
    def class_ids(self) -> list[int]:
        """Label id of each class: for the prototype classifier its place."""
        ids = [support.class_id for support in self.classes.values()]
        return [place if class_id is None else class_id for place, class_id in enumerate(ids)]

    @property
    def shot_counts(self) -> dict[str, int]:
        """Valid shots of each class."""
        return {name: support.num_shots for name, support in self.classes.items()}

    @property
    def prototypes(self) -> torch.Tensor:
        """Means of the normalized first support object queries, `(num_ways, hidden_dim)`."""
        return self.get_support().prototypes[0]

    @property
    def class_centers(self) -> tuple[torch.Tensor, ...]:
        """Three tensors `(num_ways, feature_size)`, coarse to fine."""
        return tuple(centers[0] for centers in self.get_support().class_centers)

    @property
    def object_queries(self) -> torch.Tensor:
        """Support object queries, padded: `(num_ways, num_tokens, hidden_dim)`."""
        return self.get_support().object_queries[0]

    @property
    def object_query_mask(self) -> torch.Tensor:
        """Which of `object_queries` exist, `(num_ways, num_tokens)`."""
        support = self.get_support()
        if support.object_query_mask is None:
            return torch.ones(
                support.object_queries.shape[1:3], dtype=torch.bool, device=support.object_queries.device
            )
        return support.object_query_mask[0]

    def get_support(self) -> RefTSupport:
        """All classes as a batch of one; built once.

        Raises:
            ValueError: If the memory is empty.
        """
        if not self.classes:
            raise ValueError(
                "`support_memory` must hold at least one class; got an empty one. Register support first."
            )
        if self._batch is None:
            supports = list(self.classes.values())
            tokens = [support.object_queries for support in supports]
            padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
            lengths = torch.tensor([len(token) for token in tokens], device=padded.device)
            exists = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
            self._batch = RefTSupport(
                class_centers=tuple(torch.stack([support.centers for support in supports], dim=1)[:, None]),
                class_mask=None,
                object_queries=padded[None],
                object_query_mask=None if exists.all() else exists[None],
                prototypes=torch.stack([support.prototype for support in supports])[None],
            )
        return self._batch

    def check(self, config: RefTConfig) -> None:
        """Refuses a model with another configuration.

        Raises:
            ValueError: If the memory was made with another configuration.
        """
        self._check_hash(compute_config_hash(config), "the model")

    def _check_hash(self, other: str, whose: str) -> None:
        if self.config_hash != other:
            raise ValueError(
                f"`support_memory` must have been made with the configuration of {whose} (hash {other[:12]}...); got "
                f"one of {self.config_hash[:12]}.... Register the support again."
            )

    def add(self, name: str, support: ClassSupport) -> "RefTSupportMemory":
        """A memory with one more class, or with more shots of a class that it has."""
        if name in self.classes:
            known = self.classes[name]
            if known.class_id != support.class_id:
                raise ValueError(
                    f"`class_ids` must agree; {name!r} is {known.class_id} in one memory and {support.class_id} in "
                    "the other."
                )
            support = known.add_shots(support, self.max_queries)
        return self._with({**self.classes, name: support.keep_best(self.max_queries)})

    def remove(self, name: str) -> "RefTSupportMemory":
        """A memory without a class; the others are as they were before it came.

        Raises:
            KeyError: If there is no such class.
        """
        if name not in self.classes:
            raise KeyError(f"`name` must be one of {self.class_names}; got {name!r}.")
        return self._with({key: support for key, support in self.classes.items() if key != name})

    def merge(self, other: "RefTSupportMemory") -> "RefTSupportMemory":
        """A memory with the classes of both; shots of a class that both have are put together.

        Raises:
            ValueError: If they were made with different configurations, or disagree about the id of a class.
        """
        self._check_hash(other.config_hash, "the other memory")
        merged = self
        taken = {support.class_id: name for name, support in self.classes.items() if support.class_id is not None}
        for name, support in other.classes.items():
            if taken.get(support.class_id, name) != name:
                raise ValueError(
                    f"`class_ids` must be unique; {support.class_id} is {taken[support.class_id]!r} in one memory and "
                    f"{name!r} in the other."
                )
            merged = merged.add(name, support)
        return merged

    def to(self, *args: Any, **kwargs: Any) -> "RefTSupportMemory":
        """A memory on another device or in another floating type."""
        return self._with(
            {
                name: replace(
                    support,
                    centers=support.centers.to(*args, **kwargs),
                    object_queries=support.object_queries.to(*args, **kwargs),
                    prototype=support.prototype.to(*args, **kwargs),
                )
                for name, support in self.classes.items()
            }
        )

    def _with(self, classes: Mapping[str, ClassSupport]) -> "RefTSupportMemory":
        return type(self)(classes, self.config_hash, self.max_queries)

    def save_pretrained(self, save_directory: str | os.PathLike) -> Path:
        """Writes `support_memory.safetensors`, which appears complete or not at all; returns its path.

        Raises:
            ValueError: If the memory is empty.
        """
        batch = self.get_support()
        supports = list(self.classes.values())
        scores = torch.nn.utils.rnn.pad_sequence(
            [support.object_query_scores for support in supports], batch_first=True
        )
        tensors = {f"class_centers.{level}": centers[0] for level, centers in enumerate(batch.class_centers)}
        tensors |= {
            "center_weights": torch.stack([support.center_weights for support in supports]),
            "object_queries": batch.object_queries[0],
            "object_query_mask": self.object_query_mask,
            "object_query_scores": scores,
            "prototypes": batch.prototypes[0],
        }
        metadata = {
            "format": "pt",
            "version": FORMAT_VERSION,
            "config_hash": self.config_hash,
            "max_queries": json.dumps(self.max_queries),
            "class_names": json.dumps(self.class_names),
            "class_ids": json.dumps([support.class_id for support in supports]),
            "shot_counts": json.dumps([support.num_shots for support in supports]),
        }
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path, temporary = folder / MEMORY_FILE, folder / f".{MEMORY_FILE}.{os.getpid()}"
        try:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, config: RefTConfig | None = None, **kwargs: Any
    ) -> "RefTSupportMemory":
        """Reads a memory from a folder or a repository of the Hub.

        Args:
            pretrained_model_name_or_path (`str` or path): where `support_memory.safetensors` is.
            config ([`RefTConfig`], *optional*): of the model that is to use it, to be compared at once.
            kwargs: `revision`, `token`, `cache_dir` and the like, for the Hub.

        Raises:
            OSError: If there is no memory.
            ValueError: If the file is not an intact memory, or was made with another configuration.
        """
        path = cached_file(str(pretrained_model_name_or_path), MEMORY_FILE, **kwargs)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} must be an intact support memory; {error}. Is it truncated?") from error
        memory = cls._read(metadata, tensors, str(path))
        if config is not None:
            memory.check(config)
        return memory

    @classmethod
    def _read(cls, metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor], path: str) -> "RefTSupportMemory":
        if metadata.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"{path!r} must be a support memory of version {FORMAT_VERSION}; got {metadata.get('version')!r}."
            )
        names, ids, counts, max_queries = _read_metadata(metadata, path)
        _check_tensors(tensors, len(names), path)
        classes = {}
        for index, (name, class_id, num_shots) in enumerate(zip(names, ids, counts, strict=True)):
            exists = tensors["object_query_mask"][index]
            classes[name] = ClassSupport(
                class_id=class_id,
                num_shots=int(num_shots),
                centers=torch.stack([tensors[f"class_centers.{level}"][index] for level in range(NUM_FEATURE_LEVELS)]),
                center_weights=tensors["center_weights"][index],
                object_queries=tensors["object_queries"][index][exists],
                object_query_scores=tensors["object_query_scores"][index][exists],
                prototype=tensors["prototypes"][index],
            )
        return cls(classes, metadata["config_hash"], max_queries)


def _read_metadata(metadata: Mapping[str, str], path: str) -> tuple[list[str], list[int | None], list[int], Any]:
    """Names, ids and shot counts of the classes, and `max_queries`."""
    keys = ("class_names", "class_ids", "shot_counts", "max_queries")
    try:
        names, ids, counts, max_queries = (json.loads(metadata[key]) for key in keys)
        is_valid = (
            isinstance(metadata["config_hash"], str)
            and len(names) == len(set(names)) == len(ids) == len(counts) > 0
            and all(isinstance(name, str) for name in names)
            and all(class_id is None or isinstance(class_id, int) for class_id in ids)
            and all(isinstance(count, int) and count > 0 for count in counts)
            and (max_queries is None or isinstance(max_queries, int))
        )
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ValueError(
            f"{path!r} must name each class once, with its id and its number of shots, in its metadata; got "
            f"{ {key: metadata.get(key) for key in keys} }."
        )
    return names, ids, counts, max_queries


def _check_tensors(tensors: Mapping[str, torch.Tensor], num_ways: int, path: str) -> None:
    names = ["center_weights", "object_queries", "object_query_mask", "object_query_scores", "prototypes"]
    names += [f"class_centers.{level}" for level in range(NUM_FEATURE_LEVELS)]
    if sorted(tensors) != sorted(names):
        raise ValueError(f"{path!r} must hold the tensors {sorted(names)}; got {sorted(tensors)}.")
    for name in names:
        if len(tensors[name]) != num_ways:
            raise ValueError(f"{path!r} must hold {num_ways} rows in each tensor; {name!r} has {len(tensors[name])}.")
        if tensors[name].is_floating_point() == (name == "object_query_mask"):
            raise ValueError(f"{path!r} must hold a mask and floats; {name!r} has {tensors[name].dtype}.")
        if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{path!r} must hold finite numbers; {name!r} holds NaN or infinity.")
    tokens, width = tensors["object_queries"].shape[1:2], tensors["prototypes"].shape[1:]
    centers = tensors["class_centers.0"].shape[1:]
    expected = {"object_queries": (*tokens, *width), "object_query_mask": tokens, "object_query_scores": tokens}
    expected |= {"center_weights": (NUM_FEATURE_LEVELS,)}
    expected |= {f"class_centers.{level}": centers for level in range(NUM_FEATURE_LEVELS)}
    for name, shape in expected.items():
        if tensors[name].shape[1:] != torch.Size(shape) or len(width) != 1 or len(centers) != 1:
            raise ValueError(
                f"{path!r} must hold tensors that fit each other; {name!r} has shape {tuple(tensors[name].shape)}."
            )


__all__ = ["MEMORY_FILE", "ClassSupport", "RefTSupport", "RefTSupportMemory", "compute_config_hash"]
