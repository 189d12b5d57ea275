"""Augmentation: points go where the pixels go, a sample is its seed's alone, and codecs spoil as asked."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from realtime.landmarks import CROP_SIZE
from trainer.augment import bent, degrade, distortion, disturbed, filmed, random_crop, shaded, warp
from trainer.prepare import MARGIN, PICTURE_SIZE

# 56 dots, as far apart as they can be where a crop always shows them.
DOTS = np.stack(np.meshgrid(np.linspace(95, 225, 8), np.linspace(95, 225, 7)), -1).reshape(56, 2).astype(np.float32)


@pytest.fixture(scope="module")
def dotted() -> NDArray[np.uint8]:
    """Black, with a soft white dot at each of DOTS."""
    y, x = np.mgrid[:PICTURE_SIZE, :PICTURE_SIZE]
    away = (x[..., None] - DOTS[:, 0]) ** 2 + (y[..., None] - DOTS[:, 1]) ** 2
    return np.repeat(np.uint8(255 * np.exp(-away / 8).max(-1))[..., None], 3, 2)


def off(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each dot's centre of mass lies from the point that should be on it."""
    y, x = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    errors = []
    for px, py in points:
        weight = crop[..., 0].astype(float) * (np.hypot(x - px, y - py) < 6)
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / max(weight.sum(), 1e-9)
        errors.append(np.hypot(*(centre - [px, py])))
    return np.array(errors)


def test_points_stay_on_their_pixels_in_a_random_crop(dotted: NDArray[np.uint8]) -> None:
    for seed in range(12):
        crop, points = random_crop(dotted, DOTS, np.random.default_rng(seed))
        assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
        assert points.dtype == np.float32
        assert off(crop, points).max() < 0.5


def test_points_stay_on_their_pixels_under_lens_and_grid(dotted: NDArray[np.uint8]) -> None:
    middle = np.float32([[1, 0, -MARGIN], [0, 1, -MARGIN]])
    rng = np.random.default_rng(0)
    bends = [bend for bend in (distortion(rng) for _ in range(40)) if bend is not None]
    assert 5 < len(bends) < 25
    moved = []
    for bend in bends:
        points = bent(DOTS - MARGIN, bend)
        assert off(warp(dotted, middle, bend), points).max() < 0.5
        moved.append(np.linalg.norm(points - (DOTS - MARGIN), axis=1).max())
    assert max(moved) > 3  # the distortions are worth the name


def test_a_second_view_is_the_first_but_for_little_and_its_points_stay_on_their_pixels(
    dotted: NDArray[np.uint8],
) -> None:
    crop, points = random_crop(dotted, DOTS, np.random.default_rng(1))
    ways = []
    for seed in range(12):
        again, moved = disturbed(crop, points, np.random.default_rng(seed))
        assert again.dtype == np.uint8
        assert again.shape == crop.shape
        assert 0 < np.abs(again.astype(int) - crop).mean() < 8
        assert np.median(off(np.where(again > 20, again, 0), moved)) < 0.3
        ways.append(np.linalg.norm(moved - points, axis=1).max())
    assert min(ways) == 0
    assert 0.5 < max(ways) < 4


def test_shade_leaves_a_share_of_the_light_more_on_one_side() -> None:
    white = np.full((CROP_SIZE, CROP_SIZE, 3), 255, np.uint8)
    shades = [shaded(white, np.random.default_rng(seed)) / 255 for seed in range(20)]
    assert all(0.09 < shade.min() <= shade.max() <= 1 for shade in shades)
    assert min(shade.mean() for shade in shades) < 0.35
    assert max(np.ptp(shade) for shade in shades) > 0.3


def test_a_sample_is_its_generator_s_alone(crop: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    first = [degrade(crop, np.random.default_rng(seed)) for seed in range(12)]
    state = torch.get_rng_state()
    second = [degrade(crop, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())  # training's own numbers are not used up
    assert all(image.shape == crop.shape and image.dtype == np.uint8 for image in first)
    assert len({image.tobytes() for image in first}) > 6


def test_film_loses_as_much_as_it_is_told(crop: NDArray[np.uint8]) -> None:
    errors = [np.abs(filmed(crop, loss).astype(int) - crop).mean() for loss in (10, 28, 40)]
    assert 0 < errors[0] < errors[1] < errors[2] < 20
