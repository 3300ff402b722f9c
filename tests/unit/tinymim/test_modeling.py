"""Bare model, classifier and backbone of TinyMIM: shapes, initialization, sizes, loading; weights of other ViTs."""

import pytest
import torch
from transformers import (
    AutoBackbone,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    DeiTConfig,
    DeiTModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

from decahub import TinyMimBackbone, TinyMimForImageClassification, TinyMimForPreTraining, TinyMimModel
from decahub.models.tinymim.layers import compute_drop_path_rates
from decahub.models.tinymim.position_embeddings import build_position_embeddings, resize_position_embeddings
from decahub.models.tinymim.relative_position import num_relative_positions, resize_relative_position_bias
from decahub.models.tinymim.vit_weights import from_vit
from tests.tiny.tinymim import GRID, HEIGHT, NUM_TOKENS, WIDTH, tiny_config, tiny_pixels


ATOL = 1e-5  # float32, fused against separate projections
VIT_SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-6,
}


def test_model_returns_tokens_and_their_mean():
    model = TinyMimModel(tiny_config()).eval()

    outputs = model(tiny_pixels(), output_hidden_states=True)

    assert outputs.last_hidden_state.shape == (2, NUM_TOKENS, 24)
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state[:, 1:].mean(1))
    assert len(outputs.hidden_states) == 4


def test_features_can_come_from_the_block_before_or_the_class_token():
    model, pixels = TinyMimModel(tiny_config()).eval(), tiny_pixels()
    outputs = model(pixels, output_hidden_states=True)

    model.config.feature_layer = -2
    torch.testing.assert_close(model(pixels).pooler_output, outputs.hidden_states[-2][:, 1:].mean(1))
    model.config.pooling = "cls"
    torch.testing.assert_close(model(pixels).pooler_output, outputs.hidden_states[-2][:, 0])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(implementation):
    torch.manual_seed(0)
    model = TinyMimModel(tiny_config()).eval()
    expected = model(tiny_pixels()).last_hidden_state

    model.set_attn_implementation(implementation)

    torch.testing.assert_close(model(tiny_pixels()).last_hidden_state, expected, atol=ATOL, rtol=0)


def test_initialization_survives_a_load(tmp_path):
    config = tiny_config(layer_scale_init_value=0.5, use_relative_position_bias=True)
    TinyMimModel(config).save_pretrained(tmp_path)

    model = TinyMimBackbone.from_pretrained(tmp_path)

    table = build_position_embeddings(24, GRID)
    torch.testing.assert_close(model.embeddings.position_embeddings.data, table)
    assert (model.layers[0].layer_scale_mlp == 0.5).all()
    assert model.layers[0].attention.relative_position_index.max() == 7 * 11 + 3 - 1


def test_classifier_starts_near_zero():
    model = TinyMimForImageClassification(tiny_config(num_labels=50))

    assert 1e-5 < model.classifier.weight.std() < 3e-5


@pytest.mark.parametrize("fields", [{}, {"use_relative_position_bias": True}], ids=["plain", "bias"])
@pytest.mark.parametrize("given", ["keyword", "config"])
def test_another_image_size_interpolates_positions(tmp_path, fields, given):
    torch.manual_seed(0)
    model = TinyMimForImageClassification(tiny_config(**fields)).eval()
    for name, parameter in model.named_parameters():  # learned, unlike what a new model starts from
        if "position" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    size = [HEIGHT + 16, WIDTH + 8]
    options = {"image_size": size} if given == "keyword" else {"config": tiny_config(image_size=size, **fields)}

    larger, info = TinyMimForImageClassification.from_pretrained(tmp_path, output_loading_info=True, **options)

    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert list(larger.config.image_size) == size
    assert larger.tinymim.config.grid_size == larger.tinymim.embeddings.config.grid_size == (6, 7)
    pixel_values = torch.randn(2, 3, *size)
    with torch.inference_mode():
        logits = larger.eval()(pixel_values).logits
        if not fields:
            torch.testing.assert_close(logits, model(pixel_values, interpolate_pos_encoding=True).logits)
    larger.save_pretrained(tmp_path / "larger")
    again = TinyMimForImageClassification.from_pretrained(tmp_path / "larger").eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(pixel_values).logits, logits, atol=0, rtol=0)


def test_interpolated_bias_keeps_prefix_tokens_and_ends():
    table = torch.randn(num_relative_positions((3, 2), 1), 4)

    resized = resize_relative_position_bias(table, (3, 2), (5, 4))

    assert len(resized) == num_relative_positions((5, 4), 1)
    torch.testing.assert_close(resized[-3:], table[-3:], atol=0, rtol=0)
    torch.testing.assert_close(resized[[0, 9 * 7 - 1]], table[[0, 5 * 3 - 1]])  # the farthest offsets
    torch.testing.assert_close(resize_relative_position_bias(table, (3, 2), (3, 2)), table)


def test_a_student_without_classes_is_no_classifier(tmp_path):
    TinyMimModel(tiny_config(num_labels=0)).save_pretrained(tmp_path)

    with pytest.raises(
        ValueError, match=r"`num_labels` must be at least 1 for TinyMimForImageClassification.*AutoMod"
    ):
        AutoModelForImageClassification.from_pretrained(tmp_path)
    assert AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=4).classifier.out_features == 4


def test_other_sizes_need_to_be_asked_for():
    model = TinyMimForImageClassification(tiny_config()).eval()
    larger = torch.randn(2, 3, HEIGHT + 16, WIDTH)

    with pytest.raises(ValueError, match="interpolate_pos_encoding=True"):
        model(larger)
    assert model(larger, interpolate_pos_encoding=True).logits.shape == (2, 5)
    assert TinyMimBackbone(tiny_config())(larger).feature_maps[0].shape == (2, 24, 6, 6)


def test_resize_of_positions_keeps_the_class_token_and_refuses_a_wrong_grid():
    table = torch.randn(1, NUM_TOKENS, 8)

    resized = resize_position_embeddings(table, GRID, (5, 7))

    assert resized.shape == (1, 36, 8)
    torch.testing.assert_close(resized[:, :1], table[:, :1])
    assert resize_position_embeddings(table, GRID, GRID) is table
    with pytest.raises(ValueError, match=r"1 \+ 3 \* 3 rows; got 25"):
        resize_position_embeddings(table, (3, 3), (5, 7))


def test_drop_path_schedules():
    rates = {"drop_path_rate": 0.3}

    assert compute_drop_path_rates(tiny_config(**rates)) == [0.0, 0.15, 0.3]
    assert compute_drop_path_rates(tiny_config(**rates, drop_path_schedule="constant")) == [0.3, 0.3, 0.0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_classifier_pools_as_it_is_told(pooling):
    model = TinyMimForImageClassification(tiny_config(pooling=pooling)).eval()

    model(tiny_pixels(), labels=torch.tensor([1, 4])).loss.backward()

    assert (model.tinymim.layernorm is None) == (pooling == "mean")
    assert model.tinymim.embeddings.position_embeddings.grad is not None


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, TinyMimModel),
        (AutoModelForPreTraining, TinyMimForPreTraining),
        (AutoModelForImageClassification, TinyMimForImageClassification),
        (AutoBackbone, TinyMimBackbone),
    ],
)
def test_auto_classes_know_the_models(auto_class, model_class):
    assert type(auto_class.from_config(tiny_config())) is model_class


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_weights_of_transformers_give_the_same_tokens(kind):
    torch.manual_seed(0)
    vit = {"vit": lambda: ViTModel(ViTConfig(**VIT_SIZES)), "deit": lambda: DeiTModel(DeiTConfig(**VIT_SIZES))}[kind]()
    pixels = torch.randn(2, 3, 32, 32)

    converted = from_vit(vit.eval())

    expected = vit(pixels).last_hidden_state
    torch.testing.assert_close(converted(pixels).last_hidden_state, expected, atol=ATOL, rtol=0)


def test_the_encoder_of_a_masked_autoencoder_is_taken_without_its_decoder():
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    mae = ViTMAEForPreTraining(ViTMAEConfig(**VIT_SIZES, **decoder, decoder_intermediate_size=32, mask_ratio=0.0))
    pixels, noise = torch.randn(2, 3, 32, 32), torch.arange(16.0).expand(2, -1)

    converted = from_vit(mae.eval(), feature_layer=-2)

    expected = mae.vit(pixels, noise=noise).last_hidden_state
    torch.testing.assert_close(converted(pixels).last_hidden_state, expected, atol=ATOL, rtol=0)
    assert converted.config.feature_layer == -2


def test_only_plain_transformers_are_taken():
    with pytest.raises(ValueError, match="got Linear"):
        from_vit(torch.nn.Linear(2, 2))
