"""Simple driving scenes, made by a seed: colored boxes on a plane, seen by cameras and by a LiDAR that sweeps twice.

Sizes, colors and speeds are typical of the classes of nuScenes. What a sensor can tell is chosen so that both matter:

- Trucks and buses have the same sizes and reflect a laser alike, and so do motorcycles and bicycles: only their color,
  which cameras see, tells them apart. The bright front and the dark red rear of a box tell its direction.
- Distances are in the points. An image has a few pixels for a far box.
- Velocities are in the points of the earlier sweep, where moving boxes are behind their place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import numpy as np
from PIL import Image

from .box_geometry import find_bev_overlaps, rotate
from .frame_files import build_features
from .scene_rendering import GROUND, GROUND_REFLECTIVITY, NOTHING, PinholeCamera, render, scan


GENERATOR_VERSION = 1  # raise it with any change of the scenes: it is part of what they are cached by
SPLITS = {"train": 1000, "validation": 100, "test": 200}
LIDAR_HEIGHT = 1.84  # above the ground, as on the cars of nuScenes
LIDAR_TO_EGO = np.array([[0.0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, LIDAR_HEIGHT], [0, 0, 0, 1]])
"""The LiDAR looks along y, the car along x."""
EGO_BOX = np.array([0.0, 0, 0, 2.2, 5.2, 1.8, 0])
CAMERA_RADIUS, CAMERA_HEIGHT = 0.8, -0.3  # meters from the LiDAR's axis, and above the LiDAR
OVERLAP, WIDEST_VIEW = np.deg2rad(10), np.deg2rad(110)  # of neighboring cameras; of one
CAMERA_NAMES = {
    2: ("CAM_FRONT", "CAM_BACK"),
    3: ("CAM_FRONT", "CAM_BACK_RIGHT", "CAM_BACK_LEFT"),
    4: ("CAM_FRONT", "CAM_RIGHT", "CAM_BACK", "CAM_LEFT"),
    5: ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK_LEFT", "CAM_FRONT_LEFT"),
    6: ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT_LEFT"),
}
"""Names by number of cameras, clockwise from the front."""
LOWEST_BEAM, HIGHEST_BEAM = np.deg2rad(-22), np.deg2rad(4)
MARGIN = 0.4  # meters between boxes
CANDIDATES = 5  # places that are tried for each box
PIXEL_NOISE, COLOR_SPREAD, SIZE_SPREAD, INTENSITY_SPREAD = 2.5, 0.08, 0.06, 0.08


@dataclass(frozen=True)
class ObjectKind:
    """What objects of a class look like.

    Args:
        size: Mean length, width and height in meters.
        color: Mean red, green and blue.
        reflectivity: Mean intensity of its points, of 255.
        speeds: Range of the speeds of those that move, in m/s; 0 for a class that stands.
        attributes: Attribute of nuScenes of one that moves and of one that stands.
        share: How frequent it is, relative to the others.
    """

    size: tuple[float, float, float]
    color: tuple[int, int, int]
    reflectivity: float
    share: float
    speeds: tuple[float, float] = (0.0, 0.0)
    attributes: tuple[str, str] = ("", "")


_VEHICLE = ("vehicle.moving", "vehicle.parked")
_CYCLE = ("cycle.with_rider", "cycle.without_rider")
_LONG: dict[str, Any] = {"size": (8.5, 2.6, 3.1), "reflectivity": 100.0, "speeds": (3.0, 9.0), "attributes": _VEHICLE}
_TWO_WHEELED: dict[str, Any] = {"size": (1.9, 0.75, 1.4), "reflectivity": 70.0, "attributes": _CYCLE}
KINDS: dict[str, ObjectKind] = {
    "car": ObjectKind((4.6, 1.95, 1.7), (200, 40, 40), 130, 0.22, (3.0, 10.0), _VEHICLE),
    "truck": ObjectKind(color=(45, 70, 200), share=0.1, **_LONG),
    "construction_vehicle": ObjectKind((6.0, 2.9, 2.4), (215, 125, 20), 60, 0.06, (0.5, 2.0), _VEHICLE),
    "bus": ObjectKind(color=(235, 215, 40), share=0.1, **_LONG),
    "trailer": ObjectKind((12.0, 2.9, 3.9), (150, 150, 160), 160, 0.04, (3.0, 8.0), _VEHICLE),
    "barrier": ObjectKind((0.5, 2.5, 1.0), (225, 225, 235), 220, 0.1),
    "motorcycle": ObjectKind(color=(200, 40, 190), share=0.09, speeds=(2.0, 6.0), **_TWO_WHEELED),
    "bicycle": ObjectKind(color=(40, 180, 60), share=0.09, speeds=(2.0, 6.0), **_TWO_WHEELED),
    "pedestrian": ObjectKind(
        (0.75, 0.7, 1.8), (40, 190, 205), 45, 0.12, (0.8, 1.8), ("pedestrian.moving", "pedestrian.standing")
    ),
    "traffic_cone": ObjectKind((0.45, 0.45, 1.05), (250, 110, 30), 190, 0.08),
}


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made.

    Args:
        num_cameras (`int`): Cameras around the car, 2 to 6.
        image_size (`tuple[int, int]`): Height and width of an image in pixels.
        num_beams (`int`): Beams of the LiDAR, one above the other.
        num_azimuths (`int`): Rays of a beam in one turn.
        num_sweeps (`int`): Earlier sweeps that are merged into the points.
        sweep_interval (`float`): Seconds between sweeps.
        num_objects (`tuple[int, int]`): Fewest and most objects of a scene.
        distances (`tuple[float, float]`): Nearest and farthest center of an object, in meters.
        max_range (`float`): How far the LiDAR measures, in meters.
        range_noise (`float`): Standard deviation of measured distances, in meters.
        drop_rate (`float`): Share of the rays that are lost.
        moving_prob (`float`): Probability that an object of a class that can move does.
    """

    num_cameras: int = 4
    image_size: tuple[int, int] = (64, 160)
    num_beams: int = 20
    num_azimuths: int = 270
    num_sweeps: int = 1
    sweep_interval: float = 0.3
    num_objects: tuple[int, int] = (3, 8)
    distances: tuple[float, float] = (3.0, 18.0)
    max_range: float = 27.0
    range_noise: float = 0.02
    drop_rate: float = 0.05
    moving_prob: float = 0.5

    def __post_init__(self):
        if self.num_cameras not in CAMERA_NAMES:
            raise ValueError(f"`num_cameras` must be in [2, 6]; got {self.num_cameras}.")
        for name in ("num_objects", "distances"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"`{name}` must be two numbers in ascending order; got {low} and {high}.")
        for name in ("drop_rate", "moving_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1]; got {getattr(self, name)}.")
        lowest = {"num_beams": 1, "num_azimuths": 1, "num_sweeps": 0, "sweep_interval": 0, "range_noise": 0}
        for name, minimum in lowest.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"`{name}` must be at least {minimum}; got {getattr(self, name)}.")
        if min(self.image_size) < 1 or len(self.image_size) != 2:
            raise ValueError(f"`image_size` must be a positive height and width; got {self.image_size}.")


@dataclass
class Objects:
    """The objects of a scene: `boxes` (n, 9), `labels` (n,), `attributes` (n)."""

    boxes: np.ndarray
    labels: np.ndarray
    attributes: list[str]


def build_cameras(settings: SceneSettings) -> list[PinholeCamera]:
    """The cameras of the car, clockwise from the front, with a little overlap where there are at least four."""
    height, width = settings.image_size
    view = min(2 * np.pi / settings.num_cameras + OVERLAP, WIDEST_VIEW)
    focal_length = width / 2 / np.tan(view / 2)
    intrinsics = np.array([[focal_length, 0, (width - 1) / 2], [0, focal_length, (height - 1) / 2], [0, 0, 1]])
    cameras = []
    for index, name in enumerate(CAMERA_NAMES[settings.num_cameras]):
        azimuth = np.pi / 2 - 2 * np.pi * index / settings.num_cameras
        forward = np.array([np.cos(azimuth), np.sin(azimuth), 0])
        right, down = np.array([np.sin(azimuth), -np.cos(azimuth), 0]), np.array([0, 0, -1])
        position = CAMERA_RADIUS * forward + [0, 0, CAMERA_HEIGHT]
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3] = rotation = np.stack([right, down, forward])
        lidar2cam[:3, 3] = -rotation @ position
        cameras.append(PinholeCamera(name, intrinsics, lidar2cam, height, width))
    return cameras


def sample_objects(generator: np.random.Generator, settings: SceneSettings) -> Objects:
    """Objects at random places, which neither overlap each other nor the car, now or at the earlier sweeps."""
    kinds = list(KINDS.values())
    wanted = int(generator.integers(settings.num_objects[0], settings.num_objects[1] + 1))
    count = CANDIDATES * wanted
    shares = np.array([kind.share for kind in kinds])
    labels = generator.choice(len(kinds), count, p=shares / shares.sum())
    sizes = np.array([kinds[label].size for label in labels]).reshape(count, 3)
    sizes = sizes * np.exp(SIZE_SPREAD * generator.standard_normal((count, 3)))
    distance, azimuth = generator.uniform(*settings.distances, count), generator.uniform(-np.pi, np.pi, count)
    yaw = generator.uniform(-np.pi, np.pi, count)
    ranges = np.array([kinds[label].speeds for label in labels]).reshape(count, 2)
    moves = (generator.random(count) < settings.moving_prob) & (ranges[:, 1] > 0)
    speed = moves * generator.uniform(ranges[:, 0], ranges[:, 1])
    centers = [distance * np.cos(azimuth), distance * np.sin(azimuth), sizes[:, 2] / 2 - LIDAR_HEIGHT]
    boxes = np.stack([*centers, *sizes.T, yaw, speed * np.cos(yaw), speed * np.sin(yaw)], axis=1)
    # The ground that a box covers from the earliest sweep on, with a margin.
    driven = speed * settings.sweep_interval * settings.num_sweeps
    covered = boxes[:, :7].copy()
    covered[:, :2] -= rotate(np.stack([driven / 2, np.zeros(count)], axis=1), yaw)
    covered[:, 3] += driven + MARGIN
    covered[:, 4] += MARGIN
    overlaps = find_bev_overlaps(covered, covered)
    is_free = ~find_bev_overlaps(covered, EGO_BOX[None])[:, 0]
    chosen: list[int] = []
    for index in np.flatnonzero(is_free):
        if len(chosen) < wanted and not overlaps[index, chosen].any():
            chosen.append(int(index))
    attributes = [kinds[labels[index]].attributes[0 if speed[index] > 0 else 1] for index in chosen]
    return Objects(boxes[chosen], labels[chosen], attributes)


def scan_objects(
    generator: np.random.Generator, objects: Objects, settings: SceneSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Points of all sweeps `(num_points, 5)`, and how many of the latest sweep lie on each object `(num_objects,)`."""
    kinds = list(KINDS.values())
    reflectivity = np.array([GROUND_REFLECTIVITY, *(kinds[label].reflectivity for label in objects.labels)])
    reflectivity = reflectivity * np.exp(INTENSITY_SPREAD * generator.standard_normal(len(reflectivity)))
    elevations = np.linspace(HIGHEST_BEAM, LOWEST_BEAM, settings.num_beams)
    step = 2 * np.pi / settings.num_azimuths
    points = []
    counts = np.zeros(len(objects.boxes), dtype=np.int64)
    for sweep in range(settings.num_sweeps + 1):
        lag = sweep * settings.sweep_interval
        boxes = objects.boxes.copy()
        boxes[:, :2] -= lag * boxes[:, 7:9]
        azimuths = -np.pi + step * (np.arange(settings.num_azimuths) + generator.random())
        directions, hits = scan(boxes, elevations, azimuths, -LIDAR_HEIGHT)
        returned = (hits.objects != NOTHING) & (hits.distances < settings.max_range)
        returned &= generator.random(returned.shape) >= settings.drop_rate
        hit = hits.objects[returned]
        noise = settings.range_noise * generator.standard_normal(len(hit))
        places = directions[returned] * (hits.distances[returned] + noise)[:, None]
        intensity = reflectivity[hit - GROUND] * np.exp(INTENSITY_SPREAD * generator.standard_normal(len(hit)))
        columns = [places, np.clip(intensity, 0, 255)[:, None], np.full((len(hit), 1), lag)]
        points.append(np.concatenate(columns, axis=1).astype(np.float32))
        if sweep == 0:
            counts = np.bincount(hit[hit >= 0], minlength=len(counts))
    return np.concatenate(points), counts


def photograph(generator: np.random.Generator, objects: Objects, cameras: list[PinholeCamera]) -> list[Image.Image]:
    """Images of all cameras, under the same light, with noise."""
    kinds = list(KINDS.values())
    colors = np.array([kinds[label].color for label in objects.labels], dtype=np.float64).reshape(-1, 3)
    colors *= np.exp(COLOR_SPREAD * generator.standard_normal(colors.shape))
    brightness = generator.uniform(0.75, 1.1)
    images = []
    for camera in cameras:
        pixels, _ = render(camera, objects.boxes, colors, -LIDAR_HEIGHT)
        noise = PIXEL_NOISE * generator.standard_normal(pixels.shape, dtype=np.float32)
        images.append(Image.fromarray(np.clip(brightness * pixels + noise, 0, 255).astype(np.uint8)))
    return images


def build_frame(key: tuple[int, ...], settings: SceneSettings | None = None, token: str = "") -> dict[str, Any]:
    """One frame: sensors, calibration and boxes, with the columns of the family `object-detection-3d`.

    Args:
        key (`tuple[int, ...]`): Seed: the same numbers give the same frame.
        settings ([`SceneSettings`], *optional*): How it is made.
        token (`str`): Its name.
    """
    settings = settings or SceneSettings()
    generator = np.random.default_rng(key)
    cameras = build_cameras(settings)
    objects = sample_objects(generator, settings)
    points, num_points = scan_objects(generator, objects, settings)
    heading = generator.uniform(-np.pi, np.pi)
    ego2global = np.eye(4)
    ego2global[:2, :2] = [[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]]
    ego2global[:2, 3] = generator.uniform(0, 1000, 2)
    return {
        "images": photograph(generator, objects, cameras),
        "cameras": [camera.name for camera in cameras],
        "intrinsics": np.stack([camera.intrinsics for camera in cameras]),
        "lidar2cam": np.stack([camera.lidar2cam for camera in cameras]),
        "points": points,
        "boxes": objects.boxes.astype(np.float32),
        "labels": objects.labels.tolist(),
        "num_points": num_points.tolist(),
        "attributes": objects.attributes,
        "bike_racks": [],
        "lidar2ego": LIDAR_TO_EGO,
        "ego2global": ego2global,
        "token": token,
    }


def build_dataset(
    sizes: Mapping[str, int] | None = None, seed: int = 0, settings: SceneSettings | None = None
) -> datasets.DatasetDict:
    """Scenes to train on, to choose by and to test on; the first call writes them to the cache of `datasets`.

    Args:
        sizes (`Mapping[str, int]`, *optional*): Frames of each of the splits `train`, `validation` and `test`; by
            default 1000, 100 and 200. A smaller split is the beginning of a larger one.
        seed (`int`): The scenes of another seed, as those of another split, have nothing in common.
        settings ([`SceneSettings`], *optional*): How scenes are made.
    """
    sizes = SPLITS if sizes is None else sizes
    unknown = sorted(set(sizes) - set(SPLITS))
    if unknown:
        raise ValueError(f"`sizes` must have the keys {', '.join(SPLITS)}; got {', '.join(unknown)}.")
    settings = settings or SceneSettings()
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_generator(
                _generate,
                features=build_features(),
                split=datasets.NamedSplit(split),
                gen_kwargs={
                    "split": split,
                    "size": size,
                    "seed": seed,
                    "settings": asdict(settings),
                    "version": GENERATOR_VERSION,
                },
            )
            for split, size in sizes.items()
        }
    )


def _generate(split: str, size: int, seed: int, settings: dict[str, Any], version: int) -> Iterator[dict[str, Any]]:
    for index in range(size):
        key = (seed, list(SPLITS).index(split), index)
        yield build_frame(key, SceneSettings(**settings), f"{split}-{index:05}")


__all__ = ["KINDS", "ObjectKind", "SceneSettings", "build_cameras", "build_dataset", "build_frame"]
