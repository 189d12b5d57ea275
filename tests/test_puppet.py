"""The way of a frame from end to end: a photo that follows a face, and holds when there is none."""

import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from realtime.alignment import cut
from realtime.errors import InputError
from realtime.faces import FaceState, PersonFinder
from realtime.landmarks import CROP_SIZE, INNER_LIPS, MIRROR, Array, pupil_distance
from realtime.photo import load_photo
from realtime.puppet import STAGES, Models, Puppet, Result
from realtime.retarget import RetargetSettings
from realtime.sources import Frame, MotionSource
from tests.facemesh import FaceMeshModels

Image = NDArray[np.uint8]

HOPPER = load_photo("hopper")
COLLINS = load_photo("collins")
WALL = np.full((480, 640, 3), 120, np.uint8)


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaceMeshModels]:
    mesh = FaceMeshModels()
    yield mesh
    mesh.close()


@pytest.fixture
def puppet(mesh: FaceMeshModels) -> Iterator[Puppet]:
    puppet = Puppet(mesh, HOPPER)
    yield puppet
    puppet.close()


def seen(image: Image, milliseconds: int) -> Frame:
    return Frame(image, None, milliseconds, Fraction(1, 1000), time.monotonic(), milliseconds)


def play(puppet: Puppet, name: str) -> tuple[list[Result], Array]:
    """The results of a motion track, and its points."""
    frames = list(MotionSource(name))
    return [puppet.animate(frame) for frame in frames], np.stack([frame.points for frame in frames])


def difference(image: Image, other: Image) -> float:
    return float(np.abs(image.astype(int) - other).mean())


def test_a_frame_without_a_face_leaves_the_photo_as_it_is(puppet: Puppet) -> None:
    result = puppet.animate(seen(WALL, 0))
    assert result.face is FaceState.UNSEEN
    assert result.points is None
    assert result.crop is None
    assert (result.image == HOPPER).all()


def test_the_first_face_is_neutral_and_leaves_the_photo_nearly_as_it_is(puppet: Puppet) -> None:
    result = puppet.animate(seen(COLLINS, 0))
    assert result.face is FaceState.FOUND
    assert result.points is not None
    assert result.points.shape == (56, 2)
    assert result.crop is not None
    assert difference(result.image, HOPPER) < 0.5


def test_a_head_that_turns_leaves_the_background_alone(puppet: Puppet) -> None:
    with closing(PersonFinder()) as finder:
        person = cv2.dilate((finder(HOPPER) > 0.5).astype(np.uint8), np.ones((81, 81))) > 0
    beside = ~person
    beside[:60] = beside[420:] = False  # of what is as high as the head
    assert beside.mean() > 0.1
    results, _ = play(puppet, "turning")
    for result in results[10::10]:
        change = np.abs(result.image.astype(int) - HOPPER).mean(-1)
        assert change[beside].mean() < 1
    assert max(difference(result.image, HOPPER) for result in results) > 8


def test_a_photo_whose_person_cannot_be_told_is_said(mesh: FaceMeshModels) -> None:
    said: list[str] = []
    Puppet(mesh, HOPPER, notify=said.append).close()
    assert not said
    face_alone = cut(HOPPER, np.float32([[2.5, 0, -480], [0, 2.5, -450]]), 400)  # neither hair nor neck
    Puppet(mesh, face_alone, notify=said.append).close()
    assert [sentence for sentence in said if sentence.startswith("no background can be told")]


def test_a_track_moves_the_mouth_and_nothing_far_from_the_face(puppet: Puppet) -> None:
    results, track = play(puppet, "talking")
    opening = np.linalg.norm(track[:, INNER_LIPS[2]] - track[:, INNER_LIPS[6]], axis=1) / pupil_distance(track)
    quiet, loud = results[0].image, results[int(opening.argmax())].image
    mouth, corner = np.s_[260:330, 220:320], np.s_[500:, :60]
    assert difference(loud[mouth], quiet[mouth]) > 3
    assert (loud[corner] == HOPPER[corner]).all()


def test_absolute_motion_from_the_photo_itself_reproduces_it(mesh: FaceMeshModels) -> None:
    puppet = Puppet(mesh, HOPPER, RetargetSettings(motion="absolute"))
    result = puppet.animate(seen(HOPPER, 0))
    puppet.close()
    assert difference(result.image, HOPPER) < 3  # half a pixel of FaceMesh's own doubt moves a flag of stripes, too


def test_a_lost_face_is_held_then_eased_back_and_never_the_source(puppet: Puppet) -> None:
    turned = cv2.warpAffine(COLLINS, cv2.getRotationMatrix2D((256, 150), 12, 1), COLLINS.shape[1::-1])
    puppet.animate(seen(COLLINS, 0))
    for stamp in range(40, 800, 40):
        moved = puppet.animate(seen(turned, stamp))
    assert difference(moved.image, HOPPER) > 2
    red = WALL * 0 + np.uint8([255, 0, 0])
    for stamp in range(800, 3200, 40):
        result = puppet.animate(seen(red, stamp))
        assert result.face is FaceState.LOST
        if stamp < 1200:
            assert difference(result.image, moved.image) < 0.01
    assert (result.image == HOPPER).all()
    again = puppet.animate(seen(turned, 3200))
    assert again.face is FaceState.REFOUND


def test_calibration_takes_the_present_face_for_neutral(puppet: Puppet) -> None:
    turned = cv2.warpAffine(COLLINS, cv2.getRotationMatrix2D((256, 150), 12, 1), COLLINS.shape[1::-1])
    puppet.animate(seen(COLLINS, 0))
    puppet.retargeter.calibrate()
    for stamp in range(40, 1500, 40):
        result = puppet.animate(seen(turned, stamp))
    assert difference(result.image, HOPPER) < 0.5


def test_every_stage_of_every_frame_is_timed(puppet: Puppet) -> None:
    stages = puppet.animate(seen(COLLINS, 0)).stages_ms
    assert tuple(stages) == STAGES
    assert all(stages[stage] > 0 for stage in STAGES)
    assert sum(stages[stage] for stage in STAGES[:-1]) == pytest.approx(stages["total"], rel=0.01)


def test_motion_tracks_pay_for_no_tracking(puppet: Puppet, mesh: FaceMeshModels) -> None:
    before = mesh.detections
    result = puppet.animate(next(MotionSource("smiling")))
    assert mesh.detections == before
    assert result.stages_ms["find"] == result.stages_ms["detect"] == 0
    assert result.face is FaceState.TRACKED


def test_another_photo_takes_over_with_the_neutral_kept(puppet: Puppet) -> None:
    puppet.animate(seen(COLLINS, 0))
    puppet.set_photo(COLLINS)
    result = puppet.animate(seen(COLLINS, 40))
    assert result.image.shape == COLLINS.shape
    assert difference(result.image, COLLINS) < 0.5


def test_a_photo_without_a_face_is_refused_and_the_old_one_stays(puppet: Puppet, mesh: FaceMeshModels) -> None:
    with pytest.raises(InputError, match="shows no face"):
        puppet.set_photo(WALL)
    assert (puppet.animate(seen(WALL, 0)).image == HOPPER).all()
    with pytest.raises(InputError, match="shows no face"):
        Puppet(mesh, WALL)


def test_a_photo_with_a_tiny_face_is_refused_with_its_size(puppet: Puppet) -> None:
    wall = np.full((240, 320, 3), 150, np.uint8)
    wall[60:150, 100:177] = cv2.resize(HOPPER, (77, 90), interpolation=cv2.INTER_AREA)
    with pytest.raises(InputError, match=r"too small: its eyes are 1\d px apart"):
        puppet.set_photo(wall)


def test_of_several_faces_in_a_photo_the_largest_is_taken_with_a_word(mesh: FaceMeshModels) -> None:
    both = np.full((500, 900, 3), 150, np.uint8)
    both[100:500, 20:361] = cv2.resize(HOPPER, (341, 400))
    both[:, 400:] = cv2.resize(COLLINS, (500, 500))
    said: list[str] = []
    puppet = Puppet(mesh, both, notify=said.append)
    moved = play(puppet, "surprise")[0][20].image
    puppet.close()
    assert said == ["the photo shows 2 faces: the largest is taken"]
    changed = np.flatnonzero((moved != both).any((0, 2)))
    larger = slice(0, 400) if np.median(changed) < 400 else slice(400, 900)
    assert (moved[:, larger] != both[:, larger]).sum() > 0.95 * (moved != both).sum()


def test_points_of_a_photo_and_of_its_mirror_image_agree(mesh: FaceMeshModels) -> None:
    points = []
    for photo in (HOPPER, np.ascontiguousarray(HOPPER[:, ::-1])):
        puppet = Puppet(mesh, photo)
        points.append(puppet.retargeter.photo_points)
        puppet.close()
    mirrored = points[1][MIRROR] * np.float32([-1, 1]) + np.float32([CROP_SIZE, 0])  # the template's axis is x = 128
    assert np.linalg.norm(mirrored - points[0], axis=1).mean() < 0.5


def test_the_models_that_ship_keep_the_rest_of_the_photo_and_move_the_face(models: Models) -> None:
    puppet = Puppet(models, HOPPER)
    results, _ = play(puppet, "talking")
    puppet.close()
    for result in results[::10]:
        assert (result.image[560:, :60] == HOPPER[560:, :60]).all()
    assert max(difference(result.image, results[0].image) for result in results) > 0.3
