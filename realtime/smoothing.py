"""One-Euro smoothing of points: still when the source holds still, sharp when it blinks.

Casiez, Roussel and Vogel, "1 Euro Filter", CHI 2012: a low-pass whose cutoff rises with speed. A blink is over before
a filtered speed has risen, so that a sample farther off than noise reaches is also followed at once.
"""

import numpy as np
from numpy.typing import NDArray

from realtime.landmarks import COUNT, EYES, LIPS, Array

Vector = NDArray[np.float64]

# Eyelids and lips are the fastest things in a face, and must touch when they close; the rest is the head.
_REST = 0.6  # Hz: the cutoff at rest
_RISE = np.full(COUNT, 15.0)  # Hz for each eye distance a second
_RISE[EYES], _RISE[LIPS] = 30.0, 30.0
_SLOWEST = 0.08  # eye distances a second: filtered noise is as fast, and raises no cutoff
_SPEED_CUTOFF = 1.5  # Hz
_NEAR = 0.014  # eye distances: a webcam's noise (0.3 pixels of the crop) hardly ever puts a sample farther off
_FAR = np.full(COUNT, 0.06)  # eye distances: a sample this far off is taken as it is
_FAR[EYES], _FAR[LIPS] = 0.03, 0.03
_STALE = 0.5  # seconds without a sample after which the past no longer counts


def _weight(cutoff: Vector | float, dt: float) -> Vector:
    """The share of the newest sample in a first-order low-pass."""
    turns = 2 * np.pi * np.asarray(cutoff) * dt
    return turns / (turns + 1)


class PointSmoother:
    """Smooths points (56, 2) sample by sample.

    `unit` is the eye distance in the points' pixels. `strength` 0 leaves the points as they are, 1 is for a webcam,
    more is smoother and slower. Samples may come at any rate: one no later than the last changes nothing, one earlier
    or long after starts afresh.
    """

    def __init__(self, unit: float, strength: float = 1.0) -> None:
        self.unit = unit
        self.strength = strength
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next sample is returned as it is."""
        self._time: float | None = None

    def __call__(self, points: Array, timestamp: float) -> Array:
        """The smoothed points (56, 2) at `timestamp`, in seconds."""
        if self.strength == 0:
            return points
        sample = points / np.float64(self.unit)
        if self._time is None or not 0 <= timestamp - self._time < _STALE:
            self._value, self._last, self._speed, self._time = sample, sample, np.zeros_like(sample), timestamp
            return points
        dt = timestamp - self._time
        if dt > 0:
            self._speed += _weight(_SPEED_CUTOFF, dt) * ((sample - self._last) / dt - self._speed)
            speed = np.maximum(0, np.hypot(*self._speed.T) / self.strength - _SLOWEST)
            change = sample - self._value
            off = np.hypot(*change.T) / self.strength
            share = np.maximum(_weight(_REST / self.strength + _RISE * speed, dt), (off - _NEAR) / (_FAR - _NEAR))
            self._value = self._value + np.minimum(share, 1)[:, None] * change
            self._last, self._time = sample, timestamp
        return (self._value * self.unit).astype(np.float32)
