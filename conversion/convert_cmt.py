"""Turns a CMT checkpoint of the authors into a decahub folder, with a parity report, or a folder back into their file.

    python conversion/convert_cmt.py --checkpoint cmt_voxel0075_vov.pth --output_dir cmt-vov99/
    python conversion/convert_cmt.py --to-official --checkpoint cmt-vov99/ --output_dir official/

The authors publish at github.com/junjie18/CMT under the Apache License 2.0. Their weights are trained on nuScenes,
whose terms of use allow non-commercial use only. Kernels of sparse convolutions are read in the order of spconv 2 and
of spconv 1.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import (
    CmtConfig,
    CmtForObjectDetection3D,
    CmtImageProcessor,
    CmtLidarConfig,
    CmtProcessor,
)
from decahub.models.cmt.configuration_cmt import VARIANTS


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    ConversionError,
    check_is_state_dict,
    check_tensors,
    find_changed_tensors,
    read_checkpoint,
    rename,
    run_converter,
    sha256_of,
    strip_prefix,
    write_model_folder,
    write_parity_report,
)
from .config_cmt import IMAGE_SIZES, TRACELESS_FIELDS, find_variant, infer_config
from .deterministic_fill import fill_state_dict
from .layouts_cmt import (
    HEAD_KEY_MAP,
    IMAGE_NECK_KEY_MAP,
    RESNET_KEY_MAP,
    build_key_map,
    build_lidar_key_map,
    build_official_shapes,
    build_shapes,
    build_vovnet_key_map,
    find_sparse_layout,
    from_spconv2,
    pack_projections,
    split_projections,
    to_spconv2,
)
from .name_map import NameMap


KEY_MAP = (
    *build_vovnet_key_map(use_depthwise=False),
    *RESNET_KEY_MAP,
    *IMAGE_NECK_KEY_MAP,
    *build_lidar_key_map(CmtLidarConfig()),
    *HEAD_KEY_MAP,
)
"""The authors' template -> ours, part by part; [`build_key_map`] joins those of one architecture."""
OFFICIAL_FILE = "cmt.pth"


def convert_tensors(official: Mapping[str, torch.Tensor], config: CmtConfig) -> dict[str, torch.Tensor]:
    """The authors' tensors, all or some of them, under our names and in our order of axes, bit for bit.

    Raises:
        ValueError: If a name is not one of this architecture.
    """
    tensors = to_spconv2(official, find_sparse_layout(official))
    return split_projections(rename(tensors, NameMap(build_key_map(config)).convert))


def revert_tensors(
    ours: Mapping[str, torch.Tensor], config: CmtConfig, sparse_layout: str = "spconv2"
) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_tensors`]."""
    official = rename(pack_projections(ours), NameMap(build_key_map(config)).revert)
    return from_spconv2(official, sparse_layout)


def convert_state_dict(official: Mapping[str, torch.Tensor], config: CmtConfig) -> dict[str, torch.Tensor]:
    """A whole checkpoint of the authors as a state dict of [`CmtForObjectDetection3D`].

    Args:
        official (`Mapping[str, torch.Tensor]`): their tensors.
        config ([`CmtConfig`]): the architecture.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    check_tensors(official, build_official_shapes(config, find_sparse_layout(official)), "the authors' CMT")
    return convert_tensors(official, config)


def revert_state_dict(
    ours: Mapping[str, torch.Tensor], config: CmtConfig, sparse_layout: str = "spconv2"
) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`].

    Args:
        ours (`Mapping[str, torch.Tensor]`): state dict of [`CmtForObjectDetection3D`].
        config ([`CmtConfig`]): its configuration.
        sparse_layout (`str`): order of axes of sparse kernels, `"spconv2"` or `"spconv1"`.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    check_tensors(ours, build_shapes(config), "CmtForObjectDetection3D")
    return revert_tensors(ours, config, sparse_layout)


def select_state_dict(checkpoint: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict inside a checkpoint, and where it lay.

    Raises:
        ConversionError: If there is none.
    """
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(f"`checkpoint` must hold a dictionary; got {type(checkpoint).__name__}.")
    place = "state_dict" if isinstance(checkpoint.get("state_dict"), Mapping) else "the file itself"
    state_dict = check_is_state_dict(checkpoint["state_dict"] if place == "state_dict" else checkpoint)
    return place, strip_prefix(state_dict, "module.")


def build_processor(config: CmtConfig, image_size: Sequence[int]) -> CmtProcessor:
    """The authors' evaluation transform.

    Args:
        config ([`CmtConfig`]): the architecture.
        image_size (`Sequence[int]`): height and width of images.
    """
    height, width = image_size
    return CmtProcessor.from_config(
        config,
        CmtImageProcessor(size={"height": height, "width": width}),
    )


def check_name_map(config: CmtConfig, sparse_layout: str) -> int:
    """Sends deterministic tensors through both name maps and a model between them.

    Returns:
        `int`: how many tensors came back bit-equal, which is all of them.

    Raises:
        ConversionError: If one did not; the converter itself is wrong then.
    """
    filled = fill_state_dict(build_official_shapes(config, sparse_layout))
    with torch.device("meta"):
        model = CmtForObjectDetection3D(config)
    model.load_state_dict(convert_state_dict(filled, config), assign=True)
    changed = find_changed_tensors(filled, revert_state_dict(model.state_dict(), config, sparse_layout))
    if changed:
        raise ConversionError(f"The name maps must be inverse to each other; they changed {changed}.")
    return len(filled)


def convert_checkpoint(
    checkpoint: Path,
    output_dir: Path,
    variant: str = "auto",
    image_size: Sequence[int] | None = None,
    to_official: bool = False,
    sparse_layout: str = "spconv2",
    **overrides: Any,
) -> dict[str, Any]:
    """Converts a file into a model folder, or a folder into a file.

    Args:
        checkpoint (`Path`): the authors' file, or with `to_official` a folder of ours.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        variant (`str`): see [`infer_config`].
        image_size (`Sequence[int]`, *optional*): height and width of images; that of the published model by default.
        to_official (`bool`): whether to go the way back; `cmt.pth` holds the authors' `state_dict` then.
        sparse_layout (`str`): for `to_official`, order of axes of sparse kernels.
        overrides: see [`infer_config`].

    Returns:
        `dict[str, Any]`: the parity report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    if to_official:
        return write_official(checkpoint, output_dir, sparse_layout)
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    place, official = select_state_dict(read_checkpoint(checkpoint))
    config = infer_config(official, variant, **overrides)
    name, layout = find_variant(official), find_sparse_layout(official)
    if image_size is None and config.has_camera and name is None:
        raise ConversionError("`--image_size` must be given: it leaves no trace in tensors of models not published.")
    converted = {key: tensor.contiguous() for key, tensor in convert_state_dict(official, config).items()}
    with torch.device("meta"):
        model = CmtForObjectDetection3D(config)
    model.load_state_dict(converted, assign=True)
    processor = build_processor(config, image_size or IMAGE_SIZES[name or "lidar"])
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256, "weights": place, "sparse_layout": layout},
        "architecture": "CmtForObjectDetection3D",
        "variant": name,
        "not_in_the_tensors": _list_traceless(config, processor),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(official), "matched": len(official)},
        "round_trip": {"tensors": len(official), "bit_equal": 0},
        "deterministic_fill": {"tensors": len(official), "bit_equal": check_name_map(config, layout)},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_parity_report(folder, report, official, lambda saved: revert_state_dict(saved, config, layout))

    write_model_folder(output_dir, write)
    return report


def write_official(folder: Path, output_dir: Path, sparse_layout: str) -> dict[str, Any]:
    """Writes the weights of a folder of ours as the authors' code loads them.

    Raises:
        ConversionError: If a tensor does not survive the way there and back.
    """
    model = CmtForObjectDetection3D.from_pretrained(folder)
    ours = model.state_dict()
    official = {
        key: tensor.contiguous() for key, tensor in revert_state_dict(ours, model.config, sparse_layout).items()
    }
    changed = find_changed_tensors(ours, convert_state_dict(official, model.config))
    if changed:
        raise ConversionError(f"Every tensor must survive the way there and back; {changed} did not.")
    write_model_folder(
        output_dir, lambda target: torch.save({"meta": {}, "state_dict": official}, target / OFFICIAL_FILE)
    )
    return {
        "source": {"file": str(folder), "sha256": None, "weights": "model", "sparse_layout": sparse_layout},
        "architecture": "CmtForObjectDetection3D",
        "variant": find_variant(official),
        "not_in_the_tensors": {},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(ours), "matched": len(ours)},
        "round_trip": {"tensors": len(ours), "bit_equal": len(ours)},
    }


def _list_traceless(config: CmtConfig, processor: CmtProcessor) -> dict[str, Any]:
    fields = {}
    for field in TRACELESS_FIELDS:
        for part in (config, config.lidar_backbone_config):
            if hasattr(part, field):
                fields[field] = getattr(part, field)
    if config.has_camera:
        fields["image_size"] = [processor.image_processor.size[side] for side in ("height", "width")]
    return fields


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    source, names = report["source"], report["names"]
    variant = report["variant"] or "of its own"
    lines = [
        f"source          {source['file']} (weights: {source['weights']}, sparse kernels: {source['sparse_layout']})",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, variant {variant}, {report['num_parameters']:,} parameters",
        f"names           {names['matched']} of {names['in_the_file']} matched",
    ]
    for key, title in (("round_trip", "way back"), ("deterministic_fill", "fill check")):
        if key in report:
            lines.append(f"{title:<15} {report[key]['bit_equal']} of {report[key]['tensors']} tensors bit-equal")
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the authors' file; with --to-official a model folder"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the result")
    parser.add_argument("--variant", choices=["auto", *VARIANTS], default="auto", help="found by shapes by default")
    parser.add_argument("--to-official", "--to_official", action="store_true", help="write the authors' file instead")
    parser.add_argument(
        "--sparse_layout",
        choices=["spconv2", "spconv1"],
        default="spconv2",
        help="for --to-official",
    )
    own = parser.add_argument_group("for a model that is not published")
    own.add_argument("--image_size", type=int, nargs=2, help="height and width of images")
    own.add_argument("--voxel_size", type=float, nargs=3, help="x, y, z in meters")
    own.add_argument("--sparse_shape", type=int, nargs=3, help="number of voxels: z, y, x")
    own.add_argument("--point_cloud_range", type=float, nargs=6, help="x, y, z of both corners; default: published")
    own.add_argument("--num_attention_heads", type=int, help="attention heads of the decoder")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "convert_state_dict", "convert_tensors", "infer_config", "revert_state_dict", "revert_tensors"]


if __name__ == "__main__":
    main()
