"""The thesis's generator and detector train on drawn faces, against every adversary and by every loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

import run
from engines.bundle import load_bundle
from tests.tiny import TINY_DETECTOR, TINY_FPN
from trainer.checkpoint import read_detector, read_generator
from trainer.data import Pictures
from trainer.export import export
from trainer.fpn import FpnTargetEncoder
from trainer.loop import Loop, LoopSettings
from trainer.thesis import ADVERSARIAL, WITH_LANDMARK_LOSS
from trainer.train_detector import DetectorTask
from trainer.train_fpn import FpnTask, FpnTraining, Judges


@pytest.mark.parametrize("adversary", list(ADVERSARIAL))
def test_the_thesis_s_generator_trains_against_every_adversary(
    adversary: str, trained_detector: Loop, pictures: Pictures, fabric: Fabric, tmp_path: Path
) -> None:
    judge, _ = read_detector(trained_detector.checkpoint)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    training = FpnTraining(size=64, adversary=adversary, scales=WITH_LANDMARK_LOSS, network=TINY_FPN)
    task = FpnTask(pictures, training, 1e-3, Judges(judge))
    first = {name: value.clone() for name, value in task.modules["generator"].state_dict().items()}
    loop = Loop(task, LoopSettings(steps=2, batch=2, learning_rate=1e-3), tmp_path / adversary, fabric)
    assert np.isfinite(loop.run()["psnr"])
    assert any(not torch.equal(value, first[name]) for name, value in task.modules["generator"].state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())  # it judges only
    export(trained_detector.checkpoint, loop.checkpoint, tmp_path / "bundle")
    assert list(load_bundle(tmp_path / "bundle").features) == list(FpnTargetEncoder.outputs)
    assert read_generator(loop.checkpoint)[1].settings == TINY_FPN


def test_the_thesis_s_learning_rate_falls_from_epoch_40_to_a_thousandth(
    trained_detector: Loop, pictures: Pictures
) -> None:
    judge, _ = read_detector(trained_detector.checkpoint)
    task = FpnTask(pictures, FpnTraining(size=64, network=TINY_FPN), 1e-4, Judges(judge))
    assert task.schedule(0) == task.schedule(40 / 250) == 1
    assert task.schedule(145 / 250) == pytest.approx(0.5005)
    assert task.schedule(1) == pytest.approx(1e-3)


def test_the_thesis_s_generator_needs_a_judge(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--generator", "fpn", "--data", str(data), "--output", str(tmp_path)]
    assert run.main(["train", "generator", *options]) == 2
    assert "--generator fpn needs --judge" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["iou", "mse"])
def test_the_thesis_s_losses_and_schedule_train_the_detector(loss: str, pictures: Pictures, fabric: Fabric) -> None:
    task = DetectorTask(pictures, replace(TINY_DETECTOR, loss=loss), 1e-4)
    assert [task.schedule(epoch / 200) for epoch in (0, 59, 60, 80, 199)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    crops = [task.sample(np.random.default_rng(number)) for number in range(2)]
    batch = {name: torch.from_numpy(np.stack([crop[name] for crop in crops])) for name in crops[0]}
    first, *_, last = (task.step(batch, 0.5, fabric)[loss] for _ in range(12))
    assert last < first
