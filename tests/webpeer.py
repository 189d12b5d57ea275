"""A live server of FaceMesh models on a port of its own, and an aiortc peer that talks to it like the page does."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from realtime.pool import ModelPool
from realtime.puppet import Models
from realtime.sources import open_source
from tests.facemesh import FaceMeshModels
from web.address import listen
from web.feed import OpenSource
from web.server import create_app
from web.studio import Studio
from web.virtualcam import VirtualCamera

Image = NDArray[np.uint8]
RATE = 20  # camera frames per second


@contextlib.contextmanager
def live_server(
    folder: Path,
    *,
    port: int = 0,
    certificate: tuple[Path, Path] | None = None,
    sessions: int = 2,
    token: str | None = None,
    mark: bool = True,
    source: str = "motion:demo",
    open_source: OpenSource = open_source,
    load: Callable[[], Models] = FaceMeshModels,
    virtual_camera: VirtualCamera | None = None,
) -> Iterator[str]:
    """The address of a server that runs in a thread, on FaceMesh models unless others are given."""
    pool = ModelPool(load)
    studio = Studio("hopper", source, sessions, mark, "", open_source, pool, virtual_camera)
    socket = listen("127.0.0.1", port)
    servers: list[uvicorn.Server] = []
    files = certificate or (None, None)

    async def run() -> None:
        app = create_app(studio, ("127.0.0.1",), token, folder)
        servers.append(
            uvicorn.Server(uvicorn.Config(app, log_level="error", ssl_certfile=files[0], ssl_keyfile=files[1]))
        )
        await servers[0].serve([socket])

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="server")
    thread.start()
    try:
        while not (servers and servers[0].started):
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http{'s' if certificate else ''}://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join()
        studio.pool.close()
        socket.close()


class Camera(MediaStreamTrack):
    """A track that shows pictures one after the other, over and over."""

    kind = "video"

    def __init__(self, pictures: list[Image]) -> None:
        super().__init__()
        self._pictures = pictures
        self._started = time.monotonic()
        self.stamps: list[int] = []

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        index = len(self.stamps)
        await asyncio.sleep(self._started + index / RATE - time.monotonic())
        frame = av.VideoFrame.from_ndarray(self._pictures[index % len(self._pictures)], "rgb24")
        # not evenly: time stamps that come back must be these, and not new ones
        frame.pts, frame.time_base = index * 90_000 // RATE + 700 * (index % 3), Fraction(1, 90_000)
        self.stamps.append(frame.pts)
        return frame


class Tone(MediaStreamTrack):
    """A microphone that hears a tone, in frames of 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._started, self._index = time.monotonic(), 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(self._started + self._index * 0.02 - time.monotonic())
        wave = (8000 * np.sin(np.arange(960) * (2 * np.pi * 440 / 48_000))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 960 * self._index, Fraction(1, 48_000)
        self._index += 1
        return frame


class Peer:
    """A page without a browser: `frames` are the results so far, `messages` what the server said."""

    def __init__(self, address: str, headers: dict[str, str] | None = None) -> None:
        self.session = ""
        self.frames: list[av.VideoFrame] = []
        self.sounds: list[av.AudioFrame] = []
        self.messages: list[dict[str, Any]] = []
        self._client = httpx.AsyncClient(base_url=address, headers=headers, trust_env=False)
        self.connection = RTCPeerConnection(RTCConfiguration([]))
        self._channel = self.connection.createDataChannel("control")
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    async def connect(
        self,
        camera: Camera | None = None,
        strip: bool = False,
        codec: str = "VP8",
        voice: MediaStreamTrack | None = None,
    ) -> httpx.Response:
        """Send an offer that would rather have a codec; the server's response to it."""
        if voice:
            self.connection.addTrack(voice)
        if camera:
            self.connection.addTrack(camera)
        else:
            self.connection.addTransceiver("video", "recvonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        self.connection.getTransceivers()[-1].setCodecPreferences([c for c in codecs if c.name == codec])
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._receive(track))))
        self._channel.on("message", self._hear)
        await self.connection.setLocalDescription(await self.connection.createOffer())
        local = self.connection.localDescription
        offer = {"sdp": local.sdp, "type": local.type, "strip": strip}
        response = await self._client.post("/offer", json=offer, timeout=30)
        if response.status_code == 200:
            answer = response.json()
            self.session = answer["session"]
            await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
            self._tasks.append(asyncio.create_task(self._ping()))
        return response

    async def _receive(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                (self.frames if track.kind == "video" else self.sounds).append(await track.recv())
                self._changed.set()

    def _hear(self, text: str) -> None:
        self.messages.append(json.loads(text))
        self._changed.set()

    async def _ping(self) -> None:
        while True:
            self.send(type="ping")
            await asyncio.sleep(0.5)

    def send(self, **message: Any) -> None:
        if self._channel.readyState == "open":
            self._channel.send(json.dumps(message))

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send a message, and wait for its answer."""
        seq = len(self.messages) + 1000
        await self.until(lambda: self._channel.readyState == "open")
        self.send(seq=seq, **message)
        await self.until(lambda: any(said.get("seq") == seq for said in self.messages))
        return next(said for said in self.messages if said.get("seq") == seq)

    async def until(self, condition: Any, timeout: float = 30) -> None:
        """Wait until something holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.1)

    async def follow(self, camera: Camera) -> int:
        """Connect, and have the camera drive the photo: the number of results so far."""
        assert (await self.connect(camera)).status_code == 200
        await self.until(lambda: len(self.frames) > 2)
        assert (await self.ask(type="source", name="camera"))["type"] == "done"
        await self.until(lambda: any(said["type"] == "stats" and said["source"] == "camera" for said in self.messages))
        return len(self.frames)

    async def upload(self, content: bytes, **query: str) -> httpx.Response:
        return await self._client.post("/photos", params={"session": self.session, **query}, content=content)

    async def fetch(self, path: str) -> httpx.Response:
        return await self._client.get(path, params={"session": self.session})

    def stats(self) -> dict[str, Any]:
        """The newest statistics."""
        return next(message for message in reversed(self.messages) if message["type"] == "stats")

    def pictures(self) -> list[Image]:
        return [frame.to_ndarray(format="rgb24") for frame in self.frames]

    async def vanish(self) -> None:
        """Fall silent without a word."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        await self.vanish()
        await self.connection.close()
        await self._client.aclose()


@contextlib.asynccontextmanager
async def peer(address: str, **headers: str) -> AsyncIterator[Peer]:
    """A peer, closed at the end."""
    made = Peer(address, headers)
    try:
        yield made
    finally:
        await made.close()
