"""What all sessions share: the operator's choices, and the models, which one session at a time owns."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from realtime.puppet import Models
from web.feed import OpenSource
from web.virtualcam import VirtualCamera

LoadModels = Callable[[], Models]


@dataclass(frozen=True)
class Studio:
    """target: the photo a session begins with, a path or a portrait's name; source: what drives it until the browser's
    camera does; sessions: how many people at once; mark: whether results carry the word "synthetic"; asked: the engine
    and precision the operator asked for, empty for the best; virtual_camera: where the first person's result goes, too.
    """

    target: str
    source: str
    sessions: int
    mark: bool
    asked: str
    open_source: OpenSource
    pool: "ModelPool"
    virtual_camera: VirtualCamera | None = None


class ModelPool:
    """Models, loaded when they are asked for and kept for the next who asks. Any thread may use it."""

    def __init__(self, load: LoadModels) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._free: list[Models] = []

    def take(self) -> Models:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self._load()

    def give(self, models: Models) -> None:
        """Take models back from an owner that has finished with them."""
        with self._lock:
            self._free.append(models)

    def close(self) -> None:
        with self._lock:
            while self._free:
                self._free.pop().close()
