"""The source's neutral face: given by a button, chosen as the best, and healed where it was caught badly."""

import numpy as np
import pytest

from realtime.expression import measure_eyes
from realtime.landmarks import INNER_LIPS, LIPS, OUTER_LIPS, Array
from realtime.motion import load_motion
from realtime.pose import fit_pose, lift
from realtime.retarget import Retargeter, RetargetSettings, best_reference
from tests.retargeted import NEUTRAL, lid_gaps, lip_gaps, play, with_eyes


def test_calibrate_makes_the_next_moment_neutral(photo: Array) -> None:
    smile = load_motion("smiling").points[35]
    retargeter = Retargeter(photo)
    retargeter.drive(NEUTRAL, 0.0)
    for step in range(1, 20):
        smiling = retargeter.drive(smile, step / 25)
    assert np.abs(smiling - photo).max() > 8
    retargeter.calibrate()
    eased = np.array([retargeter.drive(smile, 0.8 + step / 25) for step in range(12)])
    assert np.abs(eased[0] - smiling).max() < 0.05  # no jump
    assert np.abs(np.diff(eased, axis=0)).max() < 8
    assert np.abs(eased[-1] - photo).max() < 0.15
    retargeter.calibrate(NEUTRAL)
    for step in range(12):
        again = retargeter.drive(smile, 1.5 + step / 25)
    assert np.abs(again - smiling).max() < 0.5


def test_best_reference(portraits: dict[str, Array]) -> None:
    track = load_motion("smiling").points
    assert best_reference(track, portraits["hopper"]) not in range(20, 62)  # lips closed
    assert best_reference(track, portraits["collins"]) in range(18, 70)  # a smile
    elsewhere = track * 3 + 100
    assert best_reference(elsewhere, portraits["collins"]) == best_reference(track, portraits["collins"])


def test_the_best_reference_is_taken_live(portraits: dict[str, Array]) -> None:
    smile = portraits["collins"]
    track = np.concatenate([load_motion("smiling").points, load_motion("smiling").points])
    first, best = play(track, smile), play(track, smile, reference="best")
    assert np.abs(np.diff(best, axis=0)).max() < 12
    smiling = 72 + 35
    gap = [lip_gaps(points).mean() for points in (smile, best[smiling], first[smiling])]
    assert abs(gap[1] - gap[0]) < 0.5 * (gap[2] - gap[0])


def test_a_neutral_caught_in_a_blink_heals(photo: Array) -> None:
    track = load_motion("blinking").points
    shut = int(np.argmin([measure_eyes(points).openness.mean() for points in track]))
    driven = play(track[shut : shut + 20], photo)
    assert lid_gaps(driven[-1]).mean() == pytest.approx(lid_gaps(photo).mean(), rel=0.2)


def talking_open(gap: float) -> Array:
    """The neutral face with its lips parted by `gap` pixels."""
    face = NEUTRAL.copy()
    face[[*OUTER_LIPS[7:12], *INNER_LIPS[5:8]], 1] += gap
    return face


def test_a_blink_in_the_neutral_does_not_cost_it_its_mouth(portraits: dict[str, Array]) -> None:
    """Eyes that open while the mouth is open: the mouth was shut in the neutral, and still is neutral then."""
    photo = portraits["hopper"]
    asleep, awake = with_eyes(NEUTRAL, 0.08), talking_open(12)
    driven = play(np.stack([asleep] * 3 + [awake] * 25), photo)
    assert lid_gaps(driven[-1]).mean() == pytest.approx(lid_gaps(photo).mean(), rel=0.2)
    opened = lip_gaps(awake).mean() - lip_gaps(asleep).mean()
    assert lip_gaps(driven[-1]).mean() - lip_gaps(photo).mean() == pytest.approx(opened, rel=0.15)


def test_a_blink_in_the_neutral_is_healed_for_the_next_photo_too(portraits: dict[str, Array]) -> None:
    retargeter = Retargeter(portraits["hopper"])
    for step, points in enumerate([with_eyes(NEUTRAL, 0.08)] * 3 + [NEUTRAL] * 25):
        retargeter.drive(points, step / 25)
    retargeter.set_photo(portraits["collins"])
    for step in range(12):
        driven = retargeter.drive(NEUTRAL, 2 + step / 25)
    assert lid_gaps(driven).mean() == pytest.approx(lid_gaps(portraits["collins"]).mean(), rel=0.2)


def test_a_neutral_caught_with_an_open_mouth_heals(portraits: dict[str, Array]) -> None:
    """Once the source's lips were seen shut, they are where the photo's shut lips are, and open from there."""
    photo = portraits["hopper"]
    open_wide, shut = talking_open(12), talking_open(0)
    driven = play(np.stack([open_wide] * 3 + [shut] * 25 + [open_wide] * 3), photo, smoothing=0)
    own, opened = lip_gaps(photo).mean(), lip_gaps(open_wide).mean() - lip_gaps(shut).mean()
    assert lip_gaps(driven[2]).mean() == pytest.approx(own, abs=0.3)
    assert driven[27][LIPS] == pytest.approx(photo[LIPS], abs=2.5)
    assert np.abs(fit_pose(driven[27], lift(photo))[:4]).max() < 0.03
    assert opened - 3 < lip_gaps(driven[30]).mean() - own < opened + 0.5


def test_the_next_photo_knows_the_closed_mouth_too(portraits: dict[str, Array]) -> None:
    photo = portraits["hopper"]
    retargeter = Retargeter(photo, RetargetSettings(smoothing=0))
    for step, points in enumerate([talking_open(12)] * 3 + [talking_open(0)] * 25):
        retargeter.drive(points, step / 25)
    before = retargeter.drive(talking_open(12), 28 / 25)
    retargeter.set_photo(photo)
    after = retargeter.drive(talking_open(12), 29 / 25)
    assert lip_gaps(after) == pytest.approx(lip_gaps(before), abs=0.5)


def test_one_bad_frame_and_lips_ajar_are_no_closed_mouth(portraits: dict[str, Array]) -> None:
    photo = portraits["hopper"]
    talk = talking_open(12)
    driven = play(np.stack([talk] * 10 + [talking_open(0)] + [talk] * 20), photo, smoothing=0)
    assert np.abs(lip_gaps(driven[-1]) - lip_gaps(driven[0])).max() < 3
    ajar = play(
        np.stack([talking_open(1.5)] * 3 + [talking_open(0)] * 30 + [talking_open(1.5)] * 5), photo, smoothing=0
    )
    assert lip_gaps(ajar[-1]) == pytest.approx(lip_gaps(ajar[0]), abs=0.1)
