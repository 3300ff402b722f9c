"""TinyMIM for dense prediction: relative positions, the feature pyramid, the heads, and transformers' UPerNet."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional
from transformers import UperNetConfig, UperNetForSemanticSegmentation

from decahub import TinyMimBackbone, TinyMimConfig, TinyMimForImageClassification, TinyMimForSemanticSegmentation
from decahub.models.tinymim.decode_heads import TinyMimPixelClassifier
from decahub.models.tinymim.optimization import build_layer_decay_parameter_groups
from decahub.models.tinymim.pyramid import TinyMimFeaturePyramid
from decahub.models.tinymim.relative_position import build_relative_position_index, num_relative_positions


ATOL_FLOAT32 = 1e-5  # two orders of summation in convolutions and attention
ATOL_REORDERED = 1e-6  # equal numbers at other addresses, or gradients of one map added in another order
STAR = {"use_distillation_token": True, "pre_logits_dim": 20}
AUTHORS = {"use_relative_position_bias": True, "layer_scale_init_value": 1.0}


def tiny_config(**overrides) -> TinyMimConfig:
    """A grid of 4 x 6 patches of 8 pixels; four blocks, each of which gives one map of the pyramid."""
    fields = {
        "image_size": [32, 48],
        "patch_size": 8,
        "hidden_size": 12,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "intermediate_size": 28,
        "out_indices": [1, 2, 3, 4],
        "decode_hidden_size": 10,
        "auxiliary_hidden_size": 6,
        "pool_scales": [1, 2],
        "num_labels": 5,
    }
    return TinyMimConfig(**{**fields, **overrides})


def build(model_class=TinyMimForSemanticSegmentation, **overrides):
    """A model in evaluation mode whose parameters are all drawn, so that none hides behind zeros."""
    torch.manual_seed(0)
    model = model_class(tiny_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_images(height: int = 32, width: int = 48, num_images: int = 2) -> torch.Tensor:
    return torch.randn(num_images, 3, height, width, generator=torch.Generator().manual_seed(1)) + 0.5


def make_labels(num_images: int = 2) -> torch.Tensor:
    return torch.randint(5, (num_images, 30, 44), generator=torch.Generator().manual_seed(2))


# Relative positions


@pytest.mark.parametrize("num_prefix_tokens", [1, 2])
def test_patches_with_the_same_offset_share_a_bias(num_prefix_tokens):
    height, width = 2, 3

    index = build_relative_position_index((height, width), num_prefix_tokens)

    for query in range(height * width):
        for key in range(height * width):
            rows, columns = query // width - key // width, query % width - key % width
            expected = (rows + height - 1) * (2 * width - 1) + columns + width - 1
            assert index[num_prefix_tokens + query, num_prefix_tokens + key] == expected
    assert num_relative_positions((height, width), num_prefix_tokens) == 3 * 5 + 3 * num_prefix_tokens


def test_class_token_has_the_last_three_biases():
    index = build_relative_position_index((2, 3), 1)

    assert index[0].tolist() == [17] + 6 * [15]
    assert index[:, 0].tolist() == [17] + 6 * [16]


def test_distillation_token_has_the_three_before_and_gives_way_to_the_class_token():
    index = build_relative_position_index((2, 3), 2)

    assert index[0].tolist() == [20] + 7 * [18]
    assert index[:, 0].tolist() == [20] + 7 * [19]
    assert index[1, 1:].tolist() == [17] + 6 * [15]
    assert index[1:, 1].tolist() == [17] + 6 * [16]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bias_is_added_to_the_scores_of_each_head(implementation):
    model = build(TinyMimBackbone, use_relative_position_bias=True, attn_implementation=implementation)
    attention = model.layers[0].attention
    hidden_states = torch.randn(2, 25, 12, generator=torch.Generator().manual_seed(3))

    with torch.no_grad():
        attended, _ = attention(hidden_states)
        query, key, value = attention.project(hidden_states, 3)
        index = build_relative_position_index((4, 6), 1)
        scores = query @ key.transpose(2, 3) / 2  # heads are 4 wide
        for head in range(3):
            scores[:, head] += attention.relative_position_bias_table[:, head][index]
        expected = attention.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    torch.testing.assert_close(attended, expected, atol=ATOL_FLOAT32, rtol=0)


# Feature pyramid


@pytest.mark.parametrize(("star", "out_size"), [({}, 12), (STAR, 48)], ids=["plain", "star"])
def test_pyramid_has_four_strides_and_one_width(star, out_size):
    model = build(TinyMimBackbone, use_feature_pyramid=True, **star)

    with torch.no_grad():
        maps = model(make_images()).feature_maps

    assert [tuple(feature_map.shape) for feature_map in maps] == [
        (2, out_size, 16, 24),
        (2, out_size, 8, 12),
        (2, out_size, 4, 6),
        (2, out_size, 2, 3),
    ]
    assert model.channels == 4 * [out_size]


def test_plain_pyramid_keeps_the_third_map_and_halves_the_fourth():
    pyramid = TinyMimFeaturePyramid(tiny_config()).eval()
    maps = tuple(torch.randn(4, 2, 12, 4, 6, generator=torch.Generator().manual_seed(4)))

    levels = pyramid(maps)

    assert levels[2] is maps[2]
    assert (levels[3] == maps[3].unflatten(2, (2, 2)).unflatten(4, (3, 2)).amax((3, 5))).all()


def test_pyramid_of_one_patch_is_refused():
    model = build(image_size=16)

    with pytest.raises(ValueError, match=r"`pixel_values` must give at least 2 x 2 patches.* got 1 x 4"):
        model(make_images(8, 32))


def test_pyramid_of_another_number_of_maps_is_refused():
    with pytest.raises(StrictDataclassError, match=r"`use_feature_pyramid` must come with 4 `out_features`"):
        tiny_config(use_feature_pyramid=True, out_indices=[2, 4])


# Sizes


@pytest.mark.parametrize("fields", [{}, AUTHORS, STAR | AUTHORS], ids=["plain", "authors", "star"])
def test_logits_come_at_four_times_the_grid(fields):
    with torch.no_grad():
        logits = build(**fields)(make_images()).logits

    assert logits.shape == (2, 5, 16, 24)


@pytest.mark.parametrize(("height", "width"), [(64, 24), (40, 56), (16, 16)])
def test_other_sizes_resize_the_positions_bicubically(height, width):
    model = build()
    table = model.tinymim.embeddings.position_embeddings
    pixel_values = make_images(height, width)
    grid = (height // 8, width // 8)

    with torch.no_grad():
        logits = model(pixel_values).logits
        patches = table[:, 1:].unflatten(1, (4, 6)).movedim(3, 1)
        resized = functional.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
        known = TinyMimForSemanticSegmentation(tiny_config(image_size=[height, width])).eval()
        state = model.state_dict()
        state["tinymim.embeddings.position_embeddings"] = torch.cat(
            [table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1
        )
        known.load_state_dict(state)
        expected = known(pixel_values).logits

    assert logits.shape == (2, 5, 4 * grid[0], 4 * grid[1])
    torch.testing.assert_close(logits, expected, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


@pytest.mark.parametrize("model_class", [TinyMimForSemanticSegmentation, TinyMimBackbone])
def test_relative_positions_refuse_another_grid(model_class):
    model = build(model_class, use_relative_position_bias=True)

    with pytest.raises(ValueError, match=r"must give 4 x 6 patches with `use_relative_position_bias`; got 6 x 4"):
        model(make_images(48, 32))


def test_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"multiples of `patch_size` \(8\); got 32 x 45"):
        build()(make_images(32, 45))


# Heads and losses


def test_loss_is_that_of_both_heads():
    model = build(auxiliary_loss_weight=0.25)
    pixel_values, labels = make_images(), make_labels()

    with torch.no_grad():
        outputs = model(pixel_values, labels=labels)
        trunk = TinyMimBackbone(tiny_config(use_feature_pyramid=True)).eval()
        state = {name.removeprefix("tinymim."): value for name, value in model.state_dict().items()}
        trunk.load_state_dict({name: state[name] for name in trunk.state_dict()})
        maps = trunk(pixel_values).feature_maps
        logits, auxiliary_logits = model.decode_head(maps), model.auxiliary_head(maps)
        losses = [
            functional.cross_entropy(functional.interpolate(scores, size=(30, 44), mode="bilinear"), labels)
            for scores in (logits, auxiliary_logits)
        ]

    assert auxiliary_logits.shape == (2, 5, 4, 6)
    torch.testing.assert_close(outputs.logits, logits, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)
    torch.testing.assert_close(outputs.decode_loss, losses[0])
    torch.testing.assert_close(outputs.auxiliary_loss, 0.25 * losses[1])
    torch.testing.assert_close(outputs.loss, losses[0] + 0.25 * losses[1])


def test_without_auxiliary_head_the_loss_is_that_of_the_decode_head():
    model = build(use_auxiliary_head=False)

    outputs = model(make_images(), labels=make_labels())

    assert not any(name.startswith("auxiliary_head.") for name in model.state_dict())
    assert outputs.auxiliary_loss is None
    assert outputs.loss == outputs.decode_loss


def test_images_without_any_labeled_pixel_give_no_loss_and_no_nan():
    model = build().train()

    loss = model(make_images(), labels=torch.full((2, 32, 48), 255)).loss
    loss.backward()

    assert loss == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("head", ["decode_head", "auxiliary_head"])
def test_dropout_before_the_classifier_drops_whole_channels_in_training_only(head):
    classifier = getattr(build(decode_dropout_prob=0.5), head).classifier
    classifier.weight.data.abs_().add_(1)
    features = torch.ones(8, classifier.in_channels, 3, 4)
    torch.manual_seed(0)

    evaluated, trained = classifier.eval()(features), classifier.train()(features)

    expected = functional.conv2d(features, classifier.weight, classifier.bias)
    torch.testing.assert_close(evaluated, expected, atol=ATOL_FLOAT32, rtol=0)
    assert not torch.allclose(trained, expected)
    # Where a channel is dropped it is dropped at every pixel, so that all pixels of an image still agree.
    torch.testing.assert_close(trained, trained[..., :1, :1].expand_as(trained))


def test_dropout_can_be_turned_off():
    model = build(decode_dropout_prob=0.0)
    classifier = model.decode_head.classifier.train()
    features = torch.randn(2, 10, 3, 4, generator=torch.Generator().manual_seed(5))

    assert isinstance(classifier, TinyMimPixelClassifier)
    torch.testing.assert_close(classifier(features), classifier.eval()(features), atol=0, rtol=0)


# Training


def make_scenes() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight images of 64 pixels: noise with a rectangle that is class 1 or 2 by its color."""
    generator = torch.Generator().manual_seed(6)
    pixel_values = 0.3 * torch.randn(8, 3, 64, 64, generator=generator)
    labels = torch.zeros(8, 64, 64, dtype=torch.long)
    for index in range(8):
        # Edges lie on multiples of 4 pixels, the resolution of the logits.
        top, left = (4 * torch.randint(0, 8, (2,), generator=generator)).tolist()
        height, width = (4 * torch.randint(4, 9, (2,), generator=generator)).tolist()
        kind = 1 + index % 2
        labels[index, top : top + height, left : left + width] = kind
        pixel_values[index, kind, top : top + height, left : left + width] += 2.0
    return pixel_values, labels


def build_wide_config(**overrides) -> TinyMimConfig:
    return tiny_config(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=3,
        **overrides,
    )


def overfit(model, num_steps: int = 60) -> float:
    """Share of right pixels after training on eight images."""
    pixel_values, labels = make_scenes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    model.train()
    for _ in range(num_steps):
        loss = model(pixel_values=pixel_values, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(pixel_values=pixel_values).logits
    resized = functional.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
    return (resized.argmax(1) == labels).float().mean().item()


@pytest.mark.parametrize("fields", [AUTHORS, STAR | AUTHORS], ids=["plain", "star"])
def test_segmenter_overfits_eight_images(fields):
    torch.manual_seed(0)
    model = TinyMimForSemanticSegmentation(build_wide_config(decode_hidden_size=64, **fields))

    assert overfit(model) > 0.95


def test_backbone_in_the_upernet_of_transformers_overfits_eight_images():
    torch.manual_seed(0)
    backbone = build_wide_config(use_feature_pyramid=True)
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=64, pool_scales=[1, 2], auxiliary_channels=12, num_labels=3
    )
    model = UperNetForSemanticSegmentation(config)

    assert isinstance(model.backbone, TinyMimBackbone)
    assert overfit(model) > 0.95


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_changes_neither_loss_nor_gradients_nor_statistics(use_reentrant):
    plain = build(drop_path_rate=0.5, **AUTHORS).train()
    thrifty = copy.deepcopy(plain)
    thrifty.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    pixel_values, labels = make_images(num_images=3), make_labels(num_images=3)

    losses = []
    for model in (plain, thrifty):
        torch.manual_seed(1)
        loss = model(pixel_values, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())

    torch.testing.assert_close(losses[1], losses[0], atol=ATOL_REORDERED, rtol=0)
    for (name, one), two in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=ATOL_REORDERED, rtol=0, msg=name)
    for (name, one), two in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        torch.testing.assert_close(two, one, atol=ATOL_REORDERED, rtol=0, msg=name)


@pytest.mark.parametrize(("decay_embeddings", "expected"), [(True, 0.05), (False, 0.0)])
def test_segmentation_recipe_decays_tokens_and_positions_by_a_switch(decay_embeddings, expected):
    model = build(**AUTHORS)

    groups = build_layer_decay_parameter_groups(model, 1e-4, 0.05, 0.75, decay_embeddings=decay_embeddings)

    found = {id(parameter): group for group in groups for parameter in group["params"]}
    assert len(found) == len(list(model.parameters()))
    embeddings = model.tinymim.embeddings
    assert found[id(embeddings.position_embeddings)]["weight_decay"] == expected
    assert found[id(embeddings.cls_token)]["weight_decay"] == expected
    assert found[id(embeddings.position_embeddings)]["lr_scale"] == 0.75**5
    table = model.tinymim.layers[1].attention.relative_position_bias_table
    assert (found[id(table)]["weight_decay"], found[id(table)]["lr_scale"]) == (0.05, 0.75**3)
    assert found[id(model.tinymim.layers[1].layer_scale_mlp)]["weight_decay"] == 0
    for part in (model.pyramid.fine[0].weight, model.decode_head.classifier.weight):
        assert found[id(part)]["lr_scale"] == 1


def test_one_image_is_refused_in_training_and_taken_where_norms_are_frozen():
    model = build().train()

    with pytest.raises(ValueError, match=r"`pixel_values` must hold at least 2 images in training; got 1"):
        model(make_images(num_images=1))
    model.requires_grad_(False).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(make_images(num_images=1))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("size", [(64, 80), (32, 48)], ids=["another size", "size of the config"])
def test_exports_with_dynamic_size(size):
    model = build()
    shapes = {"pixel_values": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}

    program = torch.export.export(model, (), kwargs={"pixel_values": make_images(*size)}, dynamic_shapes=shapes)

    for pixel_values in (make_images(64, 80, 3), make_images(32, 48, 1), make_images(96, 56)):
        with torch.inference_mode():
            logits = program.module()(pixel_values=pixel_values).logits
            torch.testing.assert_close(logits, model(pixel_values).logits, atol=ATOL_FLOAT32, rtol=0)


# Loading


@pytest.mark.parametrize("fields", [{}, STAR | AUTHORS], ids=["plain", "star"])
def test_saved_model_loads_bit_for_bit(tmp_path, fields):
    model = build(**fields)
    model.save_pretrained(tmp_path)
    pixel_values = make_images()

    loaded, report = TinyMimForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)

    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), atol=0, rtol=0)
    with torch.no_grad():
        outputs = [one(pixel_values).logits for one in (model, loaded)]
    # Equal weights at other addresses: sums are vectorized otherwise.
    torch.testing.assert_close(outputs[1], outputs[0], atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_saved_upernet_of_transformers_loads(tmp_path):
    torch.manual_seed(0)
    config = UperNetConfig(
        backbone_config=tiny_config(use_feature_pyramid=True, **AUTHORS), hidden_size=8, pool_scales=[1, 2]
    )
    model = UperNetForSemanticSegmentation(config).eval()
    model.save_pretrained(tmp_path)

    loaded = UperNetForSemanticSegmentation.from_pretrained(tmp_path)

    with torch.no_grad():
        outputs = [one(make_images()).logits for one in (model, loaded)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_segmenter_takes_the_blocks_of_a_classifier(tmp_path):
    classifier = build(TinyMimForImageClassification)
    classifier.save_pretrained(tmp_path)

    model, report = TinyMimForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)

    for name, value in model.tinymim.state_dict().items():
        torch.testing.assert_close(value, classifier.tinymim.state_dict()[name], atol=0, rtol=0, msg=name)
    assert not report["unexpected_keys"]
    new = ("pyramid.", "decode_head.", "auxiliary_head.")
    assert not [name for name in report["missing_keys"] if not name.startswith(new)]


def test_relative_positions_and_layer_scale_of_a_plain_checkpoint_change_nothing_at_first(tmp_path):
    plain = build(TinyMimBackbone)
    plain.save_pretrained(tmp_path)

    model = TinyMimBackbone.from_pretrained(tmp_path, **AUTHORS)

    with torch.no_grad():
        outputs = [one(make_images()).feature_maps for one in (plain, model)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)
