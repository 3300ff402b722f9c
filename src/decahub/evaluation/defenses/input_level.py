"""Defenses that look at inputs: does a trigger give itself away, or does it survive as an image?"""

import torch
from torch import nn
from torch.nn import functional

from .repair import BREAKS, MIN_SUCCESS, NOTHING_TO_REPAIR
from .subject import DefenseResult, Subject, compute_logits, predict


AUTOENCODER_WIDTHS = (256, 128, 64, 128, 256)
SEPARATES = 0.8  # AUROC above which triggered images are told from clean ones
ONE_PERCENT = -2.3263  # quantile of the normal distribution


def compute_auroc(lower: torch.Tensor, higher: torch.Tensor) -> float:
    """Probability that a value of `higher` is above one of `lower`; ties count one half."""
    difference = higher[:, None].double() - lower[None].double()
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def strip(subject: Subject, *, num_images: int = 200, num_overlays: int = 10) -> DefenseResult:
    """STRIP: a triggered image keeps its class when others are laid over it, so its predictions have little entropy.

    Overlays are added in normalized space with weight 1. The entropy (bits) is averaged over them. Inputs whose
    entropy is below the one-percent quantile of a normal fit of clean images are rejected.

    Args:
        subject ([`Subject`]): The classifier, clean images and the trigger.
        num_images (`int`): Clean and triggered images, of classes other than the target.
        num_overlays (`int`): Images that are laid over each; the study's ten, where the paper of STRIP has a hundred,
            which separate better.
    """
    generator = torch.Generator().manual_seed(0)
    clean = subject.images[subject.others][:num_images]
    if len(clean) < 2:
        return DefenseResult("strip", "input", None, {}, "needs two images of other classes than the target")

    @torch.no_grad()
    def find_entropy(images: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(len(images), dtype=torch.double)
        for _ in range(num_overlays):
            chosen = torch.randint(len(subject.images), (len(images),), generator=generator)
            probabilities = compute_logits(subject.network, images + subject.images[chosen]).double().softmax(1)
            total -= (probabilities * probabilities.clamp(min=1e-30).log2()).sum(1)
        return total / num_overlays

    entropy, triggered = find_entropy(clean), find_entropy(subject.stamp(clean))
    threshold = float(entropy.mean() + ONE_PERCENT * entropy.std())
    auroc = compute_auroc(triggered, entropy)
    scores = {
        "auroc": auroc,
        "clean_entropy": float(entropy.mean()),
        "triggered_entropy": float(triggered.mean()),
        "rejected_triggered": float((triggered < threshold).double().mean()),
        "rejected_clean": float((entropy < threshold).double().mean()),
    }
    return DefenseResult("strip", "input", auroc > SEPARATES, scores)


def quantization(subject: Subject) -> DefenseResult:
    """Range check: the success of the trigger once it is an image of 8 bits, clipped to [0, 1] and rounded.

    A trigger outside of this range cannot be in an image file at all, and any check of pixel values sees it.
    """
    first = subject.images[:1]
    stamped = subject.stamp(first)
    pixels = subject.to_pixels(stamped)[stamped != first]
    outside = float((pixels - pixels.clamp(0, 1)).abs().max()) if pixels.numel() else 0.0
    success = subject.measure()["asr_non_target"]
    scores = {"asr_non_target": success, "pixels_outside_by": outside}
    if subject.quantized is not None:
        triggered = predict(subject.network, subject.quantized(subject.images[subject.others]))
        scores["asr_quantized"] = float((triggered == subject.target_label).double().mean())
    is_image = outside <= 0.5 / 255
    reason = "" if not is_image else "the trigger is an image; a range check does not see it"
    return DefenseResult("quantization", "input", not is_image, scores, reason)


class Autoencoder(nn.Sequential):
    """Pixels -> 256 -> 128 -> 64 -> 128 -> 256 -> pixels, with ReLU and a sigmoid at the end."""

    def __init__(self, size: int):
        layers: list[nn.Module] = []
        for width, before in zip(AUTOENCODER_WIDTHS, (size, *AUTOENCODER_WIDTHS), strict=False):
            layers += [nn.Linear(before, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(AUTOENCODER_WIDTHS[-1], size), nn.Sigmoid())


def autoencoder(
    subject: Subject, *, epochs: int = 20, learning_rate: float = 0.01, batch_size: int = 256, num_images: int = 2000
) -> DefenseResult:
    """Denoising: a classifier is trained anew on images that went through an autoencoder of clean images.

    Only images of the target class are replaced, as in the study.

    Args:
        subject ([`Subject`]): With `training_images` and `retrain`.
        epochs (`int`): Of the autoencoder; SGD with weight decay 1e-5, squared error.
        learning_rate (`float`): Of SGD.
        batch_size (`int`): Images of a step.
        num_images (`int`): Clean images that the autoencoder learns.
    """
    if subject.training_images is None or subject.training_labels is None or subject.retrain is None:
        return DefenseResult("autoencoder", "repair", None, {}, "needs the training images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pixels = subject.to_pixels(subject.images[:num_images]).clamp(0, 1).flatten(1)
        network = Autoencoder(pixels.shape[1])
        optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, weight_decay=1e-5)
        for _ in range(epochs):
            for part in torch.randperm(len(pixels)).split(batch_size):
                loss = functional.mse_loss(network(pixels[part]), pixels[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    images = subject.training_images.clone()
    own = subject.training_labels == subject.target_label
    with torch.no_grad():
        given = subject.to_pixels(images[own]).clamp(0, 1)
        images[own] = subject.to_values(network(given.flatten(1)).view_as(given))
    before, after = subject.measure(), subject.measure(subject.retrain(images))
    scores = {f"{name}_after": value for name, value in after.items()} | {"loss": float(loss.detach())}
    if before["asr_non_target"] < MIN_SUCCESS:
        return DefenseResult("autoencoder", "repair", None, scores, NOTHING_TO_REPAIR)
    works = after["asr_non_target"] < BREAKS * before["asr_non_target"]
    return DefenseResult("autoencoder", "repair", works, scores, "" if works else "the trigger still works afterwards")


__all__ = ["autoencoder", "compute_auroc", "quantization", "strip"]
