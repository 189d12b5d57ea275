"""The WFLW data set as it is released (Wu et al. 2018): 98 hand-placed points of a face, reduced to the 56."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from realtime.errors import InputError
from realtime.landmarks import WFLW98

LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
IMAGES = "WFLW_images"
# 98 points, the rectangle's two corners, six attributes of the picture, and the picture's name.
VALUES = 2 * 98 + 4 + 6 + 1
TEST = "WFLW test/"  # what the names of people of the official test list begin with: they are never trained on


class Face(NamedTuple):
    """One line of a list. Who it shows is not told, so a picture's faces count as one person."""

    line: str
    picture: Path
    points: np.ndarray  # (56, 2) float32, in pixels of the picture
    person: str


def releases(data: Path) -> list[Path]:
    """The folders at or below `data` that hold WFLW."""
    lists = Path(LISTS)
    return sorted(p.parent.parent for p in data.rglob(lists.name) if p.is_dir() and p.parent.name == lists.parent.name)


def faces(root: Path) -> Iterator[Face]:
    """The faces of the training and the test list. Raises InputError, naming file and line, for one that is broken."""
    lists = sorted((root / LISTS).glob("list_*.txt"))
    if not lists:
        raise InputError(f"{root / LISTS} holds no list: list_98pt_rect_attr_train.txt is needed")
    for path in lists:
        held_out = path.stem.endswith("_test")
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if line.strip():
                yield _face(line.strip(), root, held_out, f"{path}, line {number}")


def _face(line: str, root: Path, held_out: bool, where: str) -> Face:
    values = line.split(maxsplit=VALUES - 1)
    if len(values) != VALUES:
        raise InputError(f"{where}: {VALUES} values are needed, 98 points to the picture's name, not {len(values)}")
    try:
        points = np.array([float(value) for value in values[: 2 * 98]], np.float32).reshape(98, 2)
    except ValueError as error:
        raise InputError(f"{where}: the first {2 * 98} values should be numbers: {error}") from None
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1:
        raise InputError(f"{where}: the 98 points should be of a face, and they all lie in one place or nowhere")
    picture = root / IMAGES / values[-1]
    if not picture.is_file():
        raise InputError(f"{where}: there is no picture {picture}")
    person = f"{TEST if held_out else 'WFLW/'}{Path(values[-1]).with_suffix('')}"
    return Face(line, picture, points[WFLW98], person)
