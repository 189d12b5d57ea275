"""What the evaluations measure. Pictures are RGB uint8 (S, S, 3); points (56, 2) in pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from realtime.landmarks import BROWS, COUNT, EYES, INNER_LIPS, LEFT_EYE, LIPS, PUPILS, RIGHT_EYE, pupil_distance

ALL = np.arange(COUNT)
LIPS_AND_CORNERS = np.r_[LIPS, 18, 22, 26, 30]
EYES_AND_PUPILS = np.r_[EYES, PUPILS]
PARTS = {
    "all": ALL,
    "lips": LIPS,
    "lips and eye corners": LIPS_AND_CORNERS,
    "eyes and pupils": EYES_AND_PUPILS,
    "brows": BROWS,
}


def error_percent(predicted: np.ndarray, truth: np.ndarray, part: np.ndarray = ALL) -> np.ndarray:
    """NMSE (thesis 5.1): mean distance of a part's points, in % of the pupil distance: (N, 56, 2) twice -> (N,).

    Points that are not placed or not predicted (NaN) do not count; NaN where none is left.
    """
    distance = np.linalg.norm(predicted[:, part] - truth[:, part], axis=-1)
    known = ~np.isnan(distance)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, distance, 0).sum(1) / known.sum(1)
    return 100 * mean / pupil_distance(truth)


def mean_of_known(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN if nothing is known."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def mean_rows(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over rows, of those that have it; empty without rows."""
    return {name: mean_of_known(np.array([row[name] for row in rows])) for name in rows[0]} if rows else {}


def eye_opening(points: np.ndarray) -> np.ndarray:
    """Distance between the lids' middles, both eyes' mean, in % of the pupil distance: (..., 56, 2) -> (...)."""
    gaps = [points[..., eye[5:8], 1].mean(-1) - points[..., eye[1:4], 1].mean(-1) for eye in (LEFT_EYE, RIGHT_EYE)]
    return np.asarray(50 * (gaps[0] + gaps[1]) / pupil_distance(points))


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """Distance between the inner lips' middles in % of the pupil distance: (..., 56, 2) -> (...)."""
    gap = points[..., INNER_LIPS[5:8], 1].mean(-1) - points[..., INNER_LIPS[1:4], 1].mean(-1)
    return np.asarray(100 * gap / pupil_distance(points))


def carried_over(result: np.ndarray, truth: np.ndarray, photo: np.ndarray) -> float:
    """The share of a change of opening that a result shows, in %: the least-squares slope of (result - photo) over
    (truth - photo), each (N,); NaN if the truth hardly changes."""
    asked, got = truth - photo, result - photo
    size = float((asked * asked).sum())
    return 100 * float((asked * got).sum()) / size if size > len(asked) else float("nan")


def l1(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference, on a scale of 0 to 1."""
    return float(np.abs(result.astype(np.float32) - truth).mean()) / 255


def psnr(result: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; 60 for pictures that are equal to within rounding."""
    error = float(np.square((result.astype(np.float32) - truth) / 255).mean())
    return -10 * float(np.log10(max(error, 1e-6)))


def ssim(result: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) with its 11x11 Gaussian window, mean of the channels."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            result, truth, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """CSIM (thesis 5.2) of two embeddings."""
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))


PICTURE_METRICS: dict[str, Callable[[Any, Any], float]] = {"L1": l1, "PSNR dB": psnr, "SSIM": ssim}
