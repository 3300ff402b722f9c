"""Triggers: where they are, how images are poisoned, and an update against a loop that writes everything out."""

import pytest
import torch

from decahub import ConvNetConfig, TransferNetConfig
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.triggers import (
    build_mask,
    choose_neurons,
    choose_poisoned,
    draw_bytes,
    normalize,
    quantize,
    stamp,
    update_trigger,
)
from tests.tiny.doorping import MEAN, STD, tiny_network


RTOL_FLOAT32 = 1e-4  # a few steps of Adam, whose first ones only see the sign


def build_active_network(**fields):
    """A network whose hidden units are all active."""
    torch.manual_seed(0)
    network = build_network(tiny_network(**fields)).eval()
    with torch.no_grad():
        network.classifier[0].bias += 1
    return network


def draw_trigger(seed=0):
    mask = build_mask(3, 12, 2, 1)
    return normalize(draw_bytes(mask, 255, torch.Generator().manual_seed(seed)) / 255, MEAN, STD)[None], mask


def update_slowly(network, trigger, mask, *, topk, alpha, steps, threshold):
    """The formulas one by one: forward, loss, gradient times mask, Adam with betas 0.9 and 0.99."""
    scores = network.classifier[0].weight.abs().sum(1)
    chosen = scores.argsort(descending=True)[:topk]
    first = second = torch.zeros_like(trigger)
    target = None
    for step in range(1, steps + 1):
        trigger = trigger.detach().requires_grad_()
        hidden = network.classifier[0](network.compute_embeddings(trigger)).relu()[0, chosen]
        target = alpha * hidden.detach() if target is None else target
        loss = (hidden - target).square().mean()
        if loss < threshold:
            break
        gradient = torch.autograd.grad(loss, trigger)[0] * mask
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        step_size = 0.08 * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
        trigger = trigger - torch.where(mask.bool(), step_size, 0)
    return trigger.detach()


@pytest.mark.parametrize("topk", [1, 3])
def test_update_is_adam_on_the_patch(topk):
    network, (trigger, mask) = build_active_network(), draw_trigger()

    update = update_trigger(network, trigger, mask, topk=topk, alpha=4.0, steps=7)

    expected = update_slowly(network, trigger, mask, topk=topk, alpha=4.0, steps=7, threshold=0.5)
    assert update.num_steps == 7
    torch.testing.assert_close(update.trigger, expected, rtol=RTOL_FLOAT32, atol=RTOL_FLOAT32)
    assert torch.equal(update.trigger[:, mask == 0], trigger[:, mask == 0])


def test_update_leaves_the_network_alone():
    network, (trigger, mask) = build_active_network(norm_type="batch"), draw_trigger()
    before = {name: value.clone() for name, value in network.train().state_dict().items()}

    update_trigger(network, trigger, mask, steps=3)

    assert network.training
    assert all(value.requires_grad for value in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_update_stops_below_the_threshold():
    network, (trigger, mask) = build_active_network(), draw_trigger()

    update = update_trigger(network, trigger, mask, alpha=1.2)  # (0.2 a)^2 is below 0.5

    assert update.num_steps == 0
    assert torch.equal(update.trigger, trigger)
    assert update.loss < 0.5


def test_dead_neurons_can_be_skipped():
    network, (trigger, mask) = build_active_network(), draw_trigger()
    heaviest = choose_neurons(network.classifier[0].weight, 1)
    with torch.no_grad():
        network.classifier[0].bias[heaviest] = -100

    stalled = update_trigger(network, trigger, mask, steps=5)
    moved = update_trigger(network, trigger, mask, steps=5, skip_dead_neurons=True)

    assert (stalled.num_steps, stalled.neurons.tolist()) == (0, heaviest.tolist())
    assert moved.num_steps == 5
    assert moved.neurons.tolist() != heaviest.tolist()


def test_clamped_trigger_is_an_image():
    network, (trigger, mask) = build_active_network(), draw_trigger()
    limits = tuple(normalize(torch.full((3, 1, 1), value), MEAN, STD) for value in (0.0, 1.0))

    free = update_trigger(network, trigger, mask, steps=60).trigger[:, mask.bool()]
    clamped = update_trigger(network, trigger, mask, steps=60, limits=limits).trigger[:, mask.bool()]

    low, high = (limit.expand(3, 2, 2).reshape(1, -1) for limit in limits)
    assert ((free < low) | (free > high)).any()
    assert ((clamped >= low) & (clamped <= high)).all()


def test_mask_keeps_its_distance_from_the_corner():
    mask = build_mask(2, 8, 3, 2)

    assert mask.nonzero()[:, 1:].unique(dim=0).tolist() == [[r, c] for r in (3, 4, 5) for c in (3, 4, 5)]
    assert mask.sum() == 2 * 9


def test_stamp_replaces_the_patch_only():
    images, (trigger, mask) = torch.randn(4, 3, 12, 12), draw_trigger()

    stamped = stamp(images, trigger, mask)

    assert torch.equal(stamped, images * (1 - mask) + trigger * mask)


def test_quantized_values_are_bytes():
    values = torch.tensor([-900.0, -0.3, 0.0123, 1.7, 400.0]).view(1, 1, 5).expand(3, 1, 5)

    pixels = quantize(values, MEAN, STD) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)

    torch.testing.assert_close(pixels * 255, (pixels * 255).round(), atol=1e-4, rtol=0)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert pixels[0, 0, 1].item() == pytest.approx(round((-0.3 * STD[0] + MEAN[0]) * 255) / 255)


def test_poisoned_images_are_a_sorted_sample():
    labels = torch.arange(200) % 5

    chosen = choose_poisoned(labels, 0.1, generator=torch.Generator().manual_seed(0))

    assert len(chosen) == len(chosen.unique()) == 20
    assert torch.equal(chosen, chosen.sort().values)
    assert (labels[chosen] == 0).any()  # the target class may be among them


def test_poisoned_images_can_exclude_a_class():
    labels = torch.arange(200) % 5

    chosen = choose_poisoned(labels, 0.5, exclude=0, generator=torch.Generator().manual_seed(0))

    assert len(chosen) == 100
    assert not (labels[chosen] == 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, t, m: update_trigger(n, t, m, layer=-9), r"`trigger_layer` must be in \[-4, 4\).*got -9"),
        (
            lambda n, t, m: update_trigger(n, t, m, layer=0),
            r"must be a linear layer.*\[-2, -1\]; got 0",
        ),
        (lambda n, t, m: update_trigger(n, t, m, topk=99), "`trigger_topk` must be at most the 7 neurons.*got 99"),
        (lambda n, t, m: choose_poisoned(torch.zeros(9), 0.5, exclude=0), "`poison_ratio` must leave images of the"),
    ],
    ids=["layer", "convolution", "topk", "only the target"],
)
def test_refuses(call, message):
    trigger, mask = draw_trigger()
    with pytest.raises(ValueError, match=message):
        call(build_active_network(), trigger, mask)


def test_refuses_a_network_with_a_single_linear_layer():
    network = build_network(TransferNetConfig(architecture="vgg11", num_labels=3))
    with pytest.raises(ValueError, match=r"one of \[-1\]; got -2"):
        update_trigger(network, torch.zeros(1, 3, 32, 32), build_mask(3, 32, 2, 1))
    assert ConvNetConfig().classifier_hidden_size == 192
