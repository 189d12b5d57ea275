"""Several sessions on one device: the figures hang together, and a batch mixes nobody's frames up."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

import run
from engines.bundle import Bundle
from engines.load import load_models
from realtime.batch import Batcher
from realtime.head import make_head
from realtime.landmarks import heatmap_points, render_heatmaps
from realtime.photo import load_photo
from realtime.prior import driving_prior
from realtime.sessions import measure_sessions, sentences
from tests.facemesh import FaceMeshModels

Image = NDArray[np.uint8]


def test_figures_of_sessions_hang_together() -> None:
    figures = measure_sessions(FaceMeshModels, load_photo("hopper"), None, seconds=1, count=2)
    assert len(figures["fps"]) == figures["sessions"] == 2
    assert figures["fps_together"] == pytest.approx(sum(figures["fps"]), abs=0.2)
    assert figures["served"] == sum(rate >= 0.95 * 30 for rate in figures["fps"])
    assert figures["largest_batch"] == 1
    assert f"{figures['served']} of 2 sessions served at 30 FPS by facemesh f32" in sentences(figures)


def test_a_batch_gives_every_session_its_own(bundle: Bundle, crop: Image) -> None:
    models = load_models("torch", "f32", bundle, "cpu")
    batcher = Batcher(models)
    photos = [crop, np.ascontiguousarray(crop[:, ::-1]), np.ascontiguousarray(crop[::2, ::2].repeat(2, 0).repeat(2, 1))]
    asked = [batcher.ask("detect", photo) for photo in photos]  # all of them wait before the worker begins
    batcher.start()
    heatmaps = [answer.result() for answer in asked]
    assert batcher.largest == 3
    for photo, made in zip(photos, heatmaps, strict=True):
        assert made == pytest.approx(models.detect(photo), abs=1e-4)
    session = batcher.session()
    assert session.detect(crop) == pytest.approx(heatmaps[0], abs=1e-4)

    points = heatmap_points(heatmaps[0])[0]
    calls = []
    for number, (photo, seen) in enumerate(zip(photos, heatmaps, strict=True)):
        driving = points + 3 * number
        features = session.encode_target(photo, seen)
        calls.append((render_heatmaps(driving), driving_prior(driving, make_head(points)), features))
    for call, made in zip(calls, models.generate_many(calls), strict=True):
        for ours, alone in zip(made, models.generate(*call), strict=True):
            assert ours.shape == alone.shape
            assert ours == pytest.approx(alone, abs=1e-3)
    wrong = batcher.ask("generate", *calls[0][:2], {})
    assert isinstance(wrong.exception(), KeyError)  # an error is the asker's, and the worker lives on
    assert session.detect(crop).shape == (56, 64, 64)
    batcher.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sessions=0"], "--sessions 0 is out of range"),
        (["--batch"], "--batch is about --sessions"),
        (["--sessions=2", "--batch", "--engine=openvino"], "--batch is for --engine torch"),
        (["--sessions=2", "--plot=chart.png"], "--plot draws the stages of a benchmark without"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["bench", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_the_command_ends_in_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--sessions=2", "--batch", "--engine=torch", "--device=cpu", "--seconds=1"]
    assert run.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["sessions"] == 2
    assert figures["engine"] == "torch"
    assert 1 <= figures["largest_batch"] <= 2
