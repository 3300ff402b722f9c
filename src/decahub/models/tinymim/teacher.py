"""Teachers: any vision transformer of transformers, run up to the block whose states a student imitates.

The block list of a shallow copy ends with that block, so that nothing above it can run, and the block itself stops
where its attention receives query, key and value: split into heads, after a rotary embedding where there is one
(2301.01296, section 3.2, and the early stop of the authors' code).
"""

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .layers import TinyMimLayer, merge_heads


CAPTURE = "tinymim_capture"
STATES = ("q", "k", "v")
OUTPUTS = ("attention", "ffn", "block")
SOURCES = (*STATES, "qkv", *OUTPUTS)
CLASS_TOKENS = ("cls_token", "class_embedding")
ATTENTION_NAMES = ("attention", "self_attn", "attn")
DEFAULT_DEPTH = 0.75  # of the teacher, where it is deeper than the student (section 4, block 18 of 24)


class _StatesCaptured(Exception):  # noqa: N818 -- a signal, not an error
    """Ends a block once its states are known."""

    def __init__(self, states: tuple[torch.Tensor, ...]):
        super().__init__()
        self.states = states


def _capture_states(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> NoReturn:
    raise _StatesCaptured((query, key, value))


AttentionInterface.register(CAPTURE, _capture_states)


class _TargetReached(Exception):  # noqa: N818 -- a signal, not an error
    """Ends the teacher's forward pass after the target block: norms, poolers and heads would be wasted."""


def _copy_modules(module: nn.Module) -> nn.Module:
    """A copy of a tree of modules that shares the tensors with it, and nothing that can be rearranged."""
    copied = copy.copy(module)
    for name, value in module.__dict__.items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")):
            copied.__dict__[name] = copy.copy(value)
    copied._parameters, copied._buffers = dict(module._parameters), dict(module._buffers)
    copied._modules = {name: child and _copy_modules(child) for name, child in module._modules.items()}
    return copied


class _OutputRecorder(nn.Module):
    """Keeps what a module returned."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.output: torch.Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self.module(*args, **kwargs)
        self.output = result[0] if isinstance(result, tuple) else result
        return result


class _TargetBlock(nn.Module):
    """Stands at the end of the teacher's blocks: runs the target block as far as its states are needed.

    Args:
        block (`nn.Module`): a copy of the target block.
        options (`dict`): further keywords of its call.
    """

    def __init__(self, block: nn.Module, options: dict[str, Any]):
        super().__init__()
        self.options = options
        self.capturing = _copy_modules(block)
        for module in self.capturing.modules():
            if hasattr(module, "config"):
                module.config = copy.copy(module.config)
                module.config._attn_implementation = CAPTURE
        self.recording = _OutputRecorder(block)
        self.attention = self._record(block, ATTENTION_NAMES)
        self.ffn = self._record(block, ("mlp", "intermediate"))
        self.sources: Sequence[str] = STATES
        self.states: dict[str, torch.Tensor] = {}

    def _record(self, block: nn.Module, names: Sequence[str]) -> _OutputRecorder | None:
        for name in names:
            if isinstance(getattr(block, name, None), nn.Module):
                recorder = _OutputRecorder(getattr(block, name))
                setattr(block, name, recorder)
                return recorder
        return None

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs |= self.options
        self.states = {}
        if {*STATES, "qkv"} & set(self.sources):
            try:
                self.capturing(hidden_states, *args, **kwargs)
            except _StatesCaptured as captured:
                self.states = dict(zip(STATES, captured.states, strict=True))
        if set(OUTPUTS) & set(self.sources):
            self.recording(hidden_states, *args, **kwargs)
            recorders = {"attention": self.attention, "ffn": self.ffn, "block": self.recording}
            self.states |= {
                name: recorder.output
                for name, recorder in recorders.items()
                if recorder is not None and name in self.sources
            }
        raise _TargetReached

    def pop_states(self) -> dict[str, torch.Tensor]:
        """What the last run found; nothing of it is kept here."""
        states, self.states = self.states, {}
        for recorder in (self.attention, self.ffn, self.recording):
            if recorder is not None:
                recorder.output = None
        return states


class TinyMimTeacher:
    """A frozen vision transformer that gives query, key and value, or features, of one of its blocks.

    ViT, DeiT, ViTMAE, DINOv2 (with registers or without), DINOv3, BEiT, CLIP, SigLIP, I-JEPA and models of this
    package work, with or without a head. Weights are shared with `model`, which is not changed, unless `dtype` or
    `device` ask for a copy. Blocks after the target never run.

    Args:
        model (`PreTrainedModel`): in evaluation mode.
        layer (`int`, *optional*): block, counted from 1, or from the end if negative. By default the last one if the
            teacher is not deeper than the student, else the one at three quarters of its depth.
        student_num_hidden_layers (`int`, *optional*): depth of the student, for that default.
        image_size (`int` or `"auto"`, *optional*): size that images are resized to (bicubic, with antialias);
            `"auto"` gives the student's grid of patches. By default they are taken as they are.
        image_mean, image_std (`list[float]`, *optional*): what the teacher expects, where it is not the normalization
            of the student, ImageNet's.
        dtype (`torch.dtype`, *optional*): precision of its own; by default that of `model`, or the student's later.
        device (`torch.device`, *optional*): place of its own; by default that of `model`, or the student's later.

    Attributes:
        layer (`int`): the block, counted from 1.
        hidden_size, num_attention_heads, num_hidden_layers, patch_size (`int`): of the teacher; the heads are those
            of the target block.
        has_cls (`bool`): whether the first token is a class token.

    Raises:
        TypeError: If `model` is no model of transformers.
        ValueError: If `model` is in training mode, has no such block, or is no plain vision transformer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int | None = None,
        *,
        student_num_hidden_layers: int | None = None,
        image_size: int | str | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"`model` must be a model of transformers; got {type(model).__name__}.")
        if (image_mean is None) != (image_std is None):
            raise ValueError("`image_mean` and `image_std` must be given together; got one of them.")
        self.image_size, self.image_mean, self.image_std = image_size, image_mean, image_std
        self.source = model
        self.check_mode()
        encoder = _find_encoder(model)
        self.config = encoder.config
        path = _find_blocks(encoder, type(model).__name__)
        blocks = encoder.get_submodule(path)
        self.num_hidden_layers = len(blocks)
        self.layer = self.resolve_layer(layer, student_num_hidden_layers)
        self.hidden_size: int = self.config.hidden_size
        self.num_attention_heads = self._count_heads(blocks[self.layer - 1])
        patch_size = self.config.patch_size
        self.patch_size: int = patch_size if isinstance(patch_size, int) else patch_size[0]
        self.has_cls = any(name.endswith(CLASS_TOKENS) for name, _ in encoder.named_parameters())
        self.model, self.target = self._cut(encoder, path)
        self.moves_with_student = dtype is None and device is None
        if not self.moves_with_student:
            self.model = copy.deepcopy(self.model).to(dtype=dtype, device=device)
            self.target = self.model.get_submodule(path)[-1]

    def check_mode(self) -> None:
        if self.source.training:
            raise ValueError("the teacher must be in evaluation mode; it is in training mode. Call `teacher.eval()`.")

    def resolve_layer(self, layer: int | None, student_num_hidden_layers: int | None) -> int:
        depth = self.num_hidden_layers
        if layer is None:
            is_deeper = student_num_hidden_layers is None or depth > student_num_hidden_layers
            return math.ceil(DEFAULT_DEPTH * depth) if is_deeper else depth
        if not (1 <= layer <= depth or -depth <= layer <= -1):
            raise ValueError(
                f"`teacher_layer` must be a block of the teacher, 1 to {depth} or -{depth} to -1; got {layer}."
            )
        return layer if layer > 0 else depth + 1 + layer

    def _count_heads(self, block: nn.Module) -> int:
        if isinstance(block, TinyMimLayer) and self.layer == self.num_hidden_layers:
            # A student that is a teacher now was trained with the head count of its own teacher.
            return self.config.target_num_attention_heads
        return self.config.num_attention_heads

    def _cut(self, encoder: nn.Module, path: str) -> tuple[nn.Module, _TargetBlock]:
        model = _copy_modules(encoder)
        blocks = model.get_submodule(path)
        block = blocks[self.layer - 1]
        options = {"num_heads": self.num_attention_heads} if isinstance(block, TinyMimLayer) else {}
        target = _TargetBlock(block, options)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList([*blocks[: self.layer - 1], target]))
        for module in model.modules():
            if self._shuffles and hasattr(module, "config"):
                module.config = copy.copy(module.config)
                module.config.mask_ratio = 0.0
        return model.eval(), target

    @property
    def _shuffles(self) -> bool:
        """Whether the embeddings of the model mask and shuffle patches, as those of a masked autoencoder do."""
        return self.config.model_type == "vit_mae"

    def apply(self, fn: Callable) -> None:
        """Moves or casts the teacher with its student, unless it has a device or precision of its own."""
        if not self.moves_with_student:
            return
        converted: dict[torch.Tensor, torch.Tensor] = {}  # the target block is there twice
        for module in self.model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if tensor not in converted:
                        is_parameter = isinstance(tensor, nn.Parameter)
                        value = fn(tensor.detach())
                        converted[tensor] = nn.Parameter(value, requires_grad=False) if is_parameter else value
                    # Put in place of the tensor rather than into it, which belongs to the caller's model as well.
                    tensors[name] = converted[tensor]

    def to_config_fields(self) -> dict[str, Any]:
        """What the configuration of a student must say to fit this teacher."""
        name = getattr(self.config, "_name_or_path", "") or None
        fields = {
            "teacher_layer": self.layer,
            "teacher_hidden_size": self.hidden_size,
            "teacher_num_attention_heads": self.num_attention_heads,
            # A path of this machine means nothing on another.
            "teacher_name_or_path": Path(name).name if name and Path(name).is_absolute() else name,
            "teacher_image_size": self.image_size,
            "teacher_image_mean": None if self.image_mean is None else list(self.image_mean),
            "teacher_image_std": None if self.image_std is None else list(self.image_std),
        }
        return fields if self.has_cls else fields | {"include_cls": False}

    @torch.compiler.disable
    @torch.no_grad()
    def compute(
        self, pixel_values: torch.Tensor, grid: tuple[int, int], sources: Sequence[str] = STATES
    ) -> dict[str, torch.Tensor]:
        """States of the target block for images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            grid (`tuple[int, int]`): rows and columns of the student's patches.
            sources (`Sequence[str]`): of `"q"`, `"k"`, `"v"`, `"qkv"`, `"attention"`, `"ffn"`, `"block"`.

        Returns:
            `dict` with, for `num_tokens` = class token (if the teacher has one) and patches, row by row:
            `q`, `k`, `v` of shape `(batch_size, num_heads, num_tokens, head_dim)`; `qkv` of shape `(batch_size,
            num_tokens, 3 * hidden_size)`; the others of shape `(batch_size, num_tokens, hidden_size)`.

        Raises:
            ValueError: If the teacher is in training mode, `pixel_values` are not finite, the grids differ, or the
                model does not show its states.
        """
        self.check_mode()
        unknown = [name for name in sources if name not in SOURCES]
        if unknown:
            raise ValueError(f"`sources` must be among {', '.join(SOURCES)}; got {unknown[0]!r}.")
        if pixel_values.device.type == "cpu" and not torch.isfinite(pixel_values.sum(dtype=torch.float64)):
            raise ValueError("`teacher_pixel_values` must be finite; got NaN or infinity.")
        pixel_values = self.prepare(pixel_values, grid)
        self.target.sources = tuple(sources)
        with contextlib.suppress(_TargetReached):
            self.model(**self.build_inputs(pixel_values))
        states = self.target.pop_states()
        self.check_states(states, sources, len(pixel_values), grid)
        if "qkv" in sources:
            states["qkv"] = torch.cat([merge_heads(states[name]) for name in STATES], dim=-1)
        return {name: self.select_tokens(states[name], grid) for name in sources}

    def prepare(self, pixel_values: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Images in the size, normalization, precision and place that the teacher expects."""
        reference = next(self.model.parameters())
        pixel_values = pixel_values.to(reference.device)
        if self.image_mean is not None:
            # Statistics of one value for each channel.
            shape = (-1, 1, 1)
            old_mean, old_std, mean, std = (
                torch.tensor(values, device=pixel_values.device, dtype=pixel_values.dtype).reshape(shape)
                for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, self.image_mean, self.image_std)
            )
            pixel_values = (pixel_values * old_std + old_mean - mean) / std
        size = tuple(pixel_values.shape[2:])
        if self.image_size == "auto":
            size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        elif self.image_size is not None:
            size = (int(self.image_size),) * 2
        if size != tuple(pixel_values.shape[2:]):
            pixel_values = functional.interpolate(
                pixel_values.float(), size=size, mode="bicubic", antialias=True, align_corners=False
            )
        own_grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        if own_grid != tuple(grid) or size[0] % self.patch_size or size[1] % self.patch_size:
            raise ValueError(
                f"teacher and student must see the same grid of patches; got {own_grid[0]} x {own_grid[1]} patches of "
                f"{self.patch_size} pixels in {size[0]} x {size[1]} for the teacher and {grid[0]} x {grid[1]} for the "
                "student. Set `teacher_image_size='auto'`."
            )
        return pixel_values.to(reference.dtype)

    def build_inputs(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"pixel_values": pixel_values}
        image_size = self.config.image_size
        known = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        accepts = inspect.signature(self.model.forward).parameters
        if tuple(pixel_values.shape[2:]) != known and "interpolate_pos_encoding" in accepts:
            inputs["interpolate_pos_encoding"] = True
        if self._shuffles:
            # Noise in ascending order leaves the patches where they are.
            num_patches = (pixel_values.shape[2] // self.patch_size) * (pixel_values.shape[3] // self.patch_size)
            noise = torch.arange(num_patches, device=pixel_values.device, dtype=torch.float32)
            inputs["noise"] = noise.expand(len(pixel_values), -1)
        return inputs

    def check_states(
        self, states: dict[str, torch.Tensor], sources: Sequence[str], batch_size: int, grid: tuple[int, int]
    ) -> None:
        needed = {name for source in sources for name in (STATES if source == "qkv" else (source,))}
        missing = sorted(needed - states.keys())
        if missing:
            raise ValueError(
                f"the teacher must show {', '.join(missing)} of its blocks; {type(self.source).__name__} does not. "
                "Use a model whose attention goes through the attention interface of transformers."
            )
        for value in states.values():
            if value.shape[0] != batch_size or value.shape[-2] < grid[0] * grid[1]:
                raise ValueError(
                    f"the teacher must attend over all of its {grid[0]} x {grid[1]} patches; states of "
                    f"{type(self.source).__name__} have shape {tuple(value.shape)}. Use a plain vision transformer."
                )

    def select_tokens(self, states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Class token, where there is one, and patches: without register and distillation tokens between them."""
        patches = states[..., -grid[0] * grid[1] :, :]
        return torch.cat([states[..., :1, :], patches], dim=-2) if self.has_cls else patches


def _find_encoder(model: nn.Module) -> PreTrainedModel:
    """The vision transformer without head or text tower."""
    prefix = getattr(model, "base_model_prefix", "")
    inner = getattr(model, prefix, None) if prefix else None
    # The prefix of some models names their list of blocks, which knows no images.
    encoder: Any = inner if inner is not None and _takes_images(inner) else model
    return getattr(encoder, "vision_model", encoder)


def _takes_images(module: nn.Module) -> bool:
    return "pixel_values" in inspect.signature(module.forward).parameters


def _find_blocks(encoder: nn.Module, name: str) -> str:
    """Path of the list of blocks: as long as the configuration says, each with an attention."""
    depth = getattr(encoder.config, "num_hidden_layers", None)
    if not isinstance(getattr(encoder.config, "num_attention_heads", None), int):
        # Stages with head counts of their own attend within windows.
        raise ValueError(
            f"the teacher must be a plain vision transformer, with one number of attention heads; got {name}."
        )
    for path, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and all(_has_attention(item) for item in module):
            return path
    raise ValueError(f"the teacher must be a vision transformer with a list of blocks; got {name}, which has none.")


def _has_attention(block: nn.Module) -> bool:
    return any("Attention" in type(module).__name__ for module in block.modules())


__all__ = ["TinyMimTeacher"]
