"""What the live program knows of heads: the points of HEAD from the 56 landmarks, by ridge regression on the teacher's
meshes (realtime.head); what expressions do to a face, by their principal components, and the mean face
(realtime.pose)."""

from pathlib import Path

import numpy as np

from realtime.alignment import similarity
from realtime.errors import InputError
from realtime.head import HEAD, head_mirror
from realtime.landmarks import COUNT, CROP_SIZE, FACEMESH, MIRROR, five_points
from trainer.data import Pictures
from trainer.mesh import EYE_CORNERS, STABLE, rigid_fit
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
MODES = 8  # expressions, of which four fifths of the motion of held-out faces are made
NOISE = 1.0  # crop pixels by which points are off, whatever the expression


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


def expression_changes(pairs: Pairs, count: int, rng: np.random.Generator) -> np.ndarray:
    """What expressions do to faces, (N, 56, 3) in crop pixels with the head held still: between frames of one clip and
    stills of one person, half of `count` of each that there are. Raises InputError where there are neither."""
    pictures, found = pairs.pictures, []

    def upright(index: int) -> np.ndarray:
        mesh = pictures.mesh[index]
        return moved_mesh(mesh, similarity(five_points(pictures.points[index]))).astype(np.float64)

    for group in ([clip for clip in pairs.clips if len(clip) > 1], pairs.people):
        for number in range(count // 2 if group else 0):
            a, b = (upright(int(i)) for i in rng.choice(group[number % len(group)], 2, replace=False))
            rotation, shift = rigid_fit(b[STABLE], a[STABLE])
            found.append((b @ rotation.T + shift - a)[FACEMESH])
    if not found:
        raise InputError(f"{pictures.path} shows nobody twice: a clip, or several stills of one person, are needed")
    return np.array(found)


def fit_expressions(changes: np.ndarray) -> dict[str, np.ndarray]:
    """`expressions` (MODES, 56, 3): the principal components of changes (N, 56, 3), each times its standard deviation;
    `trust` (56, 2): one over the variance of what they leave of x and y, and NOISE. Both mirror-symmetric."""
    both = np.concatenate([changes, changes[:, MIRROR] * [-1, 1, 1]]).reshape(2 * len(changes), -1)
    _, strength, modes = np.linalg.svd(both, full_matrices=False)
    modes = modes[:MODES]
    left = (both - both @ modes.T @ modes).reshape(-1, COUNT, 3)
    spread = strength[:MODES, None] / np.sqrt(len(both))
    return {
        "expressions": (spread * modes).reshape(-1, COUNT, 3).astype(np.float32),
        "trust": (1 / (np.square(left[..., :2]).mean(0) + NOISE**2)).astype(np.float32),
    }


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
    pairs = Pairs(pictures, CROP_SIZE)
    rest, changed = mesh_pairs(pairs, count, np.random.default_rng(seed))
    order = np.random.default_rng(seed).permutation(len(rest))
    kept, tried = order[len(order) // 10 :], order[: len(order) // 10]
    maps = fit_head(rest[kept], changed[kept])
    maps |= fit_expressions(expression_changes(pairs, count, np.random.default_rng(seed)))
    change = (changed - rest)[tried]
    guess = change[:, FACEMESH].reshape(-1, 2 * COUNT) @ maps["shift"]
    np.savez(output, **maps)
    return float(np.sqrt(np.square(guess - change[:, HEAD].reshape(len(guess), -1)).mean()))


def mean_face(pictures: Pictures) -> np.ndarray:
    """The mean face, (56, 3) float32, in crop pixels, depth from the eye corners on: the median over all people with a
    still whose name ends in "neutral", as the teacher sees them; mirror-symmetric. Raises InputError if there is none.
    """
    rest = []
    for index in np.flatnonzero((pictures.clips == "") & pictures.mesh.any((1, 2))):
        if Path(str(pictures.names[index])).stem.endswith("neutral"):
            mesh = pictures.mesh[index]
            mesh = moved_mesh(mesh, similarity(five_points(mesh[FACEMESH, :2])))
            rest.append(mesh[FACEMESH] - [0, 0, mesh[EYE_CORNERS, 2].mean()])
    if not rest:
        raise InputError(f"{pictures.path} has no still named *neutral")
    face = np.median(rest, 0)
    return ((face + face[MIRROR] * [-1, 1, 1] + [CROP_SIZE, 0, 0]) / 2).astype(np.float32)
