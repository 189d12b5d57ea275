"""Retargeting: the source's points become points of the photo's face (thesis 4.5 draws them; here they are adapted).

Relative motion adds the source's change from its own neutral to the photo's own points: head pose, expression and
gaze, each by its own rule. Absolute motion takes over the source's points as they are, which is self-reenactment when
the photo is a frame of the source.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from realtime.alignment import inverse, similarity, transform
from realtime.errors import InputError
from realtime.expression import (
    EYE_DISTANCE,
    close_mouth,
    eye_opening,
    measure_eyes,
    move_brows,
    move_eyes,
    move_lips,
    move_pupils,
    smoothstep,
)
from realtime.landmarks import BROWS, COUNT, CROP_SIZE, EYES, LIPS, PUPILS, Array, five_points
from realtime.pose import fit_pose, lift, limit_pose, photo_reach, project, unproject
from realtime.smoothing import PointSmoother

MOTIONS = ("relative", "absolute")
REFERENCES = ("first", "best")
GAINS = ("mouth", "eyes", "brows", "gaze", "head")

MARGIN = 2.0  # pixels between any point and the crop's edge
HOLD = 0.5  # seconds a lost face stays as it was
RELAX = 1.0  # seconds in which it then returns to the photo's own expression
REJOIN = 0.2  # seconds in which a face found again is caught up with
RECALIBRATE = 0.3  # seconds in which a new neutral takes effect
BETTER = 0.9  # a new best reference must be nearer to the photo than this share of the old one's distance
BLINK_NEUTRAL = 1.8  # eyes this many times as open as in neutral: it was caught in a blink, its eyes are taken again
WAKE = 0.25  # seconds later, when they are fully open
CLOSE = 0.2  # seconds in which a neutral mouth that was caught open closes: one bad frame is no closed mouth


@dataclass(frozen=True)
class RetargetSettings:
    """How the source's motion becomes the photo's.

    motion: "relative" or "absolute". reference: the neutral is the "first" frame (its eyes and mouth are taken anew
    where they turn out to have been caught in a blink or a word), or at any time the "best" so far,
    the one most like the photo; a recording's best of all, if `calibrate` is given it beforehand. mouth, eyes, brows,
    gaze, head: gains of relative motion, 0 still, 1 as the source. smoothing: 0 none, 1 for a webcam; None is 1 for
    relative motion, and 0 for absolute, which is judged by accuracy.
    Raises InputError for what cannot be meant.
    """

    motion: str = "relative"
    reference: str = "first"
    mouth: float = 1.0
    eyes: float = 1.0
    brows: float = 1.0
    gaze: float = 1.0
    head: float = 1.0
    smoothing: float | None = None

    def __post_init__(self) -> None:
        if self.motion not in MOTIONS:
            raise InputError(f"motion {self.motion!r} is unknown: relative or absolute is needed")
        if self.reference not in REFERENCES:
            raise InputError(f"reference {self.reference!r} is unknown: first or best is needed")
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value is not None and not (np.isfinite(value) and 0 <= value <= 5):
                raise InputError(f"{field.name}={value} is out of range: a number from 0 to 5 is needed")
        if self.motion == "absolute" and any(getattr(self, gain) != 1 for gain in GAINS):
            raise InputError("absolute motion takes the source as it is: gains need relative motion")

    @property
    def smoothing_strength(self) -> float:
        """The strength that `smoothing` stands for."""
        return self.smoothing if self.smoothing is not None else float(self.motion == "relative")


def parse_gains(texts: Iterable[str]) -> dict[str, float]:
    """Gains as a user writes them, `mouth=1.2`, as arguments of RetargetSettings. Raises InputError."""
    gains = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in GAINS:
            raise InputError(f"gain {text!r} names no part of the face: one of {', '.join(GAINS)} is needed")
        try:
            gains[name] = float(value)
        except ValueError:
            raise InputError(f"gain {text!r} has no number: {name}=1.2 would be right") from None
    return gains


def unlikeness(points: Array, photo_points: Array) -> float:
    """How far a face is from the photo's in pose and expression: the mean distance of points (56, 2) from the photo's
    once a similarity has laid the five points on each other, in eye distances."""
    placed = transform(points, similarity(five_points(points), five_points(photo_points)))
    return float(np.linalg.norm(placed - photo_points, axis=1).mean()) / EYE_DISTANCE


def best_reference(track: Array, photo_points: Array) -> int:
    """The index of the frame of a track (T, 56, 2) that most resembles the photo: the neutral to use for a file."""
    return int(np.argmin([unlikeness(points, photo_points) for points in track]))


class Retargeter:
    """Turns a source's points into driving points for one photo, moment by moment. One thread owns it.

    photo_points: the photo's own points, (56, 2), in pixels of its aligned crop. Timestamps are seconds and rise.
    """

    def __init__(self, photo_points: Array, settings: RetargetSettings | None = None) -> None:
        self._source: Array | None = None  # the neutral, in the source's own pixels
        self._output: Array | None = None
        self._offset, self._ease_start, self._ease_length = np.zeros((COUNT, 2), np.float32), 0.0, 0.0
        self._ease_due = False
        self._lost_at: float | None = None
        self._calibrating, self._wake_at, self._then = False, np.inf, 0.0
        self.settings = settings or RetargetSettings()
        self._smooth = PointSmoother(EYE_DISTANCE, self.settings.smoothing_strength)
        self._set_photo(photo_points)

    def set_photo(self, photo_points: Array) -> None:
        """Drives another photo from the next moment on, with the same neutral."""
        self._set_photo(photo_points)
        self._output = None  # one photo's expression is not eased into another's
        self._offset = np.zeros_like(self._offset)

    def _set_photo(self, photo_points: Array) -> None:
        self.photo_points = photo_points.astype(np.float32)
        self._photo, self._reach = lift(self.photo_points), photo_reach(self.photo_points)
        self._photo_eyes = measure_eyes(self.photo_points)
        if self._source is not None:
            self._set_neutral(self._source)

    def set_settings(self, settings: RetargetSettings) -> None:
        """Takes new settings from the next moment on, eased."""
        self.settings = settings
        self._smooth.strength = settings.smoothing_strength
        self._ease(RECALIBRATE)

    def calibrate(self, points: Array | None = None) -> None:
        """Makes `points` (56, 2) the source's neutral, or, without any, those of the next moment; eased."""
        if points is None:
            self._calibrating = True
        else:
            self._set_neutral(points)

    def _set_neutral(self, points: Array) -> None:
        self._source = points
        self._calibrating, self._wake_at = False, np.inf
        self._unlikeness = unlikeness(points, self.photo_points)
        self._placement = similarity(five_points(points), five_points(self.photo_points))
        self._neutral = lift(transform(points, self._placement))
        self._neutral_eyes = measure_eyes(self._neutral[:, :2])
        self._gaze = np.zeros(2)
        self._smooth.reset()
        self._ease(RECALIBRATE)

    def drive(self, points: Array, timestamp: float) -> Array:
        """Driving points (56, 2) float32 in the photo's crop for the source's points (56, 2), whose frame may be any
        as long as it stays: pixels of a picture, or of a crop that does not follow the face."""
        if not np.isfinite(points).all():
            raise ValueError("points to drive with must be finite")
        if self._lost_at is not None:
            self._lost_at = None
            self._smooth.reset()
            self._ease(REJOIN)
        if self._source is None or self._calibrating or self._is_better(points):
            self._set_neutral(points)
        placed = self._smooth(transform(points, self._placement), timestamp)
        target = placed if self.settings.motion == "absolute" else self._relative(placed, timestamp)
        return self._eased(target, timestamp)

    def lost(self, timestamp: float) -> Array:
        """Driving points (56, 2) for a moment without a face: as they were, then back to the photo's own."""
        if self._output is None:
            return self.photo_points
        if self._lost_at is None:
            self._lost_at = timestamp
            self._relaxing = False
        if timestamp - self._lost_at < HOLD:
            return self._output
        if not self._relaxing:
            self._relaxing = True
            self._ease(RELAX)
        return self._eased(self.photo_points, timestamp)

    def _is_better(self, points: Array) -> bool:
        best = self.settings.reference == "best"
        return best and unlikeness(points, self.photo_points) < BETTER * self._unlikeness

    def _relative(self, placed: Array, timestamp: float) -> Array:
        """The change of the source's points (56, 2), laid on the photo, from its neutral, given to the photo."""
        gains, photo = self.settings, self._photo
        pose = fit_pose(placed, self._neutral)
        posed_out = unproject(placed, self._neutral[:, 2], pose)
        eyes = measure_eyes(posed_out)
        opening = eye_opening(eyes.openness, self._neutral_eyes.openness)
        if self._is_awake(opening, timestamp):
            self._wake(posed_out)
            opening = np.ones(2, np.float32)
        self._close(posed_out, timestamp)
        change = posed_out - self._neutral[:, :2]
        change[BROWS] *= gains.brows
        change[LIPS] *= gains.mouth
        change[EYES] *= gains.eyes
        # a closing lid hides the pupil, and its point says nothing then: the gaze stays
        seen = float(smoothstep((opening.min() - 0.3) / 0.4))
        self._gaze = self._gaze + seen * ((eyes.gaze - self._neutral_eyes.gaze).mean(0) - self._gaze)

        face = photo.copy()
        move_brows(face, photo, change)
        move_lips(face, photo, self._neutral, change)
        move_eyes(face, photo, self._photo_eyes, np.maximum(1 + gains.eyes * (opening - 1), 0), change)
        move_pupils(face, self._photo_eyes, gains.gaze * self._gaze)
        driven = project(face, limit_pose(gains.head * pose, self._reach))
        return np.clip(driven, MARGIN, CROP_SIZE - 1 - MARGIN)

    def _is_awake(self, opening: Array, timestamp: float) -> bool:
        """Whether the eyes' openings (2,) have been so wide for so long that the neutral must have been caught in a
        blink."""
        if opening.min() <= BLINK_NEUTRAL:
            self._wake_at = np.inf
        else:
            self._wake_at = min(self._wake_at, timestamp + WAKE)
        return timestamp >= self._wake_at

    def _wake(self, posed_out: Array) -> None:
        """Takes the eyes of points (56, 2), whose head pose is taken out, for neutral; all else was not asleep."""
        eyes = np.r_[EYES, PUPILS]
        self._neutral[eyes, :2] = posed_out[eyes]
        self._amend(eyes)
        self._neutral_eyes, self._gaze = measure_eyes(posed_out), np.zeros(2)
        self._wake_at = np.inf
        self._ease(RECALIBRATE)

    def _close(self, posed_out: Array, timestamp: float) -> None:
        """Closes a neutral mouth that was caught open while the source's, (56, 2) without its pose, is closed."""
        passed, self._then = timestamp - self._then, timestamp
        if close_mouth(self._neutral, self._photo, posed_out, min(max(passed, 0.0) / CLOSE, 0.5)):
            self._amend(LIPS)

    def _amend(self, part: NDArray[np.intp]) -> None:
        """Gives the source's neutral, which the next photo will be driven from, what a part of this one's is now."""
        assert self._source is not None
        self._source = self._source.copy()
        self._source[part] = transform(self._neutral[part, :2], inverse(self._placement))
        self._unlikeness = unlikeness(self._source, self.photo_points)

    def _ease(self, length: float) -> None:
        """From the next output on, what jumps in it fades within `length` seconds."""
        self._ease_due, self._ease_length = True, length

    def _eased(self, target: Array, timestamp: float) -> Array:
        if self._ease_due:
            self._ease_due, self._ease_start = False, timestamp
            self._offset = target * 0 if self._output is None else self._output - target
        left = 1 - smoothstep((timestamp - self._ease_start) / self._ease_length)
        self._output = (target + left * self._offset).astype(np.float32)
        return self._output
