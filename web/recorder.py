"""A recording of a session's result: an MP4 file that says that it is synthetic."""

import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.mailbox import Mailbox
from realtime.video import Movie

Image = NDArray[np.uint8]

LONGEST = 600  # seconds


def placed(image: Image, size: tuple[int, int]) -> Image:
    """An RGB picture, as large as fits into (width, height), in the middle of black."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    width, height = round(width * scale), round(height * scale)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    out = np.zeros((size[1], size[0], 3), np.uint8)
    cv2.resize(image, (width, height), out[top : top + height, left : left + width], interpolation=cv2.INTER_AREA)
    return out


class Recorder:
    """Writes pictures to an MP4 file in a thread of its own; when that is behind, the newest wins.

    A film has its first picture's size; others are fitted into it. `finish` ends the file; it raises what went wrong in
    the thread, and InputError for a recording of nothing.
    """

    def __init__(self, path: Path, time_base: Fraction) -> None:
        self.path = path
        self._time_base = time_base
        self._pictures: Mailbox[tuple[Image, int]] = Mailbox()
        self._error: BaseException | None = None
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="recorder")
        self._thread.start()

    def put(self, image: Image, pts: int) -> None:
        """Take a picture, RGB uint8 (H, W, 3), shown from `pts` on; never blocks."""
        self._pictures.put((image, pts))

    def finish(self) -> Path:
        """End the recording: the file's path."""
        self._pictures.close()
        self._thread.join()
        if self._error is not None:
            raise self._error
        if not self._written:
            raise InputError("nothing was recorded: no picture came")
        return self.path

    def abandon(self) -> None:
        """End the recording and throw it away."""
        self._pictures.close()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            first = self._pictures.get()
            if first is None:
                return
            image, start = first
            size = (image.shape[1], image.shape[0])
            with Movie(self.path, size, Fraction(30), self._time_base) as movie:
                item: tuple[Image, int] | None = first
                while item is not None and (item[1] - start) * self._time_base < LONGEST:
                    movie.write(placed(item[0], size), item[1] - start)
                    self._written += 1
                    item = self._pictures.get()
                movie.finish()
        except BaseException as error:  # handed to the owner
            self._error = error
