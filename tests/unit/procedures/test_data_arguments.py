"""What is known of a dataset before training is checked before it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from decahub import EmoImageProcessor
from decahub.procedures import emo
from decahub.procedures.data_arguments import (
    DataArguments,
    GraphDataArguments,
    check_splits,
    load_graph,
    load_splits,
)
from tests.tiny.graph import write_toy_graph


FAMILY = "image-classification"
COUNTS = {"train": 7, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images sorted by class, as an image folder has them."""
    root = tmp_path_factory.mktemp("images")
    for split, count in COUNTS.items():
        for shade, name in enumerate(("circle", "square", "star")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (5, 4), 60 * shade + number).save(root / split / name / f"{number}.png")
    return str(root)


def test_a_sample_is_balanced_and_what_probes_read_is_whole(folder):
    splits = load_splits(DataArguments(dataset=folder, max_train_samples=6), FAMILY)

    assert np.bincount(splits.train["label"]).tolist() == [2, 2, 2]
    assert len(splits.fit) == 3 * COUNTS["train"]
    assert len(splits.monitor) == len(splits.evaluation) == 3 * COUNTS["test"]
    assert splits.label_names == ["circle", "square", "star"]


def test_a_class_that_is_measured_and_not_learned_is_refused(folder, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "changed")
    (changed / "test" / "star").rename(changed / "test" / "planet")

    with pytest.raises(ValueError, match="the classes of 'test' must be among those of 'train'; got 'planet'"):
        load_splits(DataArguments(dataset=str(changed)), FAMILY)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eval_split": "tset"}, "`eval_split` must be one of train, test; got 'tset'"),
        ({"monitor_split": "validation"}, "`monitor_split` must be one of train, test; got 'validation'"),
        (
            {"label_names": ["star", "square", "circle"]},
            "`label_names` must agree with .* names its classes circle, square, star; got star, square, circle",
        ),
    ],
)
def test_refuses_what_does_not_agree(given, message, folder):
    with pytest.raises(ValueError, match=message):
        load_splits(DataArguments(dataset=folder, **given), FAMILY)


def test_images_without_labels_are_not_measured(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "0.png")

    splits = load_splits(DataArguments(dataset=str(tmp_path)), FAMILY, needs_labels=False)

    assert len(splits.train) == 1
    assert splits.evaluation is splits.monitor is None


def test_a_graph_names_its_classes_or_has_them_named(tmp_path):
    graph = str(write_toy_graph(tmp_path / "toy"))

    assert load_graph(GraphDataArguments(dataset=graph))[1] == ["0", "1"]
    assert load_graph(GraphDataArguments(dataset=graph, label_names=["no", "yes"]))[1] == ["no", "yes"]
    with pytest.raises(ValueError, match="`label_names` must name 2 classes; got 1: no"):
        load_graph(GraphDataArguments(dataset=graph, label_names=["no"]))
    with pytest.raises(ValueError, match="the split must be one of .*; got '9'"):
        load_graph(GraphDataArguments(dataset=graph, split="9"))


# What is measured after training is read before it


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:40]), {}, "must hold intact images; 1 do not, .*0.png"),
        (
            lambda path: Image.new("L", (9, 4)).save(path),
            {"do_center_crop": False},
            "one size of the images of a batch; it makes 2",
        ),
    ],
    ids=["damaged", "two sizes"],
)
def test_images_that_cannot_be_measured_are_found_before_training(folder, tmp_path, spoil, options, message):
    copy = shutil.copytree(folder, tmp_path / "images")
    spoil(copy / "test" / "star" / "0.png")
    arguments = emo.Arguments(dataset=str(copy))
    splits, processor = load_splits(arguments, FAMILY), EmoImageProcessor(size={"shortest_edge": 8}, **options)

    with pytest.raises(ValueError, match=message):
        check_splits(arguments, splits, processor, FAMILY)


def test_a_segmenter_that_crops_is_found_before_training(folder):
    arguments = emo.Arguments(dataset=folder, task="semantic-segmentation")

    with pytest.raises(ValueError, match="`processor.do_center_crop` must be False for semantic segmentation"):
        check_splits(arguments, load_splits(arguments, FAMILY), EmoImageProcessor(), "semantic-segmentation")


def test_a_training_map_with_an_unknown_class_is_found_before_training(tmp_path):
    for split, values in (("train", (0, 1, 7)), ("test", (0, 1))):
        for number, value in enumerate(values):
            for kind in ("images", "annotations"):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
                Image.new("L", (6, 4), value).save(tmp_path / split / kind / f"{number}.png")
    arguments = emo.Arguments(
        dataset=str(tmp_path),
        task="semantic-segmentation",
        label_names=["sky", "road"],
        output_dir=str(tmp_path / "run"),
    )

    with pytest.raises(ValueError, match="`annotation` of training row 2 must hold ids in .* got 7"):
        check_splits(
            arguments,
            load_splits(arguments, "semantic-segmentation"),
            EmoImageProcessor(do_center_crop=False, size={"height": 4, "width": 6}),
            "semantic-segmentation",
        )


def test_a_folder_of_two_graphs_is_refused(tmp_path):
    graph = write_toy_graph(tmp_path / "toy")
    source = next(graph.glob("*.npz"))
    shutil.copy(source, source.with_name("second.npz"))

    with pytest.raises(ValueError, match="must hold one graph to train on; got 2"):
        load_graph(GraphDataArguments(dataset=str(graph)))


@pytest.mark.parametrize("mask", ["validation_mask", "test_mask"])
def test_a_mask_without_labels_is_refused(tmp_path, mask):
    graph = write_toy_graph(tmp_path / "toy")
    path = next(graph.glob("*.npz"))
    arrays = dict(np.load(path))
    nodes = np.atleast_2d(arrays[mask])[0] if mask in arrays else arrays["splits"][0] == (1 + (mask == "test_mask"))
    name = "labels" if "labels" in arrays else "y"
    arrays[name] = np.where(nodes, -100, arrays[name])
    np.savez(path, **arrays)

    with pytest.raises(ValueError, match=f"`{mask}` of .* must have at least one node with a label"):
        load_graph(GraphDataArguments(dataset=str(graph)))


def test_one_hot_labels_are_refused_with_the_remedy(tmp_path):
    path = next(write_toy_graph(tmp_path / "toy").glob("*.npz"))
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "y": np.eye(2, dtype=np.int64)[arrays["y"]]})

    with pytest.raises(ValueError, match=r"`labels` or `y` must have one dimension.*`labels.argmax\(axis=1\)`"):
        load_graph(GraphDataArguments(dataset=str(path.parent)))
