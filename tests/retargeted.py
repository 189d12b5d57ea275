"""What the tests of retargeting drive, and how they measure what comes of it."""

import numpy as np

from realtime.expression import LOWER_LIDS, LOWER_LIP, UPPER_LIDS, UPPER_LIP, measure_eyes
from realtime.landmarks import Array
from realtime.pose import MEAN_FACE
from realtime.retarget import Retargeter, RetargetSettings

NEUTRAL = MEAN_FACE[:, :2]


def play(track: Array, photo: Array, rate: float = 25.0, **settings: object) -> Array:
    retargeter = Retargeter(photo, RetargetSettings(**settings))
    return np.array([retargeter.drive(points, index / rate) for index, points in enumerate(track)])


def lid_gaps(points: Array) -> Array:
    """(2, 3) in eye widths, across the line from corner to corner."""
    eyes = measure_eyes(points)
    gaps = ((points[LOWER_LIDS] - points[UPPER_LIDS]) * eyes.down[:, None]).sum(-1)
    return gaps / eyes.width[:, None]


def lip_gaps(points: Array) -> Array:
    """(3,) pixels along the perpendicular of the line from corner to corner."""
    across = points[40] - points[34]
    down = np.array([-across[1], across[0]]) / np.hypot(*across)
    return (points[LOWER_LIP] - points[UPPER_LIP]) @ down


def with_eyes(photo: Array, openness: float) -> Array:
    """The photo with its eyes opened to a gap of so many eye widths."""
    changed, eyes = photo.copy(), measure_eyes(photo)
    for eye, lids in enumerate(np.concatenate([UPPER_LIDS, LOWER_LIDS], 1)):
        height = (photo[lids] - eyes.middle[eye]) @ eyes.down[eye]
        changed[lids] += np.outer(height, eyes.down[eye]) * (openness / eyes.openness[eye] - 1)
    return changed
