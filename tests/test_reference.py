"""The neutral of a recording: looked for in all of it before it is played."""

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import run
from engines.bundle import default_bundle
from engines.load import load_models
from realtime.motion import load_motion
from realtime.photo import load_photo
from realtime.pool import ModelPool
from realtime.puppet import Models, Puppet
from realtime.retarget import RetargetSettings
from realtime.sources import Frame, open_source
from realtime.video import find_neutral
from tests.clips import RATE, pictures_of, portrait, swatch, write_clip
from web.panel import _run_video
from web.studio import Studio

FOUND = r"the neutral is the frame at 0\.(20|24|28|32) s, the one most like the photo"


@pytest.fixture(scope="module")
def smiles(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of somebody who smiles, does not for four frames from 0.2 s on, and smiles again."""
    smile, rest = load_motion("smiling").points[[35, 0]]
    with closing(Puppet(models, portrait(), RetargetSettings(smoothing=0))) as puppet:
        puppet.retargeter.calibrate(rest)
        asked = [smile] * 5 + [rest] * 4 + [smile] * 3
        frames = [Frame(None, points, 25 * index, 1 / RATE, 0.0, index) for index, points in enumerate(asked)]
        images = [puppet.animate(frame).image for frame in frames]
    return write_clip(tmp_path_factory.mktemp("clip") / "smiles.mp4", images)


def check_rest(pictures: list[NDArray[np.uint8]]) -> None:
    """The mouth is the photo's where the clip does not smile, and is not where it does, from the first frame on."""
    photo = load_photo("hopper").astype(int)
    changed = [np.abs(picture - photo)[250:320, 200:330].mean() for picture in pictures]  # about the mouth
    assert min(changed[0], changed[-1]) > 2 * changed[7]


@pytest.mark.parametrize("looks", [300, 3])
def test_a_recordings_neutral_is_the_frame_most_like_the_photo(
    models: Models, smiles: Path, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.video.LOOKS", looks)
    frames: list[None] = []
    with closing(Puppet(models, load_photo("hopper"))) as puppet, closing(open_source(str(smiles))) as source:
        found = find_neutral(source, models.detect, puppet.retargeter.photo_points, lambda: frames.append(None))
    assert found is not None
    assert 0.2 <= found[0] <= 0.32
    assert found[1].shape == (56, 2)
    assert len(frames) == 12


def test_a_recording_without_a_face_has_no_neutral(models: Models, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [swatch(index) for index in range(5)])
    with closing(open_source(str(clip))) as source:
        assert find_neutral(source, models.detect, load_motion("smiling").points[0]) is None


def test_the_best_reference_of_a_file_is_there_from_its_first_frame(
    smiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert run.main(["video", f"--source={smiles}", f"--output={output}", "--reference=best"]) == 0
    assert re.search(FOUND, capsys.readouterr().err)
    check_rest(pictures_of(output))


def test_the_panel_looks_a_film_through_as_well(
    smiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(ModelPool(lambda: load_models(None, None, default_bundle()))) as pool:
        studio = Studio("hopper", "motion:demo", 1, False, "", open_source, pool)
        make = _run_video(studio, tmp_path)
        output = make(str(smiles), "demo", None, "hopper", False, "relative", "best", False)
    assert re.search(FOUND, capsys.readouterr().out)  # where Gradio says things that it has no page for
    check_rest(pictures_of(Path(output)))
