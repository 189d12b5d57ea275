"""Heads: what is seen of a photo's, how it moves, and the maps that are fitted for it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

import run
from realtime.alignment import cut, similarity, transform
from realtime.errors import InputError
from realtime.faces import MeshFinder, PersonFinder
from realtime.head import (
    AROUND,
    CELL,
    HEAD,
    MARGIN,
    NEAR,
    OUTLINE_COUNT,
    OVAL,
    RIM,
    RINGS,
    STRETCH,
    HeadFinder,
    cells_of,
    head_mirror,
    make_head,
    ring_points,
    ring_shift,
    silhouette,
)
from realtime.landmarks import CROP_SIZE, FACEMESH, LIPS, MIRROR, MOUTH_CORNERS, five_points
from realtime.photo import load_photo
from realtime.pose import MEAN_FACE, project
from realtime.prior import CROP_CELLS, flow_prior
from tests.drawn import portrait_mesh, write_drawn
from trainer.data import Pictures
from trainer.head import CENTRE, MODES, NOISE, fit, fit_expressions, fit_head, mean_face
from trainer.mesh import turn
from trainer.prepare import PICTURE_SIZE, Picture, save

FACE = MEAN_FACE[:, :2].astype(np.float32)


@pytest.fixture(scope="module")
def finder() -> Iterator[HeadFinder]:
    with closing(HeadFinder()) as finder:
        yield finder


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray]:
    """A portrait's crop with the margin around it, and FaceMesh's points (478, 2) in crop pixels."""
    photo = load_photo("collins")
    with closing(MeshFinder(video=False)) as finder:
        mesh = finder(photo)
        assert mesh is not None
        matrix = similarity(five_points(mesh[FACEMESH, :2]))
        wide = cut(photo, np.column_stack([matrix[:, :2], matrix[:, 2] + MARGIN]), CROP_SIZE + 2 * MARGIN)
        mesh = finder(wide)
    assert mesh is not None
    return wide, mesh[:, :2] - MARGIN


def test_a_photos_own_outline_is_seen(finder: HeadFinder, seen: tuple[np.ndarray, np.ndarray]) -> None:
    picture, mesh = seen
    head = finder.find(picture, mesh[FACEMESH])
    np.testing.assert_allclose(head.own[OUTLINE_COUNT:], mesh[HEAD[OUTLINE_COUNT:]], atol=1e-3)
    assert np.linalg.norm(head.own[:OUTLINE_COUNT] - mesh[OVAL], axis=1).max() < 2 * RIM
    regressed = make_head(mesh[FACEMESH]).own
    assert 1 < np.linalg.norm(regressed - head.own, axis=1).mean() < 15, "which is not everybody's"


def test_a_photos_background_stays_and_its_hair_comes_along(
    finder: HeadFinder, seen: tuple[np.ndarray, np.ndarray]
) -> None:
    picture, mesh = seen
    points = mesh[FACEMESH].astype(np.float32)
    head = finder.find(picture, points)
    assert (head.apart[0] < 4).mean() > 0.8, "the innermost ring is on hair, ears and neck"
    assert head.apart[-1].max() > 20, "the outermost is not"
    flow = flow_prior(points + np.float32([12, 0]), head, margin=MARGIN)
    person = cv2.dilate(person_near(picture), np.ones((41, 41)))
    far = cv2.resize(person, flow.shape[:0:-1], interpolation=cv2.INTER_NEAREST) == 0
    assert far.mean() > 0.1
    assert np.abs(flow[:, far]).mean() < 0.6
    unseen = flow_prior(points + np.float32([12, 0]), make_head(points), margin=MARGIN)
    assert np.abs(unseen[0, far]).mean() > 2, "of which nothing is known without the mask"
    crown = np.round(points[:18].mean(0) / 2 - [0, 30]).astype(int)
    assert flow[CROP_CELLS][0, crown[1], crown[0]] == pytest.approx(-12, abs=1)


def person_near(picture: np.ndarray) -> np.ndarray:
    """Where MediaPipe sees a person in a picture: (S, S) uint8."""
    with closing(PersonFinder()) as finder:
        return (finder(picture) > 0.5).astype(np.uint8)


def test_a_face_that_mediapipe_does_not_see_is_told_by_its_landmarks(finder: HeadFinder) -> None:
    blank = np.full((CROP_SIZE, CROP_SIZE, 3), 90, np.uint8)
    head, told = finder.find(blank, FACE), make_head(FACE)
    np.testing.assert_array_equal(head.vertices, told.vertices)
    assert not head.apart.any(), "nor is it known where there is a person"


def test_a_mesh_of_another_face_is_not_taken(finder: HeadFinder, seen: tuple[np.ndarray, np.ndarray]) -> None:
    picture, mesh = seen
    elsewhere = mesh[FACEMESH] + np.float32([40, 0])
    np.testing.assert_array_equal(finder.find(picture, elsewhere).own, make_head(elsewhere).own)


@pytest.mark.parametrize("margin", [0, 64])
def test_distances_from_a_person_are_in_crop_pixels(margin: int) -> None:
    cells = (CROP_SIZE + 2 * margin) // CELL
    person = np.zeros((cells, cells), bool)
    person[:, : (200 + margin) // CELL] = True  # all that is left of 200, the face, too
    head = make_head(FACE, None, person, cells_of(margin))
    np.testing.assert_allclose(head.apart, np.clip(head.rings[..., 0], 200, CROP_SIZE + margin) - 200, atol=CELL)


def test_rings_follow_the_head_and_leave_the_background() -> None:
    shift = np.tile(np.float32([30, 0]), (OUTLINE_COUNT, 1))
    rings = np.full((len(RINGS), OUTLINE_COUNT, 2), 127.5, np.float32)
    apart = np.zeros(rings.shape[:2], np.float32)
    on_person = ring_shift(shift, rings, apart)
    np.testing.assert_allclose(on_person[:, 0], shift[: len(RINGS)], err_msg="above, hair follows fully")
    np.testing.assert_allclose(on_person[:, OUTLINE_COUNT // 2, 0], [30 * below for _, below in RINGS], rtol=1e-5)
    beyond = np.full_like(rings, -MARGIN / 2)
    np.testing.assert_allclose(ring_shift(shift, beyond, apart), on_person / 2, rtol=1e-5)
    reach = NEAR + STRETCH * 30
    for away, share in ((0.5 * reach, 0.5), (reach, 0), (2 * reach, 0)):
        np.testing.assert_allclose(ring_shift(shift, rings, apart + away), share * on_person, atol=1e-4)
    # what is between a person that moves and what stays is drawn together, and never folded
    assert 30 / reach < 1


def test_an_outline_goes_around_the_brows() -> None:
    mesh = np.zeros((478, 2), np.float32)
    mesh[HEAD] = make_head(FACE).own
    tail = int(np.argmin(FACE[:18, 0]))
    narrow = mesh.copy()
    narrow[OVAL, 0] = np.clip(narrow[OVAL, 0], FACE[tail, 0] + 5, None)  # a temple inside the brow's end
    outline = make_head(FACE, narrow).own[:OUTLINE_COUNT]
    assert cv2.pointPolygonTest(outline[:, None], FACE[tail].tolist(), True) > 0
    assert cv2.pointPolygonTest(narrow[OVAL][:, None], FACE[tail].tolist(), True) < 0


def test_rings_stay_inside_the_margin() -> None:
    large = 3 * (make_head(FACE).own[:OUTLINE_COUNT] - 127.5) + 127.5
    rings = ring_points(large)
    assert rings.min() >= -MARGIN + 8
    assert rings.max() <= CROP_SIZE - 1 + MARGIN - 8


def test_the_outline_is_regressed_around_the_head() -> None:
    head = make_head(FACE)
    shift = head.moved(FACE + np.float32([3, 2])) - head.vertices
    np.testing.assert_allclose(shift[56 : 56 + len(HEAD)], np.tile([3, 2], (len(HEAD), 1)), atol=0.4)
    outline, half = head.own[:OUTLINE_COUNT], OUTLINE_COUNT // 2
    assert (outline[0, 1] < FACE[:, 1].min()) & (outline[half, 1] > FACE[:, 1].max()), "from the forehead to the chin"
    assert (outline[1:half, 0] > outline[:half:-1, 0]).all(), "clockwise"


@pytest.mark.parametrize("yaw", [-0.25, 0.25])
def test_a_nose_turns_farther_than_the_face_behind_it(yaw: float) -> None:
    turned = project(MEAN_FACE, np.array([0, 0, yaw, 0, 0, 0]))
    head = make_head(FACE)
    nose = (head.moved(turned) - head.vertices)[56 + HEAD.tolist().index(1), 0]  # FaceMesh's vertex of its tip
    eyes = (turned - FACE)[[22, 26], 0].mean()
    assert abs(nose - eyes) > 4
    assert abs(nose) > abs(eyes)


def test_an_outline_is_pushed_out_only_where_the_head_came_beyond_it() -> None:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.column_stack([np.sin(angle), -np.cos(angle)]).astype(np.float32)  # clockwise in a picture
    outline, inner = 100 * circle, 80 * circle
    for size in (0.3, 1.0, 2.0):
        turn = similarity(np.float32([[0, 0], [1, 0]]), np.float32([[5, 3], [5 + 0.9 * size, 3 + 0.4 * size]]))
        rolled = transform(outline, turn), transform(inner, turn)
        np.testing.assert_allclose(silhouette(outline, inner, *rolled), rolled[0], atol=1e-3)
    moved = outline.copy()
    moved[3] -= [60, 0]  # a cheek that turned away
    pushed = silhouette(outline, inner, moved, inner)
    np.testing.assert_allclose(pushed[3], [80 + AROUND * 20, 0], atol=1e-3)
    np.testing.assert_allclose(np.delete(pushed, 3, 0), np.delete(outline, 3, 0), atol=1e-3)


def heads(count: int, rng: np.random.Generator) -> np.ndarray:
    """Meshes (N, 478, 2) of which only landmarks and outline matter: a circle around the mean face, shifted."""
    mesh = np.zeros((count, 478, 2))
    mesh[:, FACEMESH] = MEAN_FACE[:, :2]
    angle = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    mesh[:, OVAL] = CENTRE + 80 * np.column_stack([np.sin(angle), -np.cos(angle)])
    return mesh + rng.normal(0, 4, (count, 1, 2))


def test_an_outline_that_moves_with_the_face_is_found() -> None:
    rng = np.random.default_rng(0)
    rest = heads(400, rng)
    maps = fit_head(rest, rest + rng.normal(0, 6, (400, 1, 2)))
    shift = np.tile([5.0, -3.0], (56, 1)).ravel() @ maps["shift"]
    np.testing.assert_allclose(shift.reshape(-1, 2), np.tile([5, -3], (len(HEAD), 1)), atol=0.2)
    points = MEAN_FACE[:, :2] + [3, 0] - CENTRE
    own = (np.append(points, 1) @ maps["own"]).reshape(-1, 2) + CENTRE
    np.testing.assert_allclose(own[0], [CENTRE + 3, CENTRE - 80], atol=0.6)


def test_what_is_fitted_is_symmetric() -> None:
    rng = np.random.default_rng(1)
    rest = heads(50, rng)
    maps = fit_head(rest, rest + rng.normal(0, 3, rest.shape))
    change = rng.normal(0, 3, (56, 2))
    one, other = ((c.ravel() @ maps["shift"]).reshape(-1, 2) for c in (change, change[MIRROR] * [-1, 1]))
    np.testing.assert_allclose(one, other[head_mirror()] * [-1, 1], atol=1e-4)


def test_noise_in_one_landmark_hardly_moves_the_head() -> None:
    with np.load(Path(__file__).parents[1] / "realtime" / "head.npz") as maps:
        gain = np.linalg.norm(maps["shift"], axis=0)
    assert gain.max() < 2


def test_a_folder_of_faces_is_fitted(tmp_path: Path) -> None:
    write_drawn(tmp_path / "data.npz", stills=4, held_out_stills=2, frames=5, wander=3)
    error = fit(Pictures(tmp_path / "data.npz"), tmp_path / "head.npz", count=50)
    assert error == pytest.approx(0, abs=3)
    with np.load(tmp_path / "head.npz") as maps:
        assert maps["own"].shape == (113, 2 * len(HEAD))
        assert maps["shift"].shape == (112, 2 * len(HEAD))
        assert maps["expressions"].shape == (MODES, 56, 3)
        assert maps["trust"].shape == (56, 2)


def write_people(path: Path, kind: str) -> None:
    """A still each of five people, whose heads differ in place and size."""
    image, mesh = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8), portrait_mesh()
    rng, pictures = np.random.default_rng(0), []
    for number in range(5):
        face = (mesh - mesh.mean(0)) @ turn(0, 0, 0.1 * number).T * (0.6 + 0.1 * number) + [160, 150, 0]
        face = (face + rng.normal(0, 5, 3)).astype(np.float32)
        pictures.append(Picture(image, face, f"{number}_{kind}.jpg", f"person {number}", ""))
    save(pictures, path)


def test_a_mean_face_is_found_wherever_it_is(tmp_path: Path) -> None:
    write_people(tmp_path / "data.npz", "neutral")
    face = mean_face(Pictures(tmp_path / "data.npz"))
    assert face[MIRROR] * [-1, 1, 1] + [256, 0, 0] == pytest.approx(face, abs=0.01)
    assert face[[18, 22, 26, 30], 2].mean() == pytest.approx(0, abs=0.01)
    assert np.abs(face - MEAN_FACE).max() < 25  # a face, in the place of a crop


def test_without_neutral_stills_there_is_no_mean_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_people(tmp_path / "data.npz", "smiling")
    with pytest.raises(InputError, match=r"no still named \*neutral"):
        mean_face(Pictures(tmp_path / "data.npz"))
    paths = [f"--{name}={tmp_path / file}" for name, file in (("data", "data.npz"), ("output", "head.npz"))]
    assert run.main(["train", "head", *paths, f"--mean-face={tmp_path / 'face.npy'}"]) == 2
    assert "named *neutral" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz"]


def test_expressions_are_the_directions_in_which_faces_change() -> None:
    rng = np.random.default_rng(0)
    smile, jaw = np.zeros((2, 56, 3))
    smile[MOUTH_CORNERS] = [(-6, -3, 4), (6, -3, 4)]
    jaw[LIPS, 1] = 8
    strength = rng.normal(0, [[1.5, 0.5]], (3000, 2))
    changes = np.tensordot(strength, [smile, jaw], 1) + rng.normal(0, 0.3, (3000, 56, 3))
    fitted = fit_expressions(changes)
    for expression, size in ((smile, 1.5), (jaw, 0.5)):
        flat = size * expression.ravel()
        along = fitted["expressions"].reshape(MODES, -1) @ flat / np.linalg.norm(flat)
        assert np.linalg.norm(along) == pytest.approx(np.linalg.norm(flat), rel=0.1)
    np.testing.assert_allclose(fitted["trust"], 1 / (0.3**2 + NOISE**2), rtol=0.05)


@pytest.mark.parametrize(
    ("output", "face", "complaint"),
    [("nowhere/head.npz", "face.npy", "head.npz cannot be written"), ("head.npz", "face.npz", "end in .npy")],
)
def test_outputs_are_looked_at_before_the_pictures(
    output: str, face: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [f"--data={tmp_path / 'missing.npz'}", f"--output={tmp_path / output}", f"--mean-face={tmp_path / face}"]
    assert run.main(["train", "head", *paths]) == 2
    assert complaint in capsys.readouterr().err
