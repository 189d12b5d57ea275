"""Training the landmark detector on prepared pictures (thesis 4.2.2)."""

from copy import copy
from typing import Any

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from realtime.landmarks import CROP_SIZE, STRIDE, heatmap_points
from trainer.augment import colour, degrade, disturbed, random_crop
from trainer.data import Pictures
from trainer.detector import Detector, DetectorSettings
from trainer.loop import cosine, optimize
from trainer.metrics import EYES_AND_PUPILS, LIPS_AND_CORNERS, error_percent, eye_opening, mouth_opening
from trainer.pairs import Pairs
from trainer.prepare import MARGIN
from trainer.sheet import sheet, with_points, wrapped

# Points that face each other across the opening of an eye or of the mouth.
UPPER = [19, 20, 21, 27, 28, 29, 35, 37, 39, 47, 48, 49]
LOWER = [25, 24, 23, 33, 32, 31, 45, 43, 41, 53, 52, 51]
REANIMATED = 0.3  # of the samples of stills are warped: to closing eyes, to gaping mouths, or to other expressions
# Openings of eyes, below which pictures are drawn three times as often, and of mouths, at which they are; in % of the
# pupil distance. The wider a mouth is open, the rarer it is, and the more often it is drawn.
SHUT, OPEN = 6.0, 12.0
MISSED = 8.0  # % of the pupil distance, a face's mean error beyond which it is not this face that was found
TREMBLING = 2.0  # weight of what points move by where the face does not
AT_ONCE = 32  # pictures that `seen_by` looks at in one pass
COARSE = 0.2  # of the budget is spent on half-size crops, where a sample costs a quarter


def gaussians(points: Tensor, settings: DetectorSettings, crop_size: int = CROP_SIZE) -> Tensor:
    """Target heatmaps of height 1 (thesis 4.2.2): (B, 56, 2) in crop pixels -> (B, 56, S, S)."""
    size = crop_size // settings.stride
    cells = torch.arange(size, device=points.device)
    centre = (points + 0.5) / settings.stride - 0.5
    scale = -0.5 * (settings.stride / settings.sigma) ** 2
    along_x = torch.exp(scale * (cells - centre[..., 0:1]) ** 2)
    along_y = torch.exp(scale * (cells - centre[..., 1:2]) ** 2)
    return along_y[..., :, None] * along_x[..., None, :]


def drawn_heatmaps(points: Tensor, crop_size: int) -> Tensor:
    """What realtime.landmarks.render_heatmaps draws, where the points are: (B, 56, 2) in pixels of the 256x256 crop ->
    (B, 56, S/4, S/4) for networks that work on crops of `crop_size` S."""
    return gaussians(points, DetectorSettings(stride=STRIDE * CROP_SIZE // crop_size))


def iou_loss(predicted: Tensor, truth: Tensor, epsilon: float = 1e-6) -> Tensor:
    """1 - soft intersection over union, thesis (4.2): (B, 56, S, S) in [0, 1] -> scalar.

    The intersection of two soft sets is their pointwise minimum, so that equal heatmaps reach exactly 0.
    """
    intersection = torch.minimum(predicted, truth).sum((-2, -1))
    union = predicted.sum((-2, -1)) + truth.sum((-2, -1)) - intersection
    return (1 - (intersection + epsilon) / (union + epsilon)).mean()


def decoded_near(predicted: Tensor, points: Tensor, stride: int) -> Tensor:
    """The live decoder's soft-argmax, taken around the true points: (B, 56, 2) in cells."""
    size = predicted.shape[-1]
    cells = torch.arange(size, device=predicted.device, dtype=torch.float32)
    centre = (points + 0.5) / stride - 0.5
    near_x = ((cells - centre[..., 0:1].round()).abs() <= 3).float()
    near_y = ((cells - centre[..., 1:2].round()).abs() <= 3).float()
    weight = predicted.float().square() * near_y[..., :, None] * near_x[..., None, :]
    total = weight.sum((-2, -1)) + 1e-6
    x = (weight.sum(-2) * cells).sum(-1) / total
    y = (weight.sum(-1) * cells).sum(-1) / total
    return torch.stack([x, y], -1)


def coordinate_losses(predicted: Tensor, points: Tensor, stride: int) -> dict[str, Tensor]:
    """Mean distances in cells: of the decoded points from the true ones; of the gaps between lids and between lips,
    which are what eyes and mouths say, and a net that doubts puts both rims half-way; and of the errors of one view of
    a face from those of the next, where views 2i and 2i + 1 of (2N, 56, S, S) show the same face."""
    found, centre = decoded_near(predicted, points, stride), (points + 0.5) / stride - 0.5
    error = found - centre
    inside = ((centre > 0) & (centre < predicted.shape[-1] - 1)).all(-1)
    distance = F.smooth_l1_loss(found, centre, beta=0.1, reduction="none").sum(-1)
    gaps = F.smooth_l1_loss(_gaps(found), _gaps(centre), beta=0.1, reduction="none").sum(-1)
    trembling = (error[::2] - error[1::2]).abs().sum(-1)
    return {
        "coordinates": (distance * inside).mean(),
        "gaps": (gaps * inside[:, UPPER] * inside[:, LOWER]).mean(),
        "trembling": (trembling * inside[::2] * inside[1::2]).mean(),
    }


def _gaps(points: Tensor) -> Tensor:
    return points[:, LOWER] - points[:, UPPER]


def _live_loss(logits: Tensor, points: Tensor, settings: DetectorSettings) -> dict[str, Tensor]:
    predicted, truth = torch.sigmoid(logits), gaussians(points, settings, logits.shape[-1] * settings.stride)
    losses = coordinate_losses(predicted, points, settings.stride)
    losses["trembling"] *= TREMBLING
    entropy = F.binary_cross_entropy_with_logits(logits, truth) * 20
    return {"iou": iou_loss(predicted, truth), "entropy": entropy} | losses


def _iou_loss(logits: Tensor, points: Tensor, settings: DetectorSettings) -> dict[str, Tensor]:
    return {"iou": iou_loss(torch.sigmoid(logits), gaussians(points, settings))}


def _mse_loss(logits: Tensor, points: Tensor, settings: DetectorSettings) -> dict[str, Tensor]:
    return {"mse": F.mse_loss(torch.sigmoid(logits), gaussians(points, settings))}


# Logits (B, 56, S, S) and points (B, 56, 2) in crop pixels -> the terms of the loss, by name.
LOSSES = {"live": _live_loss, "iou": _iou_loss, "mse": _mse_loss}


class DetectorTask:
    """Random training crops against Gaussian heatmaps; validation on people never trained on."""

    ema: tuple[str, ...] = ("detector",)

    def __init__(
        self, pictures: Pictures, settings: DetectorSettings, learning_rate: float, coarse: float = COARSE
    ) -> None:
        self.pictures, self.settings, self._coarse = pictures, settings, coarse
        detector = Detector(settings)
        self.modules: dict[str, nn.Module] = {"detector": detector}
        self._live = settings.loss == "live"  # otherwise the thesis's training: Adam, and whole crops from the start
        decay = 1e-3 if self._live else 0.0
        optimizer = torch.optim.AdamW(detector.parameters(), learning_rate, weight_decay=decay)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"detector": optimizer}
        # Clips are many frames of few people: their frames count a third.
        weight = np.where(pictures.clips == "", 1.0, 1 / 3) * ~pictures.validation
        hand = ~np.isnan(pictures.hand).all((1, 2))
        rare = np.where(eye_opening(pictures.points) < SHUT, 3.0, 1.0)
        open_mouth = np.clip(3 * mouth_opening(pictures.points) / OPEN, 1, 8)
        self._chance = weight * np.where(hand, 4.0, np.maximum(rare, open_mouth))
        self._chance /= self._chance.sum()
        self._pairs = Pairs(pictures, CROP_SIZE)
        self._frontal = set(self._pairs.stills.tolist())
        self._check = np.flatnonzero(pictures.validation & (pictures.clips == ""))
        self._clips = np.flatnonzero(pictures.validation & (pictures.clips != ""))[::4]

    def schedule(self, progress: float) -> float:
        """A cosine; in the thesis a tenth from epoch 60 of 200 on, and again from 80 on (5.3.2)."""
        return cosine(progress) if self._live else 0.1 ** ((progress >= 0.3) + (progress >= 0.4))

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        index = int(rng.choice(len(self._chance), p=self._chance))
        image, points = self.pictures.image(index), self.pictures.points[index]
        if self._live and index in self._frontal and rng.random() < REANIMATED:
            image, points = self._pairs.warped(index, rng)
            image = cv2.copyMakeBorder(image, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
            points = points + MARGIN
        crop, points = random_crop(image, points.astype(np.float32), rng)
        views = [(degrade(colour(crop, rng), rng), points)]
        if self._live:
            views.append(disturbed(*views[0], rng))
        crops, of_views = zip(*views, strict=True)
        return {"crop": np.stack(crops).transpose(0, 3, 1, 2).copy(), "points": np.stack(of_views)}

    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]:
        detector: Any = self.modules["detector"]
        detector.train()
        crops, points = batch["crop"].flatten(0, 1).float() / 255, batch["points"].flatten(0, 1)
        if self._live and progress < self._coarse:
            crops, points = F.avg_pool2d(crops, 2), (points + 0.5) / 2 - 0.5
        with fabric.autocast():
            logits = detector.logits(crops).float()
        losses = LOSSES[self.settings.loss](logits, points, self.settings)
        optimize(fabric, self.optimizers["detector"], torch.stack(list(losses.values())).sum())
        return {name: value.item() for name, value in losses.items()}

    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]:
        """Errors in % of the pupil distance on held-out stills and clips, and a picture of the first stills."""
        result: dict[str, float] = {}
        shown: list[np.ndarray] = []
        for name, indices in (("stills", self._check), ("clips", self._clips)):
            if not len(indices):
                continue
            crops = [self.pictures.image(i)[MARGIN:-MARGIN, MARGIN:-MARGIN] for i in indices]
            predicted = np.stack([find_points(modules["detector"], crop) for crop in crops])
            if name == "stills":
                shown = [with_points(c, p) for c, p in zip(crops[:24], predicted, strict=False)]
            result[f"{name}_nmse"] = float(error_percent(predicted, self.pictures.points[indices] - MARGIN).mean())
            hand = self.pictures.hand[indices] - MARGIN
            placed = ~np.isnan(hand).all((1, 2))
            if placed.any():
                for part, which in (("lips", LIPS_AND_CORNERS), ("eyes", EYES_AND_PUPILS)):
                    result[f"hand_{part}"] = float(error_percent(predicted[placed], hand[placed], which).mean())
        return result, sheet(wrapped(shown, 8))


def find_points(detector: nn.Module, crop: np.ndarray) -> np.ndarray:
    """A detector's points (56, 2) in a crop, RGB uint8 (256, 256, 3), as the live loop reads them."""
    return find_all_points(detector, crop[None])[0]


@torch.no_grad()
def find_all_points(detector: nn.Module, crops: np.ndarray) -> np.ndarray:
    """`find_points` of crops (B, 256, 256, 3) in one pass: (B, 56, 2)."""
    device = next(detector.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2).float() / 255
    return np.stack([heatmap_points(heatmaps)[0] for heatmaps in detector.eval()(batch).float().cpu().numpy()])


def seen_by(detector: nn.Module, pictures: Pictures) -> Pictures:
    """The same pictures with a detector's points in place of the labels, but where it misses the face."""
    seen, labels = copy(pictures), pictures.points
    bar = tqdm(range(len(pictures)), desc="Landmarks", unit=" pictures", leave=False)
    found = np.empty_like(labels)
    for first in range(0, len(pictures), AT_ONCE):
        numbers = range(len(pictures))[first : first + AT_ONCE]
        crops = np.stack([pictures.image(i)[MARGIN:-MARGIN, MARGIN:-MARGIN] for i in numbers])
        found[first : first + AT_ONCE] = find_all_points(detector, crops) + MARGIN
        bar.update(len(numbers))
    bar.close()
    missed = error_percent(found, labels) > MISSED
    seen.points = np.where(missed[:, None, None], labels, found)
    return seen
