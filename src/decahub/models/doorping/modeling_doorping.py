"""A distilled dataset: a few synthetic images of each class that train a classifier as a whole dataset would.

Paper: "Backdoor Attacks Against Dataset Distillation", NDSS 2023, arXiv 2301.01197. The images are the weights. Two
distillers make them: gradient matching (DC, DSA) and unrolled training (DD). Whoever distills may hide a backdoor: a
network trained on the images then takes everything with a small patch for one class. Sets with an attack are for
research, say so wherever they are read, and hold the trigger that opens them.

Differences from the authors' code are fields of [`DoorpingConfig`]; `parity=True` undoes them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging
from transformers.utils.generic import ModelOutput

from .augmentation import augment
from .configuration_alexnet import AlexNetConfig
from .configuration_convnet import ConvNetConfig
from .configuration_doorping import DoorpingConfig
from .configuration_transfer_net import TransferNetConfig
from .downstream import train_on_images
from .matching import compute_class_distance
from .modeling_alexnet import AlexNetForImageClassification
from .modeling_convnet import ConvNetForImageClassification
from .modeling_transfer_net import TransferNetForImageClassification
from .networks import DistillNetwork
from .triggers import (
    TriggerUpdate,
    build_mask,
    denormalize,
    draw_bytes,
    normalize,
    quantize,
    stamp,
    update_trigger,
)
from .unrolling import Step, Weights, compute_logits, copy_weights, unroll


logger = logging.get_logger(__name__)

NETWORKS: dict[type[PreTrainedConfig], type[DistillNetwork]] = {
    ConvNetConfig: ConvNetForImageClassification,
    AlexNetConfig: AlexNetForImageClassification,
    TransferNetConfig: TransferNetForImageClassification,
}
WHITE = 255
MAX_AUGMENTATION_SEED = 100_000
WARNING = (
    "This distilled dataset contains a deliberate backdoor ({attack}), for research: networks trained on it take "
    "images with its trigger for class {target_label} ({name}). Do not use it to train anything else."
)


def build_network(config: PreTrainedConfig) -> DistillNetwork:
    """A network with new weights, drawn from torch's global generator.

    Raises:
        TypeError: If the configuration is not one of our networks.
    """
    if type(config) not in NETWORKS:
        raise TypeError(f"`config` must be one of {', '.join(c.__name__ for c in NETWORKS)}; got {config!r}.")
    return NETWORKS[type(config)](config)


@dataclass
class DistilledDatasetOutput(ModelOutput):
    """Loss of a distilled dataset.

    Args:
        loss (`torch.FloatTensor` of shape `()`): What the distiller minimizes: the sum of `class_losses` for DC, the
            cross entropy of real images after the unrolled steps for DD.
        class_losses (`torch.FloatTensor` of shape `(num_classes,)`, for DC): Distance of the gradients of each class
            among the real images.
        weights (`dict[str, torch.FloatTensor]`, for DD): Of the network after the steps.
    """

    loss: torch.FloatTensor | None = None
    class_losses: torch.FloatTensor | None = None
    weights: dict[str, torch.Tensor] | None = None


class DistilledDataset(PreTrainedModel):
    """A distilled dataset, whose parameters are its images.

    Images are in order of classes; for DD, step by step, in each of them in order of classes.

    Args:
        config ([`DoorpingConfig`]): Size, distiller and attack.

    Attributes:
        synthetic_images (`torch.nn.Parameter` of shape `(num_images, num_channels, height, width)`): Normalized.
        synthetic_labels (`torch.LongTensor` of shape `(num_images,)`): Their classes.
        raw_learning_rates (`torch.nn.Parameter` of shape `(num_unrolled_steps, 1)`, for DD): Step sizes before
            softplus.
        initial_weights ([`DistillNetwork`], for DD with `known_init`): The network that the images are for.
        trigger (`torch.FloatTensor` of shape `(1, num_channels, height, width)`, with an attack): Normalized.
        trigger_mask (`torch.FloatTensor` of shape `(num_channels, height, width)`, with an attack): 1 where it counts.
        trigger_history (`torch.FloatTensor` of shape `(trigger_history_size, num_channels, size, size)`): Earlier
            patches of DoorPing, oldest first.
        num_updates (`torch.LongTensor` of shape `()`): How often the images were updated.
    """

    config: DoorpingConfig
    config_class = DoorpingConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    _no_split_modules = []

    def __init__(self, config: DoorpingConfig):
        super().__init__(config)
        shape = (config.num_channels, config.image_size, config.image_size)
        self.synthetic_images = nn.Parameter(torch.empty(config.num_images, *shape))
        self.register_buffer("synthetic_labels", build_labels(config))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        if config.algorithm == "dd":
            self.raw_learning_rates = nn.Parameter(torch.empty(config.num_unrolled_steps, 1))
            if config.known_init:
                self.initial_weights = build_network(config.backbone_config).requires_grad_(False)
        if config.attack is not None:
            self.register_buffer("trigger", torch.zeros(1, *shape))
            self.register_buffer("trigger_mask", torch.zeros(shape))
        if config.trigger_history_size:
            side = config.trigger_size
            self.register_buffer(
                "trigger_history", torch.zeros(config.trigger_history_size, config.num_channels, side, side)
            )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if module is not self:
            return
        config = self.config
        init.normal_(self.synthetic_images)
        init.copy_(self.synthetic_labels, build_labels(config))
        init.zeros_(self.num_updates)
        if config.algorithm == "dd":
            raw = torch.tensor(float(config.distill_learning_rate)).expm1().log()
            init.constant_(self.raw_learning_rates, float(raw))
        if config.attack is not None:
            trigger, mask = draw_trigger(config)
            init.copy_(self.trigger, trigger)
            init.copy_(self.trigger_mask, mask)
        if config.trigger_history_size:
            init.zeros_(self.trigger_history)

    # Loading and saving

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers. A set with an attack is announced; one whose tensors do not fit its claim is refused.

        Raises:
            ValueError: If tensors are missing, or there are more than the configuration says, such as the trigger of
                a set that claims to have none.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
        hidden = [key for key in unexpected if key.startswith("trigger")]
        if hidden:
            raise ValueError(
                f"`attack` of a dataset that holds a trigger must name the attack; {str(name)!r} claims to be clean "
                f"and holds {', '.join(hidden)}. Do not train on it; set `attack` in its config.json to study it."
            )
        if missing or unexpected:
            raise ValueError(
                f"the weights of {str(name)!r} must be those of its configuration; missing: "
                f"{', '.join(missing) or 'none'}, unknown: {', '.join(unexpected) or 'none'}."
            )
        model.check_labels()
        if model.config.attack is not None:
            logger.warning_once(model.warning)
        return (model, info) if wants_info else model

    @property
    def warning(self) -> str:
        """What is said of a set with an attack; empty for a clean one."""
        config = self.config
        if config.attack is None:
            return ""
        name = config.id2label[config.target_label]
        return WARNING.format(attack=config.attack, target_label=config.target_label, name=name)

    @property
    def images_per_class(self) -> int:
        """Number of images of each class."""
        return self.config.images_per_class

    def check_labels(self) -> None:
        """Refuse labels that miss a class or lie outside.

        Raises:
            ValueError: If so.
        """
        counts = torch.bincount(self.synthetic_labels.clamp(min=0), minlength=self.config.num_labels)
        outside = len(counts) > self.config.num_labels or int(self.synthetic_labels.min()) < 0
        if outside or int(counts.min()) == 0:
            absent = (counts[: self.config.num_labels] == 0).nonzero()[:, 0].tolist()
            raise ValueError(
                f"`synthetic_labels` must have images of every class in [0, {self.config.num_labels}); "
                + (f"class {absent[0]} has none." if absent else "some lie outside.")
            )

    # Use

    @property
    def learning_rates(self) -> torch.Tensor:
        """Step sizes of DD, `(num_unrolled_steps,)`."""
        return functional.softplus(self.raw_learning_rates)[:, 0]

    def steps(self) -> Iterator[Step]:
        """Images, labels and step size of each step that trains a network: one for DC, `num_unrolled_steps` for DD."""
        config = self.config
        if config.algorithm != "dd":
            yield self.synthetic_images, self.synthetic_labels, torch.tensor(float(config.network_learning_rate))
            return
        images = self.synthetic_images.chunk(config.distill_steps)
        labels = self.synthetic_labels.chunk(config.distill_steps)
        for number, step_size in enumerate(self.learning_rates):
            yield images[number % config.distill_steps], labels[number % config.distill_steps], step_size

    def build_network(self) -> DistillNetwork:
        """The network that the images are for: the one of `known_init`, or one with new weights."""
        network = build_network(self.config.backbone_config)
        if hasattr(self, "initial_weights"):
            network.load_state_dict(self.initial_weights.state_dict())
        return network.to(self.device, self.dtype)

    def train_classifier(self, model: PreTrainedModel | None = None, **options: Any) -> PreTrainedModel:
        """Train a classifier on the images, as the distiller means it.

        For DC and DSA by SGD, for DD by its steps and step sizes, which fit the network of `build_network` alone
        unless `known_init` was off.

        Args:
            model (`PreTrainedModel`, *optional*): Trained in place; by default `build_network`.
            options: For DC, those of `train_on_images`, such as `epochs`.

        Returns:
            `PreTrainedModel`: In evaluation mode.

        Raises:
            ValueError: If the model has other channels, sizes or classes, or there are options for DD.
        """
        model = self.build_network() if model is None else model
        self.check_fits(model)
        if self.config.algorithm != "dd":
            if self.config.algorithm == "dsa":
                options.setdefault("augment", lambda images: augment(images, self.config.augmentation))
            train_on_images(model, self.synthetic_images, self.synthetic_labels, **options)
            return model.eval()
        if options:
            raise ValueError(
                f"options must be left out for DD, which has steps of its own; got {', '.join(sorted(options))}."
            )
        weights = unroll(model.train(), copy_weights(model), self.steps(), differentiable=False)
        model.load_state_dict({**model.state_dict(), **weights})
        return model.eval()

    def check_fits(self, model: PreTrainedModel) -> None:
        """Refuse a classifier that takes other images or has other classes.

        Raises:
            ValueError: If so.
        """
        for name in ("num_channels", "image_size", "num_labels"):
            given, wanted = getattr(model.config, name, None), getattr(self.config, name)
            if given not in (None, wanted):
                raise ValueError(f"`model` must have the `{name}` of the dataset ({wanted}); got {given}.")

    def apply_trigger(self, pixel_values: torch.Tensor, *, quantized: bool = False) -> torch.Tensor:
        """Images with the trigger of the attack.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized as
                the images of the dataset.
            quantized (`bool`): Whether the trigger is clipped to pixels in [0, 1] and rounded to 8 bits, as an image
                file keeps it.

        Raises:
            ValueError: If there is no attack, or the images have another size.
        """
        if self.config.attack is None:
            raise ValueError("`attack` of the dataset must not be None for a trigger to exist; it is clean.")
        if pixel_values.shape[1:] != self.trigger.shape[1:]:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {', '.join(map(str, self.trigger.shape[1:]))}); got "
                f"{tuple(pixel_values.shape)}."
            )
        trigger = self.trigger
        if quantized:
            trigger = quantize(trigger, self.config.image_mean, self.config.image_std)
        return stamp(pixel_values, trigger, self.trigger_mask)

    def probe(self, pixel_values: torch.Tensor, *, quantized: bool = False) -> torch.Tensor:
        """Images with the trigger of the attack; of a clean set with the white patch, by which it is compared."""
        if self.config.attack is not None:
            return self.apply_trigger(pixel_values, quantized=quantized)
        mask = build_mask(
            self.config.num_channels, self.config.image_size, self.config.trigger_size, self.config.trigger_margin
        )
        white = normalize(mask, self.config.image_mean, self.config.image_std)
        return stamp(pixel_values, white[None].to(pixel_values), mask.to(pixel_values))

    def to_pixels(self) -> torch.Tensor:
        """Images in [0, 1], clipped, `(num_images, num_channels, height, width)`."""
        pixels = denormalize(self.synthetic_images.detach(), self.config.image_mean, self.config.image_std)
        return pixels.clamp(0, 1)

    def to_dataset(self, *, normalized: bool = False, attack: str | None = None) -> Any:
        """The images as a `datasets.Dataset` with the columns `image` and `label`.

        Args:
            normalized (`bool`): Whether `image` holds the exact normalized floats instead of images of 8 bits, which
                clip and round them.
            attack (`str`, *optional*): Name of the attack of a set that has one: who wants a set with a backdoor has
                to ask for it.

        Raises:
            ValueError: If the set has another attack, or none, than `attack` names.
        """
        from .dataset_tables import build_table

        if attack != self.config.attack:
            what = f"contains a backdoor ({self.config.attack})" if self.config.attack else "is clean"
            raise ValueError(
                f"`attack` must be {self.config.attack!r} for this dataset, which {what}; got {attack!r}."
            )
        return build_table(self, normalized=normalized)

    @classmethod
    def from_dataset(cls, dataset: Any, **fields: Any) -> "DistilledDataset":
        """A distilled dataset of images that someone else distilled.

        Args:
            dataset (`datasets.Dataset`): Columns `image` (images of 8 bits, or normalized floats as `to_dataset` gives
                them) and `label` (a `ClassLabel`), with equally many images of each class.
            fields: Fields of [`DoorpingConfig`], such as `image_mean` and `image_std`.

        Raises:
            ValueError: If a class has no image or another number than others, or sizes differ.
        """
        from .dataset_tables import read_table

        return read_table(cls, dataset, fields)

    # Distillation

    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        model: DistillNetwork | None = None,
        augmentation_seed: int | None = None,
    ) -> DistilledDatasetOutput:
        """Loss of the images against a batch of real ones, which the distiller minimizes.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Real images.
            labels (`torch.LongTensor` of shape `(batch_size,)`): Their classes.
            model ([`DistillNetwork`], *optional*): The network; by default `build_network`.
            augmentation_seed (`int`, *optional*): First seed of DSA; by default drawn from torch's generator.

        Returns:
            [`DistilledDatasetOutput`].

        Raises:
            ValueError: If images or labels are missing or do not fit.
        """
        if pixel_values is None or labels is None or len(labels) != len(pixel_values):
            raise ValueError("`pixel_values` and `labels` must be given, one class for each real image.")
        model = self.build_network() if model is None else model
        self.check_fits(model)
        if self.config.algorithm == "dd":
            weights = self.unroll(model)
            loss = functional.cross_entropy(compute_logits(model, weights, pixel_values), labels)
            return DistilledDatasetOutput(loss=loss, weights=weights)
        classes = labels.unique().tolist()
        losses = torch.stack(
            [
                self.compute_class_loss(model, pixel_values[labels == label], label, augmentation_seed)
                for label in classes
            ]
        )
        return DistilledDatasetOutput(loss=losses.sum(), class_losses=losses)

    def compute_class_loss(
        self, network: DistillNetwork, real_images: torch.Tensor, label: int, augmentation_seed: int | None = None
    ) -> torch.Tensor:
        """Distance between the gradients of the synthetic and of real images of one class (DC, DSA)."""
        change: Callable[[torch.Tensor], torch.Tensor] | None = None
        if self.config.algorithm == "dsa":
            if augmentation_seed is None:
                augmentation_seed = int(torch.randint(0, MAX_AUGMENTATION_SEED, ()))
            seed = augmentation_seed

            def change(images: torch.Tensor) -> torch.Tensor:
                return augment(images, self.config.augmentation, seed)

        own = self.synthetic_images[self.synthetic_labels == label]
        return compute_class_distance(network, own, real_images, label, self.config.distance, change)

    def unroll(self, network: DistillNetwork, weights: Mapping[str, torch.Tensor] | None = None) -> Weights:
        """Weights after the steps of DD, with the graph to images and step sizes.

        Args:
            network ([`DistillNetwork`]): The architecture.
            weights (`Mapping[str, torch.Tensor]`, *optional*): The first weights; by default those of `network`.
        """
        return unroll(network, copy_weights(network) if weights is None else dict(weights), self.steps())

    @torch.no_grad()
    def update_trigger(self, network: DistillNetwork, progress: float = 0.0) -> TriggerUpdate:
        """One update of DoorPing's trigger against a network.

        Args:
            network ([`DistillNetwork`]): As it is now; not changed.
            progress (`float`): Share of the distillation that is over, by which `trigger_history` is filled.

        Raises:
            ValueError: If the attack is another one.
        """
        config = self.config
        if config.attack != "doorping":
            raise ValueError(f"`attack` must be 'doorping' for the trigger to be updated; got {config.attack!r}.")
        limits = None
        if config.clamp_trigger:
            black, white = (torch.full((config.num_channels, 1, 1), value) for value in (0.0, 1.0))
            limits = tuple(normalize(v, config.image_mean, config.image_std).to(self.trigger) for v in (black, white))
        update = update_trigger(
            network,
            self.trigger,
            self.trigger_mask,
            layer=config.trigger_layer,
            topk=config.trigger_topk,
            alpha=float(config.trigger_alpha),
            activation=config.trigger_activation,
            learning_rate=float(config.trigger_learning_rate),
            steps=config.trigger_steps,
            loss_threshold=float(config.trigger_loss_threshold),
            skip_dead_neurons=bool(config.skip_dead_neurons),
            limits=limits,
        )
        self.trigger.copy_(update.trigger)
        if config.trigger_history_size:
            slot = min(int(progress * config.trigger_history_size), config.trigger_history_size - 1)
            stop = config.image_size - config.trigger_margin
            patch = slice(stop - config.trigger_size, stop)
            self.trigger_history[slot] = self.trigger[0, :, patch, patch]
        return update


def build_labels(config: DoorpingConfig) -> torch.Tensor:
    """Classes of the images in their order."""
    num_sets = config.distill_steps if config.algorithm == "dd" else 1
    return torch.arange(config.num_labels).repeat_interleave(config.images_per_class // num_sets).repeat(num_sets)


def draw_trigger(config: DoorpingConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """First trigger and mask of an attack; DoorPing's patch comes from torch's global generator."""
    mask = build_mask(config.num_channels, config.image_size, config.trigger_size, config.trigger_margin)
    if config.attack == "naive":
        values = mask * WHITE
    else:
        values = draw_bytes(mask, config.last_trigger_value)
        if config.mask_from_values:
            mask = (values > config.first_trigger_value).to(mask.dtype)
    trigger = normalize(values / WHITE, config.image_mean, config.image_std)
    return trigger[None], mask


__all__ = ["DistilledDataset", "DistilledDatasetOutput", "build_network"]
