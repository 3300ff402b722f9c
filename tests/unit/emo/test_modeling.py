"""EMO's models: shapes at any size, what each switch changes, fusing, freezing, checkpointing, loading."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.utils import logging

from decahub import EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation, EmoModel
from decahub.models.emo.block import EmoWindows
from tests.tiny.emo import build_distinct as build
from tests.tiny.emo import tiny_config


ATOL_ORDER = 1e-5  # the same sums in another order, float32
ATOL_FUSED = 1e-5  # batch norms folded into weights round once more
ATOL_BFLOAT16 = 0.05  # 8 bits of mantissa through 7 blocks, on logits of standard deviation near 0.3
DECODE_HEADS = ("deeplabv3", "pspnet", "segformer", "sem_fpn")
STRIDES = {"deeplabv3": 32, "pspnet": 32, "segformer": 4, "sem_fpn": 4}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def halve(size: int, times: int) -> int:
    for _ in range(times):
        size = -(-size // 2)
    return size


# Shapes


@pytest.mark.parametrize(("height", "width"), [(32, 48), (65, 97), (97, 65), (33, 31), (7, 5), (1, 1)])
def test_any_size_is_halved_five_times_and_rounded_up(height, width):
    model = build(EmoModel)

    with torch.inference_mode():
        outputs = model(torch.randn(2, 3, height, width), output_hidden_states=True)

    channels = [10, 8, 12, 16, 28]
    expected = [(2, size, halve(height, n), halve(width, n)) for n, size in enumerate(channels, start=1)]
    assert [tuple(maps.shape) for maps in outputs.hidden_states] == expected
    assert outputs.last_hidden_state.shape == expected[-1]
    assert outputs.pooler_output.shape == (2, 28)


def test_pooler_output_is_the_mean_of_the_normalized_map():
    outputs = build(EmoModel)(torch.randn(2, 3, 65, 97))

    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state.mean((2, 3)))
    torch.testing.assert_close(outputs.last_hidden_state.mean(1), torch.zeros(2, 3, 4), atol=ATOL_ORDER, rtol=0)


@pytest.mark.parametrize("decode_head", DECODE_HEADS)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97)])
def test_segmentation_logits_come_at_the_stride_of_the_head(decode_head, height, width):
    model = build(EmoForSemanticSegmentation, decode_head=decode_head)

    with torch.inference_mode():
        logits = model(torch.randn(2, 3, height, width)).logits

    times = STRIDES[decode_head].bit_length() - 1
    assert logits.shape == (2, 7, halve(height, times), halve(width, times))


def test_no_labels_leave_the_pooled_features():
    model = build(num_labels=0)
    pixel_values = torch.randn(2, 3, 40, 56)

    outputs = model(pixel_values)

    torch.testing.assert_close(outputs.logits, model.emo(pixel_values).pooler_output, atol=0, rtol=0)
    assert outputs.logits.shape == (2, 28)


def test_pre_classifier_is_a_layer_with_the_last_activation():
    model = build(pre_classifier_size=9)
    pixel_values = torch.randn(2, 3, 40, 56)

    logits = model(pixel_values).logits

    hidden = functional.gelu(model.pre_classifier(model.emo(pixel_values).pooler_output))
    torch.testing.assert_close(logits, model.classifier(hidden), atol=0, rtol=0)
    assert model.pre_classifier.weight.shape == (9, 28)


def test_input_embeddings_are_the_stem():
    stem = nn.Identity()
    for model, prefix in ((build(EmoModel), ""), (build(EmoBackbone), ""), (build(), "emo.")):
        assert model.get_input_embeddings() is model.get_submodule(f"{prefix}stem")

        model.set_input_embeddings(stem)

        assert model.get_submodule(f"{prefix}stem") is stem


def test_memory_format_of_the_input_does_not_matter():
    model = build()
    pixel_values = torch.randn(2, 3, 40, 56)

    with torch.inference_mode():
        planar = model(pixel_values).logits
        interleaved = model(pixel_values.to(memory_format=torch.channels_last)).logits

    torch.testing.assert_close(planar, interleaved, atol=0, rtol=0)


# Windows


def test_grid_windows_take_every_nth_pixel():
    hidden_states = torch.randn(2, 3, 6, 8)  # windows of 2 x 2: a comb of step 3 down and 4 across
    windows = EmoWindows.of(hidden_states, 2, "grid").split(hidden_states)

    combs = [
        hidden_states[image, :, row::3, column::4] for image in range(2) for row in range(3) for column in range(4)
    ]

    torch.testing.assert_close(windows, torch.stack(combs), atol=0, rtol=0)


def test_tile_windows_are_contiguous():
    hidden_states = torch.randn(2, 3, 6, 8)
    windows = EmoWindows.of(hidden_states, 2, "tile").split(hidden_states)

    tiles = [
        hidden_states[image, :, row : row + 2, column : column + 2]
        for image in range(2)
        for row in range(0, 6, 2)
        for column in range(0, 8, 2)
    ]

    torch.testing.assert_close(windows, torch.stack(tiles), atol=0, rtol=0)


@pytest.mark.parametrize("mode", ["grid", "tile"])
@pytest.mark.parametrize(("height", "width", "size"), [(6, 8, 2), (5, 7, 3), (2, 3, 7), (5, 7, 0)])
def test_merging_windows_undoes_splitting(mode, height, width, size):
    hidden_states = torch.randn(2, 3, height, width)
    windows = EmoWindows.of(hidden_states, size, mode)

    torch.testing.assert_close(windows.merge(windows.split(hidden_states)), hidden_states, atol=0, rtol=0)


def test_window_mode_changes_results_only_where_there_are_several_windows():
    grid = build()
    tile = build(window_mode="tile")
    tile.load_state_dict(grid.state_dict())
    several, single = torch.randn(2, 3, 160, 224), torch.randn(2, 3, 64, 64)

    with torch.inference_mode():
        differences = [(grid(images).logits - tile(images).logits).abs().max() for images in (several, single)]

    assert differences[0] > 1e-3
    assert differences[1] == 0


def test_masked_padding_makes_one_large_window_global_attention():
    masked = build(mask_padding=True, window_sizes=[7, 7, 7, 7])
    exact = build(window_sizes=[0, 0, 0, 0])
    exact.load_state_dict(masked.state_dict())
    pixel_values = torch.randn(2, 3, 65, 97)  # stage maps 5 x 7 and 3 x 4

    with torch.inference_mode():
        torch.testing.assert_close(masked(pixel_values).logits, exact(pixel_values).logits, atol=ATOL_ORDER, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_takes_part_unless_it_is_masked(implementation):
    diluted = build()
    masked = build(mask_padding=True)
    masked.load_state_dict(diluted.state_dict())
    for model in (diluted, masked):
        model.set_attn_implementation(implementation)
    padded, whole = torch.randn(2, 3, 65, 97), torch.randn(2, 3, 128, 256)  # whole: maps of 8 x 16 and 4 x 8

    with torch.inference_mode():
        differences = [(diluted(images).logits - masked(images).logits).abs().max() for images in (padded, whole)]

    assert differences[0] > 1e-3
    assert differences[1] == 0


def test_says_once_that_padding_makes_over_half_the_keys(caplog):
    logger = "decahub.models.emo.block"
    model = build(window_sizes=[7, 7, 7, 7])
    logging.warning_once.cache_clear()
    with caplog.at_level("WARNING", logger=logger):
        for _ in range(2):
            model(torch.randn(1, 3, 32, 32))

    texts = [record.getMessage() for record in caplog.records if record.name == logger]
    assert len([text for text in texts if "A map of 2 x 2 pixels" in text and "`window_sizes`" in text]) == 1


@pytest.mark.parametrize(
    "fields",
    [{}, {"mask_padding": True}, {"attention_before_expansion": False}, {"grouped_value": True, "qkv_bias": False}],
    ids=["default", "mask_padding", "attention_after_expansion", "grouped_value"],
)
def test_eager_attention_equals_sdpa(fields):
    model = build(**fields)
    pixel_values = torch.randn(2, 3, 65, 97)

    with torch.inference_mode():
        sdpa = model(pixel_values).logits
        model.set_attn_implementation("eager")
        eager = model(pixel_values).logits

    torch.testing.assert_close(eager, sdpa, atol=ATOL_ORDER, rtol=0)


def test_eager_attention_returns_one_map_per_attending_block():
    model = build()
    model.set_attn_implementation("eager")

    attentions = model(torch.randn(2, 3, 160, 224), output_attentions=True).attentions

    # Stage 3 maps have 10 x 14 pixels, 3 x 4 windows of 4 x 4; those of stage 4 have 5 x 7, 2 x 2 windows.
    assert [tuple(maps.shape) for maps in attentions] == [(2 * 12, 2, 16, 16), (2 * 4, 2, 16, 16)]
    for maps in attentions:
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


# Further switches


def test_stem_stride_1_keeps_the_size_and_the_weights():
    coarse, fine = build(EmoModel), build(EmoModel, stem_stride=1)
    fine.load_state_dict(coarse.state_dict())

    outputs = fine(torch.randn(2, 3, 32, 48), output_hidden_states=True)

    assert [tuple(maps.shape[2:]) for maps in outputs.hidden_states] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]


def test_other_numbers_of_channels():
    logits = build(num_channels=5)(torch.randn(2, 5, 40, 56)).logits

    assert logits.shape == (2, 7)


def test_loss_over_labeled_pixels_differs_by_their_share():
    every, labeled = build(EmoForSemanticSegmentation, loss_avg_non_ignore=False), build(EmoForSemanticSegmentation)
    labeled.load_state_dict(every.state_dict())
    pixel_values = torch.randn(2, 3, 64, 96)
    labels = torch.randint(7, (2, 64, 96))
    labels[:, 40:] = 255
    share = 40 / 64

    with torch.inference_mode():
        losses = [model(pixel_values, labels=labels).loss for model in (every, labeled)]

    torch.testing.assert_close(losses[0], share * losses[1])


def test_segmentation_loss_is_that_of_logits_resized_to_the_labels():
    model = build(EmoForSemanticSegmentation, auxiliary_loss_weight=0.25)
    pixel_values, labels = torch.randn(2, 3, 64, 96), torch.randint(7, (2, 50, 70))

    with torch.inference_mode():
        outputs = model(pixel_values, labels=labels)

    expected = [
        functional.cross_entropy(functional.interpolate(logits, size=(50, 70), mode="bilinear"), labels)
        for logits in (outputs.logits, outputs.auxiliary_logits)
    ]
    torch.testing.assert_close(outputs.decode_loss, expected[0])
    torch.testing.assert_close(outputs.auxiliary_loss, 0.25 * expected[1])
    torch.testing.assert_close(outputs.loss, expected[0] + 0.25 * expected[1])


def test_pixel_classifiers_start_small():
    torch.manual_seed(0)

    model = EmoForSemanticSegmentation(tiny_config(decode_hidden_size=96, num_labels=40))

    assert model.decode_head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.decode_head.classifier.bias.any()


def test_drop_path_rates_grow_linearly_over_the_blocks():
    model = build(drop_path_rate=0.3)

    rates = [block.drop_path_rate for stage in model.emo.stages for block in stage.blocks]

    assert rates == pytest.approx([0.3 * index / 6 for index in range(7)])
    assert model.emo.stem.block.drop_path_rate == 0


# Training


def test_one_image_whose_last_map_is_one_pixel_cannot_train():
    model = EmoForImageClassification(tiny_config()).train()

    with pytest.raises(ValueError, match=r"`pixel_values` must hold at least 2 images in training; got 1"):
        model(torch.randn(1, 3, 32, 32))


def test_one_image_cannot_train_a_head_that_pools_the_whole_map():
    model = EmoForSemanticSegmentation(tiny_config()).train()

    with pytest.raises(ValueError, match=r"at least 2 images in training; got 1.*`drop_last`"):
        model(torch.randn(1, 3, 128, 128))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_changes_neither_loss_nor_gradients_nor_statistics(use_reentrant):
    plain = EmoForImageClassification(tiny_config(drop_path_rate=0.5)).train()
    thrifty = copy.deepcopy(plain)
    thrifty.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    pixel_values, labels = torch.randn(3, 3, 64, 96), torch.tensor([1, 6, 0])

    losses = []
    for model in (plain, thrifty):
        torch.manual_seed(1)
        loss = model(pixel_values, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())

    assert losses[0] == losses[1]
    for (name, one), two in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=0, rtol=0, msg=name)
    for (name, one), two in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        torch.testing.assert_close(two, one, atol=0, rtol=0, msg=name)


def test_frozen_stages_neither_learn_nor_count_batches():
    model = EmoBackbone(tiny_config(frozen_stages=2)).train()
    before = copy.deepcopy(model.state_dict())

    model(torch.randn(3, 3, 64, 96)).feature_maps[-1].sum().backward()

    frozen = ("stem.", "stages.0.", "stages.1.")
    assert all((parameter.grad is None) == name.startswith(frozen) for name, parameter in model.named_parameters())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith(frozen) for name in changed)


def test_frozen_batch_norms_keep_their_statistics_but_learn():
    model = EmoBackbone(tiny_config(freeze_batch_norm=True)).train()
    before = copy.deepcopy(dict(model.named_buffers()))

    model(torch.randn(3, 3, 64, 96)).feature_maps[-1].sum().backward()

    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.stem.patch_embedding.normalization.weight.grad is not None


@pytest.mark.parametrize("model_class", [EmoForImageClassification, EmoForSemanticSegmentation])
def test_autocast_to_bfloat16_is_finite_and_close(model_class):
    model = build(model_class)
    pixel_values = torch.randn(2, 3, 65, 97)

    with torch.inference_mode():
        exact = model(pixel_values).logits
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(pixel_values).logits.float()

    torch.testing.assert_close(rounded, exact, atol=ATOL_BFLOAT16, rtol=0.05)


def test_bfloat16_weights_give_finite_gradients():
    model = EmoForImageClassification(tiny_config(mask_padding=True)).to(torch.bfloat16).train()

    loss = model(torch.randn(3, 3, 65, 97), labels=torch.tensor([1, 6, 0])).loss
    loss.backward()

    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# Fusing


@pytest.mark.parametrize(
    ("model_class", "fields"),
    [
        (EmoForImageClassification, {}),
        (EmoForImageClassification, {"qkv_bias": False, "squeeze_excitation_ratios": [0.25, 0, 0.5, 0]}),
        (EmoForImageClassification, {"norm_types": ["layer_norm", "batch_norm", "batch_norm", "batch_norm"]}),
        (EmoForImageClassification, {"use_attention": [True, True, True, True], "grouped_value": True}),
        (EmoBackbone, {"out_indices": [1, 4]}),
        *((EmoForSemanticSegmentation, {"decode_head": head}) for head in DECODE_HEADS),
    ],
    ids=["default", "no bias, gates", "other norms", "attention everywhere", "backbone", *DECODE_HEADS],
)
def test_fused_copy_gives_the_same_outputs(model_class, fields):
    model = build(model_class, **fields)
    before = copy.deepcopy(model.state_dict())
    pixel_values = torch.randn(2, 3, 65, 97)

    with torch.inference_mode():
        expected, fused = model(pixel_values), model.fuse()(pixel_values)

    torch.testing.assert_close(fused.to_tuple(), expected.to_tuple(), atol=ATOL_FUSED, rtol=ATOL_FUSED)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fused_copy_has_no_batch_norm_left():
    fused = build(EmoForSemanticSegmentation).fuse()

    assert not [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_fused_copy_refuses_to_train_and_to_be_saved(tmp_path):
    fused = build().fuse()

    with pytest.raises(ValueError, match=r"fused model has no batch norms to train.*`fuse\(\)`"):
        fused.train()
    with pytest.raises(ValueError, match=r"fused model has lost its batch norms.*`fuse\(\)`"):
        fused.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not fused.eval().training


# Loading


@pytest.mark.parametrize("model_class", [EmoModel, EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation])
def test_saved_model_loads_bit_for_bit(model_class, tmp_path):
    model = build(model_class)
    model.save_pretrained(tmp_path)

    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)

    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, one), two in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, atol=0, rtol=0, msg=name)
    assert not loaded.training


@pytest.mark.parametrize("model_class", [EmoBackbone, EmoForSemanticSegmentation])
def test_dense_models_take_the_backbone_of_a_classifier(model_class, tmp_path):
    classifier = build()
    classifier.save_pretrained(tmp_path)

    model, report = model_class.from_pretrained(tmp_path, output_loading_info=True)

    trunk = model if model_class is EmoBackbone else model.emo
    for name, value in trunk.state_dict().items():
        torch.testing.assert_close(value, classifier.emo.state_dict()[name], atol=0, rtol=0, msg=name)
    assert not report["unexpected_keys"]  # the classifier and the norm before it are of no use here
    assert not [name for name in report["missing_keys"] if not name.startswith(("decode_head.", "auxiliary_head."))]


def test_other_number_of_labels_loads_only_where_it_is_allowed(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)

    with pytest.raises(RuntimeError, match="mismatch"):
        EmoForImageClassification.from_pretrained(tmp_path, num_labels=3)
    loaded = EmoForImageClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)

    assert loaded.classifier.weight.shape == (3, 28)
    assert loaded.classifier.weight.isfinite().all()
    torch.testing.assert_close(loaded.emo.state_dict(), model.emo.state_dict(), atol=0, rtol=0)
