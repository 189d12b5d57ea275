"""The head's outline, regressed from the landmarks."""

from pathlib import Path

import numpy as np
import pytest

from realtime.landmarks import FACEMESH, MIRROR
from realtime.pose import MEAN_FACE
from tests.drawn import write_drawn
from trainer.data import Pictures
from trainer.head import CENTRE, OUTLINE, fit, fit_outline


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
    maps = fit_outline(rest, rest + rng.normal(0, 6, (400, 1, 2)))
    shift = np.tile([5.0, -3.0], (56, 1)).ravel() @ maps["shift"]
    np.testing.assert_allclose(shift.reshape(-1, 2), np.tile([5, -3], (18, 1)), atol=0.2)
    points = MEAN_FACE[:, :2] + [3, 0] - CENTRE
    own = (np.append(points, 1) @ maps["own"]).reshape(-1, 2) + CENTRE
    np.testing.assert_allclose(own[0], [CENTRE + 3, CENTRE - 80], atol=0.6)


def test_what_is_fitted_is_symmetric() -> None:
    rng = np.random.default_rng(1)
    rest = heads(50, rng)
    maps = fit_outline(rest, rest + rng.normal(0, 3, rest.shape))
    change = rng.normal(0, 3, (56, 2))
    one, other = ((c.ravel() @ maps["shift"]).reshape(-1, 2) for c in (change, change[MIRROR] * [-1, 1]))
    np.testing.assert_allclose(one, other[-np.arange(18) % 18] * [-1, 1], atol=1e-4)


def test_noise_in_one_landmark_hardly_moves_the_outline() -> None:
    with np.load(Path(__file__).parents[1] / "realtime" / "outline.npz") as maps:
        gain = np.linalg.norm(maps["shift"], axis=0)
    assert gain.max() < 2


def test_a_folder_of_faces_is_fitted(tmp_path: Path) -> None:
    write_drawn(tmp_path / "data.npz", stills=4, held_out_stills=2, frames=5, wander=3)
    error = fit(Pictures(tmp_path / "data.npz"), tmp_path / "outline.npz", count=50)
    assert error == pytest.approx(0, abs=3)
    with np.load(tmp_path / "outline.npz") as maps:
        assert maps["own"].shape == (113, 36)
        assert maps["shift"].shape == (112, 36)
