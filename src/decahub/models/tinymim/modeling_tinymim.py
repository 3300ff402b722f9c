"""A plain vision transformer, its pre-training by imitation of a larger one, and its task classes.

TinyMIM (arXiv 2301.01296) trains a small transformer without labels: the relations between tokens in its last block
are those of one block of a frozen teacher. Different from the authors' code: any depth and teacher, logarithms are
never taken of a softmax, the grid of patches may be oblong. The tiny model has 3 attention heads in all stages, where
the authors pre-train with 6.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    SemanticSegmenterOutput,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..shared.checks import refuse_unknown_inputs
from ..shared.losses import compute_classification_loss, compute_segmentation_loss
from .configuration_tinymim import TinyMimConfig
from .decode_heads import build_auxiliary_head, build_decode_head
from .decoder import TinyMimDecoder, choose_tokens, compute_reconstruction_loss
from .distillation import TinyMimForPreTrainingOutput, ask_teacher, check_teacher, compare_features, compare_relations
from .initialization import init_layer, init_parameters
from .layers import (
    BlockStates,
    TinyMimAttention,
    TinyMimClassifier,
    TinyMimEmbeddings,
    TinyMimLayer,
    TinyMimPreLogits,
    compute_drop_path_rates,
)
from .position_embeddings import resize_position_embeddings
from .pyramid import TinyMimFeaturePyramid
from .relations import gather_tokens
from .relative_position import build_relative_position_index, resize_relative_position_bias
from .targets import TinyMimTargetProjection, gather_given, get_sources
from .teacher import TinyMimTeacher


# Of `from_pretrained`, which also say where the configuration is.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


@dataclass
class TinyMimSemanticSegmenterOutput(SemanticSegmenterOutput):
    """Output of [`TinyMimForSemanticSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): the sum of the two below.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, 4 * rows, 4 * columns)`): class scores at four
            times the grid of patches; `post_process_semantic_segmentation` of the processor brings them to the size
            of the images.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): embeddings and output of each block.
        attentions (`tuple(torch.FloatTensor)`, *optional*): attention weights of each block.
        decode_loss (`torch.FloatTensor` of shape `()`, *optional*): cross entropy of `logits`.
        auxiliary_loss (`torch.FloatTensor` of shape `()`, *optional*): weighted cross entropy of the auxiliary head.
    """

    decode_loss: torch.FloatTensor | None = None
    auxiliary_loss: torch.FloatTensor | None = None


class TinyMimPreTrainedModel(PreTrainedModel):
    """Initialization, loading and what transformers needs to know about TinyMIM."""

    config: TinyMimConfig
    config_class = TinyMimConfig
    base_model_prefix = "tinymim"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["TinyMimEmbeddings", "TinyMimLayer"]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _needs_classes = False
    _can_record_outputs = {"hidden_states": TinyMimLayer, "attentions": TinyMimAttention}

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """As in transformers; with another `image_size` than that of the file positions are interpolated.

        Raises:
            ValueError: If a head for classes is asked for, and the file has none.
        """
        source, load = pretrained_model_name_or_path, super().from_pretrained
        is_told = config is None or isinstance(config, TinyMimConfig)
        saved = cls._read_config(source, kwargs) if source is not None and is_told else None
        if saved is None:
            return load(source, *args, config=config, **kwargs)
        if "num_labels" not in kwargs and "id2label" not in kwargs:
            cls._check_classes(saved, saved if config is None else config, str(source))
        if config is None:
            image_size = kwargs.pop("image_size", saved.image_size)
        else:
            image_size, config = config.image_size, copy.deepcopy(config)
            config.image_size = saved.image_size
        loaded = load(source, *args, config=config, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).resize_positions(image_size)
        return loaded

    @classmethod
    def _read_config(cls, source: str | os.PathLike, kwargs: dict[str, Any]) -> TinyMimConfig | None:
        options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        try:
            return cls.config_class.from_pretrained(source, **options)
        except OSError:  # the folder of an adapter, or none, of which transformers says more
            return None

    @classmethod
    def _check_classes(cls, saved: TinyMimConfig, wanted: TinyMimConfig, source: str) -> None:
        if (
            cls._needs_classes
            and not wanted.num_labels
            and cls.__name__ not in (saved.architectures or [cls.__name__])
        ):
            raise ValueError(
                f"`num_labels` must be at least 1 for {cls.__name__}; {source!r} holds a {saved.architectures[0]} "
                "without classes. Give `num_labels` to fine-tune it, or take its features: `AutoModel`, or "
                '`pipeline("image-feature-extraction")`.'
            )

    @torch.no_grad()
    def resize_positions(self, image_size: int | list[int]) -> None:
        """Interpolates what belongs to positions, for images of another size; `config.image_size` follows.

        Args:
            image_size (`int` or `list[int]`): pixels of the images, or height and width.
        """
        config, old_grid = self.config, self.config.grid_size
        config.image_size = image_size
        config.validate()
        grid, num_prefix = config.grid_size, config.num_prefix_tokens
        if grid == old_grid:
            return
        for module in self.modules():
            if isinstance(module, (TinyMimEmbeddings, TinyMimDecoder)):
                table = module.position_embeddings
                resized = resize_position_embeddings(table.float(), old_grid, grid, num_prefix).to(table.dtype)
                module.position_embeddings = nn.Parameter(resized, requires_grad=table.requires_grad)
            elif isinstance(module, TinyMimAttention) and module.relative_position_bias_table is not None:
                table = module.relative_position_bias_table
                resized = resize_relative_position_bias(table.float(), old_grid, grid).to(table.dtype)
                module.relative_position_bias_table = nn.Parameter(resized, requires_grad=table.requires_grad)
                index = build_relative_position_index(grid, num_prefix)
                module.relative_position_index = index.to(table.device)

    @torch.no_grad()
    def _init_weights(self, module):
        if not init_layer(module):
            super()._init_weights(module)
        init_parameters(module, self.config)


class TinyMimTrunk(TinyMimPreTrainedModel):
    """Embeddings and blocks, which [`TinyMimModel`] and [`TinyMimBackbone`] share."""

    def __init__(self, config: TinyMimConfig):
        super().__init__(config)
        config.validate()
        self.embeddings = TinyMimEmbeddings(config)
        self.layers = nn.ModuleList(TinyMimLayer(config, rate) for rate in compute_drop_path_rates(config))
        self.pre_logits = TinyMimPreLogits(config) if config.pre_logits_dim is not None else None

    def embed(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """Tokens of images, `(batch_size, num_tokens, hidden_size)`."""
        self.check_pixel_values(pixel_values)
        dtype = self.embeddings.patch_embeddings.weight.dtype
        return self.embeddings(pixel_values.to(dtype), interpolate_pos_encoding)

    def compute_hidden_states(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> list[torch.Tensor]:
        """Embeddings and the output of each block; the last one has passed `pre_logits` where there are any."""
        hidden_states = [self.embed(pixel_values, interpolate_pos_encoding)]
        for layer in self.layers:
            hidden_states.append(layer(hidden_states[-1], **kwargs))
        if self.pre_logits is not None:
            hidden_states[-1] = self.pre_logits(hidden_states[-1])
        return hidden_states

    def check_pixel_values(self, pixel_values: torch.Tensor | None) -> None:
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given.")
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`pixel_values` must be floating point; got {pixel_values.dtype}. Prepare images with "
                "`TinyMimImageProcessor`."
            )
        config = self.config
        if pixel_values.ndim != 4 or pixel_values.shape[1] != config.num_channels:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {config.num_channels}, height, width); got "
                f"{tuple(pixel_values.shape)}. `num_channels` of the config is {config.num_channels}."
            )
        height, width = pixel_values.shape[2:]
        if height % config.patch_size or width % config.patch_size or 0 in pixel_values.shape:
            raise ValueError(
                f"`pixel_values` must have a height and width that are multiples of `patch_size` "
                f"({config.patch_size}); got {height} x {width}."
            )
        # Elsewhere looking at values would wait for the device or break the traced graph.
        can_look = pixel_values.device.type == "cpu" and not torch.compiler.is_compiling()
        total_dtype = torch.promote_types(pixel_values.dtype, torch.float32)
        if can_look and not torch.isfinite(pixel_values.sum(dtype=total_dtype)):
            raise ValueError("`pixel_values` must be finite; got NaN or infinity.")


class TinyMimModel(TinyMimTrunk):
    """The vision transformer without a head.

    Args:
        config ([`TinyMimConfig`]): the architecture.
        add_final_norm (`bool`): whether a layer norm follows the last block.
    """

    def __init__(self, config: TinyMimConfig, add_final_norm: bool = True):
        super().__init__(config)
        # The layer before the logits has a norm of its own.
        has_norm = add_final_norm and config.pre_logits_dim is None
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if has_norm else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, interpolate_pos_encoding: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Features of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            interpolate_pos_encoding (`bool`): whether images may have another size than `config.image_size`.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`] with `last_hidden_state` of shape
            `(batch_size, num_tokens, hidden_size)`, class token first; `pooler_output` of shape
            `(batch_size, hidden_size)`: the mean of the patch tokens (or the class token, as `config.pooling` says)
            after block `config.feature_layer`.

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If their shape does not fit, they are empty, or not finite.
        """
        refuse_unknown_inputs(self, kwargs)
        hidden_states = self.compute_hidden_states(pixel_values, interpolate_pos_encoding, **kwargs)
        if self.layernorm is not None:
            hidden_states[-1] = self.layernorm(hidden_states[-1])
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states[-1], pooler_output=self.pool(hidden_states[self.config.feature_layer])
        )

    def pool(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """One vector for each image, as `config.pooling` says."""
        if self.config.pooling == "cls":
            return hidden_states[:, 0]
        return hidden_states[:, self.config.num_prefix_tokens :].mean(dim=1)


class TinyMimBackbone(BackboneMixin, TinyMimTrunk):
    """The vision transformer as a feature extractor for detectors and other frameworks.

    Maps are outputs of blocks without a norm, all on the grid of patches; `config.use_feature_pyramid` makes a pyramid
    of four of them. Images may have any size that is a multiple of the patch.

    Args:
        config ([`TinyMimConfig`]): `out_features` or `out_indices` choose the maps.
    """

    _keys_to_ignore_on_load_unexpected = [r"^(tinymim\.)?layernorm\.", r"^(classifier|fc_norm|target_projection)\."]

    def __init__(self, config: TinyMimConfig):
        super().__init__(config)
        self.num_features = [config.hidden_size] * config.num_hidden_layers + [config.output_size]
        self.pyramid = TinyMimFeaturePyramid(config) if config.use_feature_pyramid else None
        self.post_init()

    @property
    def channels(self) -> list[int]:
        """Channels of each map that is returned."""
        if self.pyramid is not None:
            return list(self.pyramid.out_channels)
        return [self.num_features[index] for index in self.out_indices]

    @can_return_tuple
    @filter_output_hidden_states
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.FloatTensor, **kwargs: Any) -> BackboneOutput:
        """Feature maps of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            kwargs: as in [`TinyMimModel`].

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`] with `feature_maps`, one tensor of shape
            `(batch_size, channels, height / patch_size, width / patch_size)` for each of `out_features`.
        """
        kwargs.pop("interpolate_pos_encoding", None)
        refuse_unknown_inputs(self, kwargs)
        hidden_states = self.compute_hidden_states(pixel_values, interpolate_pos_encoding=True, **kwargs)
        maps = build_maps(hidden_states, self.out_indices, pixel_values, self.config)
        return BackboneOutput(feature_maps=maps if self.pyramid is None else self.pyramid(maps))


def build_maps(
    hidden_states: list[torch.Tensor], indices: list[int], pixel_values: torch.Tensor, config: TinyMimConfig
) -> tuple[torch.Tensor, ...]:
    """Patch tokens of some blocks as maps, `(batch_size, hidden_size, rows, columns)`."""
    rows, columns = (size // config.patch_size for size in pixel_values.shape[2:])
    tokens = (hidden_states[index][:, config.num_prefix_tokens :] for index in indices)
    return tuple(item.transpose(1, 2).unflatten(2, (rows, columns)) for item in tokens)


class TinyMimForPreTraining(TinyMimPreTrainedModel):
    """A student that learns to have the token relations, or other features, of a teacher.

    The teacher is no part of the module: it is not saved, stays in evaluation mode, and moves with the student unless
    it was given a device or precision of its own. Without one, the model learns from targets that are handed in.
    Position embeddings are fixed. What follows the projections of the last block gets no gradient, so features of a
    student that is pre-trained only are those of the block before (`feature_layer=-2`).

    Args:
        config ([`TinyMimConfig`]): with `distillation_target` and what belongs to it.

    Example:
    ```python
    >>> from transformers import ViTConfig, ViTModel
    >>> from decahub import TinyMimConfig, TinyMimForPreTraining, TinyMimTeacher
    >>> sizes = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 4}
    >>> vit = ViTModel(ViTConfig(hidden_size=48, num_attention_heads=4, **sizes)).eval()
    >>> teacher = TinyMimTeacher(vit, layer=3)
    >>> student = TinyMimForPreTraining(
    ...     TinyMimConfig(hidden_size=24, num_attention_heads=2, **sizes, **teacher.to_config_fields())
    ... )
    >>> student.attach_teacher(teacher)
    >>> student(torch.zeros(2, 3, 32, 32)).relation_losses.shape
    torch.Size([2])

    ```
    """

    def __init__(self, config: TinyMimConfig):
        super().__init__(config)
        if config.use_relative_position_bias or config.pre_logits_dim is not None:
            raise ValueError(
                "`use_relative_position_bias` and `pre_logits_dim` must not be set in pre-training; got "
                f"{config.use_relative_position_bias} and {config.pre_logits_dim}. They belong to fine-tuned models."
            )
        self.tinymim = TinyMimModel(config)
        self.tinymim.embeddings.position_embeddings.requires_grad_(False)
        has_relations = config.distillation_target == "relations"
        self.extra_layer = None
        if has_relations and config.head_alignment == "extra_block":
            self.extra_layer = TinyMimLayer(config)
        self.target_projection = None if has_relations else TinyMimTargetProjection(config)
        self.decoder = TinyMimDecoder(config) if config.reconstruction_weight else None
        self.teacher: TinyMimTeacher | None = None
        self.post_init()

    def attach_teacher(
        self,
        teacher: PreTrainedModel | TinyMimTeacher,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Gives the student its teacher.

        Args:
            teacher (`PreTrainedModel` or [`TinyMimTeacher`]): a vision transformer in evaluation mode.
            dtype (`torch.dtype`, *optional*): precision of the teacher; by default it follows the student's.
            device (`torch.device`, *optional*): place of the teacher; by default it follows the student.

        Raises:
            ValueError: If it does not fit the configuration, or is in training mode.
        """
        config = self.config
        if not isinstance(teacher, TinyMimTeacher):
            teacher = TinyMimTeacher(
                teacher,
                layer=config.teacher_layer,
                student_num_hidden_layers=config.num_hidden_layers,
                image_size=config.teacher_image_size,
                image_mean=config.teacher_image_mean,
                image_std=config.teacher_image_std,
                dtype=dtype,
                device=device,
            )
        check_teacher(teacher, config)
        self.teacher = teacher

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if self.teacher is not None:
            self.teacher.apply(fn)
        return self

    @can_return_tuple
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        teacher_pixel_values: torch.FloatTensor | None = None,
        teacher_relations: torch.FloatTensor | None = None,
        teacher_features: torch.FloatTensor | None = None,
        output_relations: bool = False,
        interpolate_pos_encoding: bool = False,
        **kwargs: Any,
    ) -> TinyMimForPreTrainingOutput:
        """Distance of the student from its teacher.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            teacher_pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, ...)`, *optional*): the
                teacher's view of the same crops, without color jitter; by default the student's view.
            teacher_relations (`torch.FloatTensor`, *optional*): what the teacher gives for each of `relation_pairs`,
                computed before, of shape `(batch_size, num_pairs, num_heads, num_tokens, num_tokens)`.
            teacher_features (`torch.FloatTensor` of shape `(batch_size, num_tokens, teacher_width)`, *optional*): the
                same for the targets `"features"` and `"cls"`.
            output_relations (`bool`): whether relations are returned.
            interpolate_pos_encoding (`bool`): whether images may have another size than `config.image_size`.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`. With the first two the last block
                is computed to its end.

        Returns:
            [`TinyMimForPreTrainingOutput`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If there is neither a teacher nor its targets, or something does not fit.
        """
        refuse_unknown_inputs(self, kwargs)
        config = self.config
        tokens, visible = self.embed(pixel_values, interpolate_pos_encoding)
        states, final = self.compute_student(tokens, wants_all=_wants_all(config, kwargs))
        kept = None if visible is None else self.build_kept_tokens(visible)
        given = teacher_relations if config.distillation_target == "relations" else teacher_features
        asked = None
        if given is None:
            asked = ask_teacher(self.teacher, pixel_values, teacher_pixel_values, kept, config)
        given = gather_given(given, kept, config)
        if config.distillation_target == "relations":
            output = compare_relations(states, asked, given, config, output_relations)
        else:
            output = compare_features(states, self.target_projection, asked, given, config)
        if self.decoder is not None:
            predicted = self.decoder(self.tinymim.layernorm(final), visible)
            output.reconstruction_loss = compute_reconstruction_loss(predicted, pixel_values, visible, config)
            output.loss = output.loss + config.reconstruction_weight * output.reconstruction_loss
        return output

    def embed(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens that the student sees and, with masked input, which patches they are."""
        tokens = self.tinymim.embed(pixel_values, interpolate_pos_encoding)
        if self.config.student_input == "clean":
            return tokens, None
        num_patches = tokens.shape[1] - self.config.num_prefix_tokens
        visible = choose_tokens(tokens.shape[0], num_patches, self.config.mask_ratio, tokens.device)
        num_prefix = self.config.num_prefix_tokens
        return torch.cat([tokens[:, :num_prefix], gather_tokens(tokens[:, num_prefix:], visible)], dim=1), visible

    def compute_student(self, tokens: torch.Tensor, wants_all: bool) -> tuple[BlockStates, torch.Tensor | None]:
        """States of the target block and, where needed, the output of the last block."""
        config, layers = self.config, self.tinymim.layers
        for layer in layers[:-1]:
            tokens = layer(tokens)
        num_heads = config.target_num_attention_heads if self.extra_layer is None else None
        goes_on = self.extra_layer is not None or self.decoder is not None or wants_all
        final = layers[-1](tokens, num_heads=num_heads) if goes_on else None
        if self.extra_layer is not None:
            return self.extra_layer.compute_states(final, config.target_num_attention_heads), final
        is_partial = not {"block", "attention", "ffn"} & set(get_sources(config))
        return layers[-1].compute_states(tokens, num_heads, is_partial=is_partial), final

    def build_kept_tokens(self, visible: torch.Tensor) -> torch.Tensor:
        """Positions of the visible tokens among those of a teacher, whose class token comes first if it has one."""
        if not self.config.include_cls:
            return visible
        return torch.cat([torch.zeros_like(visible[:, :1]), visible + 1], dim=1)


def _wants_all(config: TinyMimConfig, kwargs: dict[str, Any]) -> bool:
    """Whether the caller, or else the configuration, asks for what every block gives."""
    return any(kwargs.get(name, getattr(config, name)) for name in ("output_hidden_states", "output_attentions"))


class TinyMimForImageClassification(TinyMimPreTrainedModel):
    """The vision transformer with a linear classifier.

    Args:
        config ([`TinyMimConfig`]): with `pooling="mean"` the mean of the patch tokens passes a layer norm of its own;
            with `"cls"` the class token passes that of the model. With `num_labels=0` the logits are the pooled
            features.
    """

    _needs_classes = True

    def __init__(self, config: TinyMimConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        is_mean = config.pooling == "mean"
        self.tinymim = TinyMimModel(config, add_final_norm=not is_mean)
        self.fc_norm = nn.LayerNorm(config.output_size, eps=config.layer_norm_eps) if is_mean else nn.Identity()
        self.classifier: nn.Module = nn.Identity()
        if config.num_labels > 0:
            self.classifier = TinyMimClassifier(config.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Class scores of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            labels (`torch.Tensor`, *optional*): class ids in `[0, num_labels)` of shape `(batch_size,)`, where -100 is
                ignored, or probabilities of shape `(batch_size, num_labels)` (mixup).
            interpolate_pos_encoding (`bool`): whether images may have another size than `config.image_size`.
            kwargs: as in [`TinyMimModel`].

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`] with `loss` if `labels` are given and `logits` of
            shape `(batch_size, num_labels)`; `hidden_states` and `attentions` as in [`TinyMimModel`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        refuse_unknown_inputs(self, kwargs)
        kwargs["return_dict"] = True
        outputs = self.tinymim(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
        logits = self.classifier(self.fc_norm(self.tinymim.pool(outputs.last_hidden_state)))
        loss = None if labels is None else compute_classification_loss(logits, labels, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TinyMimForSemanticSegmentation(TinyMimPreTrainedModel):
    """The vision transformer with a feature pyramid, a UPerNet head and, for training, an auxiliary head.

    Args:
        config ([`TinyMimConfig`]): the authors' models have `use_relative_position_bias=True` and
            `layer_scale_init_value=1.0`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^tinymim\.layernorm\.", r"^(classifier|fc_norm|target_projection)\."]
    _needs_classes = True

    def __init__(self, config: TinyMimConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.tinymim = TinyMimModel(config, add_final_norm=False)
        self.pyramid = TinyMimFeaturePyramid(config)
        channels = list(self.pyramid.out_channels)
        self.decode_head = build_decode_head(config, channels)
        self.auxiliary_head = build_auxiliary_head(config, channels) if config.use_auxiliary_head else None
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, labels: torch.LongTensor | None = None, **kwargs: Any
    ) -> TinyMimSemanticSegmenterOutput:
        """Class scores of pixels.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels
                of any size that is a multiple of the patch.
            labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*): class ids, at any
                resolution; `config.semantic_loss_ignore_index` marks pixels without one.
            kwargs: as in [`TinyMimModel`].

        Returns:
            [`TinyMimSemanticSegmenterOutput`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        refuse_unknown_inputs(self, kwargs, ignored=("interpolate_pos_encoding",))
        self.check_batch(pixel_values)
        kwargs |= {"return_dict": True, "output_hidden_states": True, "interpolate_pos_encoding": True}
        outputs = self.tinymim(pixel_values, **kwargs)
        # What leaves the model has passed the layer before the logits; what was captured has not.
        hidden_states = [*outputs.hidden_states[:-1], outputs.last_hidden_state]
        maps = self.pyramid(build_maps(hidden_states, self.config.pyramid_indices, pixel_values, self.config))
        logits = self.decode_head(maps)
        losses = {} if labels is None else self.compute_losses(maps, logits, labels)
        return TinyMimSemanticSegmenterOutput(
            logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions, **losses
        )

    def train(self, mode: bool = True) -> Self:
        """As in torch; batch norms with frozen weights keep their statistics, which no adapter would save."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def check_batch(self, pixel_values: torch.Tensor | None) -> None:
        learns = any(module.training for module in self.decode_head.modules() if isinstance(module, nn.BatchNorm2d))
        if learns and pixel_values is not None and len(pixel_values) == 1:
            raise ValueError(
                "`pixel_values` must hold at least 2 images in training; got 1, and the smallest pool of the decode "
                "head gives a batch norm nothing to average. Raise the batch size, and set `drop_last` of the data "
                "loader."
            )

    def compute_losses(
        self, maps: tuple[torch.Tensor, ...], logits: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        ignore_index = self.config.semantic_loss_ignore_index
        loss = compute_segmentation_loss(logits, labels, ignore_index)
        if self.auxiliary_head is None:
            return {"loss": loss, "decode_loss": loss}
        auxiliary_loss = compute_segmentation_loss(self.auxiliary_head(maps), labels, ignore_index)
        auxiliary_loss = self.config.auxiliary_loss_weight * auxiliary_loss
        return {"loss": loss + auxiliary_loss, "decode_loss": loss, "auxiliary_loss": auxiliary_loss}


__all__ = [
    "TinyMimBackbone",
    "TinyMimForImageClassification",
    "TinyMimForPreTraining",
    "TinyMimForPreTrainingOutput",
    "TinyMimForSemanticSegmentation",
    "TinyMimModel",
    "TinyMimPreTrainedModel",
    "TinyMimSemanticSegmenterOutput",
]
