"""A session's puppet at work: it begins and ends cleanly, whatever happens meanwhile."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from aiortc import RTCPeerConnection

from realtime.errors import InputError
from realtime.photo import load_photo
from realtime.pool import ModelPool
from realtime.sources import Source, open_source
from tests.facemesh import FaceMeshModels
from web.performer import Performer
from web.session import Session
from web.studio import Studio
from web.transport import ResultTrack


class Door:
    """Opens a source, but not before it is let."""

    def __init__(self) -> None:
        self.asked, self.let = threading.Event(), threading.Event()
        self.opened: list[Source] = []

    def __call__(self, name: str) -> Source:
        self.asked.set()
        assert self.let.wait(30)
        self.opened.append(open_source(name))
        return self.opened[-1]


@pytest.fixture
def studio() -> Iterator[Callable[..., Studio]]:
    """Makes studios of FaceMesh models, whose sources an own function opens."""
    pool = ModelPool(FaceMeshModels)
    yield lambda opener: Studio("hopper", "motion:demo", 1, True, "", opener, pool)
    pool.close()


def threads() -> set[str]:
    """The names of the threads of performers that are at work."""
    names = {thread.name for thread in threading.enumerate()}
    return names & {"capture", "eyes", "models", "player motion:demo", "player motion:talking"}


def test_a_source_that_opens_after_the_end_is_not_followed(studio: Callable[..., Studio]) -> None:
    door = Door()

    async def scene() -> None:
        performer = Performer(studio(door), ResultTrack(), load_photo("hopper"), False)
        following = asyncio.create_task(asyncio.to_thread(performer.follow, "motion:talking"))
        await asyncio.to_thread(door.asked.wait)
        await asyncio.to_thread(performer.close)
        door.let.set()
        await following

    asyncio.run(scene())
    assert len(door.opened) == 1
    assert next(iter(door.opened[0]), None) is None  # it is closed
    assert threads() == set()


def test_a_session_that_is_given_up_while_it_begins_leaves_nothing(studio: Callable[..., Studio]) -> None:
    door, ended = Door(), []

    async def scene() -> None:
        page = RTCPeerConnection()
        page.addTransceiver("video")
        await page.setLocalDescription(await page.createOffer())
        session = Session(studio(door), ended.append)
        opening = asyncio.create_task(session.open(page.localDescription, False))
        await asyncio.to_thread(door.asked.wait)
        opening.cancel()  # as the server does when it ends
        with pytest.raises(asyncio.CancelledError):
            await opening
        door.let.set()
        await page.close()

    asyncio.run(scene())
    assert len(ended) == 1
    assert threads() == set()


def test_a_source_that_cannot_be_played_on_stops_the_puppet(studio: Callable[..., Studio]) -> None:
    opened = []

    def once(name: str) -> Any:
        if opened:
            raise InputError(f"{name} was moved")
        opened.append(name)
        return _Short()

    async def scene() -> None:
        performer = Performer(studio(once), ResultTrack(), load_photo("hopper"), False)
        performer.follow("motion:demo")
        for _ in range(200):
            await asyncio.sleep(0.05)
            if not performer.running:
                break
        assert not performer.running
        await asyncio.to_thread(performer.close)

    asyncio.run(scene())


class _Short:
    """A source that is at its end at once."""

    live, frame_rate, path, frame_count, size = False, Fraction(25), None, 0, None

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def close(self) -> None: ...


def test_a_result_is_not_said_to_be_smaller_where_the_face_would_be_too_small(studio: Callable[..., Studio]) -> None:
    small = np.full((1024, 1024, 3), 128, np.uint8)
    small[:320, :256] = cv2.resize(load_photo("hopper"), (256, 320))

    async def scene() -> None:
        performer = Performer(studio(open_source), ResultTrack(), small, False)
        performer.follow("motion:demo")
        with pytest.raises(InputError, match="small"):
            await asyncio.wrap_future(performer.set_size(256))
        performer._shrink(256)
        await asyncio.wrap_future(performer.call(lambda _: None))
        assert performer.warning == ""
        assert performer.size == 512
        await asyncio.to_thread(performer.close)

    asyncio.run(scene())
