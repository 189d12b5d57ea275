"""The clock strip: a time of day drawn into pixels, so that latency is measured from glass to glass.

The page draws 24 cells, black or white, below each camera picture; the server reads the number out of them, removes
them, and draws the number anew below the result. Only these 24 bits pass from the camera's picture to the result.
Cells: white, black, 20 bits of milliseconds with the highest first, their parity, and its opposite.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

CELLS, BITS = 24, 20
ROWS = 16  # pixels of the strip below a result
SHARE = 31  # the strip below a camera picture is this part of the whole


def draw_cells(milliseconds: int | None) -> Image:
    """The cells of a time, modulo 2^20 ms, as uint8 (24,); black for None."""
    if milliseconds is None:
        return np.zeros(CELLS, np.uint8)
    bits = [milliseconds >> bit & 1 for bit in reversed(range(BITS))]
    parity = sum(bits) & 1
    return np.array([255 * cell for cell in (1, 0, *bits, parity, 1 - parity)], np.uint8)


def read_cells(strip: Image) -> int | None:
    """The milliseconds that an RGB strip (rows, width, 3) shows; None if it shows no valid time."""
    rows, width = strip.shape[:2]
    middle = strip[rows // 3 : max(rows // 3 + 1, 2 * rows // 3), :, 1]
    centres = ((np.arange(CELLS) + 0.5) * width / CELLS).astype(int)
    cells = [int(middle[:, centre].mean() > 127) for centre in centres]
    bits, parity = cells[2 : 2 + BITS], sum(cells[2 : 2 + BITS]) & 1
    if cells[:2] != [1, 0] or cells[-2:] != [parity, 1 - parity]:
        return None
    return int("".join(map(str, bits)), 2)


def split(image: Image) -> tuple[Image, int | None]:
    """A picture (H, W, 3) that a strip was drawn below: the picture without it, and the strip's milliseconds."""
    rows = max(1, round(image.shape[0] / SHARE))
    return image[:-rows], read_cells(image[-rows:])


def append(image: Image, milliseconds: int | None) -> Image:
    """An RGB picture (H, W, 3) with a strip of ROWS below it."""
    cells = cv2.resize(draw_cells(milliseconds)[None], (image.shape[1], ROWS), interpolation=cv2.INTER_NEAREST)
    return np.vstack([image, np.repeat(cells[..., None], 3, 2)])
