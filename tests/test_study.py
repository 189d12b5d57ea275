"""The thesis's studies on drawn faces, tiny; cross-reenactment; and dlib's landmarks for its discriminator."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

import run
from realtime.errors import InputError
from realtime.faces import MeshFinder
from realtime.landmarks import FACEMESH, OUTER_LIPS
from tests.drawn import write_drawn
from trainer import study
from trainer.baselines import copy, facemesh
from trainer.cross import Drive, drives, expression, measure_cross
from trainer.data import Pictures
from trainer.detector import Detector, DetectorSettings
from trainer.export import export
from trainer.fpn import FpnSettings
from trainer.loop import LoopSettings
from trainer.mesh import Surface, turn
from trainer.study import StudySettings
from trainer.thesis import WITH_LANDMARK_LOSS
from trainer.train_fpn import FpnTask, FpnTraining, Judges, dlib_landmarks
from trainer.vote import STUDIES, Study, comparisons

TINY = FpnSettings((8, 8, 12, 16, 16), (1, 1, 1, 1), 8, (16, 16, 16, 12, 12), source="picture")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    path = tmp_path_factory.mktemp("drawn") / "data.npz"
    write_drawn(path, stills=5, held_out_stills=3, frames=7, wander=3)
    return Pictures(path)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture(scope="module")
def judges() -> Judges:
    torch.manual_seed(0)
    return Judges(Detector(DetectorSettings((8, 12, 16, 24, 32), (1, 1, 1, 1), (32, 24, 16), 8, stride=4)).eval())


def test_a_study(
    pictures: Pictures, fabric: Fabric, judges: Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(study.BACKBONES, "small", TINY)
    settings, loop = StudySettings(size=64, discriminator=4, warm_up=1.0), LoopSettings(steps=1, batch=1, minutes=1.0)
    checkpoints = study.train(pictures, tmp_path, settings, loop, judges, fabric)
    assert list(checkpoints) == list(study.CONFIGURATIONS)
    states = {name: torch.load(path, weights_only=True) for name, path in checkpoints.items()}
    assert {name: (s["settings"]["adversary"], s["settings"]["landmarks"]) for name, s in states.items()} == {
        name: (adversary, landmarks) for name, (adversary, landmarks, _) in study.CONFIGURATIONS.items()
    }
    assert states["ralsgan-unet-loss"]["settings"]["scales"] == asdict(WITH_LANDMARK_LOSS)
    # The second time nothing is trained again.
    saved = {name: path.stat().st_mtime_ns for name, path in checkpoints.items()}
    assert study.train(pictures, tmp_path, settings, loop, judges, fabric) == checkpoints
    assert {name: path.stat().st_mtime_ns for name, path in checkpoints.items()} == saved
    with pytest.raises(InputError, match=r"was trained with size 64, not 128: name another --output"):
        study.train(pictures, tmp_path, replace(settings, size=128), loop, judges, fabric)

    described: list[int] = []

    def describe(shown: Any) -> np.ndarray:
        described.append(len(shown))
        return np.stack([picture.mean((0, 1)) for picture in shown])

    text = study.compare(checkpoints, {"ours": copy}, pictures, lambda _: np.zeros((56, 64, 64)), tmp_path, describe)
    rows = json.loads((tmp_path / "table.json").read_text())["Studies"]
    assert list(rows) == [f"{title}: {row}" for title, own in STUDIES.items() for row in own] + ["ours"]
    assert list(rows["ours"]) == [
        "FID", "NMSE %", "CSIM", "motion NMSE %", "eyes carried over %", "mouth carried over %", "L1", "PSNR dB", "SSIM"
    ]  # fmt: skip
    assert rows["Landmark detectors: dlib"] == rows["GAN losses: RaLSGAN"] != rows["Landmark detectors: U-Net"]
    assert rows["ours"]["CSIM"] == pytest.approx(1)  # copying the photo
    assert all(row["FID"] > 0 for row in rows.values())
    assert rows["ours"]["PSNR dB"] > rows["GAN losses: LSGAN"]["PSNR dB"]
    assert "FID: of the results" in text
    shown = Study(tmp_path, comparisons(), 14)
    assert len(shown.couples) == 1 + 6 + 1 + 6
    assert (tmp_path / "grid.png").stat().st_size > 1000


def test_a_study_needs_people(tmp_path: Path) -> None:
    write_drawn(tmp_path / "data.npz", stills=3, held_out_stills=1, frames=2, wander=3)
    lone = Pictures(tmp_path / "data.npz")
    lone.validation &= lone.clips == ""
    with pytest.raises(InputError, match="no held-out person can drive another"):
        study.compare({}, {}, lone, lambda _: np.zeros((56, 64, 64)), tmp_path)
    assert not (tmp_path / "table.md").exists()


@pytest.fixture(scope="module")
def teacher() -> MeshFinder:
    return MeshFinder(video=False)


@pytest.fixture(scope="module")
def speaking(teacher: MeshFinder, crop: np.ndarray) -> np.ndarray:
    """The portrait with its jaw a little lower."""
    mesh = teacher(crop)
    assert mesh is not None
    opened = mesh.copy()
    opened[FACEMESH[51:54], 1] += 6
    opened[mesh[:, 1] > mesh[17, 1] - 2, 1] += 6
    surface = Surface(mesh)
    place, _ = surface.flow(surface.extend(opened, mesh), surface.extend(mesh, mesh), 256, 1.0)
    return cv2.remap(crop, *place.astype(np.float32).transpose(2, 0, 1), cv2.INTER_LINEAR)


def test_cross_reenactment_is_measured(teacher: MeshFinder, crop: np.ndarray, speaking: np.ndarray) -> None:
    """Taking the source over shows all of its expression; the photo alone shows nothing of it."""
    drive = Drive("a drives b", crop, [crop, speaking])
    row, results = measure_cross(lambda _: lambda source: source, drive, teacher, lambda c: c.mean((0, 1)))
    assert np.array_equal(results[1], speaking)
    assert row["expression NMSE %"] == row["motion NMSE %"] == 0
    assert row["mouth carried over %"] == pytest.approx(100)
    assert row["CSIM"] == pytest.approx(1, abs=1e-3)
    still, _ = measure_cross(copy, drive, teacher, None)
    assert still["motion NMSE %"] > 1
    assert still["mouth carried over %"] == 0
    assert np.isnan(still["CSIM"])
    blind, _ = measure_cross(lambda _: lambda source: 0 * source, drive, teacher, None)
    assert np.isnan(blind["expression NMSE %"])
    assert np.isnan(blind["mouth carried over %"])


def test_pose_place_and_size_are_no_expression(teacher: MeshFinder, crop: np.ndarray) -> None:
    mesh = teacher(crop)
    assert mesh is not None
    turned = 1.3 * mesh @ turn(0.3, -0.1, 0.2).T + [20, -5, 3]
    assert np.abs(expression(turned.astype(np.float32), mesh) - mesh[FACEMESH, :2]).max() < 0.01


def test_others_are_driven(pictures: Pictures) -> None:
    made = drives(pictures, photos=2)
    assert made
    for drive in made:
        source, person = drive.name.split(" drives ")
        assert source != person
        assert all(crop.shape == (256, 256, 3) for crop in [drive.photo, *drive.sources])


def test_dlib_s_landmarks_lie_on_the_face(crop: np.ndarray) -> None:
    points = dlib_landmarks()(crop)
    seen = facemesh(video=False)(crop)
    assert seen is not None
    assert points.shape == (42, 2)
    assert np.abs(points[22:34].mean(0) - seen[OUTER_LIPS].mean(0)).max() < 4


def test_the_discriminator_is_shown_dlib_s_landmarks(pictures: Pictures, judges: Judges) -> None:
    training = FpnTraining(size=64, landmarks="dlib", network=TINY, discriminator=4)
    drawn = FpnTask(pictures, training, 1e-3, judges).sample(np.random.default_rng(0))
    assert drawn["shown"].shape == (1, 16, 16)
    assert 0.5 < drawn["shown"].max() <= 1
    with pytest.raises(InputError, match="the landmark loss needs gradients"):
        FpnTask(pictures, replace(training, scales=WITH_LANDMARK_LOSS), 1e-3, judges)


def test_the_generator_sees_the_source_s_picture(
    pictures: Pictures, fabric: Fabric, judges: Judges, tmp_path: Path
) -> None:
    from trainer.loop import Loop

    task = FpnTask(pictures, FpnTraining(size=64, network=TINY, discriminator=4), 1e-3, judges)
    photo, one, other = torch.rand(3, 1, 3, 64, 64).unbind()
    points = torch.zeros(1, 56, 2)
    made = [task.forward(task.modules, photo, source, points) for source in (one, other)]
    assert not torch.equal(*made)
    assert torch.equal(made[0][..., 0, :], photo[..., 0, :])  # the crop's border is the photo's
    loop = Loop(task, LoopSettings(steps=1, batch=1), tmp_path / "run", fabric)
    loop.run()
    settings = torch.load(loop.checkpoint, weights_only=True)["settings"]
    assert settings["content"].startswith("the landmark detector's encoder")
    torch.save({"ema": {"detector": judges.detector.state_dict()}, "settings": asdict(judges.detector.settings)},
               tmp_path / "detector.pt")  # fmt: skip
    with pytest.raises(InputError, match="sees the source's picture"):
        export(tmp_path / "detector.pt", loop.checkpoint, tmp_path / "bundle")


def test_public_weights_take_the_place_of_the_judge(pictures: Pictures, fabric: Fabric, judges: Judges) -> None:
    """Their losses are followed, and batch statistics stay as published."""
    torch.manual_seed(0)
    seen: list[tuple[int, ...]] = []

    def features(crops: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(crops.shape))
        return crops.flatten(1)

    named = replace(judges, content=("VGG19, from a file", features), identity=("ArcFace, from a file", features))
    network = replace(TINY, normalization="batch")
    task = FpnTask(pictures, FpnTraining(size=64, network=network, discriminator=4), 1e-3, named)
    assert (task.settings.content, task.settings.identity) == ("VGG19, from a file", "ArcFace, from a file")
    before = task.modules["encoder"].state_dict()["pyramid.backbone.bn1.running_mean"].clone()
    batch = {name: torch.from_numpy(value)[None] for name, value in task.sample(np.random.default_rng(0)).items()}
    task.step(batch, 0.5, fabric)
    assert seen == [(1, 3, 64, 64)] * 4  # photo and result, for content and identity
    assert torch.equal(task.modules["encoder"].state_dict()["pyramid.backbone.bn1.running_mean"], before)


def test_the_commands_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["train", "study", "--data", str(tmp_path / "none.npz"), "--output", str(tmp_path / "study")]
    judge = ["--judge", str(tmp_path / "none.pt")]
    for extra, said in (
        (["--warm-up", "-1"], "--warm-up -1 is out of range"),
        (judge, "there is no checkpoint"),
        (["--vgg19", str(tmp_path / "vgg.pth"), *judge], "there is no"),
        (["--inception", str(tmp_path / "inception.pth")], "Inception v3 of pytorch-fid"),
    ):
        assert run.main([*options, *extra]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
