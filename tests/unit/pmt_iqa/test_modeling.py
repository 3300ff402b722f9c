"""PMT-IQA's models: branches, losses, padding of crops, dense scores, backbones, loading."""

import copy

import pytest
import torch
from torch.nn import functional
from transformers import TimmBackboneConfig

from decahub import AutoModelForImageQualityAssessment, PmtIqaForImageQualityAssessment, PmtIqaModel
from decahub.models.pmt_iqa.local_distortion import PmtIqaBranch
from tests.tiny.batch_norms import make_norms_distinct
from tests.tiny.pmt_iqa import CROP_SIZE, tiny_backbone, tiny_config


ATOL_ORDER = 1e-5  # the same sums in another order, float32
RTOL_ORDER = 1e-5  # of maps, whose values may be large
ATOL_HALF = 0.1  # 8 bits of mantissa, on scores of a size near 1


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**fields) -> PmtIqaForImageQualityAssessment:
    """A model in evaluation mode whose batch norms are no identity."""
    model = PmtIqaForImageQualityAssessment(tiny_config(**fields)).eval()
    make_norms_distinct(model)
    return model


def draw_crops(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 3, CROP_SIZE, CROP_SIZE)


# Branches


def test_branch_reduces_and_pools_in_either_order():
    branch, maps = PmtIqaBranch(6, 4, 2, 3, 5), torch.randn(2, 6, 7, 7)

    pooled = functional.avg_pool2d(branch.reduce(maps), 2)

    torch.testing.assert_close(branch(maps), branch.proj(pooled.flatten(1)), atol=ATOL_ORDER, rtol=0)


def test_dense_branch_gives_the_features_of_every_window():
    branch, maps = PmtIqaBranch(6, 4, 2, 3, 5), torch.randn(2, 6, 10, 14)

    dense = branch.forward_dense(maps, 2)

    assert dense.shape == (2, 5, 3, 5)
    for row in range(3):
        for column in range(5):
            window = maps[..., 2 * row : 2 * row + 6, 2 * column : 2 * column + 6]
            torch.testing.assert_close(dense[..., row, column], branch(window), atol=ATOL_ORDER, rtol=0)


def test_branch_refuses_a_map_of_another_size():
    with pytest.raises(ValueError, match=r"must have 3 x 3 windows of 2 cells; got \(4, 6\) cells"):
        PmtIqaBranch(6, 4, 2, 3, 5)(torch.randn(1, 6, 4, 6))


def test_initialization_of_branches_and_heads():
    model = PmtIqaForImageQualityAssessment(tiny_config(hidden_size=400, lda_channels=[200, 300, 400]))

    projection, hidden = model.pmt_iqa.lda[0].proj, model.shared[0]

    fan_in = projection.in_features
    assert projection.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    assert hidden.weight.abs().max().item() <= hidden.in_features**-0.5
    assert hidden.weight.std().item() == pytest.approx((1 / 3 / hidden.in_features) ** 0.5, rel=0.05)
    convolution = model.pmt_iqa.backbone.embedder.embedder.convolution.weight
    assert convolution.std().item() == pytest.approx((2 / (49 * len(convolution))) ** 0.5, rel=0.15)


# Outputs


def test_score_is_the_mean_over_crops():
    model, crops = build(), draw_crops(2, 3)

    outputs = model(crops)
    single = [model(crops[:, index]) for index in range(3)]

    scores = torch.stack([output.score for output in single], dim=1)
    torch.testing.assert_close(outputs.crop_scores, scores, atol=ATOL_ORDER, rtol=0)
    torch.testing.assert_close(outputs.score, scores.mean(1), atol=ATOL_ORDER, rtol=0)
    probs = torch.stack([output.level_logits[:, 0].softmax(-1) for output in single]).mean(0)
    torch.testing.assert_close(outputs.level_probs, probs, atol=ATOL_ORDER, rtol=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_padding_of_crops_changes_nothing(mode):
    model, crops = build().train(mode == "train"), draw_crops(2, 3)
    crops[1, 1:] = 1e3  # padding may hold anything
    crop_mask, labels = torch.tensor([[True, True, True], [True, False, False]]), torch.tensor([40.0, 70.0])

    outputs = copy.deepcopy(model)(crops, crop_mask=crop_mask, labels=labels)
    flat = model(crops[crop_mask], labels=labels[[0, 0, 0, 1]])

    torch.testing.assert_close(outputs.crop_scores[crop_mask], flat.score, atol=ATOL_ORDER, rtol=0)
    torch.testing.assert_close(outputs.score[1], flat.score[3], atol=ATOL_ORDER, rtol=0)
    torch.testing.assert_close(outputs.loss, flat.loss, atol=ATOL_ORDER, rtol=1e-5)
    assert outputs.crop_scores[1, 1:].tolist() == [0, 0]


def test_unit_scale_scores_are_on_the_scale_of_the_labels():
    fields = {"score_low": -2.0, "score_high": 6.0}
    native, unit = build(**fields), build(**fields, label_scale="unit")
    unit.load_state_dict(native.state_dict())
    crops, labels = draw_crops(2), torch.tensor([0.5, 4.0])

    raw, scaled = native(crops).score, unit(crops, labels=labels)

    torch.testing.assert_close(scaled.score, -2 + 8 * raw)
    torch.testing.assert_close(scaled.loss_reg, (raw - (labels + 2) / 8).abs().mean())


def test_calibration_is_the_logistic_curve():
    model = build(calibration=[90.0, 10.0, 2.0, -0.5])

    calibrated = model.calibrate(torch.tensor([2.0, 3.0]))

    expected = 80 / (1 + torch.exp(torch.tensor(-1 / 0.5, dtype=torch.float64))) + 10
    assert calibrated.tolist() == pytest.approx([50.0, float(expected)])


def test_input_embeddings_are_the_backbone():
    model = build()

    assert model.get_input_embeddings() is model.pmt_iqa.backbone


# Losses


def test_losses_are_l1_and_cross_entropy_over_crops():
    model, crops = build(w_reg=0.7, w_cls=0.3), draw_crops(2, 2)
    labels = torch.tensor([20.0, 85.0])

    outputs = model(crops, labels=labels)

    loss_reg = sum((outputs.crop_scores[i, j] - labels[i]).abs() for i in range(2) for j in range(2)) / 4
    levels = [1, 5]  # six levels of 16.67 each
    loss_cls = -sum(outputs.level_logits[i, j].log_softmax(-1)[levels[i]] for i in range(2) for j in range(2)) / 4
    torch.testing.assert_close(outputs.loss_reg, loss_reg)
    torch.testing.assert_close(outputs.loss_cls, loss_cls)
    torch.testing.assert_close(outputs.loss, 0.7 * loss_reg + 0.3 * loss_cls)


def test_labels_that_are_nan_are_left_out(caplog):
    model, crops = build(), draw_crops(2)

    outputs = model(crops, labels=torch.tensor([torch.nan, 55.0]))
    expected = model(crops[1:], labels=torch.tensor([55.0]))

    torch.testing.assert_close(outputs.loss, expected.loss, atol=ATOL_ORDER, rtol=1e-5)
    assert "1 of 2 labels are not finite" in caplog.text


def test_levels_alone_train_the_level():
    outputs = build()(draw_crops(2), level_labels=torch.tensor([0, -100]))

    assert outputs.loss_reg is None
    torch.testing.assert_close(outputs.loss, -outputs.level_logits[0, 0].log_softmax(-1)[0])


def test_score_only_ignores_the_level():
    model = build(task_schedule="score_only")

    model(draw_crops(2), labels=torch.tensor([20.0, 85.0])).loss.backward()

    assert all(parameter.grad.abs().max() == 0 for parameter in model.level_head.parameters())
    assert model.score_head.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"labels": torch.tensor([1.0])}, ValueError, r"`labels` must have one score per image, shape \(2,\)"),
        ({"labels": torch.full((2,), torch.nan)}, ValueError, "at least one finite score; got 2 that are not"),
        ({"level_labels": torch.tensor([0, 6])}, ValueError, r"`level_labels` must be in \[0, 6\).*got 6"),
        ({"level_labels": torch.tensor([0.0, 1.0])}, TypeError, "`level_labels` must be integers; got torch.float32"),
        ({"crop_mask": torch.ones(2, 3)}, ValueError, r"`crop_mask` must have shape .*\(2, 1\); got \(2, 3\)"),
        ({"crop_mask": torch.tensor([[True], [False]])}, ValueError, "must leave at least one crop of each image"),
        ({"pixel_values": torch.randn(2, 3, CROP_SIZE, CROP_SIZE + 1)}, ValueError, "crops of 64 x 64 pixels"),
        ({"pixel_values": torch.ones(2, 3, CROP_SIZE, CROP_SIZE, dtype=torch.int64)}, TypeError, "floating point"),
        ({"pixel_values": torch.full((1, 3, CROP_SIZE, CROP_SIZE), torch.nan)}, ValueError, "must be finite"),
        ({"pixel_values": torch.randn(3, CROP_SIZE, CROP_SIZE)}, ValueError, "must have shape"),
        ({"pixel_values": None}, ValueError, "`pixel_values` must be given"),
        ({"lables": torch.tensor([1.0])}, ValueError, "Did you mean `labels`"),
    ],
    ids=["length", "all-nan", "level", "kind", "mask", "no-crop", "size", "integers", "nan", "dims", "none", "typo"],
)
def test_refuses(inputs, error, message):
    with pytest.raises(error, match=message):
        build()(**{"pixel_values": draw_crops(2), **inputs})


def test_labels_out_of_range_are_warned_of(caplog):
    build()(draw_crops(2), labels=torch.tensor([20.0, 101.0]))

    assert "1 labels lie outside of [0, 100]" in caplog.text


def test_crops_up_to_a_window_larger_are_taken_if_asked():
    model, crops = build(strict_crop_size=False), torch.randn(1, 3, CROP_SIZE + 3, CROP_SIZE + 2)

    assert model(crops).score.shape == (1,)
    with pytest.raises(ValueError, match="windows of 2 cells"):
        model(torch.randn(1, 3, CROP_SIZE + 20, CROP_SIZE + 20))


def test_a_batch_of_one_trains():
    outputs = build().train()(draw_crops(1), labels=torch.tensor([30.0]))

    assert outputs.loss.isfinite()


# Dense scores


def test_dense_map_has_a_score_for_each_step():
    model = build()

    quality_map = model.compute_quality_map(torch.randn(2, 3, CROP_SIZE + 32, CROP_SIZE + 96))

    assert quality_map.score_map.shape == (2, 2, 4)
    torch.testing.assert_close(quality_map.score, quality_map.score_map.mean((1, 2)))
    torch.testing.assert_close(quality_map.level_probs.sum(-1), torch.ones(2))


def test_dense_score_of_one_crop_is_that_of_the_crop():
    model, crop = build(), draw_crops(1)

    with torch.no_grad():
        torch.testing.assert_close(
            model.compute_quality_map(crop).score, model(crop).score, atol=ATOL_ORDER, rtol=1e-5
        )


@pytest.mark.parametrize("size", [(CROP_SIZE, CROP_SIZE + 1), (CROP_SIZE - 32, CROP_SIZE)])
def test_dense_refuses_sizes(size):
    with pytest.raises(ValueError, match="multiples of 32 and at least 64"):
        build().compute_quality_map(torch.randn(1, 3, *size))


# Backbones, precision, loading


def test_timm_network_as_backbone(tmp_path):
    pytest.importorskip("timm")
    backbone = TimmBackboneConfig(backbone="mobilenetv3_small_050", out_indices=[1, 2, 3, 4])
    config = tiny_config(backbone_config=backbone, feature_strides=[4, 8, 16, 32], task_schedule="constant")
    model, crops = PmtIqaForImageQualityAssessment(config).eval(), draw_crops(2)

    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageQualityAssessment.from_pretrained(tmp_path)

    assert loaded.config.backbone_config.backbone == "mobilenetv3_small_050"
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(loaded(crops).score, model(crops).score)


def test_loaded_model_equals_the_saved_one(tmp_path):
    model, crops = build(), draw_crops(2, 2)
    model.save_pretrained(tmp_path)

    loaded = AutoModelForImageQualityAssessment.from_pretrained(tmp_path)

    assert torch.equal(loaded(crops).score, model(crops).score)
    assert loaded.task_weights == (1.0, 1.0)


def test_bare_model_gives_features_of_all_branches():
    model, crops = PmtIqaModel(tiny_config()).eval(), draw_crops(2)

    outputs = model(crops, output_hidden_states=True)

    assert [tuple(features.shape) for features in outputs.branch_features] == [(2, 7), (2, 7), (2, 7), (2, 11)]
    assert torch.equal(outputs.pooler_output, torch.cat(outputs.branch_features, dim=1))
    assert [maps.shape[-1] for maps in outputs.hidden_states] == [16, 8, 4, 2]


def test_bfloat16_is_close():
    model, crops = build(), draw_crops(2)

    half = copy.deepcopy(model).bfloat16()(crops.bfloat16()).score.float()

    torch.testing.assert_close(half, model(crops).score, atol=ATOL_HALF, rtol=ATOL_HALF)


def test_backbone_of_two_maps():
    backbone = tiny_backbone(out_features=["stage2", "stage4"])
    fields = {"feature_strides": [8, 32], "lda_channels": [5], "target_in_size": 20}

    assert build(backbone_config=backbone, **fields)(draw_crops(2)).score.shape == (2,)


def test_pooled_maps_stand_for_their_crops():
    crops = draw_crops(2, 3)
    labels, mask = torch.tensor([20.0, 70.0]), torch.tensor([[True, True, True], [True, False, False]])
    model = build()
    pooled = model.pmt_iqa.compute_pooled_maps(crops.flatten(0, 1)).unflatten(0, (2, 3))

    expected = model(crops, crop_mask=mask, labels=labels)
    outputs = model(pooled_maps=pooled, crop_mask=mask, labels=labels)

    for name in ("loss", "score", "crop_scores", "level_logits"):
        torch.testing.assert_close(outputs[name], expected[name], msg=name)
    assert outputs.hidden_states is None


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 7), (2, 3, 7, 1)])
def test_pooled_maps_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match="`pooled_maps` must have"):
        build()(pooled_maps=torch.zeros(shape))


def test_pixels_and_pooled_maps_exclude_each_other():
    model = build()
    with pytest.raises(ValueError, match="`pixel_values`"):
        model(draw_crops(1, 1), pooled_maps=torch.zeros(1, 1, sum(model.pmt_iqa.pooled_sizes)))


def test_many_crops_are_computed_in_parts_with_the_same_scores(monkeypatch):
    model, crops = build(), draw_crops(2, 5)
    expected = model(crops, output_hidden_states=True)  # with gradients, all at once
    monkeypatch.setattr("decahub.models.pmt_iqa.modeling_pmt_iqa.MAX_PIXELS", 3 * CROP_SIZE**2)
    sizes = []
    model.pmt_iqa.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )

    with torch.no_grad():
        outputs = model(crops, output_hidden_states=True)

    assert sizes == [3, 3, 3, 1]
    torch.testing.assert_close(outputs.crop_scores, expected.crop_scores, atol=ATOL_ORDER, rtol=0)
    for maps, whole in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(maps, whole, atol=ATOL_ORDER, rtol=RTOL_ORDER)


def test_crops_in_training_mode_share_their_statistics(monkeypatch):
    monkeypatch.setattr("decahub.models.pmt_iqa.modeling_pmt_iqa.MAX_PIXELS", CROP_SIZE**2)
    model, crops = build().train(), draw_crops(2, 3)
    with torch.no_grad():
        whole = model(crops).crop_scores
    torch.testing.assert_close(whole, model(crops).crop_scores, atol=ATOL_ORDER, rtol=0)


def test_exports_with_a_dynamic_number_of_images():
    model = build()
    shapes = {"pixel_values": {0: torch.export.Dim.DYNAMIC}}

    program = torch.export.export(model, (), {"pixel_values": draw_crops(2, 3)}, dynamic_shapes=shapes).module()

    for num_images in (1, 5):
        crops = draw_crops(num_images, 3)
        with torch.inference_mode():
            scores = program(pixel_values=crops).crop_scores
            torch.testing.assert_close(scores, model(crops).crop_scores, atol=ATOL_ORDER, rtol=0)
