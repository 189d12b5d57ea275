"""Models that owe nothing to the shipped weights: MediaPipe FaceMesh for points, and the flow prior for the picture."""

import os

import numpy as np
from mediapipe.python.solutions.face_mesh import FaceMesh
from numpy.typing import NDArray

from realtime.landmarks import CROP_SIZE, FACEMESH, HEATMAP_SIZE, Array, render_heatmaps

Image = NDArray[np.uint8]


class FaceMeshModels:
    """A classical puppet: the photo is warped by its landmarks alone."""

    engine, precision, device = "facemesh", "f32", "cpu"

    def __init__(self) -> None:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)  # MediaPipe greets on standard error
        self._mesh = FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1)
        self._mesh.process(np.zeros((64, 64, 3), np.uint8))
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
        self.detections = 0  # how often it was asked

    def detect(self, crop: Image) -> Array:
        self.detections += 1
        faces = self._mesh.process(crop).multi_face_landmarks
        if not faces:
            return np.zeros((56, HEATMAP_SIZE, HEATMAP_SIZE), np.float32)
        points = np.array([(point.x, point.y) for point in faces[0].landmark], np.float32)[FACEMESH] * CROP_SIZE - 0.5
        return render_heatmaps(points)

    def encode_target(self, crop: Image, _heatmaps: Array) -> Array:
        return crop.astype(np.float32) / 255

    def generate(self, _driving: Array, prior: Array, features: Array) -> tuple[Array, Array, Array]:
        return prior[:2], np.ones((CROP_SIZE, CROP_SIZE), np.float32), features

    def close(self) -> None:
        self._mesh.close()
