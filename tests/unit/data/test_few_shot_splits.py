"""K-shot splits: FsDet's rule, nesting, seeds, files, what is refused."""

import json

import pytest

from decahub.data import load_dataset
from decahub.data.few_shot_splits import (
    FewShotSplit,
    draw_shots,
    iterate_annotations,
    read_few_shot_split,
    sample_few_shot_split,
)
from tests.tiny.instances import write_coco_folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = write_coco_folder(tmp_path_factory.mktemp("coco") / "shapes")
    return load_dataset(folder, family="few-shot-instance-segmentation")["train"]


def test_whole_images_are_taken_while_they_fit():
    images = [[1, 2, 3], [4], [5, 6], [7]]

    for seed in range(20):
        drawn = draw_shots(images, [1, 4, 7], seed)

        assert len(drawn[1]) == 1
        assert drawn[1][0] in (4, 7), "an image with three instances does not fit into K = 1"
        assert len(drawn[4]) == 4
        for image in images:
            taken = set(image) & set(drawn[4])
            assert not taken or taken == set(image), "4 can be filled with whole images"
        assert sorted(drawn[7]) == [1, 2, 3, 4, 5, 6, 7]


def test_single_instances_fill_what_whole_images_cannot():
    assert len(draw_shots([[1, 2, 3]], [2], 0)[2]) == 2


def test_shots_are_nested():
    images = [[10 * image + place for place in range(1 + image % 3)] for image in range(12)]

    for seed in range(20):
        drawn = draw_shots(images, [10, 1, 3, 5, 2], seed)

        for small, large in ((1, 2), (2, 3), (3, 5), (5, 10)):
            assert drawn[large][: len(drawn[small])] == drawn[small]


def test_a_class_lists_what_it_can_fill():
    assert sorted(draw_shots([[1], [2], [3]], [1, 2, 3, 5], 0)) == [1, 2, 3]


def test_every_image_comes_first_for_some_seed():
    first = [draw_shots([[1], [2], [3]], [1], seed)[1][0] for seed in range(40)]

    assert set(first) == {1, 2, 3}


def test_draws_depend_on_the_seed_alone(rows):
    split = sample_few_shot_split(rows, [1, 2], range(6))

    assert split == sample_few_shot_split(rows, [2, 1], range(6))
    assert len({json.dumps(split.select(seed, 2)) for seed in range(6)}) > 1


def test_ids_are_of_their_class(rows):
    names = rows.features["annotations"].feature["label"].names
    labels = {one["id"]: names[one["label"]] for row in iterate_annotations(rows) for one in row}

    for name, ids in sample_few_shot_split(rows, [3], [0]).select(0, 3).items():
        assert len(set(ids)) == 3
        assert {labels[shot] for shot in ids} == {name}


def test_crowds_and_small_instances_are_left_out(rows):
    def mark(row):
        return {"annotations": [{**one, "iscrowd": one["id"] == 100} for one in row["annotations"]]}

    split = sample_few_shot_split(rows.map(mark), [1, 2, 3, 5], [0], min_area=18 * 18)

    assert "bar" in split.seeds[0], "30 x 12"
    assert "kite" not in sample_few_shot_split(rows, [1], [0], min_area=341).seeds[0], "10 x 34"
    assert 100 not in split.seeds[0]["bar"][3]


def test_rows_may_serve_one_seed(rows):
    marked = rows.add_column("shot_seed", [index // 3 for index in range(9)])

    split = sample_few_shot_split(marked, [1], [0, 1, 2])

    for seed in range(3):
        own = {one["id"] for row in iterate_annotations(rows.select(range(3 * seed, 3 * seed + 3))) for one in row}
        assert {ids[0] for ids in split.select(seed, 1).values()} <= own


def test_a_file_comes_back(rows, tmp_path):
    split = sample_few_shot_split(rows, [1, 2], [0, 4], base_classes=["dot", "bar"], novel_classes=["kite"])

    split.save(tmp_path / "split.json")

    assert read_few_shot_split(tmp_path / "split.json", rows) == split
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_reads_the_published_layout_by_category_ids(data_dir):
    rows = load_dataset("coco_mini_seg", data_dir)["train"]
    path = data_dir / "coco-mini-seg" / "few_shot_splits.json"

    split = read_few_shot_split(path, rows)

    content = json.loads(path.read_text())
    assert sorted(split.seeds) == list(range(10))
    assert split.seeds[3]["person"][5] == content["seeds"]["3"]["1"]["5"]
    assert "person" in split.novel_classes
    assert "zebra" not in split.novel_classes
    for seed in (0, 7):
        drawn = split.seeds[seed]
        assert all(set(by_k[1]) <= set(by_k[5]) for by_k in drawn.values() if 5 in by_k)


SPLIT = FewShotSplit({0: {"dot": {1: [102]}}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1, 1), "`seed` must be one of 0; got 1"), ((0, 5, ["dot"]), "of class 'dot' must be one of 1; got 5"),
     ((0, 1, ["kite"]), "class 'kite' must have instances to draw shots from; got none")],
)  # fmt: skip
def test_refuses_what_was_not_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        SPLIT.select(*arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shots": [1]}, "with `seeds`"),
        ({"seeds": {"0": {"3": {"1": [999]}}}}, "annotations of the training rows; 999"),
        ({"seeds": {"0": {"3": {"2": [100, 101]}}}}, "of one class under '3'; got 2"),
    ],
    ids=["no seeds", "unknown", "two classes"],
)
def test_refuses_files(rows, content, message, tmp_path):
    (tmp_path / "split.json").write_text(json.dumps(content))

    with pytest.raises(ValueError, match=message):
        read_few_shot_split(tmp_path / "split.json", rows)


def test_refuses_zero_shots(rows):
    with pytest.raises(ValueError, match=r"at least 1; got \[0, 1\]"):
        sample_few_shot_split(rows, [0, 1], [0])
