"""What several tests share: the models that ship, and a face in a crop."""

import signal
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.bundle import Bundle, default_bundle
from engines.load import load_models
from realtime.alignment import cut, inverse, similarity, transform
from realtime.bench import render_clip
from realtime.landmarks import Array, five_points, heatmap_points
from realtime.photo import load_photo, portrait_path

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
