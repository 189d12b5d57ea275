"""Finding and following faces, on real portraits pasted into larger scenes."""

from collections.abc import Iterator
from contextlib import closing

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime.alignment import TEMPLATE, transform
from realtime.faces import CHECK_EVERY, FaceFinder, FaceState, FaceTracker, align
from realtime.landmarks import five_points, pupil_distance
from realtime.photo import load_photo
from tests.facemesh import FaceMeshModels

Image = NDArray[np.uint8]

HOPPER = load_photo("hopper")
COLLINS = load_photo("collins")


def scene(*portraits: tuple[Image, float, float, float], size: tuple[int, int] = (640, 480)) -> Image:
    """Portraits on a grey wall: each with its width, and the place of its top-left corner."""
    wall = np.full((size[1], size[0], 3), 150, np.uint8)
    for portrait, width, x, y in portraits:
        scale = width / portrait.shape[1]
        matrix = np.float32([[scale, 0, x], [0, scale, y]])
        small = cv2.warpAffine(portrait, matrix, size, flags=cv2.INTER_AREA)
        covered = cv2.warpAffine(np.ones(portrait.shape[:2], np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
        wall = np.where(covered[..., None] > 0, small, wall)
    return wall


EMPTY = scene()


@pytest.fixture(scope="module")
def finder() -> Iterator[FaceFinder]:
    with closing(FaceFinder()) as finder:
        yield finder


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaceMeshModels]:
    mesh = FaceMeshModels()
    yield mesh
    mesh.close()


@pytest.fixture
def tracker(finder: FaceFinder, mesh: FaceMeshModels) -> FaceTracker:
    mesh.detections = 0
    return FaceTracker(mesh.detect, finder)


def middle(points: np.ndarray) -> np.ndarray:
    return five_points(points).mean(0)


def test_the_largest_of_several_faces_comes_first(finder: FaceFinder) -> None:
    faces = finder.find(scene((HOPPER, 200, 20, 60), (COLLINS, 330, 280, 40)))
    assert len(faces) == 2
    small, large = sorted(faces, key=lambda face: face[0, 0])
    assert (faces[0] == large).all()
    assert np.ptp(large[:, 0]) > np.ptp(small[:, 0])


def test_nothing_is_found_where_nothing_is(finder: FaceFinder) -> None:
    assert finder.find(EMPTY) == []


def test_a_face_far_away_is_found(finder: FaceFinder) -> None:
    far = finder.find(scene((HOPPER, 110, 500, 200), size=(1280, 720)))
    assert len(far) == 1
    np.testing.assert_allclose(far[0].mean(0), (500 + 110 * 0.52, 200 + 110 * 0.42), atol=12)


def test_points_of_a_found_face_lie_in_its_eyes(tracker: FaceTracker) -> None:
    face = tracker.track(HOPPER)
    assert face is not None
    left, right = five_points(face.points)[:2]
    np.testing.assert_allclose(left, (225, 195), atol=8)
    np.testing.assert_allclose(right, (306, 190), atol=8)
    np.testing.assert_allclose(transform(five_points(face.points), face.matrix), TEMPLATE, atol=14)
    assert face.crop.shape == (256, 256, 3)


def test_states_from_unseen_over_lost_to_found_again(tracker: FaceTracker) -> None:
    here, there = scene((HOPPER, 300, 30, 60)), scene((HOPPER, 300, 310, 80))
    states = []
    for image in (EMPTY, here, here, EMPTY, EMPTY, there, there):
        face = tracker.track(image)
        states.append(tracker.state)
        assert (face is None) == (tracker.state in (FaceState.UNSEEN, FaceState.LOST))
    unseen, found, tracked, lost, refound = FaceState
    assert states == [unseen, found, tracked, lost, lost, refound, tracked]


def test_a_cut_to_another_place_is_found_again_in_the_same_frame(tracker: FaceTracker) -> None:
    tracker.track(scene((HOPPER, 200, 10, 10)))
    face = tracker.track(scene((HOPPER, 250, 380, 150)))
    assert face is not None
    assert tracker.state is FaceState.REFOUND
    np.testing.assert_allclose(middle(face.points), (380 + 250 * 0.52, 150 + 250 * 0.42), atol=15)


def test_once_found_a_face_costs_one_detection_a_frame(tracker: FaceTracker, mesh: FaceMeshModels) -> None:
    image = scene((HOPPER, 300, 100, 60))
    tracker.track(image)
    found = mesh.detections
    for _ in range(5):
        tracker.track(image)
    assert mesh.detections == found + 5


def test_a_larger_second_face_does_not_steal_the_track(tracker: FaceTracker, finder: FaceFinder) -> None:
    alone = scene((HOPPER, 220, 10, 100))
    both = scene((HOPPER, 220, 10, 100), (COLLINS, 400, 230, 0))
    assert finder.find(both)[0][:, 0].min() > 230
    first = tracker.track(alone)
    assert first is not None
    for _ in range(CHECK_EVERY + 2):  # past the next question to MediaPipe
        face = tracker.track(both)
        assert face is not None
        assert tracker.state is FaceState.TRACKED
        np.testing.assert_allclose(middle(face.points), middle(first.points), atol=4)


def test_a_moving_face_is_followed_to_the_pixel(tracker: FaceTracker) -> None:
    first = tracker.track(scene((HOPPER, 300, 40, 60)))
    assert first is not None
    for step in range(1, 21):
        face = tracker.track(scene((HOPPER, 300, 40 + 10 * step, 60 + 2 * step)))
        assert face is not None
        assert tracker.state is FaceState.TRACKED
        np.testing.assert_allclose(face.points - first.points, np.tile((10 * step, 2 * step), (56, 1)), atol=4)


def test_the_crop_keeps_still_while_the_face_does(tracker: FaceTracker) -> None:
    first = tracker.track(scene((HOPPER, 300, 100, 60)))
    assert first is not None
    for x, y in ((101, 60), (102, 61), (100, 59)):
        face = tracker.track(scene((HOPPER, 300, x, y)))
        assert face is not None
        np.testing.assert_array_equal(face.matrix, first.matrix)
    for x in (110, 120, 120):
        face = tracker.track(scene((HOPPER, 300, x, 60)))
    assert face is not None
    assert not np.array_equal(face.matrix, first.matrix)


def test_still_frames_with_camera_noise_give_still_points(tracker: FaceTracker) -> None:
    clean, random = scene((HOPPER, 300, 100, 60)), np.random.default_rng(0)
    track = []
    for _ in range(12):
        noisy = np.clip(clean + random.normal(0, 2, clean.shape), 0, 255).astype(np.uint8)
        face = tracker.track(noisy)
        assert face is not None
        track.append(face.points)
    assert np.std(track, axis=0).mean() < 0.01 * pupil_distance(track[0])


def test_alignment_of_points_puts_the_eyes_where_the_template_has_them(tracker: FaceTracker) -> None:
    face = tracker.track(HOPPER)
    assert face is not None
    eyes = transform(five_points(face.points), align(face.points))[:2]
    np.testing.assert_allclose(eyes, TEMPLATE[:2], atol=10)


def test_finding_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with closing(FaceFinder()) as finder:
        finder.find(HOPPER)
    assert capfd.readouterr() == ("", "")
