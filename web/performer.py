"""A session's puppet at work: a feed, the live loop, and the pictures and figures that come of it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.alignment import inverse, transform
from realtime.errors import InputError
from realtime.faces import CORNERS, align
from realtime.loop import Loop
from realtime.puppet import STAGES, Puppet, Result, Sight
from realtime.sources import Frame
from web import clock
from web.feed import CAMERA, TIME_BASE, Feed, LiveFrame, Player
from web.mark import add_mark
from web.recorder import Recorder
from web.studio import Studio
from web.transport import ResultTrack

T = TypeVar("T")
Image = NDArray[np.uint8]

SIZES = (256, 384, 512, 768, 1024)  # pixels of a result's longer side
FEWEST = 15.0  # frames per second: with fewer for STRUGGLE seconds, the result is made smaller
STRUGGLE = 4.0
WINDOW = 2.0  # seconds that frames per second and stage times are taken over


def fit(photo: Image, size: int) -> Image:
    """A photo with its longer side at `size` px at most and even sides, as video needs them."""
    height, width = photo.shape[:2]
    scale = min(1.0, size / max(height, width))
    if scale < 1:
        height, width = max(16, round(height * scale)), max(16, round(width * scale))
        photo = np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(photo[: height & ~1, : width & ~1])


def _pace(stages: dict[str, float]) -> float:
    """Milliseconds from picture to picture that the loop can keep: what its slower half takes."""
    seeing = stages["find"] + stages["detect"]
    return max(seeing, stages["total"] - seeing)


class _LivePuppet(Puppet):
    """A puppet that takes a new neutral when what it follows is another source, or has turned on its side."""

    _before: object = None

    def show(self, sight: Sight) -> Result:
        image = sight.frame.image
        followed = (getattr(sight.frame, "origin", ""), None if image is None else image.shape)
        if followed != self._before:
            self._before = followed
            self.retargeter.calibrate()
        return super().show(sight)


class Performer:
    """Owns a session's models, puppet, feed and threads, from construction, which takes a second, to `close`.

    Results go to `track` with a clock strip below when `strip`. Every method but `close` may be called from the event
    loop. Raises InputError for a target or source that cannot be used.
    """

    def __init__(self, studio: Studio, track: ResultTrack, photo: Image, strip: bool) -> None:
        self.feed = Feed(strip)
        self.size = 512
        self._studio, self._track, self._photo, self._strip = studio, track, photo, strip
        self._player: Player | None = None
        self._following, self._closed = threading.Lock(), False
        self._recorder: Recorder | None = None
        self._recording = threading.Lock()
        self._done: deque[tuple[float, dict[str, float]]] = deque(maxlen=120)
        self._result: Result | None = None
        self._seen_size = (1, 1)
        self._slow_since: float | None = None
        self._least = SIZES[0]  # below which the photo's face would be too small
        self.warning = ""
        self.latency = 0.0  # seconds from a picture's arrival to its result, smoothed
        self._models = studio.pool.take()
        try:
            self._puppet = _LivePuppet(self._models, fit(photo, self.size))
        except BaseException:
            studio.pool.give(self._models)
            raise
        self._virtual_camera = studio.virtual_camera.take() if studio.virtual_camera else None
        self._loop = Loop(self.feed, self._puppet, self._show)
        self._loop.start()

    @property
    def running(self) -> bool:
        return self._loop.running and not (self._player and self._player.failed)

    def follow(self, origin: str) -> None:
        """Follow the browser's camera, or a source of the server's. Raises InputError for one that cannot be."""
        player = None if origin == CAMERA else Player(self._studio.open_source, origin, self.feed)
        with self._following:
            if self._closed:  # while the source was opened
                before = player
            else:
                before, self._player = self._player, player
                self.feed.origin = origin
                if player:
                    player.start()
        if before:
            before.stop()

    def call(self, request: Callable[[Puppet], T]) -> "Future[T]":
        return self._loop.call(request)

    def set_photo(self, photo: Image) -> "Future[None]":
        """Take another photo; the future raises InputError, and the old one stays, if it has no usable face."""

        def take(puppet: Puppet) -> None:
            puppet.set_photo(fit(photo, self.size))
            self._photo, self._least = photo, SIZES[0]

        return self._loop.call(take)

    def set_size(self, size: int) -> "Future[None]":
        """Make the result's longer side one of SIZES."""
        if size not in SIZES:
            raise InputError(f"output size {size} is not there: one of {', '.join(map(str, SIZES))} is needed")

        def take(puppet: Puppet) -> None:
            puppet.set_photo(fit(self._photo, size))
            self.size = size

        return self._loop.call(take)

    def record(self, path: Path) -> None:
        """Begin to record into an MP4 file."""
        with self._recording:
            if self._recorder is not None:
                raise InputError("this is being recorded already")
            self._recorder = Recorder(path, TIME_BASE)

    def finish_recording(self) -> Path:
        """End the recording: its file. Waits for the encoder, so not for the event loop."""
        with self._recording:
            recorder, self._recorder = self._recorder, None
        if recorder is None:
            raise InputError("nothing is being recorded")
        return recorder.finish()

    def _show(self, frame: Frame, result: Result) -> None:
        assert isinstance(frame, LiveFrame)
        image = add_mark(result.image) if self._studio.mark else result.image
        with self._recording:
            if self._recorder is not None:
                self._recorder.put(image, frame.pts)
        if self._virtual_camera:
            self._virtual_camera.put(image)
        if self._strip:
            image = clock.append(image, frame.clock)
        picture = av.VideoFrame.from_ndarray(image, "rgb24")
        picture.pts, picture.time_base = frame.pts, frame.time_base
        self._track.put(picture)
        self.latency += 0.1 * (time.monotonic() - frame.captured_at - self.latency)
        self._result = result
        if frame.image is not None:
            self._seen_size = (frame.image.shape[1], frame.image.shape[0])
        self._done.append((time.monotonic(), result.stages_ms))
        self._relieve()

    def _relieve(self) -> None:
        """When dropping frames does not bring the machine to keep up, make the result smaller."""
        now = time.monotonic()
        busy = _pace(self._done[-1][1]) > 1000 / FEWEST
        if not busy or self.size <= self._least:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = now
        elif now - self._slow_since > STRUGGLE:
            self._slow_since = None
            self._shrink(SIZES[SIZES.index(self.size) - 1])

    def _shrink(self, size: int) -> None:
        def tell(done: "Future[None]") -> None:
            if done.cancelled() or done.exception():
                self._least = self.size
            else:
                self.warning = f"the machine cannot keep up: the result was reduced to {size} px"

        self.set_size(size).add_done_callback(tell)

    def figures(self) -> dict[str, Any]:
        """What the page shows of the last WINDOW seconds."""
        now = time.monotonic()
        recent = [stages for moment, stages in list(self._done) if now - moment < WINDOW]
        result, models = self._result, self._models
        return {
            "fps": round(len(recent) / WINDOW, 1),
            "pace": round(float(np.median([_pace(stages) for stages in recent])), 1) if recent else 0.0,
            "stages": {
                stage: round(float(np.median([stages[stage] for stages in recent])), 1) if recent else 0.0
                for stage in STAGES
            },
            "dropped": self.feed.dropped + self._loop.dropped + self._track.dropped,
            "engine": models.engine,
            "precision": models.precision,
            "device": models.device,
            "asked": self._studio.asked,
            "source": self.feed.origin,
            "face": result.face.value if result else "unseen",
            "size": self.size,
            "recording": self._recorder is not None,
            "warning": self.warning,
        }

    def overlay(self) -> dict[str, Any]:
        """The landmarks (56, 2) and the crop's corners (4, 2) in the source, as shares of its width and height."""
        result = self._result
        if result is None or result.points is None or self.feed.origin != CAMERA:
            return {"points": [], "crop": []}
        corners = transform(CORNERS, inverse(align(result.points)))
        scale = np.array(self._seen_size, np.float32)
        return {
            "points": np.round(result.points / scale, 4).tolist(),
            "crop": np.round(corners / scale, 4).tolist(),
        }

    def close(self) -> None:
        """Stop and join every thread, and give the models back. Raises what ended the loop."""
        with self._following:
            self._closed = True
        if self._player:
            self._player.stop()
        self._loop.stop()
        try:
            self._loop.join()
        finally:
            recorder, self._recorder = self._recorder, None
            if recorder is not None:
                recorder.abandon()
            if self._virtual_camera:
                self._virtual_camera.give()
            self._puppet.close()
            self._studio.pool.give(self._models)
