"""The evaluations on the embedded portraits, as if they were held out; and the `landmarks` command."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import run
from engines.bundle import Bundle
from realtime.landmarks import FACEMESH
from realtime.photo import PORTRAITS, load_photo, portrait_names
from tests.drawn import names, portrait_mesh
from trainer import evaluate_detector, evaluate_generator
from trainer.baselines import copy, facemesh, mesh_warp
from trainer.data import Pictures
from trainer.evaluate_detector import Method
from trainer.evaluate_generator import Sequence
from trainer.mesh import Surface
from trainer.metrics import error_percent
from trainer.prepare import MARGIN, PICTURE_SIZE, Picture, Teacher, save, stills
from trainer.table import markdown


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The portraits as stills of two held-out people, and a clip of one whose head moves and then holds still."""
    teacher = Teacher(video=False)
    portraits = list(stills(PORTRAITS, teacher))
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
    assert figures["MediaPipe FaceMesh"]["not found"] == 0
    assert figures["MediaPipe FaceMesh"]["ms"] > 0
    assert (tmp_path / "table.md").read_text() == text
    assert cv2.imread(str(tmp_path / "worst.png")).shape == (3 * PICTURE_SIZE, 2 * PICTURE_SIZE, 3)


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


def test_the_share_carried_over_is_of_what_the_truth_does(pictures: Pictures) -> None:
    """A reenactor that copies the driving picture carries everything over, and is as still as the camera's noise."""
    crop = pictures.image(0)[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()
    mesh = pictures.mesh[0] - np.array([MARGIN, MARGIN, 0], np.float32)
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


def test_landmarks_of_the_portraits(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert bundle.weights_hash


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
