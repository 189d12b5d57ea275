"""The benchmark: real frames, figures that hang together, and a last line that a program can read."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import run
from realtime.bench import measure, render_clip
from realtime.errors import InputError
from realtime.faces import FaceFinder
from realtime.photo import load_photo
from realtime.puppet import STAGES
from realtime.report import document, plot, table
from realtime.sources import StillSource
from tests.facemesh import FaceMeshModels

KEYS = {
    *("fps", "latency_ms", "stages_ms", "frames", "dropped", "first_frame_s", "target_change_ms", "peak_memory_mb"),
    *("engine", "precision", "device"),
}


@pytest.fixture(scope="module")
def mesh() -> Iterator[FaceMeshModels]:
    mesh = FaceMeshModels()
    yield mesh
    mesh.close()


@pytest.fixture(scope="module")
def figures(mesh: FaceMeshModels) -> dict[str, Any]:
    return measure(mesh, load_photo("hopper"), None, seconds=1)


def check_figures(figures: dict[str, Any]) -> None:
    assert figures.keys() >= KEYS
    assert figures["stages_ms"].keys() == set(STAGES)
    for spread in (figures["latency_ms"], *figures["stages_ms"].values()):
        assert 0 < spread["median"] <= spread["p95"] <= spread["p99"]
    assert figures["stages_ms"]["total"]["median"] >= figures["stages_ms"]["detect"]["median"]
    # the mean time of a frame lies between the quickest stage's and the slowest frame's
    assert 1000 / figures["fps"] > figures["stages_ms"]["composite"]["median"]
    assert figures["frames"] > 0
    assert figures["peak_memory_mb"] > 50


def test_the_default_clip_shows_a_face_that_moves(mesh: FaceMeshModels) -> None:
    frames = list(render_clip(mesh, 24))
    assert [frame.index for frame in frames] == list(range(24))
    with closing(FaceFinder()) as finder:
        places = [finder.find(frame.image)[0].mean(0) for frame in frames if frame.image is not None]
    assert len(places) == 24
    assert np.ptp(places, axis=0).max() > 10


def test_figures_hang_together(figures: dict[str, Any]) -> None:
    check_figures(figures)
    assert figures["source"] == [640, 480]
    assert figures["photo"] == [512, 600]


def test_a_source_without_a_face_is_refused(mesh: FaceMeshModels) -> None:
    wall = StillSource(np.full((240, 320, 3), 99, np.uint8))
    with pytest.raises(InputError, match="no face"):
        measure(mesh, load_photo("hopper"), wall, seconds=0.2)


def test_runs_are_put_side_by_side(figures: dict[str, Any], tmp_path: Path) -> None:
    other = figures | {"engine": "other"}
    lines = table([figures, other]).splitlines()
    assert "facemesh f32" in lines[0]
    assert "other f32" in lines[0]
    assert [line.split()[0] for line in lines[2:8]] == list(STAGES)
    assert document([figures]) == figures
    assert document([figures, other])["runs"] == [figures, other]
    plot([figures, other], tmp_path / "stages.png")
    with Image.open(tmp_path / "stages.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 10


def test_the_command_ends_in_one_line_of_json_with_every_engine(tmp_path: Path) -> None:
    command = [sys.executable, run.__file__, "bench", "--engine=openvino,torch", "--precision=f32", "--seconds=1"]
    outputs = [f"--output={tmp_path / 'report.json'}", f"--plot={tmp_path / 'stages.png'}"]
    done = subprocess.run([*command, *outputs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert [figures["engine"] for figures in report["runs"]] == ["openvino", "torch"]
    for figures in (report, *report["runs"]):
        check_figures(figures)
        assert figures["precision"] == "f32"
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "stages.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds=0"], "--seconds 0 is out of range"),
        (["--seconds=nan"], "--seconds nan is out of range"),
        (["--output=/no/such/folder/report.json"], "a file in a folder that exists is needed"),
        (["--output=report.txt"], "must end in .json"),
        (["--plot=chart.jpg"], "must end in .png"),
        (["--source=missing.mp4"], "missing.mp4 does not exist"),
        (["--target=missing.jpg"], "missing.jpg does not exist"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["bench", *arguments]) == 2
    out, error = capsys.readouterr()
    assert complaint in error
    assert len(error.splitlines()) == 1
    assert out == ""
