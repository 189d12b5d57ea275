"""Recorded motions: landmark tracks that ship with the program, so that everything runs without a camera.

A track begins and ends with the neutral mean face, in pixels of a crop that does not follow it. It is stored as steps
of 1/8 pixel from frame to frame, which compress to a few kilobytes.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from realtime.errors import InputError
from realtime.landmarks import Array

FOLDER = Path(__file__).parent / "motions"
STEPS = 8  # to the pixel


@dataclass(frozen=True)
class Motion:
    """A landmark track: points (T, 56, 2) float32 in pixels of a fixed 256x256 crop, the first frame neutral, and
    frames per second."""

    points: Array
    frame_rate: Fraction
    name: str


def motion_names() -> list[str]:
    """The tracks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def load_motion(name: str) -> Motion:
    """The track of this name. Raises InputError for one that is not there."""
    if name not in motion_names():
        raise InputError(f"motion {name!r} is unknown: one of {', '.join(motion_names())} is needed")
    with np.load(FOLDER / f"{name}.npz") as stored:
        steps = np.concatenate([stored["first"][None], stored["changes"]]).astype(np.int32)
        rate = Fraction(*map(int, stored["frame_rate"]))
    return Motion((steps.cumsum(0) / STEPS).astype(np.float32), rate, name)


def save_motion(path: Path, points: Array, frame_rate: Fraction) -> None:
    """Stores points (T, 56, 2) as a track. Raises ValueError if a point moves more than 15 pixels in a frame."""
    steps = np.rint(points * STEPS).astype(np.int16)
    changes = np.diff(steps, axis=0)
    if np.abs(changes).max(initial=0) > 127:
        raise ValueError(f"a point moves {np.abs(changes).max() / STEPS:.1f} pixels in one frame")
    rate = np.array([frame_rate.numerator, frame_rate.denominator], np.int32)
    np.savez_compressed(path, first=steps[0], changes=changes.astype(np.int8), frame_rate=rate)
