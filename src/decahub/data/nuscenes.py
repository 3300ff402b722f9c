"""nuScenes in its official layout as frames with 3D boxes, read without its devkit.

The folder is the one that the archives of nuScenes are unpacked into: tables in `v1.0-*/*.json`, files in `samples`
and `sweeps`. Rows hold paths; images and points are read when a row is used. Paper: arXiv 1903.11027.

Scenes are divided as by the devkit: v1.0-trainval into `train` and `validation`, v1.0-mini likewise, v1.0-test, which
has no boxes, is `test`. A file `splits.json` beside the tables, such as `{"train": ["scene-0001", ...]}`, divides them
otherwise.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from .box_geometry import BOX_SIZE
from .frame_files import SWEEPS, build_features


DETECTION_CLASSES = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""Categories that are detected, with their classes; boxes of other categories are left out."""
BIKE_RACK = "static_object.bicycle_rack"
LIDAR = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
POINT_FILE_COLUMNS = ["x", "y", "z", "intensity", "ring"]
NUM_SWEEPS = 10
MAX_TIME_DIFFERENCE = 1.5  # seconds between neighboring annotations; a velocity over a longer time is unknown
MICROSECONDS = 1e-6
SPLITS_FILE = "splits.json"
TABLE_FOLDERS = "v1.0-*"
TABLES = (
    "scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "sample_annotation", "instance",
    "category", "attribute",
)  # fmt: skip
# Numbers of the 150 scenes of v1.0-trainval that are for validation, first and last of each run.
VALIDATION_SCENES = (
    (3, 3), (12, 18), (35, 36), (38, 39), (92, 110), (221, 221), (268, 278), (329, 332), (344, 346), (519, 524),
    (552, 565), (625, 627), (629, 630), (632, 638), (770, 771), (775, 775), (777, 778), (780, 784), (794, 800),
    (802, 802), (904, 917), (919, 931), (962, 963), (966, 969), (971, 972), (1059, 1073),
)  # fmt: skip
MINI_VALIDATION_SCENES = ((103, 103), (916, 916))


class NuScenesTables:
    """The tables of one version, joined as far as frames need them.

    Args:
        folder (`Path`): Folder of the tables, such as `nuscenes/v1.0-mini`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.scenes = self._read("scene")
        self.samples = self._index("sample")
        self.poses = self._index("ego_pose")
        self.sensors = self._index("calibrated_sensor")
        channels = {sensor["token"]: sensor["channel"] for sensor in self._read("sensor")}
        self.channels = {
            token: self._follow(channels, "calibrated_sensor", record, "sensor_token")
            for token, record in self.sensors.items()
        }
        categories = {record["token"]: record["name"] for record in self._read("category")}
        instances = self._read("instance")
        self.categories = {
            record["token"]: self._follow(categories, "instance", record, "category_token") for record in instances
        }
        self.attributes = {record["token"]: record["name"] for record in self._read("attribute")}
        self.annotations = self._index("sample_annotation")
        self.boxes_of_sample: dict[str, list[dict[str, Any]]] = {token: [] for token in self.samples}
        for record in self.annotations.values():
            self._follow(self.boxes_of_sample, "sample_annotation", record, "sample_token").append(record)
        self.recordings: dict[str, dict[str, Any]] = {}  # all of the LiDAR and the key frames of cameras
        self.key_recordings: dict[str, dict[str, str]] = {token: {} for token in self.samples}
        for record in self._read("sample_data"):
            channel = self._follow(self.channels, "sample_data", record, "calibrated_sensor_token")
            if channel == LIDAR or (channel in CAMERAS and record["is_key_frame"]):
                self.recordings[record["token"]] = record
                if record["is_key_frame"]:
                    keys = self._follow(self.key_recordings, "sample_data", record, "sample_token")
                    keys[channel] = record["token"]

    def _read(self, table: str) -> list[dict[str, Any]]:
        return read_json(self.folder / f"{table}.json")

    def _index(self, table: str) -> dict[str, dict[str, Any]]:
        return {record["token"]: record for record in self._read(table)}

    def _follow(self, records: Mapping[str, Any], table: str, record: Mapping[str, Any], key: str) -> Any:
        """What a token in a record of a table leads to."""
        if record[key] not in records:
            raise ValueError(
                f"`{key}` of {record['token']!r} in {self.folder / table}.json must be a token of the other tables; "
                f"got {record[key]!r}. Are all tables of one version, and complete?"
            )
        return records[record[key]]

    def iterate_samples(self, scene: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Samples (key frames) of a scene in their order."""
        table, record, key = "scene", scene, "first_sample_token"
        seen: set[str] = set()
        while record[key]:
            if record[key] in seen:
                raise ValueError(
                    f"samples of {scene['name']!r} in {self.folder / 'sample.json'} must follow each other; "
                    f"{record[key]!r} comes twice."
                )
            seen.add(record[key])
            record = self._follow(self.samples, table, record, key)
            table, key = "sample", "next"
            yield record

    def find_pose(self, recording: dict[str, Any]) -> np.ndarray:
        """From the frame of the sensor to the global frame at the time of a recording, `(4, 4)`."""
        pose = self._follow(self.poses, "sample_data", recording, "ego_pose_token")
        sensor = self.sensors[recording["calibrated_sensor_token"]]
        return build_pose(pose) @ build_pose(sensor)

    def compute_velocity(self, annotation: dict[str, Any]) -> np.ndarray:
        """Velocity of an annotated box in the global frame, in m/s: between its neighbors in time; NaN if unknown."""
        first, last = (
            self._follow(self.annotations, "sample_annotation", annotation, key if annotation[key] else "token")
            for key in ("prev", "next")
        )
        times = [self.samples[record["sample_token"]]["timestamp"] for record in (first, last)]
        elapsed = MICROSECONDS * (times[1] - times[0])
        intervals = bool(annotation["prev"]) + bool(annotation["next"])
        if not intervals or not 0 < elapsed <= intervals * MAX_TIME_DIFFERENCE:
            return np.full(3, np.nan)
        return (np.array(last["translation"]) - first["translation"]) / elapsed

    def build_row(self, sample: dict[str, Any], root: Path, num_sweeps: int) -> dict[str, Any]:
        """A key frame as a row of the family `object-detection-3d`."""
        keys = self.key_recordings[sample["token"]]
        if LIDAR not in keys:
            raise ValueError(
                f"sample {sample['token']!r} must have a key frame of {LIDAR} in {self.folder / 'sample_data.json'}; "
                f"it has {', '.join(keys) or 'none'}."
            )
        lidar = self.recordings[keys[LIDAR]]
        lidar2global = self.find_pose(lidar)
        names = [name for name in CAMERAS if name in keys]
        cameras = [self.recordings[keys[name]] for name in names]
        boxes = self._build_boxes(sample, lidar2global)
        return {
            "images": [str(root / camera["filename"]) for camera in cameras],
            "cameras": names,
            "intrinsics": [self.sensors[camera["calibrated_sensor_token"]]["camera_intrinsic"] for camera in cameras],
            "lidar2cam": [np.linalg.solve(self.find_pose(camera), lidar2global).tolist() for camera in cameras],
            "points": self._list_sweeps(lidar, lidar2global, root, num_sweeps),
            "lidar2ego": build_pose(self.sensors[lidar["calibrated_sensor_token"]]).tolist(),
            "ego2global": build_pose(self.poses[lidar["ego_pose_token"]]).tolist(),
            "token": sample["token"],
            **boxes,
        }

    def _list_sweeps(
        self, key: dict[str, Any], lidar2global: np.ndarray, root: Path, num_sweeps: int
    ) -> list[dict[str, Any]]:
        sweeps = []
        recording = key
        while True:
            sweeps.append(
                {
                    "file": str(root / recording["filename"]),
                    "columns": POINT_FILE_COLUMNS,
                    "sensor2key": np.linalg.solve(lidar2global, self.find_pose(recording)).tolist(),
                    "time_lag": MICROSECONDS * (key["timestamp"] - recording["timestamp"]),
                }
            )
            if not recording["prev"] or len(sweeps) > num_sweeps:
                return sweeps
            recording = self._follow(self.recordings, "sample_data", recording, "prev")

    def _build_boxes(self, sample: dict[str, Any], lidar2global: np.ndarray) -> dict[str, Any]:
        global2lidar = np.linalg.inv(lidar2global)
        boxes, labels, num_points, attributes, racks = [], [], [], [], []
        for record in self.boxes_of_sample[sample["token"]]:
            category = self._follow(self.categories, "sample_annotation", record, "instance_token")
            if category != BIKE_RACK and category not in DETECTION_CLASSES:
                continue
            width, length, height = record["size"]
            pose = global2lidar @ build_pose(record)
            velocity = global2lidar[:2, :2] @ self.compute_velocity(record)[:2]
            yaw = np.arctan2(pose[1, 0], pose[0, 0])
            box = [*pose[:3, 3], length, width, height, yaw, *velocity]
            if category == BIKE_RACK:
                racks.append(box)
                continue
            boxes.append(box)
            labels.append(DETECTION_CLASSES[category])
            num_points.append(record["num_lidar_pts"] + record["num_radar_pts"])
            attributes.append(self._find_attribute(record))
        return {
            "boxes": np.array(boxes, dtype=np.float32).reshape(-1, BOX_SIZE),
            "labels": labels,
            "num_points": num_points,
            "attributes": attributes,
            "bike_racks": np.array(racks, dtype=np.float32).reshape(-1, BOX_SIZE),
        }

    def _find_attribute(self, annotation: dict[str, Any]) -> str:
        tokens = annotation["attribute_tokens"]
        if not tokens:
            return ""
        first = {"token": annotation["token"], "attribute_tokens": tokens[0]}
        return self._follow(self.attributes, "sample_annotation", first, "attribute_tokens")


def read_json(path: Path) -> Any:
    """Content of a JSON file; the message about a damaged one names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON: {error}. Is it cut off?") from error


def build_pose(record: dict[str, Any]) -> np.ndarray:
    """Matrix `(4, 4)` of a record with a `rotation`, the quaternion (w, x, y, z), and a `translation`."""
    w, x, y, z = np.array(record["rotation"]) / np.linalg.norm(record["rotation"])
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = record["translation"]
    return pose


def find_tables(folder: Path) -> Path | None:
    """The folder of tables below the root of nuScenes, if there is one.

    Raises:
        ValueError: If there are several.
    """
    found = sorted(path.parent for path in folder.glob(f"{TABLE_FOLDERS}/sample.json"))
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {', '.join(path.name for path in found)}; which is meant? Name it in the `version` of "
            "`decahub.data.nuscenes.read_nuscenes`, or move the others."
        )
    return found[0] if found else None


def read_nuscenes(folder: Path, version: str | None = None, num_sweeps: int = NUM_SWEEPS) -> datasets.DatasetDict:
    """Frames of nuScenes by split, as rows that are kept in the cache of `datasets`.

    Args:
        folder (`Path`): Root of the data, which holds `v1.0-*`, `samples` and `sweeps`.
        version (`str`, *optional*): Folder of the tables; by default the only one.
        num_sweeps (`int`): Earlier sweeps that are merged into the points of each frame, as far as there are some.

    Raises:
        FileNotFoundError: If a table is missing.
        ValueError: If the version has no known split and there is no `splits.json`, its scenes are not known, or a
            table is damaged or names what the others do not have.
    """
    tables = find_tables(folder) if version is None else folder / version
    if tables is None:
        raise FileNotFoundError(f"{folder} must hold tables of nuScenes, such as v1.0-trainval/sample.json.")
    missing = [f"{name}.json" for name in TABLES if not (tables / f"{name}.json").is_file()]
    if missing:
        raise FileNotFoundError(f"the tables of nuScenes must be in {tables}; {', '.join(missing)} are missing.")
    stamp = [path.stat().st_mtime_ns for path in sorted(tables.glob("*.json"))]
    loaded = datasets.DatasetDict()
    for split, scenes in read_splits(tables).items():
        try:
            loaded[split] = datasets.Dataset.from_generator(
                _generate,
                features=build_features(points=SWEEPS),
                split=datasets.NamedSplit(split),
                gen_kwargs={"tables": str(tables), "scenes": scenes, "num_sweeps": num_sweeps, "stamp": [stamp]},
            )
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None  # which names the table
            raise
    _open_tables.cache_clear()
    return loaded


def read_splits(tables: Path) -> dict[str, tuple[str, ...]]:
    """Names of the scenes of each split."""
    names = [scene["name"] for scene in read_json(tables / "scene.json")]
    path = tables.parent / SPLITS_FILE
    if path.is_file():
        splits = read_json(path)
        unknown = [name for scenes in splits.values() for name in scenes if name not in names]
        if unknown:
            raise ValueError(
                f"{path} must name scenes of {tables.name}; got {unknown[0]!r}, and {len(unknown)} in all."
            )
        return {split: tuple(scenes) for split, scenes in splits.items()}
    if tables.name == "v1.0-test":
        return {"test": tuple(names)}
    runs = {"v1.0-trainval": VALIDATION_SCENES, "v1.0-mini": MINI_VALIDATION_SCENES}.get(tables.name)
    if runs is None:
        raise ValueError(
            f"{tables.name} has no official split. Write one to {path}: "
            '{"train": ["scene-0001", ...], "validation": [...]}.'
        )
    is_validation = [any(first <= int(name.split("-")[1]) <= last for first, last in runs) for name in names]
    parts = {
        split: tuple(name for name, is_in in zip(names, is_validation, strict=True) if is_in == held_out)
        for split, held_out in (("train", False), ("validation", True))
    }
    return {split: scenes for split, scenes in parts.items() if scenes}


@functools.lru_cache(maxsize=1)
def _open_tables(folder: str) -> NuScenesTables:
    """Kept from one split to the next: those of v1.0-trainval take a minute to read."""
    return NuScenesTables(Path(folder))


def _generate(tables: str, scenes: Sequence[str], num_sweeps: int, stamp: Any) -> Iterator[dict[str, Any]]:
    opened = _open_tables(tables)
    by_name = {scene["name"]: scene for scene in opened.scenes}
    for name in scenes:
        for sample in opened.iterate_samples(by_name[name]):
            yield opened.build_row(sample, Path(tables).parent, num_sweeps)


__all__ = ["DETECTION_CLASSES", "NuScenesTables", "build_pose", "find_tables", "read_nuscenes", "read_splits"]
