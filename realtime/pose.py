"""Head pose from the 56 points: yaw, pitch, roll, scale and shift under a weak perspective camera.

A face is lifted to three dimensions with the mean face's depth, so that a turn seen on one face can be given to
another. Depth, like x and y, is in crop pixels; it grows away from the camera.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.landmarks import Array

Vector = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

# (56, 3): the median of 77 neutral studio faces as FaceMesh sees them, aligned to the crop and made symmetric.
MEAN_FACE: Array = np.load(Path(__file__).with_name("mean_face.npy"))
with np.load(Path(__file__).with_name("head.npz")) as _maps:
    # What expressions do to a face, (M, 56, 3), each as far as it usually goes, and how much each coordinate of the
    # points (56, 2) tells beside them, one over its variance (trainer/head.py).
    EXPRESSIONS, _TRUST = _maps["expressions"], _maps["trust"]
ORIGIN = np.array([128.0, 145.6], np.float32)  # what scale, roll and turns leave in place: the five points' middle

LOG_SCALE, ROLL, YAW, PITCH = range(4)  # a pose is these, in radians, and the shift of ORIGIN in pixels: (6,)
REACH: Vector = np.array([0.15, 0.44, 0.44, 0.35, 28.0, 28.0])  # how far a photo's head may go
AWAY = 0.15, 0.5  # yaw of a photo's face from which on its reach in yaw shrinks, and to which
STEEPEST = 0.8  # radians; beyond it the far half of the face is hidden and its points are guesses
EYE_CORNERS = [18, 22, 26, 30]
_COMPLEX = np.array([1, 1j])  # a similarity is one complex factor and a shift
_MODES = EXPRESSIONS.transpose(2, 1, 0).astype(np.float64)  # (3, 56, M)
_WEIGHT = _TRUST.T.ravel().astype(np.float64)  # all x, then all y
_PRIOR = np.diag(np.r_[np.zeros(6), np.ones(len(EXPRESSIONS))])  # the pose is free


def soft_limit(x: Floats | float, limit: Floats | float) -> Any:
    """x itself up to 60 % of the limit; beyond, it draws near to the limit and never passes it."""
    knee = 0.6 * np.asarray(limit)
    over = np.maximum(np.abs(x) - knee, 0)
    return np.sign(x) * (np.minimum(np.abs(x), knee) + (limit - knee) * np.tanh(over / (limit - knee)))


def photo_reach(photo: Array) -> Vector:
    """How far the head of a photo with points (56, 2) may go, as a pose (6,): REACH, but half as far in yaw if it looks
    away. Turned back it would show a cheek of which the photo has hardly a pixel, turned on a profile."""
    away = (abs(fit_pose(photo, MEAN_FACE)[YAW]) - AWAY[0]) / (AWAY[1] - AWAY[0])
    reach = REACH.astype(np.float64)
    reach[YAW] *= 1 - 0.5 * np.clip(away, 0, 1)
    return reach


def limit_pose(pose: Vector, reach: Vector = REACH) -> Vector:
    """A pose (6,) within what a photo has pixels for."""
    return soft_limit(pose, reach)  # type: ignore[no-any-return]


def camera(pose: Vector) -> Vector:
    """The (2, 3) camera of a pose: its scale times the first two rows of roll @ pitch @ yaw."""
    scale = np.exp(pose[LOG_SCALE])
    (cr, cy, cp), (sr, sy, sp) = np.cos(pose[ROLL:4]), np.sin(pose[ROLL:4])
    turned = np.array([[cy, 0.0, sy], [sp * sy, cp, -sp * cy]])
    return np.array([[cr, -sr], [sr, cr]]) @ turned * scale  # type: ignore[no-any-return]


def project(face: Array, pose: Vector) -> Array:
    """Points of a lifted face (N, 3) under a pose: (N, 2)."""
    matrix = camera(pose)
    flat = (face[:, :2] - ORIGIN) @ matrix[:, :2].T + face[:, 2:] @ matrix[:, 2:].T
    return (flat + ORIGIN + pose[4:]).astype(np.float32)


def unproject(points: Array, depth: Array, pose: Vector) -> Array:
    """The inverse of `project` where the depth (N,) is known: x and y, (N, 2), as they are without the pose."""
    matrix = camera(pose)
    flat = points - ORIGIN - pose[4:] - depth[:, None] * matrix[:, 2]
    return (flat @ np.linalg.inv(matrix[:, :2]).T + ORIGIN).astype(np.float32)


def fit_pose(points: Array, face: Array) -> Vector:
    """The pose (6,) under which the lifted face (56, 3) most likely became points (56, 2), whatever its expression.

    Three Gauss-Newton steps from the similarity of the eye corners. A smile lifts the mouth as a nod does: how far the
    face went along each of EXPRESSIONS is fitted along with the pose, at a price, and then dropped.
    """
    here, there = (face[EYE_CORNERS, :2] - ORIGIN) @ _COMPLEX, (points[EYE_CORNERS] - ORIGIN) @ _COMPLEX
    centred = here - here.mean()
    turn = np.vdot(centred, there) / np.vdot(centred, centred)
    shift = there.mean() - turn * here.mean()
    fitted = np.zeros(len(_PRIOR))
    fitted[:6] = np.log(abs(turn)), np.angle(turn), 0.0, 0.0, shift.real, shift.imag
    neutral = (face - np.append(ORIGIN, 0)).T.astype(np.float64)
    goal = (points - ORIGIN).T.astype(np.float64)
    jacobian = np.zeros((2, *_MODES.shape[1:2], len(fitted)))
    jacobian[0, :, 4] = jacobian[1, :, 5] = 1
    for _ in range(3):
        (cr, cy, cp), (sr, sy, sp) = np.cos(fitted[ROLL:4]), np.sin(fitted[ROLL:4])
        scaled_roll = np.exp(fitted[LOG_SCALE]) * np.array([[cr, -sr], [sr, cr]])
        x, y, z = neutral + _MODES @ fitted[6:]
        across, away = cy * x + sy * z, cy * z - sy * x  # after the yaw
        flat = scaled_roll @ np.array([across, cp * y - sp * away])
        jacobian[:, :, LOG_SCALE] = flat
        jacobian[0, :, ROLL], jacobian[1, :, ROLL] = -flat[1], flat[0]
        jacobian[:, :, YAW] = scaled_roll @ np.array([away, sp * across])
        jacobian[:, :, PITCH] = scaled_roll @ np.array([np.zeros_like(x), -sp * y - cp * away])
        jacobian[:, :, 6:] = np.tensordot(camera(fitted), _MODES, 1)
        rows = jacobian.reshape(-1, len(fitted))
        error = (goal - flat - fitted[4:6, None]).ravel()
        weighted = rows.T * _WEIGHT
        fitted += np.linalg.solve(weighted @ rows + _PRIOR, weighted @ error - _PRIOR @ fitted)
        fitted[YAW:4] = np.minimum(np.maximum(fitted[YAW:4], -STEEPEST), STEEPEST)
    return fitted[:6]


def lift(points: Array) -> Array:
    """A face's points (56, 2) in the crop with the depth of the mean face turned as this face is: (56, 3)."""
    pose = fit_pose(points, MEAN_FACE)
    _, cy, cp = np.cos(pose[ROLL:4])
    _, sy, sp = np.sin(pose[ROLL:4])
    centred = MEAN_FACE - np.append(ORIGIN, 0)
    depth = centred @ np.array([-cp * sy, sp, cp * cy]) * np.exp(pose[LOG_SCALE])
    return np.column_stack([points, depth]).astype(np.float32)
