"""Models for several sessions: each its own, or one set for all of them, which takes their frames in batches."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from realtime.batch import Batcher, BatchModels
from realtime.errors import InputError
from realtime.puppet import Models


class ModelPool:
    """Lends models that `load` makes when they are asked for. Any thread may use it.

    batch: whether all who ask share one set; None has them share where that serves more of them, which is where the
    models take batches and a GPU runs them. Without batches everyone has a set alone, kept for the next who asks.
    """

    def __init__(self, load: Callable[[], Models], batch: bool | None = None) -> None:
        self.batcher: Batcher | None = None  # once models are there, if they are shared
        self.runs = ""  # engine, precision and device, once models are there
        self._load, self._batch = load, batch
        self._lock = threading.Lock()
        self._closed = False
        self._free: list[Models] = []

    def take(self) -> Models:
        """Models for one owner. Raises InputError where models are to be shared that take one frame at a time, and
        RuntimeError once the pool is closed."""
        with self._lock:  # also while they load: the first ones may be everybody's
            if self._closed:
                raise RuntimeError("the models are closed")
            if self.batcher is None and not self._free:
                self._add(self._load())
            return self.batcher.session() if self.batcher else self._free.pop()

    def give(self, models: Models) -> None:
        """Take models back from an owner that has finished with them."""
        with self._lock:
            if self._closed:
                models.close()
            elif self.batcher is None:
                self._free.append(models)

    @contextmanager
    def lend(self) -> Iterator[Models]:
        """`take`, and `give` in the end."""
        models = self.take()
        try:
            yield models
        finally:
            self.give(models)

    def close(self) -> None:
        """Close the models, for good. Who still has shared ones gets an error from them; others' close when they are
        given back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self.batcher:
                self.batcher.close()
            while self._free:
                self._free.pop().close()

    def _add(self, models: Models) -> None:
        self.runs = f"{models.engine}, {models.precision}, on {models.device}"
        if isinstance(models, BatchModels) and (models.gpu if self._batch is None else self._batch):
            self.batcher = Batcher(models)
            self.batcher.start()
        elif self._batch:
            models.close()
            raise InputError(f"the engine {models.engine} takes one frame at a time: --batch is for --engine torch")
        else:
            self._free.append(models)
