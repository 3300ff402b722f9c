"""The models: missing sensors, backbones, training, loading, and what is refused."""

import copy
import time
from functools import partial

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModel, ResNetConfig, ResNetModel

from decahub import AutoModelForObjectDetection3D, CmtForObjectDetection3D, CmtModel
from tests.tiny.cmt import LIDAR, VOVNET, tiny_config, tiny_inputs, tiny_labels


MODALITIES = ("fusion", "camera", "lidar")
NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
ATOL = 1e-5  # float32, sums in another order
BOX_ATOL = 1e-3  # meters, of up to 100
BFLOAT16_ATOL = 0.2  # three digits, through two layers
NUM_STEPS = 60
BUDGET = 2.0  # CPU seconds of a forward and backward pass
CAMERA_NAMES, LIDAR_NAMES = (
    ("pixel_values", "lidar2img"),
    ("voxels", "num_points_per_voxel", "voxel_coords", "num_voxels"),
)


def build_model(modality: str = "fusion", seed: int = 0, **fields) -> CmtForObjectDetection3D:
    torch.manual_seed(seed)
    model = CmtForObjectDetection3D(tiny_config(modality, **fields))
    with torch.no_grad():  # statistics that are not 0 and 1
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def assert_same(actual, expected, atol: float = ATOL):
    torch.testing.assert_close(actual.logits, expected.logits, atol=atol, rtol=1e-4)
    torch.testing.assert_close(actual.pred_boxes, expected.pred_boxes, atol=BOX_ATOL, rtol=1e-4)


def pick(inputs: dict, names) -> dict:
    return {name: inputs[name] for name in names}


def take_sample(inputs: dict, sample: int) -> dict:
    """One sample of a batch."""
    single = {name: inputs[name][sample : sample + 1] for name in (*CAMERA_NAMES, "num_voxels") if name in inputs}
    if "voxels" in inputs:
        own = inputs["voxel_coords"][:, 0] == sample
        single |= {name: inputs[name][own] for name in ("voxels", "num_points_per_voxel")}
        single["voxel_coords"] = torch.cat(
            [torch.zeros_like(inputs["voxel_coords"][own, :1]), inputs["voxel_coords"][own, 1:]], 1
        )
    return single


# --- Shapes and outputs


@pytest.mark.parametrize("modality", MODALITIES)
def test_shapes_of_a_training_step(modality):
    model = build_model(modality).train()

    outputs = model(**tiny_inputs(model.config), labels=tiny_labels(model.config))

    assert outputs.logits.shape == (2, 2, 20, 3)
    assert outputs.pred_boxes.shape == (2, 2, 20, 10)
    assert outputs.denoising_logits.shape == (2, 2, 18, 3)  # 6 groups of 3
    assert outputs.denoising_boxes.shape == (2, 2, 18, 10)
    assert outputs.last_hidden_state.shape == (2, 20, 32)
    torch.testing.assert_close(outputs.loss, sum(outputs.loss_dict.values()))


@pytest.mark.parametrize("modality", MODALITIES)
def test_forward_and_backward_are_quick(modality):
    model = build_model(modality).train()
    inputs, labels = tiny_inputs(model.config), tiny_labels(model.config)

    start = time.process_time()
    model(**inputs, labels=labels).loss.backward()

    assert time.process_time() - start < BUDGET


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_weight_has_a_gradient(modality):
    model = build_model(modality).train()

    model(**tiny_inputs(model.config), labels=tiny_labels(model.config)).loss.backward()

    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_several_tasks_have_a_box_each():
    model = build_model("lidar", tasks=[["car"], ["truck", "pedestrian"]])

    outputs = model(**tiny_inputs(model.config))

    assert outputs.logits.shape == (2, 2, 20, 3)
    assert outputs.pred_boxes.shape == (2, 2, 40, 10)


def test_hidden_states_and_attentions_on_request():
    model = build_model("fusion")
    model.set_attn_implementation("eager")
    inputs = tiny_inputs(model.config)

    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    # At the start all values are equal, so that the weights of the first self-attention do not matter.
    recorded = [*outputs.hidden_states[1:], *outputs.attentions[1:], *outputs.cross_attentions]
    gradients = torch.autograd.grad(outputs.logits.sum(), recorded)

    num_tokens = 6 * 8 + 3 * 4 * 6
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 20, 32)] * 3
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(2, 4, 20, 20)] * 2
    assert [tuple(weights.shape) for weights in outputs.cross_attentions] == [(2, 4, 20, num_tokens)] * 2
    assert (outputs.hidden_states[0] == 0).all()
    assert all((gradient != 0).any() for gradient in gradients)


def test_tuple_in_place_of_an_output():
    model = build_model("camera")
    inputs = tiny_inputs(model.config)

    outputs = model(**inputs, return_dict=False)

    assert torch.equal(outputs[0], model(**inputs).logits)


@pytest.mark.parametrize("modality", MODALITIES)
@torch.no_grad()
def test_samples_do_not_depend_on_their_batch(modality):
    model = build_model(modality)
    inputs = tiny_inputs(model.config)

    outputs = model(**inputs)

    for sample in range(2):
        alone = model(**take_sample(inputs, sample))
        torch.testing.assert_close(outputs.logits[:, sample], alone.logits[:, 0], atol=ATOL, rtol=1e-4)
        torch.testing.assert_close(outputs.pred_boxes[:, sample], alone.pred_boxes[:, 0], atol=BOX_ATOL, rtol=1e-4)


@torch.no_grad()
def test_order_of_cameras_does_not_matter():
    model = build_model("camera")
    inputs = tiny_inputs(model.config)

    outputs = model(**{name: value[:, [2, 0, 1]] for name, value in inputs.items()})

    assert_same(outputs, model(**inputs))


@torch.no_grad()
def test_single_camera():
    model = build_model("fusion")

    outputs = model(**tiny_inputs(model.config, num_cameras=1))

    assert outputs.logits.isfinite().all()


@torch.no_grad()
def test_query_that_no_camera_sees_has_its_place_on_the_ground_only():
    model = build_model("camera")
    inputs = tiny_inputs(model.config)
    inputs["lidar2img"][..., 2, :] *= -1  # all cameras look away from everything in front of them
    with torch.no_grad():
        model.model.reference_points.weight.copy_(torch.tensor([0.9, 0.3, 0.5]))
    inputs["lidar2img"] = inputs["lidar2img"][:, :1]
    inputs["pixel_values"] = inputs["pixel_values"][:, :1]
    seen = []
    compute = model.model.embed_query_rays
    model.model.embed_query_rays = lambda *args: seen.append(compute(*args)) or seen[-1]

    model(**inputs)

    assert (seen[0] == 0).all()


# --- Missing sensors


@torch.no_grad()
def test_masked_cameras_show_black():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)
    black = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
    black["pixel_values"][1] = torch.tensor(model.config.black_pixel)[:, None, None]

    outputs = model(**inputs, modality_mask=torch.tensor([[True, True], [False, True]]))

    assert_same(outputs, model(**black))


@torch.no_grad()
def test_masked_lidar_sees_one_voxel_of_zeros_at_the_origin():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)
    first = inputs["voxel_coords"][:, 0] == 0
    zeros = {
        **inputs,
        "voxels": torch.cat([inputs["voxels"][first], torch.zeros(1, 3, 5)]),
        "num_points_per_voxel": torch.cat([inputs["num_points_per_voxel"][first], torch.tensor([3])]),
        # z: 5 / 0.2; y: 40 / 2.0; x: 48 / 1.5
        "voxel_coords": torch.cat([inputs["voxel_coords"][first], torch.tensor([[1, 25, 20, 32]])]),
        "num_voxels": torch.tensor([int(first.sum()), 1]),
    }

    outputs = model(**inputs, modality_mask=torch.tensor([[True, True], [True, False]]))

    assert_same(outputs, model(**zeros))


@torch.no_grad()
def test_absent_points_are_masked_points():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)

    outputs = model(**pick(inputs, CAMERA_NAMES))

    assert_same(outputs, model(**inputs, modality_mask=torch.tensor([[True, False]] * 2)))


@pytest.mark.parametrize(("column", "left"), [(0, LIDAR_NAMES), (1, CAMERA_NAMES)], ids=["no_camera", "no_lidar"])
@torch.no_grad()
def test_dropped_sensor_is_as_if_absent_and_its_backbone_does_not_run(column, left):
    model = build_model("fusion", missing_modality="drop")
    inputs = tiny_inputs(model.config)
    expected = model(**pick(inputs, left))
    mask = torch.ones(2, 2, dtype=torch.bool)
    mask[:, column] = False
    backbone = model.model.lidar_backbone if column else model.model.image_backbone
    backbone.forward = None

    outputs = model(**inputs, modality_mask=mask)

    assert_same(outputs, expected)
    assert not torch.allclose(expected.logits, build_model("fusion")(**inputs).logits, atol=0.01)


@pytest.mark.parametrize("way", ["sdpa", "eager"])
@torch.no_grad()
def test_samples_of_a_batch_may_miss_different_sensors(way):
    model = build_model("fusion", missing_modality="drop")
    model.set_attn_implementation(way)
    inputs = tiny_inputs(model.config, batch_size=3)
    mask = torch.tensor([[True, True], [False, True], [True, False]])

    outputs = model(**inputs, modality_mask=mask)

    for sample, left in enumerate([(*CAMERA_NAMES, *LIDAR_NAMES), LIDAR_NAMES, CAMERA_NAMES]):
        alone = model(**pick(take_sample(inputs, sample), left))
        torch.testing.assert_close(outputs.logits[:, sample], alone.logits[:, 0], atol=ATOL, rtol=1e-4)
        torch.testing.assert_close(outputs.pred_boxes[:, sample], alone.pred_boxes[:, 0], atol=BOX_ATOL, rtol=1e-4)


@pytest.mark.parametrize("mode", ["zero", "drop"])
def test_training_with_masked_sensors(mode):
    model = build_model("fusion", missing_modality=mode).train()
    mask = torch.tensor([[False, True], [True, False]])

    loss = model(**tiny_inputs(model.config), labels=tiny_labels(model.config), modality_mask=mask).loss
    loss.backward()

    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("is_training", [False, True], ids=["evaluation", "training"])
def test_empty_cloud_keeps_its_place_in_the_batch(is_training):
    model = build_model("lidar").train(is_training)
    inputs = tiny_inputs(model.config)
    last = inputs["voxel_coords"][:, 0] == 1
    inputs = {**{name: value[~last] for name, value in inputs.items() if name != "num_voxels"}}
    inputs["num_voxels"] = torch.tensor([len(inputs["voxels"]), 0])

    outputs = model(**inputs, labels=tiny_labels(model.config))

    assert outputs.logits.shape[1] == 2
    assert outputs.loss.isfinite()


@torch.no_grad()
def test_batch_of_empty_clouds():
    model = build_model("lidar")
    inputs = {name: value[:0] for name, value in tiny_inputs(model.config).items()}

    outputs = model(**{**inputs, "num_voxels": torch.tensor([0, 0])})

    assert_same(outputs, type(outputs)(logits=outputs.logits.flip(1), pred_boxes=outputs.pred_boxes.flip(1)))


@torch.no_grad()
def test_masked_lidar_of_a_range_without_the_origin_is_an_empty_cloud():
    limits = [8.0, -40.0, -5.0, 104.0, 56.0, 3.0]
    model = build_model("fusion", point_cloud_range=limits)
    inputs = tiny_inputs(model.config)
    empty = {name: value[:0] for name, value in pick(inputs, LIDAR_NAMES).items()}

    outputs = model(**pick(inputs, CAMERA_NAMES))

    assert_same(outputs, model(**{**inputs, **empty, "num_voxels": torch.tensor([0, 0])}))


# --- Training


@pytest.mark.parametrize(
    ("counts", "fields"), [((0, 0), {}), ((3, 2), {"denoising_groups": 0})], ids=["no_boxes", "no_groups"]
)
def test_training_without_denoising_queries(counts, fields):
    model = build_model("lidar", **fields).train()

    outputs = model(**tiny_inputs(model.config), labels=tiny_labels(model.config, counts))
    outputs.loss.backward()

    assert not any("dn" in name for name in outputs.loss_dict)
    assert outputs.denoising_logits is None
    assert outputs.loss.isfinite()


def test_evaluation_has_a_loss_and_no_denoising_queries():
    model = build_model("lidar")
    inputs = tiny_inputs(model.config)

    outputs = model(**inputs, labels=tiny_labels(model.config))

    assert set(outputs.loss_dict) == {"d0.loss_cls", "d0.loss_bbox", "loss_cls", "loss_bbox"}
    assert torch.equal(outputs.logits, model(**inputs).logits)


def test_matched_queries_do_not_see_denoising_queries():
    model = build_model("lidar", **NO_DROPOUT).train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    inputs = tiny_inputs(model.config)

    outputs = model(**inputs, labels=tiny_labels(model.config))

    assert_same(outputs, model(**inputs))


def test_denoising_noise_can_be_given():
    model = build_model("lidar", **NO_DROPOUT).train()
    inputs, labels = tiny_inputs(model.config), tiny_labels(model.config)
    noise = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))

    losses = [model(**inputs, labels=labels, denoising_noise=noise).loss for _ in range(2)]

    assert losses[0] == losses[1]
    assert losses[0] != model(**inputs, labels=labels).loss


@pytest.mark.parametrize(("is_training", "has_labels"), [(False, True), (True, False)])
def test_refuses_noise_without_denoising_queries(is_training, has_labels):
    model = build_model("lidar").train(is_training)
    labels = {"labels": tiny_labels(model.config)} if has_labels else {}

    with pytest.raises(ValueError, match="`denoising_noise` must come with `labels` in training"):
        model(**tiny_inputs(model.config), **labels, denoising_noise=torch.rand(30, 3))


def test_nan_stops_a_training_and_not_an_evaluation():
    model = build_model("lidar")
    inputs, labels = tiny_inputs(model.config), tiny_labels(model.config)
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.weight[0, 0] = float("nan")

    assert model(**inputs).logits.isfinite().all()
    with pytest.raises(ValueError, match="`logits` must be finite in training"):
        model.train()(**inputs, labels=labels)


def test_batch_norms_of_the_image_backbone_keep_their_statistics():
    model = build_model("fusion").train()

    def statistics():
        return {name: value.clone() for name, value in model.named_buffers() if "running_mean" in name}

    before = statistics()
    model(**tiny_inputs(model.config))

    changed = {name for name, value in statistics().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if not name.startswith("model.image_backbone")}


def test_batch_norms_of_the_image_backbone_can_be_trained():
    model = build_model("camera", freeze_batch_norm=False).train()

    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("order", ["official", "natural"])
def test_a_few_steps_lower_the_loss(order):
    model = build_model("lidar", box_slot_order=order, **NO_DROPOUT).train()
    inputs, labels = tiny_inputs(model.config), tiny_labels(model.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []

    for _ in range(NUM_STEPS):
        outputs = model(**inputs, labels=labels)
        losses.append(outputs.loss.item())
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()

    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(use_reentrant):
    model = build_model("fusion", **NO_DROPOUT).train()
    other = copy.deepcopy(model)
    other.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    inputs, labels = tiny_inputs(model.config), tiny_labels(model.config)
    noise = torch.rand(30, 3)

    for network in (model, other):
        network(**inputs, labels=labels, denoising_noise=noise).loss.backward()

    for (name, parameter), same in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(same.grad, parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_implementations_of_attention_agree():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)
    expected = model(**inputs)

    model.set_attn_implementation("eager")

    assert_same(model(**inputs), expected)


@torch.no_grad()
def test_autocast_keeps_places_in_full_precision():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)
    expected = model(**inputs)

    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**inputs)

    assert outputs.logits.dtype == outputs.pred_boxes.dtype == torch.float32
    torch.testing.assert_close(outputs.logits, expected.logits, atol=BFLOAT16_ATOL, rtol=0)


def test_training_under_autocast():
    model = build_model("fusion").train()

    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**tiny_inputs(model.config), labels=tiny_labels(model.config)).loss
    loss.backward()

    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["attention_dropout", "cross_attention_dropout", "hidden_dropout"])
def test_each_dropout_acts_in_training_alone(name):
    config = {**NO_DROPOUT, name: 0.5}
    model, inputs = build_model("camera", **config), tiny_inputs(tiny_config("camera"))
    with torch.no_grad():
        first, second = model(**inputs).logits, model(**inputs).logits
        assert torch.equal(first, second)
        model.train()
        first, second = model(**inputs).logits, model(**inputs).logits
        assert not torch.allclose(first, second, atol=ATOL)
        without = build_model("camera", **NO_DROPOUT).train()
        first, second = without(**inputs).logits, without(**inputs).logits
        torch.testing.assert_close(first, second, atol=ATOL, rtol=0)


def test_batch_norms_of_the_lidar_move_by_their_momentum():
    statistics = []
    for momentum in (0.01, 0.5):
        config = tiny_config("lidar", lidar_backbone_config={**LIDAR, "batch_norm_momentum": momentum})
        torch.manual_seed(0)
        model = CmtForObjectDetection3D(config).train()
        with torch.no_grad():
            model(**tiny_inputs(config))
        norms = [part for part in model.model.lidar_backbone.modules() if isinstance(part, _BatchNorm)]
        statistics.append([norm.running_mean for norm in norms])

    assert len(statistics[0]) > 10, "the sparse encoder and the network from above both have some"
    for slow, fast in zip(*statistics, strict=True):
        torch.testing.assert_close(fast, 50 * slow, rtol=1e-4, atol=ATOL)
        assert slow.abs().max() > 0


@pytest.mark.parametrize("modality", ["camera", "lidar"])
@torch.no_grad()
def test_half_precision_weights(modality):
    model = build_model(modality).to(torch.bfloat16)

    outputs = model(**tiny_inputs(model.config))

    assert outputs.pred_boxes.dtype == torch.float32
    assert outputs.logits.isfinite().all()


@pytest.mark.slow
@torch.no_grad()
def test_decoder_and_heads_compile_as_one_graph():
    model = build_model("fusion")
    inputs = tiny_inputs(model.config)
    bev_features, _ = model.model.encode_points(
        inputs["voxels"], inputs["num_points_per_voxel"], inputs["voxel_coords"], torch.tensor([True, True])
    )
    image_features, _ = model.model.encode_images(inputs["pixel_values"], torch.tensor([True, True]))

    def run(bev_features, image_features, lidar2img):
        return model.detect(model.model.decode(bev_features, image_features, lidar2img, (64, 96)))

    compiled = torch.compile(run, fullgraph=True)(bev_features, image_features, inputs["lidar2img"])

    assert_same(compiled, model(**inputs))


# --- Backbones, loading and saving


@pytest.mark.parametrize(
    "backbone",
    [
        {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]},
        {
            "model_type": "emo",
            "stem_hidden_size": 10,
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 12, 16, 28],
            "head_dims": [8, 12, 8, 14],
            "window_sizes": [4, 4, 4, 4],
        },
        VOVNET,
    ],
    ids=lambda fields: fields["model_type"],
)
def test_any_backbone_trains_and_loads(backbone, tmp_path):
    model = build_model("camera", image_backbone_config=backbone)
    inputs = tiny_inputs(model.config)
    model.train()(**inputs, labels=tiny_labels(model.config)).loss.backward()
    model.eval().save_pretrained(tmp_path)

    loaded = CmtForObjectDetection3D.from_pretrained(tmp_path)

    assert_same(loaded(**inputs), model(**inputs), 0.0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_loaded_model_is_the_saved_one(modality, tmp_path):
    model = build_model(modality)
    model.save_pretrained(tmp_path)

    loaded = AutoModelForObjectDetection3D.from_pretrained(tmp_path)
    bare = AutoModel.from_pretrained(tmp_path)

    inputs = tiny_inputs(model.config)
    assert type(loaded) is CmtForObjectDetection3D
    assert type(bare) is CmtModel
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    # Where a tensor lies in memory may change the order of a sum.
    near = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)
    near(loaded(**inputs).pred_boxes, model(**inputs).pred_boxes)
    near(bare(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


def test_new_heads_on_a_loaded_model_start_low(tmp_path):
    model = build_model("lidar")
    model.model.save_pretrained(tmp_path)

    loaded = CmtForObjectDetection3D.from_pretrained(tmp_path)

    assert torch.equal(loaded.model.reference_points.weight, model.model.reference_points.weight)
    assert (loaded.task_heads[0].classes.conv2.bias == -2.19).all()


def test_initialization():
    model = CmtForObjectDetection3D(tiny_config("fusion", num_queries=400))
    anchors = model.model.reference_points.weight
    layer = model.model.decoder.layers[0]

    assert 0 <= anchors.min() < 0.02
    assert 0.98 < anchors.max() <= 1
    assert (layer.self_attention.q_proj.bias == 0).all()
    assert 0.9 < layer.fc1.weight.abs().max() / (6 / (32 + 48)) ** 0.5 <= 1
    assert 0.9 < model.task_heads[0].center.conv1.weight.abs().max() / 32**-0.5 <= 1
    assert (model.task_heads[0].classes.conv2.bias == -2.19).all()


def test_prior_bias_can_be_left_out():
    model = CmtForObjectDetection3D(tiny_config("lidar", prior_bias=False))

    assert model.task_heads[0].classes.conv2.bias.min() > -0.5


def test_image_backbone_takes_weights_of_a_pretrained_model(tmp_path):
    fields = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
    pretrained = ResNetModel(ResNetConfig(**fields))
    pretrained.save_pretrained(tmp_path)
    model = build_model("camera", image_backbone_config={"model_type": "resnet", **fields})

    model.model.load_image_backbone(tmp_path)

    expected = pretrained.state_dict()
    loaded = model.model.image_backbone.state_dict()
    assert loaded
    assert all(torch.equal(value, expected[name]) for name, value in loaded.items())


def test_refuses_weights_of_another_backbone(tmp_path):
    build_model("camera").model.image_backbone.save_pretrained(tmp_path)
    fields = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
    model = build_model("camera", image_backbone_config={"model_type": "resnet", **fields})

    with pytest.raises(ValueError, match="`source` must hold all weights of a ResNetBackbone"):
        model.model.load_image_backbone(tmp_path)


def test_refuses_weights_of_images_without_cameras(tmp_path):
    with pytest.raises(ValueError, match="must be called on a model with cameras"):
        build_model("lidar").model.load_image_backbone(tmp_path)


# --- Refusals


def change(inputs: dict, name: str, value) -> dict:
    return {**inputs, name: value(inputs[name]) if callable(value) else value}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("pixel_values", lambda x: x.byte(), TypeError, "`pixel_values` must be floating point"),
        ("lidar2img", lambda x: x.bfloat16(), TypeError, "`lidar2img` must be float32 or float64"),
        ("pixel_values", lambda x: x[:, 0], ValueError, "`pixel_values` must have shape"),
        ("pixel_values", lambda x: x[:, :, :2], ValueError, "`pixel_values` must have shape"),
        ("pixel_values", lambda x: x / 0, ValueError, "`pixel_values` must be finite"),
        ("pixel_values", None, ValueError, "`pixel_values` must be given together with `lidar2img`"),
        ("lidar2img", lambda x: x[:, :2], ValueError, "`lidar2img` must have shape"),
        ("lidar2img", None, ValueError, "`lidar2img` must be given together"),
        ("lidar2img", torch.zeros_like, ValueError, "that of camera 0 of sample 0 is singular"),
        ("lidar2img", lambda x: x * float("nan"), ValueError, "`lidar2img` must be finite"),
        ("voxels", lambda x: x.long(), TypeError, "`voxels` must be floating point"),
        ("voxels", lambda x: x[..., :4], ValueError, "`voxels` must have shape"),
        ("voxels", lambda x: x * float("inf"), ValueError, "`voxels` must be finite"),
        ("voxel_coords", lambda x: x[:-1], ValueError, "`voxel_coords` must have shape"),
        ("num_points_per_voxel", lambda x: x[:-1], ValueError, "`num_points_per_voxel` must have shape"),
        ("num_points_per_voxel", torch.zeros_like, ValueError, "`num_points_per_voxel` must be at least 1"),
        ("num_voxels", lambda x: x[:1], ValueError, "`num_voxels` must sum to"),
        ("num_voxels", lambda x: torch.cat([x, x[:1] * 0]), ValueError, "an entry for each of 2 samples"),
        ("num_voxels", lambda x: x.flip(0), ValueError, r"how often `voxel_coords` names each sample, \[40, 45\]"),
        ("voxel_coords", lambda x: x + 1, ValueError, r"`voxel_coords` must begin with a sample in \[0, 2\); got 2"),
        (
            "num_points_per_voxel",
            lambda x: x + 3,
            ValueError,
            "at most the 3 points that `voxels` has",
        ),
        ("num_voxels", None, ValueError, "`num_voxels` must be given together"),
        ("modality_mask", torch.ones(2, 2), TypeError, "`modality_mask` must be boolean"),
        ("modality_mask", torch.ones(2).bool(), ValueError, "`modality_mask` must have shape"),
        ("modality_mask", torch.tensor([[True, True], [False, False]]), ValueError, "sample 1 has none"),
        ("pixel_value", torch.ones(1), ValueError, "Did you mean `pixel_values`"),
    ],
)
def test_refuses_input(name, value, error, message):
    model = build_model("fusion")

    with pytest.raises(error, match=message):
        model(**change(tiny_inputs(model.config), name, value))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("boxes", lambda x: x[:, :7], ValueError, "`boxes` must have shape"),
        ("boxes", lambda x: x * float("nan"), ValueError, "`boxes` must have finite centers"),
        ("boxes", lambda x: -x.abs(), ValueError, "`boxes` must have sizes of at least 0"),
        ("boxes", lambda x: x[:1].expand(21, -1), ValueError, "`class_labels` must have shape"),
        ("class_labels", lambda x: x[:-1], ValueError, "`class_labels` must have shape"),
        ("class_labels", lambda x: x + 3, ValueError, r"`class_labels` must lie in \[0, 3\)"),
        ("class_labels", lambda x: x - 3, ValueError, r"`class_labels` must lie in \[0, 3\)"),
        ("class_labels", lambda x: x.bool(), TypeError, "`class_labels` must hold integers"),
        ("boxes", lambda x: torch.cat([x[:, :8], x[:, 8:] / 0], 1), ValueError, "finite velocities, or NaN"),
        ("class_labels", lambda x: x.float(), TypeError, "`class_labels` must hold integers"),
    ],
)
def test_refuses_label(name, value, error, message):
    model = build_model("lidar")
    labels = tiny_labels(model.config)
    labels[1] = change(labels[1], name, value)

    with pytest.raises(error, match=message):
        model(**tiny_inputs(model.config), labels=labels)


def test_refuses_more_boxes_than_queries():
    model = build_model("lidar")

    with pytest.raises(ValueError, match="must not be more than the 20 queries of the model; got 21 for sample 1"):
        model(**tiny_inputs(model.config), labels=tiny_labels(model.config, (3, 21)))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"boxes": torch.zeros(1, 9)}, TypeError, "must be a list of dictionaries"),
        ([{}], ValueError, "a dictionary for each of 2 samples; got 1"),
        ([{}, {}], ValueError, "sample 0 has no 'boxes'"),
    ],
)
def test_refuses_labels(labels, error, message):
    model = build_model("lidar")

    with pytest.raises(error, match=message):
        model(**tiny_inputs(model.config), labels=labels)


@pytest.mark.parametrize(("modality", "other"), [("camera", "lidar"), ("lidar", "camera")])
def test_refuses_a_sensor_that_the_model_has_not(modality, other):
    model = build_model(modality)

    with pytest.raises(ValueError, match="must not be given to a model of `modality="):
        model(**tiny_inputs(model.config), **tiny_inputs(tiny_config(other)))


def test_refuses_to_run_on_nothing():
    with pytest.raises(ValueError, match="`pixel_values` or `voxels` must be given"):
        build_model("fusion")()
