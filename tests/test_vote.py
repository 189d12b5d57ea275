"""The blind vote on a study's results, through a real client; and the shares."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

import run
from realtime.errors import InputError
from trainer import vote
from trainer.vote import Study, Vote, read_votes, shares, wilson, write_votes

METHODS = ["ralsgan-dlib", "lsgan-dlib", "ralsgan-unet", "ours"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's pictures: each has its own colour."""
    for pair in range(3):
        (tmp_path / "pictures" / f"{pair:02}").mkdir(parents=True)
        for number, name in enumerate(["photo", "source", *METHODS]):
            image = np.full((8, 8, 3), 40 * number + pair, np.uint8)
            cv2.imwrite(str(tmp_path / "pictures" / f"{pair:02}" / f"{name}.png"), image)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    command = [sys.executable, run.__file__, "train", "study", "--output", str(folder), "--vote", "--port", "0"]
    with subprocess.Popen([*command, "--questions", "12"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[2].rstrip(",")
            assert address.startswith("http://127.0.0.1:")
            with httpx.Client(base_url=address, trust_env=False) as client:
                yield client, process
        finally:
            process.kill()


def test_a_visit(server: tuple[httpx.Client, Any], folder: Path) -> None:
    client, process = server
    page = client.get("/").text
    assert "http" not in page.replace('content="width', "")  # it asks nobody else for anything
    begun = client.post("/visitor", json={}).json()
    key = begun["visitor"]
    assert begun["questions"] == 12
    shown = []
    for number in range(12):
        colours = {}
        for role in ("photo", "source", "left", "right"):
            answer = client.get(f"/picture/{key}/{number}/{role}")
            assert not any(name in str(answer.headers) + str(answer.url) for name in METHODS)  # blind
            colours[role] = int(cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[0, 0, 0])
        pair = colours["photo"]
        assert colours["source"] == 40 + pair
        left, right = (METHODS[(colours[side] - pair) // 40 - 2] for side in ("left", "right"))
        side = "left" if left == "ours" or right != "ours" else "right"
        answer = client.post("/vote", json={"visitor": key, "number": number, "side": side})
        assert answer.json() == {"votes": number + 1}
        shown.append((f"{pair:02}", left, right, left if side == "left" else right))
        lines = [json.loads(line) for line in (folder / "votes.jsonl").read_text().splitlines()]  # whole at any moment
        assert [(v["pair"], v["left"], v["right"], v["chosen"]) for v in lines] == shown
    assert len({couple for _, *couple, _ in map(tuple, shown) for couple in [frozenset(couple)]}) == 5  # all of them
    assert client.post("/vote", json={"visitor": key, "number": 0, "side": "left"}).status_code == 409
    assert client.get(f"/picture/{key}/12/left").status_code == 404
    assert client.post("/vote", json={"visitor": "x", "number": 0, "side": "left"}).status_code == 404
    again = client.post("/visitor", json={}).json()["visitor"]
    assert client.post("/vote", json={"visitor": again, "number": 0, "side": "up"}).status_code == 422
    rows = client.get("/shares").json()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    against = next(row for row in rows if row["method"] == "ours" and row["group"] == "ours or lsgan-dlib")
    assert against["share"] == 100
    assert 0 < against["low"] < against["high"] == 100
    assert f"| ours or lsgan-dlib | ours | {against['votes']} | 100 | {against['low']:.0f} to 100 |" in said
    assert len(read_votes(folder / "votes.jsonl")) == 12


def test_wilson() -> None:
    # 5 of 10: middle 0.5, reach z / (n + z^2) sqrt(n / 4 + z^2 / 4)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    assert wilson(0, 0) == (0, 1)


def test_shares_count_a_group_s_own_votes() -> None:
    votes = [Vote("00", "a", "b", "a", 0), Vote("00", "b", "a", "a", 0), Vote("00", "a", "c", "c", 0)]
    rows = {(row["group"], row["method"]): row for row in shares(votes, {"two": ["a", "b"], "new": ["d", "e"]})}
    assert rows["two", "a"]["votes"] == rows["two", "b"]["votes"] == 2
    assert rows["two", "a"]["share"] == 100
    assert rows["two", "b"]["share"] == 0
    assert rows["new", "d"]["share"] is None
    assert "| new | d | 0 | - | - |" in vote.shares_text(list(rows.values()))


def test_sides_and_couples_are_even(folder: Path) -> None:
    study = Study(folder, {"all": METHODS}, 600)
    questions = study.asked[study.begin(np.random.default_rng(0))]
    left = [question.left for question in questions if question]
    assert len(left) == 600
    for method in METHODS:
        count = sum(method in (q.left, q.right) for q in questions if q)
        assert count == 300  # six couples, three of them with this method
        assert left.count(method) == pytest.approx(count / 2, abs=40)


def test_votes_are_kept_and_added_to(folder: Path) -> None:
    write_votes(folder / "votes.jsonl", [Vote("00", "ours", "lsgan-dlib", "ours", 1.5)])
    study = Study(folder, {"all": METHODS}, 3)
    key = study.begin(np.random.default_rng(0))
    study.vote(key, 1, "right")
    first, second = read_votes(folder / "votes.jsonl")
    assert first.chosen == "ours"
    assert second.chosen == second.right
    assert not (folder / "votes.partial").exists()


def test_bad_studies(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "votes.jsonl").write_text('{"pair": "00"}\n')
    with pytest.raises(InputError, match=r"votes\.jsonl, line 1 is not a vote"):
        Study(folder, {"all": METHODS}, 3)
    assert run.main(["train", "study", "--vote", "--output", str(tmp_path / "none")]) == 2
    assert "has no pictures to vote on" in capsys.readouterr().err
    assert run.main(["train", "study", "--vote", "--questions", "0", "--output", str(folder)]) == 2
    assert "--questions 0 is out of range" in capsys.readouterr().err
    assert run.main(["train", "study", "--output", str(folder)]) == 2
    assert "needs --data" in capsys.readouterr().err
