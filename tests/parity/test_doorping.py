"""The networks, distillers and attacks compute the authors' numbers: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder. Other files of the same kinds
can be checked through `DECAHUB_GOLDEN_DIR`: networks, shapes and settings are read from the files.
"""

import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.nn import functional

from decahub import AlexNetConfig, ConvNetConfig, DistilledDataset, DoorpingConfig, TransferNetConfig
from decahub.models.doorping.augmentation import FAMILIES, augment
from decahub.models.doorping.downstream import train_epoch, train_on_images
from decahub.models.doorping.image_processing_doorping import DoorpingImageProcessor, stamp_white
from decahub.models.doorping.image_processing_pil_doorping import DoorpingImageProcessorPil
from decahub.models.doorping.matching import compute_class_distance
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.networks import ClassifierLogits
from decahub.models.doorping.triggers import TriggeredNeurons, stamp, update_trigger
from decahub.models.doorping.unrolling import compute_logits, copy_weights, flatten_weights, unflatten_weights
from tests.parity.golden import Golden, golden_params


# All are relative to the largest value of the stored tensor, as the golden README wants: float32 on another CPU.
NETWORK_RTOL = 1e-5
FORMULA_RTOL = 1e-4
MATCHING_RTOL = 1e-4
META_RTOL = 1e-4
IMAGES_RTOL = 1e-3
DOWNSTREAM_RTOL = 1e-4
WAY_BACK_RTOL = 5e-3  # without training: 4e-2. A unit of 192 with its ReLU's kink on the way has no exact way back
AUGMENTATION_RTOL = 1e-5
FEW_STEPS_RTOL = 1e-5
FIFTY_STEPS_RTOL = 1e-3
FINAL_RTOL = 5e-2  # hundreds of steps of Adam amplify rounding
PIXEL_ATOL = 1e-6

KNOWN_KEYS = {
    "convnet": [r"\w+\.(embed|labels|pixel_values|sd\..+|out\.(logits|loss|input_grad|grad\..+))"],
    "formula_nets": [r"\w+\.(labels|pixel_values|out\.(logits|loss|input_grad|grad\..+))"],
    "matching_loss": [r"case\d+\.(sd\..+|real|syn|label|(ours|mse|cos)\.(distance|syn_grad))"],
    "dc_iteration": [
        r"\w+\.(losses|mask|poison_indices|real_after_stamp|real_labels|syn0|trigger0)",
        r"\w+\.(net\d+\.(sd|after)\..+|syn_after_it\d+|trigger_it\d+_ol\d+)",
    ],
    "trigger_update": [
        r"case\d+\.(sd\..+|mask|trigger0|trigger_final|neurons|params|pre_relu|recorded|final_recorded|forward_calls)",
        r"case\d+\.patch_after_\d+_steps",
    ],
    "dd_meta_gradient": [
        r"\w+\.(flat_w|images0|labels|raw_lr0|real|real_labels|mask|poison_positions|trigger0)",
        r"\w+\.b\d+\.(images_after|images_grad|loss|raw_lr_after|raw_lr_grad|real_stamped_idx_labels|trigger_patch)",
        r"\w+\.b\d+\.w_(\d+|T)",
    ],
    "dsa": [r"x|mixed|\w+\.siamese_seed\d+(_b\d+)?"],
    "downstream_training": [
        r"sd0\..+|sd_final\..+|train_acc|cta|asr|syn|syn_labels|test_x|test_y|mask|trigger|epochs",
    ],
    "preprocessing": [
        r"labels|normalized|raw_uint8|resized_uint8|stamped_normalized|stamped_uint8|trigger_size",
    ],
}
NORMS = {
    "none": "none",
    "batchnorm": "batch",
    "layernorm": "layer",
    "instancenorm": "instance",
    "groupnorm": "group",
}
ACTS = {"relu": "relu", "sigmoid": "sigmoid", "leakyrelu": "leaky_relu"}
POOLS = {"avgpooling": "avg", "maxpooling": "max", "none": "none"}
DISTANCES = {"ours": "layerwise_cosine", "mse": "mse", "cos": "cosine"}


def assert_close(actual, expected, rtol: float, what: str = "value") -> None:
    """Compares relative to the largest stored value."""
    actual, expected = torch.as_tensor(actual).detach().double(), torch.as_tensor(expected).double()
    atol = rtol * max(float(expected.abs().max()), 1e-12)
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, msg=lambda message: f"{what}: {message}")


def list_cases(golden: Golden) -> list[str]:
    return sorted({key.split(".")[0] for key in golden.tensors})


def build_convnet(state_dict: dict, images: torch.Tensor, **fields):
    """The ConvNet of a state dict, whose shapes tell everything but activation and pooling."""
    convs = [value for value in state_dict.values() if value.ndim == 4]
    places = sorted({int(key.split(".")[1]) for key in state_dict if key.startswith("features.")})
    if "norm_type" not in fields and any(place % 4 == 1 for place in places) and places[1] == 1:
        fields["norm_type"] = "instance"
    config = ConvNetConfig(
        num_channels=images.shape[-3],
        image_size=images.shape[-1],
        hidden_size=len(convs[0]),
        num_hidden_layers=len(convs),
        num_labels=len(state_dict["classifier.2.bias"]),
        classifier_hidden_size=len(state_dict["classifier.0.bias"]),
        **fields,
    )
    network = build_network(config)
    network.load_state_dict(state_dict)
    return network.eval()


def check_outputs(network, pixel_values, labels, expected: dict, rtol: float) -> None:
    pixel_values = pixel_values.clone().requires_grad_()
    outputs = network(pixel_values, labels=labels)
    outputs.loss.backward()
    parameters = dict(network.named_parameters())

    assert_close(outputs.logits, expected.pop("logits"), rtol, "logits")
    assert_close(outputs.loss, expected.pop("loss"), rtol, "loss")
    assert_close(pixel_values.grad, expected.pop("input_grad"), rtol, "gradient of the images")
    assert expected
    for key, value in expected.items():
        name = key.removeprefix("grad.")
        gradient = parameters[name].grad if name in parameters else parameters[name.removesuffix(".norm")].grad.norm()
        assert_close(gradient, value, rtol, key)


@pytest.mark.parametrize("golden", golden_params("doorping"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


# --- Networks


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "convnet", list_cases))
def test_convnet(golden, case):
    about = dict(item.split("=") for item in golden.metadata[case].split())
    images = golden[f"{case}.pixel_values"]
    fields = {"norm_type": NORMS[about["norm"]], "hidden_act": ACTS[about["act"]], "pooling": POOLS[about["pool"]]}
    network = build_convnet(golden.group(f"{case}.sd."), images, **fields)
    assert network.config.num_hidden_layers == int(about["depth"])

    with torch.no_grad():
        embeddings = network.compute_embeddings(images)

    assert_close(embeddings, golden[f"{case}.embed"], NETWORK_RTOL, "embeddings")
    check_outputs(network, images, golden[f"{case}.labels"], golden.group(f"{case}.out."), NETWORK_RTOL)


def fill_by_formula(shapes: dict[str, list[int]], offset: int) -> dict[str, torch.Tensor]:
    """Weights of a network, as the golden README defines them."""
    weights = {}
    for number, (name, shape) in enumerate(shapes.items()):
        index = np.arange(int(np.prod(shape)), dtype=np.float64)
        wave = np.sin(12.9898 * index + 78.233 * (number + offset)) * 43758.5453
        values = 2 * (wave - np.floor(wave)) - 1
        if len(shape) > 1:
            values *= np.sqrt(6 / (values.size / shape[0]))
        else:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.01 * values
        weights[name] = torch.from_numpy(values.reshape(shape)).float()
    return weights


def build_formula_network(case: str, shapes: dict[str, list[int]], num_channels: int):
    fields = {"num_channels": num_channels, "num_labels": list(shapes.values())[-1][0]}
    if case.startswith("convnet"):
        return build_network(ConvNetConfig(hidden_size=next(iter(shapes.values()))[0], **fields))
    if case.startswith("alexnet"):
        return build_network(AlexNetConfig(**fields))
    return build_network(TransferNetConfig(architecture=re.match(r"vgg11|resnet18", case)[0], **fields))


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "formula_nets", list_cases))
def test_full_networks(golden, case):
    layout, _, count = golden.metadata[case].partition(" params=")
    parts = (item.split(":") for item in layout.rstrip(";").split(";"))
    shapes = {name.strip(): [int(side) for side in shape.split("x")] for name, shape in parts}
    images = golden[f"{case}.pixel_values"]
    network = build_formula_network(case, shapes, images.shape[1])

    network.load_state_dict(fill_by_formula(shapes, int(golden.metadata["offset"])))

    assert list(network.state_dict()) == list(shapes)
    assert sum(value.numel() for value in network.parameters()) == int(count or sum(map(np.prod, shapes.values())))
    check_outputs(network.eval(), images, golden[f"{case}.labels"], golden.group(f"{case}.out."), FORMULA_RTOL)


# --- Gradient matching


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "matching_loss", list_cases))
def test_matching_distance(golden, case, name):
    synthetic = golden[f"{case}.syn"].clone().requires_grad_()
    network = build_convnet(golden.group(f"{case}.sd."), synthetic)

    distance = compute_class_distance(
        network, synthetic, golden[f"{case}.real"], int(golden[f"{case}.label"]), DISTANCES[name]
    )
    (gradient,) = torch.autograd.grad(distance, synthetic)

    assert_close(distance, golden[f"{case}.{name}.distance"], MATCHING_RTOL, "distance")
    assert_close(gradient, golden[f"{case}.{name}.syn_grad"], MATCHING_RTOL, "gradient")


INNER_LOOPS = 3  # of the attacked case, as the golden README says; the other one has a single loop
CORRECTIONS = 8  # each makes the error of the start smaller by a factor of five


def find_start(end: dict[str, torch.Tensor], train, is_end: bool) -> dict[str, torch.Tensor]:
    """Weights from which `train` leads to `end`, where a file stores the end under the name of the start.

    The authors' networks are trained in place, and the stored start is a reference to them: it equals the end.
    Training changes weights little, so the start is found by going back as far as `train` goes forth.
    """
    start = dict(end)
    for _ in range(CORRECTIONS if is_end else 0):
        reached = train(start)
        start = {name: start[name] + end[name] - reached[name] for name in end}
    return start


def build_dc_dataset(golden: Golden, case: str) -> DistilledDataset:
    images, labels = golden[f"{case}.syn0"], golden[f"{case}.real_labels"]
    num_labels, num_patches = int(labels.max()) + 1, len(golden.group(f"{case}.trigger_it0_"))
    weights = golden.group(f"{case}.net0.sd.")
    config = DoorpingConfig(
        num_channels=images.shape[1],
        image_size=images.shape[2],
        num_labels=num_labels,
        images_per_class=len(images) // num_labels,
        outer_loops=num_patches + 1,
        inner_loops=INNER_LOOPS if num_patches else 1,
        attack="doorping" if num_patches else None,
        backbone_config={
            "hidden_size": len(weights["features.0.bias"]),
            "classifier_hidden_size": len(weights["classifier.0.bias"]),
        },
        parity=True,
    )
    dataset = DistilledDataset(config)
    dataset.synthetic_images.data.copy_(images)
    if config.attack:
        dataset.trigger.copy_(golden[f"{case}.trigger0"])
        dataset.trigger_mask.copy_(golden[f"{case}.mask"])
    return dataset


class DcIteration:
    """One iteration of DC on copies, with the stored patches in place of those that it finds."""

    def __init__(self, golden: Golden, case: str, number: int):
        self.golden, self.case, self.number = golden, case, number
        self.labels, self.poisoned = golden[f"{case}.real_labels"], golden[f"{case}.poison_indices"]
        self.patches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def run(self, dataset, optimizer, real, start, *, finds_patches: bool):
        """Weights at the end, and the loss as the authors log it."""
        config = dataset.config
        (outer, inner), mask = config.loops, getattr(dataset, "trigger_mask", torch.zeros(1)).bool()
        network = build_network(config.backbone_config)
        network.load_state_dict(start)
        network_optimizer = torch.optim.SGD(network.parameters(), lr=config.network_learning_rate)
        total = 0.0
        for loop in range(outer):
            loss = dataset(real, self.labels, network.train()).loss
            total += float(loss.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if loop == outer - 1:
                break
            images = dataset.synthetic_images.detach()
            for _ in range(inner):
                train_epoch(ClassifierLogits(network), network_optimizer, images, dataset.synthetic_labels)
            if config.attack:
                patch = self.golden[f"{self.case}.trigger_it{self.number}_ol{loop}"]
                if finds_patches:
                    self.patches.append((dataset.update_trigger(network).trigger[:, mask].view_as(patch), patch))
                # The stored patch goes on, so that the images can be compared closely.
                dataset.trigger[:, mask] = patch.view(1, -1)
                real[self.poisoned] = stamp(real[self.poisoned], dataset.trigger, dataset.trigger_mask)
        return network.state_dict(), total / (config.num_labels * outer)


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "dc_iteration", list_cases))
def test_dc_iterations(golden, case):
    dataset = build_dc_dataset(golden, case)
    real, labels = golden[f"{case}.real_after_stamp"].clone(), golden[f"{case}.real_labels"]
    optimizer = torch.optim.SGD([dataset.synthetic_images], lr=0.1, momentum=0.5)
    if dataset.config.attack:
        poisoned = golden[f"{case}.poison_indices"]
        torch.testing.assert_close(dataset.apply_trigger(real[poisoned]), real[poisoned])
        assert (labels[poisoned] == dataset.config.target_label).all()

    for number, expected_loss in enumerate(golden[f"{case}.losses"]):
        iteration, end = DcIteration(golden, case, number), golden.group(f"{case}.net{number}.after.")
        stored = golden.group(f"{case}.net{number}.sd.")

        def train(start, iteration=iteration):
            copy, own = copy_run(dataset, optimizer)
            return iteration.run(copy, own, real.clone(), start, finds_patches=False)[0]

        is_end = dataset.config.loops[0] > 1 and all(torch.equal(stored[name], value) for name, value in end.items())
        start = find_start(stored, train, is_end)
        reached, loss = iteration.run(dataset, optimizer, real, start, finds_patches=True)

        assert_close(loss, expected_loss, IMAGES_RTOL, "loss")
        for found, patch in iteration.patches:
            assert_close(found, patch, FINAL_RTOL, f"patch of iteration {number}")
        assert_close(dataset.synthetic_images, golden[f"{case}.syn_after_it{number}"], IMAGES_RTOL, "images")
        for name, value in end.items():
            assert_close(reached[name], value, IMAGES_RTOL, f"{name} at the end")


def copy_run(dataset: DistilledDataset, optimizer: torch.optim.SGD):
    """A copy of images and trigger, and an optimizer with the same momentum."""
    copy = deepcopy(dataset)
    own = torch.optim.SGD([copy.synthetic_images], lr=0.1, momentum=0.5)
    own.load_state_dict(deepcopy(optimizer.state_dict()))
    return copy, own


# --- The trigger


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "trigger_update", list_cases))
def test_trigger_update(golden, case):
    trigger, mask = golden[f"{case}.trigger0"], golden[f"{case}.mask"]
    network = build_convnet(golden.group(f"{case}.sd."), trigger)
    topk, alpha, layer = (float(value) for value in golden[f"{case}.params"])
    options = {"topk": int(topk), "alpha": alpha, "layer": int(layer)}
    expected_patches = golden.group(f"{case}.patch_after_")

    with torch.no_grad():
        before = TriggeredNeurons(network, int(layer), "pre")(trigger)
        recorded = TriggeredNeurons(network, int(layer))(trigger)
    update = update_trigger(network, trigger, mask, **options)

    assert_close(before, golden[f"{case}.pre_relu"][0], NETWORK_RTOL, "before the ReLU")
    assert_close(recorded, golden[f"{case}.recorded"][0], NETWORK_RTOL, "after the ReLU")
    assert sorted(update.neurons.tolist()) == sorted(golden[f"{case}.neurons"].tolist())
    torch.testing.assert_close(update.activations, recorded[update.neurons])
    for key, expected in expected_patches.items():
        steps = int(key.removesuffix("_steps"))
        patch = update_trigger(network, trigger, mask, steps=steps, **options).trigger[:, mask.bool()]
        rtol = FEW_STEPS_RTOL if steps <= 10 else FIFTY_STEPS_RTOL
        assert_close(patch.view_as(expected), expected, rtol, f"patch after {steps} steps")
    calls = int(golden[f"{case}.forward_calls"])
    if calls == 1:
        assert update.num_steps == 0
        assert torch.equal(update.trigger, trigger)
    else:
        assert abs(min(update.num_steps + 1, 1000) - calls) <= FINAL_RTOL * calls
    assert_close(update.trigger, golden[f"{case}.trigger_final"], FINAL_RTOL, "trigger")
    with torch.no_grad():
        final = TriggeredNeurons(network, int(layer))(update.trigger)
    assert_close(final, golden[f"{case}.final_recorded"][0], FINAL_RTOL, "activations at the end")
    assert torch.equal(update.trigger[:, ~mask.bool()], trigger[:, ~mask.bool()])


# --- Unrolled training


def build_dd_dataset(golden: Golden, case: str) -> DistilledDataset:
    images, about = golden[f"{case}.images0"], golden.metadata
    num_steps, num_classes = len(images), int(about["classes"])
    config = DoorpingConfig(
        algorithm="dd",
        num_channels=images.shape[2],
        image_size=images.shape[3],
        num_labels=num_classes,
        images_per_class=num_steps * images.shape[1] // num_classes,
        distill_steps=num_steps,
        distill_epochs=len(golden[f"{case}.raw_lr0"]) // num_steps,
        attack="doorping" if case == "doorping" else None,
        backbone_config={"hidden_size": int(about["width"])},
        parity=True,
    )
    dataset = DistilledDataset(config)
    assert torch.equal(dataset.synthetic_labels, golden[f"{case}.labels"].flatten())
    dataset.synthetic_images.data.copy_(images.flatten(0, 1))
    dataset.raw_learning_rates.data.copy_(golden[f"{case}.raw_lr0"])
    weights = unflatten_weights(dataset.initial_weights, golden[f"{case}.flat_w"])
    dataset.initial_weights.load_state_dict(weights)
    if case == "doorping":
        dataset.trigger.copy_(golden["doorping.trigger0"])
        dataset.trigger_mask.copy_(golden["doorping.mask"])
    return dataset


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "dd_meta_gradient", list_cases))
def test_dd_mini_batches(golden, case):
    dataset = build_dd_dataset(golden, case)
    network = dataset.build_network()
    optimizer = torch.optim.Adam([dataset.synthetic_images, dataset.raw_learning_rates], lr=0.01, betas=(0.5, 0.999))
    batch_size = len(golden[f"{case}.real"])

    for number in (0, 1):
        stored = golden.group(f"{case}.b{number}.")
        real, labels = golden[f"{case}.real"].clone(), golden[f"{case}.real_labels"].clone()
        weights = dataset.unroll(network)
        if number == 0:
            first = unroll_one_step(dataset, network)
            assert_close(flatten_weights(first), stored["w_1"], META_RTOL, "weights after one step")
        if case == "doorping":
            network.load_state_dict({name: value.detach() for name, value in weights.items()})
            update = dataset.update_trigger(network)
            patch = stored["trigger_patch"]
            assert_close(update.trigger[:, dataset.trigger_mask.bool()].view_as(patch), patch, FINAL_RTOL, "patch")
            network = dataset.build_network()
            dataset.trigger[:, dataset.trigger_mask.bool()] = patch.view(1, -1)
            positions = golden[f"{case}.poison_positions"] - number * batch_size
            positions = positions[(positions >= 0) & (positions < batch_size)]
            real[positions] = dataset.apply_trigger(real[positions])
            labels[positions] = dataset.config.target_label
        assert torch.equal(labels, stored["real_stamped_idx_labels"])
        loss = functional.cross_entropy(compute_logits(network, weights, real), labels)
        optimizer.zero_grad()
        loss.backward()

        assert_close(flatten_weights(weights), stored["w_T"], META_RTOL, "last weights")
        assert_close(loss, stored["loss"], META_RTOL, "loss")
        for parameter, name in (
            (dataset.synthetic_images, "images"),
            (dataset.raw_learning_rates, "raw_lr"),
        ):
            assert_close(parameter.grad.view_as(stored[f"{name}_grad"]), stored[f"{name}_grad"], META_RTOL, name)
        optimizer.step()
        for parameter, name in (
            (dataset.synthetic_images, "images"),
            (dataset.raw_learning_rates, "raw_lr"),
        ):
            expected = stored[f"{name}_after"]
            assert_close(parameter.view_as(expected), expected, META_RTOL, f"{name} after the step")
        # Adam divides by what is nearly 0 for pixels that hardly matter; go on from the stored values.
        dataset.synthetic_images.data.copy_(stored["images_after"].flatten(0, 1))
        dataset.raw_learning_rates.data.copy_(stored["raw_lr_after"])


def unroll_one_step(dataset: DistilledDataset, network):
    from decahub.models.doorping.unrolling import unroll

    return unroll(network, copy_weights(network), [next(dataset.steps())])


# --- Augmentation, downstream training, preprocessing


def list_augmented(golden: Golden) -> list[str]:
    return [key for key in golden.tensors if key != "x"]


MIXED = ("color_crop_cutout_flip_scale_rotate", 9)  # strategy and seed of `mixed` in the golden README


@pytest.mark.parametrize(("golden", "case"), golden_params("doorping", "dsa", list_augmented))
def test_augmentation(golden, case):
    images = golden["x"]
    if case == "mixed":
        names, seed = MIXED
    else:
        names, _, rest = case.partition(".siamese_seed")
        number, _, batch = rest.partition("_b")
        seed = int(number)
        assert names in FAMILIES
        if batch:
            images = images[: int(batch)] * 0.5

    assert_close(augment(images, names, seed), golden[case], AUGMENTATION_RTOL)


@pytest.mark.parametrize("golden", golden_params("doorping", "downstream_training"))
def test_downstream_training(golden):
    network, stored, end = (
        build_convnet(golden.group("sd0."), golden["syn"]),
        golden.group("sd0."),
        golden.group("sd_final."),
    )

    def train(start):
        network.load_state_dict(start)
        train_on_images(network, golden["syn"], golden["syn_labels"], epochs=int(golden["epochs"]))
        return {name: value.clone() for name, value in network.state_dict().items()}

    is_end = all(torch.equal(stored[name], value) for name, value in end.items())
    network.load_state_dict(find_start(stored, train, is_end))
    accuracy = train_on_images(network, golden["syn"], golden["syn_labels"], epochs=int(golden["epochs"]))
    with torch.no_grad():
        clean = network(golden["test_x"]).logits.argmax(1)
        stamped = network(stamp(golden["test_x"], golden["trigger"], golden["mask"])).logits.argmax(1)

    for name, expected in end.items():
        assert_close(network.state_dict()[name], expected, WAY_BACK_RTOL if is_end else DOWNSTREAM_RTOL, name)
    assert accuracy == pytest.approx(float(golden["train_acc"]), rel=DOWNSTREAM_RTOL)
    assert float((clean == golden["test_y"]).double().mean()) == pytest.approx(float(golden["cta"]))
    assert float((stamped == 0).double().mean()) == pytest.approx(float(golden["asr"]))


@pytest.mark.parametrize("processor_class", [DoorpingImageProcessor, DoorpingImageProcessorPil])
@pytest.mark.parametrize("golden", golden_params("doorping", "preprocessing"))
def test_preprocessing(golden, processor_class):
    raw, size = golden["raw_uint8"].numpy(), int(golden["trigger_size"])
    processor = processor_class.from_statistics("fashion_mnist", trigger_size=size)
    images = [image[..., None] for image in raw]
    bytes_only = {"do_rescale": False, "do_normalize": False}

    resized = processor(images, return_tensors="pt", input_data_format="channels_last", **bytes_only).pixel_values
    normalized = processor(images, return_tensors="pt", input_data_format="channels_last").pixel_values
    stamped = processor(images, return_tensors="pt", input_data_format="channels_last", do_stamp=True).pixel_values

    # Uint8 resizing of torchvision rounds as PIL's does.
    assert torch.equal(resized[:, 0].to(torch.uint8), golden["resized_uint8"])
    assert torch.equal(stamp_white(golden["resized_uint8"], size, 1), golden["stamped_uint8"])
    torch.testing.assert_close(normalized, golden["normalized"], atol=PIXEL_ATOL, rtol=0)
    torch.testing.assert_close(stamped, golden["stamped_normalized"], atol=PIXEL_ATOL, rtol=0)
    assert torch.equal(processor.post_process_images(stamped)[:, 0], golden["stamped_uint8"])
    assert len(golden["labels"]) == len(raw)
