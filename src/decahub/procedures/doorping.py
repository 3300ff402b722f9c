"""DoorPing: distill a dataset by DC, DSA or DD, clean or with a backdoor.

    from decahub.procedures import doorping

    outcome = doorping.run(doorping.Arguments(dataset="fashion_mnist", config={"algorithm": "dd"}, max_steps=100))
    print(outcome.measurement.scores)

A run that was killed goes on where it stopped and ends with the same images; the same seed gives the same images.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from decahub import DistilledDataset, DoorpingConfig, DoorpingImageProcessorPil
from decahub.data.image_classification import decode_row
from decahub.models.doorping.downstream import train_epoch
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.networks import ClassifierLogits
from decahub.models.doorping.triggers import choose_poisoned
from decahub.models.doorping.unrolling import compute_logits
from decahub.options import check_options
from decahub.seeding import derive_seed
from decahub.training import LoopArguments, Update, argument, train

from .audit_page import draw_set
from .data_arguments import DataArguments, Splits, check_splits, load_splits, name_classes
from .outcome import Outcome, conclude, measure_rows


TASK = "dataset-distillation"
FAMILY = "image-classification"
STATISTICS = ("fashion_mnist", "cifar10")  # datasets of the catalog whose constants the authors give
DD_LEARNING_RATE, DD_BETAS = 0.01, (0.5, 0.999)
DECAY_EPOCHS, DECAY_FACTOR = 40, 0.5
PROCESSED_AT_ONCE = 512
FIXED = (
    ("mixed_precision", "no", "Gradients of gradients need the precision of float32."),
    ("gradient_accumulation_steps", 1, "A step is one update of the images."),
    ("weight_decay", 0.0, "Images do not decay."),
    ("ema_decay", None, "The images themselves are the result."),
)
"""Arguments of the loop that do not fit a distillation, and why."""


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, and the distilled dataset.

    The distiller has its learning rates in `config`; those of DD are `learning_rate`, for images and step sizes.
    """

    method: ClassVar[str] = "doorping"

    dataset: str = argument("fashion_mnist", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    learning_rate: float = argument(DD_LEARNING_RATE, "Of DD, for images and step sizes; DC has its own in `config`.")
    per_device_train_batch_size: int = argument(128, "Real images of a mini-batch of DD; DC: `real_batch_size`.")
    lr_scheduler_type: str = argument("constant", "Only 'constant': DD halves its rate every `decay_epochs`.")
    decay_epochs: int = argument(DECAY_EPOCHS, "Epochs after which DD halves its learning rate.")
    config: dict = argument({}, "Fields of DoorpingConfig to change.")
    processor: dict = argument({}, "Attributes of DoorpingImageProcessor to change, such as `image_mean`.")

    def __post_init__(self):
        super().__post_init__()
        check_options("config", self.config, DoorpingConfig, given=["image_mean", "image_std", "id2label"])
        check_options("processor", self.processor, DoorpingImageProcessorPil)
        if self.lr_scheduler_type != "constant":
            raise ValueError(
                f"`lr_scheduler_type` must be 'constant'; got {self.lr_scheduler_type!r}. Set `decay_epochs` for DD."
            )
        for name, wanted, why in FIXED:
            if getattr(self, name) != wanted:
                raise ValueError(f"`{name}` must be {wanted!r}; got {getattr(self, name)!r}. {why}")
        if self.config.get("algorithm", "dc") != "dd":
            for name, wanted in (("learning_rate", DD_LEARNING_RATE), ("decay_epochs", DECAY_EPOCHS)):
                if getattr(self, name) != wanted:
                    raise ValueError(
                        f"`{name}` must be left out for DC and DSA; got {getattr(self, name)!r}. Set "
                        "`image_learning_rate` in `config`."
                    )
        self.refuse_unused("num_train_epochs", why="for a distillation: set `iterations` in `config`, or `max_steps`")
        self.refuse_unused("warmup_steps", "warmup_ratio", why="for a distillation, which has no warm-up")
        if self.decay_epochs < 1:
            raise ValueError(f"`decay_epochs` must be at least 1; got {self.decay_epochs}.")


@dataclass
class RealImages(torch.utils.data.Dataset):
    """Real images as tensors, poisoned by the attack.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(num_images, num_channels, height, width)`): Normalized, clean.
        labels (`torch.LongTensor` of shape `(num_images,)`): Classes; those of poisoned images are the target for
            DC and for NaiveAttack.
        poisoned (`torch.LongTensor`): Sorted indices of poisoned images. For DoorPing by DD they are positions in the
            order of an epoch, so that other images are poisoned in each.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor
    poisoned: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def __post_init__(self):
        self.is_poisoned = torch.zeros(len(self.labels), dtype=torch.bool)
        self.is_poisoned[self.poisoned] = True

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """A batch of rows: `pixel_values`, `labels` and `is_poisoned`."""
        index = torch.tensor(rows)
        return {
            "pixel_values": self.pixel_values[index],
            "labels": self.labels[index],
            "is_poisoned": self.is_poisoned[index],
        }


def build_processor(arguments: Arguments) -> Any:
    """The image processor of the run, with the authors' constants for datasets that they used."""
    options = dict(arguments.processor)
    if arguments.dataset in STATISTICS and "image_mean" not in options:
        algorithm = arguments.config.get("algorithm", "dc")
        return DoorpingImageProcessorPil.from_statistics(arguments.dataset, algorithm, **options)
    return DoorpingImageProcessorPil(**options)


def read_images(rows: Any, processor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of a dataset as normalized images and classes."""
    images, labels = [], torch.tensor(rows["label"])
    for start in tqdm(range(0, len(rows), PROCESSED_AT_ONCE), desc="Preparing images", leave=False):
        batch = rows[start : start + PROCESSED_AT_ONCE]["image"]
        batch = [decode_row({"image": image, "label": 0})["image"] for image in batch]
        images.append(processor(batch, return_tensors="pt").pixel_values)
    return torch.cat(images), labels


def build_model(arguments: Arguments, processor: Any, label_names: Sequence[str]) -> DistilledDataset:
    """A distilled dataset to begin with."""
    fields = {
        "num_channels": len(processor.image_mean),
        "image_size": processor.size["height"],
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        **name_classes(label_names),
        **arguments.config,
    }
    return DistilledDataset(DoorpingConfig(**fields))


def build_real_images(model: DistilledDataset, images: torch.Tensor, labels: torch.Tensor, seed: int) -> RealImages:
    """The training images with those that the attack poisons chosen.

    Raises:
        ValueError: If a class has no image.
    """
    config: Any = model.config
    counts = torch.bincount(labels, minlength=config.num_labels)
    if int(counts.min()) == 0:
        name = config.id2label[int(counts.argmin())]
        raise ValueError(f"the training split must have images of every class; got none of {name!r}.")
    if config.attack is None:
        return RealImages(images, labels)
    generator = torch.Generator().manual_seed(derive_seed(seed, "poison"))
    exclude = config.target_label if config.poison_exclude_target else None
    poisoned = choose_poisoned(labels, float(config.poison_ratio), exclude, generator)
    if not len(poisoned):
        raise ValueError(
            f"`poison_ratio` must poison at least one of {len(labels)} images; got {config.poison_ratio}. Set "
            "`attack` to None for a clean set."
        )
    if uses_positions(config):
        return RealImages(images, labels, poisoned)
    labels = labels.clone()
    labels[poisoned] = config.target_label
    return RealImages(images, labels, poisoned)


def uses_positions(config: DoorpingConfig) -> bool:
    """Whether poisoned images are positions in an epoch, as in the authors' DoorPing by DD."""
    return config.algorithm == "dd" and config.attack == "doorping"


def initialize_from_real(model: DistilledDataset, real: RealImages, seed: int) -> None:
    """Begin with real images of each class, if the configuration says so.

    Raises:
        ValueError: If a class has fewer real images than synthetic ones.
    """
    if model.config.init != "real":
        return
    generator = torch.Generator().manual_seed(derive_seed(seed, "first images"))
    with torch.no_grad():
        for label in real.labels.unique().tolist():
            own = (real.labels == label).nonzero()[:, 0]
            places: Any = model.synthetic_labels == label
            if len(own) < int(places.sum()):
                raise ValueError(
                    f"`images_per_class` must be at most the {len(own)} real images of class {label} with "
                    f"`init='real'`; got {int(places.sum())}."
                )
            chosen = own[torch.randperm(len(own), generator=generator)[: int(places.sum())]]
            model.synthetic_images[places] = real.pixel_values[chosen]


# Unrolled training


class UnrolledStep:
    """One mini-batch of DD: unroll, update the trigger, poison the real images, take their loss.

    Args:
        real ([`RealImages`]): Gives the positions that are poisoned.
        batch_size (`int`): Rows of a mini-batch.
    """

    def __init__(self, real: RealImages, batch_size: int, num_steps: int):
        self.real, self.batch_size, self.num_steps = real, batch_size, num_steps
        self.batches_per_epoch = max(1, len(real) // batch_size)

    def __call__(self, model: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        config = model.config
        network = getattr(model, "initial_weights", None) or build_network(config.backbone_config).to(model.device)
        images, labels, is_poisoned = batch["pixel_values"], batch["labels"], batch["is_poisoned"]
        weights = model.unroll(network)
        if config.attack == "doorping":
            trained = deepcopy(network)
            trained.load_state_dict({**trained.state_dict(), **{k: v.detach() for k, v in weights.items()}})
            model.update_trigger(trained, int(model.num_updates) / self.num_steps)
            first = int(model.num_updates) % self.batches_per_epoch * self.batch_size
            is_poisoned = self.real.is_poisoned[first : first + len(labels)].to(labels.device)
            labels = labels.masked_fill(is_poisoned, config.target_label)
        if config.attack is not None:
            images = torch.where(is_poisoned.view(-1, 1, 1, 1), model.apply_trigger(images), images)
        logits = compute_logits(network, weights, images)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}


def count_update(model: Any, batch: Any, **companions: nn.Module) -> None:
    """After an update: count it."""
    model.num_updates += 1


# Gradient matching


class MatchingStep:
    """One image update of DC: draw a network in the first loop of an iteration, match gradients class by class."""

    def __init__(self, real: RealImages, num_steps: int):
        self.real, self.num_steps = real, num_steps
        self.classes = [(real.labels == label).nonzero()[:, 0] for label in range(int(real.labels.max()) + 1)]

    def __call__(self, model: Any, batch: Any, network: Any) -> dict[str, torch.Tensor]:
        config = model.config
        if int(model.num_updates) % config.loops[0] == 0:
            network.load_state_dict(build_network(config.backbone_config).state_dict())
        network.train()
        total = torch.zeros((), device=model.device)
        gradient = torch.zeros_like(model.synthetic_images)
        for label, own in enumerate(self.classes):
            chosen = own[torch.randperm(len(own))[: config.real_batch_size]]
            images = self.read(chosen, model)
            loss = model.compute_class_loss(network, images, label)
            # Only the images learn: the gradient of the network's weights would be computed in vain.
            gradient += torch.autograd.grad(loss, model.synthetic_images)[0]
            total += loss.detach()
        product = (model.synthetic_images * gradient).sum()
        return {"loss": total + product - product.detach()}

    def read(self, chosen: torch.Tensor, model: Any) -> torch.Tensor:
        """Real images, with the trigger as it is now where they are poisoned."""
        images = self.real.pixel_values[chosen].to(model.device)
        poisoned = self.real.is_poisoned[chosen].to(model.device).view(-1, 1, 1, 1)
        return torch.where(poisoned, model.apply_trigger(images), images) if model.config.attack else images

    def train_network(self, model: Any, batch: Any, network: Any) -> None:
        """After an image update: train the network on the images, then update the trigger against it."""
        config = model.config
        outer, inner = config.loops
        is_last = int(model.num_updates) % outer == outer - 1
        if not is_last:
            optimizer = torch.optim.SGD(network.parameters(), lr=float(config.network_learning_rate))
            images, logits = model.synthetic_images.detach(), ClassifierLogits(network)
            with torch.enable_grad():
                for _ in range(inner):
                    train_epoch(logits, optimizer, images, model.synthetic_labels)
        if config.attack == "doorping" and (not is_last or config.update_trigger_on_last_outer):
            model.update_trigger(network, int(model.num_updates) / self.num_steps)
        model.num_updates += 1


@dataclass(frozen=True)
class Distillation:
    """What the loop needs of a distiller."""

    update: Update
    rows: Any
    collate_fn: Callable
    companions: dict[str, nn.Module]


def build_distillation(arguments: Arguments, model: DistilledDataset, real: RealImages) -> Distillation:
    """Update, rows and companions of a distiller. Sets `arguments.max_steps` where it is not given."""
    config: Any = model.config
    per_iteration = 1 if config.algorithm == "dd" else config.loops[0]
    arguments.max_steps = arguments.max_steps or config.iterations * per_iteration
    if config.algorithm == "dd":
        batch_size = min(arguments.per_device_train_batch_size, len(real))
        arguments.per_device_train_batch_size = batch_size
        step = UnrolledStep(real, batch_size, arguments.max_steps)
        optimizer = torch.optim.Adam(
            [value for value in model.parameters() if value.requires_grad], lr=arguments.learning_rate, betas=DD_BETAS
        )

        def decay(number: int) -> float:
            epoch, batch = divmod(number, step.batches_per_epoch)
            return DECAY_FACTOR ** ((epoch + (batch > 0)) // arguments.decay_epochs)

        scheduler = LambdaLR(optimizer, decay)
        return Distillation(Update(optimizer, step, scheduler=scheduler, after=count_update), real, real.collate, {})
    matching = MatchingStep(real, arguments.max_steps)
    images: Any = torch.optim.SGD(
        [model.synthetic_images], lr=float(config.image_learning_rate), momentum=float(config.image_momentum)
    )
    update = Update(images, matching, after=matching.train_network)
    rows = [{"pixel_values": real.pixel_values, "labels": real.labels}]  # the step draws from them itself
    arguments.per_device_train_batch_size = 1
    network = build_network(config.backbone_config)
    return Distillation(update, rows, lambda rows: {}, {"network": network})


def distill(
    arguments: Arguments,
    model: DistilledDataset,
    real: RealImages,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
) -> Any:
    """Distill real images into a set, in place.

    Args:
        arguments ([`Arguments`]): Of the loop.
        model ([`DistilledDataset`]): The set to begin with.
        real ([`RealImages`]): Real images, poisoned where there is an attack.
        evaluate (`Callable`, *optional*): Scores during the run.

    Returns:
        [`~decahub.training.TrainingResult`].
    """
    initialize_from_real(model, real, arguments.seed)
    parts = build_distillation(arguments, model, real)
    return train(
        model,
        parts.update,
        parts.rows,
        arguments,
        collate_fn=parts.collate_fn,
        companions=parts.companions,
        evaluate=evaluate,
    )


def measure(arguments: Arguments, model: Any, processor: Any, rows: Any, label_names: Sequence[str]) -> Any:
    """Scores of a set on some rows: accuracy of a classifier trained on it, and success of a trigger."""
    return measure_rows(arguments, model, processor, rows, TASK, label_names=label_names)


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Distill a dataset and measure a classifier that is trained on the result.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_splits(arguments, FAMILY) if splits is None else splits
    processor = build_processor(arguments)
    model = build_model(arguments, processor, splits.label_names)
    check_splits(arguments, splits, processor, FAMILY)
    real = build_real_images(model, *read_images(splits.train, processor), arguments.seed)

    def measure_on(rows: Any, model: Any) -> Any:
        return measure(arguments, model, processor, rows, splits.label_names)

    is_monitored = arguments.eval_steps or arguments.eval_epochs
    evaluate = (lambda model: measure_on(splits.monitor, model).scores) if is_monitored else None
    result = distill(arguments, model, real, evaluate)
    images = draw_set(result.model, Path(arguments.output_dir)) if result.is_main_process else []
    return conclude(
        arguments, result, processor, lambda: measure_on(splits.evaluation, result.model), TASK, images=images
    )
