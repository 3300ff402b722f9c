"""Drawings of boxes: what lies where, by hand-computed pixels."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from decahub.models.cmt.boxes.geometry import compute_corners
from decahub.models.cmt.drawing.birds_eye_view import BirdsEyeView
from decahub.models.cmt.drawing.camera_view import clip_polygon, clip_segments, clip_to_frame, draw_boxes
from decahub.models.cmt.drawing.sheet import LEGEND_HEIGHT, TILE_HEIGHT, draw_frame, encode_png
from decahub.models.cmt.drawing.style import PALETTE, get_color


WIDTH, HEIGHT, FOCAL = 120, 90, 100.0
RED = (255, 0, 0)
# A camera that looks along +y of the LiDAR frame: x to the right, z up.
LIDAR2IMG = np.array([[FOCAL, WIDTH / 2, 0, 0], [0, HEIGHT / 2, -FOCAL, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def project(point):
    x, y, z = point
    return WIDTH / 2 + FOCAL * x / y, HEIGHT / 2 - FOCAL * z / y


def is_painted(image, x, y, color, radius=1):
    """Whether a pixel near (x, y) has exactly this color."""
    pixels = np.array(image)
    patch = pixels[
        max(0, round(y) - radius) : round(y) + radius + 1, max(0, round(x) - radius) : round(x) + radius + 1
    ]
    return (patch == color).all(axis=-1).any()


def draw(box, **options):
    image = Image.new("RGB", (WIDTH, HEIGHT))
    return draw_boxes(image, np.array([box], dtype=float), LIDAR2IMG, [RED], line_width=1, **options)


def test_corners_are_where_the_camera_sees_them():
    box = [0.5, 12, 0.3, 3, 2, 1.5, 0.4]

    image = draw(box)

    for corner in compute_corners(torch.tensor([box]).double())[0].tolist():
        assert is_painted(image, *project(corner), RED)


def test_edges_are_drawn_and_diagonals_are_not():
    box = [0, 10, 0, 2, 4, 3, 0]  # yaw 0: its length lies along x

    image = draw(box, has_front=False)

    near = project((0, 8, 1.5))  # the middle of the upper edge of the near side
    assert is_painted(image, *near, RED)
    assert not is_painted(image, *project((0.3, 8, 0.3)), RED)


@pytest.mark.parametrize(("yaw", "side"), [(0, 1), (math.pi, -1)], ids=["right", "left"])
def test_the_front_is_tinted(yaw, side):
    image = draw([0, 10, 0, 4, 4, 2, yaw])

    front, back = project((2 * side, 10, 0)), project((-2 * side, 10, 0))
    assert np.array(image)[round(front[1]), round(front[0])].any()
    assert not np.array(image)[round(back[1]), round(back[0])].any()


def test_nothing_behind_the_camera_is_drawn():
    assert not np.array(draw([0, -10, 0, 4, 4, 2, 0])).any()


def test_a_box_around_the_camera_plane_is_cut():
    image = np.array(draw([3, 2, 0, 1, 12, 1, 0], has_front=False))  # from y = -4 to y = 8, to the right

    painted = np.argwhere((image == RED).all(axis=-1))
    assert len(painted)
    # Nothing of it is to the left of its farthest corner (2.5, 8): a projection of what is behind would be.
    assert painted[:, 1].min() >= math.floor(project((2.5, 8, 0))[0]) - 1


def test_the_image_that_is_given_stays_as_it_is():
    image = Image.new("RGB", (WIDTH, HEIGHT))

    draw_boxes(image, np.array([[0, 10, 0, 4, 4, 2, 0.0]]), LIDAR2IMG, [RED])

    assert not np.array(image).any()


def test_segments_are_cut_at_the_near_plane():
    starts = np.array([[4.0, 2, 2], [0, 0, -1], [1, 1, -3]])
    ends = np.array([[6.0, 3, 3], [9, 6, 2], [1, 1, -2]])

    first, last, indices = clip_segments(starts, ends, near=0.5)

    assert indices.tolist() == [0, 1]
    # Half of the second segment is in front of depth 0.5: it begins at (4.5, 3, 0.5).
    np.testing.assert_allclose(first, [[2, 1], [9, 6]])
    np.testing.assert_allclose(last, [[2, 1], [4.5, 3]])


def test_polygons_are_cut_at_the_near_plane():
    square = np.array([[0.0, 0, 1], [1, 0, 1], [1, 0, -1], [0, 0, -1]])

    corners = clip_polygon(square, near=0.5)

    assert corners.tolist() == [[0, 0], [1, 0], [2, 0], [0, 0]]
    assert clip_polygon(square * [1, 1, -1] - [0, 0, 2], near=0.5).shape == (0, 2)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((10, 10), (20, 30), ((10, 10), (20, 30))),
        ((-100, 20), (200, 20), ((0, 20), (40, 20))),
        ((-10, -10), (50, 50), ((0, 0), (30, 30))),
        ((-10, 50), (60, 50), None),
        ((50, -5), (50, 70), None),
        ((30, 60), (30, -60), ((30, 30), (30, 0))),
    ],
    ids=["inside", "through", "corner", "below", "beside", "downward"],
)
def test_lines_are_cut_to_the_image(start, end, expected):
    line = clip_to_frame(np.array(start, float), np.array(end, float), (40, 30), 0.0)

    if expected is None:
        assert line is None
    else:
        np.testing.assert_allclose(line, expected)


def test_captions_do_not_hide_each_other():
    boxes = np.array([[0, 4, 0, 1, 1, 2, 0], [0.05, 4.1, 0, 1, 1, 2, 0]])
    image = Image.new("RGB", (640, 360))
    matrix = np.diag([640 / WIDTH, 360 / HEIGHT, 1, 1]) @ LIDAR2IMG
    colors = [RED, (0, 0, 255)]

    both = draw_boxes(image, boxes, matrix, colors, ["near", "far"])
    near = draw_boxes(image, boxes, matrix, colors, ["near", ""])
    none = draw_boxes(image, boxes, matrix, colors)

    assert np.array_equal(np.array(both), np.array(near))
    assert not np.array_equal(np.array(near), np.array(none))


def test_view_from_above_has_y_upward():
    view = BirdsEyeView(side=100, radius=50.0)

    np.testing.assert_allclose(
        view.to_pixels(np.array([[0, 0], [25, 10], [-50, -50]])), [[50, 50], [75, 40], [0, 100]]
    )


@pytest.mark.parametrize(
    ("forward", "ahead", "right"),
    [((1, 0), (10, 0), (0, -10)), ((0, -1), (0, -10), (-10, 0)), ((0.6, 0.8), (6, 8), (8, -6))],
    ids=["x", "-y", "oblique"],
)
def test_view_from_above_has_forward_upward(forward, ahead, right):
    view = BirdsEyeView(side=100, radius=50.0, forward_angle=math.atan2(forward[1], forward[0]))

    np.testing.assert_allclose(view.to_pixels(np.array([ahead, right], dtype=float)), [[50, 40], [60, 50]])


def test_view_from_above_is_chosen_wide_enough_for_what_is_turned():
    """A box at 30 m along both axes is 42 m ahead of a vehicle that drives along their diagonal."""
    box = np.array([[30.0, 30, 0, 4, 2, 1.5, 0.8]])

    sheets = [
        draw_frame(box, [0], ["car"], forward_angle=math.pi / 4),
        draw_frame(np.array([[0, 30 * 2**0.5, 0, 4, 2, 1.5, 0.8 + math.pi / 4]]), [0], ["car"]),
    ]

    assert np.array_equal(*map(np.array, sheets))


def test_view_from_above_shows_points_boxes_and_headings():
    view = BirdsEyeView(side=200, radius=20.0)  # 5 pixels a meter
    view.draw_points(np.array([[3.1, 4.1, 0.0], [90, 0, 0]]), size=1)
    view.draw_boxes(np.array([[-8, 6, 0, 4, 2, 1, math.pi / 2, 0, 0]]), [RED], line_width=1)

    pixels = np.array(view.image)
    assert (pixels[79, 115] < 255).all()
    for x, y in [(-9, 8), (-7, 8), (-9, 4), (-7, 4), (-8, 7.5)]:  # the corners, and before the center
        assert is_painted(view.image, 100 + 5 * x, 100 - 5 * y, RED)
    assert not is_painted(view.image, 100 - 5 * 8, 100 - 5 * 5, RED, radius=0)  # behind the center


def test_view_from_above_draws_the_velocity():
    still, moving = (BirdsEyeView(side=200, radius=20.0) for _ in range(2))
    box = [0, 0, 0, 4, 2, 1, 0, 0, 0]
    still.draw_boxes(np.array([box], dtype=float), [RED], line_width=1)
    moving.draw_boxes(np.array([[*box[:7], 6, 3]], dtype=float), [RED], line_width=1)

    end = (100 + 5 * (2 + 6), 100 - 5 * 3)
    assert is_painted(moving.image, *end, RED)
    assert not is_painted(still.image, *end, RED)


def build_views(num_cameras):
    shades = [Image.new("RGB", (160, 90), (40 * index, 0, 0)) for index in range(num_cameras)]
    return {"images": shades, "lidar2img": np.stack([LIDAR2IMG] * num_cameras)}


def test_sheet_arranges_the_cameras_of_nuscenes_by_direction():
    names = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]

    sheet = draw_frame(np.zeros((0, 9)), [], ["car"], cameras=names, **build_views(6))

    pixels = np.array(sheet)[..., 0] // 40
    width = 160 * TILE_HEIGHT // 90
    rows, columns = [TILE_HEIGHT // 2, TILE_HEIGHT * 3 // 2], [width // 2, width * 3 // 2, width * 5 // 2]
    assert [[pixels[row, column] for column in columns] for row in rows] == [[2, 0, 1], [4, 3, 5]]


@pytest.mark.parametrize("num_cameras", [0, 1, 2, 3, 5])
def test_any_number_of_cameras_fits(num_cameras):
    views = build_views(num_cameras) if num_cameras else {}

    sheet = draw_frame(np.array([[0, 8, 0, 4, 2, 1.5, 1.57]]), [0], ["car"], [0.9], **views)

    assert sheet.mode == "RGB"
    assert sheet.height >= 2 * TILE_HEIGHT + LEGEND_HEIGHT


def test_sheet_is_the_same_for_images_of_another_size():
    """Projections are to the pixels of the images as they are given."""
    box = np.array([[0.2, 8, 0, 4, 2, 1.5, 0.3, 0, 0]])
    small = Image.new("RGB", (320, 180), (90, 90, 90))
    matrix = np.diag([320 / WIDTH, 180 / HEIGHT, 1, 1]) @ LIDAR2IMG
    large, large_matrix = small.resize((960, 540)), np.diag([3, 3, 1, 1]) @ matrix

    sheets = [
        draw_frame(box, [3], ["a", "b", "c", "d"], images=[image], lidar2img=[projection])
        for image, projection in ((small, matrix), (large, large_matrix))
    ]

    assert np.array_equal(*map(np.array, sheets))


def test_legend_shows_the_classes_that_occur():
    boxes = np.array([[0, 8, 0, 4, 2, 1.5, 1.57]] * 3)

    def legend(**options):
        sheet = np.array(draw_frame(boxes, [1, 1, 0], ["car", "bus", "tram"], **options))[-LEGEND_HEIGHT:]
        return {tuple(color) for color in sheet.reshape(-1, 3).tolist()}

    assert {get_color(0), get_color(1)} <= legend()
    assert get_color(2) not in legend()
    assert (15, 15, 15) in legend(annotations=boxes) - legend()


def test_colors_differ():
    assert len(set(PALETTE)) == len(PALETTE) == 10
    assert get_color(12) == PALETTE[2]


def test_file_is_a_png():
    image = Image.new("RGB", (7, 5), RED)

    assert np.array_equal(np.array(Image.open(io.BytesIO(encode_png(image)))), np.array(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lidar2img": None}, "`lidar2img` must hold a projection for each of 2 images; got none"),
        ({"lidar2img": [LIDAR2IMG]}, "`lidar2img` must hold a projection for each of 2 images; got 1"),
        ({"cameras": ["a"]}, "`cameras` must hold a name for each of 2 images; got 1"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        draw_frame(np.zeros((0, 9)), [], ["car"], **{**build_views(2), **options})
