"""The live loop: the newest frame wins, drops are counted, and threads end when they are told to."""

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from realtime.bench import Replay
from realtime.errors import InputError
from realtime.landmarks import Array
from realtime.loop import Loop
from realtime.photo import load_photo
from realtime.puppet import Image, Puppet, Result
from realtime.sources import Frame, MotionSource
from tests.facemesh import FaceMeshModels

PATIENCE = 20  # seconds


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaceMeshModels]:
    mesh = FaceMeshModels()
    yield mesh
    mesh.close()


@pytest.fixture
def puppet(mesh: FaceMeshModels) -> Iterator[Puppet]:
    puppet = Puppet(mesh, load_photo("hopper"))
    yield puppet
    puppet.close()


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("capture", "eyes", "models")]


def endless() -> Replay:
    return Replay(list(MotionSource("smiling")), Fraction(100))


def test_a_recording_is_played_to_its_end_in_order(puppet: Puppet) -> None:
    shown: list[int] = []
    track = MotionSource("blinking")
    count = track.frame_count
    assert count is not None
    loop = Loop(track, puppet, lambda frame, _: shown.append(frame.index))
    loop.start()
    loop.join(count / 25 + PATIENCE)
    assert shown == sorted(set(shown))
    assert shown[-1] == count - 1
    assert len(shown) + loop.dropped == count


def test_a_slow_sink_drops_frames_and_sees_the_newest(puppet: Puppet) -> None:
    ages: list[float] = []
    enough = threading.Event()

    def show(frame: Frame, _: Result) -> None:
        ages.append(time.monotonic() - frame.captured_at)
        time.sleep(0.1)
        if len(ages) == 10:
            enough.set()

    loop = Loop(endless(), puppet, show)
    loop.start()
    assert enough.wait(PATIENCE)
    loop.stop()
    loop.join(PATIENCE)
    assert loop.dropped > 20
    assert ages[-1] < 1  # a queue would have grown by 0.09 s a frame, and the last frame's age with it


class _Leisurely(FaceMeshModels):
    """Takes its time, and counts the frames that were looked at while another one was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawing = threading.Event()
        self.overlaps = 0

    def detect(self, crop: Image) -> Array:
        time.sleep(0.03)
        self.overlaps += self.drawing.is_set()
        return super().detect(crop)

    def generate(self, driving: Array, prior: Array, features: Array) -> tuple[Array, Array, Array]:
        self.drawing.set()
        time.sleep(0.03)
        self.drawing.clear()
        return super().generate(driving, prior, features)


def camera() -> Replay:
    """A camera that sees a portrait."""
    image = load_photo("collins")
    return Replay([Frame(image, None, index, Fraction(1, 30), 0.0, index) for index in range(3)], Fraction(30))


def test_the_next_face_is_looked_for_while_the_last_one_is_drawn() -> None:
    models = _Leisurely()
    puppet = Puppet(models, load_photo("hopper"))
    seen: list[bool] = []
    loop = Loop(camera(), puppet, lambda _, result: seen.append(result.points is not None))
    loop.start()
    while len(seen) < 10:
        time.sleep(0.01)
    loop.stop()
    loop.join(PATIENCE)
    puppet.close()
    models.close()
    assert all(seen)
    assert models.overlaps > 2


def test_photos_are_switched_while_faces_are_looked_for(puppet: Puppet) -> None:
    sizes: list[tuple[int, ...]] = []
    loop = Loop(camera(), puppet, lambda _, result: sizes.append(result.image.shape))
    loop.start()
    for name in ("collins", "hopper") * 3:  # MediaPipe's graphs fail when two threads ask them at once
        photo = load_photo(name)
        loop.call(lambda puppet, photo=photo: puppet.set_photo(photo)).result(PATIENCE)  # type: ignore[misc]
        shown = len(sizes)
        while len(sizes) == shown:
            time.sleep(0.01)
        assert sizes[-1] == photo.shape
    loop.stop()
    loop.join(PATIENCE)


def test_requests_are_answered_between_frames_by_the_thread_that_owns_the_puppet(puppet: Puppet) -> None:
    sizes: list[tuple[int, ...]] = []
    loop = Loop(endless(), puppet, lambda _, result: sizes.append(result.image.shape))
    loop.start()
    name = loop.call(lambda puppet: (puppet.set_photo(load_photo("collins")), threading.current_thread().name)[1])
    assert name.result(PATIENCE) == "models"
    shown = len(sizes)
    while len(sizes) < shown + 3:
        time.sleep(0.01)
    loop.stop()
    loop.join(PATIENCE)
    assert sizes[-1] == load_photo("collins").shape


def test_a_request_that_fails_is_the_callers_and_the_loop_goes_on(puppet: Puppet) -> None:
    shown: list[int] = []
    loop = Loop(endless(), puppet, lambda frame, _: shown.append(frame.index))
    loop.start()
    with pytest.raises(InputError, match="shows no face"):
        loop.call(lambda puppet: puppet.set_photo(np.zeros((200, 200, 3), np.uint8))).result(PATIENCE)
    before = len(shown)
    while len(shown) < before + 3:
        time.sleep(0.01)
    loop.stop()
    loop.join(PATIENCE)


def test_requests_to_a_loop_that_has_ended_are_cancelled(puppet: Puppet) -> None:
    loop = Loop(endless(), puppet, lambda *_: None)
    loop.start()
    loop.stop()
    loop.join(PATIENCE)
    assert loop.call(lambda _: None).cancelled()


def test_what_goes_wrong_in_the_sink_surfaces_in_join(puppet: Puppet) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    loop = Loop(endless(), puppet, fail)
    loop.start()
    with pytest.raises(OSError, match="no space left"):
        loop.join(PATIENCE)


def test_what_goes_wrong_in_the_source_surfaces_in_join(puppet: Puppet) -> None:
    source = MotionSource("smiling")
    source._frames = iter([next(source), None])  # type: ignore[list-item]
    loop = Loop(source, puppet, lambda *_: None)
    loop.start()
    with pytest.raises(AttributeError):
        loop.join(PATIENCE)


def test_join_says_when_the_loop_runs_on(puppet: Puppet) -> None:
    loop = Loop(endless(), puppet, lambda *_: None)
    loop.start()
    with pytest.raises(TimeoutError, match="capture thread runs on"):
        loop.join(0.1)
    loop.stop()
    loop.join(PATIENCE)
