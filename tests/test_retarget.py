"""Retargeting of the shipped motions to the embedded portraits."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime.alignment import cut, similarity, transform
from realtime.errors import InputError
from realtime.expression import CORNERS, LOWER_LIDS, LOWER_LIP, UPPER_LIDS, UPPER_LIP, measure_eyes
from realtime.landmarks import (
    BROWS,
    EYES,
    INNER_LIPS,
    LIPS,
    MIRROR,
    OUTER_LIPS,
    PUPILS,
    Array,
    five_points,
    heatmap_points,
    pupil_distance,
)
from realtime.motion import load_motion
from realtime.pose import MEAN_FACE, REACH, YAW, fit_pose, lift, limit_pose, project, unproject
from realtime.retarget import HOLD, RELAX, Retargeter, RetargetSettings, best_reference, parse_gains
from tests.facemesh import FaceMeshModels

PORTRAITS = Path(__file__).parents[1] / "realtime" / "portraits"
MOTIONS = ["blinking", "gaze", "smiling", "surprise", "talking", "turning"]
NEUTRAL = MEAN_FACE[:, :2]


@pytest.fixture(scope="module")
def portraits() -> dict[str, Array]:
    """The portraits' own points, (56, 2) in their aligned crops."""
    models, found = FaceMeshModels(), {}
    for name in ("hopper", "collins"):
        image = cv2.cvtColor(cv2.imread(str(PORTRAITS / f"{name}.jpg")), cv2.COLOR_BGR2RGB)
        matrix = np.float32([[1, 0, 0], [0, 1, 0]]) * np.float32(256 / max(image.shape))
        for _ in range(3):
            points, confidence = heatmap_points(models.detect(cut(image, matrix)))
            assert confidence.min() > 0.5
            in_image = transform(points, cv2.invertAffineTransform(matrix))
            matrix = similarity(five_points(in_image))
        found[name] = transform(in_image, matrix)
    models.close()
    return found


@pytest.fixture(params=["hopper", "collins"])
def photo(request: pytest.FixtureRequest, portraits: dict[str, Array]) -> Array:
    return portraits[request.param]


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


def test_the_mouth_opens_by_the_same_share_of_the_face(photo: Array) -> None:
    track = load_motion("talking").points
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
