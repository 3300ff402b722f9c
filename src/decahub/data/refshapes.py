"""refshapes: textured shapes on blurred photographs, for few-shot instance segmentation on a CPU.

A class is an outline and a texture; colors say nothing. Eight classes are base, four are novel, and every texture is
that of a base class, so only the outline is new in a novel class. All is drawn from seeds. The first call renders
the images and keeps them in the cache of `datasets`.
"""

import colorsys
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm.auto import tqdm

from .catalog import DATASETS
from .coco_files import build_features
from .coco_masks import encode_mask
from .few_shot_splits import SHOT_SEED_COLUMN


logger = logging.getLogger(__name__)

NAME, VERSION = "refshapes", 1  # raise the version when an image would change
PHOTOS = "coco_mini_seg"
LICENSES = (4, 5, 7)  # COCO's ids of licenses under which a crop may be changed and passed on
SIZE, SUPERSAMPLING = 128, 4
NUM_TRAIN, NUM_TEST, SHOTS_PER_CLASS, NUM_SHOT_SEEDS = 4000, 400, 10, 10
TRAIN_SEED, TEST_SEED, FIRST_SHOT_SEED = 0, 1, 100
MAX_INSTANCES, MAX_TRIES = 4, 10
RADII, ASPECTS = (12.0, 30.0), (0.8, 1.25)  # pixels; width to height
MIN_VISIBLE_SHARE, MIN_VISIBLE_AREA = 0.6, 80
MIN_CONTRAST = 0.35  # between the values (HSV) of the two colors of an instance
BRIGHTNESS, BLUR, CROP_SCALES, NOISE_SIZE = (0.4, 0.8), 1.5, (0.5, 1.0), 8
STRIPE_PERIOD, CHECKER_SIDE, DOT_PITCH, DOT_RADIUS = 6, 6, 8, 2.5
NUM_TEXTURES = 4  # plain, stripes, checker, dots: class id modulo 4


def _polygon(num_corners: int, turn: float = 0.0, radius: float = 1.0) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(num_corners) / num_corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    corners = np.empty((10, 2))
    corners[::2], corners[1::2] = _polygon(5), _polygon(5, np.pi / 5, 0.45)
    return corners


def _heart() -> np.ndarray:
    angles = 2 * np.pi * np.arange(96) / 96
    radii = 1 - np.sin(angles)
    corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    corners -= (corners.max(0) + corners.min(0)) / 2
    return corners / np.linalg.norm(corners, axis=1).max()


def _plus(arm: float = 0.36) -> np.ndarray:
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    turn = np.array([(0, 1), (-1, 0)])  # row vectors by a quarter
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, step) for step in range(4)])


_SIDE = math.sqrt(0.5)  # half the side of a square in the unit circle
_DISC = _polygon(48)
# For each class: its name, its outline, and what is cut out.
OUTLINES: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
    "disc": (_DISC, None),
    "square": (_polygon(4, np.pi / 4), None),
    "triangle": (_polygon(3), None),
    "pentagon": (_polygon(5), None),
    "star": (_star(), None),
    "plus": (_plus(), None),
    "ring": (_DISC, 0.55 * _DISC),
    "crescent": (_DISC, _DISC + np.array((0.5, 0.0))),
    "l_shape": (
        np.array(
            [(-_SIDE, -_SIDE), (_SIDE, -_SIDE), (_SIDE, 0.45 - _SIDE), (0.45 - _SIDE, 0.45 - _SIDE),
             (0.45 - _SIDE, _SIDE), (-_SIDE, _SIDE)]
        ),
        None,
    ),
    "arrow": (
        np.array([(-1, -0.25), (0.1, -0.25), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.25), (-1, 0.25)]),
        None,
    ),
    "heart": (_heart(), None),
    "hourglass": (
        np.array([(-_SIDE, -_SIDE), (_SIDE, -_SIDE), (0.12, 0), (_SIDE, _SIDE), (-_SIDE, _SIDE), (-0.12, 0)]),
        None,
    ),
}  # fmt: skip
CLASSES = tuple(OUTLINES)
NOVEL_IDS = (3, 5, 8, 10)
BASE_IDS = tuple(label for label in range(len(CLASSES)) if label not in NOVEL_IDS)


@dataclass(frozen=True)
class Shape:
    """A drawn instance: where it covers the canvas, and its colors there.

    Args:
        label (`int`): class.
        coverage (`numpy.ndarray` of shape `(128, 128)`): share of each pixel, in [0, 1].
        colors (`numpy.ndarray` of shape `(128, 128, 3)`): in [0, 255].
        full_area (`float`): pixels that it would cover if nothing hid it.
    """

    label: int
    coverage: np.ndarray
    colors: np.ndarray
    full_area: float

    @property
    def mask(self) -> np.ndarray:
        return self.coverage > 0.5


def draw_shape(label: int, generator: np.random.Generator) -> Shape:
    """A shape of a class at a random place, size, turn and aspect, in random colors."""
    radius, turn = generator.uniform(*RADII), generator.uniform(0, 2 * np.pi)
    aspect, center = generator.uniform(*ASPECTS), generator.uniform(0, SIZE, size=2)
    outline, hole = OUTLINES[CLASSES[label]]
    stretch = np.diag([math.sqrt(aspect), 1 / math.sqrt(aspect)])
    rotation = np.array([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
    matrix = radius * stretch @ rotation
    # Only the part of the canvas around it is drawn, which takes most of the time.
    left, top = np.floor(np.clip(center - 1.2 * radius, 0, SIZE - 1)).astype(int)
    right, bottom = np.ceil(np.clip(center + 1.2 * radius, 1, SIZE)).astype(int)
    width, height = max(right - left, 1), max(bottom - top, 1)
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    for corners, value in ((outline, 255), (hole, 0)):
        if corners is not None:
            placed = (corners @ matrix + center - (left, top)) * SUPERSAMPLING - 0.5
            ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in placed], fill=value)
    weights = draw_texture(label % NUM_TEXTURES, width, height, generator)
    first, second = draw_colors(generator)
    coverage = np.zeros((SIZE, SIZE), dtype=np.float32)
    coverage[top : top + height, left : left + width] = (
        np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255
    )
    colors = np.zeros((SIZE, SIZE, 3), dtype=np.float32)
    colors[top : top + height, left : left + width] = first + weights[..., None] * (second - first)
    return Shape(label, coverage, colors, FULL_AREAS[CLASSES[label]] * radius**2)


def compute_full_area(outline: np.ndarray, hole: np.ndarray | None) -> float:
    """Area of an outline without what is cut out of it, in units of its radius squared."""
    if hole is None:
        return _compute_area(outline)
    scale = 200
    canvas = Image.new("1", (2 * scale, 2 * scale))
    for corners, value in ((outline, 1), (hole, 0)):
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in (corners + 1) * scale], fill=value)
    return float(np.asarray(canvas).sum()) / scale**2


def _compute_area(corners: np.ndarray) -> float:
    following = np.roll(corners, -1, axis=0)
    return abs(float(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]))) / 2


FULL_AREAS = {name: compute_full_area(*outline) for name, outline in OUTLINES.items()}


def draw_texture(kind: int, width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """Share of the second color in each pixel, `(height, width)`."""
    angle, shift = generator.uniform(0, np.pi), generator.uniform(0, DOT_PITCH, size=2)
    if kind == 0:
        return np.zeros((height, width), dtype=np.float32)
    steps = (np.arange(max(width, height) * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING
    x, y = steps[None, : width * SUPERSAMPLING] + shift[0], steps[: height * SUPERSAMPLING, None] + shift[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 1:
        chosen = along % STRIPE_PERIOD < STRIPE_PERIOD / 2
    elif kind == 2:
        chosen = (along // CHECKER_SIDE + across // CHECKER_SIDE) % 2 < 1
    else:
        half = DOT_PITCH / 2
        chosen = (along % DOT_PITCH - half) ** 2 + (across % DOT_PITCH - half) ** 2 < DOT_RADIUS**2
    blocks = chosen.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def draw_colors(generator: np.random.Generator) -> np.ndarray:
    """Two colors `(2, 3)` in [0, 255], one of them clearly brighter."""
    hues, saturations = generator.uniform(size=2), generator.uniform(0.4, 1, size=2)
    bright = generator.uniform(0.65, 1)
    values = [bright, generator.uniform(0.15, bright - MIN_CONTRAST)]
    if generator.uniform() < 0.5:
        values.reverse()
    colors = [colorsys.hsv_to_rgb(*parts) for parts in zip(hues, saturations, values, strict=True)]
    return 255 * np.array(colors, dtype=np.float32)


def draw_background(photos: Sequence[Image.Image], generator: np.random.Generator) -> np.ndarray:
    """A darkened, blurred crop of a photograph, or smooth noise without photographs; `(128, 128, 3)`."""
    if photos:
        photo = photos[int(generator.integers(len(photos)))]
        side = max(1, round(generator.uniform(*CROP_SCALES) * min(photo.size)))
        left, top = (int(generator.integers(length - side + 1)) for length in photo.size)
        image = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        image = image.filter(ImageFilter.GaussianBlur(BLUR))
    else:
        noise = generator.integers(0, 256, size=(NOISE_SIZE, NOISE_SIZE, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) * np.float32(generator.uniform(*BRIGHTNESS))


def draw_scene(
    labels: Sequence[int], photos: Sequence[Image.Image], generator: np.random.Generator
) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """An image with instances of these classes, the first in front; those that find no place are dropped.

    Returns:
        Pixels `(128, 128, 3)` of bytes, and the class and the visible mask `(128, 128)` of each instance.
    """
    pixels = draw_background(photos, generator)
    hidden = np.zeros((SIZE, SIZE), dtype=bool)
    shapes, masks = [], []
    for label in labels:
        for _ in range(MAX_TRIES):
            shape = draw_shape(label, generator)
            visible = shape.mask & ~hidden
            if visible.sum() >= max(MIN_VISIBLE_AREA, MIN_VISIBLE_SHARE * shape.full_area):
                shapes.append(shape)
                masks.append(visible)
                hidden |= shape.mask
                break
    for shape in reversed(shapes):
        pixels += shape.coverage[..., None] * (shape.colors - pixels)
    return pixels.round().clip(0, 255).astype(np.uint8), [shape.label for shape in shapes], masks


def draw_scenes(
    num_images: int, labels: Sequence[int], photos: Sequence[Image.Image], seed: int
) -> Iterator[tuple[np.ndarray, list[int], list[np.ndarray]]]:
    """Images with one to four instances of classes from `labels`; see [`draw_scene`]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(num_images):
        count = int(generator.integers(1, MAX_INSTANCES + 1))
        yield draw_scene(generator.choice(labels, size=count).tolist(), photos, generator)


def draw_shot_scenes(
    seed: int, photos: Sequence[Image.Image], shots_per_class: int = SHOTS_PER_CLASS
) -> Iterator[tuple[np.ndarray, list[int], list[np.ndarray]]]:
    """Images with one instance each, class by class."""
    generator = np.random.Generator(np.random.PCG64(FIRST_SHOT_SEED + seed))
    for label in range(len(CLASSES)):
        for _ in range(shots_per_class):
            scene = draw_scene([label], photos, generator)
            while not scene[1]:
                scene = draw_scene([label], photos, generator)
            yield scene


def build_dataset(data_dir: str | os.PathLike | None = None) -> datasets.DatasetDict:
    """The splits `train` (4,000 images, base classes only), `test` (400, all classes) and `shots`.

    `shots` has ten images of each class for each of ten seeds, which the column `shot_seed` names.

    Args:
        data_dir (`str` or path, *optional*): Directory of the catalog's datasets. Backgrounds are crops of
            `coco_mini_seg` if it is there, of those photographs that may be changed; otherwise smooth noise.
    """
    photos = load_photos(data_dir)
    folder = (
        Path(datasets.config.HF_DATASETS_CACHE) / "decahub" / f"{NAME}-{VERSION}-{'photos' if photos else 'noise'}"
    )
    return datasets.DatasetDict(
        {split: _load_or_build(split, folder / f"{split}.parquet", photos) for split in ("train", "test", "shots")}
    )


def load_photos(data_dir: str | os.PathLike | None) -> list[Image.Image]:
    """Photographs for backgrounds; none, with a warning, where the dataset is absent."""
    from .loading import load_dataset

    try:
        rows = load_dataset(PHOTOS, data_dir)["train"]
    except FileNotFoundError:
        logger.warning(
            f"{DATASETS[PHOTOS].title} was not found, so the backgrounds of refshapes are noise. Scores are not "
            "comparable with those on photographs."
        )
        return []
    licenses = rows["license"][:]
    kept = [index for index, number in enumerate(licenses) if number in LICENSES]
    return [rows[index]["image"].convert("RGB") for index in kept]


def _load_or_build(split: str, path: Path, photos: Sequence[Image.Image]) -> datasets.Dataset:
    from .loading import without_progress

    if not path.is_file():
        rows = build_split(split, photos)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with without_progress():
            rows.to_parquet(str(partial))
        os.replace(partial, path)
    features = build_features(CLASSES)
    if split == "shots":
        features[SHOT_SEED_COLUMN] = datasets.Value("int64")
    with without_progress():
        return datasets.Dataset.from_parquet(str(path), features=features)


def build_split(split: str, photos: Sequence[Image.Image], limit: int | None = None) -> datasets.Dataset:
    """Renders one split; `limit` images (of each seed for `shots`)."""
    if split == "shots":
        parts = []
        for seed in range(NUM_SHOT_SEEDS if limit is None else 1):
            scenes = list(draw_shot_scenes(seed, photos, limit or SHOTS_PER_CLASS))
            rows = build_rows(scenes, len(scenes), first_id=200_000 + 1_000 * seed)
            parts.append(rows.add_column(SHOT_SEED_COLUMN, [seed] * len(rows)))
        return datasets.concatenate_datasets(parts)
    num_images, labels, seed, first_id = {
        "train": (NUM_TRAIN, BASE_IDS, TRAIN_SEED, 0),
        "test": (NUM_TEST, tuple(range(len(CLASSES))), TEST_SEED, 100_000),
    }[split]
    num_images = num_images if limit is None else limit
    return build_rows(draw_scenes(num_images, labels, photos, seed), num_images, first_id)


def build_rows(
    scenes: Iterable[tuple[np.ndarray, list[int], list[np.ndarray]]], num_images: int, first_id: int
) -> datasets.Dataset:
    """Rows with images as PNG; ids of images count from `first_id`."""
    columns: dict[str, list[Any]] = {"image": [], "image_id": [], "annotations": []}
    bar = tqdm(scenes, total=num_images, desc="Rendering refshapes", leave=False, disable=num_images < NUM_TEST)
    for image_id, (pixels, labels, masks) in enumerate(bar, start=first_id):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
        columns["image"].append({"bytes": file.getvalue(), "path": None})
        columns["image_id"].append(image_id)
        columns["annotations"].append(
            [
                {
                    "id": image_id * (MAX_INSTANCES + 1) + place,
                    "label": label,
                    "segmentation": json.dumps(encode_mask(mask)),
                    "iscrowd": False,
                    "area": float(mask.sum()),
                }
                for place, (label, mask) in enumerate(zip(labels, masks, strict=True))
            ]
        )
    return datasets.Dataset.from_dict(columns, features=build_features(CLASSES))


__all__ = ["BASE_IDS", "CLASSES", "NOVEL_IDS", "build_dataset", "build_split", "draw_scene", "draw_scenes"]
