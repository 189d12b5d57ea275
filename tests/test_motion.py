"""The recorded motions that ship."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from realtime.errors import InputError
from realtime.expression import LOWER_LIP, UPPER_LIP, measure_eyes
from realtime.landmarks import BROWS, MIRROR, Array
from realtime.motion import FOLDER, load_motion, motion_names, save_motion
from realtime.pose import MEAN_FACE, YAW, fit_pose

NEUTRAL = MEAN_FACE[:, :2]
NAMES = ["blinking", "demo", "gaze", "smiling", "surprise", "talking", "turning"]


def openness(track: Array) -> Array:
    return np.array([measure_eyes(points).openness.mean() for points in track])


def lip_gap(track: Array) -> Array:
    return (track[:, LOWER_LIP, 1] - track[:, UPPER_LIP, 1]).mean(1)


def mouth_width(track: Array) -> Array:
    return track[:, 40, 0] - track[:, 34, 0]


def test_names() -> None:
    assert motion_names() == NAMES
    with pytest.raises(InputError, match=r"'dancing' is unknown: one of blinking, .*turning is needed"):
        load_motion("dancing")
    with pytest.raises(InputError, match="unknown"):
        load_motion("../motions/demo")


@pytest.mark.parametrize("name", NAMES)
def test_a_track_is_small_smooth_and_joins_itself(name: str) -> None:
    motion = load_motion(name)
    points = motion.points
    assert points.dtype == np.float32
    assert points.shape[1:] == (56, 2)
    assert motion.name == name
    assert 20 < motion.frame_rate <= 30
    assert (FOLDER / f"{name}.npz").stat().st_size < 20_000
    assert np.abs(points[[0, -1]] - NEUTRAL).max() < 0.1  # begins and ends with the same neutral face
    assert points.min() > 40
    assert points.max() < 230
    assert np.abs(np.diff(points, axis=0)).max() < 8  # pixels a frame: nothing jumps, lids included


def test_tracks_show_what_they_are_called() -> None:
    talking, smiling, blinking, surprise, gaze, turning = (
        load_motion(name).points for name in ("talking", "smiling", "blinking", "surprise", "gaze", "turning")
    )
    opened = lip_gap(talking) > 5
    assert np.count_nonzero(np.diff(opened.astype(int)) == 1) >= 4  # the mouth opens again and again
    assert mouth_width(smiling).max() > 1.35 * mouth_width(smiling)[0]
    shut = openness(blinking) < 0.08
    assert np.count_nonzero(np.diff(shut.astype(int)) == 1) >= 2
    assert lip_gap(blinking).max() < 1
    yaw = np.array([fit_pose(points, MEAN_FACE)[YAW] for points in turning])
    assert np.degrees(yaw.max() - yaw.min()) > 20
    assert openness(surprise).max() > 1.3 * openness(surprise)[0]
    assert lip_gap(surprise).max() > 12
    eye_to_brow = surprise[:, BROWS, 1].mean(1) - surprise[:, [18, 22, 26, 30], 1].mean(1)
    assert eye_to_brow.min() < eye_to_brow[0] - 3
    pupils = np.array([measure_eyes(points).gaze.mean(0) for points in gaze])
    assert np.ptp(pupils, axis=0).max() > 0.08


def test_the_demo_is_all_of_it() -> None:
    demo = load_motion("demo")
    assert 12 <= len(demo.points) / demo.frame_rate <= 15
    assert openness(demo.points).min() < 0.06
    assert lip_gap(demo.points).max() > 12
    assert mouth_width(demo.points).max() > 1.35 * mouth_width(demo.points)[0]


def test_the_mean_face_is_symmetric() -> None:
    mirrored = MEAN_FACE[MIRROR] * [-1, 1, 1] + [256, 0, 0]
    assert mirrored == pytest.approx(MEAN_FACE, abs=0.02)


def test_saving_keeps_a_sixteenth_of_a_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = load_motion("talking").points + 0.03
    save_motion(tmp_path / "again.npz", track, Fraction(24000, 1001))
    monkeypatch.setattr("realtime.motion.FOLDER", tmp_path)
    again = load_motion("again")
    assert again.frame_rate == Fraction(24000, 1001)
    assert np.abs(again.points - track).max() <= 1 / 16
    with pytest.raises(ValueError, match=r"moves 100\.0 pixels"):
        save_motion(tmp_path / "jump.npz", np.stack([track[0], track[0] + 100]), Fraction(25))
