"""The live loop: a capture thread, one that sees the face, and one that draws the photo. The newest frame wins.

The next frame's face is looked for while the last one is drawn: two cores with a model each do more than both of them
with one model after the other, where one core waits for the other many times in every frame.
"""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from realtime.mailbox import Mailbox
from realtime.puppet import Puppet, Result, Sight
from realtime.sources import Frame, Source

T = TypeVar("T")
Sink = Callable[[Frame, Result], None]

WAIT = 0.05  # seconds without a frame after which a thread looks for requests, or for the end


class Loop:
    """Drives a puppet from a source until the source ends or `stop`. Closes the source, but not the puppet.

    A source that is not live is played at its own pace. `sink` is called on the thread that draws, and must not block.
    What goes wrong in a thread stops all; `join` raises it.
    """

    def __init__(self, source: Source, puppet: Puppet, sink: Sink) -> None:
        self._source, self._puppet, self._sink = source, puppet, sink
        self._frames: Mailbox[Frame] = Mailbox()
        self._sights: Mailbox[Sight] = Mailbox()
        self._requests: queue.SimpleQueue[tuple[Callable[[Puppet], Any], Future[Any]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._capture = threading.Thread(target=self._guarded, args=(self._fetch,), name="capture")
        self._eyes = threading.Thread(target=self._guarded, args=(self._look,), name="eyes")
        self._worker = threading.Thread(target=self._guarded, args=(self._work,), name="models")

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before the models were free."""
        return self._frames.dropped + self._sights.dropped

    @property
    def _threads(self) -> tuple[threading.Thread, ...]:
        return self._capture, self._eyes, self._worker

    @property
    def running(self) -> bool:
        return self._worker.is_alive()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def call(self, request: Callable[[Puppet], T]) -> Future[T]:
        """Have the worker do something with the puppet between two frames: set a photo, calibrate.

        The future is cancelled when the loop ends first.
        """
        future: Future[T] = Future()
        self._requests.put((request, future))
        if not self.running:
            self._cancel_requests()
        return future

    def stop(self) -> None:
        """End the threads, soon; any thread may call it."""
        self._stopping.set()
        self._frames.close()
        self._sights.close()
        if self._source.live:
            self._source.close()  # wakes a capture thread that waits for a camera

    def join(self, timeout: float | None = None) -> None:
        """Wait until all threads have ended, and raise what ended them; TimeoutError if they run on."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"the {thread.name} thread runs on after {timeout} s")
        if self._error is not None:
            raise self._error

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # handed to the owner
            self._error = self._error or error
            self.stop()

    def _fetch(self) -> None:
        with contextlib.closing(self._source):
            started: float | None = None
            for frame in self._source:
                if not self._source.live:
                    due = float(frame.pts * frame.time_base)
                    started = time.monotonic() - due if started is None else started
                    self._stopping.wait(started + due - time.monotonic())
                    frame = dataclasses.replace(frame, captured_at=time.monotonic())
                if self._stopping.is_set():
                    return
                self._frames.put(frame)

    def _look(self) -> None:
        for frame in self._newest(self._frames, self._capture):
            if frame is not None:
                self._sights.put(self._puppet.see(frame))

    def _work(self) -> None:
        try:
            for sight in self._newest(self._sights, self._eyes):
                self._answer_requests()
                if sight is not None:
                    self._sink(sight.frame, self._puppet.show(sight))
        finally:
            self._cancel_requests()

    def _newest(self, mailbox: Mailbox[T], filler: threading.Thread) -> Iterator[T | None]:
        """What comes into a mailbox, None when nothing does for a while, until its filler has ended, or all stop."""
        while not self._stopping.is_set():
            ended = not filler.is_alive()  # asked first: a last item may come in between
            try:
                yield mailbox.get(WAIT)
            except TimeoutError:
                if ended:
                    return
                yield None

    def _answer_requests(self) -> None:
        while not self._requests.empty():
            request, future = self._requests.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(request(self._puppet))
            except BaseException as error:  # the caller's to handle, and no reason to stop
                future.set_exception(error)

    def _cancel_requests(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._requests.get_nowait()[1].cancel()
