"""Instances: transforms move image and masks together, novel classes become background, episodes are drawn by seed."""

import random

import numpy as np
import pytest
import torch

from decahub import RefTImageProcessor, RefTProcessor
from decahub.data import InMemoryDataset, SeededTransform, load_dataset
from decahub.data import few_shot_instance_segmentation as family
from decahub.seeding import seeded_random_state
from decahub.tasks.task import build_loader
from decahub.training.batches import EpochBatches, iterate_batches
from tests.tiny.instances import HEIGHT, ORDERED, WIDTH, write_coco_folder


DOT, BAR, KITE = range(3)
SUPPORT_SIZE = 64
PLAIN = {"scale_range": (1.0, 1.0), "flip_prob": 0.0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = write_coco_folder(tmp_path_factory.mktemp("coco") / "shapes")
    return load_dataset(folder, family="few-shot-instance-segmentation")["train"]


@pytest.fixture(scope="module")
def decoded(rows):
    return InMemoryDataset(rows, family.decode_row)


@pytest.fixture(scope="module")
def processor():
    size = {"height": HEIGHT, "width": WIDTH}
    # Values of pixels are bytes.
    image_processor = RefTImageProcessor(
        size=size, support_size=SUPPORT_SIZE, image_mean=[0.0] * 3, image_std=[1 / 255] * 3
    )
    return RefTProcessor(image_processor)


def find_instances(pixel_values):
    """Pixels of any instance of the tiny images, whose background is dark; the border of a resized one is unsure."""
    return pixel_values.amax(0) > 120


# Transforms


@pytest.mark.parametrize("flip_prob", [0.0, 1.0], ids=["plain", "flipped"])
@pytest.mark.parametrize("scale_range", [(1.0, 1.0), (0.5, 0.6), (1.5, 2.0)], ids=["same", "smaller", "larger"])
def test_image_and_masks_move_together(decoded, processor, flip_prob, scale_range):
    transform = family.build_train_transform(processor, 96, scale_range=scale_range, flip_prob=flip_prob)

    for index in range(len(decoded)):
        example = SeededTransform(decoded, transform, seed=index)[index]

        assert example["pixel_values"].shape == (3, 96, 96)
        assert example["mask_labels"].shape == (len(example["class_labels"]), 96, 96)
        expected = find_instances(example["pixel_values"])
        union = example["mask_labels"].any(0)
        assert (union != expected).float().mean() < (0.03 if scale_range != (1.0, 1.0) else 1e-9)
        assert not example["pixel_values"][:, example["pixel_mask"] == 0].any()


def test_pads_below_what_is_not_square(decoded, processor):
    example = family.build_train_transform(processor, 96, **PLAIN)(decoded[0])

    assert example["pixel_mask"].sum() == HEIGHT * WIDTH
    assert example["pixel_mask"][:HEIGHT].all()
    assert torch.equal(example["pixel_values"][:, :HEIGHT].byte(), decoded[0]["image"])


def test_novel_instances_become_background(decoded, processor):
    transform = family.build_train_transform(processor, 96, **PLAIN, keep_labels=[DOT, BAR])

    counts = [len(transform(decoded[index])["class_labels"]) for index in range(3)]

    assert [decoded[index]["annotations"][0]["label"] for index in range(3)] == [BAR, DOT, KITE]
    assert counts == [1, 2, 0]


def test_shots_alone_are_targets(decoded, processor):
    kept = decoded[1]["annotations"][1]["id"]
    transform = family.build_train_transform(processor, 96, **PLAIN, keep_ids=[kept])

    example = transform(decoded[1])

    assert example["class_labels"].tolist() == [DOT]
    assert example["mask_labels"].sum() == 18 * 18


def test_crowds_are_no_targets(decoded, processor):
    row = {**decoded[1], "annotations": [{**one, "iscrowd": True} for one in decoded[1]["annotations"]]}

    assert len(family.build_train_transform(processor, 96, **PLAIN)(row)["class_labels"]) == 0


def test_what_a_crop_leaves_out_is_no_target(decoded, processor):
    transform = family.build_train_transform(processor, 64, scale_range=(3.0, 3.0), flip_prob=0.0)

    for seed in range(20):
        example = SeededTransform(decoded, transform, seed=seed)[1]
        assert example["mask_labels"].flatten(1).any(1).all()
        assert len(example["mask_labels"]) == len(example["class_labels"])


def test_evaluation_keeps_sizes_and_annotations(rows, processor):
    batch = next(iter(build_loader(rows, family.FAMILY, processor, 4, show_progress=False)))

    assert batch["pixel_values"].shape == (4, 3, HEIGHT, WIDTH)
    assert batch["size"] == [(HEIGHT, WIDTH)] * 4
    assert [len(image) for image in batch["annotations"]] == [1, 2, 1, 2]


def test_a_batch_is_padded_to_its_largest(processor):
    sizes = [(32, 64), (64, 32)]
    examples = [
        {
            "pixel_values": torch.ones(3, *size),
            "pixel_mask": torch.ones(size, dtype=torch.long),
            "mask_labels": torch.ones(2, *size),
        }
        for size in sizes
    ]

    batch = family.collate(examples)

    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert batch["pixel_mask"].sum((1, 2)).tolist() == [2048, 2048]
    assert [masks.shape for masks in batch["mask_labels"]] == [(2, 64, 64)] * 2
    assert batch["mask_labels"][1][:, :, 32:].sum() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "a multiple of 32; got 100"),
        ({"scale_range": (0.0, 1.0)}, "ascending order"),
        ({"flip_prob": 2}, r"in \[0, 1\]; got 2"),
    ],
)
def test_refuses_options(processor, options, message):
    with pytest.raises(ValueError, match=message):
        family.build_train_transform(processor, **options)


def test_refuses_a_mask_of_another_size(rows):
    row = dict(rows[0])
    row["image"] = row["image"].resize((WIDTH, HEIGHT - 1))

    with pytest.raises(ValueError, match=r"annotation 100 must have the size of its image, \(63, 96\)"):
        family.decode_row(row)


# Rows and shots


def test_selects_rows(rows):
    strict = family.select_rows(rows, drop_labels=[KITE])
    few = family.select_rows(rows, keep_ids=[100, 103])

    assert strict["image_id"][:] == [0, 1, 3, 4, 6, 7]
    assert few["image_id"][:] == [0, 2]


def test_counts_instances(rows):
    assert family.count_instances(rows).tolist() == [5, 4, 4]


def test_collects_shots(rows):
    shots = family.collect_shots(rows, {"kite": [103], "bar": [100]})

    assert list(shots) == ["kite", "bar"]
    image, rle = shots["kite"][0]
    assert image.size == (WIDTH, HEIGHT)
    assert rle["size"] == [HEIGHT, WIDTH]


@pytest.mark.parametrize("shots", [{"dot": [103]}, {"kite": [5]}], ids=["another class", "unknown"])
def test_refuses_shots(rows, shots):
    with pytest.raises(ValueError, match="`shots` must hold annotations of"):
        family.collect_shots(rows, shots)


# Episodes


@pytest.fixture(scope="module")
def examples(decoded, processor):
    transform = family.build_train_transform(processor, 96, **PLAIN)
    return SeededTransform(decoded, transform)


def test_support_holds_the_classes_of_the_batch_and_others(decoded, processor, examples):
    pool = family.ShotPool(decoded, processor)
    collate = family.EpisodeCollator(pool, episode_classes=2, episode_shots=3)
    seen = set()

    for seed in range(20):
        with seeded_random_state(seed):
            batch = collate([examples[0], examples[3]])
        assert batch["support_pixel_values"].shape == (2, 3, 3, SUPPORT_SIZE, SUPPORT_SIZE)
        assert batch["support_masks"].shape == (2, 3, SUPPORT_SIZE, SUPPORT_SIZE)
        assert BAR in batch["support_class_ids"]
        seen |= set(batch["support_class_ids"].tolist())

    assert seen == {DOT, BAR, KITE}


def test_a_batch_with_more_classes_has_them_all(decoded, processor, examples):
    collate = family.EpisodeCollator(family.ShotPool(decoded, processor), episode_classes=1)

    batch = collate([examples[0], examples[1], examples[2]])

    assert batch["support_class_ids"].tolist() == [DOT, BAR, KITE]


def test_support_comes_from_other_images(decoded, processor):
    pool = family.ShotPool(decoded, processor)

    for seed in range(10):
        with seeded_random_state(seed):
            other = pool.draw(BAR, 1, without={0, 6})["support_pixel_values"]
        with seeded_random_state(seed):
            same = family.ShotPool([decoded[3]], processor).draw(BAR, 2)["support_pixel_values"]
        assert any(torch.equal(other[0], crop) for crop in same), "image 3 is the only one left"


def test_the_same_image_serves_where_there_is_no_other(decoded, processor):
    pool = family.ShotPool([decoded[0]], processor)

    assert pool.draw(BAR, 2, without={0})["support_pixel_values"].shape[0] == 1


def test_classes_with_fewer_shots_are_padded(decoded, processor, examples):
    pool = family.ShotPool(decoded, processor, keep_ids={100, 101, 102})
    batch = family.EpisodeCollator(pool, episode_shots=2)([examples[0], examples[1]])

    assert batch["support_class_ids"].tolist() == [DOT, BAR]
    assert batch["support_valid"].tolist() == [[True, True], [True, False]]


def test_prototype_labels_count_the_support(decoded, processor, examples):
    pool = family.ShotPool(decoded, processor, keep_labels=[BAR, KITE])

    batch = family.EpisodeCollator(pool, counts_classes=True)([examples[2], examples[0]])

    assert [labels.tolist() for labels in batch["class_labels"]] == [[1], [0]]
    assert "support_class_ids" not in batch


def test_episodes_depend_on_seed_epoch_and_batch(decoded, processor, examples):
    def read(epoch, first_step=0, seed=1):
        collate = family.EpisodeCollator(family.ShotPool(decoded, processor), episode_classes=2)
        batches = EpochBatches(len(examples), 2, seed=seed)
        batches.set_position(epoch, first_step)
        return list(iterate_batches(examples, batches, collate_fn=collate))

    def equal(first, second):
        one, other = first["support_pixel_values"], second["support_pixel_values"]
        return one.shape == other.shape and torch.equal(one, other)

    whole = read(0)
    random.seed(99)  # what else was drawn does not matter

    assert all(map(equal, whole[2:], read(0, first_step=2))), "a resumed epoch goes on"
    assert not all(map(equal, whole, read(1)))
    assert not all(map(equal, whole, read(0, seed=2)))


def test_refuses_a_target_without_support(decoded, processor, examples):
    collate = family.EpisodeCollator(family.ShotPool(decoded, processor, keep_labels=[DOT]))

    with pytest.raises(ValueError, match=f"class {BAR} has none"):
        collate([examples[0]])


@pytest.mark.parametrize("options", [{"episode_classes": 0}, {"episode_shots": 0}])
def test_refuses_empty_episodes(decoded, processor, options):
    with pytest.raises(ValueError, match="must be at least 1"):
        family.EpisodeCollator(family.ShotPool(decoded, processor), **options)


def test_the_classes_are_known(rows):
    from decahub.data import get_label_names

    assert get_label_names("mine", rows) == list(ORDERED)
    assert np.array_equal(family.ShotPool(InMemoryDataset(rows, family.decode_row), None).labels, [DOT, BAR, KITE])
