"""Preprocessing: folders of stills and video clips become one compact file of aligned pictures with landmarks.

Each picture is cut like the live crop (realtime.alignment) with a margin around it, so that augmentation can shift and
turn it. MediaPipe FaceMesh labels it (the teacher); hand-placed points take precedence where they exist, and the
teacher's mean deviation from them is taken out of every other label.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from realtime.alignment import TEMPLATE, cut, similarity, transform
from realtime.errors import InputError
from realtime.landmarks import CROP_SIZE, FACEMESH, five_points

MARGIN = 32  # pixels around the 256x256 crop
PICTURE_SIZE = CROP_SIZE + 2 * MARGIN
JPEG_QUALITY = 88
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
CLIPS = {".mp4", ".mpg", ".mov", ".avi", ".mkv", ".webm", ".m4v"}


@dataclass
class Picture:
    """One labelled picture: RGB uint8, (478, 3) mesh in its pixels, who it shows and which clip it is a frame of."""

    image: np.ndarray
    mesh: np.ndarray
    name: str
    person: str
    clip: str
    hand: np.ndarray | None = None  # (56, 2) hand-placed points, NaN where the template has none


class Teacher:
    """MediaPipe FaceMesh with attention (the release that carries its models): pictures -> 478 points."""

    def __init__(self, video: bool) -> None:
        from mediapipe.python.solutions.face_mesh import FaceMesh

        self._mesh = FaceMesh(static_image_mode=not video, max_num_faces=1, refine_landmarks=True)

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        found = self._mesh.process(image).multi_face_landmarks
        if not found:
            return None
        height, width = image.shape[:2]
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
        return points * np.array([width, height, width], np.float32) - np.array([0.5, 0.5, 0], np.float32)

    def close(self) -> None:
        self._mesh.close()


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


def stills(folder: Path, teacher: Teacher) -> Iterator[Picture]:
    """Every picture below a folder with one usable face. The person is the file name up to its first underscore."""
    hand = hand_points(folder / "points.csv")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES):
        image = _read(path)
        mesh = teacher(image)
        if mesh is None or not usable(mesh):
            continue
        aligned, moved, matrix = align(image, mesh, five_points(mesh[FACEMESH, :2]))
        picture = Picture(aligned, moved, path.name, f"{path.parent.name}/{path.stem.split('_')[0]}", "")
        if path.name in hand:
            picture.hand = transform(hand[path.name], matrix)
        yield picture


def frames(path: Path, teacher: Teacher) -> Iterator[Picture]:
    """A clip's frames, all under the crop of its first face, so that head motion stays in the landmarks."""
    first = None
    for index, image in enumerate(_decoded(path)):
        mesh = teacher(image)
        if mesh is None:
            continue
        if first is None:
            first = five_points(mesh[FACEMESH, :2])
        aligned, moved, _ = align(image, mesh, first)
        yield Picture(aligned, moved, f"{path.name}:{index}", path.stem, path.stem)


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


def prepare(data: Path, output: Path) -> None:
    """Label and align everything below `data` (pictures and clips) and write it as one npz file.

    Raises InputError, naming the file, for one that cannot be read and where there is no usable face at all.
    """
    if not data.is_dir():
        raise InputError(f"there is no folder {data} to prepare")
    if output.suffix != ".npz":
        raise InputError(f"the output should be an .npz file, not {output}")
    pictures: list[Picture] = []
    folders = sorted({p.parent for p in data.rglob("*") if p.suffix.lower() in PICTURES})
    still_teacher = Teacher(video=False)
    for folder in folders:
        pictures += tqdm(stills(folder, still_teacher), desc=folder.name, unit=" pictures")
    still_teacher.close()
    for path in sorted(p for p in data.rglob("*") if p.suffix.lower() in CLIPS):
        teacher = Teacher(video=True)
        pictures += tqdm(frames(path, teacher), desc=path.name, unit=" frames")
        teacher.close()
    if not pictures:
        raise InputError(f"{data} holds no picture and no clip with a usable face")
    save(pictures, output)


def save(pictures: list[Picture], output: Path) -> None:
    """Write pictures as one npz: JPEG bytes end to end, meshes in 1/32 px, names; moved into place when complete."""
    encoded = [
        cv2.imencode(".jpg", cv2.cvtColor(p.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        for p in pictures
    ]
    blank = np.full((len(FACEMESH), 2), np.nan, np.float32)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".partial.npz")
    np.savez_compressed(
        temporary,
        jpeg=np.concatenate(encoded),
        ends=np.cumsum([len(e) for e in encoded]),
        mesh=np.stack([np.round(p.mesh * 32) for p in pictures]).astype(np.int16),
        hand=np.stack([blank if p.hand is None else p.hand for p in pictures]),
        name=np.array([p.name for p in pictures]),
        person=np.array([p.person for p in pictures]),
        clip=np.array([p.clip for p in pictures]),
    )
    temporary.replace(output)
