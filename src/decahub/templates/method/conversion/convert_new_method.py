"""Turns a NewMethod checkpoint of the authors into a decahub folder, with a parity report.

    python conversion/convert_new_method.py --checkpoint model.pth --output_dir new_method/

Say here where the authors publish their files, and under which license.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import NewMethodConfig, NewMethodForImageClassification, NewMethodImageProcessor
from decahub.models.new_method.configuration_new_method import VARIANTS


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    check_is_state_dict,
    check_tensors,
    read_checkpoint,
    rename,
    run_converter,
    sha256_of,
    shapes_of,
    strip_prefix,
    write_model_folder,
    write_parity_report,
)
from .name_map import NameMap


KEY_MAP = (
    ("patch_embed.*", "new_method.embeddings.patch_embeddings.*"),
    ("pos_embed", "new_method.embeddings.position_embeddings"),
    ("blocks.{layer}.norm1.*", "new_method.layers.{layer}.layernorm_before.*"),
    ("blocks.{layer}.qkv.*", "new_method.layers.{layer}.attention.qkv.*"),
    ("blocks.{layer}.proj.*", "new_method.layers.{layer}.attention.output.*"),
    ("blocks.{layer}.norm2.*", "new_method.layers.{layer}.layernorm_after.*"),
    ("blocks.{layer}.fc1.*", "new_method.layers.{layer}.fc1.*"),
    ("blocks.{layer}.fc2.*", "new_method.layers.{layer}.fc2.*"),
    ("norm.*", "new_method.layernorm.*"),
    ("head.*", "classifier.*"),
)
"""The authors' template -> ours."""

NAME_MAP = NameMap(KEY_MAP)


def convert_state_dict(official: Mapping[str, torch.Tensor], config: NewMethodConfig) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        shapes = shapes_of(NewMethodForImageClassification(config).state_dict())
    check_tensors(official, rename(shapes, NAME_MAP.revert), "the authors' NewMethod")
    return rename(official, NAME_MAP.convert)


def revert_state_dict(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names."""
    return rename(ours, NAME_MAP.revert)


def convert_checkpoint(checkpoint: Path, output_dir: Path, variant: str = "tiny") -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): the authors' file.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        variant (`str`): a key of `VARIANTS`.

    Returns:
        `dict[str, Any]`: the parity report, which is also in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    official = strip_prefix(check_is_state_dict(read_checkpoint(checkpoint)), "module.")
    num_labels = len(official["head.bias"]) if "head.bias" in official else 2
    config = NewMethodConfig.from_variant(variant, num_labels=num_labels)
    model = NewMethodForImageClassification(config)
    model.load_state_dict(convert_state_dict(official, config), assign=True)
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256_of(checkpoint)},
        "architecture": type(model).__name__,
        "variant": variant,
        "num_parameters": model.num_parameters(),
        "names": {"in_the_file": len(official), "matched": len(official), "dropped": {}},
        "round_trip": {"tensors": len(official), "bit_equal": 0},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        NewMethodImageProcessor(size={"height": config.image_size, "width": config.image_size}).save_pretrained(folder)
        write_parity_report(folder, report, official, revert_state_dict)

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    trip = report["round_trip"]
    return "\n".join(
        [
            f"architecture    {report['architecture']}, {report['num_parameters']:,} parameters",
            f"way back        {trip['bit_equal']} of {trip['tensors']} tensors bit-equal",
        ]
    )


def main(arguments: Sequence[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the authors' file")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--variant", choices=list(VARIANTS), default="tiny", help="published variant")
    run_converter(parser, convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "convert_state_dict", "revert_state_dict"]


if __name__ == "__main__":
    main()
