"""The landmark detectors' table: accuracy on people never trained on, steadiness, openings, speed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from realtime.annotation import find_face
from realtime.errors import InputError
from realtime.faces import FaceFinder
from realtime.landmarks import COUNT, heatmap_points, pupil_distance
from realtime.smoothing import PointSmoother
from trainer.baselines import Find, dlib_points, facemesh
from trainer.checkpoint import read_detector
from trainer.data import Pictures
from trainer.metrics import PARTS, error_percent, eye_opening, mean_of_known, mouth_opening
from trainer.prepare import MARGIN, PICTURE_SIZE
from trainer.sheet import labelled, sheet, with_points, write_picture
from trainer.table import Rows, save_tables

MEDIAPIPE = "MediaPipe FaceMesh"
RATE = 25  # frames per second of clips, for the filter
DISTURBED = 64  # stills that are disturbed
FAILED = 10.0  # % of the pupil distance: a face whose points are off by more, on average, is not found
CLOSED, OPEN = 4.0, 12.0  # openings in % of the pupil distance: eyes count as closed below, mouths as open above
NOTES = (
    "Errors, movements and openings in % of the pupil distance. The labels of stills without hand-placed points, and "
    "their openings, are MediaPipe's own, corrected: they favour it. Failures: faces that are not found, or whose "
    "points are off by more than 10 %. Checkpoints, and dlib trained by us, are given the aligned crop; the others "
    "look for the face themselves. Disturbances: the picture moved by one pixel, enlarged by 1 %, JPEG at quality 70, "
    "noise of two grey levels. From frame to frame: over the quarter of a held-out clip's steps in which the picture "
    "changes least; its own: less the person's motion, which is what the steps have in common with MediaPipe's, and "
    "MediaPipe's with the first row's; smoothed: by the live program's filter. ms: a frame of a clip in which the face "
    "is already known, median and 95th percentile."
)


@dataclass(frozen=True)
class Method:
    """`find` searches a picture for a face; `follow()` gives a function for the frames of one clip."""

    find: Find
    follow: Callable[[], Find]


def baselines() -> dict[str, Method]:
    """MediaPipe FaceMesh, and dlib's predictor where the `eval` extra is installed."""
    methods = {MEDIAPIPE: Method(facemesh(video=False), lambda: facemesh(video=True))}
    if dlib := dlib_points():
        methods["dlib 68"] = Method(dlib(False), lambda: dlib(True))
    return methods


def in_the_crop(points_of_crop: Callable[[np.ndarray], np.ndarray]) -> Find:
    """Points of a prepared picture, from a function of its middle 256x256 pixels."""
    return lambda image: points_of_crop(np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN])) + MARGIN


def of_models(models: Any, finder: FaceFinder) -> Method:
    """A bundle's detector: stills are searched as `landmarks` does, and a clip's face is followed in its crop."""

    def find(image: np.ndarray) -> np.ndarray | None:
        face = find_face(image, models.detect, finder)
        return None if face is None else face.points

    follow = in_the_crop(lambda crop: heatmap_points(models.detect(crop))[0])
    return Method(find, lambda: follow)


def of_checkpoint(path: Path) -> Method:
    """A checkpoint's detector in PyTorch, given the aligned crop: the search for the face is not its affair."""
    from trainer.train_detector import find_points

    detector, _ = read_detector(path)
    find = in_the_crop(lambda crop: find_points(detector, crop))
    return Method(find, lambda: find)


def of_predictor(path: Path) -> Method:
    """A predictor of `train dlib`, given the aligned crop."""
    from trainer.train_dlib import read_predictor

    find = in_the_crop(read_predictor(path))
    return Method(find, lambda: find)


def _found(find: Find, images: list[np.ndarray]) -> np.ndarray:
    """(N, 56, 2), NaN where there is no face."""
    blank = np.full((COUNT, 2), np.nan, np.float32)
    return np.stack([blank if (points := find(image)) is None else points for image in images])


def accuracy(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """NMSE per part, of parts all of whose points the method knows, and how many faces it failed on."""
    lost = np.isnan(found).all((1, 2))
    row = {}
    for name, part in PARTS.items():
        known = not np.isnan(found[~lost][:, part]).any() and not lost.all()
        row[name] = mean_of_known(error_percent(found, truth, part)) if known else float("nan")
    return row | {"failures": float((lost | (error_percent(found, truth) > FAILED)).sum())}


def openings(found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean error of the lids' gap on closed eyes, and of the lips' on open mouths."""
    row = {}
    for name, opening, chosen in (
        ("lids, closed eyes", eye_opening, eye_opening(labels) < CLOSED),
        ("lips, open mouths", mouth_opening, mouth_opening(labels) > OPEN),
    ):
        row[f"{name} ({chosen.sum()})"] = mean_of_known(np.abs(opening(found[chosen]) - opening(labels[chosen])))
    return row


def _moved(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    return cv2.warpAffine(
        image, np.array(matrix, np.float32), (PICTURE_SIZE, PICTURE_SIZE), borderMode=cv2.BORDER_REPLICATE
    )


def _jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)


def _noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


MIDDLE = (PICTURE_SIZE - 1) / 2
# What is done to a picture, and to points so that they fit it.
DISTURBANCES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "shift": (
        lambda image: _moved(image, [[1, 0, 1], [0, 1, 0]]),
        lambda points: points + np.array([1, 0], np.float32),
    ),
    "scale": (
        lambda image: _moved(image, [[1.01, 0, -0.01 * MIDDLE], [0, 1.01, -0.01 * MIDDLE]]),
        lambda points: points * np.float32(1.01) - np.float32(0.01 * MIDDLE),
    ),
    "JPEG": (_jpeg, lambda points: points),
    "noise": (_noisy, lambda points: points),
}


def consistency(find: Find, images: list[np.ndarray], found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How far points move under small disturbances (thesis figure 6.1)."""
    row = {}
    for name, (disturb, move) in DISTURBANCES.items():
        again = _found(find, [disturb(image) for image in images])
        distance = np.linalg.norm(again - move(found), axis=-1) / pupil_distance(labels)[:, None]
        row[name] = 100 * mean_of_known(distance.reshape(-1))
    return row


@dataclass(frozen=True)
class Steps:
    """Steps (N, 56, 2) of points from frame to frame while the person of a clip holds still, in % of the pupil
    distance: as a method gives the points, and smoothed as those that drive a photo."""

    found: np.ndarray
    smoothed: np.ndarray


def on_clips(method: Method, pictures: Pictures) -> tuple[list[Steps], dict[str, float]]:
    """The steps of each held-out clip; and the time that a frame takes, empty without clips."""
    steps, milliseconds = [], []
    for name in pictures.held_out_clips:
        indices = np.flatnonzero(pictures.clips == name)
        images = [pictures.image(i) for i in indices]
        follow, found = method.follow(), []
        for image in images:
            began = time.perf_counter()
            points = follow(image)
            milliseconds.append(1000 * (time.perf_counter() - began))
            found.append(np.full((COUNT, 2), np.nan, np.float32) if points is None else points)
        change = [np.abs(a.astype(np.int16) - b).mean() for a, b in pairwise(images)]
        still = np.argsort(change)[: max(1, len(change) // 4)]
        unit = pupil_distance(pictures.points[indices])[still, None, None] / 100
        tracks = np.stack(found), smoothed(np.stack(found), float(np.median(100 * unit)))
        steps.append(Steps(*(np.diff(track, axis=0)[still] / unit for track in tracks)))
    if not milliseconds:
        return [], {}
    median, slow = np.percentile(milliseconds, (50, 95))
    return steps, {"ms": float(median), "ms, 95 %": float(slow)}


def smoothed(track: np.ndarray, unit: float) -> np.ndarray:
    """Points (T, 56, 2) of a clip, an eye distance of `unit` pixels, as the live program smooths them; what is not
    known stays so."""
    smoother = PointSmoother(unit)
    result = np.full_like(track, np.nan)
    for number, points in enumerate(track):
        if np.isnan(points).all():
            smoother.reset()
        else:
            result[number] = smoother(points, number / RATE)
    return result


def unrest(steps: list[Steps], others: list[Steps]) -> dict[str, float]:
    """How far points move from frame to frame, of `on_clips`; how far without the person's own motion, which is what
    another method's steps have in common with them, the root of mean square less covariance; and how far smoothed."""
    if not steps:
        return {}
    own = []
    for mine, other in zip(steps, others, strict=False):  # there may be no other method
        shared = mean_of_known((mine.found * other.found).sum(-1).ravel())
        own.append(np.sqrt(max(0.0, mean_of_known(np.square(mine.found).sum(-1).ravel()) - shared)))

    def length(of_clips: list[np.ndarray]) -> float:
        return mean_of_known(np.array([mean_of_known(np.linalg.norm(one, axis=-1).ravel()) for one in of_clips]))

    return {
        "from frame to frame": length([one.found for one in steps]),
        "of which its own": mean_of_known(np.array(own)),
        "smoothed": length([one.smoothed for one in steps]),
    }


def evaluate(methods: dict[str, Method], pictures: Pictures, output: Path) -> str:
    """Measure methods on the held-out pictures; writes table.md, table.json and worst.png. Returns the table.

    Raises InputError if no still is held out.
    """
    stills = np.flatnonzero(pictures.validation & (pictures.clips == ""))
    if not len(stills):
        raise InputError("none of the stills shows a person who is held out: more people are needed")
    images = [pictures.image(i) for i in stills]
    labels, hand = pictures.points[stills], pictures.hand[stills]
    some = np.unique(np.linspace(0, len(stills) - 1, DISTURBED).astype(int))
    placed = ~np.isnan(hand).all((1, 2))
    by_hand: Rows = {}
    by_labels: Rows = {}
    steady: Rows = {}
    steps: dict[str, list[Steps]] = {}
    worst = []
    for name, method in tqdm(methods.items(), unit=" methods"):
        found = _found(method.find, images)
        steps[name], speed = on_clips(method, pictures)
        if placed.any():
            by_hand[name] = accuracy(found[placed], hand[placed]) | speed
        by_labels[name] = accuracy(found, labels) | openings(found, labels) | speed
        steady[name] = consistency(method.find, [images[i] for i in some], found[some], labels[some])
        worst.append(_worst(name, images, found, labels))
    for name in methods:
        other = next(iter(methods)) if name == MEDIAPIPE else MEDIAPIPE
        steady[name] |= unrest(steps[name], steps.get(other, []))
    write_picture(output / "worst.png", sheet(worst))
    tables = {
        f"{placed.sum()} held-out stills whose points were placed by hand": by_hand,
        f"All {len(stills)} held-out stills": by_labels,
        "Movement of points": steady,
    }
    return save_tables({title: rows for title, rows in tables.items() if rows}, NOTES, output)


def _worst(name: str, images: list[np.ndarray], found: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    errors = error_percent(found, labels)
    order = np.argsort(-np.nan_to_num(errors, nan=np.inf))[:10]
    return [labelled(with_points(images[i], found[i]), f"{name}: {errors[i]:.1f}") for i in order]
