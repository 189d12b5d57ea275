"""One-Euro smoothing: no shake at rest, no loss in a blink."""

import numpy as np
import pytest

from realtime.expression import EYE_DISTANCE, measure_eyes
from realtime.landmarks import BROWS, EYES, LIPS, Array
from realtime.motion import load_motion
from realtime.pose import MEAN_FACE
from realtime.smoothing import PointSmoother

FACE = MEAN_FACE[:, :2]


def smoothed(track: Array, frame_rate: float, strength: float = 1.0) -> Array:
    smooth = PointSmoother(EYE_DISTANCE, strength)
    return np.array([smooth(points, index / frame_rate) for index, points in enumerate(track)])


def noise(frames: int, pixels: float) -> Array:
    return np.random.default_rng(0).normal(0, pixels, (frames, 56, 2)).astype(np.float32)


@pytest.mark.parametrize("part", [BROWS, EYES, LIPS], ids=["brows", "eyes", "lips"])
def test_a_still_face_stays_still(part: Array) -> None:
    noisy = FACE + noise(300, 0.3)
    still = smoothed(noisy, 30)[30:]
    assert still[:, part].std(0).mean() < noisy[:, part].std(0).mean() / 3
    assert np.abs(still.mean(0) - FACE).max() < 0.2


@pytest.mark.parametrize("noisy", [0.0, 0.3])
def test_blinks_stay_sharp(noisy: float) -> None:
    motion = load_motion("blinking")
    rate = float(motion.frame_rate)
    track = motion.points + noise(len(motion.points), noisy)
    before, after = (
        np.array([measure_eyes(points[:, :2]).openness.mean() for points in series])
        for series in (track, smoothed(track, rate))
    )
    span = before.max() - before.min()
    assert span > 0.2
    assert after.min() - before.min() < 0.05 * span
    assert abs(int(after.argmin()) - int(before.argmin())) <= 1


def test_lips_close_in_time() -> None:
    motion = load_motion("talking")
    after = smoothed(motion.points, float(motion.frame_rate))
    gap, smoothed_gap = (series[:, 52, 1] - series[:, 48, 1] for series in (motion.points, after))
    assert gap.max() > 12
    assert np.abs(gap - smoothed_gap).max() < 2


def test_a_jump_is_followed_at_once() -> None:
    smooth = PointSmoother(EYE_DISTANCE)
    smooth(FACE, 0.0)
    assert np.abs(smooth(FACE + 40, 1 / 30) - FACE - 40).max() < 0.01


def test_strength() -> None:
    noisy = FACE + noise(200, 0.3)
    assert smoothed(noisy, 30, 0) == pytest.approx(noisy)
    assert smoothed(noisy, 30, 2)[60:].std(0).mean() < smoothed(noisy, 30, 1)[60:].std(0).mean()


def test_timestamps_may_repeat_vary_and_go_back() -> None:
    smooth = PointSmoother(EYE_DISTANCE)
    first = smooth(FACE, 1.0)
    assert smooth(FACE + 1, 1.0) == pytest.approx(first)  # the same moment: nothing passed
    for timestamp in (1.001, 1.2, 1.201, 1.45):
        value = smooth(FACE + 1, timestamp)
        assert np.isfinite(value).all()
        assert ((value >= FACE - 1e-4) & (value <= FACE + 1 + 1e-4)).all()
    assert smooth(FACE + 9, 0.2) == pytest.approx(FACE + 9)  # back in time: afresh
    assert smooth(FACE, 5.0) == pytest.approx(FACE)  # long after: afresh
    smooth.reset()
    assert smooth(FACE + 3, 5.01) == pytest.approx(FACE + 3)


def test_frame_rate_hardly_matters() -> None:
    turning = load_motion("turning").points
    slow = smoothed(turning, 24)
    twice = np.repeat(turning, 2, 0)
    twice[1:-1:2] = (turning[1:] + turning[:-1]) / 2
    fast = smoothed(twice, 48)[::2]
    assert np.abs(slow - fast).mean() < 0.3
