"""Support memories: what `register_support` keeps, adding, removing, merging, files, and what is refused."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from decahub import RefTProcessor, RefTSupportMemory
from decahub.models.reft.image_processing_reft import RefTImageProcessor
from decahub.models.reft.support.memory import MEMORY_FILE
from tests.tiny.reft import NUM_LABELS, tiny_model, tiny_pixels, tiny_support


ATOL = 1e-6  # the specification's bound for a running mean
ATOL_BATCH = 1e-5  # the same shots encoded in other batches, float32
NAMES = ["LABEL_0", "LABEL_1", "LABEL_2"]


def list_shots(num_ways=3, num_shots=2, seed=2):
    support = tiny_support(num_ways, num_shots, seed=seed)
    return [tuple(parts) for parts in zip(*support.values(), strict=True)]


def list_tensors(memory, names):
    return {
        (name, key): value
        for name in names
        for key, value in vars(memory.classes[name]).items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("shot_reduction", ["mean", "area"])
@pytest.mark.parametrize("classifier", ["linear", "prototype"])
def test_a_memory_replaces_its_support(classifier, shot_reduction):
    model = tiny_model(classifier=classifier, shot_reduction=shot_reduction)
    memory = model.register_support(dict(zip(NAMES, list_shots(), strict=True)))

    with torch.no_grad():
        outputs, expected = model(tiny_pixels(), support_memory=memory), model(tiny_pixels(), **tiny_support())

    for name in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(outputs[name], expected[name], atol=1e-5, rtol=0)


def test_adding_a_class_leaves_the_others_as_they_are_to_the_bit():
    model, shots = tiny_model(), list_shots()
    memory = model.register_support({"LABEL_0": shots[0], "LABEL_1": shots[1]})
    before = {key: value.clone() for key, value in list_tensors(memory, NAMES[:2]).items()}

    extended = model.register_support({"LABEL_2": list_shots(num_shots=5)[2]}, memory)

    after = list_tensors(extended, NAMES[:2])
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert extended.class_names == NAMES
    assert memory.class_names == NAMES[:2]  # not changed itself
    # Padded batches agree as well.
    assert torch.equal(extended.prototypes[:2], memory.prototypes)
    assert torch.equal(
        extended.object_queries[:2][extended.object_query_mask[:2]], memory.object_queries.flatten(0, 1)
    )


@pytest.mark.parametrize("fields", [{}, {"shot_reduction": "area"}, {"max_support_queries_per_class": 3}], ids=str)
def test_more_shots_are_as_if_all_had_come_at_once(fields):
    model = tiny_model(**fields)
    pixel_values, masks = list_shots(num_shots=5)[0]

    memory = None
    for part in (slice(0, 2), slice(2, 3), slice(3, 5)):
        memory = model.register_support({"LABEL_3": (pixel_values[part], masks[part])}, memory)
    at_once = model.register_support({"LABEL_3": (pixel_values, masks)})

    assert memory.shot_counts == at_once.shot_counts == {"LABEL_3": 5}
    for key, value in list_tensors(at_once, ["LABEL_3"]).items():
        torch.testing.assert_close(list_tensors(memory, ["LABEL_3"])[key], value, atol=ATOL, rtol=1e-6)


def test_removing_a_class_restores_the_state_before_it_came():
    model, shots = tiny_model(), list_shots()
    memory = model.register_support(dict(zip(NAMES[:2], shots[:2], strict=True)))

    restored = model.register_support({"LABEL_2": list_shots(num_shots=5)[2]}, memory).remove("LABEL_2")

    assert restored.class_names == memory.class_names
    torch.testing.assert_close(vars(restored.get_support()), vars(memory.get_support()), rtol=0, atol=0)
    with pytest.raises(KeyError, match="`name` must be one of"):
        memory.remove("LABEL_2")


def test_merging_is_registering_together():
    model, shots = tiny_model(), list_shots()
    first = model.register_support({"LABEL_0": shots[0], "LABEL_1": tuple(part[:1] for part in shots[1])})
    second = model.register_support({"LABEL_1": tuple(part[1:] for part in shots[1]), "LABEL_2": shots[2]})

    merged = first.merge(second)

    together = model.register_support(dict(zip(NAMES, shots, strict=True)))
    assert merged.shot_counts == together.shot_counts
    for key, value in list_tensors(together, NAMES).items():
        torch.testing.assert_close(list_tensors(merged, NAMES)[key], value, atol=ATOL_BATCH, rtol=1e-6)


def test_files_keep_every_bit(tmp_path):
    model = tiny_model()
    shots = {"LABEL_4": list_shots(num_shots=1)[0], "LABEL_1": list_shots(num_shots=3)[1]}
    memory = model.register_support(shots)

    model.save_pretrained(tmp_path, support_memory=memory)
    loaded = RefTSupportMemory.from_pretrained(tmp_path, model.config)

    assert loaded.class_names == ["LABEL_4", "LABEL_1"]
    assert loaded.class_ids == [4, 1]
    assert loaded.shot_counts == {"LABEL_4": 1, "LABEL_1": 3}
    for key, value in list_tensors(memory, memory.class_names).items():
        assert torch.equal(list_tensors(loaded, memory.class_names)[key], value)
    assert not list(tmp_path.glob(".*"))
    # More shots continue the running mean.
    further = {"LABEL_4": list_shots(num_shots=1, seed=5)[0]}
    first, second = (model.register_support(further, m) for m in (memory, loaded))
    assert all(
        torch.equal(v, list_tensors(second, ["LABEL_4"])[k]) for k, v in list_tensors(first, ["LABEL_4"]).items()
    )


def test_another_configuration_is_refused(tmp_path):
    memory = tiny_model().register_support({"LABEL_0": list_shots()[0]})
    other = tiny_model(support_topk=3)
    memory.save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="`support_memory` must have been made with the configuration of the model"):
        other(tiny_pixels(), support_memory=memory)
    with pytest.raises(ValueError, match="must have been made with"):
        RefTSupportMemory.from_pretrained(tmp_path, other.config)
    with pytest.raises(ValueError, match="must have been made with"):
        other.register_support({"LABEL_0": list_shots()[0]}, memory)
    with pytest.raises(ValueError, match="must have been made with"):
        other.save_pretrained(tmp_path, support_memory=memory)
    with pytest.raises(ValueError, match="must have been made with"):
        memory.merge(other.register_support({"LABEL_0": list_shots()[0]}))


def test_settings_of_training_are_not_part_of_the_hash():
    memory = tiny_model().register_support({"LABEL_0": list_shots()[0]})

    tiny_model(class_weight=1.0, kd_threshold=0.5, num_labels=9).register_support({"LABEL_8": list_shots()[1]}, memory)


def test_registration_restores_the_mode_and_needs_no_gradient():
    model = tiny_model().train()

    memory = model.register_support({"LABEL_0": list_shots()[0]})

    assert model.training
    assert not any(value.requires_grad for value in list_tensors(memory, ["LABEL_0"]).values())


def test_imprinting_adds_a_row_for_a_new_class():
    model = tiny_model(classifier="cosine")
    before = model.class_predictor.weight.detach().clone()

    memory = model.register_support({"forklift": list_shots()[0]}, imprint=True)

    weight = model.class_predictor.weight
    assert model.config.num_labels == NUM_LABELS + 1
    assert memory.class_ids == [NUM_LABELS] == [model.config.label2id["forklift"]]
    assert torch.equal(weight[:NUM_LABELS], before[:NUM_LABELS])
    assert torch.equal(weight[-1], before[-1])  # no object stays last
    direction = memory.prototypes[0] / memory.prototypes[0].norm()
    torch.testing.assert_close(weight[NUM_LABELS], direction)
    assert model.criterion.empty_weight.tolist()[:-1] == [1] * 6
    assert model(tiny_pixels(), support_memory=memory).class_queries_logits.shape[-1] == NUM_LABELS + 2


def test_imprinted_model_survives_a_file(tmp_path):
    model = tiny_model(classifier="cosine")
    model.register_support({"forklift": list_shots()[0]}, imprint=True)
    model.save_pretrained(tmp_path)

    loaded = type(model).from_pretrained(tmp_path)

    assert loaded.config.id2label[NUM_LABELS] == "forklift"
    assert torch.equal(loaded.class_predictor.weight, model.class_predictor.weight)


def test_images_are_prepared_by_the_processor():
    model = tiny_model(classifier="prototype")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image, mask = Image.fromarray(pixels), np.zeros((50, 70), dtype=bool)
    mask[10:30, 20:45] = True
    processor = RefTProcessor(RefTImageProcessor(support_size=64))

    memory = model.register_support({"forklift": [(image, mask), (image, [20, 10, 45, 30])]}, processor=processor)

    crops = processor.prepare_support({"forklift": [(image, mask)] * 2})
    tensors = (crops["support_pixel_values"][0], crops["support_masks"][0])
    expected = model.register_support({"forklift": tensors})
    torch.testing.assert_close(memory.prototypes, expected.prototypes, atol=ATOL, rtol=0)
    assert memory.class_ids == [0]


def test_an_empty_mask_is_left_out(caplog):
    model = tiny_model()
    pixel_values, masks = list_shots()[0]
    masks[1] = False

    memory = model.register_support({"LABEL_0": (pixel_values, masks)})

    assert memory.shot_counts == {"LABEL_0": 1}


REFUSED = {
    "unknown label": ({}, lambda shots: {"forklift": shots}, {}, "'forklift' is none of .*prototype or cosine"),
    "cosine without imprint": ({"classifier": "cosine"}, lambda shots: {"forklift": shots}, {}, "Use `imprint=True`"),
    "imprint of a linear head": (
        {},
        lambda shots: {"LABEL_0": shots},
        {"imprint": True},
        "needs `classifier='cosine'`",
    ),
    "no class": ({}, lambda shots: {}, {}, "`support` must hold at least one class"),
    "no shot": ({}, lambda shots: {"LABEL_0": []}, {}, "'LABEL_0' has none"),
    "all empty": (
        {},
        lambda shots: {"LABEL_1": (shots[0], torch.zeros_like(shots[1]))},
        {},
        "with a mask for each class; 'LABEL_1' has none",
    ),
    "sizes": (
        {},
        lambda shots: {"LABEL_1": (shots[0], shots[1][:, :32])},
        {},
        r"'LABEL_1' has \(2, 3, 64, 64\) and \(2, 32, 64\)",
    ),
    "mask values": (
        {},
        lambda shots: {"LABEL_1": (shots[0], shots[1] * 255.0)},
        {},
        r"`support` must hold masks in \[0, 1\]; got values from 0 to 255",
    ),
    "nan": (
        {},
        lambda shots: {"LABEL_1": (shots[0] * float("nan"), shots[1])},
        {},
        "Support of 'LABEL_1' becomes NaN or infinity",
    ),
    "mask and image": (
        {},
        lambda shots: {"LABEL_1": [(Image.new("RGB", (70, 50)), np.ones((40, 70)))]},
        {},
        "Support of 'LABEL_1': shot 0: a mask must have the size of its image, 50 x 70; got 40 x 70",
    ),
}


@pytest.mark.parametrize(("fields", "build", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(fields, build, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**fields).register_support(build(list_shots()[0]), **options)


def test_a_prototype_weights_long_and_short_object_queries_equally():
    model = tiny_model()
    model.model.transformer_module.decoder.layernorm.weight.data = torch.linspace(0.01, 4, 48)
    memory = model.register_support({"LABEL_0": list_shots(num_shots=3)[0]})

    first = memory.classes["LABEL_0"].object_queries.unflatten(0, (3, -1))[:, 0]
    lengths = first.norm(dim=1)
    assert lengths.max() > 1.01 * lengths.min()
    expected = sum(query / length for query, length in zip(first, lengths, strict=True)) / 3
    torch.testing.assert_close(memory.prototypes[0], expected, atol=ATOL, rtol=0)


def test_the_best_object_queries_stay_in_their_order():
    support = tiny_model().register_support({"LABEL_0": list_shots()[0]}).classes["LABEL_0"]
    support = dataclasses.replace(support, object_query_scores=torch.tensor([0.1, 0.7, 0.5, 0.9]))

    kept = support.keep_best(3)

    assert kept.object_query_scores.tolist() == pytest.approx([0.7, 0.5, 0.9])
    assert torch.equal(kept.object_queries, support.object_queries[1:])


def test_a_model_with_damaged_weights_takes_no_support():
    model = tiny_model()
    model.model.transformer_module.level_embed.weight.data.fill_(float("nan"))

    with pytest.raises(ValueError, match="Support of 'LABEL_0' becomes NaN or infinity"):
        model.register_support({"LABEL_0": list_shots()[0]})


def test_other_crops_than_configured_give_a_warning(caplog):
    image, mask = Image.new("RGB", (70, 50)), np.ones((50, 70))

    with caplog.at_level(logging.WARNING):
        tiny_model().register_support({"LABEL_0": [(image, mask)]}, processor=RefTImageProcessor(support_size=96))

    assert "`support_size` of the processor is 96, that of the configuration 64" in caplog.text


def test_support_is_no_list_and_a_memory_no_dictionary():
    model = tiny_model()

    with pytest.raises(TypeError, match="`support` must map the name of each class to its shots; got list"):
        model.register_support([("LABEL_0", list_shots()[0])])
    with pytest.raises(TypeError, match="`support_memory` must be a RefTSupportMemory; got dict"):
        model(tiny_pixels(), support_memory={"LABEL_0": list_shots()[0]})


def test_an_empty_memory_is_refused():
    model = tiny_model()
    memory = model.register_support({"LABEL_0": list_shots()[0]}).remove("LABEL_0")

    with pytest.raises(ValueError, match="`support_memory` must hold at least one class"):
        model(tiny_pixels(), support_memory=memory)


def test_a_memory_and_support_are_refused_together():
    model = tiny_model()
    memory = model.register_support({"LABEL_0": list_shots()[0]})

    with pytest.raises(ValueError, match="`support_memory` must not be given with `support_pixel_values`"):
        model(tiny_pixels(), **tiny_support(), support_memory=memory)


DAMAGES = {
    "version": ({"version": "9"}, {}, "of version 1; got '9'"),
    "names twice": ({"class_names": '["a", "a"]'}, {}, "name each class once"),
    "no names": ({"class_names": "[]", "class_ids": "[]", "shot_counts": "[]"}, {}, "name each class once"),
    "no JSON": ({"class_names": "["}, {}, "name each class once"),
    "ids": ({"class_ids": '["a", "b"]'}, {}, "name each class once"),
    "no shots": ({"shot_counts": "[0, 2]"}, {}, "name each class once"),
    "tensor": ({}, {"prototypes": None}, "must hold the tensors"),
    "rows": ({}, {"prototypes": torch.zeros(3, 48)}, "2 rows in each tensor; 'prototypes' has 3"),
    "nan": ({}, {"prototypes": torch.full((2, 48), float("nan"))}, "'prototypes' holds NaN"),
    "integers": ({}, {"prototypes": torch.ones(2, 48, dtype=torch.long)}, "'prototypes' has torch.int64"),
    "float mask": ({}, {"object_query_mask": torch.ones(2, 4)}, "'object_query_mask' has torch.float32"),
    "width": ({}, {"prototypes": torch.zeros(2, 47)}, "fit each other; 'object_queries'"),
    "centers": ({}, {"class_centers.1": torch.zeros(2, 5)}, "fit each other; 'class_centers.1'"),
    "tokens": ({}, {"object_query_scores": torch.zeros(2, 3)}, "fit each other; 'object_query_scores'"),
}


@pytest.mark.parametrize(("metadata", "tensors", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_are_refused(tmp_path, metadata, tensors, message):
    path = tiny_model().register_support(dict(zip(NAMES[:2], list_shots(), strict=False))).save_pretrained(tmp_path)
    changed = {name: tensor for name, tensor in {**load_file(path), **tensors}.items() if tensor is not None}
    save_file(changed, path, {**read_metadata(path), **metadata})

    with pytest.raises(ValueError, match=f"{MEMORY_FILE}.*{message}"):
        RefTSupportMemory.from_pretrained(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 100, -10])
def test_truncated_files_are_refused(tmp_path, size):
    path = tiny_model().register_support({"LABEL_0": list_shots()[0]}).save_pretrained(tmp_path)
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(ValueError, match=f"{MEMORY_FILE}' must be an intact support memory"):
        RefTSupportMemory.from_pretrained(tmp_path)


def read_metadata(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length))["__metadata__"]


def test_a_model_is_saved_with_its_memory(tmp_path):
    model = tiny_model(classifier="prototype")
    support = tiny_support()
    crops = (support["support_pixel_values"][0], support["support_masks"][0])
    model.support_memory = model.register_support({"cat": crops})
    model.save_pretrained(tmp_path)

    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)

    assert not info["missing_keys"]
    assert loaded.support_memory.class_names == ["cat"]
    assert torch.equal(loaded.support_memory.prototypes, model.support_memory.prototypes)


def test_a_model_without_memory_has_none(tmp_path):
    tiny_model().save_pretrained(tmp_path)

    assert type(tiny_model()).from_pretrained(tmp_path).support_memory is None


def test_a_memory_that_does_not_fit_is_left_out(tmp_path, monkeypatch):
    from decahub.models.reft.support import registration

    warnings = []
    monkeypatch.setattr(registration.logger, "warning", warnings.append)
    model = tiny_model(classifier="prototype")
    support = tiny_support()
    crops = (support["support_pixel_values"][0], support["support_masks"][0])
    model.save_pretrained(tmp_path, support_memory=model.register_support({"cat": crops}))

    loaded = type(model).from_pretrained(tmp_path, support_topk=3)

    assert loaded.support_memory is None
    assert "was made with another configuration" in warnings[0]
