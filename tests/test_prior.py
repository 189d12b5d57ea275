"""The flow prior: the piecewise affine warp that the landmarks alone ask for."""

from itertools import product

import cv2
import numpy as np
import pytest

from realtime.alignment import similarity, transform
from realtime.head import MARGIN, make_head
from realtime.landmarks import CROP_SIZE, INNER_LIPS, LIPS, MIRROR, Array
from realtime.pose import MEAN_FACE, ORIGIN, project
from realtime.prior import (
    CROP_CELLS,
    OPEN,
    PRIOR_SIZE,
    WIDE_SIZE,
    driving_prior,
    flow_prior,
    uncovered,
)

FACE = MEAN_FACE[:, :2].astype(np.float32)
HEAD = make_head(FACE)
UPPER_LIDS, LOWER_LIDS = np.array([19, 20, 21, 27, 28, 29]), np.array([25, 24, 23, 33, 32, 31])


def at(flow: Array, points: Array) -> Array:
    """The flow (2, S, S) at points (N, 2) in crop pixels: (N, 2)."""
    places = ((points + 0.5) / (CROP_SIZE / flow.shape[1]) - 0.5).astype(np.float32)
    return np.stack([cv2.remap(plane, places[None], None, cv2.INTER_LINEAR)[0] for plane in flow], -1)


def blink() -> Array:
    """The mean face with its eyes shut on the lower lids."""
    closed = FACE.copy()
    closed[UPPER_LIDS] = closed[LOWER_LIDS]
    closed[54:] = [closed[LOWER_LIDS[:3]].mean(0), closed[LOWER_LIDS[3:]].mean(0)]
    return closed


def smiling() -> Array:
    """The mean face (56, 3) with a broad smile."""
    face = MEAN_FACE.copy()
    side = (face[LIPS, 0] - face[LIPS, 0].mean()) / 25  # -1 and 1 in the corners
    face[LIPS, 0] += 9 * side
    face[LIPS, 1] -= 6 * side**2
    face[LIPS, 2] += 5 * side**2
    return face


def test_a_face_that_does_not_move_has_no_flow() -> None:
    assert (flow_prior(FACE, HEAD) == 0).all()


@pytest.mark.parametrize("size", [64, PRIOR_SIZE])
def test_the_flow_leads_from_a_moved_face_back_to_the_photos(size: int) -> None:
    turn = similarity(np.float32([[128, 150], [129, 150]]), np.float32([[133, 147], [134.02, 147.1]]))
    driving = transform(FACE, turn)
    flow = flow_prior(driving, HEAD, size)
    assert flow.shape == (2, size, size)
    np.testing.assert_allclose(at(flow, driving), FACE - driving, atol=0.3)


def test_the_prior_goes_on_beyond_the_crop_and_ends_at_the_margin() -> None:
    turn = similarity(np.float32([[128, 150], [129, 150]]), np.float32([[133, 147], [134.02, 147.1]]))
    driving = transform(FACE, turn)
    wide = flow_prior(driving, HEAD, margin=MARGIN)
    assert wide.shape == (2, WIDE_SIZE, WIDE_SIZE)
    np.testing.assert_allclose(wide[CROP_CELLS], flow_prior(driving, HEAD), atol=0.3)
    rim = np.concatenate([wide[:, 0], wide[:, -1], wide[:, :, 0], wide[:, :, -1]], 1)
    assert np.abs(rim).max() < 0.2


def test_a_smiling_head_that_turns_far_shows_no_scraps() -> None:
    """Along a row of the turned face the photo is run through once, from left to right: what is turned away is left
    out, and hardly a cell of it shows up between its neighbours."""
    face = smiling()
    scraps = 0
    for yaw, roll, pitch, shift in product((-0.44, 0.44, 0.3), (-0.2, 0.2), (-0.2, 0.15), (0.0, 20.0)):
        pose = np.array([0.05, roll, yaw, pitch, shift, 0])
        flow = flow_prior(project(face, pose), make_head(face[:, :2]))
        upright = cv2.getRotationMatrix2D((ORIGIN[0] + shift, ORIGIN[1]), np.degrees(roll), 1.0)
        x = (np.arange(PRIOR_SIZE, dtype=np.float32) + 0.5) * 2 - 0.5
        along = cv2.warpAffine(x + flow[0], _in_cells(upright), x.shape * 2, flags=cv2.INTER_NEAREST)
        scraps += int((np.diff(along[45:105, 16:112], axis=1) < -3).sum())  # from the brows to the chin
    assert scraps < 8, "of 24 faces; without the triangles' order it is hundreds"


@pytest.mark.parametrize(("own", "yaw"), [(0, 0.44), (0.2, 0.55), (0.3, 0.6), (-0.3, -0.6)])
def test_a_head_that_turns_away_tears_nothing_off_at_its_far_side(own: float, yaw: float) -> None:
    face = smiling()
    photo, driving = (project(face, np.array([0.05, 0, angle, 0, 0, 0])) for angle in (own, yaw))
    flow = flow_prior(driving, make_head(photo))
    torn = sum(int((np.abs(np.diff(flow, axis=axis)).max(0) > 8).sum()) for axis in (1, 2))
    assert torn < 10, "cells whose neighbour shows another place of the photo; without the silhouette more than 50"


def _in_cells(matrix: Array) -> Array:
    """A (2, 3) matrix in crop pixels as one in cells of the prior."""
    cells = np.array(matrix, np.float64)
    cells[:, 2] = (cells[:, 2] + cells[:, :2] @ [0.5, 0.5] - 0.5) / 2
    return cells


def test_closed_lids_hide_the_eye() -> None:
    closed = blink()
    flow = flow_prior(closed, HEAD)
    for just_above in (closed[[20, 28]] - [0, 2.5]).astype(np.float32):
        source = just_above + at(flow, just_above[None])[0]
        lid = FACE[[20, 28]]
        assert source[1] < lid[np.abs(lid[:, 0] - source[0]).argmin(), 1] + 1, "what is shown is skin of above the lid"
    below = (closed[[24, 32]] + [0, 4]).astype(np.float32)
    assert np.abs(at(flow, below)).max() < 0.5, "and the lower lid stays"


def test_a_dropping_jaw_takes_the_chin_along_but_not_the_forehead() -> None:
    driving = FACE.copy()
    driving[LIPS[FACE[LIPS, 1] > FACE[[34, 40], 1].mean() + 1]] += [0, 15]
    flow = flow_prior(driving, HEAD)
    chin, forehead = np.float32([[128, 218]]), np.float32([[128, 66]])
    assert at(flow, chin)[0, 1] < -7
    assert np.abs(at(flow, forehead)).max() < 1.5


def test_a_mirrored_face_has_the_mirrored_flow() -> None:
    def mirrored(points: Array) -> Array:
        return np.column_stack([CROP_SIZE - 1 - points[MIRROR, 0], points[MIRROR, 1]]).astype(np.float32)

    rng = np.random.default_rng(3)
    driving = FACE + rng.normal(0, 2, FACE.shape).astype(np.float32)
    flow, other = flow_prior(driving, HEAD), flow_prior(mirrored(driving), make_head(mirrored(FACE)))
    difference = np.abs(flow - other[:, :, ::-1] * np.float32([-1, 1])[:, None, None])
    assert np.median(difference) < 0.1


def opened(gap: float) -> Array:
    """The mean face with its inner lips `gap` crop pixels apart in the middle."""
    face = FACE.copy()
    face[[51, 52, 53]] = face[[49, 48, 47]] + np.float32([0, gap])
    return face


@pytest.mark.parametrize("size", [64, PRIOR_SIZE])
def test_lips_that_open_uncover_what_is_between_them(size: int) -> None:
    shut, open_wide = opened(0), opened(14)
    outline = open_wide[INNER_LIPS].astype(np.float64)
    x, y = outline.T
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    rim = np.linalg.norm(outline - np.roll(outline, 1, 0), axis=1).sum() * CROP_SIZE / (2 * size)  # is drawn, too
    hidden = uncovered(open_wide, shut, size)
    assert area < hidden.sum() * (CROP_SIZE / size) ** 2 < area + rim
    row, column = (np.round(outline.mean(0)[::-1] * size / CROP_SIZE)).astype(int)
    assert hidden[row, column] == 1


def test_a_photo_whose_mouth_is_open_hides_nothing() -> None:
    assert uncovered(opened(0), opened(0)).max() == 0
    assert uncovered(opened(10), opened(10)).max() == 0
    assert uncovered(opened(2), opened(10)).max() == 0
    assert uncovered(opened(4 + OPEN / 2), opened(4)).max() == pytest.approx(0.5)


def test_the_generator_is_told_flow_and_what_is_uncovered() -> None:
    shut = make_head(opened(0))
    told = driving_prior(opened(10), shut)
    np.testing.assert_array_equal(told[:2], flow_prior(opened(10), shut))
    np.testing.assert_array_equal(told[2], uncovered(opened(10), opened(0)))
    assert told.dtype == np.float32
