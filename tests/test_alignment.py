"""Five-point alignment: similarity transforms, and the crops they cut."""

import numpy as np
import pytest

from realtime.alignment import TEMPLATE, cut, inverse, scale_of, similarity, transform
from realtime.photo import load_photo

TURN = np.deg2rad(25)
MATRIX = np.array([[np.cos(TURN), -np.sin(TURN), 30], [np.sin(TURN), np.cos(TURN), -12]], np.float32) * 0.6


def test_similarity_recovers_the_transform_between_exact_points() -> None:
    np.testing.assert_allclose(similarity(TEMPLATE, transform(TEMPLATE, MATRIX)), MATRIX, atol=1e-3)
    assert scale_of(MATRIX) == pytest.approx(0.6)


def test_similarity_is_the_least_squares_one() -> None:
    noisy = TEMPLATE + np.random.default_rng(0).normal(0, 5, TEMPLATE.shape).astype(np.float32)
    best = similarity(noisy)

    def error(matrix: np.ndarray) -> float:
        return float(np.square(transform(noisy, matrix) - TEMPLATE).sum())

    for nudge in np.eye(4):  # along each parameter of a similarity: cosine, sine, shift
        a, b, x, y = nudge * 1e-2
        step = np.array([[a, -b, x], [b, a, y]], np.float32)
        assert error(best + step) > error(best)
        assert error(best - step) > error(best)


def test_similarity_never_reflects() -> None:
    mirrored = TEMPLATE * np.float32([-1, 1])
    assert np.linalg.det(similarity(mirrored)[:, :2]) >= 0


def test_coinciding_points_are_refused() -> None:
    with pytest.raises(ValueError, match="points that differ"):
        similarity(np.ones((5, 2), np.float32))


def test_inverse_undoes() -> None:
    np.testing.assert_allclose(transform(transform(TEMPLATE, MATRIX), inverse(MATRIX)), TEMPLATE, atol=1e-3)


def test_cut_under_the_identity_is_the_picture() -> None:
    photo = load_photo("hopper")
    identity = np.float32([[1, 0, 0], [0, 1, 0]])
    assert (cut(photo, identity) == photo[:256, :256]).all()


def test_cut_puts_the_points_of_the_picture_where_the_matrix_says() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[200:203, 300:303] = 255  # around (301, 201)
    x, y = transform(np.float32([[301, 201]]), MATRIX)[0]
    bright = cut(picture, MATRIX)[..., 0].astype(float)
    rows, columns = np.indices(bright.shape)
    centre = (bright * columns).sum() / bright.sum(), (bright * rows).sum() / bright.sum()
    np.testing.assert_allclose(centre, (x, y), atol=0.1)


@pytest.mark.parametrize("scale", [0.45, 0.2, 0.06])
def test_a_crop_that_shrinks_much_keeps_its_place_and_does_not_alias(scale: float) -> None:
    size = int(256 / scale)
    rows, columns = np.indices((size, size))
    ramp = (columns * (200 / size)).astype(np.uint8)
    checks = ((rows + columns) % 2 * 255).astype(np.uint8)  # one-pixel checks: grey from afar
    matrix = np.float32([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    crop = cut(np.dstack([ramp, checks, checks]), matrix)
    np.testing.assert_allclose(crop[..., 0], np.tile(np.arange(256) * 200 / 256, (256, 1)), atol=1.6)
    np.testing.assert_allclose(crop[8:-8, 8:-8, 1], 127.5, atol=2)


def test_edge_pixels_repeat_outside_the_picture() -> None:
    picture = np.full((100, 100, 3), 77, np.uint8)
    assert (cut(picture, np.float32([[1, 0, 78], [0, 1, 78]])) == 77).all()
