"""Pictures laid out on one sheet, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def sheet(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of equally large RGB uint8 pictures as one picture, black where a row is shorter."""
    blank = np.zeros((8, 8, 3), np.uint8) if not rows else np.zeros_like(rows[0][0])
    columns = max((len(row) for row in rows), default=1)
    return np.vstack([np.hstack([*row, *[blank] * (columns - len(row))]) for row in rows or [[blank]]])


def wrapped(pictures: Sequence[np.ndarray], columns: int) -> list[Sequence[np.ndarray]]:
    """Pictures in rows of so many."""
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


def with_points(image: np.ndarray, points: np.ndarray, radius: float = 1.2) -> np.ndarray:
    """A copy of an RGB uint8 picture with green dots at points (N, 2), to a sixteenth of a pixel."""
    drawn = image.copy()
    for x, y in points[~np.isnan(points).any(1)]:
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(drawn, centre, max(round(radius * 16), 8), (0, 255, 0), -1, cv2.LINE_AA, 4)
    return drawn


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of a picture with a line of text in its lower left corner."""
    drawn = image.copy()
    at = (4, image.shape[0] - 6)
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, width, cv2.LINE_AA)
    return drawn


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an RGB uint8 picture as PNG."""
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
