"""Retargeting of the shipped motions to the embedded portraits."""

import numpy as np
import pytest

from realtime.alignment import similarity, transform
from realtime.errors import InputError
from realtime.expression import CORNERS, LOWER_LIDS, UPPER_LIDS, measure_eyes
from realtime.landmarks import BROWS, EYES, LIPS, MIRROR, PUPILS, Array, five_points, pupil_distance
from realtime.motion import load_motion
from realtime.pose import MEAN_FACE, REACH, YAW, fit_pose, lift, limit_pose, project, unproject
from realtime.retarget import HOLD, RELAX, Retargeter, RetargetSettings, parse_gains
from tests.retargeted import NEUTRAL, lid_gaps, lip_gaps, play, with_eyes

MOTIONS = ["blinking", "gaze", "smiling", "surprise", "talking", "turning"]


@pytest.mark.parametrize("openness", [None, 0.15, 0.40])
@pytest.mark.parametrize("motion", ["blinking", "gaze", "smiling"])
def test_blinks_fully_close_any_eye(motion: str, openness: float | None, photo: Array) -> None:
    track = load_motion(motion).points
    shape = photo if openness is None else with_eyes(photo, openness)
    driven = play(track, shape)
    shut = np.argmin([measure_eyes(points).openness.max() for points in track])
    assert np.abs(lid_gaps(driven[shut])).max() < 0.04
    assert lid_gaps(driven[0]) == pytest.approx(lid_gaps(shape), abs=0.01)


def test_a_closed_eye_of_facemesh_is_closed(photo: Array) -> None:
    """FaceMesh leaves a tenth of the eye's width between lids that are shut."""
    driven = play(np.stack([NEUTRAL] + [with_eyes(NEUTRAL, 0.10)] * 3), photo)
    assert np.abs(lid_gaps(driven[-1])).max() < 0.04


def test_one_eye_may_wink(photo: Array) -> None:
    wink = NEUTRAL.copy()
    wink[EYES[8:]] = with_eyes(NEUTRAL, 0.05)[EYES[8:]]
    gaps = lid_gaps(play(np.stack([NEUTRAL, wink, wink]), photo)[-1])
    assert np.abs(gaps[1]).max() < 0.04
    assert gaps[0].mean() > 0.9 * lid_gaps(photo)[0].mean()


@pytest.mark.parametrize("motion", MOTIONS)
def test_faces_stay_faces(motion: str, photo: Array) -> None:
    driven = play(load_motion(motion).points, photo)
    assert driven.dtype == np.float32
    assert driven.min() > 0
    assert driven.max() < 255
    for points in driven:
        eyes = measure_eyes(points)
        assert lid_gaps(points).min() > -0.02  # lids and lips do not cross
        assert lid_gaps(points).max() < 0.6
        assert lip_gaps(points).min() > min(-0.5, lip_gaps(photo).min() - 0.3)
        assert np.abs(eyes.gaze[:, 0]).max() < 0.4  # pupils stay in the eye
        assert np.hypot(*(points[40] - points[34])) < 1.35 * pupil_distance(points)
        assert points[BROWS, 1].max() < points[EYES, 1].max()


def test_a_shut_mouth_opens_by_the_same_share_of_the_face(portraits: dict[str, Array]) -> None:
    track = load_motion("talking").points
    photo = portraits["hopper"]
    driven = play(track, photo, smoothing=0)
    carried = np.array([lip_gaps(points).mean() for points in driven]) - lip_gaps(photo).mean()
    source = np.array([lip_gaps(points).mean() for points in track])
    shares = carried / pupil_distance(photo), (source - source[0]) / pupil_distance(track[0])
    assert shares[1].max() > 0.15
    assert np.abs(shares[0] - shares[1]).max() < 0.15 * shares[1].max()


def test_the_mouth_closes_when_the_source_closes_it(portraits: dict[str, Array]) -> None:
    track = load_motion("talking").points
    widest = track[track[:, 52, 1].argmax()]
    smile = portraits["collins"]
    assert lip_gaps(smile).max() > 3
    driven = play(np.stack([widest, NEUTRAL, NEUTRAL]), smile, smoothing=0, head=0)
    assert np.abs(lip_gaps(driven[-1])).max() < 1


def test_an_open_smile_opens_on_but_not_by_both_gaps(portraits: dict[str, Array]) -> None:
    track = load_motion("talking").points
    smile = portraits["collins"]
    own = lip_gaps(smile).mean()
    source = np.array([lip_gaps(points).mean() for points in track]) * pupil_distance(smile) / pupil_distance(track[0])
    open_by = source - source[0]
    driven = np.array([lip_gaps(points).mean() for points in play(track, smile, smoothing=0, head=0)])
    widest = open_by.argmax()
    assert max(own, open_by[widest]) + 1 < driven[widest] < own + open_by[widest] - 1
    assert np.corrcoef(driven, open_by)[0, 1] > 0.9


@pytest.mark.parametrize(("gain", "part"), [("mouth", LIPS), ("eyes", EYES), ("brows", BROWS), ("gaze", PUPILS)])
def test_gains_scale_their_part_alone(gain: str, part: Array, photo: Array) -> None:
    track = np.concatenate([load_motion(name).points[::3] for name in ("surprise", "gaze", "talking")])
    others = np.setdiff1d(np.arange(56), PUPILS if gain == "eyes" else [])  # lids may push a pupil
    others = np.setdiff1d(others, part)
    usual = play(track, photo, head=0, smoothing=0)
    none = play(track, photo, head=0, smoothing=0, **{gain: 0})
    more = play(track, photo, head=0, smoothing=0, **{gain: 1.5})
    assert np.abs(usual[:, part] - photo[part]).max() > 1
    if gain != "gaze":  # closing lids take the pupil along
        assert none[:, part] == pytest.approx(
            np.broadcast_to(photo[part], none[:, part].shape), abs=0.15
        )  # lips that cross in the photo are uncrossed
    assert none[:, others] == pytest.approx(usual[:, others], abs=0.01)
    assert more[:, others] == pytest.approx(usual[:, others], abs=0.01)
    size = [np.abs(driven[:, part] - photo[part]).mean() for driven in (none, usual, more)]
    assert size[0] < size[1] < size[2] < 1.6 * size[1]


def test_head_gain(photo: Array) -> None:
    track = load_motion("turning").points
    assert np.abs(play(track, photo, head=0) - photo).max() < 4
    half, whole = (
        np.array([fit_pose(points, lift(photo))[YAW] for points in play(track, photo, smoothing=0, head=head)])
        for head in (0.5, 1)
    )
    assert np.ptp(whole) > np.radians(20)
    assert np.ptp(half) == pytest.approx(0.5 * np.ptp(whole), rel=0.15)


def test_a_turn_is_seen_and_given(photo: Array) -> None:
    pose = np.array([0.05, 0.1, 0.25, -0.12, 4.0, -6.0])
    error = np.abs(fit_pose(project(MEAN_FACE, pose), MEAN_FACE) - pose)
    assert (error < [0.02, 0.02, 0.03, 0.03, 0.5, 0.5]).all()
    driven = play(np.stack([NEUTRAL, project(MEAN_FACE, pose)]), photo, smoothing=0)[-1]
    assert np.abs(driven - project(lift(photo), pose)).mean() < 0.5
    assert unproject(project(MEAN_FACE, pose), MEAN_FACE[:, 2], pose) == pytest.approx(NEUTRAL, abs=0.01)


def test_head_motion_has_soft_limits(photo: Array) -> None:
    wild = [
        NEUTRAL + np.float32([300, -200]),
        transform(NEUTRAL, np.float32([[0.5, -0.87, 150], [0.87, 0.5, -40]])),  # 60 degrees
        (NEUTRAL - 128) * 1.8 + 128,
        (NEUTRAL - 128) * 0.4 + 128,
        project(MEAN_FACE, np.array([0, 0, 0.75, 0.6, 0, 0])),
    ]
    for points in wild:
        driven = play(np.stack([NEUTRAL, points]), photo, smoothing=0)[-1]
        pose = fit_pose(driven, lift(photo))
        assert (np.abs(pose) < REACH + [0.05, 0.03, 0.08, 0.15, 2, 2]).all()  # the face's change adds a little
        assert driven.min() >= 2
        assert driven.max() <= 253
    gentle = 0.5 * REACH
    assert limit_pose(gentle) == pytest.approx(gentle)
    assert (np.abs(limit_pose(100 * REACH)) <= REACH).all()


@pytest.mark.parametrize(("own", "share"), [(0.0, 1.0), (0.1, 1.0), (0.5, 0.5), (-0.5, 0.5)])
def test_a_photo_that_looks_away_turns_half_as_far(own: float, share: float) -> None:
    face = project(MEAN_FACE, np.array([0, 0, own, 0, 0, 0]))
    for yaw in (-0.6, 0.6):
        driven = play(np.stack([NEUTRAL, project(MEAN_FACE, np.array([0, 0, yaw, 0, 0, 0]))]), face, smoothing=0)[-1]
        turned = fit_pose(driven, lift(face))[YAW]
        assert turned * np.sign(yaw) == pytest.approx(share * REACH[YAW], rel=0.15)


def test_a_still_source_gives_a_still_picture(photo: Array) -> None:
    noisy = NEUTRAL + np.random.default_rng(1).normal(0, 0.3, (200, 56, 2)).astype(np.float32)
    shaking = play(noisy, photo, 30, smoothing=0)[30:].std(0).mean()
    assert play(noisy, photo, 30)[30:].std(0).mean() < shaking / 3
    held = np.repeat(load_motion("smiling").points[30][None], 60, 0)
    assert np.ptp(play(np.concatenate([NEUTRAL[None], held]), photo)[30:], axis=0).max() < 0.02


@pytest.mark.parametrize("motion", MOTIONS)
def test_self_reenactment(motion: str) -> None:
    """With the photo's own face as the source, absolute motion is exact and relative motion nearly so."""
    track = load_motion(motion).points
    photo = transform(track[0], matrix := similarity(five_points(track[0])))
    expected = transform(track, matrix)
    absolute = play(track * 2.5 + 40, photo, motion="absolute")
    assert np.abs(absolute - expected).max() < 0.01
    error = np.linalg.norm(play(track * 2.5 + 40, photo) - expected, axis=-1)
    assert error.mean() < 1
    assert error.mean(1).max() < 3


def test_absolute_motion_takes_over_the_sources_shape(photo: Array) -> None:
    driven = play(np.stack([NEUTRAL, NEUTRAL]), photo, motion="absolute")[-1]
    assert np.abs(five_points(driven) - five_points(photo)).mean() < 6
    assert np.abs(driven - photo).max() > 1
    assert np.abs(play(np.stack([NEUTRAL]), photo)[0] - photo).max() < 0.15


@pytest.mark.parametrize("motion", ["smiling", "turning", "gaze"])
def test_the_sources_size_place_and_tilt_do_not_matter(motion: str, photo: Array) -> None:
    track = load_motion(motion).points
    elsewhere = transform(track, np.float32([[2.6, -0.9, 700], [0.9, 2.6, 90]]))
    assert np.abs(play(track, photo) - play(elsewhere, photo)).max() < 0.05


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_mirrored_source_drives_a_mirrored_photo(motion: str, photo: Array) -> None:
    def mirrored(points: Array) -> Array:
        return (points[..., MIRROR, :] * [-1, 1] + [255, 0]).astype(np.float32)

    track = load_motion(motion).points[::2]
    assert np.abs(mirrored(play(track, photo)) - play(mirrored(track), mirrored(photo))).max() < 0.1


def test_a_lost_face_is_held_then_relaxes_and_rejoins_without_a_jump(photo: Array) -> None:
    smile = load_motion("smiling").points[35]
    retargeter = Retargeter(photo)
    assert retargeter.lost(0.0) == pytest.approx(photo)
    retargeter.drive(NEUTRAL, 0.0)
    for step in range(1, 26):
        last = retargeter.drive(smile, step / 25)
    times = 1.0 + np.arange(1, 60) / 25
    gone = np.array([retargeter.lost(time) for time in times])
    held = times - times[0] < HOLD
    assert (gone[held] == last).all()
    assert np.abs(np.diff(gone, axis=0)).max() < 2.5
    assert np.abs(gone[times > times[0] + HOLD + RELAX + 0.1] - photo).max() < 0.01
    back = np.array([retargeter.drive(smile, times[-1] + step / 25) for step in range(1, 10)])
    assert np.abs(back[0] - photo).max() < 0.05
    assert np.abs(back[-1] - last).max() < 0.5
    assert np.abs(np.diff(back, axis=0)).max() < 12


def test_photo_and_settings_change_on_the_way(portraits: dict[str, Array]) -> None:
    smile = load_motion("smiling").points[35]
    retargeter = Retargeter(portraits["hopper"])
    retargeter.drive(NEUTRAL, 0.0)
    for step in range(1, 20):
        before = retargeter.drive(smile, step / 25)
    retargeter.set_settings(RetargetSettings(mouth=0))
    eased = np.array([retargeter.drive(smile, 0.8 + step / 25) for step in range(12)])
    assert np.abs(eased[0] - before).max() < 0.05
    assert np.abs(eased[-1] - before)[LIPS].max() > 5
    retargeter.set_settings(RetargetSettings())
    retargeter.set_photo(portraits["collins"])
    fresh = Retargeter(portraits["collins"])
    fresh.drive(NEUTRAL, 0.0)
    for step in range(1, 20):
        expected = fresh.drive(smile, step / 25)
        driven = retargeter.drive(smile, 1.5 + step / 25)
    assert np.abs(driven - expected).max() < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"motion": "copied"}, "'copied' is unknown: relative or absolute"),
        ({"reference": "last"}, "'last' is unknown: first or best"),
        ({"mouth": -1.0}, r"mouth=-1\.0 is out of range"),
        ({"head": float("nan")}, "head=nan is out of range"),
        ({"smoothing": float("inf")}, "smoothing=inf is out of range"),
        ({"motion": "absolute", "eyes": 1.5}, "gains need relative motion"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RetargetSettings(**settings)


def test_gains_as_users_write_them() -> None:
    assert parse_gains(["mouth=1.2", "head=0"]) == {"mouth": 1.2, "head": 0.0}
    assert RetargetSettings(**parse_gains(["eyes=2"])).eyes == 2
    with pytest.raises(InputError, match="'nose=2' names no part of the face: one of mouth, eyes"):
        parse_gains(["nose=2"])
    for text in ("mouth", "mouth=", "mouth=big"):
        with pytest.raises(InputError, match=r"has no number: mouth=1\.2"):
            parse_gains([text])


def test_points_that_are_not_finite_are_refused(photo: Array) -> None:
    with pytest.raises(ValueError, match="finite"):
        Retargeter(photo).drive(np.full((56, 2), np.nan, np.float32), 0.0)


def test_eye_corners_are_the_eyes_ends() -> None:
    assert set(CORNERS.ravel()) | set(UPPER_LIDS.ravel()) | set(LOWER_LIDS.ravel()) == set(EYES)
