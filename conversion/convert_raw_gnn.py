"""Turns a RAW-GNN state dict of the authors' code into a decahub folder, with a report.

    python conversion/convert_raw_gnn.py --checkpoint model.pt --output_dir raw-gnn/

The authors published code, without a license, and no weights: the file is what a run of their code saved, a bare
state dict or one under `state_dict` or `model`. Sizes are read off the tensors; walks leave no trace in them and are
those of the authors' runs, unless the command line says otherwise.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification
from decahub.models.raw_gnn.configuration_raw_gnn import VARIANTS


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
    write_model_folder,
    write_parity_report,
)
from .name_map import NameMap


KEY_MAP = (
    ("layer{strategy+1}.a", "raw_gnn.aggregators.{strategy}.attention"),
    ("layer{strategy+1}.rnn.weight_ih_l0", "raw_gnn.projections.{strategy}.weight"),
    ("layer{strategy+1}.rnn.weight_hh_l0", "raw_gnn.aggregators.{strategy}.recurrent.weight_hh"),
    ("layer{strategy+1}.rnn.bias_ih_l0", "raw_gnn.projections.{strategy}.bias"),
    ("layer{strategy+1}.rnn.bias_hh_l0", "raw_gnn.aggregators.{strategy}.recurrent.bias_hh"),
    ("lin1.*", "classifier.*"),
)
"""The authors' template -> ours. Their `layer1` reads depth-first walks, `layer2` breadth-first ones."""

NAME_MAP = NameMap(KEY_MAP)
SIZING_TENSORS = ("layer1.a", "layer1.rnn.weight_ih_l0", "lin1.weight")
WRAPPERS = ("state_dict", "model")
TRACELESS_FIELDS = (
    "strategies", "walk_length", "long_walk_length", "long_walks_per_node", "walk_sampler", "eval_walks",
    "undirected", "add_self_loops",
)  # fmt: skip


def convert_state_dict(
    official: Mapping[str, torch.Tensor], config: RawGnnConfig | None = None
) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit (the storage is shared).

    Args:
        official (`Mapping[str, torch.Tensor]`): their state dict.
        config ([`RawGnnConfig`], *optional*): the architecture; by default read off the tensors.

    Returns:
        `dict[str, torch.Tensor]`: state dict of `RawGnnForNodeClassification`.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    config = infer_config(official) if config is None else config
    check_tensors(official, build_official_shapes(config), "the authors' RAW-GNN")
    return rename(official, NAME_MAP.convert)


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: RawGnnConfig | None = None) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names.

    Args:
        ours (`Mapping[str, torch.Tensor]`): state dict of `RawGnnForNodeClassification`.
        config ([`RawGnnConfig`], *optional*): its configuration; by default read off the tensors.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    if config is None:
        names = {NAME_MAP.convert(name): name for name in SIZING_TENSORS}
        config = infer_config({names.get(name, name): tensor for name, tensor in ours.items()})
    check_tensors(ours, build_shapes(config), RawGnnForNodeClassification.__name__)
    return rename(ours, NAME_MAP.revert)


def infer_config(official: Mapping[str, torch.Tensor], variant: str = "official", **overrides: Any) -> RawGnnConfig:
    """The configuration that the tensors show, with walks as in a variant.

    Args:
        official (`Mapping[str, torch.Tensor]`): the authors' state dict.
        variant (`str`): law of the walks and their use in evaluation: "official", as the authors' runs had them, or
            "paper".
        overrides: fields of [`RawGnnConfig`] that leave no trace in tensors.

    Raises:
        ConversionError: If tensors that show sizes are missing or are no matrices.
    """
    for name in SIZING_TENSORS:
        tensor = official.get(name)
        if tensor is None or tensor.ndim != 2 or tensor.numel() == 0:
            given = "none" if tensor is None else f"shape {list(tensor.shape)}"
            raise ConversionError(
                f"The state dict must hold a matrix {name!r}; got {given}. Is it a RAW-GNN of the authors' code?"
            )
    attention, weight, classifier = (official[name] for name in SIZING_TENSORS)
    sizes = {
        "hidden_size": attention.shape[0],
        "num_attention_heads": attention.shape[1],
        "num_features": weight.shape[1],
        "num_labels": classifier.shape[0],
    }
    return RawGnnConfig.from_variant(variant, **{**sizes, **overrides})


def select_state_dict(checkpoint: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The state dict inside a checkpoint, and where it lay.

    Raises:
        ConversionError: If there is none.
    """
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(f"`checkpoint` must hold a dictionary; got {type(checkpoint).__name__}.")
    place = next((key for key in WRAPPERS if checkpoint.get(key) is not None), None)
    state_dict = check_is_state_dict(checkpoint if place is None else checkpoint[place])
    return place or "the file itself", strip_prefix(state_dict, "module.")


def build_shapes(config: RawGnnConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without memory for the values."""
    with torch.device("meta"):
        return shapes_of(RawGnnForNodeClassification(config).state_dict())


def build_official_shapes(config: RawGnnConfig) -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    return {NAME_MAP.revert(name): shape for name, shape in build_shapes(config).items()}


def convert_checkpoint(
    checkpoint: Path, output_dir: Path, variant: str = "official", **overrides: Any
) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): the file.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        variant (`str`): see [`infer_config`].
        overrides: see there.

    Returns:
        `dict[str, Any]`: the report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    place, official = select_state_dict(read_checkpoint(checkpoint))
    config = infer_config(official, variant, **overrides)
    model = RawGnnForNodeClassification(config)
    converted = convert_state_dict(official, config)
    model.load_state_dict({name: tensor.contiguous() for name, tensor in converted.items()}, assign=True)
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256_of(checkpoint), "weights": place},
        "architecture": type(model).__name__,
        "not_in_the_tensors": {field: getattr(config, field) for field in TRACELESS_FIELDS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "round_trip": {"tensors": len(official), "bit_equal": 0},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        RawGnnFeatureExtractor(num_features=config.num_features).save_pretrained(folder)
        write_parity_report(folder, report, official, lambda saved: revert_state_dict(saved, config))

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The report for a person to read."""
    source, round_trip = report["source"], report["round_trip"]
    lines = [
        f"source          {source['file']} (weights: {source['weights']})",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, {report['num_parameters']:,} parameters",
        f"way back        {round_trip['bit_equal']} of {round_trip['tensors']} tensors bit-equal",
    ]
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def parse_strategy(text: str) -> dict[str, Any]:
    """A strategy from `name:p:q`."""
    try:
        name, p, q = text.split(":")
        return {"name": name, "p": float(p), "q": float(q)}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be name:p:q, such as dfs:10:0.1; got {text!r}") from None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the authors' file")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--variant", choices=list(VARIANTS), default="official", help="walks of the model")
    parser.add_argument(
        "--strategies", type=parse_strategy, nargs="+", metavar="NAME:P:Q", help="of layer1, layer2, ..."
    )
    parser.add_argument("--walk_length", type=int, help="nodes of a path")
    parser.add_argument("--long_walk_length", type=int, help="steps of a long walk")
    parser.add_argument("--long_walks_per_node", type=int, help="long walks from each node")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
