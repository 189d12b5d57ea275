"""The FaceMesh surface as triangles: random changes of pose and expression, and the dense flows between two shapes.

A flow between two shapes of one picture is piecewise affine on the triangles, so that it is exactly invertible where
nothing is hidden: it re-animates stills and supervises the generator's flow.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy.spatial import Delaunay

from realtime.head import MARGIN, OVAL, ring_points, ring_shift, silhouette
from realtime.landmarks import CROP_SIZE, FACEMESH, five_points, pupil_distance
from realtime.prior import affine_maps

# FaceMesh vertices: what the face's outline goes around; lids and inner lips, upper above lower.
INSIDE_OVAL = np.setdiff1d(np.arange(478), OVAL)
UPPER_LIDS = np.array([[246, 161, 160, 159, 158, 157, 173], [398, 384, 385, 386, 387, 388, 466]])
LOWER_LIDS = np.array([[7, 163, 144, 145, 153, 154, 155], [382, 381, 380, 374, 373, 390, 249]])
# Two rows of skin above each upper lid, nearer first.
ABOVE_LIDS = np.array(
    [
        [[247, 30, 29, 27, 28, 56, 190], [113, 225, 224, 223, 222, 221, 189]],
        [[414, 286, 258, 257, 259, 260, 467], [413, 441, 442, 443, 444, 445, 342]],
    ]
)
IRISES = np.array([[468, 469, 470, 471, 472], [473, 474, 475, 476, 477]])
EYE_CORNERS = np.array([[33, 133], [362, 263]])
UPPER_INNER_LIP = np.array([191, 80, 81, 82, 13, 312, 311, 310, 415])
LOWER_INNER_LIP = np.array([95, 88, 178, 87, 14, 317, 402, 318, 324])
STABLE = np.array([33, 133, 362, 263, 168, 6, 197, 195, 127, 356, 10])  # moved by the head, hardly by expressions


@dataclass
class Surface:
    """The triangles of the mean face with its rings and a border `margin` crop pixels around the crop. `mean` is
    (478, 3) in crop pixels; rings are realtime.head's."""

    mean: np.ndarray
    rings: bool = True
    margin: float = MARGIN

    @cached_property
    def triangles(self) -> np.ndarray:
        """(T, 3) vertex numbers, Delaunay on the mean face with eyes and mouth open, so that both have an inside."""
        opened = self.mean.copy()
        opened[LOWER_INNER_LIP, 1] += 6 * np.sin(np.linspace(0.3, np.pi - 0.3, len(LOWER_INNER_LIP)))
        vertices = self.extend(opened, opened)[:, :2]
        used = np.setdiff1d(np.arange(len(vertices)), IRISES[:, 1:])  # the irises' rims reach under the lids
        return used[Delaunay(vertices[used]).simplices]

    @cached_property
    def on_face(self) -> np.ndarray:
        """(T,) whether a triangle lies on the face itself, where the mesh is measured and not extrapolated, but for
        outlines that `extend` pushed."""
        return (self.triangles < 478).all(1)

    @cached_property
    def inside(self) -> np.ndarray:
        """(T,) whether a triangle lies between lids or lips, which hide it when they meet."""
        holes = [
            np.r_[IRISES.ravel(), EYE_CORNERS.ravel(), UPPER_LIDS.ravel(), LOWER_LIDS.ravel()],
            np.r_[UPPER_INNER_LIP, LOWER_INNER_LIP, 78, 308],
        ]
        return np.any([np.isin(self.triangles, hole).all(1) for hole in holes], 0)

    def extend(self, mesh: np.ndarray, rest: np.ndarray, apart: np.ndarray | None = None) -> np.ndarray:
        """A mesh (478, 3) with rings and border: the rings follow the outline's way from `rest`, the less the more they
        are `apart` (R, 36) from the person (realtime.head.Head); the border stays.

        With rings, the outline is what is seen as such: a side that turns away does not draw in what is beside it.
        """
        mesh = mesh.copy()
        around = []
        if self.rings:
            still = rest[OVAL, :2]
            mesh[OVAL, :2] = silhouette(still, rest[INSIDE_OVAL, :2], mesh[OVAL, :2], mesh[INSIDE_OVAL, :2])
            rings = ring_points(still)
            away = np.zeros(rings.shape[:2], np.float32) if apart is None else apart
            rings = rings + ring_shift(mesh[OVAL, :2] - still, rings, away)
            behind = rest[OVAL, 2] + 15 * np.arange(1, len(rings) + 1)[:, None]
            around = list(np.dstack([rings, behind]))
        steps = np.linspace(-self.margin, CROP_SIZE + self.margin, 7)
        low, high = np.full(7, steps[0]), np.full(7, steps[-1])
        edge = np.concatenate(
            [
                np.stack(side, 1)
                for side in ((steps, low), (steps, high), (low[1:-1], steps[1:-1]), (high[1:-1], steps[1:-1]))
            ]
        )
        border = np.column_stack([edge, np.full(len(edge), 120.0)])
        return np.concatenate([mesh, *around, border]).astype(np.float32)

    def flow(self, here: np.ndarray, there: np.ndarray, size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """For every cell of a size x size picture drawn over `here`: where its surface point lies in `there`.

        `here` and `there` are extended meshes (N, 3) in crop pixels; one cell is `scale` crop pixels. Nearer triangles
        hide farther ones. Returns positions (size, size, 2) in crop pixels and the mask (size, size) of the face.
        """
        corners = here[self.triangles]  # (T, 3, 3)
        order = np.argsort(-corners[:, :, 2].mean(1) - 1000 * self.inside)
        # pixel centres: crop coordinate c is cell (c + 0.5) / scale - 0.5
        pixels = np.round(((corners[:, :, :2] + 0.5) / scale - 0.5) * 16).astype(np.int32)
        index = np.full((size, size), -1, np.int32)
        for triangle in order:
            cv2.fillConvexPoly(index, pixels[triangle], (int(triangle),), cv2.LINE_8, 4)
        affine = affine_maps(corners[:, :, :2], there[self.triangles][:, :, :2])
        cells = (np.arange(size, dtype=np.float32) + 0.5) * scale - 0.5
        x, y = np.meshgrid(cells, cells)
        chosen = affine[index].astype(np.float32)  # (size, size, 3, 2)
        place = x[..., None] * chosen[..., 0, :] + y[..., None] * chosen[..., 1, :] + chosen[..., 2, :]
        place[index < 0] = np.stack([x, y], -1)[index < 0]
        return place, self.on_face[index] & (index >= 0)


def rigid_fit(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation times scale (3, 3) and shift (3,) taking a (N, 3) to b in the least-squares sense (Umeyama 1991)."""
    am, bm = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((b - bm).T @ (a - am))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / np.square(a - am).sum()
    return scale * rotation, bm - scale * rotation @ am


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3) of a head by yaw, pitch and roll in radians."""
    cy, sy, cp, sp, cr, sr = (f(v) for v in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def move_head(mesh: np.ndarray, rng: np.random.Generator, wide: bool) -> None:
    """Turn, shift and resize the head at random, a little or widely."""
    yaw, pitch, roll = rng.normal(0, 1, 3) * np.radians([14, 8, 7] if wide else [3, 3, 2])
    pivot = mesh[STABLE].mean(0) + [0, 30, 70]  # the neck's joint, behind and below the eyes
    rotation = turn(float(np.clip(yaw, -0.5, 0.5)), float(np.clip(pitch, -0.35, 0.35)), float(roll))
    rotation *= np.exp(rng.normal(0, 0.05 if wide else 0.01))
    mesh[:] = (mesh - pivot) @ rotation.T + pivot
    mesh[:, :2] += rng.normal(0, 7 if wide else 1.5, 2)


def move_lids(mesh: np.ndarray, rng: np.random.Generator) -> None:
    """Open or close the eyes at random."""
    close_lids(mesh, float(rng.choice([rng.uniform(0, 0.3), rng.uniform(0.3, 1.4)])))


def close_lids(mesh: np.ndarray, factor: float) -> None:
    """The lids' gap times a factor, the upper lid doing most of the way and drawing the skin above with it."""
    for upper, lower, rows in zip(UPPER_LIDS, LOWER_LIDS, ABOVE_LIDS, strict=True):
        meet = 0.25 * mesh[upper] + 0.75 * mesh[lower]
        way = (1 - factor) * (meet - mesh[upper])
        mesh[upper] += way
        mesh[lower] = meet + factor * (mesh[lower] - meet)
        for row, follow in zip(rows, (0.7, 0.3), strict=True):
            mesh[row] += follow * way


def move_gaze(mesh: np.ndarray, rng: np.random.Generator) -> None:
    """Move both irises alike, by up to a fifth of the eye's width."""
    shift = rng.normal(0, 1, 2) * [0.09, 0.03]
    for iris, (left, right) in zip(IRISES, EYE_CORNERS, strict=True):
        mesh[iris, :2] += shift * np.linalg.norm(mesh[right, :2] - mesh[left, :2])


def move_jaw(mesh: np.ndarray, rng: np.random.Generator) -> None:
    """Shut an open mouth at random, or open a shut one."""
    gap = mesh[14, 1] - mesh[13, 1]
    unit = pupil_distance(mesh[FACEMESH, :2])
    if gap > 0.06 * unit:  # lips that close overlap a little, or they would show what they hide
        goal = rng.choice([-0.02 * unit, -0.02 * unit, gap * rng.uniform(0, 1)])
    else:
        goal = gap + unit * abs(rng.normal(0, 0.12))
    part_lips(mesh, float(goal))


def gape(mesh: np.ndarray, rng: np.random.Generator) -> None:
    """Open the mouth up to wide at random, and draw its corners together."""
    unit, share = pupil_distance(mesh[FACEMESH, :2]), rng.uniform(0.15, 1)
    part_lips(mesh, float(0.55 * share * unit), roundness=4)
    middle = (mesh[78] + mesh[308]) / 2
    near = np.exp(-np.square((mesh[:, :2] - middle[:2]) / (0.7 * unit)).sum(1))
    mesh[:, 0] -= rng.uniform(0, 0.6) * share * near * (mesh[:, 0] - middle[0])


def part_lips(mesh: np.ndarray, goal: float, roundness: float = 2) -> None:
    """Make the gap between the lips `goal`: everything below the mouth follows the lower lip, less and less upwards."""
    gap, unit = mesh[14, 1] - mesh[13, 1], pupil_distance(mesh[FACEMESH, :2])
    line = (mesh[13, 1] + mesh[14, 1]) / 2
    middle = (mesh[78, 0] + mesh[308, 0]) / 2
    half = abs(mesh[308, 0] - mesh[78, 0]) / 2 + 1e-3
    across = np.clip(1 - np.square((mesh[:, 0] - middle) / (2.2 * half)), 0, 1)
    upper_lip = np.zeros(len(mesh), bool)
    upper_lip[[0, 11, 12, 13, 37, 72, 38, 82, 267, 302, 268, 312, 39, 73, 41, 81, 269, 303, 271, 311]] = True
    upper_lip[[40, 74, 42, 80, 270, 304, 272, 310, 185, 184, 183, 191, 409, 408, 407, 415]] = True
    corner = np.clip(np.abs(mesh[:, 0] - middle) / half, 0, 1) ** roundness
    below = (mesh[:, 1] >= line - 0.02 * unit) & ~upper_lip
    inside = np.isin(np.arange(len(mesh)), LOWER_INNER_LIP) | below
    mouth = np.where(np.abs(mesh[:, 1] - line) < 0.35 * unit, 1 - corner * 0.95, across)
    mesh[:, 1] += np.where(inside, np.clip(mouth, 0, 1), 0) * (goal - gap)


def five_points_of(mesh: np.ndarray) -> np.ndarray:
    """Alignment points (5, 2) of a FaceMesh (478, 2 or 3)."""
    return five_points(mesh[FACEMESH, :2])
