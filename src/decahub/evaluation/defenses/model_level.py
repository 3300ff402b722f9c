"""Defenses that look at a classifier: is there a small change of any image that leads to one class?"""

from typing import Any

import torch
from torch.nn import functional

from decahub.models.doorping.triggers import frozen

from .subject import DefenseResult, Subject, compute_anomalies, compute_logits, compute_representations, predict


ANOMALY_THRESHOLD = 2.0
STIMULATIONS = (0.0, 0.5, 1.0, 2.0)  # multiples of the largest activation of the layer
REVERSED_THRESHOLD = 0.2  # success rate of a reversed trigger
MAX_MASK_SHARE = 0.04  # of the pixels, in ABS


def neural_cleanse(
    subject: Subject,
    *,
    steps: int = 300,
    patience: int = 30,
    learning_rate: float = 0.05,
    mask_weight: float = 0.01,
    batch_size: int = 64,
) -> DefenseResult:
    """Neural Cleanse: a class that all images can be led to by a far smaller patch than to others is suspicious.

    Per class it minimizes `CE((1 - m) x + m t, class) + mask_weight * |m|_1` over a mask and a pattern in [0, 1],
    which begin uniformly. A class is flagged if its norm is below the median by more than two deviations (by the
    median absolute deviation). The authors run up to 100 epochs with a learning rate of 0.005; here steps are counted,
    with a larger rate.

    Args:
        subject ([`Subject`]): The classifier and clean images.
        steps (`int`): Steps for each class at most.
        patience (`int`): Groups of ten steps without a smaller norm that end the search.
        learning_rate (`float`): Of Adam.
        mask_weight (`float`): Weight of the norm.
        batch_size (`int`): Images of a step.
    """
    norms, rates, found = [], [], {}
    generator = torch.Generator().manual_seed(0)
    with frozen(subject.network):
        for label in range(subject.num_classes):
            mask, pattern = _search_patch(
                subject, label, generator, steps, patience, learning_rate, mask_weight, batch_size
            )
            norms.append(float(mask.sum()))
            patched = _apply(subject, subject.images, mask, pattern)
            rates.append(float((predict(subject.network, patched) == label).double().mean()))
            found[label] = (mask * pattern).clamp(0, 1)
    values = torch.tensor(norms)
    anomalies = compute_anomalies(values)
    flagged = [
        label
        for label in range(subject.num_classes)
        if anomalies[label] > ANOMALY_THRESHOLD and values[label] < values.median()
    ]
    smallest = int(values.argmin())
    scores = {
        "smallest_norm": norms[smallest],
        "median_norm": float(values.median()),
        "anomaly_index": float(anomalies[smallest]),
        "suspected_label": float(smallest),
        "success_of_found_patch": rates[smallest],
        **{f"norm_of_class_{label}": norm for label, norm in enumerate(norms)},
    }
    images = {f"class {label}": found[label].detach() for label in dict.fromkeys([smallest, subject.target_label])}
    suspects = ", ".join(map(str, flagged))
    return DefenseResult(
        "neural_cleanse", "model", bool(flagged), scores, f"flagged classes: {suspects}" if flagged else "", images
    )


def _apply(subject: Subject, images: torch.Tensor, mask: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    return (1 - mask) * images + mask * subject.to_values(pattern)


def _search_patch(
    subject: Subject,
    label: int,
    generator: torch.Generator,
    steps: int,
    patience: int,
    learning_rate: float,
    mask_weight: float,
    batch_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = subject.images.shape[1:]
    mask = torch.rand(1, *shape[1:], generator=generator).requires_grad_()
    pattern = torch.rand(shape, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([mask, pattern], lr=learning_rate, betas=(0.5, 0.9))
    best, waited = float("inf"), 0
    for step in range(steps):
        chosen = torch.randint(len(subject.images), (batch_size,), generator=generator)
        logits = compute_logits(subject.network, _apply(subject, subject.images[chosen], mask, pattern))
        wanted = torch.full((batch_size,), label)
        loss = functional.cross_entropy(logits, wanted) + mask_weight * mask.abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
            pattern.clamp_(0, 1)
        if step % 10 == 9:
            norm = float(mask.detach().sum())
            waited = 0 if norm < best - 1e-3 else waited + 1
            best = min(best, norm)
            if waited >= patience:
                break
    return mask.detach(), pattern.detach()


def artificial_brain_stimulation(
    subject: Subject, *, num_images: int = 64, steps: int = 50, learning_rate: float = 0.4, mask_weight: float = 50.0
) -> DefenseResult:
    """ABS on the last hidden layer: is there one neuron that decides for a class, and can an image patch drive it?

    Each neuron is set to multiples of the layer's largest activation; the one that raises the logit of a class most,
    above all others, is the candidate of the class. A patch of 4 % of the pixels is then sought that drives the
    candidate. The classifier is flagged if a patch takes more than a fifth of the images of other classes there. The
    study allows 400 pixels, with which clean classifiers are flagged as well, and stimulates two layers, of which the
    last is looked at here.

    Args:
        subject ([`Subject`]): The classifier and clean images.
        num_images (`int`): Clean images that are stimulated and patched.
        steps (`int`): Of the search for a patch.
        learning_rate (`float`): Of the mask.
        mask_weight (`float`): Weight of pixels above the allowed number.
    """
    images, network = subject.images[:num_images], subject.network
    with frozen(network):
        candidates = _find_candidates(subject, images)
        rates, found = [], {}
        for label, neuron in enumerate(candidates):
            mask, pattern = _drive_neuron(subject, images, neuron, steps, learning_rate, mask_weight)
            others = subject.images[subject.labels != label]
            predicted = predict(network, _apply(subject, others, mask, pattern))
            rates.append(float((predicted == label).double().mean()))
            found[label] = (mask * pattern).clamp(0, 1)
    best = max(range(len(rates)), key=rates.__getitem__)
    scores = {
        "success_of_reversed_patch": rates[best],
        "suspected_label": float(best),
        "success_for_target": rates[subject.target_label],
        **{f"success_of_class_{label}": rate for label, rate in enumerate(rates)},
    }
    return DefenseResult(
        "abs", "model", rates[best] > REVERSED_THRESHOLD, scores, images={f"class {best}": found[best].detach()}
    )


@torch.no_grad()
def _find_candidates(subject: Subject, images: torch.Tensor) -> list[int]:
    """For each class the neuron whose stimulation raises its logit most above the others."""
    hidden = compute_representations(subject.network, images)
    layers = subject.network.classifier
    last: Any = layers[-1] if isinstance(layers, torch.nn.Sequential) else layers
    largest = hidden.max()
    margins = torch.full((hidden.shape[1], subject.num_classes), float("-inf"))
    logits = last(hidden).mean(0)
    for factor in STIMULATIONS:
        # Setting one neuron changes the logits by its weights times the change.
        change = (factor * largest - hidden.mean(0))[:, None] * last.weight.T + logits
        top = change.topk(2, dim=1).values
        best_other = torch.where(change == top[:, :1], top[:, 1:], top[:, :1])
        margins = torch.maximum(margins, change - best_other)
    return margins.argmax(0).tolist()


def _drive_neuron(
    subject: Subject, images: torch.Tensor, neuron: int, steps: int, learning_rate: float, mask_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = images.shape[1:]
    allowed = MAX_MASK_SHARE * shape[1] * shape[2]
    raw = torch.zeros(1, *shape[1:], requires_grad=True)
    pattern = torch.full(shape, 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([raw, pattern], lr=learning_rate)
    layers = subject.network.classifier
    front = list(layers)[:-1] if isinstance(layers, torch.nn.Sequential) else []
    for _ in range(steps):
        mask = raw.sigmoid()
        values = subject.network.compute_embeddings(_apply(subject, images, mask, pattern))
        for layer in front:
            values = layer(values)
        excess = (mask.sum() - allowed).clamp(min=0) / allowed
        loss = -values[:, neuron].mean() + mask_weight * excess
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            pattern.clamp_(0, 1)
    return raw.detach().sigmoid(), pattern.detach()


__all__ = ["artificial_brain_stimulation", "neural_cleanse"]
