"""CMT's procedure: every frame that is measured is prepared before training."""

import io

import pytest
from PIL import Image

from decahub.procedures import cmt
from decahub.procedures.data_arguments import Splits
from tests.tiny.driving_frames import build_processor, build_row


def truncate(image):
    """The image as a file that ends too early."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return Image.open(io.BytesIO(content.getvalue()[:200]))


def test_a_bad_frame_behind_the_first_is_found():
    row = build_row(1)
    bad = {**row, "images": [*row["images"][:-1], truncate(row["images"][-1])]}
    rows = [build_row(0), bad]

    with pytest.raises(
        ValueError, match=r"the measured split must hold frames that can be used; row 1 cannot: .*trunc"
    ):
        cmt.check_frames(Splits(train=rows, evaluation=rows), build_processor())
    with pytest.raises(ValueError, match=r"the monitored split must hold frames that can be used; row 1 cannot: "):
        cmt.check_frames(Splits(train=rows, evaluation=rows[:1], monitor=rows), build_processor())


def test_an_empty_split_is_refused():
    rows = [build_row(0)]

    with pytest.raises(ValueError, match="the measured split must have at least one frame; got none"):
        cmt.check_frames(Splits(train=rows, evaluation=[], monitor=rows), build_processor())
