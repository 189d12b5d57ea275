"""Frames of several sessions in one call: what waits while the models work goes with the next batch.

Nobody waits for company: a frame that comes alone goes alone.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

from realtime.landmarks import Array
from realtime.puppet import Image, Models

MOST = 8  # frames in a batch
Request = tuple[str, tuple[Any, ...], "Future[Any]"]  # a method's name, its arguments, and its answer


@runtime_checkable
class BatchModels(Models, Protocol):
    """Models that take several frames in one call. Each call is the tuple of arguments of the method of one frame.

    Results are the caller's: no later call overwrites them.
    """

    @property
    def gpu(self) -> bool:
        """Whether a GPU runs them: it takes hardly longer for a batch than for a frame, a processor does."""

    def detect_many(self, calls: list[tuple[Image]]) -> list[Array]: ...

    def generate_many(self, calls: list[tuple[Array, Array, Any]]) -> list[tuple[Array, Array, Array]]: ...


class Batcher:
    """Owns models on a thread of its own, for the sessions that `session` gives models of their own, so they think.

    Any thread may use it. An error reaches the session alone whose frame it comes of.
    """

    def __init__(self, models: BatchModels) -> None:
        self.models = models
        self.largest = 0  # batch that there was
        self._many: dict[str, Callable[[list[Any]], list[Any]]] = {
            "detect": models.detect_many,
            "generate": models.generate_many,
            "encode_target": lambda calls: [models.encode_target(*call) for call in calls],
        }
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="batches")

    def start(self) -> None:
        self._worker.start()

    def session(self) -> "Session":
        """Models for one session, on a thread of its own."""
        return Session(self)

    def ask(self, method: str, *arguments: Any) -> "Future[Any]":
        """What a method will give. Raises RuntimeError once the batcher is closed."""
        answer: Future[Any] = Future()
        with self._lock:  # nothing comes into the queue after its end, where it would wait for ever
            if self._closed:
                raise RuntimeError("the models are closed")
            self._requests.put((method, arguments, answer))
        return answer

    def close(self) -> None:
        """End the thread once all that was asked is answered, and close the models."""
        with self._lock:
            self._closed = True
            self._requests.put(None)
        if self._worker.ident is None:  # never started: who has asked waits all the same
            self._worker.start()
        self._worker.join()
        self.models.close()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            waiting: list[Request] = [request]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < MOST and (request := self._requests.get_nowait()) is not None:
                    waiting.append(request)
            for method, many in self._many.items():
                if same := [one for one in waiting if one[0] == method]:
                    self._answer(many, same)
            if request is None:
                return

    def _answer(self, many: Callable[[list[Any]], list[Any]], requests: list[Request]) -> None:
        try:
            results = many([arguments for _, arguments, _ in requests])
            answered = list(zip(requests, results, strict=True))
        except Exception as error:
            if len(requests) == 1:
                requests[0][2].set_exception(error)
            else:
                for request in requests:  # alone, whoever is not at fault is served
                    self._answer(many, [request])
        else:
            self.largest = max(self.largest, len(requests))
            for (_, _, answer), result in answered:
                answer.set_result(result)


class Session:
    """Models as the Models protocol has them, shared with other sessions."""

    def __init__(self, batcher: Batcher) -> None:
        self._ask = batcher.ask
        models = batcher.models
        self.engine, self.precision, self.device = models.engine, models.precision, models.device

    def detect(self, crop: Image) -> Array:
        heatmaps: Array = self._ask("detect", crop).result()
        return heatmaps

    def encode_target(self, crop: Image, heatmaps: Array) -> Any:
        return self._ask("encode_target", crop, heatmaps).result()

    def generate(self, driving: Array, prior: Array, features: Any) -> tuple[Array, Array, Array]:
        moved: tuple[Array, Array, Array] = self._ask("generate", driving, prior, features).result()
        return moved

    def close(self) -> None: ...
