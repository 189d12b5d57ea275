"""The 56 facial landmarks: their table, their heatmaps, and the way back from heatmaps to points.

The scheme is the WFLW-98 points of brows, eyes, lips and pupils (thesis 4.2). "Left" is left in the picture.
Points are (x, y) in pixels of the array they belong to; the centre of the top-left pixel is (0, 0).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

COUNT = 56
CROP_SIZE = 256  # the aligned crop is CROP_SIZE x CROP_SIZE pixels
STRIDE = 4  # crop pixels per heatmap cell
HEATMAP_SIZE = CROP_SIZE // STRIDE
SIGMA = 1.5  # standard deviation of a landmark's Gaussian, in heatmap cells: 6 crop pixels, as in thesis 4.2.2

# One row a landmark: MediaPipe FaceMesh-478 vertex, WFLW-98 index.
FACEMESH = np.concatenate(
    [
        # left brow, right brow: upper edge outside-in or inside-out as WFLW runs, then the lower edge
        [70, 63, 105, 66, 107, 55, 65, 52, 53, 336, 296, 334, 293, 300, 283, 282, 295, 285],
        # left eye, right eye: clockwise from the corner that is left in the picture
        [33, 160, 159, 157, 133, 153, 145, 163, 362, 384, 386, 387, 263, 390, 374, 380],
        # outer lips, inner lips: clockwise from the corner that is left in the picture
        [61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178],
        # pupils
        [468, 473],
    ]
)
WFLW98 = np.r_[33:51, 60:98]
# The landmark that each one becomes when the picture is flipped left to right.
MIRROR = np.concatenate(
    [
        [13, 12, 11, 10, 9, 17, 16, 15, 14, 4, 3, 2, 1, 0, 8, 7, 6, 5],
        [30, 29, 28, 27, 26, 33, 32, 31, 22, 21, 20, 19, 18, 25, 24, 23],
        [40, 39, 38, 37, 36, 35, 34, 45, 44, 43, 42, 41, 50, 49, 48, 47, 46, 53, 52, 51],
        [55, 54],
    ]
)

LEFT_BROW, RIGHT_BROW = np.arange(0, 9), np.arange(9, 18)
LEFT_EYE, RIGHT_EYE = np.arange(18, 26), np.arange(26, 34)
OUTER_LIPS, INNER_LIPS = np.arange(34, 46), np.arange(46, 54)
LEFT_PUPIL, RIGHT_PUPIL = 54, 55
BROWS = np.r_[LEFT_BROW, RIGHT_BROW]
EYES = np.r_[LEFT_EYE, RIGHT_EYE]
LIPS = np.r_[OUTER_LIPS, INNER_LIPS]
PUPILS = np.array([LEFT_PUPIL, RIGHT_PUPIL])
MOUTH_CORNERS = np.array([34, 40])


def five_points(points: Array) -> Array:
    """The alignment points of thesis 4.4: (..., 56, 2) -> (..., 5, 2): two eyes, nose, two mouth corners.

    The scheme has no nose: its base is put on the line from between the eyes to the upper lip, where it lies on
    the mean face. Eyes are the middle of their corners, so that neither gaze nor a blink moves the crop.
    """
    left = points[..., [18, 22], :].mean(-2)
    right = points[..., [26, 30], :].mean(-2)
    nose = 0.45 * (left + right) / 2 + 0.55 * points[..., 37, :]
    return np.stack([left, right, nose, points[..., 34, :], points[..., 40, :]], -2)


def pupil_distance(points: Array) -> Array:
    """Distance between the eyes' centres in pixels, (..., 56, 2) -> (...): the unit of NMSE (thesis 5.1)."""
    five = five_points(points)
    distance: Array = np.linalg.norm(five[..., 1, :] - five[..., 0, :], axis=-1)
    return distance


def _bumps(points: Array, sigma: float, size: int) -> tuple[Array, Array]:
    """Each landmark's Gaussian along y and along x, in heatmap cells: two arrays (..., N, size)."""
    cells = np.arange(size, dtype=np.float32)
    scale = np.float32(-0.5 / sigma**2)
    centre = (points + 0.5) * (size / CROP_SIZE) - 0.5
    along_y = np.exp(scale * np.square(cells - centre[..., 1, None]))
    along_x = np.exp(scale * np.square(cells - centre[..., 0, None]))
    return along_y.astype(np.float32), along_x.astype(np.float32)


def render_heatmaps(points: Array, size: int = HEATMAP_SIZE) -> Array:
    """Gaussians of height 1 at points in pixels of the 256x256 crop: (..., N, 2) -> (..., N, size, size) float32.

    Landmarks come last in memory, as engines on processors take them: turning 56 maps round takes 0.7 ms.
    """
    along_y, along_x = (
        np.ascontiguousarray(bump.swapaxes(-1, -2)) for bump in _bumps(points, SIGMA * size / HEATMAP_SIZE, size)
    )
    return np.moveaxis(along_y[..., :, None, :] * along_x[..., None, :, :], -1, -3)


def heatmap_points(heatmaps: Array) -> tuple[Array, Array]:
    """Sub-pixel points and confidences of heatmaps: (56, S, S) -> (56, 2) in crop pixels, (56,) in [0, 1].

    A soft-argmax in the 7x7 cells around each peak; the peak's height is the confidence.
    """
    count, size, _ = heatmaps.shape
    column = heatmaps.max(1).argmax(1)  # landmarks may come last in memory: a flat index would want a copy
    row = heatmaps[np.arange(count), :, column].argmax(1)
    confidence = heatmaps[np.arange(count), row, column]
    reach = np.arange(-3, 4)
    rows = np.clip(row[:, None] + reach, 0, size - 1)
    columns = np.clip(column[:, None] + reach, 0, size - 1)
    window = np.square(heatmaps[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]])
    total = window.sum((1, 2)) + 1e-9
    y = (window.sum(2) * rows).sum(1) / total
    x = (window.sum(1) * columns).sum(1) / total
    stride = CROP_SIZE / size
    points = (np.stack([x, y], 1) + 0.5) * stride - 0.5
    return points.astype(np.float32), confidence.astype(np.float32)
