"""The prior: what the landmarks alone say of how the photo moves, a piecewise affine warp, and of what it cannot show.

Triangles between the landmarks, points of the head that no landmark marks and a border beyond the crop carry the photo
along. Lids and lips that meet hide what lies between them, and the near side of a head that turns hides the far one,
which no smooth interpolation of points can say. The generator refines it.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.head import MARGIN, Head, make_head
from realtime.landmarks import (
    CROP_SIZE,
    INNER_LIPS,
    LEFT_EYE,
    LEFT_PUPIL,
    OUTER_LIPS,
    RIGHT_EYE,
    RIGHT_PUPIL,
    Array,
)
from realtime.pose import MEAN_FACE

PRIOR_SIZE = 128  # cells along a side of the prior
OPEN = 6.0  # crop pixels between the lips, more than the photo's, from which on nothing of the photo is between them
# Triangles below this share of their area in the photo fold under their neighbours, or are turned away: a head that
# turns, lids that meet.
HIDDEN = 0.2
WIDE_SIZE = PRIOR_SIZE + 2 * MARGIN * PRIOR_SIZE // CROP_SIZE  # cells along a side of the prior with the margin
_INSIDE = slice((WIDE_SIZE - PRIOR_SIZE) // 2, (WIDE_SIZE + PRIOR_SIZE) // 2)
CROP_CELLS = (slice(None), _INSIDE, _INSIDE)  # the crop's part of a wide prior
_NOSE_TIP = np.array([127.5, 150.0])  # of a face in its crop
_LOWER_LIP = np.r_[OUTER_LIPS[7:12], INNER_LIPS[5:8]]
_SIDE = np.linspace(-MARGIN, CROP_SIZE - 1 + MARGIN, 5)
_BORDER = np.array([(x, y) for x in _SIDE for y in _SIDE if {x, y} & {_SIDE[0], _SIDE[-1]}])


@cache
def _triangles() -> NDArray[np.intp]:
    """(T, 3) vertex numbers in drawing order: Delaunay on the mean face with its mouth open. Those between lids or lips
    come first, then what is farther back: the farther from the middle of the face."""
    mean = MEAN_FACE[:, :2].astype(np.float32)
    mean[_LOWER_LIP, 1] += 8
    vertices = np.vstack([make_head(mean).vertices, _BORDER]).astype(np.float32)
    low = vertices.min() - 1
    division = cv2.Subdiv2D((int(low), int(low), 400, 400))
    number = {tuple(np.round(v, 2)): i for i, v in enumerate(vertices)}
    division.insert([tuple(map(float, v)) for v in vertices])
    corners = np.asarray(division.getTriangleList()).reshape(-1, 3, 2)
    found = [[number.get(tuple(np.round(c, 2)), -1) for c in triangle] for triangle in corners]
    triangles = np.array([t for t in found if min(t) >= 0])
    holes = (np.r_[LEFT_EYE, LEFT_PUPIL], np.r_[RIGHT_EYE, RIGHT_PUPIL], INNER_LIPS)
    inside = np.any([np.isin(triangles, hole).all(1) for hole in holes], 0)
    from_middle = np.linalg.norm(vertices[triangles].mean(1) - _NOSE_TIP, axis=1)
    ordered: NDArray[np.intp] = triangles[np.lexsort([-from_middle, ~inside])]
    return ordered


def _areas(triangles: Array) -> Array:
    """Twice the areas (T,) of triangles (T, 3, 2), negative for those that run counter-clockwise."""
    (ux, uy), (vx, vy) = (triangles[:, 1] - triangles[:, 0]).T, (triangles[:, 2] - triangles[:, 0]).T
    areas: Array = ux * vy - uy * vx
    return areas


def affine_maps(a: Array, b: Array) -> Array:
    """Affine maps (T, 3, 2), rows for x, y and 1, taking triangles a (T, 3, 2) to b; slivers get a bounded one."""
    (u, v), (p, q) = np.moveaxis(a[:, 1:] - a[:, :1], 1, 0), np.moveaxis(b[:, 1:] - b[:, :1], 1, 0)
    area = _areas(a)
    area = np.where(np.abs(area) < 1e-2, np.where(area < 0, -1e-2, 1e-2), area)[:, None]
    along_x = (v[:, 1:] * p - u[:, 1:] * q) / area
    along_y = (u[:, :1] * q - v[:, :1] * p) / area
    return np.stack([along_x, along_y, b[:, 0] - a[:, 0, :1] * along_x - a[:, 0, 1:] * along_y], 1)


def flow_prior(driving: Array, head: Head, size: int = PRIOR_SIZE, margin: int = 0) -> Array:
    """Backward displacement (2, S, S) float32 in crop pixels, from driving points (56, 2) to the photo's head.

    `size` cells span the crop; `margin` crop pixels more on every side are covered with cells of the same size.
    """
    here, there = (np.vstack([v, _BORDER]).astype(np.float32) for v in (head.moved(driving), head.vertices))
    triangles = _triangles()
    corners, own = here[triangles], there[triangles]
    area = _areas(own)
    shown = _areas(corners) / np.maximum(area, 1.0) * (area > 0)  # of what is folded in the photo itself, nothing
    order = np.argsort(np.minimum(shown, HIDDEN), kind="stable")
    corners, own = corners[order], own[order]
    cell = CROP_SIZE / size
    pixels = np.round(((corners + margin + 0.5) / cell - 0.5) * 16).astype(np.int32)
    cells = size + 2 * round(margin / cell)
    index = np.zeros((cells, cells), np.int32)
    for number, triangle in enumerate(pixels):
        cv2.fillConvexPoly(index, triangle, (number,), cv2.LINE_8, 4)
    # the displacement is affine, too, and exactly zero where nothing moves
    shift = affine_maps(corners, own - corners).astype(np.float32).transpose(1, 2, 0).copy()
    at = (np.arange(cells, dtype=np.float32) + 0.5) * cell - 0.5 - margin
    index = index.astype(np.intp)  # once, and not for each of the six gatherings
    along_x, along_y, constant = gathered = np.empty((3, cells, cells), np.float32)
    flow = np.empty((2, cells, cells), np.float32)
    for axis, plane in enumerate(flow):
        for row, coefficient in enumerate(gathered):  # "clip": the way without a check, a fifth of the time
            np.take(shift[row, axis], index, out=coefficient, mode="clip")
        np.add(along_x * at, along_y * at[:, None] + constant, out=plane)
    return flow


def mouth_interior(points: Array, size: int = PRIOR_SIZE) -> Array:
    """The share of each cell that is between the lips of points (56, 2) in crop pixels: (S, S) float32 in [0, 1]."""
    inside = np.zeros((2 * size, 2 * size), np.uint8)
    outline = np.round(((points[INNER_LIPS] + 0.5) * (2 * size / CROP_SIZE) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(inside, [outline], (255,), cv2.LINE_AA, 4)
    share: Array = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return share


def uncovered(driving: Array, target: Array, size: int = PRIOR_SIZE) -> Array:
    """What the driving lips uncover and the target's hide, of points (56, 2) each: (S, S) float32 in [0, 1]."""
    gap, own = (float(np.linalg.norm(points[52] - points[48])) for points in (driving, target))
    opening = np.float32(np.clip((gap - own) / OPEN, 0, 1))
    return mouth_interior(driving, size) * opening


def driving_prior(driving: Array, head: Head, size: int = PRIOR_SIZE) -> Array:
    """What the generator is told beside the landmarks: `flow_prior` and `uncovered`, (3, S, S) float32."""
    return np.concatenate([flow_prior(driving, head, size), uncovered(driving, head.points, size)[None]])
