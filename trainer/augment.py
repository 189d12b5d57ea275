"""What cameras and webcams do to pictures, done to training crops (thesis 4.2.2, and compression, light and cover).

Kornia bends and blurs. OpenCV and PyAV do what it lacks: real codecs, in place of a differentiable likeness of JPEG
that takes thirty times as long, and covers that are no rectangles.
"""

from collections.abc import Callable
from fractions import Fraction

import av
import cv2
import kornia.augmentation as K
import numpy as np
import torch
from kornia.geometry.calibration import distort_points
from kornia.geometry.transform import get_tps_transform, remap, warp_points_tps
from torch import Tensor
from torch.nn import functional as F

from realtime.alignment import inverse, transform
from realtime.landmarks import CROP_SIZE, MIRROR
from trainer.prepare import PICTURE_SIZE

Map = Callable[[Tensor], Tensor]  # crop pixels (1, N, 2) -> the crop pixels that are shown there

MIDDLE = (CROP_SIZE - 1) / 2
CAMERA = torch.tensor([[[CROP_SIZE, 0, MIDDLE], [0, CROP_SIZE, MIDDLE], [0, 0, 1]]], dtype=torch.float32)
LENS, GRID = 0.2, 0.2  # of the crops are bent so
KNOTS = 33  # a side: maps are smooth, so they are evaluated here and interpolated between


def _lattice(count: int, size: float) -> Tensor:
    """count x count points from 0 to size, row by row: (1, count * count, 2)."""
    line = torch.linspace(0, size, count)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, -1, 2)


@torch.no_grad()
def random_crop(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A 256x256 crop, turned, scaled, shifted, mirrored and bent at random, and its points (56, 2)."""
    angle = np.radians(rng.normal(0, 9))
    scale = np.exp(rng.normal(0, 0.08))
    shift = rng.normal(0, 6, 2)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    if rng.random() < 0.5:
        linear[0] *= -1
        points = points[MIRROR]
    matrix = np.column_stack([linear, MIDDLE + shift - linear @ np.full(2, (PICTURE_SIZE - 1) / 2)]).astype(np.float32)
    bend = distortion(rng)
    return warp(image, matrix, bend), bent(transform(points, matrix), bend)


def distortion(rng: np.random.Generator) -> Map | None:
    """Optical distortion, by the lens's two radial terms, or that of a grid of 4x4 points pushed about, or both."""
    lens = torch.tensor([[rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.1), 0, 0]]) if rng.random() < LENS else None
    knots = _lattice(4, 1)
    pushed = knots + torch.from_numpy(rng.normal(0, 0.012, knots.shape)).float() if rng.random() < GRID else None
    if lens is None and pushed is None:
        return None
    spline = None if pushed is None else get_tps_transform(knots, pushed)

    def bend(points: Tensor) -> Tensor:
        if lens is not None:
            points = distort_points(points, CAMERA, lens.float())
        if spline is not None:
            points = warp_points_tps(points / CROP_SIZE, knots, *spline) * CROP_SIZE
        return points

    return bend


def warp(image: np.ndarray, matrix: np.ndarray, bend: Map | None) -> np.ndarray:
    """The 256x256 crop of an RGB uint8 image under a (2, 3) image-to-crop matrix and a distortion of that crop."""
    knots = _lattice(KNOTS, CROP_SIZE - 1)
    shown = knots if bend is None else bend(knots)
    places = torch.from_numpy(transform(shown[0].numpy(), inverse(matrix)))
    places = places.T.reshape(1, 2, KNOTS, KNOTS)
    x, y = F.interpolate(places, size=(CROP_SIZE, CROP_SIZE), mode="bilinear", align_corners=True)[0]
    return _image(remap(_tensor(image), x[None], y[None], padding_mode="border", align_corners=True))


def bent(points: np.ndarray, bend: Map | None) -> np.ndarray:
    """Where a distortion shows points (N, 2) of the crop: what it maps to them, found by fixed-point iteration."""
    if bend is None:
        return points
    truth = torch.from_numpy(points)[None]
    places = truth
    for _ in range(12):
        places = places + truth - bend(places)
    return places[0].numpy()


def _tensor(image: np.ndarray) -> Tensor:
    """RGB uint8 (H, W, 3) -> (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def _image(tensor: Tensor) -> np.ndarray:
    return (tensor[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


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


# A camera's moving, a median filter's smoothing, the noise of much light and of little: one at a time.
SENSOR = K.ImageSequential(
    K.RandomMotionBlur((3, 9), 180.0, 1.0, border_type="replicate", p=1.0),
    K.RandomMedianBlur((3, 3), p=1.0),
    K.RandomGaussianNoise(0.0, 0.012, p=1.0),
    K.RandomGaussianNoise(0.0, 0.035, p=1.0),
    random_apply=1,
    random_apply_weights=[0.25, 0.15, 0.3, 0.3],
)


@torch.no_grad()
def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At random, in the order of a camera: shade, something in the way, blur or noise, low resolution, compression."""
    if rng.random() < 0.15:
        image = shaded(image, rng)
    if rng.random() < 0.2:
        image = occlude(image, rng)
    if rng.random() < 0.6:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                int(rng.integers(2**63))
            )  # kornia draws from torch: a sample is a function of `rng` alone
            image = _image(SENSOR(_tensor(image)))
    if rng.random() < 0.3:
        small = rng.uniform(0.3, 0.8)
        image = cv2.resize(
            cv2.resize(image, None, fx=small, fy=small, interpolation=cv2.INTER_AREA), (CROP_SIZE, CROP_SIZE)
        )
    codec = rng.random()
    if codec < 0.3:
        image = jpeg(image, int(rng.integers(25, 90)))
    elif codec < 0.5:
        image = filmed(image, int(rng.integers(24, 40)))
    return image


def disturbed(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A 256x256 crop and its points (56, 2) as the next frame may show the same face: half of the time moved by about a
    pixel and scaled by half a percent; with faint noise, and sometimes compressed again."""
    scale, shift = np.exp(rng.normal(0, 0.005)), rng.normal(0, 0.7, 2)
    matrix = np.column_stack([scale * np.eye(2), MIDDLE * (1 - scale) + shift]).astype(np.float32)
    if rng.random() < 0.5:
        image = cv2.warpAffine(image, matrix, (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REPLICATE)
        points = transform(points, matrix)
    noise = rng.normal(0, rng.uniform(0.5, 4), image.shape)
    image = np.clip(np.round(image + noise), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        image = jpeg(image, int(rng.integers(60, 95)))
    return image, points


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """A uint8 picture as JPEG shows it at a quality of 0 to 100."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def filmed(image: np.ndarray, loss: int) -> np.ndarray:
    """An RGB uint8 picture as H.264 shows it at a constant rate factor: 0 loses nothing, 51 most."""
    height, width = image.shape[:2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuv420p", Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": str(loss)}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(image, "rgb24")), *encoder.encode(None)]
    shown = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return shown[0].to_ndarray(format="rgb24")


def shaded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Little light, or light from one side: down to a tenth of it where there is least."""
    angle, least, most = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6), rng.uniform(0.3, 1)
    along = np.linspace(-1, 1, CROP_SIZE)
    ramp = 0.5 + (np.cos(angle) * along + np.sin(angle) * along[:, None]) / 2**1.5  # 0 to 1 across a diagonal
    return (image * (least + (most - least) * ramp)[..., None]).astype(np.uint8)


def occlude(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft-edged ellipse of one colour or of another part of the picture, like a hand or a microphone."""
    mask = np.zeros(image.shape[:2], np.float32)
    centre = tuple(int(v) for v in rng.integers(50, 206, 2))
    axes = tuple(int(v) for v in rng.integers(8, 40, 2))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, (1.0,), -1)
    soft = cv2.GaussianBlur(mask, (7, 7), 0)[..., None]
    cover = np.roll(image, tuple(rng.integers(40, 200, 2)), (0, 1)) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    return (image * (1 - soft) + cover * soft).astype(np.uint8)
