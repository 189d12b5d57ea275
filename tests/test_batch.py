"""Sessions that share models: who shares, whose errors are whose, the end, and the live page with two people."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

import run
from engines.bundle import default_bundle
from engines.torch import Models
from realtime.batch import Batcher
from realtime.errors import InputError
from realtime.photo import load_photo
from realtime.pool import ModelPool
from realtime.puppet import Puppet
from realtime.sources import Frame, open_source
from tests.facemesh import FaceMeshModels
from tests.webpeer import Peer, peer

Image = NDArray[np.uint8]
ROOT = Path(run.__file__).parent


def on_processor() -> Models:
    return Models(default_bundle(), device="cpu", threads=1)


class OnCard(Models):
    """What these models are where there is a card, as far as a pool knows."""

    gpu = True  # type: ignore[assignment]


def on_card() -> Models:
    return OnCard(default_bundle(), device="cpu", threads=1)


def batch_threads() -> int:
    return sum(thread.name == "batches" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("load", "batch", "shared"),
    [
        (on_processor, None, False),  # a batch takes as long as its frames one by one
        (on_processor, True, True),
        (on_card, None, True),
        (on_card, False, False),
        (FaceMeshModels, None, False),  # one frame at a time
    ],
)
def test_sessions_share_where_it_serves_more_of_them(load: type[Models], batch: bool | None, shared: bool) -> None:
    loaded = 0

    def counted() -> Models:
        nonlocal loaded
        loaded += 1
        return load()

    with closing(ModelPool(counted, batch)) as pool:
        with pool.lend() as first, pool.lend() as second:
            assert first is not second
            assert loaded == (1 if shared else 2)
            assert batch_threads() == int(shared)
        with pool.lend():
            assert loaded == (1 if shared else 2)  # they are kept
    assert batch_threads() == 0


def test_models_that_take_one_frame_are_not_shared() -> None:
    with (
        closing(ModelPool(FaceMeshModels, batch=True)) as pool,
        pytest.raises(InputError, match="facemesh takes one frame at a time"),
    ):
        pool.take()


def test_an_error_is_its_sessions_alone(crop: Image) -> None:
    mirrored = np.ascontiguousarray(crop[:, ::-1])
    with closing(Batcher(on_processor())) as batcher:
        answers = [batcher.ask("detect", picture) for picture in (crop, crop[:8], mirrored)]
        batcher.start()  # which finds them all waiting, and takes them in one batch
        assert isinstance(answers[1].exception(), (RuntimeError, ValueError))
        for answer, picture in ((answers[0], crop), (answers[2], mirrored)):
            assert answer.result() == pytest.approx(batcher.models.detect(picture), abs=1e-4)


def test_nobody_waits_for_models_that_are_closed(crop: Image) -> None:
    batcher = Batcher(on_processor())
    asked = [batcher.ask("detect", crop) for _ in range(10)]  # more than one batch
    batcher.start()
    batcher.close()
    assert all(answer.result().shape == (56, 64, 64) for answer in asked)
    with pytest.raises(RuntimeError, match="the models are closed"):
        batcher.ask("detect", crop).result(timeout=10)
    assert batch_threads() == 0


def test_models_that_were_never_started_close(crop: Image) -> None:
    batcher = Batcher(on_processor())
    asked = batcher.ask("detect", crop)
    batcher.close()
    assert asked.result(timeout=10).shape == (56, 64, 64)


class Forgetful(Models):
    """Answer all but the last of what they are asked."""

    def detect_many(self, calls: list[tuple[Image]]) -> list[NDArray[np.float32]]:
        return super().detect_many(calls)[:-1]


def test_an_answer_too_few_is_an_error_and_no_end(crop: Image) -> None:
    with closing(Batcher(Forgetful(default_bundle(), device="cpu", threads=1))) as batcher:
        asked = [batcher.ask("detect", crop) for _ in range(2)]
        batcher.start()
        assert all(isinstance(answer.exception(timeout=30), ValueError) for answer in asked)
        heatmaps = batcher.models.detect(crop)
        assert batcher.ask("encode_target", crop, heatmaps).exception(timeout=30) is None


class Counted(Models):
    """Know how often they were closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.mark.parametrize("batch", [False, True])
def test_a_pool_that_is_closed_stays_so(batch: bool) -> None:
    made: list[Counted] = []

    def load() -> Counted:
        made.append(Counted(default_bundle(), device="cpu", threads=1))
        return made[-1]

    pool = ModelPool(load, batch)
    kept, lent = pool.take(), pool.take()
    pool.give(kept)
    pool.close()
    assert [models.closed for models in made] == ([1] if batch else [1, 0])
    pool.give(lent)
    pool.close()
    assert [models.closed for models in made] == ([1] if batch else [1, 1])
    with pytest.raises(RuntimeError, match="the models are closed"):
        pool.take()
    assert len(made) == (1 if batch else 2)


def test_puppets_that_share_models_move_as_they_do_alone() -> None:
    def moved(pool: ModelPool, name: str, wait: Callable[[], object]) -> list[Image]:
        def animated(frame: Frame) -> Image:
            wait()
            return puppet.animate(frame).image

        with (
            pool.lend() as models,
            closing(Puppet(models, load_photo(name))) as puppet,
            closing(open_source("motion:demo")) as source,
        ):
            return [animated(frame) for frame in islice(source, 0, 40, 10)]

    names = ["hopper", "collins", "hopper", "collins"]
    with closing(ModelPool(on_processor)) as pool:
        alone = {name: moved(pool, name, lambda: None) for name in set(names)}
    assert np.abs(alone["hopper"][0].astype(int) - alone["hopper"][-1]).mean() > 0.5
    abreast = threading.Barrier(len(names), timeout=60)  # while one's frame is worked on, the others' come together
    with closing(ModelPool(on_processor, batch=True)) as pool, ThreadPoolExecutor(len(names)) as people:
        together = list(people.map(lambda name: moved(pool, name, abreast.wait), names))
        assert pool.batcher is not None
        assert pool.batcher.largest > 1
    for name, pictures in zip(names, together, strict=True):
        for ours, theirs in zip(pictures, alone[name], strict=True):
            assert np.abs(ours.astype(int) - theirs).mean() < 0.1  # a batch is summed in another order: edges differ


def test_the_page_refuses_to_share_what_takes_one_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["live", "--port=0", "--batch", "--engine=openvino"]) == 2
    assert "the engine openvino takes one frame at a time: --batch is for --engine torch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--web", "--sessions=2"], "--web measures the page of one person"),
        (["--web", "--batch"], "--web measures the page of one person"),
        (["--no-batch"], "--no-batch is about --sessions"),
    ],
)
def test_a_benchmark_ignores_no_option(options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["bench", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_the_page_ends_when_it_cannot_begin_with_models_that_are_shared(tmp_path: Path) -> None:
    Pillow.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    options = ["--engine=torch", "--device=cpu", "--threads=1", "--batch", "--port=0", "--target"]
    command = [sys.executable, "run.py", "live", *options, str(tmp_path / "grey.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "the photo shows no face" in done.stderr
    assert "Traceback" not in done.stderr


def _shows(made: Peer, name: str) -> bool:
    """Whether a peer's last result is nearer to a portrait than to the others."""
    picture = made.pictures()[-1]

    def distance(portrait: str) -> float:
        small = Pillow.fromarray(load_photo(portrait)).resize((picture.shape[1], picture.shape[0]))
        return float(np.abs(np.asarray(small, int) - picture).mean())

    return min(("hopper", "collins"), key=distance) == name


def test_two_people_at_one_set_of_models() -> None:
    """One takes another photo and leaves; the other's goes on, until the server is ended under it."""

    async def scene(address: str) -> None:
        async with peer(address) as stays:
            async with peer(address) as leaves:
                assert (await stays.connect()).status_code == 200
                assert (await leaves.connect()).status_code == 200
                assert (await leaves.ask(type="photo", id="collins"))["type"] == "done"
                before = len(stays.frames), len(leaves.frames)
                await stays.until(lambda: len(stays.frames) > before[0] + 5)
                await leaves.until(lambda: len(leaves.frames) > before[1] + 5)
                assert _shows(stays, "hopper")
                assert _shows(leaves, "collins")
            before = len(stays.frames), 0
            await stays.until(lambda: len(stays.frames) > before[0] + 5)
            server.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(server.wait, 30) == 130

    options = ["--engine=torch", "--device=cpu", "--threads=1", "--batch", "--port=0"]
    command = [sys.executable, "run.py", "live", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stderr is not None
            address = server.stdout.readline().split()[3]
            assert "share one set of models" in server.stdout.readline()
            asyncio.run(scene(address))
            assert "Traceback" not in server.stderr.read()
        finally:
            server.kill()
