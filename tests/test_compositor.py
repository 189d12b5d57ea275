"""Compositing: exact where nothing moves, sharp where something does, and nothing outside the face region."""

import cv2
import numpy as np
import pytest

from realtime.alignment import transform
from realtime.compositor import Compositor, border_window
from realtime.landmarks import Array
from realtime.photo import load_photo
from realtime.prior import MARGIN

STILL = np.zeros((2, 192, 192), np.float32)
KEEP = np.ones((256, 256), np.float32)
PAINT = np.zeros((256, 256), np.float32)
GREEN = np.zeros((256, 256, 3), np.float32) + np.float32([0, 1, 0])

PHOTO = load_photo("hopper")


def similarity_to_crop(scale: float, degrees: float, centre: tuple[float, float]) -> Array:
    """The photo-to-crop matrix whose crop's middle shows `centre`."""
    turn = np.deg2rad(degrees)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, [127.5, 127.5] - linear @ centre]).astype(np.float32)


FACE = similarity_to_crop(0.75, 6, (266, 240))
PLACES = {
    "face": FACE,
    "upright": similarity_to_crop(1, 0, (256, 300)),
    "turned far": similarity_to_crop(0.9, 130, (256, 300)),
    "over the corner": similarity_to_crop(0.8, -20, (20, 10)),
    "over the far corner": similarity_to_crop(0.8, 20, (511, 599)),
    "larger than the photo": similarity_to_crop(0.2, 10, (256, 300)),
    "tiny": similarity_to_crop(9, 10, (256, 300)),
}


def crop_places(matrix: Array) -> Array:
    """Where each of the photo's pixels lies in the crop: (H, W, 2)."""
    rows, columns = np.indices(PHOTO.shape[:2])
    return transform(np.stack([columns, rows], -1).astype(np.float32), matrix)


def swirl(strength: float) -> Array:
    """A smooth flow (2, 192, 192) with motion beyond the crop that ends at the margin's border, as the prior's does."""
    flow = np.random.default_rng(1).normal(0, 1, (192, 192, 2)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(cv2.GaussianBlur(flow, (0, 0), 12) * 40 * strength, -1, 0)) * border_window(
        192
    )


@pytest.mark.parametrize("place", PLACES)
def test_without_motion_the_photo_comes_back_bit_for_bit(place: str) -> None:
    assert (Compositor(PHOTO, PLACES[place]).compose(STILL, KEEP, GREEN) == PHOTO).all()


@pytest.mark.parametrize("place", PLACES)
def test_outside_the_margin_every_pixel_is_the_photos(place: str) -> None:
    matrix = PLACES[place]
    out = Compositor(PHOTO, matrix).compose(swirl(10), PAINT, GREEN)
    where = crop_places(matrix)
    outside = ((where < -MARGIN - 1) | (where > 256 + MARGIN)).any(-1)
    assert (out[outside] == PHOTO[outside]).all()
    assert (out[~outside] != PHOTO[~outside]).any()


@pytest.mark.parametrize("place", PLACES)
def test_outside_the_crop_nothing_is_painted(place: str) -> None:
    matrix = PLACES[place]
    out = Compositor(PHOTO, matrix).compose(STILL, PAINT, GREEN)
    where = crop_places(matrix)
    outside = ((where < 0) | (where > 255)).any(-1)
    assert (out[outside] == PHOTO[outside]).all()
    assert (out[~outside] != PHOTO[~outside]).any()


def test_motion_goes_on_beyond_the_crop_without_a_seam() -> None:
    ramp = np.tile((np.arange(512) // 2).astype(np.uint8)[None, :, None], (600, 1, 3))
    flow = np.tile(np.float32([8, 0])[:, None, None], (1, 192, 192))
    out = Compositor(ramp, FACE).compose(flow, KEEP, GREEN).astype(int)
    where = crop_places(FACE)
    around = ((where > -40) & (where < 300)).all(-1) & (where[..., 0] > 8)
    assert np.abs(np.diff(out, axis=1))[around[:, 1:]].max() <= 2


def test_the_region_fades_towards_the_border_without_a_seam() -> None:
    grey = np.full_like(PHOTO, 128)
    out = Compositor(grey, FACE).compose(STILL, PAINT, np.ones((256, 256, 3), np.float32)).astype(int)
    steps = np.abs(np.diff(out, axis=0)).max(), np.abs(np.diff(out, axis=1)).max()
    assert max(steps) < 16  # 128 grey levels over 20 crop pixels, at 0.75 crop pixels a pixel
    assert out.max() == 255


def test_colour_fills_what_the_mask_leaves() -> None:
    mask = KEEP.copy()
    mask[:, 128:] = 0
    out = Compositor(PHOTO, FACE).compose(STILL, mask, GREEN)
    where = crop_places(FACE)
    inner = ((where > 24) & (where < 231)).all(-1)
    painted, kept = inner & (where[..., 0] > 130), inner & (where[..., 0] < 126)
    assert (out[painted] == [0, 255, 0]).all()
    assert (out[kept] == PHOTO[kept]).all()


def test_flow_is_a_backward_displacement_in_crop_pixels() -> None:
    shift = np.array([5, 2])  # photo pixels
    flow = np.tile((FACE[:, :2] @ shift).astype(np.float32)[:, None, None], (1, 192, 192))
    out = Compositor(PHOTO, FACE).compose(flow, KEEP, GREEN)
    where = crop_places(FACE)
    inner = ((where > 24) & (where < 231)).all(-1)
    moved = np.roll(PHOTO, -shift[::-1], (0, 1))
    assert np.abs(out[inner].astype(int) - moved[inner]).max() <= 2


def test_half_a_pixel_of_motion_stays_sharp() -> None:
    flow = np.tile((FACE[:, :2] @ [0.5, 0.5]).astype(np.float32)[:, None, None], (1, 192, 192))
    out = Compositor(PHOTO, FACE).compose(flow, KEEP, GREEN)
    face = np.s_[150:330, 180:350]

    def sharpness(image: np.ndarray) -> float:
        return float(cv2.Laplacian(image[face], cv2.CV_32F).std())

    rows, columns = np.indices(PHOTO.shape[:2], dtype=np.float32) + np.float32(0.5)
    linear = cv2.remap(PHOTO, columns, rows, cv2.INTER_LINEAR)
    lanczos = cv2.remap(PHOTO, columns, rows, cv2.INTER_LANCZOS4)
    assert sharpness(out) > 0.85 * sharpness(lanczos) > sharpness(linear)
    difference = np.abs(out[face].astype(int) - lanczos[face])
    assert difference.mean() < 0.4 * np.abs(linear[face].astype(int) - lanczos[face]).mean()


def test_results_are_the_callers_to_keep() -> None:
    compositor = Compositor(PHOTO, FACE)
    before = PHOTO.copy()
    first = compositor.compose(swirl(4), KEEP, GREEN)
    kept = first.copy()
    compositor.compose(STILL, PAINT, GREEN)
    assert (first == kept).all()
    assert (before == PHOTO).all()


def test_a_photo_of_4096_pixels_works() -> None:
    photo = cv2.resize(PHOTO, (3495, 4096))
    matrix = FACE.copy()
    matrix[:, :2] /= 4096 / 600
    out = Compositor(photo, matrix).compose(swirl(2), KEEP, GREEN)
    assert out.shape == photo.shape
    assert (out[-200:] == photo[-200:]).all()


def test_window_is_zero_on_the_border_and_one_inside() -> None:
    for size in (64, 256):
        window = border_window(size)
        assert window.shape == (size, size)
        assert window.dtype == np.float32
        assert (window[0] == 0).all()
        assert (window[:, -1] == 0).all()
        margin = size * 20 // 256 + 1
        assert (window[margin:-margin, margin:-margin] == 1).all()
        np.testing.assert_array_equal(window, window.T)
        np.testing.assert_array_equal(window, window[::-1])
