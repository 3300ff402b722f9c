"""Distances of gradients against loops over rows, and unrolled training against plain gradient descent."""

import pytest
import torch
from torch.nn import functional

from decahub.models.doorping.augmentation import augment
from decahub.models.doorping.downstream import train_on_images
from decahub.models.doorping.matching import compute_class_distance, compute_distance
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.unrolling import copy_weights, flatten_weights, unflatten_weights, unroll
from tests.tiny.doorping import draw_real_images, tiny_network


RTOL_FLOAT64 = 1e-9


def draw_gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3, 2, 2), (4,), (5, 8), (5,), (3, 2, 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def compute_row_cosine(a, b):
    return 1 - (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt() + 1e-6)


def test_layerwise_cosine_is_a_sum_over_rows():
    first, second = draw_gradients(0), draw_gradients(1)
    expected = sum(
        compute_row_cosine(a_row, b_row)
        for a, b in zip(first, second, strict=True)
        if a.ndim > 1
        for a_row, b_row in zip(a, b, strict=True)
    )

    torch.testing.assert_close(compute_distance(first, second), expected, rtol=RTOL_FLOAT64, atol=0)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_other_distances_look_at_all_values(distance):
    first, second = draw_gradients(0), draw_gradients(1)
    a, b = torch.cat([g.flatten() for g in first]), torch.cat([g.flatten() for g in second])
    expected = (a - b).square().sum() if distance == "mse" else compute_row_cosine(a, b)

    torch.testing.assert_close(compute_distance(first, second, distance), expected, rtol=RTOL_FLOAT64, atol=0)


def test_dead_rows_cost_one_and_have_a_finite_gradient():
    first, second = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)

    distance = compute_distance([first], [second])
    distance.backward()

    assert distance == 2
    assert first.grad.isfinite().all()


@pytest.mark.parametrize("distance", ["layerwise_cosine", "mse", "cosine"])
def test_gradient_of_a_class_distance_is_that_of_finite_differences(distance):
    torch.manual_seed(0)
    network = build_network(tiny_network(hidden_act="sigmoid")).double()
    images, _ = draw_real_images()
    synthetic = torch.randn(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(synthetic)
    step = 1e-5

    def compute(shift):
        return compute_class_distance(network, synthetic + shift, images[:5].double(), 1, distance)

    (gradient,) = torch.autograd.grad(compute(0), synthetic)
    numerical = (compute(step * direction) - compute(-step * direction)) / (2 * step)

    torch.testing.assert_close((gradient * direction).sum(), numerical, rtol=1e-5, atol=1e-9)


def test_unrolling_is_gradient_descent():
    torch.manual_seed(0)
    network = build_network(tiny_network()).double()
    images, labels = draw_real_images()
    steps = [
        (images[:6].double(), labels[:6], torch.tensor(0.3)),
        (images[9:].double(), labels[9:], torch.tensor(0.1)),
    ]

    weights = unroll(network, copy_weights(network), steps, differentiable=False)

    for batch, classes, step_size in steps:
        network.zero_grad()
        functional.cross_entropy(network(batch).logits, classes).backward()
        with torch.no_grad():
            for value in network.parameters():
                value -= step_size * value.grad
    for name, value in network.named_parameters():
        torch.testing.assert_close(weights[name], value.detach(), rtol=RTOL_FLOAT64, atol=0)


def test_weights_survive_flattening():
    network = build_network(tiny_network())
    weights = copy_weights(network)

    restored = unflatten_weights(network, flatten_weights(weights))

    assert all(torch.equal(restored[name], value) for name, value in weights.items())
    with pytest.raises(ValueError, match=r"`flat` must hold the \d+ weights of ConvNet\w+; got 3"):
        unflatten_weights(network, torch.zeros(3))


def test_augmentation_without_a_seed_draws_for_each_image():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 10).expand(6, -1, -1, -1)

    own, shared = augment(images, "scale"), augment(images, "scale", seed=5)

    assert not torch.equal(own[0], own[1])
    assert torch.equal(shared[0], shared[1])


def test_augmentation_refuses_an_unknown_family():
    with pytest.raises(ValueError, match="`augmentation` must join families of color, .* by '_'; got 'crop_colour'"):
        augment(torch.zeros(1, 3, 4, 4), "crop_colour")


def test_downstream_training_learns_the_images():
    torch.manual_seed(0)
    images, labels = draw_real_images()
    network = build_network(tiny_network())

    accuracy = train_on_images(network, images, labels, epochs=60, learning_rate=0.05, batch_size=10)

    assert accuracy > 0.9
    assert not network.training


def test_downstream_training_refuses_images_without_labels():
    images, labels = draw_real_images()
    with pytest.raises(ValueError, match=r"`labels` must have one class for each of at least one image; got \(3,\)"):
        train_on_images(build_network(tiny_network()), images, labels[:3])


def test_downstream_training_refuses_negative_epochs():
    images, labels = draw_real_images()
    with pytest.raises(ValueError, match="`epochs` must be at least 0; got -1"):
        train_on_images(build_network(tiny_network()), images, labels, epochs=-1)
