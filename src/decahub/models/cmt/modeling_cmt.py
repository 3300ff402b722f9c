"""CMT finds 3D boxes from cameras, LiDAR, or both (arXiv 2301.01283).

Tokens of images and of the bird's-eye view form one memory. Each has a position in 3D, and so has each query, by its
anchor; a plain DETR decoder does the rest. Without suppression of overlaps, each query is a box.

Different from the authors' code: a sensor that is missing may be left out instead of being shown as zeros
(`missing_modality`), an empty cloud or a batch without boxes is no error, NaN stops a training, and class scores of a
new model start low as the authors meant them to (`prior_bias=False` for theirs).
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..shared.checks import refuse_unknown_inputs
from ..shared.initialization import ParentInitialization
from .boxes.denoising import DenoisingQueries, build_denoising_queries
from .boxes.labels import check_labels
from .boxes.loss import CmtLoss
from .camera.image_neck import CmtImageNeck
from .camera.vovnet import CmtVovNetBackbone
from .configuration_cmt import CmtConfig, CmtVovNetConfig
from .head.decoder import CmtAttention, CmtDecoder, CmtDecoderLayer
from .head.position_encoding import (
    CameraProjections,
    CmtPositionMlp,
    build_pixel_grid,
    compute_depths,
    encode_bev_grid,
    encode_ground_points,
    encode_rays,
    inverse_sigmoid,
    project_points,
)
from .head.task_heads import CmtTaskHead
from .inputs import check_inputs
from .lidar.backbone import CmtLidarBackbone
from .lidar.voxelizer import average_voxels
from .missing_sensors import (
    CAMERA,
    LIDAR,
    blacken_images,
    build_key_mask,
    resolve_sensors,
    run_where_present,
    select_samples,
    zero_clouds,
)


RAY_EXPANSION = 4  # width of the ray encoder's hidden layer in hidden sizes


@dataclass
class CmtModelOutput(ModelOutput):
    """Output of [`CmtModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): states of the
            queries after the last layer and the norm. Denoising queries, if there are any, come first, here and below.
        intermediate_hidden_states (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, hidden_size)`):
            the same after each layer.
        reference_points (`torch.FloatTensor` of shape `(batch_size, num_queries, 3)`): anchors of the queries, x, y, z
            relative to the range.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): input and output of each layer, without the last norm.
        attentions (`tuple(torch.FloatTensor)`, *optional*): self-attention of the queries in each layer.
        cross_attentions (`tuple(torch.FloatTensor)`, *optional*): attention to the tokens, those of the bird's-eye
            view first.
    """

    last_hidden_state: torch.FloatTensor | None = None
    intermediate_hidden_states: torch.FloatTensor | None = None
    reference_points: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class CmtObjectDetection3DOutput(ModelOutput):
    """Output of [`CmtForObjectDetection3D`]; `post_process_object_detection_3d` of the processor reads it.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): sum of the terms.
        loss_dict (`dict[str, torch.FloatTensor]`, *optional*): terms by name: `loss_cls` and `loss_bbox` of the last
            layer, `d0.loss_cls`, ... of the others, `dn_...` of denoising queries.
        logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, num_labels)`): class scores of each
            layer; the last is the prediction.
        pred_boxes (`torch.FloatTensor` of shape `(num_layers, batch_size, num_tasks * num_queries, 10)`): coded boxes
            in the slots of `config.box_slot_order`, those of the first task first.
        denoising_logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_slots, num_labels)`, *optional*):
            scores of denoising queries, in training.
        denoising_boxes (`torch.FloatTensor` of shape `(num_layers, batch_size, num_tasks * num_slots, 10)`,
            *optional*): their boxes.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): as in
            [`CmtModelOutput`], with the three below.
        hidden_states, attentions, cross_attentions (`tuple(torch.FloatTensor)`, *optional*): on request.
    """

    loss: torch.FloatTensor | None = None
    loss_dict: dict[str, torch.FloatTensor] | None = None
    logits: torch.FloatTensor | None = None
    pred_boxes: torch.FloatTensor | None = None
    denoising_logits: torch.FloatTensor | None = None
    denoising_boxes: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


class CmtPreTrainedModel(ParentInitialization, PreTrainedModel):
    """Initialization, loading and what transformers needs to know about CMT."""

    config: CmtConfig
    config_class = CmtConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is normalized by the boxes of one batch
    _no_split_modules = ["CmtDecoderLayer", "CmtLidarBackbone"]
    _input_embed_layer = "reference_points"
    _supports_sdpa = True
    _supports_attention_backend = True

    def set_attn_implementation(self, attn_implementation: str | dict, allow_all_kernels: bool = False) -> None:
        """As in transformers; a backbone of images that has no attention is left as it is."""
        backbone = getattr(self.base_model, "image_backbone", None)
        if isinstance(attn_implementation, str) and backbone is not None and not backbone._supports_sdpa:
            attn_implementation = {"": attn_implementation, "image_backbone_config": "eager"}
        super().set_attn_implementation(attn_implementation, allow_all_kernels)

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, CmtModel):
            init.uniform_(module.reference_points.weight)
        elif isinstance(module, CmtImageNeck):
            module.init_weights()
        elif isinstance(module, CmtTaskHead):
            module.reset_parameters(self.config.prior_bias)
        elif isinstance(module, (CmtLidarBackbone, CmtBevProjection, CmtPositionMlp, CmtDecoder)):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class CmtBevProjection(nn.Module):
    """Brings the map of the bird's-eye view to the width of the tokens."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__()
        self.conv = nn.Conv2d(in_size, out_size, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_size)

    def reset_parameters(self) -> None:
        init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, bev_features: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(bev_features)).relu()


class CmtModel(CmtPreTrainedModel):
    """Backbones and decoder, without heads.

    Args:
        config ([`CmtConfig`]): the architecture.
    """

    _can_record_outputs = {
        "hidden_states": CmtDecoderLayer,
        "attentions": OutputRecorder(CmtAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(CmtAttention, index=1, layer_name="cross_attention"),
    }

    def __init__(self, config: CmtConfig):
        super().__init__(config)
        config.validate()
        size = config.hidden_size
        self.main_input_name = "pixel_values" if config.has_camera else "voxels"
        self.image_backbone = self.image_neck = self.ray_position_embedding = None
        if config.has_camera:
            self.image_backbone = _build_image_backbone(config)
            self.image_neck = CmtImageNeck(self.image_backbone.channels, size)
            self.ray_position_embedding = CmtPositionMlp(3 * config.num_depth_bins, RAY_EXPANSION * size, size)
        self.lidar_backbone = self.bev_projection = None
        if config.has_lidar:
            self.lidar_backbone = CmtLidarBackbone(config.lidar_backbone_config)
            self.bev_projection = CmtBevProjection(sum(config.lidar_backbone_config.bev_neck_sizes), size)
        self.bev_position_embedding = CmtPositionMlp(2 * size, size, size)
        self.reference_points = nn.Embedding(config.num_queries, 3)
        self.decoder = CmtDecoder(config)
        self.post_init()

    def train(self, mode: bool = True) -> "CmtModel":
        """As in torch; batch norms of the image backbone stay as they are unless `config.freeze_batch_norm` is off."""
        super().train(mode)
        if mode and self.image_backbone is not None and self.config.freeze_batch_norm:
            for module in self.image_backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def load_image_backbone(self, source: str | os.PathLike, **kwargs: Any) -> None:
        """Loads pre-trained weights of the image backbone, as for a training of a new model.

        Channels of images are blue, green, red unless the image processor says otherwise.

        Args:
            source (`str` or `os.PathLike`): a folder or Hub id with a model of the kind of the backbone; further parts
                of it, such as a classifier, are left out.
            kwargs: arguments of `from_pretrained`.

        Raises:
            ValueError: If the model has no cameras, or the file lacks weights of the backbone.
        """
        if self.image_backbone is None:
            raise ValueError("`load_image_backbone` must be called on a model with cameras; this one has none.")
        backbone, info = type(self.image_backbone).from_pretrained(
            source, config=self.config.image_backbone_config, output_loading_info=True, **kwargs
        )
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"`source` must hold all weights of a {type(backbone).__name__}; {str(source)!r} lacks "
                f"{len(missing)}, such as {missing[0]!r}. Is it of the same kind and size?"
            )
        self.image_backbone.load_state_dict(backbone.state_dict())

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        lidar2img: torch.Tensor | None = None,
        voxels: torch.FloatTensor | None = None,
        num_points_per_voxel: torch.LongTensor | None = None,
        voxel_coords: torch.LongTensor | None = None,
        num_voxels: torch.LongTensor | None = None,
        modality_mask: torch.BoolTensor | None = None,
        denoising: DenoisingQueries | None = None,
        **kwargs: Any,
    ) -> CmtModelOutput:
        """States of the queries.

        Args:
            pixel_values (`torch.FloatTensor`, *optional*): normalized images, `(batch_size, num_cameras, num_channels,
                height, width)`, of any number of cameras.
            lidar2img (`torch.DoubleTensor` of shape `(batch_size, num_cameras, 4, 4)`, *optional*): homogeneous
                projections, $(ud, vd, d, 1) = M (x, y, z, 1)$ with pixels u, v of `pixel_values`.
            voxels (`torch.FloatTensor` of shape `(num_voxels, max_points, num_point_features)`, *optional*): points of
                the voxels of all samples; x, y, z in meters, intensity, time lag in seconds.
            num_points_per_voxel (`torch.LongTensor` of shape `(num_voxels,)`, *optional*): how many are points.
            voxel_coords (`torch.LongTensor` of shape `(num_voxels, 4)`, *optional*): sample, z, y, x of each voxel.
            num_voxels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): voxels of each sample; may be 0.
            modality_mask (`torch.BoolTensor` of shape `(batch_size, 2)`, *optional*): whether cameras and LiDAR of
                each sample work; what a masked one gives is `config.missing_modality`.
            denoising ([`DenoisingQueries`], *optional*): further queries before the learned ones.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`CmtModelOutput`].

        Raises:
            TypeError: If an input has another type.
            ValueError: If shapes do not fit each other or the configuration, or no sensor is left.
        """
        refuse_unknown_inputs(self, kwargs)
        batch_size = check_inputs(
            self.config, pixel_values, lidar2img, voxels, num_points_per_voxel, voxel_coords, num_voxels
        )
        sensors = resolve_sensors(
            self.config, modality_mask, batch_size, (pixel_values is not None, voxels is not None)
        )
        image_features, has_images = self.encode_images(pixel_values, sensors[:, CAMERA])
        bev_features, has_points = self.encode_points(voxels, num_points_per_voxel, voxel_coords, sensors[:, LIDAR])
        return self.decode(
            bev_features,
            image_features,
            lidar2img,
            None if pixel_values is None else (pixel_values.shape[-2], pixel_values.shape[-1]),
            denoising=denoising,
            has_points=has_points,
            has_images=has_images,
            **{**kwargs, "return_dict": True},
        )

    def encode_images(
        self, pixel_values: torch.Tensor | None, is_seen: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Feature maps of stride 16, and which samples have them.

        Args:
            pixel_values (`torch.FloatTensor`, *optional*): as in `forward`.
            is_seen (`torch.BoolTensor` of shape `(batch_size,)`): samples whose cameras work.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_cameras, hidden_size, rows, columns)`, `None` if no sample
            has tokens of images; and `torch.BoolTensor` of shape `(batch_size,)`.
        """
        if pixel_values is None or self.image_backbone is None:
            return None, torch.zeros_like(is_seen)
        images = pixel_values
        if self.config.missing_modality == "zero":
            images = blacken_images(images, is_seen, self.config.black_pixel)
            is_seen = torch.ones_like(is_seen)

        def compute(samples: torch.Tensor) -> torch.Tensor:
            chosen = images if len(samples) == len(images) else images[samples.to(images.device)]
            maps = self.image_backbone(chosen.flatten(0, 1).to(self.dtype), return_dict=True).feature_maps
            return self.image_neck(maps)[0].unflatten(0, chosen.shape[:2])

        return run_where_present(is_seen, compute), is_seen

    def encode_points(
        self,
        voxels: torch.Tensor | None,
        num_points_per_voxel: torch.Tensor | None,
        voxel_coords: torch.Tensor | None,
        is_seen: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Map of the bird's-eye view, and which samples have one.

        Args:
            voxels (`torch.FloatTensor`, *optional*): as in `forward`.
            num_points_per_voxel (`torch.LongTensor`, *optional*): as in `forward`.
            voxel_coords (`torch.LongTensor`, *optional*): as in `forward`.
            is_seen (`torch.BoolTensor` of shape `(batch_size,)`): samples whose LiDAR works.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, hidden_size, rows, columns)`, `None` if no sample has its
            tokens; and `torch.BoolTensor` of shape `(batch_size,)`.
        """
        if self.lidar_backbone is None:
            return None, torch.zeros_like(is_seen)
        weight = self.bev_projection.conv.weight
        if voxels is None:
            features = weight.new_zeros(0, self.config.lidar_backbone_config.num_point_features)
            coords = torch.zeros(0, 4, dtype=torch.long, device=weight.device)
        else:
            features = average_voxels(voxels, num_points_per_voxel).to(weight.dtype)
            coords = voxel_coords.long()
        if self.config.missing_modality == "zero":
            features, coords = zero_clouds(features, coords, is_seen, self.config)
            is_seen = torch.ones_like(is_seen)

        def compute(samples: torch.Tensor) -> torch.Tensor:
            chosen_features, chosen_coords = select_samples(features, coords, samples, len(is_seen))
            return self.bev_projection(self.lidar_backbone(chosen_features, chosen_coords, len(samples)))

        return run_where_present(is_seen, compute), is_seen

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def decode(
        self,
        bev_features: torch.Tensor | None,
        image_features: torch.Tensor | None,
        lidar2img: torch.Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        *,
        denoising: DenoisingQueries | None = None,
        has_points: torch.Tensor | None = None,
        has_images: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CmtModelOutput:
        """States of the queries from feature maps.

        Args:
            bev_features (`torch.FloatTensor` of shape `(batch_size, hidden_size, rows, columns)`, *optional*): map of
                the bird's-eye view, y along rows and x along columns.
            image_features (`torch.FloatTensor`, *optional*): maps of images, `(batch_size, num_cameras, hidden_size,
                rows, columns)`.
            lidar2img (`torch.DoubleTensor` of shape `(batch_size, num_cameras, 4, 4)`, *optional*): projections.
            image_size (`tuple[int, int]`, *optional*): height and width of the images.
            denoising ([`DenoisingQueries`], *optional*): further queries before the learned ones.
            has_points (`torch.BoolTensor` of shape `(batch_size,)`, *optional*): samples that have tokens of the
                LiDAR; all by default.
            has_images (`torch.BoolTensor` of shape `(batch_size,)`, *optional*): the same for cameras.
            kwargs: `output_hidden_states` and `output_attentions`, and what is passed on to the layers.
        """
        maps = bev_features if image_features is None else image_features
        references = self.reference_points.weight.expand(len(maps), -1, -1)
        references = references.to(torch.promote_types(references.dtype, torch.float32))  # bfloat16 has meters only
        if denoising is not None:
            references = torch.cat([denoising.reference_points.to(references), references], dim=1)
        anchors = inverse_sigmoid(references).sigmoid()
        query_positions = self.embed_ground_points(anchors)
        tokens, positions, presence = [], [], []
        if bev_features is not None:
            tokens.append(bev_features.flatten(2).transpose(1, 2))
            positions.append(self.embed_bev_grid(bev_features))
            presence.append((has_points, tokens[-1].shape[1]))
        if image_features is not None:
            projections = CameraProjections.build(lidar2img, image_size, anchors)
            tokens.append(image_features.transpose(1, 2).flatten(2).transpose(1, 2))
            positions.append(self.embed_image_rays(image_features, projections))
            presence.append((has_images, tokens[-1].shape[1]))
            ray_positions = self.embed_query_rays(anchors, projections)
            if has_images is not None and not has_images.all():
                ray_positions = ray_positions * has_images.to(ray_positions.device)[:, None, None]
            query_positions = query_positions + ray_positions
        states = self.decoder(
            query_positions,
            torch.cat(tokens, dim=1),
            torch.cat(positions, dim=1),
            query_mask=None if denoising is None else denoising.attention_mask,
            key_mask=build_key_mask(presence, maps.device),
            **kwargs,
        )
        if not self.training:
            states = torch.nan_to_num(states)  # as the authors; in training the loss refuses it
        return CmtModelOutput(
            last_hidden_state=states[-1], intermediate_hidden_states=states, reference_points=references
        )

    def embed_ground_points(self, anchors: torch.Tensor) -> torch.Tensor:
        """Positions of points by their place on the ground, `(batch_size, num_queries, hidden_size)`."""
        return self.bev_position_embedding(encode_ground_points(anchors[..., :2], self.config.hidden_size))

    def embed_bev_grid(self, bev_features: torch.Tensor) -> torch.Tensor:
        """Positions of the cells of a map, `(batch_size, rows * columns, hidden_size)`, equal for all samples."""
        rows, columns = bev_features.shape[-2:]
        like = self.reference_points.weight
        encoded = encode_bev_grid(
            rows, columns, self.config.hidden_size, like.to(torch.promote_types(like.dtype, torch.float32))
        )
        return self.bev_position_embedding(encoded).expand(len(bev_features), -1, -1)

    def embed_image_rays(self, image_features: torch.Tensor, projections: CameraProjections) -> torch.Tensor:
        """Positions of the pixels of maps by the rays through them, `(batch_size, num_tokens, hidden_size)`."""
        rows, columns = image_features.shape[-2:]
        pixels = build_pixel_grid((rows, columns), projections.image_size, projections.img2lidar)
        return self.embed_rays(pixels, projections).flatten(1, 2)

    def embed_query_rays(self, anchors: torch.Tensor, projections: CameraProjections) -> torch.Tensor:
        """Positions of points by their rays, summed over the cameras that see them; zero where none does."""
        limits = anchors.new_tensor(self.config.point_cloud_range)
        points = anchors * (limits[3:] - limits[:3]) + limits[:3]
        image_points, visible = project_points(points, projections.lidar2img, projections.image_size)
        rays = self.embed_rays(image_points, projections)
        return (rays * visible[..., None]).sum(1)

    def embed_rays(self, image_points: torch.Tensor, projections: CameraProjections) -> torch.Tensor:
        depths = compute_depths(self.config.num_depth_bins, self.config.point_cloud_range[3], projections.img2lidar)
        rays = encode_rays(image_points, projections.img2lidar, depths, self.config.point_cloud_range)
        return self.ray_position_embedding(rays)


class CmtForObjectDetection3D(CmtPreTrainedModel):
    """CMT with a head for each group of classes.

    Args:
        config ([`CmtConfig`]): the architecture; `tasks` are the groups.
    """

    def __init__(self, config: CmtConfig):
        super().__init__(config)
        self.model = CmtModel(config)
        self.main_input_name = self.model.main_input_name
        self.task_heads = nn.ModuleList(CmtTaskHead(config, num_classes) for num_classes in config.task_sizes)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        lidar2img: torch.Tensor | None = None,
        voxels: torch.FloatTensor | None = None,
        num_points_per_voxel: torch.LongTensor | None = None,
        voxel_coords: torch.LongTensor | None = None,
        num_voxels: torch.LongTensor | None = None,
        modality_mask: torch.BoolTensor | None = None,
        labels: list[dict[str, torch.Tensor]] | None = None,
        denoising_noise: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> CmtObjectDetection3DOutput:
        """Boxes, and the loss if there are labels.

        Args:
            pixel_values (`torch.FloatTensor`, *optional*): this and the next six are as in [`CmtModel`].
            lidar2img (`torch.DoubleTensor`, *optional*): projections.
            voxels (`torch.FloatTensor`, *optional*): points of voxels.
            num_points_per_voxel (`torch.LongTensor`, *optional*): points of each voxel.
            voxel_coords (`torch.LongTensor`, *optional*): places of voxels.
            num_voxels (`torch.LongTensor`, *optional*): voxels of each sample.
            modality_mask (`torch.BoolTensor`, *optional*): sensors that work.
            labels (`list[dict]`, *optional*): for each sample `boxes` of shape `(num_boxes, 9)`: gravity center (m),
                l, w, h (m), yaw (rad), vx, vy (m/s) in the LiDAR frame, and `class_labels` `(num_boxes,)`. A velocity
                may be NaN, and a size 0: such a box takes no part in the loss of boxes.
            denoising_noise (`torch.FloatTensor` of shape `(num_groups * num_boxes, 3)`, *optional*): uniform in
                [0, 1], for denoising queries in training with labels, and only then; drawn by default.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`CmtObjectDetection3DOutput`].

        Raises:
            TypeError: If an input has another type.
            ValueError: If inputs or labels do not fit, no sensor is left, or predictions are not finite in training.
        """
        refuse_unknown_inputs(self, kwargs)
        denoising = None
        if denoising_noise is not None and (labels is None or not self.training):
            raise ValueError(
                "`denoising_noise` must come with `labels` in training; otherwise there is no such query."
            )
        if labels is not None:
            labels = self.check_labels(labels, pixel_values, num_voxels)
            denoising = self.build_denoising(labels, denoising_noise) if self.training else None
        outputs = self.model(
            pixel_values=pixel_values,
            lidar2img=lidar2img,
            voxels=voxels,
            num_points_per_voxel=num_points_per_voxel,
            voxel_coords=voxel_coords,
            num_voxels=num_voxels,
            modality_mask=modality_mask,
            denoising=denoising,
            **{**kwargs, "return_dict": True},
        )
        return self.detect(outputs, labels, denoising)

    def check_labels(
        self, labels: list[dict[str, torch.Tensor]], pixel_values: torch.Tensor | None, num_voxels: torch.Tensor | None
    ) -> list[dict[str, torch.Tensor]]:
        inputs = num_voxels if pixel_values is None else pixel_values
        like = self.model.reference_points.weight
        like = like.to(torch.promote_types(like.dtype, torch.float32))
        batch_size = len(labels) if inputs is None else len(inputs)
        return check_labels(labels, batch_size, self.config.num_labels, self.config.num_queries, like)

    def build_denoising(
        self, labels: list[dict[str, torch.Tensor]], noise: torch.Tensor | None = None
    ) -> DenoisingQueries | None:
        """Noised copies of the boxes of a batch; `None` without boxes or with `denoising_groups=0`."""
        config = self.config
        return build_denoising_queries(
            [label["boxes"] for label in labels],
            [label["class_labels"] for label in labels],
            num_queries=config.num_queries,
            max_groups=config.denoising_groups,
            point_cloud_range=config.point_cloud_range,
            noise_scale=config.denoising_scale,
            threshold=config.denoising_threshold,
            noise=noise,
        )

    def detect(
        self,
        outputs: CmtModelOutput,
        labels: list[dict[str, torch.Tensor]] | None = None,
        denoising: DenoisingQueries | None = None,
    ) -> CmtObjectDetection3DOutput:
        """Boxes from states of queries, and the loss if there are labels."""
        predictions = [head(outputs.intermediate_hidden_states, outputs.reference_points) for head in self.task_heads]
        logits = torch.cat([logits for logits, _ in predictions], dim=-1)
        coded = torch.stack([coded for _, coded in predictions], dim=2)  # (layers, batch, tasks, queries, 10)
        logits = logits.to(coded.dtype)
        slots = denoising.num_slots if denoising is not None else 0
        loss = terms = None
        if labels is not None:
            terms = CmtLoss(self.config)(
                logits[:, :, slots:], coded[:, :, :, slots:], labels, denoising, logits[:, :, :slots],
                coded[:, :, :, :slots],
            )  # fmt: skip
            loss = torch.stack(list(terms.values())).sum()
        return CmtObjectDetection3DOutput(
            loss=loss,
            loss_dict=terms,
            logits=logits[:, :, slots:],
            pred_boxes=coded[:, :, :, slots:].flatten(2, 3),
            denoising_logits=logits[:, :, :slots] if slots else None,
            denoising_boxes=coded[:, :, :, :slots].flatten(2, 3) if slots else None,
            last_hidden_state=outputs.last_hidden_state[:, slots:],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )


def _build_image_backbone(config: CmtConfig) -> nn.Module:
    backbone = config.image_backbone_config
    # By its name: remote code may hold two copies of a class, and no Auto class knows them.
    if backbone.model_type == CmtVovNetConfig.model_type:
        return CmtVovNetBackbone(backbone)
    return AutoBackbone.from_config(backbone)


__all__ = [
    "CmtForObjectDetection3D",
    "CmtModel",
    "CmtModelOutput",
    "CmtObjectDetection3DOutput",
    "CmtPreTrainedModel",
]
