"""Exact ray casting of boxes on a plane: what a LiDAR measures of a scene, and what cameras see of it.

Both sensors cast their rays with the same function, so points, pixels and boxes fit together exactly. Each box is
tested only against the rays that can meet it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .box_geometry import compute_corners, project, rotate


NOTHING, GROUND = -2, -1
"""What a ray hits if it hits no box, instead of the index of a box."""
REAR, FRONT, TOP = 0, 1, 5
"""Faces of a box: twice the axis, plus one for the positive side."""
NEAR = 0.1  # of a box with a corner closer to the image plane than this, or behind it, no window is computed
SUN = np.array([0.45, 0.25, 0.86])  # direction towards it, of length 1
AMBIENT = 0.45  # share of the light that reaches a face turned away from the sun
PAINT = {FRONT: (0.5, (255, 255, 255)), REAR: (0.6, (110, 0, 0))}
"""How much of which color is mixed into front and rear, so that cameras can tell them apart."""
SKY_COLORS = ((120, 165, 215), (205, 220, 235))  # zenith, horizon
GROUND_COLOR = (104, 104, 100)
GROUND_REFLECTIVITY = 15.0


@dataclass
class Hits:
    """First hits of rays: distance `t` along the (not necessarily normalized) ray, what was hit, and which face."""

    distances: np.ndarray
    objects: np.ndarray
    faces: np.ndarray


def intersect_box(origin: np.ndarray, directions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter a box (slab method in the frame of the box).

    Args:
        origin (`numpy.ndarray` of shape `(3,)`): Start of all rays, outside of the box.
        directions (`numpy.ndarray` of shape `(..., 3)`): Their directions, of any length.
        box (`numpy.ndarray` of shape `(7 or more,)`): The box.

    Returns:
        `tuple[numpy.ndarray, numpy.ndarray]`: multiples of the directions at which rays enter, infinite for rays that
        miss, and the faces, twice the axis plus one for the positive side; both of shape `(...)`.
    """
    start = rotate(origin - box[:3], -box[6])
    local = rotate(directions, -box[6])
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-box[3:6] / 2 - start) / local, (box[3:6] / 2 - start) / local
    entries, exits = np.minimum(low, high), np.maximum(low, high).min(-1)
    axes = entries.argmax(-1)
    distances = np.take_along_axis(entries, axes[..., None], -1)[..., 0]
    from_above = np.take_along_axis(local, axes[..., None], -1)[..., 0] < 0
    return np.where((distances <= exits) & (distances > 0), distances, np.inf), 2 * axes + from_above


def cast_rays(
    origin: np.ndarray, directions: np.ndarray, boxes: np.ndarray, windows: Sequence[tuple], ground: float
) -> Hits:
    """First hits of rays with boxes and with the ground.

    Args:
        origin (`numpy.ndarray` of shape `(3,)`): Start of all rays.
        directions (`numpy.ndarray` of shape `(rows, columns, 3)`): Their directions.
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or more)`): Boxes.
        windows (`Sequence[tuple]`): For each box an index of rows and columns that holds all rays that may meet it.
        ground (`float`): z of the ground plane.
    """
    slopes = directions[..., 2]
    with np.errstate(divide="ignore"):
        distances = np.where(slopes < 0, (ground - origin[2]) / slopes, np.inf)
    objects = np.where(slopes < 0, GROUND, NOTHING)
    faces = np.full(slopes.shape, TOP)
    for index, (box, window) in enumerate(zip(boxes, windows, strict=True)):
        rays = directions[window]
        if not rays.size:
            continue
        entries, box_faces = intersect_box(origin, rays, box)
        closer = entries < distances[window]
        distances[window] = np.where(closer, entries, distances[window])
        objects[window] = np.where(closer, index, objects[window])
        faces[window] = np.where(closer, box_faces, faces[window])
    return Hits(distances, objects, faces)


def scan(boxes: np.ndarray, elevations: np.ndarray, azimuths: np.ndarray, ground: float) -> tuple[np.ndarray, Hits]:
    """Cast the rays of a rotating LiDAR at the origin.

    Args:
        boxes (`numpy.ndarray` of shape `(num_boxes, 9)`): Boxes in the LiDAR frame.
        elevations (`numpy.ndarray` of shape `(num_beams,)`): Angles of the beams above the horizon, in radians.
        azimuths (`numpy.ndarray` of shape `(num_azimuths,)`): Ascending, evenly spaced over a full turn.
        ground (`float`): z of the ground plane.

    Returns:
        `tuple[numpy.ndarray, Hits]`: directions of length 1, `(num_beams, num_azimuths, 3)`, and their hits.
    """
    level = np.cos(elevations)[:, None]
    directions = np.stack(
        np.broadcast_arrays(level * np.cos(azimuths), level * np.sin(azimuths), np.sin(elevations)[:, None]), axis=-1
    )
    step = 2 * np.pi / len(azimuths)
    windows = []
    for box, corners in zip(boxes, compute_corners(boxes)[:, :4], strict=True):
        # Corners as seen from the LiDAR: angles from that of the center, all within half a turn.
        middle = np.arctan2(box[1], box[0])
        seen = rotate(corners, -middle)
        angles = np.arctan2(seen[:, 1], seen[:, 0])
        first = np.floor((middle + angles.min() - azimuths[0]) / step)
        last = np.ceil((middle + angles.max() - azimuths[0]) / step)
        columns = np.arange(first, last + 1).astype(int) % len(azimuths)
        windows.append((slice(None), columns))
    return directions, cast_rays(np.zeros(3), directions, boxes, windows, ground)


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera: `intrinsics` (3, 3), `lidar2cam` (4, 4), and the size of its image in pixels.

    Pixel (row i, column j) shows what projects to u = j, v = i.
    """

    name: str
    intrinsics: np.ndarray
    lidar2cam: np.ndarray
    height: int
    width: int

    @property
    def lidar2img(self) -> np.ndarray:
        """Projection (4, 4) from the LiDAR frame to pixels."""
        projection = np.eye(4)
        projection[:3, :3] = self.intrinsics
        return projection @ self.lidar2cam

    def build_rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origin `(3,)` and directions `(height, width, 3)` of all pixels in the LiDAR frame, at depth 1."""
        rotation = self.lidar2cam[:3, :3]
        columns, rows = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        return -rotation.T @ self.lidar2cam[:3, 3], pixels @ np.linalg.inv(self.intrinsics).T @ rotation

    def find_windows(self, boxes: np.ndarray) -> list[tuple[slice, slice]]:
        """Rectangle of pixels around each box, empty if it is out of the image."""
        pixels, depths = project(compute_corners(boxes), self.lidar2img)
        windows = []
        for corners, depth in zip(pixels, depths, strict=True):
            if (depth < NEAR).all():
                windows.append((slice(0, 0), slice(0, 0)))
            elif (depth < NEAR).any():
                windows.append((slice(0, self.height), slice(0, self.width)))
            else:
                limits = [self.width, self.height]
                starts = np.clip(np.floor(corners.min(0)), 0, limits).astype(int)
                ends = np.clip(np.ceil(corners.max(0)) + 1, 0, limits).astype(int)
                windows.append((slice(starts[1], ends[1]), slice(starts[0], ends[0])))
        return windows


def render(camera: PinholeCamera, boxes: np.ndarray, colors: np.ndarray, ground: float) -> tuple[np.ndarray, Hits]:
    """Image of boxes on the ground under a clear sky, without noise.

    Args:
        camera ([`PinholeCamera`]): The camera.
        boxes (`numpy.ndarray` of shape `(num_boxes, 9)`): Boxes in the LiDAR frame.
        colors (`numpy.ndarray` of shape `(num_boxes, 3)`): Their colors, red, green and blue in [0, 255].
        ground (`float`): z of the ground plane.

    Returns:
        `tuple[numpy.ndarray, Hits]`: pixels of shape `(height, width, 3)` in [0, 255], and what each of them shows.
    """
    origin, directions = camera.build_rays()
    hits = cast_rays(origin, directions, boxes, camera.find_windows(boxes), ground)
    height = directions[..., 2] / np.linalg.norm(directions, axis=-1)
    share = np.clip(height, 0, 1)[..., None]
    pixels = share * SKY_COLORS[0] + (1 - share) * SKY_COLORS[1]
    pixels[hits.objects == GROUND] = GROUND_COLOR
    on_box = hits.objects >= 0
    palette = _shade(boxes, colors)
    pixels[on_box] = palette[hits.objects[on_box], hits.faces[on_box]]
    return pixels, hits


def _shade(boxes: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Color of each face of each box, `(num_boxes, 6, 3)`."""
    normals = np.concatenate([[-axis, axis] for axis in np.eye(3)])
    light = rotate(np.broadcast_to(normals, (len(boxes), 6, 3)), boxes[:, None, 6]) @ SUN
    paint = np.repeat(np.asarray(colors, dtype=np.float64)[:, None], 6, axis=1)
    for face, (share, color) in PAINT.items():
        paint[:, face] = (1 - share) * paint[:, face] + share * np.array(color)
    return paint * (AMBIENT + (1 - AMBIENT) * np.clip(light, 0, 1))[..., None]


__all__ = ["GROUND", "NOTHING", "Hits", "PinholeCamera", "cast_rays", "intersect_box", "render", "scan"]
