"""A camera, read in a thread of its own: only the newest frame is kept, and an unplugged camera is waited for."""

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.mailbox import Mailbox
from realtime.photo import Notify
from realtime.sources import Frame

STALL = 2.0  # seconds: a read that takes longer, or frames that repeat for longer, mean that the camera is gone
RETRY = 1.0  # seconds between two attempts to open it again
TIME_BASE = Fraction(1, 90_000)

OpenCapture = Callable[[int], cv2.VideoCapture]


class Capture:
    """An open camera whose reads are watched.

    OpenCV's `read` can report success after an unplug, and repeat the last frame. A camera that has repeated one frame
    ever since it was opened is believed, however: a virtual camera may well show a still picture.
    """

    def __init__(self, number: int, open_capture: OpenCapture) -> None:
        self._device = open_capture(number)
        self._device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._last: NDArray[np.uint8] | None = None
        self._changed_at: float | None = None

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, RGB uint8 (height, width, 3); None once the camera is gone."""
        asked_at = time.monotonic()
        good, image = self._device.read() if self._device.isOpened() else (False, None)
        now = time.monotonic()
        if not good or image is None or now - asked_at > STALL:
            return None
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        if self._last is not None and not np.array_equal(rgb, self._last):
            self._changed_at = now
        self._last = rgb
        if self._changed_at is not None and now - self._changed_at > STALL:
            return None
        return rgb

    def frame_rate(self) -> Fraction | None:
        """Frames per second as the driver says, None where it does not know."""
        rate = self._device.get(cv2.CAP_PROP_FPS)
        return Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else None

    def close(self) -> None:
        self._device.release()


class CameraSource:
    """The newest frame of camera `number`. A thread reads it until `close`; `dropped` counts frames nobody took.

    `notify` is told when the camera goes and when it is back. `open_capture` takes the number to a cv2.VideoCapture.
    Raises InputError if there is no such camera or another program holds it.
    """

    live = True
    frame_count = None
    path = None

    def __init__(self, number: int, notify: Notify, open_capture: OpenCapture = cv2.VideoCapture) -> None:
        self._number, self._notify, self._open_capture = number, notify, open_capture
        cv2.setLogLevel(0)  # what OpenCV says of a missing camera, this class says better
        capture = Capture(number, open_capture)
        image = capture.read()
        if image is None:
            capture.close()
            raise InputError(
                f"camera:{number} gives no picture: it is absent or another program is using it; "
                "plug it in, close the other program or name another one, such as camera:1"
            )
        self.size = (image.shape[1], image.shape[0])
        self.frame_rate = capture.frame_rate()
        self._started_at = time.monotonic()
        self._index, self._pts = 0, -1
        self._frames: Mailbox[Frame] = Mailbox()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(capture,), name=f"camera:{number}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._frames.dropped

    def _run(self, capture: Capture) -> None:
        while not self._stop.is_set():
            image = capture.read()
            if image is not None:
                self._deliver(image)
                continue
            capture.close()
            if not self._stop.is_set():
                self._notify(f"camera:{self._number} is gone: trying to reach it again")
                capture = self._reconnect(capture)
        capture.close()

    def _reconnect(self, capture: Capture) -> Capture:
        """The camera opened anew; the old one, closed, when stopped before that."""
        while not self._stop.wait(RETRY):
            again = Capture(self._number, self._open_capture)
            image = again.read()
            if image is not None:
                self._notify(f"camera:{self._number} is back")
                self._deliver(image)
                return again
            again.close()
        return capture

    def _deliver(self, image: NDArray[np.uint8]) -> None:
        now = time.monotonic()
        self._pts = max(self._pts + 1, round((now - self._started_at) / TIME_BASE))
        self._frames.put(Frame(image, None, self._pts, TIME_BASE, now, self._index))
        self._index += 1

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = self._frames.get()
        if frame is None:
            raise StopIteration
        return frame

    def close(self) -> None:
        """End the iteration and the thread."""
        self._stop.set()
        self._frames.close()
        self._thread.join()
