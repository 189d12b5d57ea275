"""The landmarks of still pictures, found as the live loop finds them."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2

from realtime.errors import InputError
from realtime.faces import Detect, Face, FaceFinder, acquire, is_facelike
from realtime.landmarks import Array
from realtime.output import check_folder
from realtime.photo import load_photo


def find_face(image: Any, detect: Detect, finder: FaceFinder) -> Face | None:
    """The largest face of an RGB uint8 image, None where there is none."""
    for found in finder.find(image)[:1]:
        face = acquire(image, found, detect)
        if is_facelike(face):
            return face
    return None


def annotate(pictures: Iterable[Path], detect: Detect, draw: Path | None = None) -> Iterator[dict[str, Any]]:
    """For each picture its `file`, `points` (56 [x, y] in the upright picture's pixels) and `confidence` (56), None
    where there is no face. `draw`: a folder that gets the pictures with the points on them, as PNG.

    Raises InputError for what is not a picture.
    """
    if draw is not None:
        draw.mkdir(parents=True, exist_ok=True)
    with closing(FaceFinder()) as finder:
        for path in pictures:
            image = load_photo(path)
            face = find_face(image, detect, finder)
            if draw is not None:
                _draw(image, None if face is None else face.points, draw / f"{path.stem}.png")
            yield {
                "file": str(path),
                "points": None if face is None else face.points.round(2).tolist(),
                "confidence": None if face is None else face.confidence.round(3).tolist(),
            }


def check_drawn(pictures: list[Path], draw: Path | None) -> None:
    """Raises InputError if `draw` cannot be a folder, or two pictures would be drawn into one file of it."""
    if draw is not None:
        check_folder(draw, "--draw")
    stems = [path.stem for path in pictures]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if draw is not None and twice is not None:
        raise InputError(f"two of the pictures are named {twice}: --draw {draw} has room for one {twice}.png")


def _draw(image: Any, points: Array | None, path: Path) -> None:
    drawn = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    radius = max(1.2, min(image.shape[:2]) / 250)
    for x, y in points if points is not None else ():
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(drawn, centre, round(radius * 16), (0, 255, 0), -1, cv2.LINE_AA, 4)
    if not cv2.imwrite(str(path), drawn):
        raise InputError(f"{path} cannot be written")
