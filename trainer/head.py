"""What the live program knows of heads: the points of HEAD from the 56 landmarks, by ridge regression on the teacher's
meshes (realtime.head), and the mean face and its smile (realtime.pose)."""

from pathlib import Path

import numpy as np

from realtime.alignment import similarity
from realtime.errors import InputError
from realtime.head import HEAD, head_mirror
from realtime.landmarks import COUNT, CROP_SIZE, FACEMESH, MIRROR, five_points
from trainer.data import Pictures
from trainer.mesh import EYE_CORNERS, rigid_fit
from trainer.pairs import Pairs, moved_mesh

PAIRS = 15000
OWN_RIDGE, SHIFT_RIDGE = 1e3, 3e3
# The head's motion is told by these groups' means alone, outer and inner brows, eye corners, mouth corners and both
# lips: what single points say beyond them is noise, and wild where a face moves as none did in training.
GROUPS = (
    *([0, 1, 2, 8, 7], [3, 4, 5, 6], [13, 12, 11, 14, 15], [10, 9, 17, 16], [18], [22], [26], [30]),
    *([34, 46], [40, 50], [35, 36, 37, 38, 39, 47, 48, 49], [41, 42, 43, 44, 45, 51, 52, 53]),
)
CENTRE = (CROP_SIZE - 1) / 2
STILL = [*EYE_CORNERS.ravel(), 168, 6, 197, 195, 5]  # with the nose's bridge: the vertices that a smile moves least


def mesh_pairs(pairs: Pairs, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Meshes (N, 478, 2) of one person at rest and changed, both in the crop of the first; two of five from clips."""
    pictures, found = pairs.pictures, []

    def upright(index: int) -> np.ndarray:
        return similarity(five_points(pictures.points[index]))

    of_clips = 2 * count // 5 if pairs.clips else 0
    for number in range(of_clips):
        a, b = (int(i) for i in rng.choice(pairs.clips[number % len(pairs.clips)], 2))
        found.append((moved_mesh(pictures.mesh[a], upright(a)), moved_mesh(pictures.mesh[b], upright(a))))
    for index in rng.choice(pairs.stills, count - of_clips):
        still = moved_mesh(pictures.mesh[index], upright(int(index)))
        found.append((still, pairs.changed(still, rng)))
    rest, changed = np.moveaxis(np.array(found, np.float64)[..., :2], 1, 0)
    return rest, changed


def fit_head(rest: np.ndarray, changed: np.ndarray) -> dict[str, np.ndarray]:
    """Linear maps: `own` (113, 2 H) from a face's points about the crop's centre, and 1, to those of HEAD about it;
    `shift` (112, 2 H) from the points' displacement to that of HEAD. Both mirror-symmetric."""
    swap = head_mirror()

    def both(values: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        flipped = values[:, mirror] * [-1, 1]
        return np.concatenate([values, flipped]).reshape(2 * len(values), -1)

    points, own = (both(rest[:, chosen] - CENTRE, m) for chosen, m in ((FACEMESH, MIRROR), (HEAD, swap)))
    change = changed - rest
    moves, follows = (both(change[:, chosen], m) for chosen, m in ((FACEMESH, MIRROR), (HEAD, swap)))
    points = np.column_stack([points, np.ones(len(points))])
    means = _group_means()
    shift = means @ _ridge(moves @ means, follows, SHIFT_RIDGE)
    return {"own": _ridge(points, own, OWN_RIDGE), "shift": shift.astype(np.float32)}


def _group_means() -> np.ndarray:
    """The linear map (112, 24) from all points' coordinates to the means of GROUPS."""
    means = np.zeros((COUNT, 2, len(GROUPS), 2))
    for number, group in enumerate(GROUPS):
        means[group, :, number] = np.eye(2) / len(group)
    return means.reshape(2 * COUNT, -1)


def _ridge(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y).astype(np.float32)


def fit(pictures: Pictures, output: Path, count: int = PAIRS, seed: int = 0) -> float:
    """Fit on the training people and save; returns the held-out share's root mean square error in crop pixels."""
    rest, changed = mesh_pairs(Pairs(pictures, CROP_SIZE), count, np.random.default_rng(seed))
    order = np.random.default_rng(seed).permutation(len(rest))
    kept, tried = order[len(order) // 10 :], order[: len(order) // 10]
    maps = fit_head(rest[kept], changed[kept])
    change = (changed - rest)[tried]
    guess = change[:, FACEMESH].reshape(-1, 2 * COUNT) @ maps["shift"]
    np.savez(output, **maps)
    return float(np.sqrt(np.square(guess - change[:, HEAD].reshape(len(guess), -1)).mean()))


def mean_face(pictures: Pictures) -> np.ndarray:
    """The mean face, and what a smile adds to it: (2, 56, 3) float32, in crop pixels, depth from the eye corners on.

    The medians over all people with stills whose names end in "neutral" and "smiling", as the teacher sees them, the
    head's pose taken out of the smile; both mirror-symmetric. Raises InputError if nobody has both.
    """
    kept = np.flatnonzero((pictures.clips == "") & pictures.mesh.any((1, 2)))
    # "neutral" and "smiling" are seven letters each
    stills = {(str(pictures.persons[i]), Path(str(pictures.names[i])).stem[-7:]): pictures.mesh[i] for i in kept}
    people = sorted(person for person, kind in stills if kind == "neutral" and (person, "smiling") in stills)
    if not people:
        raise InputError(f"{pictures.path} has nobody with one still named *neutral and one named *smiling")
    rest, added = [], []
    for person in people:
        neutral, smile = stills[person, "neutral"], stills[person, "smiling"]
        neutral = moved_mesh(neutral, similarity(five_points(neutral[FACEMESH, :2])))
        neutral[:, 2] -= neutral[EYE_CORNERS, 2].mean()
        turned, shift = rigid_fit(smile[STILL], neutral[STILL])
        rest.append(neutral[FACEMESH])
        added.append((smile @ turned.T + shift - neutral)[FACEMESH])
    face, smile = np.median(rest, 0), np.median(added, 0)
    both = [face + face[MIRROR] * [-1, 1, 1] + [CROP_SIZE, 0, 0], smile + smile[MIRROR] * [-1, 1, 1]]
    return np.array(both, np.float32) / 2
