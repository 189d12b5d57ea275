"""The head's points that no landmark marks, regressed from the landmarks."""

from pathlib import Path

import numpy as np
import pytest

import run
from realtime.errors import InputError
from realtime.landmarks import FACEMESH, LIPS, MIRROR, MOUTH_CORNERS
from realtime.pose import MEAN_FACE
from tests.drawn import portrait_mesh, write_drawn
from trainer.data import Pictures
from trainer.head import CENTRE, HEAD, OUTLINE, fit, fit_head, head_mirror, mean_face
from trainer.mesh import turn
from trainer.prepare import PICTURE_SIZE, Picture, save


def heads(count: int, rng: np.random.Generator) -> np.ndarray:
    """Meshes (N, 478, 2) of which only landmarks and outline matter: a circle around the mean face, shifted."""
    mesh = np.zeros((count, 478, 2))
    mesh[:, FACEMESH] = MEAN_FACE[:, :2]
    angle = np.linspace(0, 2 * np.pi, len(OUTLINE), endpoint=False)
    mesh[:, OUTLINE] = CENTRE + 80 * np.column_stack([np.sin(angle), -np.cos(angle)])
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


def write_smiles(path: Path, kinds: tuple[str, ...]) -> np.ndarray:
    """Stills of five people, whose heads differ in place, size and pose; what a smile adds to a face (56, 3)."""
    image, mesh = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 3), np.uint8), portrait_mesh()
    smile = np.zeros((56, 3), np.float32)
    smile[LIPS] = 0, -1, 2
    smile[MOUTH_CORNERS] = [(-6, -3, 4), (6, -3, 4)]
    rng, pictures = np.random.default_rng(0), []
    for number in range(5):
        for kind in kinds:
            face, pose = mesh.astype(np.float64), turn(0, 0, 0.1 * number)
            if kind == "smiling":
                face[FACEMESH] += smile
                pose = turn(*rng.normal(0, 0.1, 3))
            face = (face - face.mean(0)) @ pose.T * (0.6 + 0.1 * number) + [160, 150, 0] + rng.normal(0, 5, 3)
            pictures.append(Picture(image, face.astype(np.float32), f"{number}_{kind}.jpg", f"person {number}", ""))
    save(pictures, path)
    return smile


def test_a_mean_face_and_its_smile_are_found_whatever_the_pose(tmp_path: Path) -> None:
    smile = write_smiles(tmp_path / "data.npz", ("neutral", "smiling"))
    face, added = mean_face(Pictures(tmp_path / "data.npz"))
    assert face[MIRROR] * [-1, 1, 1] + [256, 0, 0] == pytest.approx(face, abs=0.01)
    assert face[[18, 22, 26, 30], 2].mean() == pytest.approx(0, abs=0.01)
    assert np.abs(face - MEAN_FACE).max() < 25  # a face, in the place of a crop
    grown = np.linalg.norm(added[MOUTH_CORNERS]) / np.linalg.norm(smile[MOUTH_CORNERS])  # the crop has its own scale
    np.testing.assert_allclose(added, grown * smile, atol=0.15)


def test_without_smiles_there_is_no_mean_face(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_smiles(tmp_path / "data.npz", ("neutral",))
    with pytest.raises(InputError, match="nobody with one still named"):
        mean_face(Pictures(tmp_path / "data.npz"))
    paths = [f"--{name}={tmp_path / file}" for name, file in (("data", "data.npz"), ("output", "head.npz"))]
    assert run.main(["train", "head", *paths, f"--mean-face={tmp_path / 'face.npy'}"]) == 2
    assert "named *smiling" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz"]


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
