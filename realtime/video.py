"""From a source to an MP4 file: every frame with its own time stamp, and the source's sound."""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.faces import Detect, FaceFinder, FaceTracker
from realtime.landmarks import CROP_SIZE, Array
from realtime.photo import Notify
from realtime.retarget import Retargeter, best_reference
from realtime.soundtrack import Soundtrack
from realtime.sources import DEFAULT_RATE, Frame, Source, open_source

if TYPE_CHECKING:
    from realtime.puppet import Result

Image = NDArray[np.uint8]
Size = tuple[int, int]  # width, height
Animate = Callable[[Frame], "Result"]

WAITING = 4  # frames that may wait for the encoder
LOOKS = 300  # frames of a recording that are looked at for the best neutral
LABEL = "synthetic: made with Puppetcam"
# Without B-frames a file's length is right also when the last gap between its frames is a long one.
X264 = {"preset": "veryfast", "crf": "18", "bf": "0"}

_log = logging.getLogger(__name__)


class Movie:
    """An MP4 file, H.264 with sound, written in a thread of its own.

    An odd size loses one pixel on the right or below. `write` blocks while the encoder is behind, so that no frame is
    lost and memory stays bounded. Raises InputError when the file cannot be written, as on a full disk.
    """

    def __init__(self, path: Path, size: Size, rate: Fraction, time_base: Fraction, sound: Path | None = None) -> None:
        self._path, self._time_base = path, time_base
        self._width, self._height = size[0] & ~1, size[1] & ~1
        with self._writing():
            self._container = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._container.metadata["comment"] = LABEL
        self._video = self._container.add_stream("libx264", rate=rate, options=X264)
        self._video.width, self._video.height, self._video.pix_fmt = self._width, self._height, "yuv420p"
        self._video.time_base = self._video.codec_context.time_base = time_base
        # The matrix that readers assume where they ignore what a file says
        self._video.codec_context.colorspace = Colorspace.ITU601
        self._video.codec_context.color_range = ColorRange.MPEG
        self._soundtrack = Soundtrack(sound, self._container) if sound else None
        self._worker = ThreadPoolExecutor(1, "movie")
        self._waiting: deque[Future[None]] = deque()

    def write(self, image: Image, pts: int) -> None:
        """Hand over the next picture, RGB uint8 (height, width, 3), to be shown from `pts` on."""
        while len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[: self._height, : self._width]), "rgb24")
        self._waiting.append(self._worker.submit(self._encode, picture, pts))

    def finish(self, whole: bool = True) -> None:
        """Write what waits, the rest of the sound if the movie is `whole`, and the index that players need."""
        while self._waiting:
            self._waiting.popleft().result()
        with self._writing():
            self._container.mux(self._video.encode(None))
            if self._soundtrack and whole:
                self._soundtrack.write()
            self._container.close()

    def _encode(self, picture: av.VideoFrame, pts: int) -> None:
        with self._writing():
            yuv = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
            yuv.pts, yuv.time_base = pts, self._time_base
            self._container.mux(self._video.encode(yuv))
            if self._soundtrack:
                self._soundtrack.write(until=pts * self._time_base)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"the film cannot be written to {self._path.parent}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)
        if self._soundtrack:
            self._soundtrack.close()
        with contextlib.suppress(OSError, av.FFmpegError):  # what failed to be written has been said
            self._container.close()


def check_output(output: Path, overwrite: bool) -> None:
    """Raise InputError unless an MP4 file can be put there."""
    if output.suffix.lower() != ".mp4":
        raise InputError(f"output {output} is no MP4: its name must end in .mp4")
    if not output.parent.is_dir():
        raise InputError(f"output folder {output.parent} does not exist: create it first or name another one")
    if output.is_dir():
        raise InputError(f"output {output} is a folder: the name of a file is needed")
    if output.exists() and not overwrite:
        raise InputError(f"output {output} exists: name another one or add --overwrite")
    if not os.access(output.parent, os.W_OK):
        raise InputError(f"output folder {output.parent} cannot be written to: name another one")


@contextlib.contextmanager
def _put_in_place(output: Path) -> Iterator[Path]:
    """A temporary name beside the output, moved to it at the end, and gone after an error."""
    temporary = output.with_name(f".{output.stem}-{os.getpid()}.mp4")
    try:
        yield temporary
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _view_width(source: Source, height: int) -> int:
    """Width of the source's picture at the photo's height: even, so that the photo beside it keeps its pixels."""
    width, source_height = source.size or (CROP_SIZE, CROP_SIZE)
    return max(2, round(width * height / source_height) & ~1)


def _view(frame: Frame, width: int, height: int) -> Image:
    """The source's picture at a size, or a motion track's landmarks on black."""
    if frame.image is not None:
        return np.asarray(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    view = np.zeros((height, width, 3), np.uint8)
    if frame.points is not None:
        for x, y in np.rint(frame.points * (height / CROP_SIZE)).astype(int):
            cv2.circle(view, (int(x), int(y)), max(1, height // 150), (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    return view


def _fill(
    movie: Movie, frames: Iterable[Frame], animate: Animate, view_width: int, on_frame: Callable[[], object]
) -> tuple[int, bool, bool]:
    """Write every frame until the end or Ctrl-C: frames written, whether one showed a face, whether interrupted."""
    count, seen = 0, False
    try:
        for frame in frames:
            result = animate(frame)
            image = result.image
            if view_width:
                image = np.hstack([_view(frame, view_width, image.shape[0]), image])
            movie.write(image, frame.pts)
            seen = seen or result.points is not None
            count += 1
            on_frame()
    except KeyboardInterrupt:
        return count, seen, True
    return count, seen, False


def find_neutral(
    source: Source, detect: Detect, photo_points: Array, on_frame: Callable[[], object] = lambda: None
) -> tuple[float, Array] | None:
    """Seconds and points (56, 2) of the frame of a recording that most resembles the photo; None if none has a face.

    Reads the source to its end and looks at LOOKS of its frames, evenly spread; at the first LOOKS, if it does not say
    how many it has. photo_points: (56, 2) in the photo's crop. `on_frame` is called for every frame read.
    """
    count = source.frame_count
    step = ceil(count / LOOKS) if count else 1
    moments, track = [], []
    with contextlib.closing(FaceFinder()) as finder:
        tracker = FaceTracker(detect, finder)
        for frame in islice(source, None if count else LOOKS):
            on_frame()
            if frame.index % step:
                continue
            points = frame.points
            if frame.image is not None:
                face = tracker.track(frame.image)
                points = face.points if face else None
            if points is not None:
                moments.append(float(frame.pts * frame.time_base))
                track.append(points)
    if not track:
        return None
    best = best_reference(np.array(track), photo_points)
    return moments[best], track[best]


def look_ahead(
    text: str, detect: Detect, retargeter: Retargeter, on_frame: Callable[[], object], notify: Notify
) -> None:
    """Make the frame of a recording that most resembles the photo the neutral, and tell its time.

    text: the recording, as `open_source` has it; it is opened for this alone. Without a face in it nothing changes.
    `on_frame` is called for every frame read. Raises InputError for a recording that cannot be read.
    """
    with contextlib.closing(open_source(text, lambda _: None)) as source:  # what is amiss is said when it is played
        found = find_neutral(source, detect, retargeter.photo_points, on_frame)
    if found is None:
        return
    seconds, points = found
    notify(f"the neutral is the frame at {seconds:.2f} s, the one most like the photo")
    retargeter.calibrate(points)
    retargeter.set_settings(replace(retargeter.settings, reference="first"))  # it stays


def reenact(
    source: Source,
    animate: Animate,
    output: Path,
    *,
    size: Size,
    overwrite: bool = False,
    side_by_side: bool = False,
    on_frame: Callable[[], object] = lambda: None,
    notify: Notify = _log.warning,
) -> int:
    """Drive a photo of `size` (width, height) with every frame of a source; the number of frames written.

    The output has the source's time stamps and sound; `side_by_side` puts the source to its left. Raises InputError
    if the output cannot be written or no frame shows a face. Ctrl-C leaves a playable file of the frames done, says so
    and is passed on.
    """
    check_output(output, overwrite)
    if source.path and output.exists() and output.samefile(source.path):
        raise InputError(f"output {output} is the source itself: name another one")
    view_width = _view_width(source, size[1]) if side_by_side else 0
    film_size = (view_width + size[0], size[1])
    first = next(source)
    rate = source.frame_rate or DEFAULT_RATE
    with _put_in_place(output) as temporary, Movie(temporary, film_size, rate, first.time_base, source.path) as movie:
        count, seen, interrupted = _fill(movie, chain([first], source), animate, view_width, on_frame)
        if interrupted and not count:
            raise KeyboardInterrupt
        if not (seen or interrupted):
            raise InputError(f"{source.path or 'the source'} shows no face in any frame: a face in view is needed")
        movie.finish(whole=not interrupted)
    if interrupted:
        notify(f"{output} holds the first {count} frames")
        raise KeyboardInterrupt
    return count
