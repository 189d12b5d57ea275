"""The media connection: what goes out, and what aiortc must be told so that a live picture is sharp and early."""

import asyncio
import logging
import os

import aiortc.rtcrtpreceiver
import av
from aiortc import RTCConfiguration, RTCIceServer
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from realtime.errors import InputError
from web.encoders import prepare_encoders

logging.getLogger("aiortc").setLevel(logging.ERROR)  # a lost packet is no news


class _EarlyJitterBuffer(JitterBuffer):
    """Gives a video frame away when its last packet is there, which the marker bit tells (RFC 7741, RFC 6184).

    aiortc's own waits for the next frame's first packet, which costs a frame's time.
    """

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        if not self._is_video or self._origin is None:
            return super()._remove_frame(sequence_number)
        data, timestamp = [], None
        for count in range(self.capacity):
            packet = self._packets[(self._origin + count) % self.capacity]
            if packet is None:
                return None
            if timestamp is not None and packet.timestamp != timestamp:
                self.remove(count)  # padding after a frame, or a frame whose marker never came
                return JitterFrame(b"".join(data), timestamp) if any(data) else self._remove_frame(sequence_number)
            timestamp = packet.timestamp
            data.append(packet._data)  # type: ignore[attr-defined]
            if packet.marker:
                self.remove(count + 1)
                return JitterFrame(b"".join(data), timestamp) if any(data) else self._remove_frame(sequence_number)
        return None


def prepare_aiortc() -> None:
    """Put what aiortc should use into its modules."""
    prepare_encoders()
    aiortc.rtcrtpreceiver.JitterBuffer = _EarlyJitterBuffer  # type: ignore[attr-defined]


def ice_servers() -> list[dict[str, str]]:
    """The STUN and TURN servers of the environment, as browsers take them; none unless named.

    PUPPETCAM_STUN: stun:host:port. PUPPETCAM_TURN: turn:host:port, with PUPPETCAM_TURN_USER and
    PUPPETCAM_TURN_PASSWORD. Raises InputError where these two are missing, because browsers insist.
    """
    servers = []
    if stun := os.environ.get("PUPPETCAM_STUN"):
        servers.append({"urls": stun})
    if turn := os.environ.get("PUPPETCAM_TURN"):
        user, password = (os.environ.get(f"PUPPETCAM_TURN_{name}", "") for name in ("USER", "PASSWORD"))
        if not (user and password):
            raise InputError("PUPPETCAM_TURN needs PUPPETCAM_TURN_USER and PUPPETCAM_TURN_PASSWORD beside it")
        servers.append({"urls": turn, "username": user, "credential": password})
    return servers


def configuration() -> RTCConfiguration:
    """aiortc's configuration: without any it would ask a public STUN server."""
    return RTCConfiguration([RTCIceServer(**server) for server in ice_servers()])


class ResultTrack(MediaStreamTrack):
    """The video that goes out. The newest picture wins; `dropped` counts those that the encoder never saw."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self._event_loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._newest: av.VideoFrame | None = None

    def put(self, picture: av.VideoFrame) -> None:
        """Hand over the next picture; any thread may, and none waits."""
        self._event_loop.call_soon_threadsafe(self._take, picture)

    def _take(self, picture: av.VideoFrame) -> None:
        self.dropped += self._newest is not None
        self._newest = picture
        self._ready.set()

    async def recv(self) -> av.VideoFrame:
        while self.readyState == "live":
            await self._ready.wait()
            self._ready.clear()
            if self._newest is not None:
                picture, self._newest = self._newest, None
                return picture
        raise MediaStreamError

    def stop(self) -> None:
        super().stop()
        self._ready.set()
