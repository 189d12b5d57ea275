"""The hand-over between threads on the live path: one slot, where the newest item wins."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One slot between threads. A new item replaces one that nobody has taken; `dropped` counts those replaced.

    Any number of threads may put and get.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[T] = []  # none or one
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Leave an item for the next `get`; never blocks. After `close` the item is thrown away."""
        with self._changed:
            if self._closed:
                return
            self.dropped += len(self._items)
            self._items = [item]
            self._changed.notify()

    def get(self, timeout: float | None = None) -> T | None:
        """Take the newest item, waiting for one; None once the mailbox is closed.

        Raises TimeoutError when nothing came within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout):
                raise TimeoutError(f"nothing came within {timeout} s")
            return self._items.pop() if self._items else None

    def close(self) -> None:
        """Throw away a waiting item, and let every `get` return None from now on."""
        with self._changed:
            self._closed = True
            self._items = []
            self._changed.notify_all()
