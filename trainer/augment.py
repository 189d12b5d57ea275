"""What webcams do to pictures, done to training crops."""

import cv2
import numpy as np

from realtime.landmarks import CROP_SIZE, MIRROR
from trainer.prepare import PICTURE_SIZE


def random_crop(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A 256x256 crop, turned, scaled, shifted and mirrored at random, and its points (56, 2)."""
    angle = np.radians(rng.normal(0, 9))
    scale = np.exp(rng.normal(0, 0.08))
    shift = rng.normal(0, 6, 2)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    middle = (PICTURE_SIZE - 1) / 2
    matrix = np.column_stack([linear, (CROP_SIZE - 1) / 2 + shift - linear @ [middle, middle]])
    crop = cv2.warpAffine(
        image, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    points = points @ linear.T + matrix[:, 2]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
        points = points[MIRROR]
        points = np.column_stack([CROP_SIZE - 1 - points[:, 0], points[:, 1]])
    return np.ascontiguousarray(crop), points.astype(np.float32)


def colour(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Exposure, contrast, colour casts, low light and grey, on uint8."""
    gain = np.exp(rng.normal(0, 0.22 * strength)) * np.exp(rng.normal(0, 0.07 * strength, 3))
    gamma = np.exp(rng.normal(0, 0.25 * strength))
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain + rng.normal(0, 0.05 * strength)
    table = np.clip(levels * 255, 0, 255).astype(np.uint8)[None]
    image = cv2.LUT(image, table)
    if rng.random() < 0.1 * strength:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return image


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At random: low resolution, motion or median blur, something in the way, sensor noise, JPEG."""
    if rng.random() < 0.3:
        small = rng.uniform(0.3, 0.8)
        image = cv2.resize(
            cv2.resize(image, None, fx=small, fy=small, interpolation=cv2.INTER_AREA), (CROP_SIZE, CROP_SIZE)
        )
    if rng.random() < 0.15:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), (1.0,))
        image = cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1e-6))
    elif rng.random() < 0.1:
        image = cv2.medianBlur(image, 5)
    if rng.random() < 0.2:
        image = occlude(image, rng)
    if rng.random() < 0.4:
        noise = rng.normal(
            0, rng.uniform(1, 12), (CROP_SIZE // 2, CROP_SIZE // 2, 3) if rng.random() < 0.5 else image.shape
        )
        noise = np.asarray(cv2.resize(noise, (CROP_SIZE, CROP_SIZE)) if noise.shape != image.shape else noise)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])[1], 1)
    return image


def occlude(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft-edged ellipse of one colour or of another part of the picture, like a hand or a microphone."""
    mask = np.zeros(image.shape[:2], np.float32)
    centre = tuple(int(v) for v in rng.integers(50, 206, 2))
    axes = tuple(int(v) for v in rng.integers(8, 40, 2))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, (1.0,), -1)
    soft = cv2.GaussianBlur(mask, (7, 7), 0)[..., None]
    cover = np.roll(image, tuple(rng.integers(40, 200, 2)), (0, 1)) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return (image * (1 - soft) + cover * soft).astype(np.uint8)
