"""Image quality data: official layouts, tables of a user, disjoint splits, transforms, collator."""

import csv

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from decahub import PmtIqaImageProcessor, load_dataset
from decahub.data import SeededTransform, image_quality
from decahub.data.quality_layouts import LAYOUTS, find_layout, read_layout
from decahub.data.quality_splits import (
    apply_splits,
    find_shared_references,
    get_references,
    get_rows_to_split,
    load_splits_file,
    save_splits,
    split_by_reference,
    split_references,
)


SIZE = 32


def draw(path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_table(path, header, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


# Official layouts, each as a folder of three or four images


def make_live(folder):
    places = [("jp2k", 1), ("jp2k", 2), ("jpeg", 1), ("wn", 1), ("gblur", 1), ("fastfading", 1)]
    for kind, number in places:
        draw(folder / kind / f"img{number}.bmp")
    names = np.array([["a.bmp", "b.bmp", "a.bmp", "b.bmp", "c.bmp", "c.bmp"]], dtype=object)
    scores = np.array([[50.5, 0.0, 71.0, -3.0, 20.25, 33.0]])
    savemat(folder / "dmos_realigned.mat", {"dmos_new": scores, "orgs": np.array([[0, 1, 0, 0, 0, 0]])})
    savemat(folder / "refnames_all.mat", {"refnames_all": names})
    return [
        ("jp2k/img1.bmp", 50.5, "a.bmp", "jp2k"),
        ("jpeg/img1.bmp", 71.0, "a.bmp", "jpeg"),
        ("gblur/img1.bmp", 20.25, "c.bmp", "gblur"),
        ("fastfading/img1.bmp", 33.0, "c.bmp", "fastfading"),
    ]


def make_live_challenge(folder):
    names = [f"t{number}.bmp" for number in range(1, 8)] + ["10.bmp", "11.JPG"]
    for name in names[7:]:
        draw(folder / "Images" / name)
    (folder / "Data").mkdir()
    cells = np.array([[name] for name in names], dtype=object)
    savemat(folder / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(folder / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([[0.0] * 7 + [63.5, 40.0]])})
    return [("Images/10.bmp", 63.5, "", ""), ("Images/11.JPG", 40.0, "", "")]


def make_koniq10k(folder):
    rows = [("7.jpg", 3.1, 61.5), ("8.jpg", 2.0, 30.0)]
    for name, *_ in rows:
        draw(folder / "1024x768" / name)
    write_table(folder / "koniq10k_scores_and_distributions.csv", ["image_name", "MOS", "MOS_zscore"], rows)
    sets = [("7.jpg", "training"), ("8.jpg", "test")]
    write_table(folder / "koniq10k_distributions_sets.csv", ["image_name", "set"], sets)
    return [("1024x768/7.jpg", 61.5, "", ""), ("1024x768/8.jpg", 30.0, "", "")]


def make_csiq(folder):
    draw(folder / "dst_imgs" / "awgn" / "1600.AWGN.1.png")
    draw(folder / "dst_imgs" / "jpeg2000" / "boston.jpeg2000.3.png")
    (folder / "csiq_label.txt").write_text("1600.AWGN.1.png 0.062\nboston.jpeg2000.3.png 0.5\n")
    return [
        ("dst_imgs/awgn/1600.AWGN.1.png", 0.062, "1600", "awgn"),
        ("dst_imgs/jpeg2000/boston.jpeg2000.3.png", 0.5, "boston", "jpeg2000"),
    ]


def make_tid2013(folder):
    draw(folder / "distorted_images" / "i01_01_1.bmp")
    draw(folder / "distorted_images" / "I02_24_5.bmp")
    (folder / "mos_with_names.txt").write_text("5.51429 I01_01_1.bmp\n1.2 I02_24_5.bmp\n")
    return [
        ("distorted_images/i01_01_1.bmp", 5.51429, "I01", "01"),
        ("distorted_images/I02_24_5.bmp", 1.2, "I02", "24"),
    ]


def make_kadid10k(folder):
    draw(folder / "images" / "I01_03_02.png")
    write_table(folder / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], [("I01_03_02.png", "I01.png", 4.57, 0.5)])
    return [("images/I01_03_02.png", 4.57, "I01", "03")]


def make_biq2021(folder):
    draw(folder / "Images" / "ss01 (3).JPG")
    draw(folder / "Images" / "ss03 (5).jpg")
    header = ["Image Name", "MOS", "", ""]
    write_table(folder / "Train (Images and MOS).csv", header, [("ss01 (3).jpg", 0.25, "", "")])
    write_table(folder / "Test (Images and MOS).csv", header, [("ss03 (5).jpg", 0.8, "", "")])
    return [("Images/ss01 (3).JPG", 0.25, "", "ss01"), ("Images/ss03 (5).jpg", 0.8, "", "ss03")]


def make_bid(folder):
    openpyxl = pytest.importorskip("openpyxl")
    draw(folder / "DatabaseImage0001.JPG")
    draw(folder / "DatabaseImage0012.JPG")
    book = openpyxl.Workbook()
    for row in [("Image Number", "Average Subjective Grade"), (1, 3.25), (12, 0.5)]:
        book.active.append(row)
    book.save(folder / "DatabaseGrades.xlsx")
    return [("DatabaseImage0001.JPG", 3.25, "", ""), ("DatabaseImage0012.JPG", 0.5, "", "")]


def make_csiq_excel(folder):
    openpyxl = pytest.importorskip("openpyxl")
    rows = make_csiq(folder)
    (folder / "csiq_label.txt").unlink()
    book = openpyxl.Workbook()
    sheet = book.create_sheet("all_by_image")
    for row in [
        ("", "", "", "", "", ""),
        ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"),
        (1600, 1, "noise", 1, 0.1, 0.062),
        ("boston", 3, "jpeg 2000", 3, 0.1, 0.5),
    ]:
        sheet.append(row)
    book.save(folder / "csiq.DMOS.xlsx")
    return rows


MAKERS = {
    "LIVE": make_live,
    "LIVE Challenge": make_live_challenge,
    "KonIQ-10k": make_koniq10k,
    "CSIQ": make_csiq,
    "CSIQ (Excel)": make_csiq_excel,
    "TID2013": make_tid2013,
    "KADID-10k": make_kadid10k,
    "BIQ2021": make_biq2021,
    "BID": make_bid,
}


@pytest.mark.parametrize("name", MAKERS)
def test_official_layout(name, tmp_path):
    expected = MAKERS[name](tmp_path)

    layout, table = find_layout(tmp_path)
    rows = read_layout(tmp_path, layout, table)

    assert layout.name == name.partition(" (")[0]
    found = [(row.path.relative_to(tmp_path).as_posix(), row.score, row.reference, row.source) for row in rows]
    assert found == expected
    low, high = layout.score_range
    assert all(low <= row.score <= high for row in rows)


def test_every_layout_has_a_test():
    assert {layout.name for layout in LAYOUTS} <= {name.partition(" (")[0] for name in MAKERS}


def test_layouts_load_as_datasets(tmp_path):
    make_koniq10k(tmp_path)

    splits = load_dataset(tmp_path, family="image-quality")

    assert {name: rows["score"][:] for name, rows in splits.items()} == {"train": [61.5], "test": [30.0]}
    assert splits["train"][0]["image"].size == (50, 40)


def test_layout_in_a_data_folder_loads(tmp_path):
    make_live_challenge(tmp_path)

    rows = load_dataset(tmp_path, family="image-quality")["all"]

    assert rows["name"][:] == ["Images/10.bmp", "Images/11.JPG"]


def test_missing_image_is_named(tmp_path):
    make_kadid10k(tmp_path)
    (tmp_path / "images" / "I01_03_02.png").unlink()

    with pytest.raises(FileNotFoundError, match="I01_03_02.png"):
        load_dataset(tmp_path, family="image-quality")


def test_an_image_in_two_folders_is_ambiguous(tmp_path):
    make_koniq10k(tmp_path)
    draw(tmp_path / "512x384" / "8.jpg")

    with pytest.raises(ValueError, match=r"'8\.jpg' of koniq10k.*one folder; got it in 1024x768 and 512x384\. Move"):
        load_dataset(tmp_path, family="image-quality")


def test_official_table_without_its_columns(tmp_path):
    make_koniq10k(tmp_path)
    write_table(tmp_path / "koniq10k_scores_and_distributions.csv", ["image_name", "MOS"], [("7.jpg", 3.1)])

    with pytest.raises(ValueError, match="must have the column 'MOS_zscore'; it has image_name, MOS"):
        load_dataset(tmp_path, family="image-quality")


# A table of a user


def test_own_table(tmp_path):
    for number in range(3):
        draw(tmp_path / "photos" / f"{number}.png")
    rows = [(f"photos/{number}.png", 1 + number, f"scene{number // 2}") for number in range(3)]
    write_table(tmp_path / "scores.csv", ["file_name", "MOS", "reference"], rows)

    loaded = load_dataset(tmp_path, family="image-quality")["all"]

    assert loaded["score"][:] == [1.0, 2.0, 3.0]
    assert loaded["reference"][:] == ["scene0", "scene0", "scene1"]


def test_own_table_with_the_name_of_an_official_one(tmp_path):
    draw(tmp_path / "0.png")
    write_table(tmp_path / "dmos.csv", ["image", "dmos"], [("0.png", 4)])

    assert load_dataset(tmp_path, family="image-quality")["all"]["score"][:] == [4.0]


@pytest.mark.parametrize("other", ["scores.csv", "koniq10k_scores_and_distributions.csv"])
def test_refuses_two_tables(other, tmp_path):
    draw(tmp_path / "0.png")
    for name in (other, "mos.csv"):
        write_table(tmp_path / name, ["image", "score"], [("0.png", 4)])

    with pytest.raises(ValueError, match=f"must have one table of scores; got {other} and mos.csv"):
        load_dataset(tmp_path, family="image-quality")


def test_images_that_the_own_table_does_not_list_are_counted(tmp_path, caplog):
    for name in ("a.png", "b.png", "more/c.png"):
        draw(tmp_path / name)
    write_table(tmp_path / "scores.csv", ["image", "score"], [("a.png", 4)])

    assert len(load_dataset(tmp_path, family="image-quality")["all"]) == 1
    assert caplog.messages == [
        f"Left out 2 of 3 images in {tmp_path.name!r}, which its `scores.csv` does not list; the first is b.png."
    ]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            ["file_name", "score", "Set"],
            [("0.png", 3, "training")],
            "has the column 'Set'; name it 'split', or drop it",
        ),
        (["file_name", "score", "splits"], [("0.png", 3, "test")], "has the column 'splits'; name it 'split'"),
        (["file_name", "score", "ref_img"], [("0.png", 3, "a")], "has the column 'ref_img'; name it 'reference'"),
        (
            ["file_name", "grade"],
            [("0.png", 3)],
            "must have a column of images .* and one of scores .*; it has file_name",
        ),
        (["file_name", "score"], [("0.png", "good")], "must be numbers; got 'good' in line 2"),
        (["file_name", "score"], [("0.png", "nan")], "at least one finite number"),
        (["file_name", "score"], [], "at least one row below its header"),
        (["file_name", "score", "split"], [("0.png", 1, "train"), ("1.png", 1, "")], "or none may"),
        (["file_name", "score"], [("0.png", 3), ("0.png", 4)], "each image once; '0.png' is in line 3 again"),
        (["file_name", "score"], [("0.png",)], "must have 2 values in each line.*; got 1 in line 2"),
        (["file_name", "score", "source"], [("0.png", 3, 5, "a")], "must have 3 values in each line.*; got 4"),
        (["file_name", "score", "Score"], [("0.png", 3, 4)], "must have columns of different names"),
    ],
    ids=[
        "set",
        "splits",
        "ref_img",
        "column",
        "text",
        "nan",
        "empty",
        "split",
        "twice",
        "short line",
        "decimal comma",
        "equal columns",
    ],
)
def test_refuses_tables(header, rows, message, tmp_path):
    for number in range(2):
        draw(tmp_path / f"{number}.png")
    write_table(tmp_path / "scores.csv", header, rows)

    with pytest.raises(ValueError, match=message):
        load_dataset(tmp_path, family="image-quality")


def test_table_in_another_encoding_is_named(tmp_path):
    (tmp_path / "scores.csv").write_text("file_name,score\nétang.png,3\n", encoding="latin-1")

    with pytest.raises(ValueError, match=r"scores\.csv must be a text file in UTF-8"):
        load_dataset(tmp_path, family="image-quality")


def test_table_of_a_spreadsheet_or_a_data_frame(tmp_path):
    """A mark of the encoding, line ends of Windows, a column of row numbers without a name, images elsewhere."""
    draw(tmp_path / "elsewhere" / "0.png")
    draw(tmp_path / "photos" / "1.png")
    lines = [",file_name,score,split,", f"0,{tmp_path / 'elsewhere' / '0.png'},3.5,Training,", "", "1,1.png,,Val,"]
    (tmp_path / "photos" / "scores.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))

    with pytest.raises(ValueError, match="at least one finite number"):  # of `validation`
        load_dataset(tmp_path / "photos", family="image-quality")
    (tmp_path / "photos" / "scores.csv").write_bytes("\r\n".join(lines).replace("Val", "Training").encode("utf-8-sig"))
    loaded = load_dataset(tmp_path / "photos", family="image-quality")

    assert list(loaded) == ["train"]
    assert np.isnan(loaded["train"]["score"][1])
    assert loaded["train"]["score"][0] == 3.5
    assert "reference" not in loaded["train"].column_names
    assert loaded["train"]["name"][:] == [str(tmp_path / "elsewhere" / "0.png"), "1.png"]


# Splits


def build_rows(num_references: int = 10, versions: int = 3) -> datasets.Dataset:
    pairs = [(f"r{reference:02d}", version) for reference in range(num_references) for version in range(versions)]
    return datasets.Dataset.from_dict(
        {"reference": [name for name, _ in pairs], "score": [float(version) for _, version in pairs]}
    )


def test_no_reference_is_in_two_splits(tmp_path):
    rows, shares = build_rows(), {"train": 0.6, "validation": 0.2, "test": 0.2}

    splits, record = split_by_reference(rows, shares, seed=3)
    read = load_splits_file(save_splits(record, tmp_path / "splits.json"))
    again = apply_splits(rows, read)

    names = {split: set(part["reference"][:]) for split, part in splits.items()}
    assert [len(part) for part in names.values()] == [6, 2, 2]
    assert set.union(*names.values()) == set(rows["reference"])
    assert sum(map(len, names.values())) == 10
    assert sum(map(len, splits.values())) == 30
    assert {split: part["reference"][:] for split, part in again.items()} == {
        split: part["reference"][:] for split, part in splits.items()
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", "it holds no record"),
        ('{"format": "decahub-quality-splits-1"}', "`splits` is missing"),
        ('{"format": "decahub-quality-splits-1", "splits": {"train": {}}}', "the split 'train' lacks `references`"),
        (
            '{"format": "decahub-quality-splits-1", "splits": {"train": {"references": ["a"]}}}',
            "the split 'train' lacks `num_images`",
        ),
        ('{"format": "other", "splits": {}}', "its format is 'other'"),
        ('{"format": "decahub-qual', "Unterminated string"),
    ],
)
def test_refuses_a_file_that_no_run_wrote(tmp_path, content, problem):
    path = tmp_path / "f.json"
    path.write_text(content)

    with pytest.raises(ValueError, match=rf"f\.json must be a file of splits that a run wrote.*; {problem}"):
        load_splits_file(path)


def test_rows_to_split_are_all_of_a_dataset():
    few, many = build_rows(2), build_rows(3)

    assert get_rows_to_split({"test": few, "train": many}) is many
    assert get_rows_to_split({"test": few, "all": many}) is many
    assert get_rows_to_split({"photos": few}) is few
    with pytest.raises(ValueError, match="must be `train`, or there must be no splits; got good, bad"):
        get_rows_to_split({"good": few, "bad": many})


def test_references_of_two_splits_are_found():
    assert find_shared_references(build_rows(2), build_rows(3)) == ["r00", "r01"]
    assert find_shared_references(build_rows(2), build_rows(3).remove_columns("reference")) == []


def test_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    references = get_references(build_rows())

    first = split_references(references, {"train": 0.8, "test": 0.2}, seed=1)

    assert split_references(references[::-1], {"train": 0.8, "test": 0.2}, seed=1) == first
    assert split_references(references, {"train": 0.8, "test": 0.2}, seed=2) != first


@pytest.mark.parametrize(("total", "train"), [(29, 23), (30, 24), (25, 20), (1162, 930), (586, 469), (10073, 8058)])
def test_counts_are_those_of_the_paper(total, train):
    parts = split_references([f"{number:05d}" for number in range(total)], {"train": 0.8, "test": 0.2})

    assert (len(parts["train"]), len(parts["test"])) == (train, total - train)


def test_refuses_shares_that_leave_a_split_empty():
    with pytest.raises(ValueError, match="'test' would get none of 2"):
        split_references(["a", "b"], {"train": 0.9, "test": 0.1})
    with pytest.raises(ValueError, match="add up to 1"):
        split_references(["a", "b"], {"train": 0.5, "test": 0.4})


def test_refuses_a_record_of_another_dataset():
    _, record = split_by_reference(build_rows(10), {"train": 0.5, "test": 0.5})

    with pytest.raises(ValueError, match="2 are not, the first is 'r10'"):
        apply_splits(build_rows(12), record)
    with pytest.raises(ValueError, match="must have the 15 images of the record; got 10"):
        apply_splits(build_rows(10, versions=2), record)


def test_refuses_a_record_with_a_reference_on_both_sides():
    _, record = split_by_reference(build_rows(10), {"train": 0.5, "test": 0.5})
    record["splits"]["test"]["references"].append(record["splits"]["train"]["references"][0])

    with pytest.raises(ValueError, match="is in 'train' and 'test'"):
        apply_splits(build_rows(10), record)


# Transforms


@pytest.fixture
def processor():
    return PmtIqaImageProcessor(crop_size={"height": SIZE, "width": SIZE})


def test_training_crops_depend_on_seed_epoch_and_row(processor):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 70, 3), dtype=np.uint8))
    transform = image_quality.build_train_transform(processor, num_crops=2)
    rows = SeededTransform([{"image": image, "score": 4.5}], transform, seed=1)

    first, again = rows[0], rows[0]
    rows.set_epoch(1)

    assert first["pixel_values"].shape == (2, 3, SIZE, SIZE)
    assert first["labels"] == 4.5
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert not torch.equal(first["pixel_values"], rows[0]["pixel_values"])


def test_collate_fills_up_crops(processor):
    transform = image_quality.build_eval_transform(processor)
    images = [Image.new("RGB", size, "red") for size in [(SIZE, SIZE), (SIZE, 50)]]

    batch = image_quality.collate([transform({"image": image, "score": 1.0}) for image in images])

    assert batch["pixel_values"].shape == (2, 3, 3, SIZE, SIZE)
    assert batch["crop_mask"].tolist() == [[True, False, False], [True, True, True]]
    assert batch["source"] == ["", ""]


@pytest.mark.parametrize("options", [{"num_crops": 0}, {"flip_prob": 1.5}], ids=lambda options: next(iter(options)))
def test_refuses_augmentation(processor, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
        image_quality.build_train_transform(processor, **options)


def test_evaluation_refuses_dense(processor):
    processor.crop_strategy = "dense"

    with pytest.raises(ValueError, match="`crop_strategy` must be one that cuts crops"):
        image_quality.build_eval_transform(processor)
