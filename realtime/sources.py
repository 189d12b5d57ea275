"""Where frames come from: a video file, a camera, a still picture or a recorded motion track."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import Type as SideData
from av.video.stream import VideoStream
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.landmarks import Array
from realtime.motion import load_motion
from realtime.photo import Notify, load_photo

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".heic"}
DEFAULT_RATE = Fraction(25)  # frames per second, where a file does not say

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One moment of a source: a picture, or the landmarks of a motion track.

    image: RGB uint8 (height, width, 3) or None; points: (56, 2) float32 in pixels of a 256x256 crop, or None;
    pts: time stamp in units of time_base seconds; captured_at: time.monotonic() when it came; index: from 0 up.
    """

    image: NDArray[np.uint8] | None
    points: Array | None
    pts: int
    time_base: Fraction
    captured_at: float
    index: int


class Source(Protocol):
    """An iterator of frames, whose pts strictly increase.

    size: (width, height) of the pictures, None for a motion track; frame_rate: frames per second, None if unknown;
    frame_count: how many are to come, as far as can be said before reading them; live: whether frames come at their
    own time, and are lost when nobody takes them; path: the file whose sound belongs to the frames.
    """

    @property
    def size(self) -> tuple[int, int] | None: ...
    @property
    def frame_rate(self) -> Fraction | None: ...
    @property
    def frame_count(self) -> int | None: ...
    @property
    def live(self) -> bool: ...
    @property
    def path(self) -> Path | None: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def __next__(self) -> Frame: ...
    def close(self) -> None:
        """Give back files, devices and threads; `__next__` ends. Any thread may close a live source."""


def open_source(text: str, notify: Notify = _log.warning) -> Source:
    """The source a user named: `camera:N`, `motion:NAME`, or the path of a video or a picture.

    `notify` takes sentences for the user: a damaged file, an unplugged camera. Raises InputError if it cannot be used.
    """
    kind, _, name = text.partition(":")
    if kind == "camera":
        from realtime.camera import CameraSource  # which needs Frame

        return CameraSource(_camera_number(text, name), notify)
    if kind == "motion":
        return MotionSource(name)
    path = Path(text)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"source {text} {what}: a video, a picture, camera:0 or motion:talking is needed")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return StillSource(load_photo(path, notify))
    return VideoSource(path, notify)


def _camera_number(text: str, name: str) -> int:
    if not (name.isascii() and name.isdigit()):
        raise InputError(f"{text!r} names no camera: its number is needed, as in camera:0")
    return int(name)


class StillSource:
    """A still picture: one frame."""

    frame_rate = None
    frame_count = 1
    live = False
    path = None

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.size = (image.shape[1], image.shape[0])
        self._frames = iter([Frame(image, None, 0, 1 / DEFAULT_RATE, time.monotonic(), 0)])

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        self._frames = iter(())


class MotionSource:
    """A landmark track that ships with the program."""

    size = None
    live = False
    path = None

    def __init__(self, name: str) -> None:
        motion = load_motion(name)
        self.frame_rate = motion.frame_rate
        self.frame_count = len(motion.points)
        self._frames = self._play(motion.points, 1 / self.frame_rate)

    @staticmethod
    def _play(track: Array, time_base: Fraction) -> Iterator[Frame]:
        for index, points in enumerate(track):
            yield Frame(None, points, index, time_base, time.monotonic(), index)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        self._frames = iter(())


def open_media(path: Path) -> InputContainer:
    """A media file, opened with PyAV. Raises InputError for what is none."""
    try:
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be read as a video: {error.strerror}") from error
    if container.format.name == "tty":  # FFmpeg plays text files as video of a terminal
        container.close()
        raise InputError(f"{path} is a text file: a video is needed")
    return container


def start_of(container: InputContainer) -> Fraction:
    """Seconds on a file's clock that become 0: MPEG streams count from anywhere, and MP4 cannot count below 0."""
    if Flags.ts_discont in Flags(container.format.flags):
        return Fraction(container.start_time or 0, av.time_base)
    video = container.streams.best("video")
    if video is None or video.time_base is None:
        return Fraction(0)
    return min(0, video.start_time or 0) * video.time_base


def _upright(picture: av.VideoFrame, pixel_aspect: Fraction | None) -> NDArray[np.uint8]:
    """RGB uint8 with square pixels, turned and flipped as the file's display matrix says."""
    width = max(1, round(picture.width * (pixel_aspect or 1)))
    image = np.asarray(picture.reformat(width=width, format="rgb24").to_ndarray(), np.uint8)
    matrix = picture.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # its stub knows one key
    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y in 16.16 fixed point, row by row in groups of three
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
    if abs(b) > abs(a):  # a quarter turn
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: 1 if d >= 0 else -1, :: 1 if a >= 0 else -1])


class VideoSource:
    """Every frame of a video file, upright and with square pixels."""

    live = False

    def __init__(self, path: Path, notify: Notify = _log.warning) -> None:
        self.path = path
        self._notify = notify
        self._container = open_media(path)
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream):
            self._container.close()
            raise InputError(f"{path} holds no video")
        stream.thread_type = "AUTO"
        self.frame_rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        self.frame_count = stream.frames or self._estimated_count()
        self._damaged = False
        self._frames = self._read(stream)
        first = next(self._frames, None)  # shows whether it can be decoded, and the size when turned upright
        if first is None or first.image is None:
            self._container.close()
            raise InputError(f"{path} holds no picture that can be decoded: it is damaged or cut short")
        self.size = (first.image.shape[1], first.image.shape[0])
        self._frames = chain([first], self._frames)

    def _estimated_count(self) -> int | None:
        duration = self._container.duration
        return ceil(Fraction(duration, av.time_base) * self.frame_rate) if duration else None

    def _decode(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.FFmpegError:  # as players do, skip what cannot be decoded
                self._damaged = True

    def _read(self, stream: VideoStream) -> Iterator[Frame]:
        time_base = stream.time_base or 1 / self.frame_rate
        start = round(start_of(self._container) / time_base)
        step = max(1, round(1 / (self.frame_rate * time_base)))
        index, pts = 0, -step
        for picture in self._decode(stream):
            self._damaged = self._damaged or picture.is_corrupt
            # some files leave time stamps out or repeat them; no frame may be lost for it
            stamp = pts + step if picture.pts is None else picture.pts - start
            pts = max(stamp, pts + 1) if index else stamp
            image = _upright(picture, stream.sample_aspect_ratio)
            yield Frame(image, None, pts, time_base, time.monotonic(), index)
            index += 1
        if self._damaged or index < stream.frames:
            self._notify(f"{self.path} is damaged or cut short: {index} frames could be read")

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()
