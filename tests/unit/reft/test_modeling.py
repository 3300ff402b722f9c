"""RefT's models: what support does and does not change, shapes, files, and inputs that are refused."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation

import decahub
from decahub import AutoModelForFewShotInstanceSegmentation, RefTForFewShotInstanceSegmentation, RefTModel
from tests.tiny.reft import (
    NUM_LABELS,
    NUM_QUERIES,
    NUM_SHOTS,
    NUM_WAYS,
    SWIN,
    tiny_config,
    tiny_labels,
    tiny_mask2former_fields,
    tiny_model,
    tiny_pixels,
    tiny_support,
)


ATOL = 1e-6  # the specification's bound for equal computations in float32
CHUNK_ATOL = 1e-5


def run(model, **inputs):
    with torch.no_grad():
        return model(tiny_pixels(), **inputs)


def assert_equal_logits(first, second, atol=ATOL):
    for name in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(first[name], second[name], atol=atol, rtol=0)


def is_different(first, second):
    return (first.class_queries_logits - second.class_queries_logits).abs().max() > 1e-3


@pytest.mark.parametrize("backbone_config", [None, SWIN], ids=["resnet", "swin"])
@pytest.mark.parametrize("feature_fusion", ["attention", "reweight"])
def test_new_references_change_nothing(feature_fusion, backbone_config):
    fields = {} if backbone_config is None else {"backbone_config": backbone_config}
    model = tiny_model(trained=False, feature_fusion=feature_fusion, **fields)

    assert_equal_logits(run(model, **tiny_support()), run(model))


def test_initialization_is_that_of_mask2former():
    """Modules without parameters of their own initialize their children, which transformers skips in rooms."""
    model = tiny_model(trained=False)
    reference = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**tiny_mask2former_fields()))

    theirs = {name: tensor for name, tensor in reference.state_dict().items() if tensor.is_floating_point()}
    for name, tensor in model.state_dict().items():
        if name in theirs and tensor.numel() > 500:
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.2), name
    layers = model.model.transformer_module.decoder.layers
    bound = (6 / (48 + 56)) ** 0.5  # of Xavier's uniform distribution
    assert layers[0].fc1.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
    for reference in (*model.model.feature_reference, model.model.query_reference):
        assert not reference.out_proj.weight.any()
        assert not reference.out_proj.bias.any()
        size = len(reference.q_proj.bias)
        assert reference.q_proj.weight.abs().max().item() == pytest.approx((6 / (2 * size)) ** 0.5, rel=0.05)


def test_trained_references_change_predictions():
    model = tiny_model()

    assert is_different(run(model, **tiny_support()), run(model))


@pytest.mark.parametrize(
    "fields",
    [
        {"feature_fusion": "none", "query_enhancement_targets": []},
        {"feature_fusion": "none"},
        {"query_enhancement_targets": []},
        {"query_enhancement_targets": ["class"]},
        {"query_enhancement_targets": ["mask"]},
    ],
    ids=str,
)
def test_switches_say_what_support_reaches(fields):
    model = tiny_model(**fields)
    base, outputs = run(model), run(model, **tiny_support())

    has_features = fields.get("feature_fusion") != "none"
    targets = fields.get("query_enhancement_targets", ["class", "mask"])
    changed = {
        name: not torch.equal(base[f"{name}_queries_logits"], outputs[f"{name}_queries_logits"])
        for name in ("class", "masks")
    }
    assert changed == {"class": has_features or "class" in targets, "masks": has_features or "mask" in targets}


def test_without_support_classes_the_numbers_are_those_of_the_base():
    model = tiny_model()
    support = {name: tensor[:0] for name, tensor in tiny_support().items()}

    assert_equal_logits(run(model, **support), run(model), atol=0)


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_order_of_classes_does_not_matter(order):
    model, support = tiny_model(), tiny_support()

    assert_equal_logits(run(model, **{name: t[order] for name, t in support.items()}), run(model, **support))


def test_order_of_shots_does_not_matter():
    model, support = tiny_model(), tiny_support()

    assert_equal_logits(run(model, **{name: t[:, [1, 0]] for name, t in support.items()}), run(model, **support))


@pytest.mark.parametrize("says_so", [True, False], ids=["support_valid", "an empty mask"])
def test_a_padded_shot_does_not_count(says_so):
    model, support = tiny_model(), tiny_support(num_shots=1)
    further = tiny_support(num_shots=1, seed=9)
    padded = {name: torch.cat([support[name], further[name]], dim=1) for name in support}
    if says_so:
        padded["support_valid"] = torch.tensor([[True, False]] * NUM_WAYS)
    else:
        padded["support_masks"][:, 1] = False

    assert_equal_logits(run(model, **padded), run(model, **support))


def test_a_class_without_a_valid_shot_is_left_out_of_its_image():
    model, support = tiny_model(), tiny_support(batch_size=2)
    valid = torch.ones(2, NUM_WAYS, NUM_SHOTS, dtype=torch.bool)
    valid[1, 0] = False

    outputs = run(model, **support, support_valid=valid)

    with torch.no_grad():
        alone = model(tiny_pixels()[1:], **{name: tensor[1, 1:] for name, tensor in support.items()})
    torch.testing.assert_close(outputs.class_queries_logits[1:], alone.class_queries_logits, atol=ATOL, rtol=0)


def test_support_of_each_image_and_support_for_all_agree():
    model, support = tiny_model(), tiny_support()

    each = {name: tensor.expand(2, *tensor.shape) for name, tensor in support.items()}
    assert_equal_logits(run(model, **each), run(model, **support))


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_chunks_give_the_same_numbers(chunk_size):
    model, support = tiny_model(), tiny_support()
    chunked = tiny_model(support_chunk_size=chunk_size)

    assert_equal_logits(run(chunked, **support), run(model, **support), CHUNK_ATOL)


def test_a_cap_keeps_the_best_support_queries():
    model, capped = tiny_model(), tiny_model(max_support_queries_per_class=1)

    outputs, few = (run(m.model, **tiny_support()) for m in (model, capped))

    assert few.support_object_queries.shape == (1, NUM_WAYS, 1, 48)
    shots = model.model.encode_shots(*(t.flatten(0, 1) for t in tiny_support().values()))
    best = shots.scores.view(NUM_WAYS, -1).argmax(1)
    expected = outputs.support_object_queries[0, torch.arange(NUM_WAYS), best]
    torch.testing.assert_close(few.support_object_queries[0, :, 0], expected, atol=CHUNK_ATOL, rtol=0)


@pytest.mark.parametrize("support_grad", [True, False])
def test_support_grad_says_whether_support_images_have_gradients(support_grad):
    model, support = tiny_model(support_grad=support_grad), tiny_support()
    support["support_pixel_values"].requires_grad_()

    model(tiny_pixels(), **support).class_queries_logits.sum().backward()

    assert (support["support_pixel_values"].grad is not None) == support_grad
    assert model.model.query_reference.v_proj.weight.grad is not None


def test_detached_support_queries_leave_the_class_centers():
    model, support = tiny_model(detach_support_queries=True, feature_fusion="none"), tiny_support()
    support["support_pixel_values"].requires_grad_()

    model(tiny_pixels(), **support).class_queries_logits.sum().backward()

    assert support["support_pixel_values"].grad is None


def test_shapes_of_outputs():
    model = tiny_model()

    outputs = run(
        model, **tiny_support(), output_attentions=True, output_hidden_states=True, output_auxiliary_logits=True
    )

    assert outputs.class_queries_logits.shape == (2, NUM_QUERIES, NUM_LABELS + 1)
    assert outputs.masks_queries_logits.shape == (2, NUM_QUERIES, 16, 24)
    assert [tuple(centers.shape) for centers in outputs.class_centers] == [(1, NUM_WAYS, 32)] * 3
    assert outputs.support_object_queries.shape == (1, NUM_WAYS, 2 * NUM_SHOTS, 48)
    sizes = [2 * 3, 4 * 6, 8 * 12]
    assert [tuple(weights.shape) for weights in outputs.feature_attentions] == [(2, 4, n, NUM_WAYS) for n in sizes]
    assert outputs.query_attentions.shape == (2, 4, NUM_QUERIES, NUM_WAYS * 2 * NUM_SHOTS)
    assert len(outputs.auxiliary_logits) == 3
    assert len(outputs.pixel_decoder_hidden_states) == 3
    assert len(outputs.encoder_hidden_states) == 4


def test_return_dict_false_is_a_tuple_with_the_loss_first():
    model, labels = tiny_model(), tiny_labels()
    torch.manual_seed(0)
    outputs = model(tiny_pixels(), **labels)
    torch.manual_seed(0)

    values = model(tiny_pixels(), **labels, return_dict=False)

    assert isinstance(values, tuple)
    assert torch.equal(values[0], outputs.loss)
    assert torch.equal(values[1], outputs.class_queries_logits)


def test_prototype_logits_count_the_support_classes():
    model = tiny_model(classifier="prototype")
    labels = tiny_labels(num_labels=NUM_WAYS)

    outputs = model(tiny_pixels(), **tiny_support(), **labels)

    assert outputs.class_queries_logits.shape == (2, NUM_QUERIES, NUM_WAYS + 1)
    outputs.loss.backward()
    assert model.class_predictor.support_proj.weight.grad is not None


def test_frozen_norms_stay_as_they_are_in_training():
    model = tiny_model().train()
    before = copy.deepcopy(model.state_dict())

    model(tiny_pixels(), **tiny_labels()).loss.backward()

    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items() if "running" in name)


def test_norms_that_are_not_frozen_train():
    model = tiny_model(freeze_batch_norm=False).train()

    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.training and norm.weight.requires_grad for norm in norms)


def test_mask_padding_hides_padding():
    model, parity = tiny_model(mask_padding=True), tiny_model()
    pixel_values, mask = tiny_pixels(), torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, :, 64:] = 0

    with torch.no_grad():
        plain, hidden = (m.model(pixel_values, pixel_mask=mask, output_hidden_states=True) for m in (parity, model))
        full = model.model(pixel_values, pixel_mask=torch.ones_like(mask), output_hidden_states=True)

    torch.testing.assert_close(full.object_queries, plain.object_queries, atol=CHUNK_ATOL, rtol=0)
    torch.testing.assert_close(hidden.object_queries[0], plain.object_queries[0], atol=CHUNK_ATOL, rtol=0)
    assert not torch.allclose(hidden.object_queries[1], plain.object_queries[1], atol=CHUNK_ATOL)


def test_activation_checkpointing_gives_the_same_gradients():
    model, labels = tiny_model().train(), tiny_labels()
    gradients = []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(0)
        model(tiny_pixels(), **tiny_support(), **labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_bfloat16_support_gives_finite_numbers():
    model = tiny_model().to(torch.bfloat16)

    outputs = model(tiny_pixels().to(torch.bfloat16), **tiny_support())  # support in float32 is cast

    assert torch.isfinite(outputs.class_queries_logits).all()


@pytest.mark.parametrize("classifier", ["linear", "cosine", "prototype"])
def test_loads_through_auto_classes(tmp_path, classifier):
    model = tiny_model(classifier=classifier, base_label_ids=[0, 3])
    model.save_pretrained(tmp_path)

    loaded = AutoModelForFewShotInstanceSegmentation.from_pretrained(tmp_path)

    assert type(loaded) is RefTForFewShotInstanceSegmentation
    assert_equal_logits(run(loaded, **tiny_support()), run(model, **tiny_support()), atol=0)
    assert type(AutoModel.from_pretrained(tmp_path)) is RefTModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is decahub.RefTConfig


def test_input_embeddings_are_the_pixel_level_module():
    model = tiny_model()

    assert model.get_input_embeddings() is model.model.pixel_level_module


@pytest.mark.parametrize(
    ("backbone", "num_parameters"),
    [("r50", 44_023_377), ("r101", 63_015_505), ("swin_t", 47_423_179)],
)
def test_parameter_counts_are_those_of_the_specification(backbone, num_parameters):
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbones = {
        "r50": {"model_type": "resnet", "out_features": stages},
        "r101": {"model_type": "resnet", "depths": [3, 4, 23, 3], "out_features": stages},
        "swin_t": {"model_type": "swin", "depths": [2, 2, 6, 2], "out_features": stages},
    }
    config = decahub.RefTConfig(backbone_config=backbones[backbone], num_labels=80)
    with torch.device("meta"):
        model = RefTForFewShotInstanceSegmentation(config)

    counts = {name: p.numel() for name, p in model.named_parameters()}
    references = sum(count for name, count in counts.items() if "_reference." in name)
    assert references == 1_056_768  # four blocks of 264,192
    assert sum(counts.values()) - references == num_parameters


@pytest.mark.parametrize("targets", [["class"], ["mask"], ["class", "mask"]], ids=str)
def test_only_the_chosen_heads_see_the_enhanced_object_queries(targets):
    model = tiny_model(query_enhancement_targets=targets, feature_fusion="none")

    outputs, without = run(model, **tiny_support()), run(model)

    changed = {
        "class": not torch.equal(outputs.class_queries_logits, without.class_queries_logits),
        "mask": not torch.equal(outputs.masks_queries_logits, without.masks_queries_logits),
    }
    assert [name for name, is_changed in changed.items() if is_changed] == targets


REFUSED = {
    "no images": ({"pixel_values": None}, "`pixel_values` must be given"),
    "side": ({"pixel_values": torch.zeros(1, 3, 60, 64)}, "multiples of 32; got 60 x 64"),
    "channels": ({"pixel_values": torch.zeros(1, 1, 64, 64)}, r"must have shape \(batch_size, 3, height, width\)"),
    "one value": ({"pixel_values": torch.zeros(1, 3, 32, 32)}, "must be larger than 32 x 32 for a single image"),
    "no masks": ({"support_pixel_values": torch.zeros(1, 1, 3, 64, 64)}, "`support_masks` must be given"),
    "masks alone": ({"support_masks": torch.zeros(1, 1, 64, 64)}, "`support_masks` must come with"),
    "mask size": (
        {"support_pixel_values": torch.zeros(1, 1, 3, 64, 64), "support_masks": torch.zeros(1, 1, 32, 64)},
        r"must have shape \(1, 1, 64, 64\), that of the support images; got \(1, 1, 32, 64\)",
    ),
    "support axes": (
        {"support_pixel_values": torch.zeros(1, 3, 64, 64), "support_masks": torch.zeros(1, 64, 64)},
        "`support_pixel_values` must have shape",
    ),
    "support side": (
        {"support_pixel_values": torch.zeros(1, 1, 3, 40, 64), "support_masks": torch.ones(1, 1, 40, 64)},
        "`support_pixel_values` must have sides that are multiples of 32",
    ),
    "support_valid": ({**tiny_support(), "support_valid": torch.ones(3)}, r"`support_valid` must have shape \(3, 2\)"),
    "support batch": (tiny_support(batch_size=3), r"the batch size of `pixel_values` \(2\), or no batch axis; got 3"),
    "mask values": (
        {
            "support_pixel_values": torch.zeros(1, 1, 3, 64, 64),
            "support_masks": torch.full((1, 1, 64, 64), float("nan")),
        },
        r"`support_masks` must hold masks in \[0, 1\]; got values from nan to nan",
    ),
    "class id": ({**tiny_support(), "support_class_ids": torch.tensor([0, 5, 1])}, r"must be in \[0, 5\); got 5"),
    "label id": (
        {"mask_labels": [torch.zeros(1, 64, 96)] * 2, "class_labels": [torch.tensor([5])] * 2},
        r"`class_labels` must be in \[0, 5\); image 0 has 5",
    ),
    "masks only": ({"mask_labels": [torch.zeros(1, 64, 96)] * 2}, "`class_labels` must be given as well"),
    "label counts": (
        {"mask_labels": [torch.zeros(1, 64, 96)] * 2, "class_labels": [torch.tensor([1, 2])] * 2},
        r"`mask_labels` must have shape \(2, 64, 96\)",
    ),
    "label values": (
        {"mask_labels": [torch.full((1, 64, 96), 255.0)] * 2, "class_labels": [torch.tensor([1])] * 2},
        r"`mask_labels` must hold masks in \[0, 1\]; got values from 255 to 255",
    ),
    "label images": (
        {"mask_labels": [torch.zeros(1, 64, 96)], "class_labels": [torch.tensor([1])]},
        r"`mask_labels` must hold one tensor per image \(2\); got 1",
    ),
    "typo": ({"support_mask": None}, "Did you mean `support_masks`"),
}


@pytest.mark.parametrize(("inputs", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(inputs, message):
    with pytest.raises(ValueError, match=message):
        tiny_model()(**{"pixel_values": tiny_pixels(), **inputs})


def test_refuses_integer_pixels():
    with pytest.raises(TypeError, match="`pixel_values` must be floating point; got torch.uint8"):
        tiny_model()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_prototype_classifier_needs_support():
    with pytest.raises(ValueError, match="must be given to a prototype classifier"):
        run(tiny_model(classifier="prototype"))


def test_score_selection_of_the_bare_model_needs_a_head():
    model = RefTModel(tiny_config(query_selection="score")).eval()

    with pytest.raises(ValueError, match="`class_predictor` must be given for `query_selection='score'`"):
        run(model, **tiny_support())


@pytest.mark.slow
def test_compiles_to_the_same_outputs():
    model, inputs = tiny_model(), {"pixel_values": tiny_pixels(), **tiny_support(batch_size=2)}
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")  # what the compiler sees; no C++ compiler is needed

    with torch.inference_mode():
        outputs, expected = compiled(**inputs), model(**inputs)

    assert_equal_logits(outputs, expected)


@pytest.mark.parametrize("with_support", [False, True], ids=["alone", "support"])
def test_exports_with_a_dynamic_batch(with_support):
    model, support = tiny_model(), tiny_support() if with_support else {}
    batch = {0: torch.export.Dim.DYNAMIC}
    shapes = {"pixel_values": batch, **dict.fromkeys(support)}

    program = torch.export.export(
        model, (), kwargs={"pixel_values": tiny_pixels(), **support}, dynamic_shapes=shapes
    ).module()

    for batch_size in (1, 5):
        inputs = {"pixel_values": tiny_pixels(batch_size), **support}
        with torch.inference_mode():
            assert_equal_logits(program(**inputs), model(**inputs))
