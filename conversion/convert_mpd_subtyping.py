"""Stacks autoencoders that were trained elsewhere into an MPD subtyping model, with a report.

    python conversion/convert_mpd_subtyping.py --checkpoint members.safetensors --features table.csv --output_dir mpd/

The authors published neither code nor weights. The file holds one autoencoder for each run and size, with names
`run{r}.d{d}.encoder.0.weight [h, p]`, `.encoder.2.weight [d, h]`, `.decoder.0.weight [h, d]`,
`.decoder.2.weight [p, h]` and their biases, as `torch.nn.Linear` has them, and may hold `run{r}.d{d}.base_labels [n]`.
The features of the n patients (deviations from controls, in CSV) give the clusters; base labels are compared with
those that are found anew.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decahub import MpdSubtypingConfig, MpdSubtypingModel
from decahub.models.mpd_subtyping.fitting_mpd_subtyping import embed_members


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    ConversionError,
    check_is_state_dict,
    check_tensors,
    read_checkpoint,
    run_converter,
    sha256_of,
    write_model_folder,
    write_parity_report,
)


MEMBER = re.compile(r"run(\d+)\.d(\d+)\.(.+)")
LABELS = "base_labels"
KEY_MAP = (
    ("encoder.0", "encoder_in"),
    ("encoder.2", "encoder_out"),
    ("decoder.0", "decoder_in"),
    ("decoder.2", "decoder_out"),
)
"""Layer of a member -> layer of the bank."""
KINDS = ("weight", "bias")


def infer_config(official: Mapping[str, torch.Tensor], **overrides: Any) -> MpdSubtypingConfig:
    """Configuration of the members in a file; what leaves no trace in tensors is that of the paper's variant.

    Raises:
        ConversionError: If a name is none of a member, or runs do not have the same sizes.
    """
    found = {}
    for name in official:
        match = MEMBER.fullmatch(name)
        if match is None:
            raise ConversionError(f"`{name}` must be run<r>.d<d>.<tensor>, such as run0.d2.encoder.0.weight.")
        found.setdefault(int(match[1]), set()).add(int(match[2]))
    runs = sorted(found)
    sizes = sorted(found[runs[0]]) if runs else []
    if not runs or runs != list(range(len(runs))) or any(sorted(found[run]) != sizes for run in runs):
        raise ConversionError(
            f"The file must hold runs 0, 1, ... with the same sizes each; got "
            f"{({run: sorted(found[run]) for run in runs}) or 'none'}."
        )
    first = f"run0.d{sizes[0]}.encoder.0.weight"
    if first not in official or official[first].ndim != 2:
        raise ConversionError(f"`{first}` must be a matrix (hidden size, features); the file has none.")
    hidden, features = official[first].shape
    return MpdSubtypingConfig(
        **{
            "num_features": features,
            "hidden_sizes": [hidden],
            "latent_dims": sizes,
            "num_runs": len(runs),
            **overrides,
        }
    )


def build_official_shapes(config: MpdSubtypingConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a file must have."""
    features, (hidden,) = config.num_features, config.hidden_sizes
    shapes = {}
    for run, size in config.members:
        widths = {"encoder.0": (hidden, features), "encoder.2": (size, hidden),
                  "decoder.0": (hidden, size), "decoder.2": (features, hidden)}  # fmt: skip
        for layer, (rows, columns) in widths.items():
            shapes[f"run{run}.d{size}.{layer}.weight"] = (rows, columns)
            shapes[f"run{run}.d{size}.{layer}.bias"] = (rows,)
    return shapes


def convert_state_dict(
    official: Mapping[str, torch.Tensor], config: MpdSubtypingConfig | None = None
) -> dict[str, torch.Tensor]:
    """Parameters of the bank, members stacked in the order run by run; smaller embeddings are padded with zeros.

    Args:
        official (`Mapping`): Members by name, without base labels.
        config ([`MpdSubtypingConfig`], *optional*): By default read off the tensors.

    Raises:
        ConversionError: If a tensor is missing, left over, or of another shape.
    """
    config = infer_config(official) if config is None else config
    check_tensors(official, build_official_shapes(config), "an ensemble of autoencoders")
    largest, converted = config.latent_dims[-1], {}
    for theirs, ours in KEY_MAP:
        for kind in KINDS:
            members = []
            for run, size in config.members:
                tensor = official[f"run{run}.d{size}.{theirs}.{kind}"]
                missing = largest - size
                if ours == "encoder_out":
                    padding = (0, 0, 0, missing) if kind == "weight" else (0, missing)
                    tensor = torch.nn.functional.pad(tensor, padding)
                elif ours == "decoder_in" and kind == "weight":
                    tensor = torch.nn.functional.pad(tensor, (0, missing))
                members.append(tensor)
            converted[f"autoencoders.{ours}.{kind}"] = torch.stack(members)
    return converted


def revert_state_dict(converted: Mapping[str, torch.Tensor], config: MpdSubtypingConfig) -> dict[str, torch.Tensor]:
    """Members by name from the parameters of the bank: the way back."""
    official = {}
    shapes = build_official_shapes(config)
    for member, (run, size) in enumerate(config.members):
        for theirs, ours in KEY_MAP:
            for kind in KINDS:
                name = f"run{run}.d{size}.{theirs}.{kind}"
                tensor = converted[f"autoencoders.{ours}.{kind}"][member]
                official[name] = tensor[tuple(slice(0, length) for length in shapes[name])]
    return official


def measure_parity(
    official: Mapping[str, torch.Tensor], model: MpdSubtypingModel, features: torch.Tensor
) -> dict[str, float]:
    """Largest difference of embeddings and reconstructions from those of single members, layer by layer."""
    activation = model.autoencoders.activation
    with torch.no_grad():
        output = model(features, output_reconstructions=True)
    worst = {"embeddings": 0.0, "reconstructions": 0.0}
    for member, (run, size) in enumerate(model.config.members):
        layers = {key: (official[f"run{run}.d{size}.{key}.weight"], official[f"run{run}.d{size}.{key}.bias"])
                  for key, _ in KEY_MAP}  # fmt: skip
        hidden = activation(torch.nn.functional.linear(features, *layers["encoder.0"]))
        latent = torch.nn.functional.linear(hidden, *layers["encoder.2"])
        hidden = activation(torch.nn.functional.linear(latent, *layers["decoder.0"]))
        back = torch.nn.functional.linear(hidden, *layers["decoder.2"])
        for name, ours, theirs in (
            ("embeddings", output.embeddings[member, :, :size], latent),
            ("reconstructions", output.reconstructions[member], back),
        ):
            worst[name] = max(worst[name], float((ours - theirs).abs().max()))
    return worst


def compare_labels(
    model: MpdSubtypingModel, features: torch.Tensor, labels: Mapping[str, torch.Tensor]
) -> float | None:
    """Mean adjusted Rand index between given base labels and those that clustering anew finds; `None` without any."""
    if not labels:
        return None
    from sklearn.metrics import adjusted_rand_score

    from decahub.models.mpd_subtyping.fitting_mpd_subtyping import cluster_members

    own = cluster_members(model.config, embed_members(model, features)[0])
    scores = [
        adjusted_rand_score(labels[f"run{run}.d{size}.{LABELS}"].numpy(), found)
        for (run, size), found in zip(model.config.members, own, strict=True)
        if f"run{run}.d{size}.{LABELS}" in labels
    ]
    return float(np.mean(scores))


def read_features(path: Path, num_features: int) -> torch.Tensor:
    """Features of patients from a CSV file with a header, one column for each feature in the order of the members."""
    import pandas

    table = pandas.read_csv(path)
    values = table.to_numpy(dtype=np.float64)
    if values.shape[1] != num_features:
        raise ConversionError(
            f"`features` must have {num_features} columns, as the members have; got {values.shape[1]}."
        )
    return torch.from_numpy(values).float()


def convert_checkpoint(checkpoint: Path, output_dir: Path, features: Path, **overrides: Any) -> dict[str, Any]:
    """Converts a file into a model folder.

    Args:
        checkpoint (`Path`): Members, a safetensors file or a state dict.
        output_dir (`Path`): A new or empty folder; it appears complete or not at all.
        features (`Path`): Deviations of the patients from controls, in CSV.
        overrides: Fields of [`MpdSubtypingConfig`], such as `base_num_clusters`.

    Returns:
        `dict[str, Any]`: The report, which also lies in the folder.

    Raises:
        ConversionError: If a file is refused.
    """
    tensors = check_is_state_dict(read_checkpoint(checkpoint))
    labels = {name: tensor for name, tensor in tensors.items() if name.endswith(f".{LABELS}")}
    official = {name: tensor.float() for name, tensor in tensors.items() if name not in labels}
    config = infer_config(official, **overrides)
    model = MpdSubtypingModel(config).eval()
    converted = convert_state_dict(official, config)
    model.load_state_dict({**model.state_dict(), **converted})
    patients = read_features(features, config.num_features)
    parity = measure_parity(official, model, patients)
    fit = model.fit_clusters(patients)
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256_of(checkpoint)},
        "architecture": type(model).__name__,
        "num_members": config.num_members,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "largest_difference": parity,
        "ari_of_base_labels": compare_labels(model, patients, labels),
        "subtype_sizes": fit.subtype_sizes,
        "round_trip": {"tensors": len(official), "bit_equal": 0},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        write_parity_report(folder, report, official, lambda saved: revert_state_dict(saved, config))

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The report for a person to read."""
    agreement = report["ari_of_base_labels"]
    lines = [
        f"source        {report['source']['file']}",
        f"sha256        {report['source']['sha256']}",
        f"members       {report['num_members']}, {report['num_parameters']:,} parameters",
        f"way back      {report['round_trip']['bit_equal']} of {report['round_trip']['tensors']} tensors bit-equal",
        f"differences   {', '.join(f'{name} {value:.2g}' for name, value in report['largest_difference'].items())}",
        f"base labels   {'none given' if agreement is None else f'adjusted Rand index {agreement:.3f}'}",
        f"subtypes      {report['subtype_sizes']}",
    ]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="autoencoders, one for each run and size")
    parser.add_argument(
        "--features", type=Path, required=True, help="deviations of the patients from controls, in CSV"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--activation", help="of hidden layers (default: relu)")
    parser.add_argument("--base_num_clusters", type=int, help="clusters of each embedding (default: 5)")
    parser.add_argument("--num_fine_clusters", type=int, help="clusters of the co-association (default: 5)")
    parser.add_argument("--num_subtypes", type=int, help="subtypes (default: 2)")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["KEY_MAP", "convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
