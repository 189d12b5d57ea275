"""One slot between threads: the newest wins, and every item is taken, waiting or counted as dropped."""

import threading
import time

import pytest

from realtime.mailbox import Mailbox


def test_newest_item_wins_and_the_others_are_counted() -> None:
    mailbox = Mailbox[int]()
    for item in range(5):
        mailbox.put(item)
    assert mailbox.get() == 4
    assert mailbox.dropped == 4


def test_get_waits_for_an_item_of_another_thread() -> None:
    mailbox = Mailbox[str]()
    thread = threading.Timer(0.05, mailbox.put, ["late"])
    thread.start()
    assert mailbox.get(timeout=10) == "late"
    thread.join()


def test_get_gives_up_after_its_timeout_and_leaves_the_mailbox_usable() -> None:
    mailbox = Mailbox[int]()
    with pytest.raises(TimeoutError):
        mailbox.get(timeout=0.01)
    mailbox.put(1)
    assert mailbox.get(timeout=0) == 1


def test_close_wakes_everyone_who_waits_and_throws_away_what_comes_later() -> None:
    mailbox = Mailbox[int]()
    got: list[int | None] = []
    threads = [threading.Thread(target=lambda: got.append(mailbox.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    mailbox.close()
    for thread in threads:
        thread.join(timeout=10)
    mailbox.put(1)
    assert got == [None, None, None]
    assert mailbox.get() is None


def test_a_slow_taker_gets_ever_newer_items_and_no_item_goes_uncounted() -> None:
    mailbox, count = Mailbox[int](), 20_000
    taken: list[int] = []

    def take() -> None:
        while (item := mailbox.get()) is not None:
            taken.append(item)
            time.sleep(0.0005)

    taker = threading.Thread(target=take)
    taker.start()
    for item in range(count):
        mailbox.put(item)
    while not taken or taken[-1] != count - 1:
        time.sleep(0.001)
    mailbox.close()
    taker.join()
    assert taken == sorted(set(taken))
    assert len(taken) + mailbox.dropped == count
    assert mailbox.dropped > 0
