"""Pairs for the generator: a target photo, and the truth that it shall become, with landmarks and flow.

Three kinds: two frames of one clip; two pictures of one person; and one still re-animated, whose warped copy is the
photo and whose untouched self is the truth, so that losses see real pictures as truth, but for lids and turned heads.
"""

from dataclasses import replace

import cv2
import numpy as np

from realtime.alignment import inverse, similarity, transform
from realtime.errors import InputError
from realtime.head import OUTLINE_COUNT, Head, cells_of, head_mirror, make_head
from realtime.landmarks import (
    CROP_SIZE,
    FACEMESH,
    LIPS,
    MIRROR,
    five_points,
    pupil_distance,
)
from realtime.prior import mouth_interior
from trainer.augment import colour
from trainer.data import Pictures
from trainer.generator import FLOW_STRIDE
from trainer.mesh import (
    STABLE,
    Surface,
    close_lids,
    five_points_of,
    gape,
    move_gaze,
    move_head,
    move_jaw,
    move_lids,
    rigid_fit,
)
from trainer.metrics import eye_opening

BLINKS, TURNS = 0.25, 0.2  # of the re-animated stills
FACING = 1.25  # how much farther one eye may be from the nose's bridge in a still that is turned away
UNCERTAIN = 0.2  # crop pixels by which landmarks are off
OPEN = 0.08  # pupil distances between the lips of an open mouth
INNER_MOUTH = np.array([[28, 10, 10], [28, 10, 10], [150, 75, 80], [205, 195, 180]])  # dark twice, tongue, teeth


class Pairs:
    """Random training pairs of one split, and every frame of its clips for evaluation."""

    def __init__(
        self,
        pictures: Pictures,
        size: int,
        validation: bool = False,
        skip: dict[str, range] | None = None,
        mouths: float = 0.0,
    ) -> None:
        self.mouths = mouths  # share of pairs in which a shut mouth opens
        self.pictures, self.size = pictures, size
        split = pictures.validation == validation
        frontal = np.array([_near_frontal(m) for m in pictures.mesh])
        self.stills = np.flatnonzero(split & (pictures.clips == "") & frontal)
        if not validation and not len(self.stills):
            raise InputError("the data has no still of a face that looks at the camera, of anybody who is not held out")
        names = sorted(set(pictures.clips[split]) - {""})
        self.clips = [_frames(pictures, name, (skip or {}).get(name, range(0))) for name in names]
        people: dict[str, list[int]] = {}
        for index in self.stills:
            people.setdefault(pictures.persons[index], []).append(int(index))
        gap = np.linalg.norm(pictures.points[:, 52] - pictures.points[:, 48], axis=1)
        self._gap = gap / pupil_distance(pictures.points)  # between the lips
        self._lids = eye_opening(pictures.points)
        chance = np.where(self._gap[self.stills] > OPEN, 4.0, 1.0)  # open mouths are rare, and the hardest
        self._chance = chance / chance.sum()
        self.people = [indices for indices in people.values() if len(indices) > 1]
        trained = np.flatnonzero(~pictures.validation & (pictures.clips == "") & frontal)
        self.surface = Surface(np.mean([_aligned(pictures.mesh[i]) for i in trained], 0).astype(np.float32))
        self._expressions = [np.stack([_aligned(pictures.mesh[i]) for i in clip]) for clip in self.clips]

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One pair: photo and truth (3, S, S) uint8, driving and target points (56, 2) in crop pixels, `own` and
        `apart` of the photo's head (realtime.head.Head), flow (2, S/2, S/2) and its weight, and the truth's mouth
        interior (S, S)."""
        if rng.random() < self.mouths:
            return augmented(self.opening(rng), rng)
        kind = rng.random()
        if self.clips and kind < 0.35:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            photo, *truths = rng.choice(clip, 4)
            wanted = (self._lids, -self._gap, np.zeros_like(self._gap))[rng.integers(3)]  # shut eyes, open mouths, any
            truth = min(truths, key=lambda index: wanted[index])
            pair = self.two(photo, truth, rng)
        elif self.people and kind < 0.55:
            person = self.people[int(rng.integers(len(self.people)))]
            photo, truth = rng.permutation(person)[:2]
            pair = self.two(photo, truth, rng, together=False)
        else:
            pair = self.reanimated(int(rng.choice(self.stills, p=self._chance)), rng)
        return augmented(pair, rng)

    def opening(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A pair whose photo's mouth is shut, or nearly, and whose truth's is open."""
        kind = rng.random()
        if self.clips and kind < 0.35:
            frames = sorted(rng.choice(self.clips[int(rng.integers(len(self.clips)))], 6), key=lambda i: self._gap[i])
            return self.two(frames[0], frames[-1], rng)
        if self.people and kind < 0.65:
            person = sorted(self.people[int(rng.integers(len(self.people)))], key=lambda i: self._gap[i])
            return self.two(person[0], person[-1], rng, together=False)
        opened = self.stills[self._gap[self.stills] > OPEN]
        if len(opened) == 0:
            opened = self.stills
        return self.reanimated(int(rng.choice(opened)), rng, "shut")

    def two(
        self, photo: int, truth: int, rng: np.random.Generator | None, together: bool = True
    ) -> dict[str, np.ndarray]:
        """Two pictures of one person; `together`: under one crop, that of the photo, so that the head moves in it.

        Without `rng` the crop is the aligned one.
        """
        p = self.pictures
        matrix = similarity(five_points(p.points[photo]))
        if rng is not None:
            matrix = jittered(matrix, rng)
        of_photo, of_truth = five_points(p.points[photo]), five_points(p.points[truth])
        other = matrix if together else similarity(of_truth, transform(of_photo, matrix))
        a, b = moved_mesh(p.mesh[photo], matrix), moved_mesh(p.mesh[truth], other)
        here, there = self.surface.extend(b, b), self.surface.extend(a, b)
        flow, on_face = self._flow(here, there)
        head = self._head(photo, a, matrix)
        return {
            "photo": self._cut(photo, matrix),
            "truth": self._cut(truth, other),
            "target": head.points,
            "driving": transform(p.points[truth], other),
            "own": head.own,
            "apart": head.apart,
            "flow": flow,
            "weight": on_face.astype(np.float32),
        }

    def warped(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A still warped to closing eyes, a gaping mouth, or another pose and expression, and its points (56, 2)."""
        kind = str(rng.choice(["gape", "blink", "change"], p=[0.35, 0.35, 0.3]))
        if kind == "gape":
            return self._gaping(index, rng)
        pair = self.reanimated(index, rng, kind)
        return (pair["truth"], pair["driving"]) if kind == "blink" else (pair["photo"], pair["target"])

    def _gaping(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A still whose lips are drawn far apart, which few pictures show, and its points (56, 2); a mouth that was
        shut is filled with the colours of teeth, tongue and dark."""
        pair = self.reanimated(index, rng, "gape")
        image, points = pair["photo"], pair["target"]
        if self._gap[index] < OPEN:
            inside = mouth_interior(points, self.size)[..., None]
            above, below = INNER_MOUTH[rng.integers(len(INNER_MOUTH), size=2)] * rng.uniform(0.5, 1.1, (2, 1))
            top, bottom = points[LIPS, 1].min(), points[LIPS, 1].max()
            depth = np.clip((np.arange(self.size)[:, None, None] - top) / (bottom - top), 0, 1)
            image = np.clip(image * (1 - inside) + (above + (below - above) * depth) * inside, 0, 255).astype(np.uint8)
        return image, points

    def reanimated(self, index: int, rng: np.random.Generator, kind: str | None = None) -> dict[str, np.ndarray]:
        """A still and itself with another pose and expression, by warping.

        The warped one is the photo, the real one the truth; but for what warping does well and stills do not show,
        lids that close, which are skin drawn over the eye, and heads that do nothing but turn, away from the camera:
        then the warped one is the truth. `kind` is "blink", "turn", "change", "shut" (a change, and the photo's mouth
        is closed), or "gape" (and wide open); by chance one of the first three. A still that looks away is not turned.
        """
        p = self.pictures
        kind = kind or str(rng.choice(["blink", "turn", "change"], p=[BLINKS, TURNS, 1 - BLINKS - TURNS]))
        if kind == "turn" and not _near_frontal(p.mesh[index], FACING):
            kind = "change"  # turned farther, its far cheek would bulge
        onward = kind in ("blink", "turn")
        upright = similarity(five_points(p.points[index]))
        still = moved_mesh(p.mesh[index], upright)
        if kind == "blink":
            changed = self._blinking(still, rng)
        elif kind == "turn":
            changed = self._turned(still, rng)
        else:
            changed = self.changed(still, rng, shut=kind == "shut")
        if kind == "gape":
            gape(changed, rng)
        points = transform(p.points[index], upright)
        elsewhere = points + changed[FACEMESH, :2] - still[FACEMESH, :2]
        target, driving = (points, elsewhere) if onward else (elsewhere, points)
        again = jittered(similarity(five_points(target)), rng)  # the crop is aligned on the photo
        matrix = _chained(again, upright)
        unmoved, moved = moved_mesh(still, again), moved_mesh(changed, again)
        head = self._head(index, unmoved, matrix)
        real, warped = self.surface.extend(unmoved, unmoved), self.surface.extend(moved, unmoved, head.apart)
        flow, on_face = self._flow(warped, real) if onward else self._flow(real, warped)
        place, _ = self.surface.flow(warped, real, self.size, CROP_SIZE / self.size)
        pictures = self._cut(index, matrix), self._sample(index, matrix, place)
        photo, truth = pictures if onward else pictures[::-1]
        target = transform(target, again)
        if not onward:  # what is around the head has moved with it
            head = replace(make_head(target, warped[:478, :2]), apart=head.apart)
        return {
            "photo": photo,
            "truth": truth,
            "target": target,
            "driving": transform(driving, again),
            "own": head.own,
            "apart": head.apart,
            "flow": flow,
            "weight": np.maximum(on_face, 0.3).astype(np.float32),
        }

    def _head(self, index: int, mesh: np.ndarray, matrix: np.ndarray) -> Head:
        """The head of a picture under a (2, 3) matrix to crop pixels, in which its mesh is (478, 3)."""
        p = self.pictures
        to_cells = _chained(cells_of(0), inverse(matrix))
        return make_head(transform(p.points[index], matrix), mesh[:, :2], p.mask(index), to_cells)

    def _blinking(self, mesh: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mesh (478, 3) in crop pixels with closing lids and a little motion of the head."""
        mesh = mesh.astype(np.float64)
        close_lids(mesh, float(rng.choice([rng.uniform(0, 0.1), rng.uniform(0, 0.6)])))
        mesh[:, :2] += rng.normal(0, 1.5, 2)
        return mesh.astype(np.float32)

    @staticmethod
    def _turned(mesh: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A mesh (478, 3) in crop pixels in another pose."""
        mesh = mesh.astype(np.float64)
        move_head(mesh, rng, wide=True)
        return mesh.astype(np.float32)

    def changed(self, mesh: np.ndarray, rng: np.random.Generator, shut: bool = False) -> np.ndarray:
        """A mesh (478, 3) in crop pixels with a random other expression, gaze and pose."""
        mesh = mesh.astype(np.float64)
        if self._expressions and rng.random() < 0.75:
            frames = self._expressions[int(rng.integers(len(self._expressions)))]
            a, b = frames[rng.choice(len(frames), 2)]
            rotation, shift = rigid_fit(a[STABLE], b[STABLE])  # what is left after head motion is expression
            mesh += (a @ rotation.T + shift - b) * rng.uniform(0.4, 1.1)
        if shut or rng.random() < 0.7:
            move_jaw(mesh, rng)
        if rng.random() < 0.5:
            move_lids(mesh, rng)
        if rng.random() < 0.5:
            move_gaze(mesh, rng)
        move_head(mesh, rng, wide=rng.random() < 0.5)
        return mesh.astype(np.float32)

    def _flow(self, here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True backward flow (2, S/2, S/2) in crop pixels, from the truth to the photo, and where it is known."""
        cells = self.size // FLOW_STRIDE
        scale = CROP_SIZE / cells
        place, on_face = self.surface.flow(here, there, cells, scale)
        at = (np.arange(cells, dtype=np.float32) + 0.5) * scale - 0.5
        return np.moveaxis(place - np.stack(np.meshgrid(at, at), -1), -1, 0), on_face

    def _cut(self, index: int, matrix: np.ndarray) -> np.ndarray:
        """The picture under a (2, 3) matrix to 256-crop pixels, sampled at this size."""
        return self._sample(index, matrix, _cell_centres(self.size))

    def _sample(self, index: int, matrix: np.ndarray, place: np.ndarray) -> np.ndarray:
        return _resampled(self.pictures.image(index), matrix, place)


def _cell_centres(size: int) -> np.ndarray:
    at = (np.arange(size, dtype=np.float32) + 0.5) * (CROP_SIZE / size) - 0.5
    return np.stack(np.meshgrid(at, at), -1)


def _resampled(image: np.ndarray, matrix: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The picture at crop positions (S, S, 2), where `matrix` takes picture pixels to crop pixels."""
    size = place.shape[0]
    back = cv2.invertAffineTransform(np.asarray(matrix, np.float64))
    if size < CROP_SIZE:  # keep fine detail from aliasing
        image = cv2.GaussianBlur(image, (0, 0), 0.45 * CROP_SIZE / size)
    at = (place @ back[:, :2].T + back[:, 2]).astype(np.float32)
    return cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def moved_mesh(mesh: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return np.column_stack([transform(mesh[:, :2], matrix), mesh[:, 2] * scale]).astype(np.float32)


def _frames(pictures: Pictures, clip: str, skip: range) -> np.ndarray:
    """Indices of a clip's frames, without those of numbers in `skip` (where something hides the face, say)."""
    indices = np.flatnonzero(pictures.clips == clip)
    return np.array([i for i in indices if int(pictures.names[i].rsplit(":", 1)[1]) not in skip])


def _aligned(mesh: np.ndarray) -> np.ndarray:
    """A mesh (478, 3) in the pixels of its own crop."""
    return moved_mesh(mesh, similarity(five_points_of(mesh)))


def _chained(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that applies `first`, then `second`."""
    return np.column_stack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2] + second[:, 2]])


def jittered(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop matrix with the errors that alignment makes, and the shift that lets a head start off centre."""
    angle, scale = rng.normal(0, 0.04), np.exp(rng.normal(0, 0.05))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle = np.array([127.5, 140.0])
    return _chained(np.column_stack([linear, middle - linear @ middle + rng.normal(0, 4, 2)]), matrix).astype(
        np.float32
    )


def _near_frontal(mesh: np.ndarray, most: float = 1.8) -> bool:
    """Whether neither eye is more than so many times as far from the nose's bridge as the other."""
    left = float(np.linalg.norm(mesh[33, :2] - mesh[168, :2]))
    right = float(np.linalg.norm(mesh[263, :2] - mesh[168, :2]))
    return bool(1 / most < left / max(right, 1e-3) < most)


def augmented(pair: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Colour and mirror alike on both sides; landmarks as uncertain as a detector's; channels first."""
    state = rng.bit_generator.state
    pair["photo"] = colour(pair["photo"], rng, 0.4)
    rng.bit_generator.state = state
    pair["truth"] = colour(pair["truth"], rng, 0.4)
    if rng.random() < 0.5:
        pair["photo"], pair["truth"] = pair["photo"][:, ::-1], pair["truth"][:, ::-1]
        for name in ("driving", "target"):
            points = pair[name][MIRROR]
            pair[name] = np.column_stack([CROP_SIZE - 1 - points[:, 0], points[:, 1]])
        pair["flow"] = pair["flow"][:, :, ::-1] * np.array([-1, 1], np.float32)[:, None, None]
        pair["weight"] = pair["weight"][:, ::-1]
        pair["own"] = pair["own"][head_mirror()] * [-1, 1] + [CROP_SIZE - 1, 0]
        pair["apart"] = pair["apart"][:, -np.arange(OUTLINE_COUNT)]
    pair["mouth"] = mouth_interior(pair["driving"], pair["truth"].shape[0])
    for name in ("driving", "target"):
        pair[name] = pair[name] + rng.normal(0, UNCERTAIN, (len(MIRROR), 2))
    for name in ("photo", "truth"):
        pair[name] = pair[name].transpose(2, 0, 1)
    return {k: np.ascontiguousarray(v, v.dtype if v.dtype == np.uint8 else np.float32) for k, v in pair.items()}
