"""PMT-IQA against its reference in plain PyTorch: one image of 512 x 384 pixels, and a training step.

Both have the same weights, and the reference scores 25 crops in all cases of inference.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .timing import Case, Sampler, timed


HEIGHT, WIDTH = 384, 512
NUM_REFERENCE_CROPS = 25


def build_pair():
    """The published model and its reference with the same weights."""
    import torch

    from conversion.convert_pmt_iqa import revert_state_dict
    from decahub import PmtIqaConfig, PmtIqaForImageQualityAssessment

    from .reference_pmt_iqa import ReferencePmtIqa

    torch.manual_seed(0)
    model, reference = PmtIqaForImageQualityAssessment(PmtIqaConfig()), ReferencePmtIqa()
    reference.load_state_dict(revert_state_dict(model.state_dict(), model.config))
    return model.eval(), reference.eval()


def build_crops(num_crops: int, strategy: str = "grid"):
    """What the processor makes of one image."""
    import torch

    from decahub import PmtIqaImageProcessor

    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = PmtIqaImageProcessor(num_crops=num_crops, crop_strategy=strategy)
    return processor(image, return_tensors="pt")["pixel_values"]


def build_scoring(folder: Path, num_crops: int) -> tuple[Sampler, Sampler]:
    model, reference = build_pair()
    return _timed_scoring(partial(model, build_crops(num_crops))), _time_reference(reference)


def build_dense(folder: Path) -> tuple[Sampler, Sampler]:
    model, reference = build_pair()
    return _timed_scoring(partial(model.compute_quality_map, build_crops(1, "dense"))), _time_reference(reference)


def _time_reference(reference) -> Sampler:
    return _timed_scoring(partial(reference, build_crops(NUM_REFERENCE_CROPS)[0]))


def _timed_scoring(score: Callable) -> Sampler:
    import torch

    return timed(torch.inference_mode()(score))


def build_train_step(folder: Path, num_crops: int) -> tuple[Sampler, Sampler]:
    import torch
    from torch.nn import functional

    model, reference = (network.train() for network in build_pair())
    crops, labels, levels = build_crops(num_crops)[0], torch.full((num_crops,), 55.0), torch.full((num_crops,), 5)
    model = model.to(memory_format=torch.channels_last)

    def compute_reference_loss():
        scores, logits = reference(crops)
        return functional.l1_loss(scores.squeeze(-1), labels) + functional.cross_entropy(logits, levels)

    def build_step(network, compute_loss: Callable) -> Callable:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

        def step() -> None:
            compute_loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    ours = build_step(model, lambda: model(crops, labels=labels).loss)
    return timed(ours), timed(build_step(reference, compute_reference_loss))


PLAIN = f"torch: the formulas, {NUM_REFERENCE_CROPS} crops"
CASES = [
    Case("score with 25 crops", PLAIN, partial(build_scoring, num_crops=25)),
    Case("score with 9 crops", PLAIN, partial(build_scoring, num_crops=9)),
    Case("score densely", PLAIN, build_dense),
    Case("train step of 4 crops", "torch: the formulas", partial(build_train_step, num_crops=4)),
]
