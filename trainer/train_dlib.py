"""dlib's shape predictor (Kazemi & Sullivan 2014) trained on our pictures: the rival of thesis Table 6.3."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realtime.errors import InputError
from realtime.landmarks import COUNT, CROP_SIZE
from trainer.augment import random_crop
from trainer.data import Pictures

ENLARGED = 2  # dlib's points are whole pixels: in a crop twice as large they are half as coarse
FACE = (60, 70, 196, 206)  # left, top, right, bottom in the aligned crop: what dlib's own finder would frame


@dataclass(frozen=True)
class DlibTraining:
    """dlib's standard options (thesis 5.3.3), but for half its first guesses, as our crops are themselves varied."""

    views: int = 2  # random crops of every still
    guesses: int = 10  # first shapes that every crop is begun with
    trees: int = 500  # per level of the cascade
    levels: int = 10
    clip_step: int = 10  # every so manieth frame of a clip is taken
    seed: int = 0


def enlarged(crop: np.ndarray) -> np.ndarray:
    """What the predictor looks at: RGB uint8 (256, 256, 3) -> grey uint8 (512, 512)."""
    return cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), None, fx=ENLARGED, fy=ENLARGED)


def face_rectangle() -> Any:
    """Where alignment puts the face, in pixels of an enlarged crop."""
    import dlib

    return dlib.rectangle(*(ENLARGED * side for side in FACE))


def train(pictures: Pictures, output: Path, settings: DlibTraining) -> int:
    """Train on the people who are not held out and write the predictor; returns how many crops it saw.

    One processor thread. Raises InputError if nobody is to be trained on.
    """
    import dlib

    frame = np.zeros(len(pictures), int)
    for clip in pictures.clip_names:
        frame[pictures.clips == clip] = np.arange((pictures.clips == clip).sum())
    chosen = np.flatnonzero(~pictures.validation & (frame % settings.clip_step == 0))
    if not len(chosen):
        raise InputError("none of the pictures shows a person who is not held out: more people are needed")
    crops, shapes = [], []
    for index in chosen:
        for view in range(settings.views if pictures.clips[index] == "" else 1):
            rng = np.random.default_rng((settings.seed, index, view))
            crop, points = random_crop(pictures.image(index), pictures.points[index], rng)
            places = np.rint((points + 0.5) * ENLARGED - 0.5).astype(int)
            crops.append(enlarged(crop))
            shapes.append([dlib.full_object_detection(face_rectangle(), [dlib.point(*p) for p in places.tolist()])])
    options = dlib.shape_predictor_training_options()
    options.num_trees_per_cascade_level, options.cascade_depth = settings.trees, settings.levels
    options.oversampling_amount, options.num_threads = settings.guesses, 1
    options.random_seed, options.be_verbose = str(settings.seed), True
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".partial")
    dlib.train_shape_predictor(crops, shapes, options).save(str(temporary))
    temporary.replace(output)
    return len(crops)


def read_predictor(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A predictor that `train` wrote: points (56, 2) of an aligned crop, RGB uint8 (256, 256, 3).

    Raises InputError for a file that holds none.
    """
    import dlib

    if not path.is_file():
        raise InputError(f"there is no predictor {path}: `run.py train dlib` writes one")
    try:
        predictor = dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} is not a predictor of `run.py train dlib`") from error
    rectangle = face_rectangle()
    known = predictor(enlarged(np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)), rectangle).num_parts
    if known != COUNT:
        raise InputError(f"{path} is not a predictor of `run.py train dlib`: it knows {known} points, not {COUNT}")

    def find(crop: np.ndarray) -> np.ndarray:
        parts = predictor(enlarged(crop), rectangle).parts()
        return (np.array([(p.x, p.y) for p in parts], np.float32) + 0.5) / ENLARGED - 0.5

    return find
