"""The word "synthetic" in the corner of a result, so that nobody takes it for a real picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

WORD = "synthetic"
OPACITY = 0.7


def add_mark(image: Image) -> Image:
    """Write the word into the lower right corner of an RGB picture (H, W, 3), in place; it is returned too."""
    height, width = image.shape[:2]
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, height / 1100)
    (wide, high), below = cv2.getTextSize(WORD, font, scale, 1)
    top, left = max(0, height - high - below - 10), max(0, width - wide - 10)
    corner = image[top:, left:]
    written = np.full_like(corner, 16)
    place = (5, corner.shape[0] - below - 3)
    cv2.putText(written, WORD, place, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    cv2.addWeighted(written, OPACITY, corner, 1 - OPACITY, 0, corner)
    return image
