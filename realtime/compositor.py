"""The way back from the crop to the photo: what the generator says is done to the photo's own pixels."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.alignment import inverse, scale_of, transform
from realtime.landmarks import CROP_SIZE, Array

Image = NDArray[np.uint8]

FEATHER = 20.0  # crop pixels over which motion and colour fade to nothing towards the crop's border
REACH = 64.0  # crop pixels around the crop from which motion may fetch the photo's pixels


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
        left, top, right, bottom = _footprint(back, photo, 0)
        self._region = np.s_[top:bottom, left:right]
        self._to_crop = matrix.astype(np.float64)
        self._to_crop[:, 2] += self._to_crop[:, :2] @ [left, top]

        # Motion is sampled linearly from the photo at twice its size, whose even pixels are the photo's: as sharp as
        # cubic sampling at a fifth of the time, and still exact where nothing moves.
        around = _footprint(back, photo, REACH / scale_of(matrix))
        self._doubled = _doubled(photo[around[1] : around[3], around[0] : around[2]])
        self._to_doubled = back[:, :2] * 2
        columns = np.arange(left, right, dtype=np.float32) - around[0]
        rows = np.arange(top, bottom, dtype=np.float32) - around[1]
        self._still = [np.ascontiguousarray(grid) for grid in np.meshgrid(2 * columns, 2 * rows)]

        # Working memory for every frame; fresh pages would cost as much as the arithmetic.
        height, width = bottom - top, right - left
        self._window = border_window()
        self._crop_planes = np.empty((3, CROP_SIZE, CROP_SIZE), np.float32)
        self._crop_fields = np.empty((CROP_SIZE, CROP_SIZE, 3), np.float32)
        self._fields = np.empty((height, width, 3), np.float32)
        self._planes = np.empty((3, height, width), np.float32)
        self._kept = np.empty((height, width), np.float32)
        self._moved = np.empty((height, width, 3), np.uint8)
        self._painted = np.empty((height, width, 3), np.uint8)

    def compose(self, flow: Array, mask: Array, colour: Array) -> Image:
        """The photo with its face moved: a new RGB uint8 (H, W, 3).

        flow: (2, 128, 128) float32, backward displacement in crop pixels; mask: (256, 256) float32, 1 for the moved
        photo and 0 for colour: (256, 256, 3) float32 RGB in [0, 1].
        """
        x, y, paint = self._spread_fields(flow, mask)
        cv2.add(self._still[0], x, x)
        cv2.add(self._still[1], y, y)
        cv2.remap(self._doubled, x, y, cv2.INTER_LINEAR, self._moved, cv2.BORDER_REPLICATE)
        self._spread(cv2.convertScaleAbs(colour, alpha=255), self._painted)
        np.subtract(1, paint, out=self._kept)
        out = self._photo.copy()
        cv2.blendLinear(self._moved, self._painted, self._kept, paint, out[self._region])
        return out

    def _spread_fields(self, flow: Array, mask: Array) -> Array:
        """Displacement in doubled pixels and the colour's share over the photo's region, (3, h, w), feathered."""
        displacement = np.tensordot(self._to_doubled, flow, 1)  # (2, 128, 128)
        for plane, values in zip(self._crop_planes, displacement, strict=False):
            cv2.resize(values, (CROP_SIZE, CROP_SIZE), plane, interpolation=cv2.INTER_CUBIC)
            cv2.multiply(plane, self._window, plane)
        cv2.multiply(1 - mask, self._window, self._crop_planes[2])
        cv2.merge(list(self._crop_planes), self._crop_fields)
        self._spread(self._crop_fields, self._fields)
        cv2.split(self._fields, list(self._planes))
        return self._planes

    def _spread(self, field: NDArray[Any], out: NDArray[Any]) -> None:
        """A (256, 256, 3) field of the crop over the photo's region, (h, w, 3); zero outside the crop."""
        size = (out.shape[1], out.shape[0])
        cv2.warpAffine(field, self._to_crop, size, out, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _footprint(back: Array, photo: Image, margin: float) -> tuple[int, int, int, int]:
    """The photo's box around the crop, grown by a margin in photo pixels: left, top, right, bottom."""
    reach = float(CROP_SIZE - 1)
    corners = transform(np.array([[0, 0], [reach, 0], [0, reach], [reach, reach]], np.float32), back)
    height, width = photo.shape[:2]
    left, top = np.clip(np.floor(corners.min(0) - margin), 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(corners.max(0) + margin) + 1, [left + 1, top + 1], [width, height])
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
