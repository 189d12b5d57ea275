"""The flow prior: what the landmarks alone say of how the photo moves, a piecewise affine warp.

Triangles between the landmarks, an outline of the head around them and the crop's border carry the photo along. Lids
and lips that meet hide what lies between them, which no smooth interpolation of points can say. The generator refines
it.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.alignment import TEMPLATE, similarity, transform
from realtime.landmarks import (
    CROP_SIZE,
    INNER_LIPS,
    LEFT_EYE,
    LEFT_PUPIL,
    MOUTH_CORNERS,
    OUTER_LIPS,
    RIGHT_EYE,
    RIGHT_PUPIL,
    Array,
    five_points,
)
from realtime.pose import MEAN_FACE

PRIOR_SIZE = 128  # cells along a side of the prior
# The mean head's outline in the crop, from the forehead clockwise, and how far each point follows the jaw.
OUTLINE = np.array(
    [[128, 61], [177, 69], [196, 100], [195, 142], [182, 186], [158, 210]]
    + [[128, 220], [98, 210], [75, 186], [62, 142], [61, 100], [79, 69]],
    np.float32,
)
JAW = np.array([0, 0, 0, 0, 0.3, 0.75, 0.9, 0.75, 0.3, 0, 0, 0], np.float32)
# Rings around the head: how far out, times the outline's distance from its middle, and how much they follow.
RINGS = ((1.12, 0.95), (1.35, 0.8), (1.8, 0.35))
BORDER_MARGIN = 64.0  # pixels beyond the crop at which nothing moves
_LOWER_LIP = np.r_[OUTER_LIPS[7:12], INNER_LIPS[5:8]]
_EYE_CORNERS = np.array([18, 22, 26, 30])


def _anchors(points: Array) -> Array:
    """Five points (5, 2) that expressions hardly move: eye corners and the middle between the mouth's."""
    return np.vstack([points[_EYE_CORNERS], points[MOUTH_CORNERS].mean(0)])


def _vertices(driving: Array, target: Array) -> tuple[Array, Array]:
    """Landmarks, rings and border, (N, 2), of the driven and of the target's own shape, in crop pixels."""
    own = transform(OUTLINE, similarity(TEMPLATE, five_points(target)))
    head = similarity(_anchors(target), _anchors(driving))
    drop = (driving[_LOWER_LIP] - transform(target[_LOWER_LIP], head)).mean(0)
    shift = transform(own, head) + JAW[:, None] * drop - own
    middle = own.mean(0)
    rings = [middle + reach * (own - middle) for reach, _ in RINGS]
    low, high = -BORDER_MARGIN, CROP_SIZE - 1 + BORDER_MARGIN
    rings = [np.clip(ring, low + 8, high - 8) for ring in rings]
    side = np.linspace(low, high, 5)
    border = np.array([(x, y) for x in side for y in side if x in (low, high) or y in (low, high)])
    moved = [ring + follow * shift for ring, (_, follow) in zip(rings, RINGS, strict=True)]
    here, there = np.vstack([driving, *moved, border]), np.vstack([target, *rings, border])
    return here.astype(np.float32), there.astype(np.float32)


@cache
def _triangles() -> NDArray[np.intp]:
    """(T, 3) vertex numbers in drawing order, those between lids or lips first: Delaunay on the mean face with its
    mouth open."""
    mean = MEAN_FACE[:, :2].astype(np.float32)
    mean[_LOWER_LIP, 1] += 8
    vertices, _ = _vertices(mean, mean)
    low = vertices.min() - 1
    division = cv2.Subdiv2D((int(low), int(low), 400, 400))
    number = {tuple(np.round(v, 2)): i for i, v in enumerate(vertices)}
    division.insert([tuple(map(float, v)) for v in vertices])
    corners = np.asarray(division.getTriangleList()).reshape(-1, 3, 2)
    found = [[number.get(tuple(np.round(c, 2)), -1) for c in triangle] for triangle in corners]
    triangles = np.array([t for t in found if min(t) >= 0])
    holes = (np.r_[LEFT_EYE, LEFT_PUPIL], np.r_[RIGHT_EYE, RIGHT_PUPIL], INNER_LIPS)
    inside = np.any([np.isin(triangles, hole).all(1) for hole in holes], 0)
    return np.concatenate([triangles[inside], triangles[~inside]])


def affine_maps(a: Array, b: Array) -> Array:
    """Affine maps (T, 3, 2), rows for x, y and 1, taking triangles a (T, 3, 2) to b; slivers get a bounded one."""
    (u, v), (p, q) = np.moveaxis(a[:, 1:] - a[:, :1], 1, 0), np.moveaxis(b[:, 1:] - b[:, :1], 1, 0)
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    area = np.where(np.abs(area) < 1e-2, np.where(area < 0, -1e-2, 1e-2), area)[:, None]
    along_x = (v[:, 1:] * p - u[:, 1:] * q) / area
    along_y = (u[:, :1] * q - v[:, :1] * p) / area
    return np.stack([along_x, along_y, b[:, 0] - a[:, 0, :1] * along_x - a[:, 0, 1:] * along_y], 1)


def flow_prior(driving: Array, target: Array, size: int = PRIOR_SIZE) -> Array:
    """Backward displacement (2, size, size) float32 in crop pixels, from driving to target points, (56, 2) each.

    One cell is CROP_SIZE / size crop pixels.
    """
    here, there = _vertices(driving, target)
    triangles = _triangles()
    scale = CROP_SIZE / size
    corners = here[triangles]
    pixels = np.round(((corners + 0.5) / scale - 0.5) * 16).astype(np.int32)
    index = np.zeros((size, size), np.int32)
    for number, triangle in enumerate(pixels):
        cv2.fillConvexPoly(index, triangle, (number,), cv2.LINE_8, 4)
    # the displacement is affine, too, and exactly zero where nothing moves
    shift = affine_maps(corners, (there - here)[triangles]).astype(np.float32)
    chosen = shift[index]  # (size, size, 3, 2)
    cells = (np.arange(size, dtype=np.float32) + 0.5) * scale - 0.5
    flow = chosen[..., 0, :] * cells[None, :, None] + chosen[..., 1, :] * cells[:, None, None] + chosen[..., 2, :]
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0))
