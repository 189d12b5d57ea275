"""What a session's puppet follows: the browser's camera, or a source of the server's that plays over and over."""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np

from realtime.mailbox import Mailbox
from realtime.sources import DEFAULT_RATE, Frame, Source
from web import clock

TIME_BASE = Fraction(1, 90_000)  # RTP's clock for video (RFC 3551)
LONG_SIDE = 640  # pixels that camera pictures are brought to, whatever the network made of them
CAMERA = "camera"  # the browser's

_log = logging.getLogger(__name__)

OpenSource = Callable[[str], Source]


@dataclass(frozen=True)
class LiveFrame(Frame):
    """A frame of a session: origin names the source it came from; clock is the milliseconds in its strip, if any."""

    origin: str = ""
    clock: int | None = None


@dataclass(frozen=True)
class _Picture:
    """A decoded camera picture, not yet RGB."""

    picture: av.VideoFrame
    captured_at: float


class Feed:
    """A live source of LiveFrames that others put in; the newest wins, `dropped` counts the rest.

    A camera's time stamps keep their distances; they are moved once, when it becomes the origin, so that time goes on
    from source to source. `mirror` flips pictures; `strip` says that a clock strip is drawn below camera pictures.
    """

    size = frame_rate = frame_count = path = None
    live = True

    def __init__(self, strip: bool) -> None:
        self.mirror = False
        self.origin = ""
        self._strip = strip
        self._waiting: Mailbox[tuple[str, Frame | _Picture]] = Mailbox()
        self._started_at = time.monotonic()
        self._last_pts, self._index = -1, 0
        self._camera_offset: int | None = None

    @property
    def dropped(self) -> int:
        return self._waiting.dropped

    def put_picture(self, picture: av.VideoFrame) -> None:
        """Take a picture of the browser's camera, unless something else is followed."""
        if self.origin == CAMERA:
            self._waiting.put((CAMERA, _Picture(picture, time.monotonic())))

    def put(self, origin: str, frame: Frame) -> None:
        """Take a frame of a source of the server's, unless something else is followed."""
        if self.origin == origin:
            self._waiting.put((origin, frame))

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> LiveFrame:
        while (item := self._waiting.get()) is not None:
            origin, frame = item
            if origin != self.origin:
                continue
            if isinstance(frame, _Picture):
                return self._camera_frame(frame)
            self._camera_offset = None
            return self._stamped(frame.image, frame, self._now(frame.captured_at), None)
        raise StopIteration

    def close(self) -> None:
        self._waiting.close()

    def _now(self, moment: float) -> int:
        return round((moment - self._started_at) / TIME_BASE)

    def _camera_frame(self, taken: _Picture) -> LiveFrame:
        picture = taken.picture
        scale = LONG_SIDE / max(picture.width, picture.height)
        rgb = picture.reformat(round(picture.width * scale), round(picture.height * scale), "rgb24")
        image, milliseconds = np.asarray(rgb.to_ndarray(), np.uint8), None
        if self._strip:
            image, milliseconds = clock.split(image)
        stamp = round((picture.pts or 0) * (picture.time_base or TIME_BASE) / TIME_BASE)
        if self._camera_offset is None:
            self._camera_offset = self._now(taken.captured_at) - stamp
        frame = Frame(image, None, 0, TIME_BASE, taken.captured_at, 0)
        return self._stamped(image, frame, stamp + self._camera_offset, milliseconds)

    def _stamped(self, image: object, frame: Frame, pts: int, milliseconds: int | None) -> LiveFrame:
        self._last_pts = max(self._last_pts + 1, pts)
        self._index += 1
        if isinstance(image, np.ndarray) and self.mirror:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        return LiveFrame(
            image if isinstance(image, np.ndarray) else None,
            frame.points,
            self._last_pts,
            TIME_BASE,
            frame.captured_at,
            self._index - 1,
            self.origin,
            milliseconds,
        )


class Player:
    """Plays a source of the server's into a feed, over and over at its own pace, in a thread of its own.

    `failed` tells that the source could not be read on: a file that is gone, a camera that was unplugged.
    """

    def __init__(self, open_source: OpenSource, name: str, feed: Feed) -> None:
        self._open, self._name, self._feed = open_source, name, feed
        self._source = open_source(name)  # raises InputError here, not in the thread
        self.failed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"player {name}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the source."""
        self._stopping.set()
        if self._source.live or self._thread.ident is None:
            self._source.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._play()
        except Exception as error:
            if self._stopping.is_set():  # closed while it was read
                return
            self.failed = True
            _log.error("%s cannot be played on: %s", self._name, error)

    def _play(self) -> None:
        while not self._stopping.is_set():
            with contextlib.closing(self._source) as source:
                started = time.monotonic()
                for frame in source:
                    due = float(frame.pts * frame.time_base)
                    if not source.live:
                        self._stopping.wait(started + due - time.monotonic())
                    if self._stopping.is_set():
                        return
                    self._feed.put(self._name, dataclasses.replace(frame, captured_at=time.monotonic()))
            if self._stopping.wait(float(1 / (source.frame_rate or DEFAULT_RATE))):
                return
            self._source = self._open(self._name)
