"""Turns a TinyMIM or MAE checkpoint of the authors into a decahub folder, with a parity report.

    python conversion/convert_tinymim.py --checkpoint checkpoint-299.pth --output_dir tinymim-base/

The authors publish pre-training and fine-tuned files at github.com/OliverRensu/TinyMIM, and segmentation models of
mmsegmentation; teachers are the files of github.com/facebookresearch/mae. Training files store their command line, an
`argparse.Namespace`; nothing else but tensors and plain containers is ever built from a file. The TinyMIM release
states no license, and MAE's is non-commercial: do not pass converted weights on under another.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import TinyMimConfig, TinyMimImageProcessor
from decahub.models.tinymim.configuration_tinymim import VARIANTS
from decahub.models.tinymim.position_embeddings import resize_position_embeddings


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
from .config_tinymim import TRACELESS_FIELDS, find_variants, infer_config, infer_grid
from .deterministic_fill import fill_state_dict
from .layouts_tinymim import (
    BACKBONE,
    LAYOUTS,
    SEGMENTATION,
    Layout,
    build_indices,
    build_name_map,
    build_official_shapes,
    build_shapes,
    find_dropped,
    find_official_layouts,
    find_our_layout,
)


CONTAINERS = ("state_dict", "model", "module")
PREFIXES = ("module.", "encoder.")
POSITIONS = "pos_embed"
ADE20K_LABELS = 150
SEGMENTATION_SIZE = 512


def convert_state_dict(
    official: Mapping[str, torch.Tensor], config: TinyMimConfig, task: str | None = None
) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit (the storage is shared).

    Args:
        official (`Mapping[str, torch.Tensor]`): a pre-training file, a masked autoencoder (whose decoder is dropped),
            a classifier, a segmentor or its backbone (`backbone.`).
        config ([`TinyMimConfig`]): the architecture.
        task (`str`, *optional*): for pre-training files, `"image-feature-extraction"` gives the bare model.

    Returns:
        `dict[str, torch.Tensor]`: state dict of `TinyMimForPreTraining`, `TinyMimModel`,
        `TinyMimForImageClassification`, `TinyMimForSemanticSegmentation` or `TinyMimBackbone`.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
        ValueError: If `task` is unknown or not that of the checkpoint.
    """
    layout = find_layout(official, task)
    dropped = find_dropped(official)
    official = {name: tensor for name, tensor in official.items() if name not in dropped}
    check_tensors(official, build_official_shapes(config, layout), f"the authors' {layout.architecture.__name__}")
    indices = build_indices(config, layout)
    wrong = [name for name, index in indices.items() if not torch.equal(official[name], index)]
    if wrong:
        raise ConversionError(
            f"relative positions must be numbered as in the authors' code for {config.grid_size} patches; "
            f"{wrong[0]} is not. Is `image_size` that of the checkpoint?"
        )
    official = {name: tensor for name, tensor in official.items() if name not in indices}
    return rename(official, build_name_map(layout).convert)


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: TinyMimConfig) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names; index buffers are computed anew.

    Args:
        ours (`Mapping[str, torch.Tensor]`): state dict of one of the classes that [`convert_state_dict`] names.
        config ([`TinyMimConfig`]): its configuration.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    layout = find_our_layout(ours)
    check_tensors(ours, build_shapes(config, layout), layout.architecture.__name__)
    return rename(ours, build_name_map(layout).revert) | build_indices(config, layout)


def find_layout(official: Mapping[str, torch.Tensor], task: str | None = None) -> Layout:
    """What a checkpoint becomes.

    Raises:
        ValueError: If `task` is not one that the checkpoint can be used for.
    """
    layouts = find_official_layouts(official)
    if task is None:
        return layouts[0]
    for layout in layouts:
        if layout.task == task:
            return layout
    raise ValueError(f"`task` must be one of {[layout.task for layout in layouts]} for this checkpoint; got {task!r}.")


def select_state_dict(checkpoint: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict inside a checkpoint, and where it lay.

    Args:
        checkpoint (`Any`): what [`~decahub.conversion.checkpoint.read_checkpoint`] returned.

    Raises:
        ConversionError: If there is none.
    """
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(f"`checkpoint` must hold a dictionary; got {type(checkpoint).__name__}.")
    places = [key for key in CONTAINERS if isinstance(checkpoint.get(key), Mapping)]
    place = places[0] if places else "the file itself"
    state_dict = check_is_state_dict(checkpoint[place] if places else checkpoint)
    for prefix in PREFIXES:
        state_dict = strip_prefix(state_dict, prefix)
    return place, state_dict


def resize_positions(
    official: Mapping[str, torch.Tensor], config: TinyMimConfig, layout: Layout
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The authors' tensors with a position table for `config.image_size`, and what was done to which of them.

    Raises:
        ConversionError: If the table cannot be resized.
    """
    name = layout.official_prefix + POSITIONS
    old_grid = infer_grid(tuple(official[name].shape), config.num_prefix_tokens)
    num_rows = config.num_prefix_tokens + config.grid_size[0] * config.grid_size[1]
    if old_grid == config.grid_size or (old_grid is None and official[name].shape[1] == num_rows):
        return dict(official), {}
    if old_grid is None:
        raise ConversionError(f"`{POSITIONS}` must belong to a square grid to be resized; got {old_grid}.")
    if config.use_relative_position_bias:
        raise ConversionError(
            f"`image_size` must be {old_grid[0] * config.patch_size}, that of the checkpoint, because its relative "
            f"positions cannot be resized; got {config.image_size}."
        )
    table = official[name]
    resized = resize_position_embeddings(table.float(), old_grid, config.grid_size, config.num_prefix_tokens)
    grids = " to ".join(f"{rows} x {columns}" for rows, columns in (old_grid, config.grid_size))
    note = f"resized from {grids} patches (bicubic); the way back does not give the file's table"
    return {**official, name: resized.to(table.dtype)}, {name: note}


def build_image_processor(config: TinyMimConfig, layout: Layout) -> TinyMimImageProcessor:
    """The authors' evaluation transform, at the size of the model."""
    if layout is SEGMENTATION or layout is BACKBONE:
        return TinyMimImageProcessor(
            size={"shortest_edge": SEGMENTATION_SIZE},
            crop_size=_to_size(config),
            do_center_crop=config.use_relative_position_bias,  # which ties the model to one size
            do_reduce_labels=config.num_labels == ADE20K_LABELS,  # ADE20K counts from 1 and calls the rest 0
        )
    size = _to_size(config)
    # The authors crop seven eighths of the image: 224 of 256 pixels.
    return TinyMimImageProcessor(size={"shortest_edge": round(min(size.values()) * 256 / 224)}, crop_size=size)


def _to_size(config: TinyMimConfig) -> dict[str, int]:
    rows, columns = config.grid_size
    return {"height": rows * config.patch_size, "width": columns * config.patch_size}


def check_name_map(config: TinyMimConfig, layout: Layout) -> int:
    """Sends deterministic tensors through both name maps and a model between them.

    Returns:
        `int`: how many tensors came back bit-equal, which is all of them.

    Raises:
        ConversionError: If one did not; the converter itself is wrong then.
    """
    filled = fill_state_dict(build_official_shapes(config, layout)) | build_indices(config, layout)
    model = layout.architecture(config)
    model.load_state_dict(convert_state_dict(filled, config, layout.task))
    changed = find_changed_tensors(filled, revert_state_dict(model.state_dict(), config))
    if changed:
        raise ConversionError(f"The name maps must be inverse to each other; they changed {changed}.")
    return len(filled)


def convert_checkpoint(
    checkpoint: Path, output_dir: Path, variant: str = "auto", task: str | None = None, **overrides: Any
) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): the authors' file.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        variant (`str`): see [`~conversion.config_tinymim.infer_config`].
        task (`str`, *optional*): see [`convert_state_dict`].
        overrides: fields of [`TinyMimConfig`] that the tensors do not show, such as `num_attention_heads`. Another
            `image_size` than that of the file resizes its table of positions.

    Returns:
        `dict[str, Any]`: the parity report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
        ValueError: If `variant` or `task` is not one of the checkpoint.
    """
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    place, official = select_state_dict(read_checkpoint(checkpoint))
    layout, dropped = find_layout(official, task), find_dropped(official)
    config = infer_config(official, layout, variant, **overrides)
    fitting, resized = resize_positions(official, config, layout)
    model = layout.architecture(config)
    converted = convert_state_dict(fitting, config, layout.task)
    # Copies: tensors of a file may share memory, which safetensors would not write.
    model.load_state_dict({name: tensor.clone() for name, tensor in converted.items()}, assign=True)
    kept = {name: tensor for name, tensor in official.items() if name not in {*dropped, *resized}}
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256, "weights": place},
        "architecture": layout.architecture.__name__,
        "variant": variant if variant != "auto" else next(iter(find_variants(config.to_dict())), None),
        "not_in_the_tensors": {field: getattr(config, field) for field in TRACELESS_FIELDS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(official), "matched": len(official) - len(dropped), "dropped": dropped},
        "resized": resized,
        "round_trip": {"tensors": len(kept), "bit_equal": 0},
        "deterministic_fill": {
            "tensors": len(build_official_shapes(config, layout)),
            "bit_equal": check_name_map(config, layout),
        },
    }

    def revert(saved: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        reverted = revert_state_dict(saved, config)
        return {name: tensor for name, tensor in reverted.items() if name not in resized}

    def write(folder: Path):
        model.save_pretrained(folder)
        build_image_processor(config, layout).save_pretrained(folder)
        write_parity_report(folder, report, kept, revert)

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    source, names = report["source"], report["names"]
    variant = report["variant"] or "of its own"
    lines = [
        f"source          {source['file']} (weights: {source['weights']})",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, variant {variant}, {report['num_parameters']:,} parameters",
        f"names           {names['matched']} of {names['in_the_file']} matched, {len(names['dropped'])} dropped",
    ]
    lines += [f"dropped         {name}: {reason}" for name, reason in names["dropped"].items()]
    lines += [f"changed         {name}: {note}" for name, note in report["resized"].items()]
    for key, title in (("round_trip", "way back"), ("deterministic_fill", "fill check")):
        lines.append(f"{title:<15} {report[key]['bit_equal']} of {report[key]['tensors']} tensors bit-equal")
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def parse_size(text: str) -> int | list[int]:
    """`224`, or height and width as `224x320`."""
    sizes = [int(part) for part in text.split("x")]
    return sizes[0] if len(sizes) == 1 else sizes


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the authors' file")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--variant", choices=["auto", *VARIANTS], default="auto", help="found by its width by default")
    parser.add_argument(
        "--task", choices=list(LAYOUTS), help="for pre-training files: pretraining (default) or the bare model"
    )
    parser.add_argument(
        "--num_attention_heads",
        type=int,
        help="never changes the weights; default: the variant's (the authors pre-train tiny with 6, fine-tune with 3)",
    )
    parser.add_argument(
        "--teacher_num_attention_heads", type=int, help="heads that the last block was pre-trained with"
    )
    parser.add_argument("--feature_layer", type=int, help="block of `pooler_output`; default: -2 for students")
    parser.add_argument(
        "--image_size",
        type=parse_size,
        help="side of the images, or height and width as 224x320; another than the file's resizes its positions",
    )
    parser.add_argument("--pool_scales", type=int, nargs="+", help="of a UPerNet head with others than 1 2 3 6")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
