"""Preprocessing: folders of stills and video clips become one compact file of aligned pictures with landmarks.

Each picture is cut like the live crop (realtime.alignment) with a margin around it, so that augmentation can shift and
turn it. MediaPipe FaceMesh labels it (the teacher); hand-placed points take precedence where they exist, and the
teacher's mean deviation from them is taken out of every other label.

What a picture, a clip or an annotated face becomes is kept beside the output, so that a second run, or one after a
kill, labels only what is new.
"""

import csv
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from tqdm import tqdm

from realtime.alignment import TEMPLATE, cut, similarity, transform
from realtime.errors import InputError
from realtime.faces import MeshFinder, PersonFinder
from realtime.head import CELL, SAME_FACE, person_cells
from realtime.landmarks import CROP_SIZE, FACEMESH, five_points, pupil_distance
from trainer import cfee, wflw

MARGIN = 32  # pixels around the 256x256 crop
PICTURE_SIZE = CROP_SIZE + 2 * MARGIN
WEBP_QUALITY = 90  # as near to the picture as JPEG at quality 88, which takes a third more room (docs/training.md)
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
CLIPS = {".mp4", ".mpg", ".mov", ".avi", ".mkv", ".webm", ".m4v"}


@dataclass
class Picture:
    """One labelled picture: RGB uint8, (478, 3) mesh in its pixels, who it shows and which clip it is a frame of.

    A mesh of zeros: the teacher did not see the face, which then has all its points placed by hand.
    """

    image: np.ndarray
    mesh: np.ndarray
    name: str
    person: str
    clip: str
    hand: np.ndarray | None = None  # (56, 2) hand-placed points, NaN where the template has none


def align(image: np.ndarray, mesh: np.ndarray, five: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The margin-wide aligned picture, the mesh in its pixels, and the (2, 3) matrix that made them."""
    matrix = similarity(five, TEMPLATE + MARGIN)
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    moved = np.column_stack([transform(mesh[:, :2], matrix), mesh[:, 2] * scale])
    return cut(image, matrix, PICTURE_SIZE), moved.astype(np.float32), matrix


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path} is not a readable picture: remove it, or replace it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def usable(mesh: np.ndarray) -> bool:
    """False for profiles: an eye much nearer to the nose bridge than the other (about 40 degrees of yaw)."""
    left, right = mesh[33, :2] - mesh[168, :2], mesh[263, :2] - mesh[168, :2]
    ratio = np.linalg.norm(left) / max(float(np.linalg.norm(right)), 1e-3)
    return bool(0.4 < ratio < 2.5)


def still(path: Path, teacher: MeshFinder, hand: np.ndarray | None = None) -> Iterator[Picture]:
    """A picture, if it shows a usable face; `hand`: its (56, 2) hand-placed points. The person is the file name up to
    its first underscore, or what the CFEE database's names say."""
    image = _read(path)
    mesh = teacher(image)
    if mesh is None or not usable(mesh):
        return
    aligned, moved, matrix = align(image, mesh, five_points(mesh[FACEMESH, :2]))
    placed = None if hand is None else transform(hand, matrix)
    person = cfee.person(path) or f"{path.parent.name}/{path.stem.split('_')[0]}"
    yield Picture(aligned, moved, path.name, person, "", placed)


def annotated(face: wflw.Face, teacher: MeshFinder) -> Iterator[Picture]:
    """A face of WFLW in its picture, whether or not the teacher sees it, too."""
    matrix = similarity(five_points(face.points), TEMPLATE + MARGIN)
    aligned, hand = cut(_read(face.picture), matrix, PICTURE_SIZE), transform(face.points, matrix)
    mesh = teacher(aligned)
    if mesh is not None:
        off = np.linalg.norm(mesh[FACEMESH, :2] - hand, axis=1).mean() / pupil_distance(hand)
        if off > SAME_FACE or not usable(mesh):
            mesh = None
    blank = np.zeros((478, 3), np.float32)
    yield Picture(aligned, blank if mesh is None else mesh, face.picture.name, face.person, "", hand)


def frames(path: Path) -> Iterator[Picture]:
    """A clip's frames, all under the crop of its first face, so that head motion stays in the landmarks."""
    first = None
    teacher = MeshFinder(video=True)
    for index, image in enumerate(_decoded(path)):
        mesh = teacher(image)
        if mesh is None:
            continue
        if first is None:
            first = five_points(mesh[FACEMESH, :2])
        aligned, moved, _ = align(image, mesh, first)
        yield Picture(aligned, moved, f"{path.name}:{index}", path.stem, path.stem)
    teacher.close()


def _decoded(path: Path) -> Iterator[np.ndarray]:
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path} is not a readable video: remove it, or replace it") from error


def hand_points(path: Path) -> dict[str, np.ndarray]:
    """Hand-placed London-189 points reduced to the 56: file name -> (56, 2), NaN where the template has none."""
    if not path.exists():
        return {}
    places: dict[str, dict[int, tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                places.setdefault(row["file"], {})[int(row["point"])] = (float(row["x"]), float(row["y"]))
            except (KeyError, TypeError, ValueError) as error:
                values = ", ".join(str(value) for value in row.values())
                raise InputError(f"{path}, line {line}: file, point, x and y are needed, not {values}") from error
    blank = (np.nan, np.nan)
    return {f: np.array([p.get(i, blank) for i in LONDON189], np.float32) for f, p in places.items()}


# London-189 template point of each of the 56 landmarks, -1 where it has none.
LONDON189 = (
    [71, 72, 73, 74, 75, 76, 84, 83, -1, 78, 79, 80, 81, 82, -1, 86, 85, 77]
    + [18, 19, 20, 21, 22, 30, 29, 28, 23, 24, 25, 26, 27, 33, 32, 31]
    + [87, 88, 89, 90, 91, 92, 93, 108, 107, 106, 105, 104, -1, 95, 96, 97, -1, 102, 101, 100]
    + [0, 1]
)


class Source(NamedTuple):
    """A file, what else its labels depend on, and the pictures it becomes."""

    path: Path
    detail: bytes
    pictures: Callable[[], Iterable[Picture]]


def sources(data: Path, teacher: MeshFinder) -> list[Source]:
    """Everything below a folder: the faces of WFLW where it is laid out as released, other pictures, and clips.

    Raises InputError, naming file and line, for lists that are not as they should be.
    """
    released = wflw.releases(data)
    faces = [face for root in released for face in wflw.faces(root)]
    found = [Source(face.picture, face.line.encode(), partial(annotated, face, teacher)) for face in faces]
    images = [root / wflw.IMAGES for root in released]
    files = sorted(p for p in data.rglob("*") if not any(p.is_relative_to(folder) for folder in images))
    pictures = [p for p in files if p.suffix.lower() in PICTURES]
    hand = {folder: hand_points(folder / "points.csv") for folder in {p.parent for p in pictures}}
    for path in pictures:
        placed = hand[path.parent].get(path.name)
        detail = b"" if placed is None else placed.tobytes()
        found.append(Source(path, detail, partial(still, path, teacher, placed)))
    clips = [p for p in files if p.suffix.lower() in CLIPS]
    for path in clips:
        if (twin := next(p for p in clips if p.stem == path.stem)) is not path:
            raise InputError(f"{path} and {twin} would be one clip: rename one of them")
        found.append(Source(path, b"", partial(frames, path)))
    return found


def prepare(data: Path, output: Path) -> None:
    """Label and align everything below `data` and write it as one npz file, which trainer.data reads.

    A folder beside it, OUTPUT.parts, keeps what each file became: killed at any moment, it goes on where it was.
    Raises InputError, naming the file, for one that cannot be read and where there is no usable face at all.
    """
    if not data.is_dir():
        raise InputError(f"there is no folder {data} to prepare")
    if output.suffix != ".npz":
        raise InputError(f"the output should be an .npz file, not {output}")
    folder = output.with_suffix(".parts")
    teacher = MeshFinder(video=False)
    parts = []
    for source in tqdm(sources(data, teacher), desc=data.name, unit=" files"):
        part = folder / f"{_key(source, data)}.npz"
        if not part.exists():
            save(source.pictures(), part)
        parts.append(part)
    teacher.close()
    if not _join(parts, output):
        raise InputError(f"{data} holds no picture and no clip with a usable face")


def _key(source: Source, data: Path) -> str:
    """Changes with the file, its name, its annotation, and with how pictures are made."""
    made = f"{version('mediapipe')} {MARGIN} {CELL} {WEBP_QUALITY} {source.path.relative_to(data)} ".encode()
    return sha256(made + source.detail + source.path.read_bytes()).hexdigest()


@cache
def _person_finder() -> PersonFinder:
    """One for all pictures: it takes longer to start than to look."""
    return PersonFinder()


def save(pictures: Iterable[Picture], output: Path) -> None:
    """Write pictures as one npz: WebP bytes end to end, meshes in 1/32 px, where MediaPipe sees a person in cells of
    CELL pixels, names; moved into place when complete."""
    nothing = np.full((len(FACEMESH), 2), np.nan, np.float32)
    encoded, meshes, hands, masks, names = [], [], [], [], []
    for p in pictures:
        bgr = cv2.cvtColor(p.image, cv2.COLOR_RGB2BGR)
        encoded.append(cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1])
        meshes.append(np.round(p.mesh * 32))
        hands.append(nothing if p.hand is None else p.hand)
        masks.append(np.packbits(person_cells(_person_finder()(p.image)), axis=1))
        names.append((p.name, p.person, p.clip))
    name, person, clip = zip(*names, strict=True) if names else ((), (), ())
    arrays = {
        "webp": np.concatenate([*encoded, np.zeros(0, np.uint8)]),
        "ends": np.cumsum([len(e) for e in encoded], dtype=np.int64),
        "mesh": np.array(meshes).reshape(-1, 478, 3).astype(np.int16),
        "hand": np.array(hands, np.float32).reshape(-1, len(FACEMESH), 2),
        "mask": np.array(masks, np.uint8).reshape(-1, PICTURE_SIZE // CELL, PICTURE_SIZE // CELL // 8),
        "name": np.array(name, str),
        "person": np.array(person, str),
        "clip": np.array(clip, str),
    }
    _write(arrays, output)


def _join(parts: list[Path], output: Path) -> int:
    """Write one file of all that `save` wrote into several; returns how many pictures there are: none, no file."""
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    for path in parts:
        try:
            with np.load(path) as file:
                part = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged: remove it, and it is made anew") from error
        part["ends"] += start
        start += len(part["webp"])
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    count = sum(len(ends) for ends in columns.get("ends", []))
    if count:
        _write({name: np.concatenate(values) for name, values in columns.items()}, output)
    return count


def _write(arrays: dict[str, np.ndarray], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".partial.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(output)
