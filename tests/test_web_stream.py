"""Pictures and sound of the live server, as real peers over loopback get them."""

import asyncio
import itertools
import threading
import time
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import pyvirtualcam.camera
from PIL import Image as Pillow

from realtime.camera import CameraSource
from realtime.photo import load_photo
from tests.test_web_virtualcam import MemoryDevice
from tests.webpeer import RATE, Camera, Image, Tone, live_server, peer
from web import clock
from web.transport import ResultTrack
from web.virtualcam import VirtualCamera
from web.voice import DelayedVoice


def test_the_portrait_moves_before_any_camera(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            assert (await made.connect()).status_code == 200
            await made.until(lambda: len(made.frames) > 40)
            await made.until(lambda: any(said["type"] == "stats" for said in made.messages))
            assert made.stats()["source"] == "motion:demo"
            first, *_, last = made.pictures()[10:]
            assert np.abs(first.astype(int) - last).max() > 40
            portrait = load_photo("hopper")
            small = np.asarray(Pillow.fromarray(portrait).resize(first.shape[1::-1]), int)
            assert np.abs(small - first)[:, : first.shape[1] // 4].mean() < 8  # the photo's own background

    asyncio.run(scene())


def test_a_moving_face_moves_the_target_at_its_own_times(address: str, talking_face: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            camera = Camera(talking_face)
            before = await made.follow(camera)
            await made.until(lambda: len(made.frames) > before + 2 * len(talking_face))
            assert made.stats()["face"] == "tracked"
            pictures = made.pictures()[-len(talking_face) :]
            motion = np.abs(pictures[0].astype(int) - pictures[len(talking_face) // 2])
            assert motion.max() > 40
            height, width = pictures[0].shape[0] // 8, pictures[0].shape[1] // 8
            background, seen = pictures[0][:height, -width:], talking_face[0][:height, :width]
            assert not np.abs(background.astype(int) - seen).mean() < 20
            came = np.array([frame.pts for frame in made.frames[-len(talking_face) :]])
            sent = np.array(camera.stamps)
            # aiortc's encoder rounds time stamps on either way, by one tick of 90 kHz
            worst = [
                np.abs((came - came[0] + start)[:, None] - sent).min(axis=1).max() for start in sent[: -len(came) + 1]
            ]
            assert min(worst) <= 2, "the results' time stamps are not the camera's"

    asyncio.run(scene())


def test_h264_is_spoken_with_who_prefers_it(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            answer = (await made.connect(codec="H264")).json()["sdp"]
            assert "H264" in answer
            assert "VP8" not in answer
            await made.until(lambda: len(made.frames) > 20)

    asyncio.run(scene())


def test_a_voice_comes_back_with_the_picture(address: str, talking_face: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            assert (await made.connect(Camera(talking_face), voice=Tone())).status_code == 200
            await made.until(lambda: len(made.sounds) > 50 and len(made.frames) > 5)
            assert np.abs(made.sounds[-1].to_ndarray()).max() > 3000

    asyncio.run(scene())


def test_a_voice_never_comes_before_its_picture() -> None:
    """However soon it is asked for, a frame is held back for the delay, which is the picture's."""

    async def scene() -> None:
        voice, tone = DelayedVoice(), Tone()
        voice.delay = 0.3
        listening = asyncio.create_task(voice.listen(tone))
        started = time.monotonic()
        frames = [await voice.recv() for _ in range(5)]
        assert time.monotonic() - started >= voice.delay
        assert [frame.pts for frame in frames] == [960 * index for index in range(5)]
        voice.stop()
        tone.stop()
        await asyncio.gather(listening, return_exceptions=True)

    asyncio.run(scene())


def test_a_strip_comes_back_and_the_camera_does_not(address: str, talking_face: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            camera = Camera([clock.append(picture, 5000 + i) for i, picture in enumerate(talking_face)])
            assert (await made.connect(camera, strip=True)).status_code == 200
            await made.until(lambda: len(made.frames) > 2)
            await made.ask(type="source", name="camera")
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 20)
            pictures = made.pictures()[before + 5 :]
            seen = [clock.read_cells(picture[-clock.ROWS :]) for picture in pictures]
            times = [moment for moment in seen if moment is not None]
            assert len(times) > 0.9 * len(seen)
            assert set(times) <= set(range(5000, 5000 + len(talking_face)))
            assert len(set(times)) > 10

    asyncio.run(scene())


def test_results_that_nobody_encodes_are_dropped_and_counted(talking_face: list[Image]) -> None:
    async def scene() -> None:
        track = ResultTrack()
        waiting = asyncio.create_task(track.recv())
        await asyncio.sleep(0)
        for number, image in enumerate(talking_face[:7]):
            picture = av.VideoFrame.from_ndarray(image, "rgb24")
            picture.pts = number
            await asyncio.to_thread(track.put, picture)
        first, newest = (await waiting).pts, (await track.recv()).pts
        assert newest == 6
        assert first in (0, None) or first < newest
        assert track.dropped == 5  # nobody encoded what came between the two
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(track.recv(), 0.1)  # and nothing is left in a queue

    asyncio.run(scene())


def test_the_stream_goes_on_while_the_photo_is_switched(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            await made.until(lambda: len(made.frames) > 5)
            for name in ("collins", "hopper", "collins"):
                before = made.frames[-1].width, made.frames[-1].height
                assert (await made.ask(type="photo", id=name))["type"] == "done"
                await made.until(lambda before=before: (made.frames[-1].width, made.frames[-1].height) != before)
            stamps = [frame.pts for frame in made.frames]
            assert stamps == sorted(set(stamps))  # the same stream, in which time goes on
            shapes = [(frame.width, frame.height) for frame in made.frames]
            assert len(list(itertools.groupby(shapes))) == 4  # from one photo to the next, and nothing between
            assert made.connection.connectionState == "connected"

    asyncio.run(scene())


def test_the_servers_own_camera_drives_it(tmp_path: Path, talking_face: list[Image]) -> None:
    """OpenCV opens a file as it opens a camera; at its end that camera is unplugged, and plugged in again."""
    path = tmp_path / "camera.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, talking_face[0].shape[1::-1])
    for picture in talking_face:
        film.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    film.release()
    said: list[str] = []

    def open_camera(name: str) -> CameraSource:
        assert name == "camera:3"
        return CameraSource(3, said.append, lambda _: cv2.VideoCapture(str(path)))

    async def scene(address: str) -> None:
        async with peer(address) as made:
            await made.connect()
            await made.until(lambda: any(one["type"] == "stats" and one["face"] == "tracked" for one in made.messages))
            assert made.stats()["source"] == "camera:3"
            await made.until(lambda: any("is back" in sentence for sentence in said))
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before)

    with live_server(tmp_path, source="camera:3", open_source=open_camera) as address:
        asyncio.run(scene(address))
    assert "camera:3" not in {thread.name for thread in threading.enumerate()}


def test_the_virtual_camera_shows_the_first_persons_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {"memory": MemoryDevice})
    with closing(VirtualCamera()) as camera:
        device = MemoryDevice.made[-1]
        device.free.release(1_000_000)

        async def scene(address: str) -> None:
            async with peer(address) as first, peer(address) as second:
                await first.connect()
                await first.until(lambda: len(device.seen) > 5 and len(first.frames) > 5)
                await second.connect()
                await second.until(lambda: len(second.frames) > 5)
                shown = device.seen[-1]
            result = first.pictures()[-1]
            assert np.abs(shown[:, 640].astype(int).mean() - result[:, result.shape[1] // 2].mean()) < 12
            await first.until(lambda: not device.seen[-1].any())  # nobody is there

        with live_server(tmp_path, virtual_camera=camera) as address:
            asyncio.run(scene(address))
