"""The landmark table, and heatmaps there and back."""

import numpy as np
import pytest

from realtime.landmarks import (
    CROP_SIZE,
    FACEMESH,
    LEFT_BROW,
    LEFT_EYE,
    LIPS,
    MIRROR,
    RIGHT_BROW,
    RIGHT_EYE,
    WFLW98,
    five_points,
    heatmap_points,
    pupil_distance,
    render_heatmaps,
)
from realtime.pose import MEAN_FACE

FACE = MEAN_FACE[:, :2].astype(np.float32)


def test_table_names_each_of_the_56_landmarks_once() -> None:
    assert len(set(FACEMESH)) == len(set(WFLW98)) == len(FACEMESH) == len(WFLW98) == 56
    assert FACEMESH[22] == 133  # the inner corner of the eye that is left in the picture
    assert WFLW98[34] == 76  # the corner of the mouth that is left in the picture


def test_mirror_is_its_own_inverse_and_swaps_sides() -> None:
    assert (MIRROR[MIRROR] == np.arange(56)).all()
    assert set(MIRROR[LEFT_EYE]) == set(RIGHT_EYE)
    assert set(MIRROR[LEFT_BROW]) == set(RIGHT_BROW)
    assert set(MIRROR[LIPS]) == set(LIPS)


def test_mirror_of_a_symmetric_face_is_its_flip() -> None:
    flipped = FACE[MIRROR].copy()
    flipped[:, 0] = 2 * FACE[:, 0].mean() - flipped[:, 0]
    np.testing.assert_allclose(flipped, FACE, atol=1)


def test_points_survive_heatmaps_to_a_fraction_of_a_pixel() -> None:
    points = np.random.default_rng(0).uniform(16, CROP_SIZE - 17, (56, 2)).astype(np.float32)
    found, confidence = heatmap_points(render_heatmaps(points))
    np.testing.assert_allclose(found, points, atol=0.25)
    assert (confidence > 0.85).all()
    assert (confidence <= 1).all()


def test_heatmap_peaks_at_one_where_a_point_lies_on_a_cell() -> None:
    heatmaps = render_heatmaps(np.full((1, 2), 4 * 10 + 1.5, np.float32))  # the centre of cell 10
    assert heatmaps.shape == (1, 64, 64)
    assert heatmaps.dtype == np.float32
    assert heatmaps[0, 10, 10] == pytest.approx(1)
    assert heatmaps[0, 10, 10 + 3] == pytest.approx(np.exp(-0.5 * (3 / 1.5) ** 2), rel=1e-5)


def test_points_at_the_border_stay_inside_and_finite() -> None:
    points = np.tile(np.float32([[0, 255]]), (56, 1))
    found, _ = heatmap_points(render_heatmaps(points))
    np.testing.assert_allclose(found, points, atol=4)


def test_silent_heatmaps_have_no_confidence() -> None:
    points, confidence = heatmap_points(np.zeros((56, 64, 64), np.float32))
    assert np.isfinite(points).all()
    assert (confidence == 0).all()


def test_five_points_lie_on_the_face_in_order() -> None:
    left, right, nose, left_mouth, right_mouth = five_points(FACE)
    assert left[0] < nose[0] < right[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert left[1] < nose[1] < left_mouth[1]
    assert pupil_distance(FACE) == pytest.approx(np.linalg.norm(right - left))
