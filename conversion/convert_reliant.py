"""Turns a RELIANT checkpoint of the authors into a decahub folder, with a parity report.

    python conversion/convert_reliant.py --checkpoint student.pth --proxy proxy.pth --output_dir student/

The authors' code (github.com/yushundong/RELIANT) saves no student, so these are state dicts that a user saved: label
propagation (PLP), the SGC student, and GCN and GraphSAGE teachers. Their release states no license: keep converted
weights to yourself unless you know that you may pass them on.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from decahub import ReliantConfig, ReliantForNodeClassification


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
from .deterministic_fill import fill_state_dict
from .layouts_reliant import (
    DISCRIMINATOR_KEY_MAP,
    GCN,
    OWN_BUFFERS,
    PLP,
    SAGE,
    build_name_map,
    build_official_shapes,
    build_shapes,
    find_layout,
    find_official_layout,
    is_transposed,
)
from .name_map import NameMap


PROXY_DIM = 2  # of the authors' proxy
TEACHERS = {"gcn": "gcn-teacher", "sage": "sage-teacher"}
# What tensors do not show, for the report.
TRACELESS_FIELDS = ("num_propagation_steps", "feature_dropout_prob", "hidden_dropout_prob", "proxy_position")


def convert_state_dict(
    official: Mapping[str, torch.Tensor],
    config: ReliantConfig,
    proxy: torch.Tensor | None = None,
    known_labels: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The authors' tensors under our names, bit for bit.

    Args:
        official (`Mapping[str, torch.Tensor]`): state dict of a PLP or SGC student, or a GCN or GraphSAGE teacher.
        config ([`ReliantConfig`]): the architecture.
        proxy (`torch.FloatTensor` of shape `(num_nodes, proxy_dim)`, *optional*): the proxy, whose mean is kept;
            without it the model starts from the mean of a new proxy.
        known_labels (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): training labels of PLP, -100 elsewhere.

    Returns:
        `dict[str, torch.Tensor]`: state dict of `ReliantForNodeClassification`.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    dropped = find_dropped(official, config)
    official = {name: tensor for name, tensor in official.items() if name not in dropped}
    check_tensors(official, build_official_shapes(config), f"the authors' {config.architecture}")
    official = {
        name: tensor.t().contiguous() if tensor.ndim == 2 and is_transposed(config, name) else tensor
        for name, tensor in official.items()
    }
    converted = rename(official, build_name_map(config).convert)
    return converted | build_own_buffers(config, proxy, known_labels)


def build_own_buffers(
    config: ReliantConfig, proxy: torch.Tensor | None, known_labels: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Buffers of our model that lie outside the authors' state dicts."""
    buffers = {
        name: buffer.clone()
        for name, buffer in ReliantForNodeClassification(config).named_buffers()
        if name in OWN_BUFFERS
    }
    for name, value in (
        ("reliant.proxy_mean", None if proxy is None else proxy.mean(0)),
        ("classifier.known_labels", known_labels),
    ):
        if value is None:
            continue
        if name not in buffers or buffers[name].shape != value.shape:
            raise ConversionError(f"The architecture must have a place for `{name}` of shape {tuple(value.shape)}.")
        buffers[name] = value
    return buffers


def find_dropped(official: Mapping[str, torch.Tensor], config: ReliantConfig) -> dict[str, str]:
    """The authors' names that have no place in decahub, each with the reason."""
    return {name: reason for name, reason in find_layout(config).dropped.items() if name in official}


def revert_state_dict(ours: Mapping[str, torch.Tensor], config: ReliantConfig) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_state_dict`]: our tensors under the authors' names.

    Args:
        ours (`Mapping[str, torch.Tensor]`): state dict of `ReliantForNodeClassification`.
        config ([`ReliantConfig`]): its configuration.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    ours = {name: tensor for name, tensor in ours.items() if name not in OWN_BUFFERS}
    check_tensors(ours, build_shapes(config), "ReliantForNodeClassification")
    reverted = rename(ours, build_name_map(config).revert)
    return {
        name: tensor.t().contiguous() if tensor.ndim == 2 and is_transposed(config, name) else tensor
        for name, tensor in reverted.items()
    }


def convert_discriminators(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of `ReliantDiscriminators` from those of the authors' three, whose names begin with `Dl.`, ..."""
    return rename(official, NameMap(DISCRIMINATOR_KEY_MAP).convert)


def revert_discriminators(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_discriminators`]."""
    return rename(ours, NameMap(DISCRIMINATOR_KEY_MAP).revert)


def infer_config(official: Mapping[str, torch.Tensor], has_proxy: bool, **overrides: Any) -> ReliantConfig:
    """The configuration that the shapes of the authors' tensors show, with the authors' settings for the rest.

    Args:
        official (`Mapping[str, torch.Tensor]`): the state dict.
        has_proxy (`bool`): whether the student was trained with a proxy.
        overrides: fields of [`ReliantConfig`] that the tensors do not show, such as `num_propagation_steps` for PLP.

    Raises:
        ConversionError: If the network is none of the known ones.
    """
    layout = find_official_layout(official)
    fields: dict[str, Any] = {} if has_proxy else {"proxy_mode": "none", "fairness_weight": 0.0}
    if layout is PLP:
        matrices = _sorted_weights(official, "plp_layer.mlp.linear")
        fields["num_nodes"] = official["plp_layer.lr_alpha"].shape[0]
        fields["label_score_type"] = "features" if "plp_layer.attn_l" in official else "nodes"
        fields["proxy_position"] = "replace_last_two"
        variant = "cpf-plp"
    else:
        matrices = _sorted_weights(official, "layers.")
        variant = TEACHERS.get(layout.architecture, "akd-sgc")
        fields["use_bias"] = any(name.endswith("bias") for name in official)
    if layout is GCN:
        matrices = [matrix.t() for matrix in matrices]
    if layout in (GCN, SAGE) and has_proxy:
        raise ConversionError(f"`proxy` must be left out for a {layout.architecture} teacher.")
    appended = PROXY_DIM if has_proxy and layout is not PLP else 0
    fields["num_features"] = matrices[0].shape[1] - appended
    fields["num_hidden_layers"] = len(matrices) - 1
    fields["num_labels"] = matrices[-1].shape[0]
    if len(matrices) > 1:
        fields["hidden_size"] = matrices[0].shape[0]
    else:
        fields["embedding_layer"] = -1
    return ReliantConfig.from_variant(variant, **fields | overrides)


def _sorted_weights(official: Mapping[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    names = [name for name in official if name.startswith(prefix) and name.endswith("weight")]
    if not names:
        raise ConversionError(f"`checkpoint` must hold matrices whose names begin with {prefix!r}; it has none.")
    return [
        official[name]
        for name in sorted(names, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    ]


def check_name_map(config: ReliantConfig) -> int:
    """Sends deterministic tensors through both name maps and a model between them; returns how many came back.

    Raises:
        ConversionError: If one did not come back bit-equal; the converter itself is wrong then.
    """
    filled = fill_state_dict(build_official_shapes(config))
    model = ReliantForNodeClassification(config)
    model.load_state_dict(convert_state_dict(filled, config))
    changed = find_changed_tensors(filled, revert_state_dict(model.state_dict(), config))
    if changed:
        raise ConversionError(f"The name maps must be inverse to each other; they changed {changed}.")
    return len(filled)


def read_proxy(path: Path) -> torch.Tensor:
    """The authors' proxy, a tensor of shape `(num_nodes, 2)`.

    Raises:
        ConversionError: If the file holds something else.
    """
    proxy = read_checkpoint(path)
    if not isinstance(proxy, torch.Tensor) or proxy.ndim != 2 or proxy.shape[1] != PROXY_DIM:
        given = tuple(proxy.shape) if isinstance(proxy, torch.Tensor) else type(proxy).__name__
        raise ConversionError(f"`proxy` must be a tensor of shape (num_nodes, {PROXY_DIM}); got {given}.")
    return proxy.detach()


def convert_checkpoint(
    checkpoint: Path, output_dir: Path, proxy: Path | None = None, **overrides: Any
) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): a state dict of the authors' network.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        proxy (`Path`, *optional*): file of the proxy tensor.
        overrides: fields of [`ReliantConfig`] that the tensors do not show.

    Returns:
        `dict[str, Any]`: the parity report, which also lies in the folder.

    Raises:
        ConversionError: If a file is refused, or a tensor did not survive the way there and back.
    """
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    official = strip_prefix(check_is_state_dict(read_checkpoint(checkpoint)), "module.")
    values = None if proxy is None else read_proxy(proxy)
    config = infer_config(official, has_proxy=values is not None, **overrides)
    converted, dropped = convert_state_dict(official, config, values), find_dropped(official, config)
    model = ReliantForNodeClassification(config)
    model.load_state_dict({name: tensor.contiguous() for name, tensor in converted.items()}, assign=True)
    kept = {name: tensor for name, tensor in official.items() if name not in dropped}
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256},
        "architecture": config.architecture,
        "not_in_the_tensors": {field: getattr(config, field) for field in TRACELESS_FIELDS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(official), "matched": len(kept), "dropped": dropped},
        "round_trip": {"tensors": len(kept), "bit_equal": 0},
        "deterministic_fill": {"tensors": len(kept), "bit_equal": check_name_map(config)},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        write_parity_report(folder, report, kept, lambda saved: revert_state_dict(saved, config))

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    source, names = report["source"], report["names"]
    lines = [
        f"source          {source['file']}",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, {report['num_parameters']:,} parameters",
        f"names           {names['matched']} of {names['in_the_file']} matched, {len(names['dropped'])} dropped",
    ]
    lines += [f"dropped         {name}: {reason}" for name, reason in names["dropped"].items()]
    for key, title in (("round_trip", "way back"), ("deterministic_fill", "fill check")):
        lines.append(f"{title:<15} {report[key]['bit_equal']} of {report[key]['tensors']} tensors bit-equal")
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a state dict of the authors' network")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--proxy", type=Path, help="the proxy tensor that the student was trained with")
    parser.add_argument("--num_propagation_steps", type=int, help="of PLP: the authors' `num_layers` less 1")
    parser.add_argument("--proxy_position", choices=["append", "replace_last_two"], help="default: the authors'")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = [
    "convert_discriminators",
    "convert_state_dict",
    "infer_config",
    "revert_discriminators",
    "revert_state_dict",
]


if __name__ == "__main__":
    main()
