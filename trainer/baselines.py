"""What the models are compared with: MediaPipe FaceMesh, dlib's predictor and its face embedding, and plain warps."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realtime.faces import MeshFinder, PersonFinder
from realtime.head import OVAL, cells_of, distance_from, person_cells, ring_points
from realtime.landmarks import COUNT, CROP_SIZE, EYES, FACEMESH, INNER_LIPS, OUTER_LIPS
from trainer.mesh import Surface

Find = Callable[[np.ndarray], np.ndarray | None]  # RGB uint8 picture -> (56, 2), NaN for points it does not know

# Landmarks that dlib's 68-point scheme (iBUG) shares: lips, and the corners of the eyes.
SHARED_WITH_DLIB = np.r_[OUTER_LIPS, INNER_LIPS, EYES[[0, 4, 8, 12]]]
DLIB = np.r_[48:60, 60:68, 36, 39, 42, 45]


def facemesh(video: bool) -> Find:
    """MediaPipe FaceMesh's 56 points; `video`: it follows the face from call to call."""
    teacher = MeshFinder(video)

    def find(image: np.ndarray) -> np.ndarray | None:
        mesh = teacher(image)
        return None if mesh is None else mesh[FACEMESH, :2]

    return find


def dlib_model(name: str) -> Path | None:
    """A model file of the `eval` extra; None if the extra is not installed. Its package is not imported: it asks for
    the pkg_resources that setuptools has dropped."""
    spec = find_spec("face_recognition_models")
    if spec is None or spec.origin is None or find_spec("dlib") is None:
        return None
    return Path(spec.origin).parent / "models" / name


def dlib_points() -> Callable[[bool], Find] | None:
    """dlib's 68-point predictor (Kazemi & Sullivan 2014), with its face finder or, for video, with the first face's
    rectangle kept; None if it is not installed."""
    path = dlib_model("shape_predictor_68_face_landmarks.dat")
    if path is None:
        return None
    import dlib

    finder, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))

    def finding(video: bool) -> Find:
        kept: list[Any] = []

        def find(image: np.ndarray) -> np.ndarray | None:
            faces = kept or finder(image, 1)
            if not faces:
                return None
            face = max(faces, key=lambda rectangle: rectangle.area())
            if video:
                kept[:] = [face]
            shape = predictor(image, face)
            points = np.full((COUNT, 2), np.nan, np.float32)
            points[SHARED_WITH_DLIB] = [(shape.part(int(i)).x, shape.part(int(i)).y) for i in DLIB]
            return points

        return find

    return finding


def dlib_embedding() -> Callable[[np.ndarray], np.ndarray] | None:
    """dlib's face embedding (128,) of an aligned crop, RGB uint8 (256, 256, 3); None if it is not installed."""
    places = dlib_model("shape_predictor_5_face_landmarks.dat")
    network = dlib_model("dlib_face_recognition_resnet_model_v1.dat")
    if places is None or network is None:
        return None
    import dlib

    predictor, encoder = dlib.shape_predictor(str(places)), dlib.face_recognition_model_v1(str(network))
    face = dlib.rectangle(60, 70, 196, 206)  # where alignment puts it

    def embed(crop: np.ndarray) -> np.ndarray:
        return np.array(encoder.compute_face_descriptor(crop, predictor(crop, face)))

    return embed


def copy(photo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The photo itself, whatever drives it."""
    return lambda _driving: photo


def mesh_warp(surface: Surface) -> Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """The photo's triangles moved to where FaceMesh sees them in the driving crop: no learning, no inside of mouths.

    Where it sees no face the photo stays as it is.
    """
    teacher, person_finder = MeshFinder(video=False), PersonFinder()

    def of_photo(photo: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        rest, apart = teacher(photo), None
        if rest is not None and surface.rings:
            person = person_cells(person_finder(photo))
            apart = distance_from(person, cells_of(0), ring_points(rest[OVAL, :2]))

        def reenact(driving: np.ndarray) -> np.ndarray:
            mesh = teacher(driving)
            if mesh is None or rest is None:
                return photo
            here, there = surface.extend(mesh, rest, apart), surface.extend(rest, rest)
            place, _ = surface.flow(here, there, CROP_SIZE, 1.0)
            x, y = place.astype(np.float32).transpose(2, 0, 1)
            return cv2.remap(photo, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        return reenact

    return of_photo
