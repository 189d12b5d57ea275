"""What several tests share: the models that ship, a face in a crop, the page in a browser, networks trained on drawn
faces. What takes long to import waits until a test asks for it."""

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle import Bundle, default_bundle
from engines.load import load_models
from realtime.alignment import cut, inverse, similarity, transform
from realtime.bench import render_clip
from realtime.landmarks import Array, five_points, heatmap_points
from realtime.photo import load_photo, portrait_path

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from playwright.sync_api import Browser, Page

    from trainer.data import Pictures
    from trainer.loop import Loop

# A shell that starts the tests in the background has Ctrl-C ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Eyes, nose and mouth corners of the embedded portrait, placed by hand.
HOPPER = np.array([[224, 193], [306, 190], [266, 236], [232, 281], [303, 277]], np.float32)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle that ships."""
    return default_bundle()


@pytest.fixture(scope="session")
def models(bundle: Bundle) -> Iterator[Any]:
    """The models that ship, on the engine and at the precision that a user of this machine gets."""
    models = load_models(None, None, bundle)
    yield models
    models.close()


@pytest.fixture(scope="session")
def portrait() -> Path:
    """The embedded portrait's file."""
    return portrait_path("hopper")


@pytest.fixture(scope="session")
def crop(portrait: Path) -> NDArray[np.uint8]:
    """The embedded portrait's aligned 256x256 crop."""
    return cut(load_photo(portrait), similarity(HOPPER))


@pytest.fixture(scope="session")
def portraits() -> dict[str, Array]:
    """The portraits' own points, (56, 2) in their aligned crops."""
    from tests.facemesh import FaceMeshModels

    models, found = FaceMeshModels(), {}
    for name in ("hopper", "collins"):
        image = load_photo(portrait_path(name))
        matrix = np.float32([[1, 0, 0], [0, 1, 0]]) * np.float32(256 / max(image.shape))
        for _ in range(3):
            points, confidence = heatmap_points(models.detect(cut(image, matrix)))
            assert confidence.min() > 0.5
            in_image = transform(points, inverse(matrix))
            matrix = similarity(five_points(in_image))
        found[name] = transform(in_image, matrix)
    models.close()
    return found


@pytest.fixture(params=["hopper", "collins"])
def photo(request: pytest.FixtureRequest, portraits: dict[str, Array]) -> Array:
    """Either portrait's points."""
    return portraits[request.param]


@pytest.fixture(scope="session")
def talking_face() -> list[NDArray[np.uint8]]:
    """A camera's view of a face that talks and sways: 40 frames."""
    from tests.facemesh import FaceMeshModels  # here, since MediaPipe takes long to import

    with closing(FaceMeshModels()) as models:
        frames = islice(render_clip(models, 40), 40)
        return [frame.image for frame in frames if frame.image is not None]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a live server with room for two."""
    from tests.webpeer import live_server

    with live_server(tmp_path_factory.mktemp("panel")) as url:
        yield url


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera's view: a face that talks, then an empty room, over and over."""
    from tests.facemesh import FaceMeshModels
    from web.bench import write_clip

    path, models = tmp_path_factory.mktemp("clip") / "camera.mjpeg", FaceMeshModels()
    frames = list(render_clip(models, 120))
    empty = dataclasses.replace(frames[0], image=np.full((480, 640, 3), 70, np.uint8))
    write_clip([*frames, *[empty] * 90], path)
    models.close()
    return path


@pytest.fixture(scope="module")
def browser(clip: Path) -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    from web.bench import FLAGS, find_browser

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=find_browser(), args=[*FLAGS, f"--use-file-for-fake-video-capture={clip}"]
        )
        yield made
        made.close()


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    """The page, open; at the end, what it printed, threw and asked others for must be nothing."""
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    made.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda asked: None if _is_ours(asked.url, address) else complaints.append(asked.url))
    made.goto(address)
    yield made
    made.close()
    assert complaints == []


def _is_ours(url: str, address: str) -> bool:
    return url.startswith((f"{address}/", "data:", f"blob:{address}/"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces, prepared."""
    from tests.drawn import write_drawn

    path = tmp_path_factory.mktemp("drawn") / "data.npz"
    write_drawn(path, stills=24, held_out_stills=6, frames=8, wander=10)
    return path


@pytest.fixture(scope="session")
def pictures(data: Path) -> "Pictures":
    from trainer.data import Pictures

    return Pictures(data)


@pytest.fixture(scope="session")
def fabric() -> "Fabric":
    from lightning.fabric import Fabric

    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture(scope="session")
def trained_detector(pictures: "Pictures", fabric: "Fabric", tmp_path_factory: pytest.TempPathFactory) -> "Loop":
    from tests.tiny import detector_task, trained
    from trainer.loop import LoopSettings

    settings = LoopSettings(steps=300, batch=6, learning_rate=4e-3, ema=0.9)
    return trained(detector_task(pictures), settings, tmp_path_factory.mktemp("detector"), fabric)


@pytest.fixture(scope="session")
def trained_generator(pictures: "Pictures", fabric: "Fabric", tmp_path_factory: pytest.TempPathFactory) -> "Loop":
    from tests.tiny import generator_task, trained
    from trainer.loop import LoopSettings

    settings = LoopSettings(steps=60, batch=8, learning_rate=3e-3, ema=0.9)
    return trained(generator_task(pictures), settings, tmp_path_factory.mktemp("generator"), fabric)
