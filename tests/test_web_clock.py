"""The clock strip, the mark, and what of a camera's picture may pass."""

import numpy as np
import pytest

from web import clock
from web.mark import add_mark


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (480, 640), (257, 300)])
@pytest.mark.parametrize("moment", [0, 1, 2**20 - 1, 1_700_000_123_456])
def test_a_time_passes_through_a_strip(size: tuple[int, int], moment: int) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    shown = clock.append(image, moment)
    assert shown.shape == (size[1] + clock.ROWS, size[0], 3)
    assert np.array_equal(shown[: size[1]], image)
    assert clock.read_cells(shown[size[1] :]) == moment % 2**20


def test_a_noisy_and_scaled_strip_is_read() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    strip = clock.append(image, 123_456)[480:].astype(np.int16)
    noisy = np.clip(strip + np.random.default_rng(0).normal(0, 30, strip.shape), 0, 255).astype(np.uint8)
    seen, moment = clock.split(np.vstack([image, noisy]))
    assert moment == 123_456
    assert seen.shape == (480, 640, 3)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_strip_gives_no_time(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (496, 640, 3), np.uint8)
    assert clock.split(noise)[1] is None


def test_nothing_of_the_camera_passes_but_bits() -> None:
    """Whatever lies in the strip's rows, the result has black and white cells there."""
    picture = np.random.default_rng(1).integers(0, 256, (496, 640, 3), np.uint8)
    below = clock.append(np.zeros((100, 200, 3), np.uint8), clock.split(picture)[1])[100:]
    assert set(np.unique(below)) <= {0, 255}


@pytest.mark.parametrize("size", [(16, 16), (256, 256), (720, 1024)])
def test_the_mark_is_seen_in_its_corner_only(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    marked = add_mark(image.copy())
    changed = (marked != image).any(2)
    assert changed[size[0] - 8 :, size[1] - 8 :].any()
    assert changed.mean() < (0.1 if size[0] > 100 else 1.1)
    assert not changed[: size[0] // 2].any() or size[0] < 100
