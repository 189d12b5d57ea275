"""A blind user study (thesis 5.6): two results of one photo and one source side by side, and which looks more real.

People see no names: pairs come in random order and on random sides, and pictures by their number. Votes are kept as
JSON lines, one a vote, written anew and moved into place each time.
"""

import json
import math
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse

from realtime.errors import InputError

# The rows of table 6.2, study by study, and the configurations they are of; two are each a row of two studies.
STUDIES = {
    "Landmark detectors": {"dlib": "ralsgan-dlib", "U-Net": "ralsgan-unet"},
    "GAN losses": {"RaLSGAN": "ralsgan-dlib", "LSGAN": "lsgan-dlib", "RaGAN": "ragan-dlib", "WGAN-GP": "wgan-dlib"},
    "Landmark penalization": {"discriminator": "ralsgan-unet", "loss": "ralsgan-unet-loss"},
}
OURS = "ours"

PAGE = Path(__file__).parent / "vote.html"
SIDES = ("left", "right")
Z = 1.959964  # standard normal quantile of a 95 % interval


@dataclass(frozen=True)
class Question:
    """Two methods' results for one pair of pictures, a folder's name."""

    pair: str
    left: str
    right: str


@dataclass(frozen=True)
class Vote:
    """Who of two methods was chosen for a pair of pictures, and when, in seconds since 1970."""

    pair: str
    left: str
    right: str
    chosen: str
    at: float


def wilson(wins: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); (0, 1) where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    share, spread = wins / count, Z * Z / count
    middle = (share + spread / 2) / (1 + spread)
    reach = Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def read_votes(path: Path) -> list[Vote]:
    """The votes of a JSON-lines file, none if it is not there. Raises InputError, naming the line that is not one."""
    votes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            votes.append(Vote(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number} is not a vote: {line[:60]}") from error
    return votes


def write_votes(path: Path, votes: list[Vote]) -> None:
    """All votes, or on a crash all earlier ones."""
    temporary = path.with_suffix(".partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(vote)) + "\n" for vote in votes)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


Groups = dict[str, list[str]]  # title -> methods that are compared with one another


def shares(votes: list[Vote], groups: Groups) -> list[dict[str, Any]]:
    """Of each group the methods' wins among its own votes: share and 95 % interval, in %."""
    rows = []
    for title, methods in groups.items():
        own = [vote for vote in votes if {vote.left, vote.right} <= set(methods)]
        for method in methods:
            count = sum(method in (vote.left, vote.right) for vote in own)
            wins = sum(method == vote.chosen for vote in own)
            low, high = (100 * end for end in wilson(wins, count))
            share = 100 * wins / count if count else None
            rows.append({"group": title, "method": method, "votes": count, "share": share, "low": low, "high": high})
    return rows


def shares_text(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of `shares`."""
    lines = ["| | | votes | chosen % | 95 % interval |", "|---|---|---|---|---|"]
    for row in rows:
        share = "-" if row["share"] is None else f"{row['share']:.0f}"
        between = "-" if row["share"] is None else f"{row['low']:.0f} to {row['high']:.0f}"
        lines.append(f"| {row['group']} | {row['method']} | {row['votes']} | {share} | {between} |")
    return "\n".join(lines)


def _rounds(things: list[Any], count: int, rng: np.random.Generator) -> list[Any]:
    """So many things: all of them in a random order, again and again."""
    rounds = [things[i] for _ in range(1 + count // len(things)) for i in rng.permutation(len(things))]
    return rounds[:count]


def comparisons() -> Groups:
    """The thesis's three comparisons, and each of its models against the generator that ships."""
    groups = {title: list(rows.values()) for title, rows in STUDIES.items()}
    models = dict.fromkeys(name for names in groups.values() for name in names)
    return groups | {f"{OURS} or {name}": [OURS, name] for name in models}


class Study:
    """The pictures of a study's folder, what is asked about them, and the votes.

    Raises InputError if the folder holds no two methods' pictures.
    """

    def __init__(self, folder: Path, groups: Groups, count: int) -> None:
        self.pictures, self.file, self.count = folder / "pictures", folder / "votes.jsonl", count
        self.pairs = sorted(path.name for path in self.pictures.glob("*") if path.is_dir())
        found = [{path.stem for path in (self.pictures / pair).glob("*.png")} for pair in self.pairs]
        methods = set.intersection(*found) - {"photo", "source"} if found else set()
        self.groups = {title: [m for m in own if m in methods] for title, own in groups.items()}
        self.couples = sorted({couple for own in self.groups.values() for couple in combinations(own, 2)})
        if not self.couples:
            raise InputError(f"{folder} has no pictures to vote on: `run.py train study` makes them")
        self.votes = read_votes(self.file)
        self.lock = threading.Lock()
        self.asked: dict[str, list[Question | None]] = {}  # of each visitor; None where answered

    def begin(self, rng: np.random.Generator) -> str:
        """A visitor's key. Every couple of methods comes as often as the others, to within one."""
        couples = _rounds(self.couples, self.count, rng)
        pairs = _rounds(self.pairs, self.count, rng)
        questions: list[Question | None] = []
        for couple, pair in zip(couples, pairs, strict=True):
            left, right = couple if rng.random() < 0.5 else couple[::-1]
            questions.append(Question(pair, left, right))
        key = secrets.token_urlsafe(9)
        self.asked[key] = questions
        return key

    def question(self, key: str, number: int) -> Question:
        questions = self.asked.get(key)
        if questions is None or not 0 <= number < len(questions):
            raise HTTPException(404, "no such question: reload the page")
        question = questions[number]
        if question is None:
            raise HTTPException(409, "that question is answered")
        return question

    def vote(self, key: str, number: int, side: str) -> None:
        with self.lock:
            question = self.question(key, number)
            chosen = question.left if side == "left" else question.right
            vote = Vote(question.pair, question.left, question.right, chosen, round(time.time(), 1))
            write_votes(self.file, [*self.votes, vote])
            self.votes.append(vote)
            self.asked[key][number] = None


def create_app(study: Study, rng: np.random.Generator) -> FastAPI:
    """The page and its four addresses."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @app.post("/visitor")
    def visitor() -> dict[str, Any]:
        with study.lock:
            key = study.begin(rng)
        return {"visitor": key, "questions": len(study.asked[key])}

    @app.get("/picture/{key}/{number}/{role}")
    def picture(key: str, number: int, role: str) -> FileResponse:
        question = study.question(key, number)
        names = {"photo": "photo", "source": "source", "left": question.left, "right": question.right}
        if role not in names:
            raise HTTPException(404, "no such picture")
        file = study.pictures / question.pair / f"{names[role]}.png"
        return FileResponse(file, media_type="image/png", filename=f"{role}.png", content_disposition_type="inline")

    @app.post("/vote")
    def vote(
        visitor: Annotated[str, Body()], number: Annotated[int, Body()], side: Annotated[str, Body()]
    ) -> dict[str, int]:
        if side not in SIDES:
            raise HTTPException(422, f"side should be left or right, not {side}")
        study.vote(visitor, number, side)
        return {"votes": len(study.votes)}

    @app.get("/shares")
    def counted() -> list[dict[str, Any]]:
        return shares(study.votes, study.groups)

    return app


def serve(study: Study, port: int, seed: int | None = None) -> None:
    """Serve the page on this machine alone until Ctrl-C; prints its address, and at the end the shares.

    Raises InputError if the port is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen()
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port} cannot be used: {error}") from error
        print(f"vote at http://127.0.0.1:{listening.getsockname()[1]}/, end with Ctrl-C", flush=True)
        config = uvicorn.Config(create_app(study, np.random.default_rng(seed)), log_level="warning")
        try:
            uvicorn.Server(config).run([listening])
        except KeyboardInterrupt:
            pass  # the way it ends
        finally:
            print(shares_text(shares(study.votes, study.groups)), flush=True)
