"""The way back from the crop to the photo: what the generator says is done to the photo's own pixels."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.alignment import inverse, scale_of, transform
from realtime.head import MARGIN
from realtime.landmarks import CROP_SIZE, Array
from realtime.prior import WIDE_SIZE

Image = NDArray[np.uint8]

FEATHER = 20.0  # crop pixels over which colour and learnt motion fade to nothing towards the crop's border


def border_window(size: int = CROP_SIZE) -> Array:
    """Weights (size, size) float32 over the crop: 0 on its border, 1 from FEATHER crop pixels inwards, smoothstep."""
    cells = np.arange(size, dtype=np.float32)
    depth = np.minimum(cells, size - 1 - cells) * (CROP_SIZE / size)
    ramp = np.clip(depth / FEATHER, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


class Compositor:
    """Moves and repaints the face region of one photo; every other pixel stays the photo's, bit for bit.

    photo: RGB uint8 (H, W, 3), not copied; matrix: (2, 3) float32, photo to the 256x256 crop. One thread owns it.
    """

    def __init__(self, photo: Image, matrix: Array) -> None:
        self._photo = photo
        back = inverse(matrix)
        self._colour = _Region(_footprint(back, photo, 0), matrix, 0)
        # A displacement has nothing finer than a crop pixel: it is spread over as many pixels of the photo at once.
        self._motion = _Region(_footprint(back, photo, MARGIN), matrix, MARGIN, max(1, round(1 / scale_of(matrix))))

        # Motion is sampled linearly from the photo at twice its size, whose even pixels are the photo's: as sharp as
        # cubic sampling at a fifth of the time, and still exact where nothing moves.
        self._doubled = _doubled(photo[self._motion.box])
        self._to_doubled = back[:, :2] * 2
        height, width = self._motion.shape
        self._still = [(2 * grid).astype(np.float32) for grid in np.meshgrid(np.arange(width), np.arange(height))]

        # Working memory for every frame; fresh pages would cost as much as the arithmetic.
        self._window = border_window()
        self._fine = np.empty((2 * WIDE_SIZE, 2 * WIDE_SIZE, 2), np.float32)
        self._displacement = np.empty((*self._motion.cells, 2), np.float32)
        self._parts = [np.empty(self._motion.cells, np.float32) for _ in range(2)]
        self._planes = [np.empty(self._motion.covered, np.float32) for _ in range(2)]
        self._layer = np.empty((CROP_SIZE, CROP_SIZE, 4), np.uint8)  # RGB, and how much of it is seen
        self._spread = np.empty((*self._colour.shape, 4), np.uint8)
        self._painted = np.empty((*self._colour.shape, 3), np.uint8)
        self._paint, self._kept = (np.empty(self._colour.shape, np.float32) for _ in range(2))

    def compose(self, flow: Array, mask: Array, colour: Array) -> Image:
        """The photo with its face moved: a new RGB uint8 (H, W, 3).

        flow: (2, 192, 192) float32, backward displacement in crop pixels over the crop and its margin; mask: (256, 256)
        float32, 1 for the moved photo and 0 for colour: (256, 256, 3) float32 RGB in [0, 1].
        """
        out = self._photo.copy()
        self._move(flow, out[self._motion.box])
        self._paint_over(out[self._colour.box], (1 - mask) * self._window, colour)
        return out

    def _move(self, flow: Array, out: Image) -> None:
        """The photo's region sampled where the flow says."""
        displacement = np.tensordot(flow, self._to_doubled, (0, 1)).astype(np.float32)  # (192, 192, 2)
        cv2.resize(displacement, self._fine.shape[:2], self._fine, interpolation=cv2.INTER_CUBIC)
        self._motion.spread(self._fine, self._displacement)
        cv2.split(self._displacement, self._parts)
        height, width = self._motion.shape
        x, y = (plane[:height, :width] for plane in self._planes)
        for part, plane, place, still in zip(self._parts, self._planes, (x, y), self._still, strict=True):
            cv2.resize(part, plane.shape[::-1], plane, interpolation=cv2.INTER_LINEAR)
            cv2.add(place, still, place)
        cv2.remap(self._doubled, x, y, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)

    def _paint_over(self, face: Image, share: Array, colour: Array) -> None:
        """Blend the generator's colour (256, 256, 3) over the moved face, in place, by its share (256, 256)."""
        layers = [cv2.convertScaleAbs(layer, alpha=255) for layer in (colour, share)]
        cv2.mixChannels(layers, [self._layer], [0, 0, 1, 1, 2, 2, 3, 3])
        self._colour.spread(self._layer, self._spread)
        cv2.cvtColor(self._spread, cv2.COLOR_RGBA2RGB, self._painted)
        np.multiply(self._spread[..., 3], np.float32(1 / 255), out=self._paint)
        np.subtract(1, self._paint, out=self._kept)
        cv2.blendLinear(face, self._painted, self._kept, self._paint, face)


class _Region:
    """A box of the photo (left, top, right, bottom) over which a field of the crop and `margin` around it is spread, in
    cells of `step` photo pixels; the cells cover the box, and up to a cell more."""

    def __init__(self, corners: tuple[int, int, int, int], matrix: Array, margin: int, step: int = 1) -> None:
        left, top, right, bottom = corners
        self.box = np.s_[top:bottom, left:right]
        self.shape = bottom - top, right - left
        self.cells = -(-self.shape[0] // step), -(-self.shape[1] // step)
        self.covered = self.cells[0] * step, self.cells[1] * step
        self._to_crop = matrix.astype(np.float64)
        middle = (step - 1) / 2  # of the first cell
        self._to_crop[:, 2] += self._to_crop[:, :2] @ [left + middle, top + middle] + margin
        self._to_crop[:, :2] *= step

    def spread(self, field: NDArray[Any], out: NDArray[Any]) -> None:
        """A field of crop pixels, (h, w) or (h, w, C), over the cells; zero outside the field."""
        cv2.warpAffine(field, self._to_crop, self.cells[::-1], out, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _footprint(back: Array, photo: Image, margin: float) -> tuple[int, int, int, int]:
    """The photo's box around the crop and a margin of crop pixels: left, top, right, bottom."""
    low, high = -float(margin), CROP_SIZE - 1 + float(margin)
    corners = transform(np.array([[low, low], [high, low], [low, high], [high, high]], np.float32), back)
    height, width = photo.shape[:2]
    left, top = np.clip(np.floor(corners.min(0)), 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(corners.max(0)) + 1, [left + 1, top + 1], [width, height])
    return int(left), int(top), int(right), int(bottom)


def _doubled(box: Image) -> Image:
    """A picture (h, w, 3) at twice its size: its own pixels at the even places, six-tap half-samples between them.

    The kernel is H.264's (ITU-T H.264, 8.4.2.2.1).
    """
    height, width = box.shape[:2]
    taps, one = np.array([1, -5, 20, 20, -5, 1], np.float32) / 32, np.ones(1, np.float32)
    out = np.empty((2 * height, 2 * width, 3), np.uint8)
    for row, down in enumerate((one, taps)):
        for column, across in enumerate((one, taps)):
            anchor = (2 * column, 2 * row)
            out[row::2, column::2] = cv2.sepFilter2D(
                box, -1, across, down, anchor=anchor, borderType=cv2.BORDER_REPLICATE
            )
    return out
