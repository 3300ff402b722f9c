"""Turns a PMT-IQA checkpoint of the authors' code into a decahub folder, with a parity report.

    python conversion/convert_pmt_iqa.py --checkpoint pmt_iqa.pth --output_dir pmt-iqa/
    python conversion/convert_pmt_iqa.py --checkpoint resnet50.pth --variant resnet50 --output_dir pmt-iqa-start/

The authors publish neither weights nor a license; their code makes the first kind of file when its model is saved. The
second kind is a backbone that was pre-trained elsewhere (torchvision, timm, transformers): the folder then has new
branches and heads, to be trained.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import PmtIqaConfig, PmtIqaForImageQualityAssessment, PmtIqaImageProcessor
from decahub.models.pmt_iqa.backbone_weights import load_backbone_weights
from decahub.models.pmt_iqa.configuration_pmt_iqa import STAGES, VARIANTS


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    ConversionError,
    check_is_state_dict,
    check_tensors,
    read_checkpoint,
    rename,
    run_converter,
    sha256_of,
    shapes_of,
    strip_prefix,
    write_json,
    write_model_folder,
    write_parity_report,
)
from .name_map import NameMap


BACKBONE = "pmt_iqa.backbone"
KEY_MAP = (
    ("res.conv1.*", f"{BACKBONE}.embedder.embedder.convolution.*"),
    ("res.bn1.*", f"{BACKBONE}.embedder.embedder.normalization.*"),
    (
        "res.layer{stage+1}.{block}.conv{layer+1}.*",
        BACKBONE + ".encoder.stages.{stage}.layers.{block}.layer.{layer}.convolution.*",
    ),
    (
        "res.layer{stage+1}.{block}.bn{layer+1}.*",
        BACKBONE + ".encoder.stages.{stage}.layers.{block}.layer.{layer}.normalization.*",
    ),
    (
        "res.layer{stage+1}.{block}.downsample.0.*",
        BACKBONE + ".encoder.stages.{stage}.layers.{block}.shortcut.convolution.*",
    ),
    (
        "res.layer{stage+1}.{block}.downsample.1.*",
        BACKBONE + ".encoder.stages.{stage}.layers.{block}.shortcut.normalization.*",
    ),
    ("res.lda{branch+1}_pool.0.*", "pmt_iqa.lda.{branch}.reduce.*"),
    ("res.lda{branch+1}_fc.*", "pmt_iqa.lda.{branch}.proj.*"),
    ("fcs.{layer}.*", "shared.{layer}.*"),
    ("fc_mos.*", "score_head.*"),
    ("fc_cls.{layer}.*", "level_head.{layer}.*"),
)
"""The authors' template -> ours."""
NAME_MAP = NameMap(KEY_MAP)
WRAPPERS = ("state_dict", "model", "params")
EXPANSION = 4  # of a bottleneck
TRACELESS_FIELDS = ("score_low", "score_high", "lower_is_better", "level_rule", "level_width")


def select_state_dict(checkpoint: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict inside a checkpoint, and where it lay."""
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(f"`checkpoint` must hold a dictionary; got {type(checkpoint).__name__}.")
    place = next((key for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)
    state_dict = check_is_state_dict(checkpoint if place is None else checkpoint[place])
    return place or "the file itself", strip_prefix(state_dict, "module.")


def infer_config(official: Mapping[str, torch.Tensor], **overrides: Any) -> PmtIqaConfig:
    """The configuration that the shapes of the authors' tensors show.

    Args:
        official (`Mapping[str, torch.Tensor]`): State dict of the authors' model.
        overrides: Fields of [`PmtIqaConfig`]; above all those of the labels, which leave no trace in the tensors.

    Raises:
        ConversionError: If a tensor that tells the architecture is missing.
    """
    try:
        return PmtIqaConfig(**{**_infer_fields(official), **overrides})
    except KeyError as error:
        raise ConversionError(
            f"`checkpoint` must be the state dict of the authors' model; it has no {error.args[0]!r}."
        ) from error


def _infer_fields(official: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    numbers = {
        stage: [int(name.split(".")[2]) for name in official if name.startswith(f"res.layer{stage}.")]
        for stage in range(1, len(STAGES) + 1)
    }
    for stage, blocks in numbers.items():
        if not blocks:
            raise KeyError(f"res.layer{stage}.0.conv1.weight")
    is_bottleneck = "res.layer1.0.conv3.weight" in official
    last = "conv3" if is_bottleneck else "conv2"
    widths = [len(official[f"res.layer{stage}.0.{last}.weight"]) for stage in numbers]
    return {
        "backbone_config": {
            "model_type": "resnet",
            "layer_type": "bottleneck" if is_bottleneck else "basic",
            "embedding_size": len(official["res.conv1.weight"]),
            "hidden_sizes": widths,
            "depths": [1 + max(blocks) for blocks in numbers.values()],
            "out_features": list(STAGES),
        },
        "lda_channels": [len(official[f"res.lda{branch}_pool.0.weight"]) for branch in (1, 2, 3)],
        "lda_out_channels": len(official["res.lda1_fc.weight"]),
        "target_in_size": official["fcs.0.weight"].shape[-1],
        "hidden_size": len(official["fcs.0.weight"]),
        "shared_size": len(official["fcs.2.weight"]),
        "num_levels": len(official["fc_cls.2.weight"]),
    }


def build_official_shapes(config: PmtIqaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' state dict."""
    with torch.device("meta"):
        model = PmtIqaForImageQualityAssessment(config)
    return shapes_of(rename(model.state_dict(), NAME_MAP.revert))


def convert_state_dict(official: Mapping[str, torch.Tensor], config: PmtIqaConfig) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit (the storage is shared).

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    check_tensors(official, build_official_shapes(config), "the authors' model")
    return rename(official, NAME_MAP.convert)


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: PmtIqaConfig) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        expected = shapes_of(PmtIqaForImageQualityAssessment(config).state_dict())
    check_tensors(ours, expected, "PmtIqaForImageQualityAssessment")
    return rename(ours, NAME_MAP.revert)


def is_official(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether it has heads, and is not only a backbone."""
    return any(name.startswith(("res.", "fcs.", "fc_mos.", "fc_cls.")) for name in state_dict)


def convert_checkpoint(
    checkpoint: Path, output_dir: Path, variant: str | None = None, timm_backbone: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): State dict of the authors' model, or of a backbone.
        output_dir (`Path`): A new or empty folder; it appears complete or not at all.
        variant (`str`, *optional*): Of which the file is the backbone; not for the authors' model.
        timm_backbone (`str`, *optional*): The same for a network of timm, by its name.
        fields: Fields of [`PmtIqaConfig`] that the tensors do not show.

    Returns:
        `dict[str, Any]`: The parity report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    place, state_dict = select_state_dict(read_checkpoint(checkpoint))
    report: dict[str, Any] = {"source": {"file": Path(checkpoint).name, "sha256": sha256, "weights": place}}
    if is_official(state_dict):
        if variant or timm_backbone:
            raise ConversionError("`variant` and `timm_backbone` must be left out for the authors' model; got one.")
        config = infer_config(state_dict, **fields)
        converted = convert_state_dict(state_dict, config)
        model = PmtIqaForImageQualityAssessment(config)
        model.load_state_dict({name: tensor.contiguous() for name, tensor in converted.items()}, assign=True)
        report["names"] = {"in_the_file": len(state_dict), "matched": len(converted), "dropped": {}}
        report["round_trip"] = {"tensors": len(state_dict), "bit_equal": 0}
    else:
        config = _build_start_config(variant, timm_backbone, fields)
        torch.manual_seed(0)  # of the new branches and heads
        model = PmtIqaForImageQualityAssessment(config)
        unused = load_backbone_weights(model.pmt_iqa.backbone, state_dict)
        dropped = dict.fromkeys(unused, "no place in the backbone")
        matched = len(state_dict) - len(unused)
        report["names"] = {"in_the_file": len(state_dict), "matched": matched, "dropped": dropped}
    report["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    report["not_in_the_tensors"] = {field: getattr(config, field) for field in TRACELESS_FIELDS}

    def write(folder: Path):
        model.save_pretrained(folder)
        PmtIqaImageProcessor().save_pretrained(folder)
        if "round_trip" in report:
            write_parity_report(folder, report, state_dict, lambda saved: revert_state_dict(saved, config))
        else:
            write_json(folder / "parity_report.json", report)

    write_model_folder(output_dir, write)
    return report


def _build_start_config(variant: str | None, timm_backbone: str | None, fields: dict[str, Any]) -> PmtIqaConfig:
    if (variant is None) == (timm_backbone is None):
        raise ConversionError(
            "`variant` or `timm_backbone` must say what backbone the file holds, as it is not the authors' model; got "
            f"{'neither' if variant is None else 'both'}."
        )
    if variant is not None:
        return PmtIqaConfig.from_variant(variant, **fields)
    backbone = {"model_type": "timm_backbone", "backbone": timm_backbone, "out_indices": [1, 2, 3, 4]}
    return PmtIqaConfig(backbone_config=backbone, **fields)


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    source, names = report["source"], report["names"]
    lines = [
        f"source          {source['file']} (weights: {source['weights']})",
        f"sha256          {source['sha256']}",
        f"parameters      {report['num_parameters']:,}",
        f"names           {names['matched']} of {names['in_the_file']} matched, {len(names['dropped'])} dropped",
    ]
    lines += [f"dropped         {name}: {reason}" for name, reason in names["dropped"].items()]
    if "round_trip" in report:
        lines.append(
            f"way back        {report['round_trip']['bit_equal']} of {report['round_trip']['tensors']} bit-equal"
        )
    else:
        lines.append("new             branches and heads have random weights: train them")
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="state dict of the model, or of a backbone")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--variant", choices=list(VARIANTS), help="for a backbone: the variant that it belongs to")
    parser.add_argument("--timm_backbone", help="for a backbone of timm: its name, such as tf_efficientnet_lite0")
    parser.add_argument("--score_low", type=float, help="lowest label of the training data (default: 0)")
    parser.add_argument("--score_high", type=float, help="highest label of the training data (default: 100)")
    parser.add_argument(
        "--lower_is_better", action="store_const", const=True, help="for models trained on DMOS (LIVE, CSIQ)"
    )
    parser.add_argument("--level_rule", choices=["floor", "round"], help="how labels became levels")
    parser.add_argument("--level_width", type=float, help="labels of one level")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
