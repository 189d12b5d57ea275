"""Expressions carried from one face to another, with the heads held still: lips, brows, eyelids and gaze.

Faces are in pixels of the photo's crop: the photo's own points lifted, (56, 3), and the source's with its head pose
taken out, (56, 2), neutral and now. What is carried is the change from neutral.
"""

from dataclasses import dataclass

import numpy as np

from realtime.landmarks import BROWS, INNER_LIPS, LIPS, MOUTH_CORNERS, OUTER_LIPS, PUPILS, Array
from realtime.pose import soft_limit

EYE_DISTANCE = 64.0  # pixels of the crop
CORNERS = np.array([[18, 22], [26, 30]])  # of each eye, left in the picture first
UPPER_LIDS = np.array([[19, 20, 21], [27, 28, 29]])
LOWER_LIDS = np.array([[25, 24, 23], [33, 32, 31]])
# Outlines from corner to corner: (eye, upper or lower lid, point).
LIDS = np.stack([np.column_stack([CORNERS[:, 0], lid, CORNERS[:, 1]]) for lid in (UPPER_LIDS, LOWER_LIDS)], 1)
UPPER_LIP, LOWER_LIP = INNER_LIPS[1:4], INNER_LIPS[[7, 6, 5]]
OUTER_UPPER_LIP, OUTER_LOWER_LIP = OUTER_LIPS[1:6], OUTER_LIPS[[11, 10, 9, 8, 7]]

CLOSED = 0.11  # lid gap over eye width at which an eye is shut: FaceMesh leaves 0.10 between closed lids, whoever it is
CLOSURE = 0.25  # where lids meet, from the lower (0) to the upper (1): it is the upper one that travels
WIDEST_EYE = 0.45  # lid gap over eye width
WIDER = 1.5  # how much wider than the photo's an eye may open
GAZE_REACH = 0.3  # how far a pupil may go from the middle, in eye widths
WIDEST_MOUTH = 1.15  # eye distances
DEEPEST_MOUTH = 0.8  # eye distances from lip to lip
BROW_REACH = 0.25  # eye distances
SHARED = 1.3  # power by which a mouth's own opening and the source's become one: 1 adds them, more nears the larger
AJAR = 0.04  # eye distances between lips at rest, and more than a closed mouth's noise


def smoothstep(x: Array | float) -> Array:
    """0 up to 0, 1 from 1 on, smooth between."""
    x = np.minimum(np.maximum(x, 0), 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class Eyes:
    """Both eyes of a face, left in the picture first: axes from corner to corner and down, all (2, 2); width (2,) in
    pixels; openness (2,), the mean gap of the lids in eye widths; gaze (2, 2), the pupil from the middle, in eye widths
    along the axes."""

    middle: Array
    across: Array
    down: Array
    width: Array
    openness: Array
    gaze: Array


def measure_eyes(points: Array) -> Eyes:
    """The eyes of points (56, 2)."""
    first, last = points[CORNERS[:, 0]], points[CORNERS[:, 1]]
    width = np.maximum(np.hypot(*(last - first).T), 1e-3)
    across = (last - first) / width[:, None]
    down = np.column_stack([-across[:, 1], across[:, 0]])
    middle = (first + last) / 2
    gap = ((points[LOWER_LIDS] - points[UPPER_LIDS]).mean(1) * down).sum(1)
    offset = points[PUPILS] - middle
    gaze = np.column_stack([(offset * across).sum(1), (offset * down).sum(1)]) / width[:, None]
    return Eyes(middle, across, down, width, np.maximum(gap / width, 0), gaze)


def eye_opening(openness: Array, neutral: Array) -> Array:
    """How far the eyes (2,) are open: 1 as in neutral, 0 shut, more when wide.

    It is the ratio of the two gaps, but drawn to 0 where the eye counts as shut, for the points of a closed eye still
    leave a gap. The narrower the eye, the smaller that gap.
    """
    closed = np.minimum(CLOSED, 0.6 * neutral)
    above = (openness - closed) / np.maximum(neutral - closed, 1e-3)
    ratio = openness / np.maximum(neutral, 1e-3)
    return ratio * smoothstep((above - 0.08) / 0.3)  # type: ignore[no-any-return]


def move_brows(face: Array, photo: Array, change: Array) -> None:
    """Adds the change (56, 2) to the brows of `face` (56, 3) in place, within what a forehead allows."""
    face[BROWS, :2] = photo[BROWS, :2] + soft_limit(change[BROWS], BROW_REACH * EYE_DISTANCE)


def move_lips(face: Array, photo: Array, neutral: Array, change: Array) -> None:
    """Adds the change (56, 2) to the lips of `face` in place, scaled across by the mouths' widths.

    The gap between the lips follows the source's: it opens by as much, or by less where the photo's mouth is open
    already, and closes when the source's closes; lips never cross.
    """
    first, last = MOUTH_CORNERS
    width, source_width = photo[last, 0] - photo[first, 0], max(neutral[last, 0] - neutral[first, 0], 1.0)
    fit = min(max(width / source_width, 0.7), 1.0)  # a wide mouth does not smile all the more widely
    across = change[LIPS, 0] * fit
    wider = (change[last, 0] - change[first, 0]) * fit
    room = max(WIDEST_MOUTH * EYE_DISTANCE - width, 0.1 * EYE_DISTANCE)
    if wider > 0:
        across = across * soft_limit(wider, room) / max(wider, 1e-3)
    face[LIPS, 0] = photo[LIPS, 0] + across
    face[LIPS, 1] = photo[LIPS, 1] + change[LIPS, 1]

    own = photo[LOWER_LIP, 1] - photo[UPPER_LIP, 1]
    open_by = change[LOWER_LIP, 1] - change[UPPER_LIP, 1]
    source_own = neutral[LOWER_LIP, 1] - neutral[UPPER_LIP, 1]
    # where the photo's mouth is the more open one, it has farther to go until it is closed
    farther = np.minimum(np.maximum(own / (source_own + 0.02 * EYE_DISTANCE), 1), 3)
    wider_open = (np.maximum(own, 0) ** SHARED + np.maximum(open_by, 0) ** SHARED) ** (1 / SHARED)
    gap = np.where(open_by < 0, own + open_by * farther, wider_open)
    deepest = np.maximum(DEEPEST_MOUTH * EYE_DISTANCE, 1.1 * own)
    gap = soft_limit(np.maximum(gap, 0), deepest)
    excess = gap - (own + open_by)
    outer = _outer(excess)
    face[UPPER_LIP, 1] -= 0.3 * excess
    face[LOWER_LIP, 1] += 0.7 * excess
    face[OUTER_UPPER_LIP, 1] -= 0.3 * outer
    face[OUTER_LOWER_LIP, 1] += 0.7 * outer


def close_mouth(neutral: Array, photo: Array, seen: Array, share: float) -> bool:
    """Raises the lower lip of the source's `neutral` (56, 3) in place by a share of the way to where `seen` (56, 2)
    has it, but not above the photo's gap: a neutral caught with an open mouth would keep the photo's shut when the
    source talks. Whether there was anything to do: lips that are ajar at rest stay so."""
    gap, own, now = (face[LOWER_LIP, 1] - face[UPPER_LIP, 1] for face in (neutral, photo, seen))
    too_open = gap - np.maximum(own, now)
    if too_open.mean() < AJAR * EYE_DISTANCE:
        return False
    less = share * np.maximum(too_open, 0)
    neutral[LOWER_LIP, 1] -= less
    neutral[OUTER_LOWER_LIP, 1] -= _outer(less)
    return True


def _outer(inner: Array) -> Array:
    """What the five points of an outer lip do when the three of the inner one move by so many pixels (3,)."""
    return np.interp([0, 0.5, 1, 1.5, 2], [0, 1, 2], inner).astype(np.float32)


def move_eyes(face: Array, photo: Array, own: Eyes, opening: Array, change: Array) -> None:
    """Opens the eyes of `face` to `opening` (2,) times the photo's own gap, in place; 0 shuts any eye.

    The line on which the lids meet moves by the change (56, 2), for eyes that look down lower both lids.
    """
    widest = np.minimum(np.maximum(WIDEST_EYE / np.maximum(own.openness, 1e-3), 1), WIDER)
    opening = np.where(opening > 1, 1 + soft_limit(opening - 1, widest - 1 + 1e-3), opening)
    upper, lower = photo[UPPER_LIDS], photo[LOWER_LIDS]  # (2, 3, 3)
    meet = lower + CLOSURE * (upper - lower)
    moved = meet.copy()
    moved[..., :2] += change[LOWER_LIDS] + CLOSURE * (change[UPPER_LIDS] - change[LOWER_LIDS])
    face[UPPER_LIDS] = moved + opening[:, None, None] * (upper - meet)
    face[LOWER_LIDS] = moved + opening[:, None, None] * (lower - meet)
    face[CORNERS, :2] = photo[CORNERS, :2] + change[CORNERS]


def move_pupils(face: Array, own: Eyes, change: Array) -> None:
    """Moves the pupils of `face`, whose lids are in place, by a change of gaze (2,) in eye widths; they stay in the
    eye. Both eyes look the same way."""
    middle = face[CORNERS, :2].mean(1)
    reach = np.maximum(GAZE_REACH, np.abs(own.gaze) + 1e-3)
    gaze = np.maximum(-reach, np.minimum(own.gaze + change, reach)) * own.width[:, None]
    outlines = face[LIDS, :2] - middle[:, None, None]  # (2, 2, 5, 2)
    across = (outlines * own.across[:, None, None]).sum(-1)
    down = (outlines * own.down[:, None, None]).sum(-1)
    for eye in range(2):
        top, bottom = (np.interp(gaze[eye, 0], across[eye, lid], down[eye, lid]) for lid in range(2))
        gaze[eye, 1] = max(top, min(gaze[eye, 1], bottom))
    face[PUPILS, :2] = middle + gaze[:, :1] * own.across + gaze[:, 1:] * own.down
