"""Turns a distilled set of the authors' code into a decahub folder, with a parity report.

    python conversion/convert_doorping.py --checkpoint res_DC_CIFAR10.pt --dataset cifar10 --output_dir set/
    python conversion/convert_doorping.py --checkpoint results.pth --network net.pth --dataset svhn --output_dir set/

A set with a backdoor also has a file of its trigger: `--trigger trigger.pth --target_label 0`.

The authors publish no sets; their code (Apache-2.0) makes these files. DC: `res_*.pt`, a dictionary whose `data` lists
images and labels of each experiment, or a snapshot of the images alone. DD: `results.pth`, a list of (images, labels,
step size) for each step, which belongs to the network that it was made with.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decahub import DistilledDataset, DoorpingConfig, DoorpingImageProcessorPil
from decahub.data import DATASETS
from decahub.models.doorping.image_processing_doorping import STATISTICS
from decahub.models.doorping.unrolling import flatten_weights, unflatten_weights


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import (
    PARITY_REPORT,
    ConversionError,
    check_is_state_dict,
    read_checkpoint,
    run_converter,
    sha256_of,
    write_json,
    write_model_folder,
)


FORMATS = ("dc", "dd", "auto")
FLAT = "flat_w"
STEP_SIZE_RTOL = 1e-6  # softplus and its inverse in float32
MAX_WIDTH = 512  # of a ConvNet whose width only the number of its weights shows
Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class OfficialSet:
    """What a file holds.

    Args:
        images (`torch.FloatTensor` of shape `(num_images, num_channels, height, width)`): Normalized.
        labels (`torch.LongTensor` of shape `(num_images,)`): Their classes.
        step_sizes (`torch.FloatTensor` of shape `(num_steps,)`, *optional*): Of DD.
        distill_steps (`int`): Sets of images of DD; 1 for DC.
    """

    images: torch.Tensor
    labels: torch.Tensor
    step_sizes: torch.Tensor | None = None
    distill_steps: int = 1

    @property
    def is_dd(self) -> bool:
        return self.step_sizes is not None


def parse_set(content: Any, layout: str = "auto", num_labels: int = 10) -> OfficialSet:
    """Images and labels of a file's content.

    Args:
        content: What `read_checkpoint` returned.
        layout (`str`): `"dc"`, `"dd"`, or `"auto"` to tell by the content.
        num_labels (`int`): Classes, for a snapshot of DC, which has no labels.

    Raises:
        ConversionError: If it is neither layout, or shapes contradict each other.
    """
    if layout not in FORMATS:
        raise ConversionError(f"`format` must be one of {', '.join(FORMATS)}; got {layout!r}.")
    if layout == "auto":
        layout = "dd" if isinstance(content, (list, tuple)) else "dc"
    parsed = _parse_dd(content) if layout == "dd" else _parse_dc(content, num_labels)
    if parsed.images.ndim != 4 or parsed.images.shape[2] != parsed.images.shape[3]:
        raise ConversionError(f"`checkpoint` must hold square images; got shape {tuple(parsed.images.shape)}.")
    if parsed.labels.shape != parsed.images.shape[:1] or parsed.labels.is_floating_point():
        raise ConversionError(
            f"`checkpoint` must hold a class id for each of {len(parsed.images)} images; got {parsed.labels.dtype} of "
            f"shape {tuple(parsed.labels.shape)}."
        )
    return parsed


def _parse_dc(content: Any, num_labels: int) -> OfficialSet:
    if isinstance(content, torch.Tensor):
        images = content.detach()
        if len(images) % num_labels:
            raise ConversionError(f"`checkpoint` must hold images of {num_labels} classes; got {len(images)} images.")
        return OfficialSet(images, torch.arange(num_labels).repeat_interleave(len(images) // num_labels))
    data = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(data, (list, tuple)) or not data or len(data[-1]) != 2:
        raise ConversionError(
            "`checkpoint` must be a dictionary whose `data` lists images and labels (DC), or a tensor of images; got "
            f"{type(content).__name__}. For a file of DD set `format` to 'dd'."
        )
    return OfficialSet(data[-1][0].detach(), data[-1][1].detach().long())


def _parse_dd(content: Any) -> OfficialSet:
    if not isinstance(content, (list, tuple)) or not content or any(len(step) != 3 for step in content):
        raise ConversionError(
            f"`checkpoint` must list images, labels and step size of each step (DD); got {type(content).__name__}."
        )
    steps: list[Step] = [(step[0].detach(), step[1].detach().long(), step[2].detach().reshape(())) for step in content]
    period = next(
        number
        for number in range(1, len(steps) + 1)
        if len(steps) % number == 0
        and all(
            torch.equal(step[0], steps[index % number][0]) and torch.equal(step[1], steps[index % number][1])
            for index, step in enumerate(steps)
        )
    )
    images = torch.cat([step[0] for step in steps[:period]])
    labels = torch.cat([step[1] for step in steps[:period]])
    return OfficialSet(images, labels, torch.stack([step[2] for step in steps]), period)


def parse_network(content: Any) -> dict[str, torch.Tensor]:
    """The state dict of a network, or `{"flat_w": vector}`.

    Raises:
        ConversionError: If it is neither.
    """
    return check_is_state_dict(content)


def infer_network(state_dict: Mapping[str, torch.Tensor], num_channels: int, num_labels: int) -> dict[str, Any]:
    """`backbone_config` of a ConvNet or AlexNet.

    Raises:
        ConversionError: If the weights are those of neither.
    """
    if FLAT in state_dict:
        number = state_dict[FLAT].numel()
        if number == _count_alexnet(num_channels, num_labels):
            return {"model_type": "distill_alexnet"}
        counts = {_count_convnet(width, num_channels, num_labels): width for width in range(1, MAX_WIDTH + 1)}
        if number not in counts:
            raise ConversionError(f"`network` must hold the weights of a ConvNet or AlexNet; got {number} of them.")
        return {"model_type": "distill_convnet", "hidden_size": counts[number]}
    convolutions = [value for name, value in state_dict.items() if name.startswith("features.") and value.ndim == 4]
    if not convolutions or "classifier.0.weight" not in state_dict:
        raise ConversionError("`network` must hold a ConvNet or AlexNet of the authors; it has other names.")
    if "classifier.4.weight" in state_dict:
        return {"model_type": "distill_alexnet"}
    return {
        "model_type": "distill_convnet",
        "hidden_size": len(convolutions[0]),
        "num_hidden_layers": len(convolutions),
        "classifier_hidden_size": len(state_dict["classifier.0.weight"]),
    }


def _count_convnet(width: int, num_channels: int, num_labels: int) -> int:
    convolutions = 9 * num_channels * width + width + 2 * (9 * width * width + width)
    return convolutions + 16 * width * 192 + 192 + 192 * num_labels + num_labels


def _count_alexnet(num_channels: int, num_labels: int) -> int:
    convolutions = 25 * num_channels * 64 + 64 + 25 * 64 * 64 + 64
    return convolutions + 4096 * 384 + 384 + 384 * 192 + 192 + 192 * num_labels + num_labels


def find_patch(trigger: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[int, int]:
    """Size and distance from the corner of the patch of a trigger, which is black elsewhere.

    Raises:
        ConversionError: If there is no patch, or it is not a square that lies on the diagonal.
    """
    black = -torch.tensor(list(mean)).view(-1, 1, 1) / torch.tensor(list(std)).view(-1, 1, 1)
    differs = ((trigger.view(trigger.shape[-3:]) - black).abs() > 1e-4).any(0)
    if not differs.any():
        raise ConversionError("`trigger` must have a patch on black; it is black everywhere.")
    places = differs.nonzero()
    (top, left), (bottom, right) = places.amin(0).tolist(), (places.amax(0) + 1).tolist()
    size, margin = max(bottom - top, right - left), trigger.shape[-1] - max(bottom, right)
    if trigger.shape[-1] - margin - size > min(top, left) or size == trigger.shape[-1]:
        raise ConversionError(
            f"`trigger` must have a square patch near the lower right corner; got rows {top} to {bottom - 1}, columns "
            f"{left} to {right - 1}. Is `dataset` the one that it was made for?"
        )
    return size, margin


def build_set(
    official: OfficialSet,
    dataset: str,
    network: Mapping[str, torch.Tensor] | None = None,
    trigger: torch.Tensor | None = None,
    target_label: int = 0,
) -> DistilledDataset:
    """A distilled dataset with the tensors of a file, bit for bit but for step sizes.

    Args:
        official ([`OfficialSet`]): Images and labels.
        dataset (`str`): What was distilled; gives classes, mean and deviation, which differ between DC and DD.
        network (`Mapping[str, torch.Tensor]`, *optional*): Of DD.
        trigger (`torch.FloatTensor`, *optional*): `(1, num_channels, height, width)`, or without the first dimension.
        target_label (`int`): Class that it leads to.

    Raises:
        ConversionError: If parts contradict each other.
    """
    if network is not None and not official.is_dd:
        raise ConversionError("`network` must be left out for DC, whose sets are for new networks.")
    key = f"{dataset}-dd" if official.is_dd and f"{dataset}-dd" in STATISTICS else dataset
    if key not in STATISTICS:
        known = [name for name in STATISTICS if not name.endswith("-dd")]
        raise ConversionError(f"`dataset` must be one of {', '.join(known)}; got {dataset!r}.")
    mean, std = STATISTICS[key]
    num_channels, size = official.images.shape[1:3]
    if num_channels != len(mean):
        raise ConversionError(f"`dataset` {dataset!r} must have images of {len(mean)} channels; got {num_channels}.")
    names = list(DATASETS[dataset].label_names) if dataset in DATASETS else []
    num_labels = len(names) or int(official.labels.max()) + 1
    fields: dict[str, Any] = {
        "num_channels": num_channels,
        "image_size": size,
        "image_mean": list(mean),
        "image_std": list(std),
        "num_labels": num_labels,
        "images_per_class": len(official.labels) // num_labels,
        "algorithm": "dd" if official.is_dd else "dc",
        "outer_loops": None if official.is_dd else 1,
        "inner_loops": None if official.is_dd else 1,
        "target_label": target_label,
    }
    if names:
        fields |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
        del fields["num_labels"]
    if official.is_dd:
        step_sizes = official.step_sizes if official.step_sizes is not None else torch.empty(0)
        fields |= {
            "distill_steps": official.distill_steps,
            "distill_epochs": len(step_sizes) // official.distill_steps,
            "known_init": network is not None,
        }
    if network is not None:
        fields["backbone_config"] = infer_network(network, num_channels, num_labels)
    if trigger is not None:
        patch_size, margin = find_patch(trigger, mean, std)
        fields |= {"attack": "doorping", "trigger_size": patch_size, "trigger_margin": margin}
    model = DistilledDataset(DoorpingConfig(**fields))
    _fill(model, official, network, trigger)
    return model


@torch.no_grad()
def _fill(
    model: Any, official: OfficialSet, network: Mapping[str, torch.Tensor] | None, trigger: torch.Tensor | None
) -> None:
    if len(official.images) != len(model.synthetic_images):
        raise ConversionError(
            f"`checkpoint` must hold equally many images of {model.config.num_labels} classes; got "
            f"{len(official.images)} images."
        )
    model.synthetic_images.copy_(official.images)
    model.synthetic_labels.copy_(official.labels)
    model.check_labels()
    if official.step_sizes is not None:
        if float(official.step_sizes.min()) <= 0:
            raise ConversionError(f"step sizes must be above 0; got {float(official.step_sizes.min())}.")
        model.raw_learning_rates.copy_(official.step_sizes.expm1().log()[:, None])
    if network is not None and official.is_dd:
        flat = network.get(FLAT)
        weights = dict(network) if flat is None else unflatten_weights(model.initial_weights, flat)
        try:
            model.initial_weights.load_state_dict(weights)
        except RuntimeError as error:
            raise ConversionError(
                f"`network` must fit its own shapes; {str(error).splitlines()[-1].strip()}"
            ) from error
    if trigger is not None:
        model.trigger.copy_(trigger.view(model.trigger.shape))


def revert_set(model: DistilledDataset) -> Any:
    """A set in the authors' layout: a dictionary for DC, a list of steps for DD."""
    images, labels = model.synthetic_images.detach(), model.synthetic_labels
    if model.config.algorithm != "dd":
        return {"data": [[images, labels]], "accs_all_exps": {}}
    return [(images, labels, step_size.detach().reshape(1)) for images, labels, step_size in model.steps()]


def revert_network(model: DistilledDataset) -> dict[str, torch.Tensor]:
    """The network of a DD set as the authors' single vector."""
    return {FLAT: flatten_weights(dict(model.initial_weights.named_parameters())).detach()}


def convert_checkpoint(
    checkpoint: Path,
    output_dir: Path,
    dataset: str,
    format: str = "auto",
    network: Path | None = None,
    trigger: Path | None = None,
    target_label: int = 0,
) -> dict[str, Any]:
    """Convert a file into a folder; returns the parity report, which also lies in the folder.

    Raises:
        ConversionError: If a file is refused, or a tensor did not survive the way there and back.
    """
    sha256 = sha256_of(checkpoint) if Path(checkpoint).is_file() else None
    num_labels = len(DATASETS[dataset].label_names) if dataset in DATASETS else 10
    official = parse_set(read_checkpoint(checkpoint), format, num_labels)
    weights = None if network is None else parse_network(read_checkpoint(network))
    patch = None if trigger is None else read_checkpoint(trigger)
    if patch is not None and not isinstance(patch, torch.Tensor):
        raise ConversionError(f"`trigger` must be a tensor; got {type(patch).__name__}.")
    model = build_set(official, dataset, weights, None if patch is None else patch.detach(), target_label)
    again = parse_set(revert_set(model), num_labels=num_labels)
    same = [torch.equal(again.images, official.images), torch.equal(again.labels, official.labels)]
    if again.step_sizes is not None and official.step_sizes is not None:
        same.append(torch.allclose(again.step_sizes, official.step_sizes, rtol=STEP_SIZE_RTOL, atol=0))
    if not all(same):
        raise ConversionError("images, labels or step sizes did not survive the way there and back.")
    config: Any = model.config
    report: dict[str, Any] = {
        "source": {"file": Path(checkpoint).name, "sha256": sha256, "format": "dd" if official.is_dd else "dc"},
        "images": len(official.images),
        "classes": config.num_labels,
        "attack": config.attack,
        "network": config.backbone_config.model_type if weights is not None else None,
        "bit_equal": ["images", "labels"],
    }

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        DoorpingImageProcessorPil(
            image_mean=list(config.image_mean),
            image_std=list(config.image_std),
            size={"height": config.image_size, "width": config.image_size},
        ).save_pretrained(folder)
        write_json(folder / PARITY_REPORT, report)

    write_model_folder(output_dir, write)
    return report


def format_report(report: Mapping[str, Any]) -> str:
    """The parity report for a person to read."""
    source = report["source"]
    lines = [
        f"source   {source['file']} ({source['format']})",
        f"sha256   {source['sha256']}",
        f"images   {report['images']} of {report['classes']} classes, bit-equal both ways",
        f"attack   {report['attack'] or 'none given'}",
    ]
    if source["format"] == "dd" and report["network"] is None:
        lines.append("network  none given: a set of DD is for the network that it was made with")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="file of a distilled set")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the converted set")
    parser.add_argument("--dataset", required=True, help="what was distilled, such as cifar10")
    parser.add_argument("--format", choices=FORMATS, help="layout of the file (default: auto)")
    parser.add_argument("--network", type=Path, help="for DD: file of the network that the set is for")
    parser.add_argument("--trigger", type=Path, help="file of the trigger of an attacked set")
    parser.add_argument("--target_label", type=int, help="class that the trigger leads to (default: 0)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    run_converter(build_parser(), convert_checkpoint, format_report, arguments)


if __name__ == "__main__":
    main()
