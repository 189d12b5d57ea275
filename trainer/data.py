"""The prepared pictures (trainer.prepare) in memory: decoded on demand, labelled, split by person."""

import zipfile
import zlib
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from realtime.alignment import similarity, transform
from realtime.errors import InputError
from realtime.landmarks import COUNT, FACEMESH, LEFT_EYE, MIRROR, RIGHT_EYE, five_points
from trainer.wflw import TEST

VALIDATION_SHARE = 10  # one person in ten is held out (9:1, thesis 5.3.2)


def held_out(person: str) -> bool:
    """Whether a person belongs to the validation split: by a hash of the name, the same on every machine. So do all of
    WFLW's official test list."""
    return person.startswith(TEST) or zlib.crc32(f"fold 54 {person}".encode()) % VALIDATION_SHARE == 0


class Pictures:
    """A prepared npz file. Raises InputError, naming the file, if it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path) as file:
                self._encoded, self._ends = file["webp"], file["ends"]
                self.mesh = file["mesh"].astype(np.float32) / 32  # (N, 478, 3), zeros where the teacher saw no face
                self.hand = file["hand"]  # (N, 56, 2), NaN where nobody placed a point
                self._mask = file["mask"]
                self.names, self.persons, self.clips = file["name"], file["person"], file["clip"]
        except FileNotFoundError:
            raise InputError(f"there is no {path}: `run.py train prepare` makes it, or name a folder") from None
        except KeyError as error:
            raise InputError(f"{path} has no {error.args[0]}: make it anew with this `run.py train prepare`") from error
        except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} is not a file that `run.py train prepare` made: {type(error).__name__}"
            ) from error
        self.validation = np.array([held_out(p) for p in self.persons])

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def clip_names(self) -> list[str]:
        return sorted(set(self.clips) - {""})

    @property
    def held_out_clips(self) -> list[str]:
        return sorted(set(self.clips[self.validation]) - {""})

    def held_out_stills(self) -> dict[str, list[int]]:
        """Indices of the stills of each person who is held out, in the file's order."""
        people: dict[str, list[int]] = {}
        for index in np.flatnonzero(self.validation & (self.clips == "")):
            people.setdefault(str(self.persons[index]), []).append(int(index))
        return people

    def image(self, index: int) -> np.ndarray:
        """RGB uint8 (320, 320, 3)."""
        start = self._ends[index - 1] if index else 0
        data = cv2.imdecode(self._encoded[start : self._ends[index]], cv2.IMREAD_COLOR)
        return cv2.cvtColor(data, cv2.COLOR_BGR2RGB)

    def mask(self, index: int) -> np.ndarray:
        """The cells of realtime.head.CELL pixels in which MediaPipe sees a person, (80, 80) bool."""
        return np.unpackbits(self._mask[index], axis=1).astype(bool)

    @cached_property
    def points(self) -> np.ndarray:
        """(N, 56, 2): hand-placed where they exist, else the teacher's with its mean deviation taken out."""
        teacher = self.mesh[:, FACEMESH, :2]
        correction = self._correction(teacher)
        points = self.hand.astype(np.float32)
        for index in np.flatnonzero(np.isnan(points).any((1, 2))):
            points[index] = np.where(np.isnan(points[index]), _corrected(teacher[index], correction), points[index])
        return points

    def _correction(self, teacher: np.ndarray) -> np.ndarray:
        """Mean (hand - teacher) of the training people, in pupil distances of an upright face; symmetric. (56, 2)"""
        placed = np.flatnonzero(~np.isnan(self.hand).all((1, 2)) & self.mesh.any((1, 2)) & ~self.validation)
        if len(placed) == 0:
            return np.zeros((COUNT, 2), np.float32)
        residual = [
            transform(self.hand[i], upright) - transform(teacher[i], upright)
            for i in placed
            for upright in [_upright(teacher[i])]
        ]
        mean = np.zeros((COUNT, 2), np.float32)
        known = ~np.isnan(self.hand[placed]).all((0, 2))
        mean[known] = np.nanmean(np.stack(residual)[:, known], 0)
        return (mean + mean[MIRROR] * np.array([-1, 1], np.float32)) / 2


def _upright(points: np.ndarray) -> np.ndarray:
    """The similarity that makes a face upright with its eyes one unit apart."""
    five = five_points(points)
    return similarity(five[:2], np.array([[0, 0], [1, 0]], np.float32))


def _corrected(points: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """A teacher's points (56, 2) with its mean deviation taken out; lids move less the more an eye is closed."""
    matrix = _upright(points)
    upright = transform(points, matrix)
    shift = correction.copy()
    for eye in (LEFT_EYE, RIGHT_EYE):
        width = upright[eye[4], 0] - upright[eye[0], 0]
        opening = upright[eye[5:8], 1].mean() - upright[eye[1:4], 1].mean()
        shift[eye, 1] *= np.clip(opening / (0.25 * max(float(width), 1e-3)), 0, 1)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].astype(np.float32)
    return transform(upright + shift, back)
