"""The evaluations on the embedded portraits, as if they were held out; and the `landmarks` command."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import run
from engines.bundle import EngineError
from realtime.errors import InputError
from realtime.faces import MeshFinder
from realtime.landmarks import FACEMESH, INNER_LIPS, LEFT_EYE, RIGHT_EYE
from realtime.photo import PORTRAITS, load_photo, portrait_names
from tests.drawn import names, portrait_mesh, write_drawn
from trainer import evaluate_detector, evaluate_generator
from trainer.baselines import copy, facemesh, mesh_warp
from trainer.data import Pictures
from trainer.detector import Detector, DetectorSettings
from trainer.evaluate_detector import Method
from trainer.evaluate_generator import Sequence
from trainer.evaluation_command import every_engine
from trainer.mesh import Surface
from trainer.metrics import error_percent
from trainer.prepare import MARGIN, PICTURE_SIZE, Picture, save, still
from trainer.table import markdown
from trainer.train_dlib import read_predictor


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The portraits as stills of two held-out people, and a clip of one whose head moves and then holds still."""
    teacher = MeshFinder(video=False)
    portraits = [p for path in sorted(PORTRAITS.glob("*.jpg")) for p in still(path, teacher)]
    teacher.close()
    two = names("person", True, 2)
    made = [Picture(p.image, p.mesh, p.name, who, "") for p, who in zip(portraits, two, strict=True)]
    clip = names("clip", True, 1)[0]
    first = portraits[0]
    middle = (PICTURE_SIZE - 1) / 2
    for frame in range(26):
        angle = 0.25 * min(frame, 15)
        matrix = cv2.getRotationMatrix2D((middle, middle), angle, 1)
        image = cv2.warpAffine(first.image, matrix, (PICTURE_SIZE, PICTURE_SIZE), borderMode=cv2.BORDER_REPLICATE)
        mesh = first.mesh.copy()
        mesh[:, :2] = mesh[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        made.append(Picture(image, mesh, f"{clip}:{frame}", clip, clip))
    path = tmp_path_factory.mktemp("portraits") / "data.npz"
    save(made, path)
    return Pictures(path)


def test_detectors_are_measured(pictures: Pictures, tmp_path: Path) -> None:
    known = {pictures.image(i).tobytes(): pictures.points[i] for i in range(len(pictures))}

    def oracle(image: np.ndarray) -> np.ndarray | None:
        return known.get(image.tobytes())

    methods = {
        "oracle": Method(oracle, lambda: oracle),
        "off by a pixel": Method(lambda image: pictures.points[0] + [1, 0], lambda: lambda _: pictures.points[2]),
        "MediaPipe FaceMesh": Method(facemesh(False), lambda: facemesh(True)),
    }
    text = evaluate_detector.evaluate(methods, pictures, tmp_path)
    tables = json.loads((tmp_path / "table.json").read_text())
    figures = {name: {k: v for rows in tables.values() for k, v in rows.get(name, {}).items()} for name in methods}
    assert figures["oracle"]["all"] == pytest.approx(0, abs=1e-4)
    assert figures["oracle"]["shift"] is None  # it does not know the shifted picture
    assert figures["off by a pixel"]["from frame to frame"] == 0
    assert figures["off by a pixel"]["shift"] == pytest.approx(100 / 64, rel=0.1)  # it does not follow the picture
    assert 0 < figures["MediaPipe FaceMesh"]["all"] < 3
    assert figures["MediaPipe FaceMesh"]["failures"] == 0
    assert figures["MediaPipe FaceMesh"]["ms"] > 0
    assert (tmp_path / "table.md").read_text() == text
    assert cv2.imread(str(tmp_path / "worst.png")).shape == (3 * PICTURE_SIZE, 2 * PICTURE_SIZE, 3)


def test_a_persons_motion_is_not_a_methods_own() -> None:
    random = np.random.default_rng(0)
    person, mine, other = (random.normal(0, spread, (400, 56, 2)) for spread in (0.5, 0.1, 0.3))
    ours, theirs = (evaluate_detector.Steps(steps, steps / 4) for steps in (person + mine, person + other))
    row = evaluate_detector.unrest([ours], [theirs])
    assert row["from frame to frame"] == pytest.approx(np.sqrt(np.pi / 2 * 0.26), rel=0.02)
    assert row["of which its own"] == pytest.approx(0.1 * np.sqrt(2), rel=0.1)
    assert row["smoothed"] == pytest.approx(row["from frame to frame"] / 4)
    assert evaluate_detector.unrest([], []) == {}


def test_a_track_is_smoothed_as_the_live_program_does_where_it_is_known() -> None:
    """Noise of a still face is damped, a jump is followed, and what is lost leaves a gap that nothing is drawn over."""
    track = np.random.default_rng(0).normal(0, 0.3, (60, 56, 2)).astype(np.float32)
    track[30] = np.nan
    track[31:] += 40
    found = evaluate_detector.smoothed(track, 64.0)
    assert np.isnan(found[30]).all()
    assert np.linalg.norm(np.diff(found[5:30], axis=0), axis=-1).mean() < 0.2
    np.testing.assert_array_equal(found[31], track[31])


def test_failures_are_faces_not_found_and_points_far_off(pictures: Pictures) -> None:
    truth = pictures.points[[0, 1, 2]]
    found = truth.copy()
    found[0] = np.nan
    found[1] += [7, 0]  # eyes are 64 pixels apart: 11 %
    found[2] += [6, 0]
    found[:, :18] = np.nan  # a method that knows no brows
    row = evaluate_detector.accuracy(found, truth)
    assert row["failures"] == 2
    assert np.isnan(row["all"])
    assert np.isnan(row["brows"])
    assert row["lips"] == pytest.approx(100 * 6.5 / 64, rel=0.03)


def test_openings_are_measured_where_eyes_are_shut_and_mouths_open() -> None:
    mesh = portrait_mesh()
    rest = mesh[FACEMESH, :2]
    shut, opened = rest.copy(), rest.copy()
    for eye in (LEFT_EYE, RIGHT_EYE):
        shut[eye[1:4], 1] = shut[eye[5:8], 1].mean()
    opened[INNER_LIPS[5:8], 1] += 12
    labels = np.stack([rest, shut, opened])
    found = labels.copy()
    found[1][LEFT_EYE[1:4], 1] -= 2  # one eye is seen two pixels open
    found[2][INNER_LIPS[5:8], 1] -= 4
    row = evaluate_detector.openings(found, labels)
    assert row == pytest.approx({"lids, closed eyes (1)": 100 / 64, "lips, open mouths (1)": 400 / 64}, rel=0.05)


def test_evaluate_detector_measures_all_that_is_given(
    pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command with two checkpoints, two of dlib's predictors, and the shipped detector on one engine."""
    checkpoints = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for seed, path in enumerate(checkpoints):
        torch.manual_seed(seed)
        detector = Detector(DetectorSettings((8, 8, 8, 8, 8), (1, 1, 1, 1), (8, 8, 8), 8, stride=4))
        state = {"settings": asdict(detector.settings), "ema": {"detector": detector.state_dict()}}
        torch.save(state, path)
    drawn = tmp_path / "drawn.npz"
    write_drawn(drawn, stills=8, held_out_stills=1, frames=0, wander=4)
    predictor = tmp_path / "dlib.dat"
    assert run.main(["train", "dlib", "--data", str(drawn), "--output", str(predictor), "--trees", "3"]) == 0
    assert "dlib.dat: trained on 16 crops" in capsys.readouterr().out
    few = tmp_path / "few.npz"
    with np.load(pictures.path) as file:  # the stills and some frames
        last = 8
        arrays = {name: file[name][:last] for name in file.files if name != "webp"}
        np.savez(few, webp=file["webp"][: arrays["ends"][-1]], **arrays)
    given = [f"--checkpoint={path}" for path in checkpoints] + [f"--dlib={predictor}"]
    options = ["--data", str(few), "--output", str(tmp_path), "--engine", "openvino", *given]
    assert run.main(["evaluate", "detector", *options]) == 0
    figures = json.loads((tmp_path / "table.json").read_text())
    rows = figures["All 2 held-out stills"]
    ours = next(name for name in rows if name.startswith("ours, openvino"))
    assert {ours, *map(str, checkpoints), str(predictor), "MediaPipe FaceMesh"} <= set(rows)
    assert rows[ours]["all"] < 5 < rows[str(checkpoints[0])]["all"]
    assert rows[str(checkpoints[0])]["all"] != rows[str(checkpoints[1])]["all"]
    assert rows[str(checkpoints[0])]["failures"] == 2
    assert rows[str(predictor)]["all"] < 40  # dlib learnt where faces are in the crop
    assert all(row["ms"] <= row["ms, 95 %"] for row in rows.values())


@pytest.mark.parametrize("engine", [None, "openvino", "nothing"])
def test_every_engine_that_runs_is_measured(engine: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    def load(options: argparse.Namespace) -> str:
        """Stands for engines.load: the faster torch engines compile for a minute."""
        if options.engine != "openvino":
            raise EngineError("there is no such card")
        return "openvino's models"

    asked = argparse.Namespace(engine=engine)
    if engine == "nothing":  # what is asked for must be there
        with pytest.raises(EngineError):
            list(every_engine(asked, load))
        return
    assert list(every_engine(asked, load)) == ["openvino's models"]
    assert ("torch is left out: there is no such card" in capsys.readouterr().err) == (engine is None)


def test_what_is_no_predictor_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no predictor .*none\.dat"):
        read_predictor(tmp_path / "none.dat")
    (tmp_path / "odd.dat").write_bytes(b"odd")
    with pytest.raises(InputError, match=r"odd\.dat is not a predictor"):
        read_predictor(tmp_path / "odd.dat")


def test_generators_are_measured(pictures: Pictures, tmp_path: Path) -> None:
    reenactors = {"copy": copy, "FaceMesh warp": mesh_warp(Surface(portrait_mesh() - [MARGIN, MARGIN, 0]))}
    evaluate_generator.evaluate(reenactors, pictures, tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())["Held-out clips"]
    copied, warped = rows["copy"], rows["FaceMesh warp"]
    assert warped["L1"] < copied["L1"]
    assert warped["PSNR dB"] > copied["PSNR dB"]
    assert warped["SSIM"] > copied["SSIM"]
    assert warped["expression NMSE %"] < 0.5 * copied["expression NMSE %"]
    assert copied["flicker"] == 0 < warped["flicker"]
    assert copied["CSIM"] in (None, pytest.approx(1))
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_the_plain_warp_is_the_photo_where_nothing_moves_and_holds_its_border(pictures: Pictures) -> None:
    still = list(pictures.names).index("hopper.jpg")
    crop = pictures.image(still)[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()
    mesh = portrait_mesh() - [MARGIN, MARGIN, 0]
    plain = Surface(mesh, rings=False, margin=0)
    assert np.abs(mesh_warp(plain)(crop)(crop).astype(int) - crop).max() <= 1
    place, on_face = plain.flow(plain.extend(mesh + [9, 0, 0], mesh), plain.extend(mesh, mesh), 256, 1.0)
    shift = place - np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1)
    assert np.median(shift[on_face], axis=0) == pytest.approx([-9, 0], abs=0.1)
    rim = np.concatenate([shift[0], shift[-1], shift[:, 0], shift[:, -1]])
    assert np.abs(rim).max() < 1


def test_the_share_carried_over_is_of_what_the_truth_does(pictures: Pictures) -> None:
    """A reenactor that copies the driving picture carries everything over, and is as still as the camera's noise."""
    shut = list(pictures.names).index("hopper.jpg")
    crop = pictures.image(shut)[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()
    mesh = pictures.mesh[shut] - np.array([MARGIN, MARGIN, 0], np.float32)
    opened = mesh.copy()
    opened[FACEMESH[51:54], 1] += 6
    opened[mesh[:, 1] > mesh[17, 1] - 2, 1] += 6
    surface = Surface(mesh)
    place, _ = surface.flow(surface.extend(opened, mesh), surface.extend(mesh, mesh), 256, 1.0)
    speaking = cv2.remap(crop, *place.astype(np.float32).transpose(2, 0, 1), cv2.INTER_LINEAR)
    observer = evaluate_generator.Observer(facemesh(video=False), None)
    row, results = evaluate_generator.measure(lambda _: lambda d: d, Sequence("a", crop, [speaking] * 2), observer)
    assert np.array_equal(results[0], speaking)
    assert row["mouth carried over %"] == pytest.approx(100)
    assert row["L1"] == 0
    assert 1 < row["flicker"] < 4
    assert np.isnan(row["CSIM"])


def test_tables() -> None:
    text = markdown({"ours": {"ms": 3.0, "error": 0.12345}, "theirs": {"ms": float("nan"), "error": 2.5}})
    assert text.splitlines() == ["| | ms | error |", "|---|---|---|", "| ours | 3 | 0.1235 |", "| theirs | - | 2.50 |"]


def test_landmarks_of_the_portraits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 300, 3), 128, np.uint8))
    files = [*(str(PORTRAITS / f"{name}.jpg") for name in portrait_names()), str(blank)]
    output, drawn = tmp_path / "points.json", tmp_path / "drawn"
    assert run.main(["landmarks", *files, "--output", str(output), "--draw", str(drawn)]) == 0
    assert "2 faces in 3 pictures" in capsys.readouterr().out
    found: list[dict[str, Any]] = json.loads(output.read_text())
    assert [one["file"] for one in found] == files
    assert found[-1]["points"] is found[-1]["confidence"] is None
    find = facemesh(video=False)
    for one, name in zip(found, portrait_names(), strict=False):
        picture = load_photo(name)
        seen = find(picture)
        assert seen is not None
        assert len(one["points"]) == len(one["confidence"]) == 56
        assert error_percent(np.array(one["points"])[None], seen[None])[0] < 5
        changed = cv2.cvtColor(cv2.imread(str(drawn / f"{name}.png")), cv2.COLOR_BGR2RGB) != picture
        assert 0 < changed.any(2).mean() < 0.1


def test_landmarks_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "points.json"
    assert run.main(["landmarks", "nobody.jpg", "--output", str(output)]) == 2
    assert "nobody.jpg does not exist" in capsys.readouterr().err
    same = [str(PORTRAITS / "hopper.jpg")] * 2
    assert run.main(["landmarks", *same, "--output", str(output), "--draw", str(tmp_path)]) == 2
    assert "two of the pictures are named hopper" in capsys.readouterr().err
    assert run.main(["landmarks", same[0], "--output", str(tmp_path / "points.txt")]) == 2
    assert "must end in .json" in capsys.readouterr().err
    assert not output.exists()
    output.write_text("mine")
    assert run.main(["landmarks", "nobody.jpg", "--output", str(output), "--draw", str(output)]) == 2
    assert f"--draw {output} is a file" in capsys.readouterr().err
    assert output.read_text() == "mine"


def test_what_takes_long_looks_at_its_output_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert run.main(["export", "--detector", "a.pt", "--generator", "b.pt", "--output", str(file)]) == 2
    assert f"--output {file} is a file" in capsys.readouterr().err
    assert run.main(["train", "dlib", "--data", "a.npz", "--output", str(tmp_path)]) == 2
    assert f"{tmp_path} must end in .dat" in capsys.readouterr().err
    assert file.read_text() == "mine"
