"""Finding the face and following it: MediaPipe finds it, the U-Net's own points carry it from frame to frame.

What else MediaPipe sees of a picture, a face's 478 points and where there is a person, serves photos and training.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from mediapipe.python.solutions.face_detection import FaceDetection
from mediapipe.python.solutions.face_mesh import FaceMesh
from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation
from numpy.typing import NDArray

from realtime.alignment import TEMPLATE, cut, inverse, similarity, transform
from realtime.landmarks import CROP_SIZE, Array, five_points, heatmap_points

Image = NDArray[np.uint8]
Detect = Callable[[Image], Array]  # crop uint8 (256, 256, 3) -> heatmaps float32 (56, 64, 64)

# What MediaPipe gives of a face that has a place in the crop: two eyes and the middle of the mouth.
AIM = np.array([TEMPLATE[0], TEMPLATE[1], (TEMPLATE[3] + TEMPLATE[4]) / 2], np.float32)
CORNERS = np.array([[0, 0], [CROP_SIZE, 0], [0, CROP_SIZE], [CROP_SIZE, CROP_SIZE]], np.float32)

DRIFT = 8.0  # crop pixels, 3 % of the crop: the crop stays put until the face has moved so far in it
LEAP = 32.0  # crop pixels: so far off its place the U-Net was not trained, and looks again in a crop cut anew
DOUBT = 0.4  # mean confidence below which MediaPipe is asked whether this is still a face
CHECK_EVERY = 30  # frames between two questions to MediaPipe when nothing is in doubt


class FaceState(Enum):
    """What the tracker knows of the face after a frame."""

    UNSEEN = "unseen"  # no face in any frame so far
    FOUND = "found"  # the first frame with a face
    TRACKED = "tracked"  # the same face as in the frame before
    LOST = "lost"  # there was a face, now there is none
    REFOUND = "re-found"  # the first frame with a face after a loss


@dataclass(frozen=True)
class Face:
    """A face in an image.

    points: (56, 2) float32, image pixels; confidence: (56,) float32 in [0, 1];
    matrix: (2, 3) float32, image to the 256x256 crop that was measured; crop: that crop, uint8 (256, 256, 3).
    """

    points: Array
    confidence: Array
    matrix: Array
    crop: Image


_starting = threading.Lock()  # one graph at a time: there is one standard error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The process's standard error to nowhere, for as short as can be: MediaPipe's C++ greets there when a graph starts
    or first sees a face, and no setting stops it."""
    with _starting:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


class FaceFinder:
    """MediaPipe's face detection: the short-range model, and the full-range one where that sees no face, or several:
    ears, hair and collars look like second faces to it."""

    def __init__(self) -> None:
        with quiet():
            self._short_range, self._full_range = self._models = [
                FaceDetection(min_detection_confidence=0.5, model_selection=selection) for selection in (0, 1)
            ]
            for model in self._models:
                model.process(np.zeros((128, 128, 3), np.uint8))

    def find(self, image: Image) -> list[Array]:
        """The faces of an RGB uint8 image, largest first: each (3, 2) float32, eyes and middle of the mouth, in pixels.

        "Left" eye comes first, as it is left in an upright picture.
        """
        near = self._run(self._short_range, image)
        if len(near) == 1:
            return near
        return self._run(self._full_range, image) or near[:1]

    def sees(self, crop: Image, points: Array) -> bool:
        """Whether a (256, 256, 3) crop shows a face where the (56, 2) points, in crop pixels, say it is."""
        five = five_points(points)
        eyes, reach = five[:2].mean(0), np.linalg.norm(five[1] - five[0]) / 2
        return any(np.linalg.norm(face[:2].mean(0) - eyes) < reach for face in self._run(self._short_range, crop))

    @staticmethod
    def _run(model: Any, image: Image) -> list[Array]:
        height, width = image.shape[:2]
        sized = []
        for detection in model.process(np.ascontiguousarray(image)).detections or []:
            location = detection.location_data
            box, keys = location.relative_bounding_box, location.relative_keypoints
            points = np.array([(keys[i].x * width, keys[i].y * height) for i in (0, 1, 3)], np.float32) - 0.5
            sized.append((box.width * width * box.height * height, points))
        sized.sort(key=lambda face: -face[0])
        return [points for _, points in sized]

    def close(self) -> None:
        for model in self._models:
            model.close()


class MeshFinder:
    """MediaPipe FaceMesh with attention (the release that carries its models): pictures -> 478 points."""

    def __init__(self, video: bool) -> None:
        self._video = video

    @cached_property
    def _mesh(self) -> Any:
        return FaceMesh(static_image_mode=not self._video, max_num_faces=1, refine_landmarks=True)

    def __call__(self, image: Image) -> Array | None:
        """The points (478, 3) of the face in an RGB uint8 image, in its pixels, depth too; None without one."""
        found = self._mesh.process(image).multi_face_landmarks
        if not found:
            return None
        height, width = image.shape[:2]
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
        return points * np.array([width, height, width], np.float32) - np.array([0.5, 0.5, 0], np.float32)

    def close(self) -> None:
        if "_mesh" in self.__dict__:
            self._mesh.close()


class PersonFinder:
    """MediaPipe's selfie segmentation: where a picture shows a person."""

    def __init__(self) -> None:
        with quiet():
            self._model = SelfieSegmentation(model_selection=0)
            self._model.process(np.zeros((128, 128, 3), np.uint8))

    def __call__(self, image: Image) -> Array:
        """The share of each pixel of an RGB uint8 image that is person, (H, W) float32 in [0, 1]."""
        mask: Array = self._model.process(image).segmentation_mask
        return mask

    def close(self) -> None:
        self._model.close()


def measure(image: Image, matrix: Array, detect: Detect) -> Face:
    """The U-Net's points of the face that a (2, 3) image-to-crop matrix frames."""
    crop = cut(image, matrix)
    points, confidence = heatmap_points(detect(crop))
    return Face(transform(points, inverse(matrix)), confidence, matrix, crop)


def align(points: Array) -> Array:
    """The (2, 3) matrix that takes a face's (56, 2) points in image pixels to their places in the crop."""
    return similarity(five_points(points))


def acquire(image: Image, found: Array, detect: Detect) -> Face:
    """A face that MediaPipe found, (3, 2) in image pixels, measured twice: its keypoints frame it only roughly."""
    rough = measure(image, similarity(found, AIM), detect)
    return measure(image, align(rough.points), detect) if is_facelike(rough) else rough


def _drift(kept: Array, ideal: Array) -> float:
    """How far the ideal crop's corners lie from the kept one's, in its pixels: shift, turn and size in one number."""
    corners = transform(transform(CORNERS, inverse(ideal)), kept)
    return float(np.linalg.norm(corners - CORNERS, axis=1).max())


def is_facelike(face: Face) -> bool:
    """Whether the points lie as a face's do in its crop: the eyes side by side and apart, the mouth below them."""
    left, right, _, *mouth = five_points(transform(face.points, face.matrix))
    apart = float(right[0] - left[0])
    below = float(np.mean([point[1] for point in mouth]) - (left[1] + right[1]) / 2)
    return 20 < apart < 130 and 25 < below < 140


class FaceTracker:
    """Follows one face through a stream of images. One thread owns it.

    Points are measured in a crop that stays put while the face stays near its place: cutting anew in every frame would
    make the points of a still face shimmer. Doubtful points, and every 30th frame's, are shown to MediaPipe; when it
    sees no face there, or while none is tracked, it searches the whole image in every frame, and the largest face wins.
    """

    def __init__(self, detect: Detect, finder: FaceFinder) -> None:
        self.state = FaceState.UNSEEN
        self._detect, self._finder = detect, finder
        self._matrix: Array | None = None
        self._unchecked = 0

    def track(self, image: Image) -> Face | None:
        """The tracked face in the next RGB uint8 image, None when there is none; `state` says which."""
        face = self._follow(image)
        if face is not None:
            self.state = FaceState.TRACKED
            return face
        known = self.state is not FaceState.UNSEEN
        face = self._search(image)
        if face is None:
            self.state = FaceState.LOST if known else FaceState.UNSEEN
        else:
            self.state = FaceState.REFOUND if known else FaceState.FOUND
        return face

    def _follow(self, image: Image) -> Face | None:
        if self._matrix is None:
            return None
        face = measure(image, self._matrix, self._detect)
        if is_facelike(face) and _drift(self._matrix, align(face.points)) > LEAP:
            face = measure(image, align(face.points), self._detect)
        return face if self._holds(face) else None

    def _search(self, image: Image) -> Face | None:
        self._matrix = None
        self._unchecked = CHECK_EVERY  # a face found anew must prove itself
        for found in self._finder.find(image)[:1]:
            face = acquire(image, found, self._detect)
            if self._holds(face):
                return face
        return None

    def _holds(self, face: Face) -> bool:
        """Whether this is still a face; if so, where the next frame's crop is cut."""
        if not is_facelike(face):
            return False
        self._unchecked += 1
        if self._unchecked > CHECK_EVERY or face.confidence.mean() < DOUBT:
            if not self._finder.sees(face.crop, transform(face.points, face.matrix)):
                return False
            self._unchecked = 0
        ideal = align(face.points)
        self._matrix = ideal if _drift(face.matrix, ideal) > DRIFT else face.matrix
        return True
