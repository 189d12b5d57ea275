"""A photo's head: the points of it that no landmark marks, what is around it, and how all of that moves.

MediaPipe sees a photo's outline and person once; from frame to frame there are 56 landmarks, from which the rest is
told by maps that were fitted beforehand (trainer/head.py).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.alignment import inverse, scale_of, similarity, transform
from realtime.faces import MeshFinder, PersonFinder, quiet
from realtime.landmarks import CROP_SIZE, FACEMESH, Array, five_points, pupil_distance

# FaceMesh vertices. The face's outline, clockwise from the forehead, in every picture that is upright.
OVAL = np.array(
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
    + [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)
OUTLINE_COUNT = len(OVAL)
# Nose, cheeks, forehead and chin, on which no landmark lies, and which a turn moves by their own depth: the middle
# line, then both sides.
MIDLINE = np.array([151, 6, 195, 1, 2, 200])
SIDES = np.array(
    [[129, 358], [50, 280], [205, 425], [187, 411], [117, 346], [69, 299], [210, 430], [139, 368], [71, 301]]
)
HEAD = np.r_[OVAL, MIDLINE, SIDES.T.ravel()]

MARGIN = 64  # crop pixels beyond the crop at which nothing moves
RIM = 3.0  # crop pixels by which an outline is outside of what it goes around, brows that reach the temples
# The least share of its distance from the head's other points that an outline keeps where the head turns away.
AROUND = 0.5
# Rings around the head: how far out, times the outline's distance from its middle, and how much they follow it below
# the chin, where neck and shoulders are. Hair and ears follow it fully.
RINGS = ((1.12, 0.7), (1.3, 0.5), (1.55, 0.4), (1.9, 0.3), (2.4, 0.2))
# What is beside the person follows the less the farther it is, and not at all from so many crop pixels on, and so many
# times the way of the head: what is between is neither torn nor folded.
NEAR, STRETCH = 8.0, 1.5
CELL = 4  # pixels a cell of a mask of the person
SAME_FACE = 0.2  # pupil distances: a mesh farther from the landmarks than that is of another face
_MIDDLE = (CROP_SIZE - 1) / 2

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Head:
    """What a photo's landmarks move, in crop pixels.

    points: (56, 2) the landmarks; own: (H, 2) the points of HEAD; apart: (R, OUTLINE_COUNT) how far each point of the
    RINGS is from the person that the photo shows, 0 where that is not known.
    """

    points: Array
    own: Array
    apart: Array

    @cached_property
    def rings(self) -> Array:
        """The rings' points (R, OUTLINE_COUNT, 2)."""
        return ring_points(self.own[:OUTLINE_COUNT])

    @cached_property
    def vertices(self) -> Array:
        """Landmarks, points of HEAD and of the rings, (N, 2), at rest."""
        return np.vstack([self.points, self.own, *self.rings])

    @cached_property
    def _upright(self) -> tuple[Array, Array]:
        """The matrices (2, 2) that turn and scale a displacement into the face's own upright frame, and back."""
        matrix = similarity(five_points(self.points))
        return matrix[:, :2], inverse(matrix)[:, :2]

    def moved(self, driving: Array) -> Array:
        """`vertices` (N, 2) when the landmarks are at `driving` (56, 2)."""
        upright, back = self._upright
        _, of_change = _maps()
        change = (driving - self.points) @ upright.T
        head = self.own + (change.ravel() @ of_change).reshape(-1, 2) @ back.T
        outline, inner = self.own[:OUTLINE_COUNT], np.vstack([self.points, self.own[OUTLINE_COUNT:]])
        moved_inner = np.vstack([driving, head[OUTLINE_COUNT:]])
        head[:OUTLINE_COUNT] = silhouette(outline, inner, head[:OUTLINE_COUNT], moved_inner)
        rings = self.rings + ring_shift(head[:OUTLINE_COUNT] - outline, self.rings, self.apart)
        return np.vstack([driving, head, *rings])


@cache
def _maps() -> tuple[Array, Array]:
    """Linear maps from 56 points to those of HEAD, and from their displacement to theirs (trainer/head.py)."""
    with np.load(Path(__file__).with_name("head.npz")) as maps:
        return maps["own"], maps["shift"]


@cache
def head_mirror() -> NDArray[np.intp]:
    """The point of HEAD that each one becomes when the picture is flipped left to right: (H,)."""
    outline, middle, side = OUTLINE_COUNT, len(MIDLINE), len(SIDES)
    first = outline + middle
    of_sides = np.r_[first + side : first + 2 * side, first : first + side]
    swap: NDArray[np.intp] = np.r_[-np.arange(outline) % outline, outline:first, of_sides]
    return swap


def make_head(
    points: Array, mesh: Array | None = None, person: Mask | None = None, to_cells: Array | None = None
) -> Head:
    """The head of a photo with landmarks (56, 2) in crop pixels.

    mesh: FaceMesh's points (478, 2) in such pixels, else the points of HEAD are regressed from the landmarks, in the
    face's own upright frame; person: the cells (R, C) in which the picture shows the person, to which `to_cells`
    (2, 3) takes crop pixels; without, or if they leave out the face, everything beside it follows it.
    """
    points = points.astype(np.float32)
    if mesh is None:
        upright = similarity(five_points(points))
        seen = np.append(transform(points, upright) - _MIDDLE, np.float32(1)) @ _maps()[0]
        own = transform(seen.reshape(-1, 2) + np.float32(_MIDDLE), inverse(upright))
    else:
        own = mesh[HEAD].astype(np.float32)
    own[:OUTLINE_COUNT] = _enclosing(own[:OUTLINE_COUNT], np.vstack([points, own[OUTLINE_COUNT:]]))
    apart = np.zeros((len(RINGS), OUTLINE_COUNT), np.float32)
    if person is not None and to_cells is not None and _is_in(person, transform(points, to_cells)):
        apart = distance_from(person, to_cells, ring_points(own[:OUTLINE_COUNT]))
    return Head(points, own, apart)


class HeadFinder:
    """MediaPipe's view of a photo's head: FaceMesh's points, and where there is a person. One thread owns it."""

    def __init__(self) -> None:
        self._mesh, self._person = MeshFinder(video=False), PersonFinder()
        self._greeted = False

    def find(self, picture: NDArray[np.uint8], points: Array) -> Head:
        """The head in a crop with the same margin on every side, uint8 (S, S, 3), S at least 256, with landmarks
        (56, 2) in crop pixels; of a face that MediaPipe does not make out, a drawn one, what the landmarks tell."""
        margin = (len(picture) - CROP_SIZE) / 2
        with nullcontext() if self._greeted else quiet():
            found, person = self._mesh(picture), person_cells(self._person(picture))
        self._greeted = True
        mesh = None if found is None else found[:, :2] - np.float32(margin)
        if mesh is not None and _apart(mesh[FACEMESH], points) > SAME_FACE:
            mesh = None
        return make_head(points, mesh, person, cells_of(margin))

    def close(self) -> None:
        self._mesh.close()
        self._person.close()


def _apart(points: Array, others: Array) -> float:
    """The mean distance of points (56, 2) from others, in the others' pupil distances."""
    return float(np.linalg.norm(points - others, axis=1).mean() / pupil_distance(others))


def person_cells(share: Array) -> Mask:
    """The cells (S / CELL, S / CELL) of a square picture that show a person, by each pixel's share of it (S, S)."""
    cells = len(share) // CELL
    shown: Mask = cv2.resize(share, (cells, cells), interpolation=cv2.INTER_AREA) > 0.5
    return shown


def _is_in(person: Mask, cells: Array) -> bool:
    """Whether points (N, 2) in cells of a mask are on the person, but for a few."""
    column, row = np.clip(np.round(cells), 0, len(person) - 1).astype(int).T
    return bool(person[row, column].mean() > 0.9)


def cells_of(margin: float) -> Array:
    """The (2, 3) matrix that takes crop pixels to cells of a picture with a margin around the crop."""
    return np.array([[1, 0, margin + 0.5 - CELL / 2], [0, 1, margin + 0.5 - CELL / 2]], np.float32) / CELL


def distance_from(person: Mask, to_cells: Array, places: Array) -> Array:
    """How far places (..., 2) in crop pixels are from the person, in such pixels: (...) float32."""
    away = cv2.distanceTransform((~person).astype(np.uint8), cv2.DIST_L2, 3)
    at = transform(places.reshape(-1, 2), to_cells).astype(np.float32)
    found = cv2.remap(away, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    distance: Array = found.reshape(places.shape[:-1]) / np.float32(scale_of(to_cells))
    return distance


def ring_points(outline: Array) -> Array:
    """The points (R, N, 2) of the rings around an outline (N, 2), in crop pixels."""
    middle = outline.mean(0)
    reach = np.array([reach for reach, _ in RINGS], np.float32)[:, None, None]
    low, high = -MARGIN + 8, CROP_SIZE - 1 + MARGIN - 8
    places: Array = np.clip(middle + reach * (outline - middle), low, high)
    return places


@cache
def _ring_follow(count: int) -> Array:
    """How much each of the rings' points, clockwise from the forehead, follows the outline: (R, count) float32."""
    low = np.clip(-np.cos(np.linspace(0, 2 * np.pi, count, endpoint=False)), 0, 1)
    return np.array([1 - low * (1 - below) for _, below in RINGS], np.float32)


def ring_shift(shift: Array, rings: Array, apart: Array) -> Array:
    """How the rings' points (R, N, 2) move when the outline does by `shift` (N, 2) and they are `apart` (R, N) from the
    person; all in crop pixels. Beyond the crop they follow the less the nearer they are to where nothing moves."""
    room = np.minimum(rings + MARGIN, CROP_SIZE - 1 + MARGIN - rings).min(-1) / MARGIN
    near = 1 - apart / (NEAR + STRETCH * np.linalg.norm(shift, axis=1))
    moved: Array = (_ring_follow(len(shift)) * np.clip(room, 0, 1) * np.maximum(near, 0))[..., None] * shift
    return moved


def _normals(outline: Array) -> Array:
    """Unit normals (N, 2), outwards, of an outline (N, 2) that runs clockwise in the picture."""
    tangent = np.roll(outline, -1, 0) - np.roll(outline, 1, 0)
    normal = np.column_stack([tangent[:, 1], -tangent[:, 0]])
    unit: Array = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return unit


def _enclosing(outline: Array, inner: Array) -> Array:
    """An outline (N, 2) pushed outwards to where it goes around points (M, 2), by RIM."""
    normal = _normals(outline)
    short = (inner @ normal.T).max(0) + RIM - (outline * normal).sum(1)
    pushed: Array = outline + np.maximum(short, 0)[:, None] * normal
    return pushed.astype(np.float32)


def silhouette(outline: Array, inner: Array, moved: Array, moved_inner: Array) -> Array:
    """What is seen as a head's outline when the head has moved: `moved`, pushed outwards to where it still goes around
    the head's other points, (N, 2) in crop pixels.

    outline: (N, 2), clockwise in the picture, which has moved to `moved`; inner: the other points (M, 2), which have
    moved to `moved_inner`. An outline's points are points of the skin: those of a side that turns away go behind the
    face, and would draw in what is seen beside it.
    """
    way = similarity(inner, moved_inner)
    scale = scale_of(way)
    normal = _normals(outline)
    turned = normal @ way[:, :2].T / scale
    around = (outline * normal).sum(1) - (inner @ normal.T).max(0)
    kept = np.minimum(around, AROUND * around)  # where a head is not convex, the outline is not around it all
    short = (moved_inner @ turned.T).max(0) + scale * kept - (moved * turned).sum(1)
    pushed: Array = moved + np.maximum(short, 0)[:, None] * turned
    return pushed
