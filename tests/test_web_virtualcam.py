"""The virtual camera: pictures go through pyvirtualcam to a device, here one in memory."""

import sys
import threading
from contextlib import closing
from typing import Any, ClassVar

import numpy as np
import pytest
import pyvirtualcam
import pyvirtualcam.camera

import run
from web.virtualcam import SIZE, VirtualCamera


class MemoryDevice(pyvirtualcam.Backend):  # type: ignore[misc] # pyvirtualcam has no types
    """Keeps what it is sent; `free` makes it ready for the next picture."""

    made: ClassVar[list["MemoryDevice"]] = []  # by pyvirtualcam

    def __init__(self, **_: Any) -> None:
        self.seen: list[np.ndarray[Any, Any]] = []
        self.came, self.free = threading.Semaphore(0), threading.Semaphore(0)
        self.closed = False
        self.made.append(self)

    def close(self) -> None:
        self.closed = True

    def send(self, frame: np.ndarray[Any, Any]) -> None:
        self.seen.append(frame.reshape(SIZE[1], SIZE[0], 3).copy())
        del self.seen[:-8]
        self.came.release()
        assert self.free.acquire(timeout=30)

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None


def colour(level: int) -> np.ndarray[Any, Any]:
    return np.full((400, 300, 3), level, np.uint8)


def test_the_newest_picture_is_shown_in_the_middle_of_black(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {"memory": MemoryDevice})
    with closing(VirtualCamera()) as camera:
        device = MemoryDevice.made[-1]
        assert camera.name == "memory"
        assert camera.take() is camera
        assert camera.take() is None  # one session at a time
        camera.put(colour(50))
        assert device.came.acquire(timeout=30)
        for level in (60, 70, 200):  # while the device is busy
            camera.put(colour(level))
        device.free.release()
        assert device.came.acquire(timeout=30)
        assert [picture[360, 640, 0] for picture in device.seen] == [50, 200]
        assert device.seen[-1][:, 370:910].all()  # 720 x 540 in the middle
        assert not device.seen[-1][:, :369].any()
        camera.give()
        device.free.release()
        assert device.came.acquire(timeout=30)
        assert not device.seen[-1].any()  # nobody's picture stays
        assert camera.take() is camera
        device.free.release()
    assert device.closed
    assert "virtual camera" not in {thread.name for thread in threading.enumerate()}


def test_a_machine_without_one_is_told_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {})  # wherever this runs
    assert run.main(["live", "--port", "0", "--virtual-camera"]) == 2
    assert "v4l2loopback" in capsys.readouterr().err


def test_without_pyvirtualcam_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    assert run.main(["live", "--port", "0", "--virtual-camera"]) == 2
    assert "puppetcam[virtual-camera]" in capsys.readouterr().err
