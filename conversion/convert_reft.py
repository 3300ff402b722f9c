"""Turns a Mask2Former checkpoint into a RefT folder, with a parity report.

    python conversion/convert_reft.py --checkpoint model_final.pkl --output_dir reft-r50/

RefT has no published weights. Mask2Former's are at github.com/facebookresearch/Mask2Former (MIT license): `.pkl` and
`.pth` files of detectron2. A folder that transformers saved, with `config.json`, is read too. The references begin at
zero, so that the outputs stay those of Mask2Former until they are trained.

Weights that were trained on all of COCO have seen the novel classes of the few-shot protocol: `--keep_classes base60`
removes their rows from the class head, but not what the rest has learned from them.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from decahub import RefTConfig, RefTForFewShotInstanceSegmentation, RefTImageProcessor, RefTProcessor


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    ConversionError,
    check_is_state_dict,
    check_tensors,
    find_changed_tensors,
    read_checkpoint,
    run_converter,
    sha256_of,
    shapes_of,
    strip_prefix,
    write_json,
    write_model_folder,
)
from .coco_classes import BASE_CLASSES, COCO_CLASSES
from .config_reft import TRACELESS_FIELDS, infer_config
from .layouts_reft import (
    FUSED_KEY_MAP,
    KEY_MAP,
    convert_release,
    find_dropped,
    is_release_layout,
    rename_old_release,
    rename_old_swin,
    revert_release,
)
from .pickles import read_array_pickle


KEPT_CLASSES = {"base60": BASE_CLASSES}
PLACES = ("model", "state_dict")  # where training checkpoints keep the weights
VERIFIED_SIZE = (64, 96)
VERIFY_ATOL = 1e-4  # two orders of summation in float32
UNUSED_NORM = "model.pixel_level_module.encoder.swin.layernorm."
COUNTER = ".num_batches_tracked"


def convert_state_dict(official: Mapping[str, torch.Tensor], config: RefTConfig) -> dict[str, torch.Tensor]:
    """Tensors of a Mask2Former in either layout under our names, without those of the references.

    Args:
        official (`Mapping[str, torch.Tensor]`): of the release, or of transformers of any version.
        config ([`RefTConfig`]): with a linear classifier.

    Returns:
        `dict[str, torch.Tensor]`: state dict of `RefTForFewShotInstanceSegmentation` but for the references. What the
        source does not have and nothing reads is filled in: counters of batches, and a norm of Swin.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape.
    """
    dropped = find_dropped(official)
    kept = {name: tensor for name, tensor in official.items() if name not in dropped}
    if is_release_layout(kept):
        ours = convert_release({rename_old_release(name): tensor for name, tensor in kept.items()})
    else:
        ours = {rename_old_swin(name): tensor for name, tensor in kept.items()}
        if len(ours) < len(kept):
            raise ConversionError("`checkpoint` holds a tensor under its old and its new name.")
    expected = _list_base_shapes(config)
    for name, shape in expected.items():
        if name.endswith(COUNTER):
            ours.setdefault(name, torch.zeros(shape, dtype=torch.long))
        elif name.startswith(UNUSED_NORM):
            ours.setdefault(name, torch.ones(shape) if name.endswith("weight") else torch.zeros(shape))
    check_tensors(ours, expected, "Mask2Former")
    return ours


def revert_state_dict(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors under the names of the release; the references, counters and the unused norm have none there."""
    return revert_release(
        {
            name: tensor
            for name, tensor in ours.items()
            if "_reference." not in name and not name.startswith(UNUSED_NORM) and not name.endswith(COUNTER)
        }
    )


def keep_classes(
    state_dict: Mapping[str, torch.Tensor], names: Sequence[str], known: Sequence[str] = COCO_CLASSES
) -> dict[str, torch.Tensor]:
    """The state dict with only the rows of some classes in the class head; that of no object stays last.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): under our names.
        names (`Sequence[str]`): classes to keep.
        known (`Sequence[str]`): classes of the head, in order.

    Raises:
        ConversionError: If the head has another number of classes.
    """
    num_rows = len(state_dict["class_predictor.weight"])
    if num_rows != len(known) + 1:
        raise ConversionError(
            f"`keep_classes` requires a head of {len(known)} classes and no object; got {num_rows} rows."
        )
    rows = torch.tensor([*(known.index(name) for name in names), num_rows - 1])
    sliced = ("class_predictor.weight", "class_predictor.bias", "criterion.empty_weight")
    return {name: tensor[rows] if name in sliced else tensor for name, tensor in state_dict.items()}


def read_source(checkpoint: Path) -> tuple[dict[str, torch.Tensor], Mask2FormerConfig | None, Path]:
    """Tensors, configuration (of a folder of transformers) and file of a checkpoint.

    Raises:
        ConversionError: If the file is damaged, hostile, or no state dict.
        FileNotFoundError: If there is no such file.
    """
    checkpoint = Path(checkpoint)
    config, path = None, checkpoint
    if checkpoint.is_dir():
        if not (checkpoint / "config.json").is_file():
            raise FileNotFoundError(
                f"`checkpoint` must be a file, or a folder with `config.json`; got {str(checkpoint)!r}."
            )
        config = Mask2FormerConfig.from_pretrained(checkpoint)
        files = [checkpoint / name for name in ("model.safetensors", "pytorch_model.bin")]
        path = next((file for file in files if file.is_file()), files[0])
    content = read_array_pickle(path) if path.suffix == ".pkl" else read_checkpoint(path)
    if isinstance(content, Mapping):
        place = next((place for place in PLACES if isinstance(content.get(place), Mapping)), None)
        content = content if place is None else content[place]
        if path.suffix == ".pkl":
            content = {name: _to_tensor(name, array) for name, array in content.items()}
    return strip_prefix(check_is_state_dict(content), "module."), config, path


def _to_tensor(name: str, array: Any) -> torch.Tensor:
    try:
        return torch.from_numpy(array.copy())
    except (AttributeError, TypeError) as error:
        raise ConversionError(
            f"`checkpoint` must hold arrays of numbers; {name!r} is {type(array).__name__}."
        ) from error


def convert_checkpoint(
    checkpoint: Path,
    output_dir: Path,
    keep_classes: str | None = None,
    verify: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """Converts a file or folder into a model folder.

    Args:
        checkpoint (`Path`): a file of the release, or a folder (or file with its `config.json` beside it) of
            transformers.
        output_dir (`Path`): a new or empty folder; it appears complete or not at all.
        keep_classes (`str`, *optional*): `"base60"` removes the novel classes of the few-shot protocol.
        verify (`bool`): whether to compare the outputs with transformers' Mask2Former.
        fields: of [`RefTConfig`].

    Returns:
        `dict[str, Any]`: the parity report, which also lies in the folder.

    Raises:
        ConversionError: If the file is refused, or a tensor did not survive the way there and back.
    """
    official, source_config, path = read_source(checkpoint)
    if source_config is None and (path.parent / "config.json").is_file() and not is_release_layout(official):
        source_config = Mask2FormerConfig.from_pretrained(path.parent)
    config = _build_config(official, source_config)
    converted = convert_state_dict(official, config)
    dropped = find_dropped(official)
    round_trip = _check_round_trip(official, converted, dropped)
    if keep_classes is not None:
        names = KEPT_CLASSES[keep_classes]
        converted = _slice_classes(converted, names)
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    elif config.num_labels == len(COCO_CLASSES) and source_config is None:
        fields |= {"id2label": dict(enumerate(COCO_CLASSES)), "label2id": {n: i for i, n in enumerate(COCO_CLASSES)}}
    model = RefTForFewShotInstanceSegmentation(RefTConfig.from_mask2former(config, **fields)).eval()
    model.load_mask2former_weights({name: tensor.contiguous() for name, tensor in converted.items()})
    report = {
        "source": {"file": path.name, "sha256": sha256_of(path)},
        "layout": "release" if is_release_layout(official) else "transformers",
        "architecture": type(model).__name__,
        "backbone": model.config.backbone_config.model_type,
        "num_labels": model.config.num_labels,
        "not_in_the_tensors": {field: getattr(model.config, field) for field in TRACELESS_FIELDS},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "names": {"in_the_file": len(official), "matched": len(official) - len(dropped), "dropped": dropped},
        "round_trip": round_trip,
    }
    if verify:
        report["verified"] = verify_outputs(model.config, converted)
    processor = RefTProcessor(
        RefTImageProcessor(support_size=model.config.support_size, support_context=model.config.support_context)
    )

    def write(folder: Path):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_json(folder / "parity_report.json", report)

    write_model_folder(output_dir, write)
    return report


_slice_classes = keep_classes  # `convert_checkpoint` has an argument of that name


def _build_config(official: Mapping[str, torch.Tensor], source_config: Mask2FormerConfig | None) -> RefTConfig:
    if source_config is not None:
        return RefTConfig.from_mask2former(source_config)
    if not is_release_layout(official):
        raise ConversionError(
            "`checkpoint` of transformers must have its `config.json` beside it; there is none. Give the folder."
        )
    dropped = find_dropped(official)
    return infer_config({rename_old_release(name): value for name, value in official.items() if name not in dropped})


def _check_round_trip(
    official: Mapping[str, torch.Tensor], converted: Mapping[str, torch.Tensor], dropped: Mapping[str, str]
) -> dict[str, int]:
    """Takes the tensors the way back to their current names and compares every bit."""
    kept = {name: tensor for name, tensor in official.items() if name not in dropped}
    if is_release_layout(official):
        before = {rename_old_release(name): tensor for name, tensor in kept.items()}
        after = revert_state_dict(converted)
    else:
        before = {rename_old_swin(name): tensor for name, tensor in kept.items()}
        after = {name: converted[name] for name in before}
    changed = find_changed_tensors(before, after)
    if changed:
        raise ConversionError(f"Every tensor must survive the way there and back; {changed} did not.")
    return {"tensors": len(before), "bit_equal": len(before)}


@torch.no_grad()
def verify_outputs(config: RefTConfig, state_dict: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Largest differences between RefT with a linear head and transformers' Mask2Former, for a random image.

    Args:
        config ([`RefTConfig`]): of the converted model.
        state_dict (`Mapping[str, torch.Tensor]`): of Mask2Former, under our names.

    Raises:
        ConversionError: If they are more than rounding.
    """
    content = config.to_dict()
    names = Mask2FormerConfig().to_dict().keys() - {"model_type", "transformers_version", "architectures"}
    reference = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(**{name: content[name] for name in names if name in content})
    )
    reference.load_state_dict(dict(state_dict))
    model = RefTForFewShotInstanceSegmentation(RefTConfig.from_mask2former(config, classifier="linear"))
    model.load_mask2former_weights(state_dict)
    pixel_values = torch.randn(1, 3, *VERIFIED_SIZE, generator=torch.Generator().manual_seed(0))
    ours, theirs = model.eval()(pixel_values), reference.eval()(pixel_values)
    differences = {
        name: (getattr(ours, name) - getattr(theirs, name)).abs().max().item()
        for name in ("class_queries_logits", "masks_queries_logits")
    }
    if not max(differences.values()) <= VERIFY_ATOL:
        raise ConversionError(f"The outputs must be those of Mask2Former; they differ by {differences}.")
    return differences


def _list_base_shapes(config: RefTConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = RefTForFewShotInstanceSegmentation(config)
    return {name: shape for name, shape in shapes_of(model.state_dict()).items() if "_reference." not in name}


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    names, source = report["names"], report["source"]
    lines = [
        f"source          {source['file']} ({report['layout']} layout)",
        f"sha256          {source['sha256']}",
        f"architecture    {report['architecture']}, {report['backbone']}, {report['num_parameters']:,} parameters",
        f"names           {names['matched']} of {names['in_the_file']} matched, {len(names['dropped'])} dropped",
        f"way back        {report['round_trip']['bit_equal']} of {report['round_trip']['tensors']} tensors bit-equal",
    ]
    lines += [f"verified        {name} differs by {value:.1e}" for name, value in report.get("verified", {}).items()]
    lines += [f"not in the file {field} = {value}" for field, value in report["not_in_the_tensors"].items()]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="file of the release, or folder of transformers"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted model")
    parser.add_argument("--keep_classes", "--keep-classes", choices=list(KEPT_CLASSES), help="classes to keep")
    parser.add_argument("--verify", action="store_true", help="compare the outputs with transformers' Mask2Former")
    parser.add_argument("--classifier", choices=["linear", "cosine", "prototype"], help="head of the RefT model")
    parser.add_argument("--support_size", type=int, help="side of support crops in pixels")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


__all__ = ["FUSED_KEY_MAP", "KEY_MAP", "convert_state_dict", "infer_config", "revert_state_dict"]


if __name__ == "__main__":
    main()
