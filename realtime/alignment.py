"""Face normalization (thesis 4.4): a similarity transform takes five points to their places in a 256x256 crop.

The trainer and the live loop both cut their crops here, so that they cannot drift apart.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.landmarks import CROP_SIZE, Array

# Places of eyes, nose and mouth corners in the crop. The eyes are a quarter of the crop apart, so that a whole head
# and some neck fit: the generator must see what a turning head uncovers.
TEMPLATE = np.array([[96, 112], [160, 112], [128, 146], [103.5, 179], [152.5, 179]], np.float32)


def similarity(source: Array, destination: Array = TEMPLATE) -> Array:
    """Least-squares rotation, uniform scale and shift taking source (N, 2) to destination (N, 2): a (2, 3) matrix.

    Umeyama 1991 in two dimensions, without reflection. Raises ValueError if the source points coincide.
    """
    source_mean, destination_mean = source.mean(0), destination.mean(0)
    a, b = (source - source_mean).astype(np.float64), (destination - destination_mean).astype(np.float64)
    size = (a * a).sum()
    if size < 1e-9:
        raise ValueError("a similarity transform needs source points that differ")
    cosine = (a * b).sum() / size
    sine = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / size
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, destination_mean - linear @ source_mean]).astype(np.float32)


def inverse(matrix: Array) -> Array:
    """The (2, 3) matrix that undoes a (2, 3) similarity."""
    return cv2.invertAffineTransform(matrix).astype(np.float32)


def scale_of(matrix: Array) -> float:
    """Destination pixels per source pixel of a (2, 3) similarity."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def transform(points: Array, matrix: Array) -> Array:
    """Points (..., 2) through a (2, 3) matrix."""
    moved: Array = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return moved


def cut(image: NDArray[np.uint8], matrix: Array, size: int = CROP_SIZE) -> NDArray[np.uint8]:
    """The size x size crop of an image under a (2, 3) image-to-crop matrix; edge pixels repeat outside the image.

    A picture that shrinks much is first reduced by whole halvings, so that no detail aliases.
    """
    scale = scale_of(matrix)
    while scale < 0.5 and min(image.shape[:2]) > 2:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        # centre of pixel (0, 0) of the half picture lies at (0.5, 0.5) of the whole one
        matrix = np.column_stack([matrix[:, :2] * 2, matrix[:, 2] + matrix[:, :2] @ np.float32([0.5, 0.5])])  # type: ignore[arg-type]
        scale *= 2
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
