"""Turns an EMO checkpoint of the authors into a decahub folder, with a parity report.

    python conversion/convert_emo.py --checkpoint net.pth --output_dir emo-1m/

The authors publish at github.com/zhangzjn/EMO: `net.pth` (a flat state dict), training checkpoints (of which the
averaged weights `net_E` are preferred) and files of mmsegmentation and mmdetection. Their release states no license:
keep converted weights to yourself unless you know that you may pass them on.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import EmoConfig, EmoImageProcessor
from decahub.models.emo.configuration_emo import NUM_STAGES, VARIANTS


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
from .config_emo import (
    DECODE_HEAD_MARKS,
    TRACELESS_FIELDS,
    config_from_official,
    find_variant,
    infer_config,
)
from .deterministic_fill import fill_state_dict
from .layouts_emo import (
    BACKBONE_KEY_MAP,
    CLASSIFIER_KEY_MAP,
    SEGMENTATION,
    SEGMENTATION_KEY_MAP,
    Layout,
    build_name_map,
    build_official_shapes,
    build_shapes,
    find_dropped,
    find_official_layout,
    find_our_layout,
)


ADE20K_LABELS = 150
KEY_MAP = (*BACKBONE_KEY_MAP, *CLASSIFIER_KEY_MAP, *SEGMENTATION_KEY_MAP)
"""The authors' template -> ours; norms, whose names depend on their kind, are added by `build_name_map`."""


def convert_state_dict(official: Mapping[str, torch.Tensor], config: EmoConfig) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit (the storage is shared).

    Args:
        official (`Mapping[str, torch.Tensor]`): a classifier, a segmentor (`backbone.`, `decode_head.`, ...) or a
            detector (of which only the backbone is kept).
        config ([`EmoConfig`]): the architecture.

    Returns:
        `dict[str, torch.Tensor]`: state dict of `EmoForImageClassification`, `EmoForSemanticSegmentation` or
        `EmoBackbone`.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    layout = find_official_layout(official)
    name_map = build_name_map(config, layout)
    dropped = find_dropped(official)
    official = {name: tensor for name, tensor in official.items() if name not in dropped}
    check_tensors(official, build_official_shapes(config, layout), f"the authors' {layout.architecture.__name__}")
    return rename(official, name_map.convert)


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: EmoConfig) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names.

    Args:
        ours (`Mapping[str, torch.Tensor]`): state dict of one of the classes that [`convert_state_dict`] names.
        config ([`EmoConfig`]): its configuration.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    layout = find_our_layout(ours)
    check_tensors(ours, build_shapes(config, layout), layout.architecture.__name__)
    return rename(ours, build_name_map(config, layout).revert)


def select_state_dict(checkpoint: Any, weights: str | None = None) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict inside a checkpoint, and where it lay.

    Args:
        checkpoint (`Any`): what [`~decahub.conversion.checkpoint.read_checkpoint`] returned.
        weights (`str`, *optional*): `"net"` or `"net_E"` of a training checkpoint; by default the averaged `net_E`,
            where it is present.

    Raises:
        ConversionError: If what is asked for is not there.
    """
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(f"`checkpoint` must hold a dictionary; got {type(checkpoint).__name__}.")
    places = [key for key in ("net_E", "net", "state_dict") if checkpoint.get(key) is not None]
    if weights is not None:
        if weights not in places:
            raise ConversionError(
                f"`weights` must name weights that the checkpoint has, of {places or 'a flat file'}; got {weights!r}."
            )
        places = [weights]
    place = places[0] if places else "the file itself"
    state_dict = check_is_state_dict(checkpoint[place] if places else checkpoint)
    return place, strip_prefix(state_dict, "module.")


def build_image_processor(config: EmoConfig, layout: Layout) -> EmoImageProcessor:
    """The authors' evaluation transform."""
    if layout is SEGMENTATION:
        reduces_labels = config.num_labels == ADE20K_LABELS  # ADE20K counts from 1 and calls the rest 0
        return EmoImageProcessor(size={"shortest_edge": 512}, do_center_crop=False, do_reduce_labels=reduces_labels)
    return EmoImageProcessor()


def check_name_map(config: EmoConfig, layout: Layout) -> int:
    """Sends deterministic tensors through both name maps and a model between them.

    Returns:
        `int`: how many tensors came back bit-equal, which is all of them.

    Raises:
        ConversionError: If one did not; the converter itself is wrong then.
    """
    filled = fill_state_dict(build_official_shapes(config, layout))
    model = layout.architecture(config)
    model.load_state_dict(convert_state_dict(filled, config))
    changed = find_changed_tensors(filled, revert_state_dict(model.state_dict(), config))
    if changed:
        raise ConversionError(f"The name maps must be inverse to each other; they changed {changed}.")
    return len(filled)


def convert_checkpoint(
    checkpoint: Path, output_dir: Path, variant: str = "auto", weights: str | None = None, **overrides
) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): the authors' file.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        variant (`str`): see [`infer_config`].
        weights (`str`, *optional*): see [`select_state_dict`].
        overrides: fields of [`EmoConfig`] that the tensors do not show.

    Returns:
        `dict[str, Any]`: the parity report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    place, official = select_state_dict(read_checkpoint(checkpoint), weights)
    config = infer_config(official, variant, **overrides)
    layout, dropped = find_official_layout(official), find_dropped(official)
    converted = convert_state_dict(official, config)
    model = layout.architecture(config)
    model.load_state_dict({name: tensor.contiguous() for name, tensor in converted.items()}, assign=True)
    kept = {name: tensor for name, tensor in official.items() if name not in dropped}
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256, "weights": place},
        "architecture": layout.architecture.__name__,
        "variant": find_variant(config.to_dict()),
        "not_in_the_tensors": {field: getattr(config, field) for field in TRACELESS_FIELDS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(official), "matched": len(kept), "dropped": dropped},
        "round_trip": {"tensors": len(kept), "bit_equal": 0},
        "deterministic_fill": {"tensors": len(kept), "bit_equal": check_name_map(config, layout)},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        build_image_processor(config, layout).save_pretrained(folder)
        write_parity_report(folder, report, kept, lambda saved: revert_state_dict(saved, config))

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
    for key, title in (("round_trip", "way back"), ("deterministic_fill", "fill check")):
        lines.append(f"{title:<15} {report[key]['bit_equal']} of {report[key]['tensors']} tensors bit-equal")
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the authors' file")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument(
        "--variant", choices=["auto", *VARIANTS], default="auto", help="found by its widths by default"
    )
    parser.add_argument(
        "--weights", choices=["net", "net_E"], help="of a training checkpoint; default: net_E if it has them"
    )
    parser.add_argument("--decode_head", choices=list(DECODE_HEAD_MARKS), help="refuse a segmentor with another head")
    parser.add_argument(
        "--head_dims", type=int, nargs=NUM_STAGES, help="channels per attention head; needed for a variant of your own"
    )
    parser.add_argument(
        "--window_sizes", type=int, nargs=NUM_STAGES, help="attention windows; never changes the weights"
    )
    parser.add_argument("--hidden_acts", nargs=NUM_STAGES, help="activations, such as: silu silu gelu gelu")
    parser.add_argument(
        "--attention_after_expansion",
        dest="attention_before_expansion",
        action="store_const",
        const=False,
        help="for models trained with `attn_pre=False`",
    )
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "config_from_official", "convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
