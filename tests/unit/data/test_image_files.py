"""Image files: upright, scaled by their bit depth, and refused before memory is taken if they are too large."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from decahub.data.image_classification import decode_row, image_to_tensor
from decahub.data.image_files import check_images, read_image


GRAY = np.kron(np.array([[0, 200], [90, 255], [3, 64]], dtype=np.uint8), np.ones((5, 4), dtype=np.uint8))
HUGE = (12_000, 10_000)  # 120 megapixels in a few kilobytes


@pytest.fixture(scope="module")
def huge_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bomb") / "huge.png"
    Image.new("1", HUGE).save(path)
    return path


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_16_bit_file_has_the_pixels_of_its_8_bit_twin(tmp_path):
    (tmp_path / "deep.png").write_bytes(encode(Image.fromarray(GRAY.astype(np.uint16) * 257)))

    image = read_image(tmp_path / "deep.png")

    assert image.mode == "L"
    assert np.asarray(image).tolist() == GRAY.tolist()


def test_file_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(encode(Image.fromarray(GRAY), exif=exif))

    assert np.asarray(read_image(tmp_path / "turned.png")).tolist() == np.rot90(GRAY, -1).tolist()


def test_16_bit_rows_train_on_the_pixels_of_their_8_bit_twins():
    deep = Image.fromarray(GRAY.astype(np.uint16) * 257)

    assert decode_row({"image": deep, "label": 1})["image"].tolist() == [GRAY.tolist()]
    assert image_to_tensor(deep).tolist() == [GRAY.tolist()] * 3


def test_transparent_pixels_are_white_in_training_as_in_the_processor():
    image = Image.new("RGBA", (3, 2), (10, 20, 30, 0))

    assert image_to_tensor(image).unique().tolist() == [255]
    assert image_to_tensor(image, 1).tolist() == [[[255] * 3] * 2]


def test_refuses_a_file_of_too_many_pixels_by_its_header(huge_file):
    with pytest.raises(ValueError, match=r"huge.png' must be an intact image file; it has 12000 x 10000 pixels"):
        read_image(huge_file)


@pytest.mark.parametrize("limit", [None, 10**6], ids=["ours", "PIL's"])
def test_check_names_rows_that_are_too_large_or_damaged(huge_file, limit, monkeypatch):
    if limit is not None:  # beyond twice this PIL raises an error of its own
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    content = encode(Image.fromarray(GRAY))
    rows = datasets.Dataset.from_dict(
        {"image": [content, content[:60], huge_file.read_bytes()]}, datasets.Features(image=datasets.Image())
    )

    with pytest.raises(ValueError, match=r"`image` of the split must hold intact images; 2 do not.*row 1"):
        check_images(rows, "image", "the split", show_progress=False)
    with pytest.raises(ValueError, match=r"1 do not.*row 0 .*pixels"):
        check_images(rows.select([2]), "image", "the split", show_progress=False)
