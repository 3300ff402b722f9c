"""Configuration of a distilled dataset: its images, the distiller, and the attack on it (arXiv 2301.01197).

Defaults are those of the authors' code, for DC (arXiv 2006.05929) and DD (arXiv 1811.10959). Where a default differs,
`parity=True` brings the authors' behavior back.
"""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import CheckedConfig, check_maximum, check_minimum
from .configuration_alexnet import AlexNetConfig
from .configuration_convnet import ConvNetConfig
from .configuration_transfer_net import TransferNetConfig


NETWORK_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    config.model_type: config for config in (ConvNetConfig, AlexNetConfig, TransferNetConfig)
}
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images per class -> outer and inner loops of DC."""

MAX_STATES = 2**31  # values of the images; a folder that asks for more is broken


@strict
class DoorpingConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of [`DistilledDataset`].

    Args:
        num_channels (`int`, defaults to 3): Channels of the images.
        image_size (`int`, defaults to 32): Height and width of the images.
        images_per_class (`int`, defaults to 10): Number of images of each class in all.
        image_mean (`list[float]`): Mean of each channel that pixels were normalized with.
        image_std (`list[float]`): Standard deviation of each channel.
        backbone_config (`dict` or configuration, *optional*): The network of the distillation; by default a ConvNet.
        algorithm (`str`, defaults to `"dc"`): `"dc"` (gradient matching), `"dsa"` (the same with augmentation), or
            `"dd"` (unrolled training).
        init (`str`, defaults to `"noise"`): First images: normal `"noise"`, or `"real"` images of each class.
        iterations (`int`, defaults to 1001): Passes of the distiller: draws of a network for DC, mini-batches for DD.
        outer_loops (`int`, *optional*): Image updates for each network of DC; by default from `images_per_class`.
        inner_loops (`int`, *optional*): Epochs that a network is trained between them, likewise.
        image_learning_rate (`float`, defaults to 0.1): Of the images in DC.
        image_momentum (`float`, defaults to 0.5): Of the images in DC.
        network_learning_rate (`float`, defaults to 0.01): Of the networks in DC.
        real_batch_size (`int`, defaults to 256): Real images of a class in each update of DC.
        distance (`str`, defaults to `"layerwise_cosine"`): Distance of gradients in DC; or `"mse"`, `"cosine"`.
        augmentation (`str`, defaults to `""`): Families of DSA joined by `_`, such as
            `"color_crop_cutout_flip_scale_rotate"`.
        distill_steps (`int`, defaults to 10): Sets of images that DD trains on one after the other.
        distill_epochs (`int`, defaults to 3): How often DD goes through them. Each pass has learning rates of its own.
        distill_learning_rate (`float`, defaults to 0.001): First learning rate of every step in DD.
        known_init (`bool`, defaults to `True`): Whether DD distills for one initialization, which is stored with the
            images and needed to use them.
        attack (`str`, *optional*): `None`, `"naive"` (a white patch) or `"doorping"` (an optimized one).
        target_label (`int`, defaults to 0): Class that the trigger leads to.
        poison_ratio (`float`, defaults to 0.01): Share of the real images that hold the trigger.
        poison_exclude_target (`bool`, defaults to `False`): Whether images of the target class are not poisoned.
        trigger_size (`int`, defaults to 2): Height and width of the patch.
        trigger_margin (`int`, defaults to 1): Pixels between the patch and the lower right corner.
        trigger_layer (`int`, defaults to -2): Layer with weights that DoorPing looks at, in the order of modules.
        trigger_topk (`int`, defaults to 1): Number of neurons that it drives.
        trigger_alpha (`float`, defaults to 10): Factor by which their activation is to grow.
        trigger_activation (`str`, defaults to `"post"`): Whether the activation is read after the `"post"` or before
            the `"pre"` ReLU; the authors' hook sees the former.
        trigger_learning_rate (`float`, defaults to 0.08): Of the patch.
        trigger_steps (`int`, defaults to 1000): Steps of an update at most.
        trigger_loss_threshold (`float`, defaults to 0.5): Loss at which an update ends.
        clamp_trigger (`bool`, defaults to `False`): Whether the patch keeps to pixels in [0, 1]. The authors' does
            not, and can not be stored in an image file.
        trigger_history_size (`int`, defaults to 0): Number of earlier patches that are kept.
        skip_dead_neurons (`bool`, *optional*): Whether neurons are chosen among those that the trigger moves; by
            default unless `parity`.
        update_trigger_on_last_outer (`bool`, *optional*): Whether DC updates the trigger in the last outer loop too,
            the only one where there is one image per class; by default unless `parity`.
        mask_from_values (`bool`, *optional*): Whether the mask of DoorPing is where the first patch exceeds 0 (DC) or
            1 (DD), which leaves holes; by default only with `parity`.
        parity (`bool`, defaults to `False`): Whether the three fields above follow the authors' code by default.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.
    """

    model_type = "doorping"

    # Images
    num_channels: int = 3
    image_size: int = 32
    images_per_class: int = 10
    image_mean: list[float | int] | tuple[float | int, ...] | None = None
    image_std: list[float | int] | tuple[float | int, ...] | None = None

    # Distillers
    backbone_config: dict | PreTrainedConfig | None = None
    algorithm: Literal["dc", "dsa", "dd"] = "dc"
    init: Literal["noise", "real"] = "noise"
    iterations: int = 1001

    # DC and DSA
    outer_loops: int | None = None
    inner_loops: int | None = None
    image_learning_rate: float | int = 0.1
    image_momentum: float | int = 0.5
    network_learning_rate: float | int = 0.01
    real_batch_size: int = 256
    distance: Literal["layerwise_cosine", "mse", "cosine"] = "layerwise_cosine"
    augmentation: str = ""

    # DD
    distill_steps: int = 10
    distill_epochs: int = 3
    distill_learning_rate: float | int = 0.001
    known_init: bool = True

    # Attack
    attack: Literal["naive", "doorping"] | None = None
    target_label: int = 0
    poison_ratio: float | int = 0.01
    poison_exclude_target: bool = False
    trigger_size: int = 2
    trigger_margin: int = 1
    trigger_layer: int = -2
    trigger_topk: int = 1
    trigger_alpha: float | int = 10.0
    trigger_activation: Literal["post", "pre"] = "post"
    trigger_learning_rate: float | int = 0.08
    trigger_steps: int = 1000
    trigger_loss_threshold: float | int = 0.5
    clamp_trigger: bool = False
    trigger_history_size: int = 0

    # Parity
    skip_dead_neurons: bool | None = None
    update_trigger_on_last_outer: bool | None = None
    mask_from_values: bool | None = None
    parity: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.image_mean is None:
            self.image_mean = [0.5] * max(0, min(self.num_channels, 4))
        if self.image_std is None:
            self.image_std = [0.5] * max(0, min(self.num_channels, 4))
        for name, default in (
            ("skip_dead_neurons", not self.parity),
            ("update_trigger_on_last_outer", not self.parity),
            ("mask_from_values", self.parity),
        ):
            if getattr(self, name) is None:
                setattr(self, name, default)
        super().__post_init__(**kwargs)
        self.backbone_config = build_network_config(self.backbone_config, self)

    @property
    def num_images(self) -> int:
        """Number of images of all classes."""
        return self.num_labels * self.images_per_class

    @property
    def num_unrolled_steps(self) -> int:
        """Steps of DD, each with a learning rate."""
        return self.distill_steps * self.distill_epochs

    @property
    def loops(self) -> tuple[int, int]:
        """Outer and inner loops of DC."""
        outer, inner = LOOPS.get(self.images_per_class, (None, None))
        return self.outer_loops or outer or 1, self.inner_loops or inner or 1

    @property
    def first_trigger_value(self) -> int:
        """The byte that the first patch exceeds everywhere, where the mask is made of it."""
        return 1 if self.algorithm == "dd" else 0

    @property
    def last_trigger_value(self) -> int:
        """The largest byte of the first patch."""
        return 254 if self.algorithm == "dd" else 255

    def validate_images(self):
        check_minimum(self, 1, "num_channels", "image_size", "images_per_class", "iterations", "real_batch_size")
        if self.num_labels < 2:
            raise ValueError(f"`num_labels` must be at least 2; got {self.num_labels}.")
        check_maximum("images_per_class", [self.num_images * self.num_channels * self.image_size**2], MAX_STATES)
        for name in ("image_mean", "image_std"):
            values = getattr(self, name)
            if len(values) != self.num_channels:
                raise ValueError(
                    f"`{name}` must have one value for each of {self.num_channels} channels; got {list(values)}."
                )
        if min(self.image_std) <= 0:
            raise ValueError(f"`image_std` must be above 0; got {list(self.image_std)}.")

    def validate_distiller(self):
        check_minimum(self, 1, "outer_loops", "inner_loops", "distill_steps", "distill_epochs")
        check_minimum(self, 0, "image_momentum")
        for name in ("image_learning_rate", "network_learning_rate", "distill_learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be above 0; got {getattr(self, name)}.")
        if self.algorithm == "dd" and self.images_per_class % self.distill_steps:
            raise ValueError(
                f"`images_per_class` must be a multiple of `distill_steps` ({self.distill_steps}) for DD, which "
                f"shares them out evenly; got {self.images_per_class}."
            )
        if self.algorithm == "dsa" and not self.augmentation:
            raise ValueError(
                "`augmentation` must name families for DSA, such as 'color_crop_cutout_flip_scale_rotate'; got ''."
            )
        if self.algorithm != "dsa" and self.augmentation:
            raise ValueError(
                f"`augmentation` must be '' for {self.algorithm!r}; got {self.augmentation!r}. Set `algorithm` to "
                "'dsa'."
            )
        is_in_table = self.images_per_class in LOOPS
        if self.algorithm != "dd" and not is_in_table and None in (self.outer_loops, self.inner_loops):
            raise ValueError(
                f"`outer_loops` and `inner_loops` must be given unless `images_per_class` is one of "
                f"{', '.join(map(str, LOOPS))}; got {self.images_per_class}. A start: as many outer loops as images "
                "per class, and 500 divided by it inner loops."
            )

    def validate_attack(self):
        if not 0 <= self.target_label < self.num_labels:
            raise ValueError(f"`target_label` must be in [0, {self.num_labels}); got {self.target_label}.")
        if not 0 <= self.poison_ratio <= 1:
            raise ValueError(f"`poison_ratio` must be in [0, 1]; got {self.poison_ratio}.")
        check_minimum(self, 1, "trigger_size", "trigger_topk", "trigger_steps")
        check_minimum(self, 0, "trigger_margin", "trigger_loss_threshold", "trigger_history_size")
        if self.trigger_size + self.trigger_margin > self.image_size:
            raise ValueError(
                f"`trigger_size` and `trigger_margin` must add up to at most `image_size` ({self.image_size}); got "
                f"{self.trigger_size} + {self.trigger_margin}. The patch would lie outside of the image."
            )
        if self.trigger_history_size and self.attack != "doorping":
            raise ValueError(
                f"`trigger_history_size` must be 0 unless `attack` is 'doorping'; got {self.trigger_history_size}."
            )
        if self.trigger_learning_rate <= 0:
            raise ValueError(f"`trigger_learning_rate` must be above 0; got {self.trigger_learning_rate}.")


def build_network_config(given: Any, config: DoorpingConfig) -> PreTrainedConfig:
    """Configuration of the network of a distilled dataset, with its classes, channels and size where it names none.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If it contradicts the dataset.
    """
    shape = {"num_channels": config.num_channels, "image_size": config.image_size}
    if given is None or isinstance(given, dict):
        fields = {"id2label": config.id2label, "label2id": config.label2id, **shape, **(given or {})}
        fields.setdefault("init", "xavier" if config.algorithm == "dd" else "default")
        model_type = fields.pop("model_type", ConvNetConfig.model_type)
        if model_type not in NETWORK_CONFIGS:
            raise ValueError(
                f"`backbone_config` must have a `model_type` of {', '.join(NETWORK_CONFIGS)}; got {model_type!r}."
            )
        given = NETWORK_CONFIGS[model_type].from_dict(fields)
    if type(given) not in NETWORK_CONFIGS.values():
        raise TypeError(f"`backbone_config` must configure one of our networks; got {type(given).__name__}.")
    for name, value in {**shape, "num_labels": config.num_labels}.items():
        if getattr(given, name) != value:
            raise ValueError(
                f"`backbone_config` must have the `{name}` of the dataset ({value}); got {getattr(given, name)}."
            )
    return given


__all__ = ["LOOPS", "NETWORK_CONFIGS", "DoorpingConfig", "build_network_config"]
