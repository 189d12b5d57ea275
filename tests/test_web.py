"""The live server, talked to by real peers over loopback. Its models are FaceMesh's, which need no training."""

import asyncio
import io
import itertools
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
import pytest
import pyvirtualcam.camera
from aioice import stun
from PIL import Image as Pillow

from realtime.bench import render_clip
from realtime.camera import CameraSource
from realtime.errors import InputError
from realtime.photo import load_photo, portrait_path
from tests.facemesh import FaceMeshModels
from tests.test_web_virtualcam import MemoryDevice
from tests.webpeer import RATE, Camera, Image, Peer, Tone, live_server, peer
from web import clock
from web.transport import configuration
from web.virtualcam import VirtualCamera
from web.voice import DelayedVoice

CLIP = 40  # frames


@pytest.fixture(scope="module")
def clip() -> list[Image]:
    """A camera's view of a face that talks and sways."""
    models = FaceMeshModels()
    pictures = [frame.image for frame in itertools.islice(render_clip(models, CLIP), CLIP)]
    models.close()
    return [picture for picture in pictures if picture is not None]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with live_server(tmp_path_factory.mktemp("panel")) as url:
        yield url


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


async def _live(made: Peer, camera: Camera) -> int:
    """Connect a peer, and have its camera followed: the results so far."""
    assert (await made.connect(camera)).status_code == 200
    await made.until(lambda: len(made.frames) > 2)
    assert (await made.ask(type="source", name="camera"))["type"] == "done"
    await made.until(lambda: any(said["type"] == "stats" and said["source"] == "camera" for said in made.messages))
    return len(made.frames)


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

    run(scene)


def test_a_moving_face_moves_the_target_at_its_own_times(address: str, clip: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            camera = Camera(clip)
            before = await _live(made, camera)
            await made.until(lambda: len(made.frames) > before + 2 * CLIP)
            assert made.stats()["face"] == "tracked"
            pictures = made.pictures()[-CLIP:]
            motion = np.abs(pictures[0].astype(int) - pictures[CLIP // 2])
            assert motion.max() > 40
            background = pictures[0][: pictures[0].shape[0] // 8, -pictures[0].shape[1] // 8 :]
            assert (
                not np.abs(background.astype(int) - clip[0][: background.shape[0], : background.shape[1]]).mean() < 20
            )
            came = np.array([frame.pts for frame in made.frames[-CLIP:]])
            sent = np.array(camera.stamps)
            # aiortc's encoder rounds time stamps on either way, by one tick of 90 kHz
            worst = [
                np.abs((came - came[0] + start)[:, None] - sent).min(axis=1).max() for start in sent[: -len(came) + 1]
            ]
            assert min(worst) <= 2, "the results' time stamps are not the camera's"

    run(scene)


def test_h264_is_spoken_with_who_prefers_it(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            answer = (await made.connect(codec="H264")).json()["sdp"]
            assert "H264" in answer
            assert "VP8" not in answer
            await made.until(lambda: len(made.frames) > 20)

    run(scene)


def test_a_voice_comes_back_with_the_picture(address: str, clip: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            assert (await made.connect(Camera(clip), voice=Tone())).status_code == 200
            await made.until(lambda: len(made.sounds) > 50 and len(made.frames) > 5)
            assert np.abs(made.sounds[-1].to_ndarray()).max() > 3000

    run(scene)


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

    run(scene)


def test_a_strip_comes_back_and_the_camera_does_not(address: str, clip: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            camera = Camera([clock.append(picture, 5000 + i) for i, picture in enumerate(clip)])
            assert (await made.connect(camera, strip=True)).status_code == 200
            await made.until(lambda: len(made.frames) > 2)
            await made.ask(type="source", name="camera")
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 20)
            pictures = made.pictures()[before + 5 :]
            seen = [clock.read_cells(picture[-clock.ROWS :]) for picture in pictures]
            times = [moment for moment in seen if moment is not None]
            assert len(times) > 0.9 * len(seen)
            assert set(times) <= set(range(5000, 5000 + len(clip)))
            assert len(set(times)) > 10

    run(scene)


def test_results_that_nobody_can_encode_are_dropped(address: str, clip: list[Image]) -> None:
    """A consumer that stops to take results finds the newest one, and no queue, when it takes again."""

    async def scene() -> None:
        async with peer(address) as made:
            camera = Camera(clip)
            before = await _live(made, camera)
            await made.until(lambda: len(made.frames) > before + 5)
            threading.Event().wait(2.0)  # this peer's own event loop stands still: nothing is sent or received
            sent = len(camera.stamps)
            await made.until(lambda: len(camera.stamps) > sent + 40)
            newest = made.frames[-1]
            await made.until(lambda: made.frames[-1].pts > newest.pts)
            behind = len(camera.stamps) - (len(made.frames) - before)
            assert behind < 60

    run(scene)


def test_photos_and_settings_are_set_live(address: str, clip: list[Image]) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await _live(made, Camera(clip))
            shape = made.pictures()[-1].shape
            assert (await made.ask(type="photo", id="collins"))["type"] == "done"
            await made.until(lambda: made.pictures()[-1].shape != shape, 10)
            assert (await made.ask(type="calibrate"))["type"] == "done"
            chosen = {"mouth": 1.5, "smoothing": 0.5, "mirror": True, "overlay": True, "reference": "best"}
            assert (await made.ask(type="settings", **chosen))["type"] == "done"
            await made.until(
                lambda: any(said["type"] == "overlay" and len(said["points"]) == 56 for said in made.messages)
            )
            assert (await made.ask(type="size", size=256))["type"] == "done"
            await made.until(lambda: max(made.frames[-1].width, made.frames[-1].height) == 256)

    run(scene)


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

    run(scene)


def test_an_own_photo_needs_consent_and_a_face(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            own = portrait_path("collins").read_bytes()
            assert (await made.upload(own)).status_code == 403
            assert (await made.upload(b"no picture", consent="yes")).status_code == 400
            name = (await made.upload(own, consent="yes")).json()["id"]
            assert (await made.ask(type="photo", id=name))["type"] == "done"
            blank = io.BytesIO()
            Pillow.new("RGB", (300, 300), "grey").save(blank, "PNG")
            faceless = (await made.upload(blank.getvalue(), consent="yes")).json()["id"]
            answer = await made.ask(type="photo", id=faceless)
            assert answer["type"] == "error"
            assert "no face" in answer["message"]
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 5)  # the stream goes on with the photo before

    run(scene)


def test_uploads_are_bounded_in_bytes_and_pixels(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            large = await made.upload(bytes(21 << 20), consent="yes")
            assert large.status_code == 400
            assert "too large" in large.json()["message"]
            bomb = io.BytesIO()
            Pillow.new("1", (9000, 9000)).save(bomb, "PNG")
            answer = await made.upload(bomb.getvalue(), consent="yes")
            assert answer.status_code == 400
            assert "81 megapixels" in answer.json()["message"]

    run(scene)


def test_a_recording_is_an_mp4_that_says_it_is_synthetic(address: str, clip: list[Image], tmp_path: Path) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await _live(made, Camera(clip))
            assert (await made.ask(type="record", on=True))["type"] == "done"
            assert (await made.ask(type="record", on=True))["type"] == "error"
            before = len(made.frames)
            await made.until(lambda: len(made.frames) > before + 20)
            name = (await made.ask(type="record", on=False))["recording"]
            response = await made.fetch(f"/recordings/{name}")
            assert response.status_code == 200
            film = tmp_path / "film.mp4"
            film.write_bytes(response.content)
            assert (await made.fetch(f"/recordings/{name}")).status_code == 404  # it was removed
        with av.open(film) as container:
            assert "synthetic" in container.metadata["comment"]
            assert sum(1 for _ in container.decode(video=0)) > 10

    run(scene)


def test_messages_that_make_no_sense_are_answered(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as made:
            await made.connect()
            for message in (
                {"type": "dance"},
                {"type": "source", "name": "camera:0"},
                {"type": "source", "name": "/etc/passwd"},
                {"type": "photo", "id": "../hopper"},
                {"type": "photo"},
                {"type": "size", "size": 100_000},
                {"type": "settings", "mouth": "wide"},
                {"type": "settings", "mouth": 99},
                {"type": "record", "on": False},
            ):
                answer = await made.ask(**message)
                assert answer["type"] == "error", message
                assert answer["message"]
            assert (await made.ask(type="ping"))["type"] == "done"

    run(scene)


def test_one_more_than_there_is_room_for_gets_a_word(address: str) -> None:
    async def scene() -> None:
        async with peer(address) as first, peer(address) as second, peer(address) as third:
            assert (await first.connect()).status_code == 200
            assert (await second.connect()).status_code == 200
            refused = await third.connect()
            assert refused.status_code == 503
            assert "all 2 places are taken" in refused.json()["message"]
            for made in (first, second):  # both get their own results
                await made.until(lambda made=made: len(made.frames) > 10)

    run(scene)


def test_who_vanishes_is_forgotten_and_freed(tmp_path: Path) -> None:
    def at_work() -> set[str]:
        names = {thread.name for thread in threading.enumerate()}
        return names & {"models", "capture", "player motion:demo"}

    async def scene(address: str) -> None:
        async with peer(address) as made:
            await made.connect()
            await made.until(lambda: len(made.frames) > 5)
            assert len(at_work()) == 3
            await made.vanish()  # its connection stays open
            await made.until(lambda: not at_work(), 8)
            async with peer(address) as again:
                assert (await again.connect()).status_code == 200

    with live_server(tmp_path, sessions=1) as address:
        asyncio.run(scene(address))
    assert not at_work()


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "{}",
        "[1]",
        json.dumps({"sdp": "", "type": "offer"}),
        json.dumps({"sdp": "v=0\r\nnonsense", "type": "offer"}),
        json.dumps({"sdp": "v=0", "type": "answer"}),
        json.dumps({"sdp": 7, "type": "offer"}),
        json.dumps({"sdp": "x" * 200_000, "type": "offer"}),
    ],
)
def test_a_bad_offer_is_refused_and_takes_no_place(address: str, offer: str) -> None:
    for _ in range(3):
        response = httpx.post(f"{address}/offer", content=offer, trust_env=False)
        assert response.status_code == 400
        assert response.json()["message"]


def test_other_origins_and_hosts_are_refused(address: str) -> None:
    for path in ("/offer", "/photos", "/leave"):
        foreign = httpx.post(f"{address}{path}", headers={"origin": "https://evil.example"}, trust_env=False)
        assert foreign.status_code == 403
    rebound = httpx.get(address, headers={"host": "evil.example"}, trust_env=False)
    assert rebound.status_code == 403
    same = httpx.post(f"{address}/offer", headers={"origin": address}, content="{}", trust_env=False)
    assert same.status_code == 400


def test_a_token_is_asked_for_everywhere_but_at_the_page(tmp_path: Path) -> None:
    with live_server(tmp_path, token="secret") as address, httpx.Client(base_url=address, trust_env=False) as client:
        assert client.get("/").status_code == 200
        assert client.get("/?token=wrong").headers.get("set-cookie") is None
        for path in ("/about", "/portraits/hopper", "/recordings/x", "/panel/"):
            assert client.get(path).status_code == 401, path
        assert client.post("/offer", json={}).status_code == 401
        assert client.post("/photos").status_code == 401
        assert client.post("/offer", headers={"authorization": "Bearer secret!"}, json={}).status_code == 401
        assert client.post("/offer", headers={"authorization": "Bearer secret"}, json={}).status_code == 400
        cookie = client.get("/?token=secret").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/about").status_code == 200


@pytest.mark.parametrize(
    "path", ["/portraits/..%2fhopper", "/portraits/../../run.py", "/page.py", "/recordings/..%2fx"]
)
def test_no_path_reaches_the_file_system(address: str, path: str) -> None:
    assert httpx.get(f"{address}{path}", trust_env=False, params={"session": "x"}).status_code == 404


def test_the_servers_own_camera_drives_it(tmp_path: Path, clip: list[Image]) -> None:
    """OpenCV opens a file as it opens a camera; at its end that camera is unplugged, and plugged in again."""
    path = tmp_path / "camera.avi"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, clip[0].shape[1::-1])
    for picture in clip:
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


class _Stun(asyncio.DatagramProtocol):
    """A STUN server (RFC 8489): tells who asks where they are."""

    def __init__(self) -> None:
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        asked = stun.parse_message(data)
        answer = stun.Message(asked.message_method, stun.Class.RESPONSE, asked.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.7", address[1])
        self.asked += 1
        self.transport.sendto(bytes(answer), address)  # type: ignore[attr-defined]


def test_stun_and_turn_servers_are_the_environments(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        event_loop = asyncio.get_running_loop()
        transport, server = await event_loop.create_datagram_endpoint(_Stun, ("127.0.0.1", 0))
        where = f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
        monkeypatch.setenv("PUPPETCAM_STUN", where)
        async with peer(address) as made:
            answer = (await made.connect()).json()["sdp"]
            assert server.asked > 0
            assert "192.0.2.7" in answer  # what the server was told, it tells the page
            await made.until(lambda: len(made.frames) > 2)
        transport.close()
        monkeypatch.setenv("PUPPETCAM_TURN", "turn:127.0.0.1:3478")
        with pytest.raises(InputError, match="PUPPETCAM_TURN_USER"):
            configuration()
        monkeypatch.setenv("PUPPETCAM_TURN_USER", "me")
        monkeypatch.setenv("PUPPETCAM_TURN_PASSWORD", "secret")
        turn = {"urls": "turn:127.0.0.1:3478", "username": "me", "credential": "secret"}
        about = await event_loop.run_in_executor(None, lambda: httpx.get(f"{address}/about", trust_env=False))
        assert about.json()["iceServers"] == [{"urls": where}, turn]
        assert vars(configuration().iceServers[1]).items() >= turn.items()

    run(scene)
