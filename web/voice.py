"""The microphone, sent back as late as the result, so that lips and voice stay together."""

import asyncio
import time
from collections import deque
from typing import Any

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

LONGEST = 2.0  # seconds of sound that may wait; more is thrown away


class DelayedVoice(MediaStreamTrack):
    """An audio track that gives each frame of another one `delay` seconds after it came, with its own time stamp.

    `listen` takes frames as they come, because aiortc's queue has no bounds. The delay is the time that a picture
    spends in the server; the ways there and back are the same, and browsers lay sound and picture together.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0
        self._heard: deque[tuple[float, Any]] = deque()
        self._came = asyncio.Event()

    async def listen(self, track: MediaStreamTrack) -> None:
        """Take in a track's frames until it ends."""
        while True:
            frame = await track.recv()
            now = time.monotonic()
            self._heard.append((now, frame))
            while self._heard[0][0] < now - LONGEST:
                self._heard.popleft()
            self._came.set()

    async def recv(self) -> Any:
        while self.readyState == "live":
            if not self._heard:
                self._came.clear()
                await self._came.wait()
                continue
            came_at, frame = self._heard[0]
            left = came_at + min(self.delay, LONGEST / 2) - time.monotonic()
            if left <= 0:
                self._heard.popleft()
                return frame
            await asyncio.sleep(left)
        raise MediaStreamError

    def stop(self) -> None:
        super().stop()
        self._came.set()
