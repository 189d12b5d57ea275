"""One person's live session: a peer connection, a control channel, and the performer behind them."""

import asyncio
import contextlib
import json
import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.motion import motion_names
from realtime.photo import load_photo, portrait_names
from realtime.retarget import GAINS, RetargetSettings
from web.feed import CAMERA
from web.performer import Performer
from web.studio import Studio
from web.transport import ResultTrack, configuration
from web.voice import DelayedVoice

Image = NDArray[np.uint8]
Message = dict[str, Any]

STATISTICS = 0.5  # seconds between two reports to the page
OVERLAY = 0.06  # seconds between two overlays
SILENCE = 4.0  # seconds without a word from the page, after which it is gone
ARRIVAL = 15.0  # seconds that a page has to connect
PHOTOS = 24  # of a person's own, kept in memory
WAITING = 100  # messages of the page's; more are thrown away
BACKLOG = 100_000  # bytes waiting in the control channel, above which reports are left out

_log = logging.getLogger(__name__)


class Session:
    """`open` answers an offer, `close` frees everything within seconds; in between, the page commands by JSON.

    A message is {"type": ..., "seq": n, ...}, and is answered by {"type": "done" or "error", "seq": n, ...}.
    `on_close` is called once, when everything is free.
    """

    def __init__(self, studio: Studio, on_close: Callable[["Session"], None]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.photos: dict[str, Image] = {}
        self._studio, self._on_close = studio, on_close
        self._peer = RTCPeerConnection(configuration())
        self._track, self._voice = ResultTrack(), DelayedVoice()
        self._folder = tempfile.TemporaryDirectory(prefix="puppetcam-")
        self._performer: Performer | None = None
        self._ending, self._over = threading.Lock(), False  # a performer that comes too late is closed by its maker
        self._channel: RTCDataChannel | None = None
        self._settings = RetargetSettings()
        self._overlay = False
        self._recordings: dict[str, Path] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_at = time.monotonic() + ARRIVAL - SILENCE
        self._closing: asyncio.Task[None] | None = None

    async def open(self, offer: RTCSessionDescription, strip: bool) -> RTCSessionDescription:
        """The answer to an offer. Raises InputError for an offer that is none, or a target that cannot be used."""
        self._peer.on("track", self._receive)
        self._peer.on("datachannel", self._listen)
        self._peer.on("connectionstatechange", self._watch_connection)
        try:
            await self._negotiate(offer)
            await asyncio.to_thread(self._perform, strip)
        except BaseException:
            await self.close()
            raise
        self._spawn(self._report())
        return self._peer.localDescription

    async def _negotiate(self, offer: RTCSessionDescription) -> None:
        try:
            await self._peer.setRemoteDescription(offer)
            if not any(transceiver.kind == "video" for transceiver in self._peer.getTransceivers()):
                raise InputError("the offer has no video: one video section is needed")
            self._peer.addTrack(self._track)
            if any(transceiver.kind == "audio" for transceiver in self._peer.getTransceivers()):
                self._peer.addTrack(self._voice)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except InputError:
            raise
        except Exception as error:  # aiortc's parsers raise errors of nearly any type
            raise InputError(f"the offer cannot be answered: {error}") from error

    def _perform(self, strip: bool) -> None:
        """Make the performer, on a thread that goes on when the page leaves or the server ends meanwhile."""
        performer = Performer(self._studio, self._track, load_photo(self._studio.target), strip)
        try:
            performer.follow(self._studio.source)
            with self._ending:
                if self._over:
                    raise InputError("the session is over: connect again")
                self._performer = performer
        except BaseException:
            performer.close()
            raise

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _receive(self, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            self._spawn(self._drain(track))
        else:
            self._spawn(self._hear(track))

    async def _hear(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            await self._voice.listen(track)

    async def _drain(self, track: MediaStreamTrack) -> None:
        """aiortc's queue has no bounds: everything is taken out of it, and the newest is what counts."""
        with contextlib.suppress(MediaStreamError):
            while True:
                picture = await track.recv()
                if self._performer and isinstance(picture, av.VideoFrame):
                    self._performer.feed.put_picture(picture)

    def _watch_connection(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self.shut()

    def shut(self) -> None:
        """Begin to close; `close` waits for the end."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def close(self) -> None:
        """End the connection and join every thread."""
        self.shut()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        with self._ending:
            self._over = True
        for task in self._tasks:
            task.cancel()
        await self._peer.close()
        self._track.stop()
        self._voice.stop()
        if self._performer:
            try:
                await asyncio.to_thread(self._performer.close)
            except Exception:
                _log.exception("a session's puppet stopped")
        self._folder.cleanup()
        self._on_close(self)

    def _listen(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        self._heard_at = time.monotonic()

        messages: asyncio.Queue[str | bytes] = asyncio.Queue(WAITING)

        @channel.on("message")
        def _take(text: str | bytes) -> None:
            self._heard_at = time.monotonic()
            with contextlib.suppress(asyncio.QueueFull):
                messages.put_nowait(text)

        self._spawn(self._obey(messages))

    async def _obey(self, messages: asyncio.Queue[str | bytes]) -> None:
        while True:
            await self._answer(await messages.get())

    def _send(self, message: Message) -> None:
        if self._channel and self._channel.readyState == "open":
            self._channel.send(json.dumps(message))

    async def _report(self) -> None:
        """Statistics to the page, until it is silent for too long or the puppet stops."""
        performer = self._performer
        assert performer is not None
        tick = 0
        while time.monotonic() - self._heard_at < SILENCE:
            if not performer.running:
                self._send({"type": "failed", "message": "the puppet stopped: see the server's messages"})
                break
            self._voice.delay = performer.latency
            if self._channel and self._channel.bufferedAmount < BACKLOG:
                if self._overlay:
                    self._send({"type": "overlay", **performer.overlay()})
                if tick % round(STATISTICS / OVERLAY) == 0:
                    self._send({"type": "stats", **performer.figures()})
            tick += 1
            await asyncio.sleep(OVERLAY)
        self.shut()

    async def _answer(self, text: str | bytes) -> None:
        message: Message = {}
        try:
            parsed = json.loads(text)
            if not isinstance(parsed, dict) or not isinstance(parsed.get("type"), str):
                raise InputError("a message must be a JSON object with a type")
            message = parsed
            handler = self._HANDLERS.get(message["type"])
            if handler is None:
                raise InputError(f"there is no message {message['type']!r}")
            reply = await handler(self, message)
        except InputError as error:
            self._send({"type": "error", "seq": message.get("seq"), "message": str(error)})
        except (ValueError, TypeError, KeyError) as error:
            said = f"the message cannot be understood: {error}"
            self._send({"type": "error", "seq": message.get("seq"), "message": said})
        except Exception as error:  # an engine's, say: the next message may fare better
            _log.exception("a page's wish could not be met")
            self._send({"type": "error", "seq": message.get("seq"), "message": f"the server failed: {error}"})
        else:
            if "seq" in message:
                self._send({"type": "done", "seq": message["seq"], **(reply or {})})

    @property
    def _at_work(self) -> Performer:
        if self._performer is None:
            raise InputError("the puppet is not ready yet")
        return self._performer

    async def _ping(self, _: Message) -> None:
        """The page is there."""

    async def _calibrate(self, _: Message) -> None:
        await asyncio.wrap_future(self._at_work.call(lambda puppet: puppet.retargeter.calibrate()))

    async def _set_settings(self, message: Message) -> None:
        """motion, reference, gains, smoothing, mirror and overlay; what is absent stays."""
        names = ("motion", "reference", "smoothing", *GAINS)
        settings = replace(self._settings, **{name: message[name] for name in names if name in message})
        self._settings = settings
        self._overlay = bool(message.get("overlay", self._overlay))
        mirror = bool(message.get("mirror", self._at_work.feed.mirror))
        turned, self._at_work.feed.mirror = mirror != self._at_work.feed.mirror, mirror

        def take(puppet: Any) -> None:
            puppet.retargeter.set_settings(settings)
            if turned:
                puppet.retargeter.calibrate()

        await asyncio.wrap_future(self._at_work.call(take))

    async def _set_photo(self, message: Message) -> None:
        name = message["id"]
        if name in self.photos:
            photo = self.photos[name]
        elif name in portrait_names():
            photo = await asyncio.to_thread(load_photo, name)
        else:
            raise InputError("there is no such photo: upload it again")
        try:
            await asyncio.wrap_future(self._at_work.set_photo(photo))
        except InputError:
            self.photos.pop(name, None)
            raise

    async def _set_size(self, message: Message) -> None:
        self._at_work.warning = ""
        await asyncio.wrap_future(self._at_work.set_size(message["size"]))

    async def _set_source(self, message: Message) -> None:
        name = message["name"]
        if name not in (CAMERA, self._studio.source, *(f"motion:{motion}" for motion in motion_names())):
            raise InputError(f"there is no source {name!r}")
        await asyncio.to_thread(self._at_work.follow, name)

    async def _record(self, message: Message) -> Message:
        if message["on"]:
            self._at_work.record(Path(self._folder.name) / f"{secrets.token_hex(8)}.mp4")
            return {}
        path = await asyncio.to_thread(self._at_work.finish_recording)
        self._recordings[path.stem] = path
        return {"recording": path.stem}

    def recording(self, name: str) -> Path | None:
        """A finished recording's file, once; whoever asks for it removes it."""
        return self._recordings.pop(name, None)

    def add_photo(self, photo: Image) -> str:
        """Keep a person's photo for this session: its name."""
        if len(self.photos) >= PHOTOS:
            self.photos.pop(next(iter(self.photos)))
        name = secrets.token_hex(8)
        self.photos[name] = photo
        return name

    _HANDLERS = {  # noqa: RUF012 # a table, never changed
        "ping": _ping,
        "calibrate": _calibrate,
        "settings": _set_settings,
        "photo": _set_photo,
        "size": _set_size,
        "source": _set_source,
        "record": _record,
    }
