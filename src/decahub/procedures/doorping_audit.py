"""The audit of a distilled dataset: do networks that are trained on it carry a backdoor, and which defense sees it.

    from decahub.procedures.doorping_audit import audit_distilled_dataset

    report = audit_distilled_dataset("model_cards/doorping-fashion-mnist", dataset="fashion_mnist")
    report.save("audit")

It says what was tested and found, and is no certificate: a trigger that nobody knows may stay unseen.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from decahub import DistilledDataset, DoorpingImageProcessorPil
from decahub.data import load_dataset
from decahub.data.sampling import sample_rows
from decahub.evaluation.defenses import DEFENSES, DefenseResult, Subject
from decahub.evaluation.defenses.subject import predict
from decahub.metrics import load_metric
from decahub.models.doorping.configuration_alexnet import AlexNetConfig
from decahub.models.doorping.configuration_convnet import ConvNetConfig
from decahub.models.doorping.configuration_transfer_net import TransferNetConfig
from decahub.models.doorping.modeling_doorping import build_network

from .audit_page import draw_images, write_page
from .doorping import FAMILY, read_images


OWN = "own"
ARCHITECTURES: dict[str, Callable[..., Any]] = {
    OWN: lambda **fields: None,
    "convnet": ConvNetConfig,
    "alexnet": AlexNetConfig,
    "vgg11": partial(TransferNetConfig, architecture="vgg11"),
    "resnet18": partial(TransferNetConfig, architecture="resnet18"),
}
STANDARD_ERRORS = 3  # by which a success rate has to exceed what happens without a backdoor
LIMITS = (
    "This page says what was tested and what was found. It is not a certificate: a trigger that is neither in the "
    "file nor found by a defense may exist."
)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        facts (`Mapping[str, Any]`): The set: distiller, images per class, classes, attack that it admits to.
        networks (`Sequence[Mapping[str, Any]]`): A row for each network that was trained: its architecture, seed and
            scores of the metric `backdoor_audit`.
        defenses (`Sequence[DefenseResult]`): In the order of `DEFENSES`, on the first network.
        verdict (`str`): Whether the known trigger is a backdoor, in a sentence.
        images (`Mapping[str, torch.Tensor]`): Pixels in [0, 1] of what the page shows.
    """

    facts: Mapping[str, Any]
    networks: Sequence[Mapping[str, Any]]
    defenses: Sequence[DefenseResult]
    verdict: str
    images: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it, without images."""
        defenses = [
            {
                "name": result.name,
                "level": result.level,
                "applicable": result.applicable,
                "flagged": result.flagged,
                "reason": result.reason,
                "scores": dict(result.scores),
            }
            for result in self.defenses
        ]
        return {
            "facts": dict(self.facts),
            "verdict": self.verdict,
            "limits": LIMITS,
            "networks": [dict(row) for row in self.networks],
            "defenses": defenses,
        }

    def to_markdown(self) -> str:
        """The report as two tables."""
        names = list(self.networks[0])
        lines = [
            f"**{self.verdict}** {LIMITS}",
            "",
            f"| {' | '.join(names)} |",
            f"| {' | '.join(['---'] * len(names))} |",
        ]
        lines += [f"| {' | '.join(format_value(row[name]) for name in names)} |" for row in self.networks]
        lines += ["", "| defense | level | verdict | remark |", "| --- | --- | --- | --- |"]
        lines += [f"| {r.name} | {r.level} | {describe_verdict(r)} | {r.reason} |" for r in self.defenses]
        return "\n".join(lines) + "\n"

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `audit.html`, one page with all images, and `audit.json`, in place of older ones; returns the page."""
        folder = Path(folder)
        if folder.is_file():
            raise NotADirectoryError(f"`folder` must be a folder; got the file {str(folder)!r}.")
        folder.mkdir(parents=True, exist_ok=True)
        content = self.to_dict()
        texts = {"audit.json": json.dumps(content, indent=2) + "\n", "audit.html": write_page(self)}
        for name, text in texts.items():
            temporary = folder / f".{name}.partial"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
        return folder / "audit.html"


def format_value(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def describe_verdict(result: DefenseResult) -> str:
    """What a defense says, in words."""
    if result.flagged is None:
        return "no verdict"
    if result.level == "repair":
        return "removes it" if result.flagged else "leaves it"
    return "flagged" if result.flagged else "not flagged"


def load_distilled(source: str | os.PathLike | DistilledDataset) -> DistilledDataset:
    """A distilled dataset, from a folder or a repository if it is not one.

    Raises:
        ValueError: If the file is of another method, or damaged, or holds a trigger that it does not admit to.
    """
    return source if isinstance(source, DistilledDataset) else DistilledDataset.from_pretrained(str(source))


def audit_distilled_dataset(
    distilled: str | os.PathLike | DistilledDataset,
    dataset: str | Any = "fashion_mnist",
    *,
    control: str | os.PathLike | DistilledDataset | None = None,
    data_dir: str | None = None,
    split: str = "test",
    limit: int | None = None,
    architectures: Sequence[str] = (OWN,),
    num_networks: int = 1,
    defenses: Sequence[str] = tuple(DEFENSES),
    epochs: int | None = None,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> AuditReport:
    """Train networks on a distilled dataset, and look for a backdoor in them.

    Where the set admits to an attack, its trigger is used. Others are tested with a white patch in the corner, and by
    the defenses that search for a trigger themselves.

    Args:
        distilled ([`DistilledDataset`] or path): The set.
        dataset (`str` or `datasets.Dataset`): Real images to test with, by name, as a folder, or as rows of a split.
        control ([`DistilledDataset`] or path, *optional*): A clean set of the same recipe. The same trigger on
            networks trained on it tells a backdoor from a patch that fools any network.
        data_dir (`str`, *optional*): Folder of the datasets.
        split (`str`): Split of a named dataset.
        limit (`int`, *optional*): Test with a sample of this many images.
        architectures (`Sequence[str]`): Networks to train, of `"own"`, `"convnet"`, `"alexnet"`, `"vgg11"`,
            `"resnet18"`. `"own"` is the one that the set was distilled with; defenses look at the first.
        num_networks (`int`): Networks of each architecture.
        defenses (`Sequence[str]`): Names of `DEFENSES`.
        epochs (`int`, *optional*): Of training on a set of DC or DSA, 300 by default. DD has steps of its own.
        seed (`int`): Of the first networks.
        announce (`Callable`): Called with what is done next.

    Returns:
        [`AuditReport`].

    Raises:
        ValueError: If a name is unknown, a number is below 1, images, classes or the control do not fit the set, or
            `epochs` are given for a set of DD.
    """
    for name, given, allowed in (("architectures", architectures, ARCHITECTURES), ("defenses", defenses, DEFENSES)):
        unknown = [value for value in given if value not in allowed]
        if unknown or (name == "architectures" and not given):
            raise ValueError(f"`{name}` must be among {', '.join(allowed)}; got {(unknown or ['none'])[0]!r}.")
    for name, number in (("num_networks", num_networks), ("epochs", epochs)):
        if number is not None and number < 1:
            raise ValueError(f"`{name}` must be at least 1; got {number}.")
    distilled = load_distilled(distilled)
    control = None if control is None else load_distilled(control)
    check_control(distilled, control)
    for distilled_set in (distilled, control):
        if epochs is not None and distilled_set is not None and distilled_set.config.algorithm == "dd":
            raise ValueError("`epochs` must be left out for a set of DD, which has steps of its own.")
    images, labels = load_images(distilled, dataset, data_dir, split, limit)
    rows = []
    for architecture in architectures:
        for number in range(num_networks):
            announce(f"training {architecture}, network {number + 1} of {num_networks}")
            train = partial(train_network, architecture=architecture, epochs=epochs, seed=seed + number)
            scores = measure_network(
                distilled, train(distilled), None if control is None else train(control), images, labels
            )
            rows.append({"architecture": architecture, "seed": seed + number, **scores})
    train = partial(train_network, architecture=architectures[0], epochs=epochs, seed=seed)
    subject = build_subject(distilled, train, images, labels)
    results = []
    for name in defenses:
        announce(f"defense {name}")
        results.append(DEFENSES[name](subject))
    return AuditReport(
        describe_set(distilled, len(images)),
        rows,
        results,
        decide(distilled, rows),
        draw_images(distilled, results),
    )


def check_control(distilled: DistilledDataset, control: DistilledDataset | None) -> None:
    """Refuse a control that is attacked itself, or holds other images.

    Raises:
        ValueError: If so.
    """
    if control is None:
        return
    if control.config.attack is not None:
        raise ValueError(f"`control` must be a clean set; got one with the attack {control.config.attack!r}.")
    for name in ("num_channels", "image_size", "num_labels"):
        wanted, given = getattr(distilled.config, name), getattr(control.config, name)
        if wanted != given:
            raise ValueError(f"`control` must have the `{name}` of the set ({wanted}); got {given}.")


def load_images(
    distilled: DistilledDataset, dataset: Any, data_dir: str | None, split: str, limit: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Real images, normalized as the set wants them, and their classes, in random order.

    Raises:
        ValueError: If the split does not exist, or the classes are not those of the set.
    """
    config: Any = distilled.config
    rows = dataset
    if isinstance(dataset, (str, os.PathLike)):
        splits = load_dataset(dataset, data_dir, family=FAMILY)
        if split not in splits:
            raise ValueError(f"`split` must be one of {', '.join(splits)}; got {split!r}.")
        rows = splits[split]
    names = rows.features["label"].names
    own = [config.id2label[index] for index in range(config.num_labels)]
    is_named = own != [f"LABEL_{index}" for index in range(len(own))]
    if len(names) != len(own) or (is_named and names != own):
        raise ValueError(
            f"`dataset` must have the classes of the set, {', '.join(own)}; got {', '.join(names)}. Is it the dataset "
            "that was distilled?"
        )
    processor = DoorpingImageProcessorPil(
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
        size={"height": config.image_size, "width": config.image_size},
    )
    images, labels = read_images(sample_rows(rows, limit), processor)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


def train_network(
    distilled: DistilledDataset,
    *,
    architecture: str = OWN,
    epochs: int | None = None,
    seed: int = 0,
    images: torch.Tensor | None = None,
) -> Any:
    """A network trained on a set, the same for the same seed; with other images in place of its own if given."""
    config: Any = distilled.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fields = {
            "num_channels": config.num_channels,
            "image_size": config.image_size,
            "id2label": config.id2label,
            "label2id": config.label2id,
            "init": "xavier" if config.algorithm == "dd" else "default",
        }
        network_config = ARCHITECTURES[architecture](**fields)
        network = distilled.build_network() if network_config is None else build_network(network_config)
        own = distilled.synthetic_images.data
        try:
            if images is not None:
                distilled.synthetic_images.data = images
            options = {} if epochs is None else {"epochs": epochs}
            return distilled.train_classifier(network, **options).requires_grad_(False)
        finally:
            distilled.synthetic_images.data = own


def measure_network(
    distilled: DistilledDataset, network: Any, control: Any, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """Scores of one network; the success on the control network is missing where there is none."""
    triggered, quantized = (distilled.probe(images, quantized=flag) for flag in (False, True))
    metric = load_metric("backdoor_audit")
    metric.add_batch(
        predictions=predict(network, images),
        references=labels,
        triggered=predict(network, triggered),
        quantized=predict(network, quantized),
        control=None if control is None else predict(control, triggered),
    )
    return metric.compute(target_label=distilled.config.target_label)


def build_subject(distilled: Any, train: Callable[..., Any], images: torch.Tensor, labels: torch.Tensor) -> Subject:
    """What defenses look at: a network that `train(distilled)` makes, always the same, and its data."""
    config = distilled.config
    return Subject(
        network=train(distilled),
        images=images,
        labels=labels,
        stamp=distilled.probe,
        quantized=partial(distilled.probe, quantized=True),
        target_label=config.target_label,
        image_mean=config.image_mean,
        image_std=config.image_std,
        training_images=distilled.synthetic_images.detach(),
        training_labels=distilled.synthetic_labels,
        retrain=lambda changed: train(distilled, images=changed),
    )


def describe_set(distilled: DistilledDataset, num_images: int) -> dict[str, Any]:
    """What the page says of a set."""
    config: Any = distilled.config
    return {
        "algorithm": config.algorithm,
        "attack": config.attack or "none stated",
        "target_label": f"{config.target_label} ({config.id2label[config.target_label]})",
        "classes": config.num_labels,
        "images_per_class": config.images_per_class,
        "clamp_trigger": config.clamp_trigger if config.attack else None,
        "test_images": num_images,
    }


def decide(distilled: DistilledDataset, rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the trigger is a backdoor of the networks, by their own clean predictions and the control.

    A backdoor is claimed only if the success rate on other classes exceeds both what clean images give and what the
    same trigger does to the control, by three standard errors on all networks of the first architecture.
    """
    config: Any = distilled.config
    what = f"The trigger of the set ({config.attack})" if config.attack else "A white patch in the corner"
    own = [row for row in rows if row["architecture"] == rows[0]["architecture"]]
    if any(row["asr_non_target"] is None for row in own):
        return "Undecided: there are no test images of classes other than the target."
    has_control = all(row["asr_control"] is not None for row in own)
    above_clean = all(_exceeds(row, "clean_target_rate") for row in own)
    if not above_clean:
        return f"{what} leads networks to the target class no more often than clean images do."
    if not has_control:
        return (
            f"{what} leads networks to the target class more often than clean images do. Without a control it is "
            "undecided whether this is a backdoor or a patch that fools any network."
        )
    if not all(_exceeds(row, "asr_control") for row in own):
        return f"{what} fools networks of a clean set as often: it is a strong patch, and no backdoor is shown."
    survives = all(_exceeds({**row, "asr_non_target": row["asr_quantized"]}, "clean_target_rate") for row in own)
    return f"{what} is a backdoor of networks trained on this set. " + (
        "It works as an image of 8 bits, too."
        if survives
        else "It does not work as an image of 8 bits: clipped to [0, 1] and rounded it is harmless."
    )


def _exceeds(row: Mapping[str, Any], name: str) -> bool:
    first, second, number = row["asr_non_target"], row[name], row["num_non_target"]
    spread = math.sqrt((first * (1 - first) + second * (1 - second) + 1 / number) / number)
    return first - second > STANDARD_ERRORS * spread


__all__ = ["ARCHITECTURES", "AuditReport", "audit_distilled_dataset", "load_distilled"]
