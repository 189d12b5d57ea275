"""A virtual camera: what meetings see in place of a real one."""

import threading
from typing import Self

import numpy as np
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.mailbox import Mailbox
from web.recorder import placed

Image = NDArray[np.uint8]

SIZE = (1280, 720)  # meetings expect a wide picture; results are fitted into it
RATE = 30  # frames per second that programs are promised
NEEDED = (
    "on Linux it needs v4l2loopback: apt-get install v4l2loopback-dkms, then modprobe v4l2loopback; "
    "on Windows and macOS it needs OBS Studio, which brings one"
)


class VirtualCamera:
    """Sends pictures to the first virtual camera there is, from its own thread; when that is behind, the newest wins.

    One session at a time has it: `take` it, and `give` it back. Raises InputError where no virtual camera is, and
    ModuleNotFoundError without pyvirtualcam, which the `virtual-camera` extra brings.
    """

    def __init__(self) -> None:
        import pyvirtualcam

        try:
            self._device = pyvirtualcam.Camera(*SIZE, RATE)
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise InputError(f"there is no virtual camera ({said}): {NEEDED}") from error
        self.name = self._device.device
        self._taken = threading.Lock()
        self._pictures: Mailbox[Image] = Mailbox()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="virtual camera")
        self._thread.start()

    def take(self) -> Self | None:
        """The camera, unless another session has it."""
        return self if self._taken.acquire(blocking=False) else None

    def give(self) -> None:
        """Let the next session have it; until then it shows black."""
        self._pictures.put(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
        self._taken.release()

    def put(self, image: Image) -> None:
        """Show a picture, RGB uint8 (H, W, 3), in the middle of black; never blocks. Raises what ended the thread."""
        if self._error is not None:
            raise self._error
        self._pictures.put(image)

    def close(self) -> None:
        """Join the thread and give the device back."""
        self._pictures.close()
        self._thread.join()
        self._device.close()

    def _run(self) -> None:
        try:
            while (image := self._pictures.get()) is not None:
                self._device.send(placed(image, SIZE))
        except BaseException as error:  # handed to who puts
            self._error = error
