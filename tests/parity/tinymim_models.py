"""TinyMIM models that hold the weights of a golden file, teachers of other classes, and the tolerances."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, ViTConfig, ViTMAEConfig, ViTMAEModel, ViTModel

from conversion.convert_tinymim import convert_state_dict, resize_positions
from conversion.layouts_tinymim import BACKBONE, CLASSIFICATION, ENCODER, PRETRAINING, Layout, build_name_map
from decahub import (
    TinyMimBackbone,
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimModel,
    TinyMimTeacher,
)


TEACHERS = ("tinymim", "vit", "vit_mae")
WAYS = ("sdpa", "eager")


@dataclass(frozen=True)
class Precision:
    """A floating type and the largest differences from the authors' float32 results that it may show."""

    dtype: torch.dtype
    atol: float
    gradient_rtol: float
    trajectory_rtol: float

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")


# The files hold float32 results, so float64 runs differ from them by the authors' own rounding: the same bounds hold.
# They are those of the method's golden README: 1e-5 on relations, losses and logits, 1e-4 relative on the others.
FLOAT32 = Precision(torch.float32, atol=1e-5, gradient_rtol=1e-4, trajectory_rtol=1e-4)
FLOAT64 = Precision(torch.float64, atol=1e-5, gradient_rtol=1e-4, trajectory_rtol=1e-4)
PRECISIONS = (FLOAT32, FLOAT64)


def to_fields(network: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of our configuration from the authors' keywords."""
    return {
        "image_size": network["img_size"],
        "patch_size": network["patch_size"],
        "hidden_size": network["embed_dim"],
        "num_hidden_layers": network["depth"],
        "num_attention_heads": network["num_heads"],
        "intermediate_size": int(network["embed_dim"] * network["mlp_ratio"]),
        "qkv_bias": network.get("qkv_bias", True),
    }


def prepare(
    model: PreTrainedModel, official: Mapping[str, torch.Tensor], layout: Layout, precision: Precision, way: str
):
    """`model` with the authors' weights, in evaluation mode."""
    model.load_state_dict(convert_state_dict(official, model.config, layout.task))
    model.set_attn_implementation(way)
    return model.to(precision.dtype).eval()


def find_teacher_layer(golden) -> int:
    """The teacher's block, counted from 1."""
    return int(golden.json("teacher")["intermediate"])


def build_teacher(golden, name: str = "tinymim", precision: Precision = FLOAT32, way: str = "sdpa") -> PreTrainedModel:
    """The teacher of a golden file as a model of ours or of transformers."""
    fields = to_fields(golden.json("teacher"))
    official = golden.group("teacher.")
    if name == "tinymim":
        return prepare(TinyMimModel(TinyMimConfig(**fields)), official, ENCODER, precision, way)
    # Both classes' own default, 1e-12, is not the epsilon of the authors.
    fields |= {"layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if name == "vit":
        model = ViTModel(ViTConfig(**fields), add_pooling_layer=False)
    else:
        model = ViTMAEModel(ViTMAEConfig(**fields))
    model.load_state_dict(to_vit(official, fields["num_hidden_layers"]))
    model.set_attn_implementation(way)
    return model.to(precision.dtype).eval()


def to_vit(official: Mapping[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """The authors' tensors under the names of transformers, with separate projections."""
    weights = {
        "embeddings.cls_token": official["cls_token"],
        "embeddings.position_embeddings": official["pos_embed"],
    }
    for kind in ("weight", "bias"):
        weights[f"embeddings.patch_embeddings.projection.{kind}"] = official[f"patch_embed.proj.{kind}"]
        weights[f"layernorm.{kind}"] = official[f"norm.{kind}"]
        for index in range(depth):
            theirs, ours = f"blocks.{index}.", f"layers.{index}."
            for part, name in zip(official[f"{theirs}attn.qkv.{kind}"].chunk(3), "qkv", strict=True):
                weights[f"{ours}attention.{name}_proj.{kind}"] = part
            for source, target in (
                ("norm1", "layernorm_before"),
                ("attn.proj", "attention.o_proj"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                weights[f"{ours}{target}.{kind}"] = official[f"{theirs}{source}.{kind}"]
    return weights


def build_student(
    golden, precision: Precision = FLOAT32, way: str = "sdpa", teacher: str = "tinymim", wrap: bool = False
) -> TinyMimForPreTraining:
    """The student of a golden file with its teacher, which is given as a model or ready in a [`TinyMimTeacher`]."""
    student = golden.json("student")
    layer = find_teacher_layer(golden)
    config = TinyMimConfig(
        **to_fields(student),
        teacher_layer=layer,
        teacher_hidden_size=golden.json("teacher")["embed_dim"],
        teacher_num_attention_heads=student["last_heads"],
        drop_path_rate=float(student.get("drop_path", 0.0)),
        drop_path_schedule="constant",
    )
    model = prepare(TinyMimForPreTraining(config), golden.group("student."), PRETRAINING, precision, way)
    source = build_teacher(golden, teacher, precision, way)
    model.attach_teacher(TinyMimTeacher(source, layer=layer) if wrap else source)
    return model


def build_classifier_config(golden) -> TinyMimConfig:
    network = golden.json("config")
    return TinyMimConfig(
        **to_fields(network),
        num_labels=network["num_classes"],
        pooling="mean" if network["global_pool"] else "cls",
        drop_path_rate=float(network.get("drop_path_rate", 0.0)),
    )


def build_classifier(golden, precision: Precision = FLOAT32, way: str = "sdpa") -> TinyMimForImageClassification:
    """The classifier of a golden file: a pre-training file, resized, with the file's head."""
    config = build_classifier_config(golden)
    unused = golden.json("unexpected")
    official = {name: tensor for name, tensor in golden.group("ckpt.").items() if name not in unused}
    official, _ = resize_positions(official | golden.group("extra."), config, CLASSIFICATION)
    return prepare(TinyMimForImageClassification(config), official, CLASSIFICATION, precision, way)


def build_backbone(golden, precision: Precision = FLOAT32, way: str = "sdpa") -> TinyMimBackbone:
    """The backbone of a segmentation file, with its pyramid."""
    network = golden.json("config")
    config = TinyMimConfig(
        **to_fields(network),
        use_relative_position_bias=True,
        layer_scale_init_value=1.0,
        use_distillation_token=network.get("star", False),
        pre_logits_dim=network.get("pre_logits_dim") if network.get("star", False) else None,
        use_feature_pyramid=True,
        out_indices=[index + 1 for index in network["out_indices"]],  # ours count the embeddings as 0
    )
    official = {name: tensor for name, tensor in golden.tensors.items() if name.startswith("backbone.")}
    return prepare(TinyMimBackbone(config), official, BACKBONE, precision, way)


def name_officially(model: PreTrainedModel, layout: Layout) -> dict[str, torch.nn.Parameter]:
    """The parameters of a model under the authors' names."""
    name_map = build_name_map(layout)
    return {name_map.revert(name): parameter for name, parameter in model.named_parameters()}


def assert_norm_near(actual: torch.Tensor, expected: torch.Tensor, rtol: float, what: str) -> None:
    """Compares by the norm of the difference, relative to that of what is expected."""
    expected = expected.double()
    difference = (actual.detach().double() - expected).norm().item()
    bound = rtol * expected.norm().item()
    assert difference <= bound, f"{what}: off by {difference:.3g}, allowed {bound:.3g}"
