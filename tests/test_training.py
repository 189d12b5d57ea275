"""Training on drawn faces: tiny networks learn, a killed run goes on as if nothing had happened, and exports load."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

import run
from realtime.errors import InputError
from tests.tiny import TINY_GENERATOR, detector_task, generator_task
from trainer.checkpoint import average, read_detector
from trainer.data import Pictures
from trainer.detector import LIVE, THESIS, Detector
from trainer.generator import conditions
from trainer.loop import Loop, LoopSettings, Samples, cosine
from trainer.metrics import error_percent
from trainer.prepare import MARGIN
from trainer.train_detector import find_points, seen_by
from trainer.train_generator import GeneratorTask, GeneratorTraining


def test_a_tiny_detector_localises(trained_detector: Loop, pictures: Pictures) -> None:
    held_out = np.flatnonzero(pictures.validation & (pictures.clips == ""))
    trained = np.flatnonzero(~pictures.validation & (pictures.clips == ""))
    guess = np.repeat(pictures.points[trained].mean(0)[None], len(held_out), 0)
    constant = error_percent(guess - MARGIN, pictures.points[held_out] - MARGIN).mean()
    assert trained_detector.metrics["stills_nmse"] < 0.5 * constant


def test_a_tiny_generator_beats_copying(trained_generator: Loop) -> None:
    assert trained_generator.metrics["psnr"] > trained_generator.metrics["copy_psnr"] + 1


def test_a_run_leaves_its_figures_and_pictures(trained_detector: Loop) -> None:
    rows = [json.loads(line) for line in (trained_detector.output / "stats.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 300
    assert rows[-1]["samples"] == 1800
    assert rows[-1]["stills_nmse"] == pytest.approx(trained_detector.metrics["stills_nmse"], abs=1e-5)
    assert (trained_detector.output / "grid.png").stat().st_size > 1000


def test_a_finished_run_is_not_trained_on(trained_generator: Loop, pictures: Pictures, fabric: Fabric) -> None:
    again = Loop(generator_task(pictures), trained_generator.settings, trained_generator.output, fabric)
    assert again.run() == trained_generator.metrics
    assert again.step == trained_generator.step


def tiny_run(pictures: Pictures, output: Path, fabric: Fabric, task: GeneratorTask | None = None) -> Loop:
    """Six steps, with a checkpoint after each."""
    settings = LoopSettings(steps=6, batch=2, learning_rate=3e-3, checkpoint_minutes=0)
    return Loop(task or generator_task(pictures, adversary_from=0.0), settings, output, fabric)


class KilledError(Exception):
    """The run's sudden end."""


def test_a_killed_run_goes_on_as_if_nothing_had_happened(pictures: Pictures, fabric: Fabric, tmp_path: Path) -> None:
    whole = tiny_run(pictures, tmp_path / "whole", fabric)
    whole.run()

    class Dying(GeneratorTask):
        def step(self, batch: dict[str, torch.Tensor], progress: float, fabric: Fabric) -> dict[str, float]:
            if progress > 0.6:
                raise KilledError
            return super().step(batch, progress, fabric)

    torch.manual_seed(0)
    training = GeneratorTraining(size=64, network=TINY_GENERATOR, adversary_from=0.0)
    with pytest.raises(KilledError):
        tiny_run(pictures, tmp_path / "killed", fabric, Dying(pictures, training, 3e-3)).run()
    stats = tmp_path / "killed" / "stats.jsonl"
    stats.write_text(stats.read_text() + '{"step": 5}\n{"ste')  # it died while writing
    torch.manual_seed(1)
    resumed = tiny_run(pictures, tmp_path / "killed", fabric, GeneratorTask(pictures, training, 3e-3))
    assert resumed.step == 4
    resumed.run()
    for a, b in ((whole.task.modules, resumed.task.modules), (whole.averaged, resumed.averaged)):
        for name, module in a.items():
            other = b[name].state_dict()
            for key, value in module.state_dict().items():
                assert torch.equal(value, other[key]), f"{name}.{key}"
    assert [json.loads(row)["step"] for row in stats.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_resuming_takes_the_learning_rate_that_is_asked_for_now(
    pictures: Pictures, fabric: Fabric, tmp_path: Path
) -> None:
    tiny_run(pictures, tmp_path, fabric).run()
    task = GeneratorTask(pictures, GeneratorTraining(size=64, network=TINY_GENERATOR), 1e-5)
    again = Loop(task, LoopSettings(steps=7, batch=2, learning_rate=1e-5), tmp_path, fabric)
    assert again.step == 6
    again.run()
    for optimizer in task.optimizers.values():
        assert all(0 < group["lr"] <= 1e-5 for group in optimizer.param_groups)


def test_resuming_with_another_data_order_is_refused(pictures: Pictures, fabric: Fabric, tmp_path: Path) -> None:
    tiny_run(pictures, tmp_path, fabric).run()
    with pytest.raises(InputError, match="trained with batch 2, not 4"):
        Loop(generator_task(pictures), LoopSettings(batch=4), tmp_path, fabric)


def test_samples_depend_on_seed_and_number(pictures: Pictures) -> None:
    draw = detector_task(pictures).sample
    a, b, c, d = Samples(draw, 0)[5], Samples(draw, 0)[5], Samples(draw, 0)[6], Samples(draw, 1)[5]
    assert np.array_equal(a["crop"], b["crop"])
    assert not np.array_equal(a["crop"], c["crop"])
    assert not np.array_equal(a["crop"], d["crop"])


def test_a_run_starts_from_another_at_twice_the_size(
    trained_generator: Loop, pictures: Pictures, fabric: Fabric, tmp_path: Path
) -> None:
    task = GeneratorTask(pictures, GeneratorTraining(size=128, network=TINY_GENERATOR), 1e-3)
    loop = Loop(task, LoopSettings(steps=1), tmp_path, fabric, trained_generator.checkpoint)
    assert loop.step == 0
    for name, module in trained_generator.averaged.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, task.modules[name].state_dict()[key])
            assert torch.equal(value, loop.averaged[name].state_dict()[key])


def test_training_tells_the_networks_what_the_program_does(pictures: Pictures) -> None:
    task = generator_task(pictures)
    samples = [task.sample(np.random.default_rng(number)) for number in range(3)]
    batch = {name: np.stack([one[name] for one in samples]) for name in samples[0]}
    told = task._inputs({name: torch.from_numpy(values) for name, values in batch.items()})
    for name, expected in conditions(batch, 64).items():
        np.testing.assert_allclose(told[name].numpy(), expected, atol=1e-5)


def test_a_judge_s_landmark_loss_moves_the_generator_and_not_the_judge(
    trained_detector: Loop, pictures: Pictures, fabric: Fabric
) -> None:
    judge, _ = read_detector(trained_detector.checkpoint)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    torch.manual_seed(0)
    # nothing but the judge's opinion
    rest = dict.fromkeys(("flow", "gradient", "moved", "painted", "parts", "mouth", "opaque"), 0.0)
    task = GeneratorTask(pictures, GeneratorTraining(64, landmark=20.0, network=TINY_GENERATOR, **rest), 3e-3, judge)
    samples = [task.sample(np.random.default_rng(number)) for number in range(8)]
    batch = {name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]}
    first, *_, last = (task.step(batch, 0.5, fabric)["landmark"] for _ in range(25))
    assert last < 0.9 * first
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_what_a_judge_sees_drives_but_where_it_misses(trained_detector: Loop, pictures: Pictures) -> None:
    judge, _ = read_detector(trained_detector.checkpoint)
    labelled = copy(pictures)
    labels = labelled.points = pictures.points + np.where(np.arange(len(pictures)) == 3, 60, 0)[:, None, None]
    seen = seen_by(judge, labelled)
    crops = [pictures.image(i)[MARGIN:-MARGIN, MARGIN:-MARGIN] for i in range(len(pictures))]
    found = np.stack([find_points(judge, crop) + MARGIN for crop in crops])
    missed = (seen.points == labels).all((1, 2))
    assert missed[3]  # labelled elsewhere than the face is
    assert missed.mean() < 0.5
    np.testing.assert_allclose(seen.points[~missed], found[~missed], atol=1e-3)
    assert labelled.points is labels


def test_the_average_of_checkpoints_lies_between_them(
    trained_detector: Loop, trained_generator: Loop, pictures: Pictures, fabric: Fabric, tmp_path: Path
) -> None:
    settings = LoopSettings(steps=3, batch=2, learning_rate=1e-2)
    Loop(detector_task(pictures), settings, tmp_path, fabric, trained_detector.checkpoint).run()
    paths = [str(trained_detector.checkpoint), str(tmp_path / "last.pt")]
    run.main(["train", "average", *paths, "--output", str(tmp_path / "mean.pt")])
    a, b, mean = (read_detector(Path(path))[0].state_dict() for path in (*paths, tmp_path / "mean.pt"))
    changed = [name for name, value in a.items() if value.is_floating_point() and not torch.equal(value, b[name])]
    assert len(changed) > 10
    for name in changed:
        assert torch.allclose(mean[name], (a[name] + b[name]) / 2, atol=1e-6)
    before = (tmp_path / "mean.pt").read_bytes()
    with pytest.raises(InputError, match="different networks"):
        average([Path(paths[0]), trained_generator.checkpoint], tmp_path / "mean.pt")
    assert (tmp_path / "mean.pt").read_bytes() == before


def test_dry_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a second one starts anew
        options = ["--data", str(data), "--output", str(tmp_path), "--dry-run", "--seed", "3"]
        assert run.main(["train", "generator", *options]) == 0
    assert "last.pt: psnr" in capsys.readouterr().out
    assert torch.load(tmp_path / "dry-run" / "last.pt", weights_only=True)["step"] == 2


def test_a_detector_begins_with_public_weights(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    backbone = Detector(THESIS).encoder
    torch.save(backbone.state_dict() | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "resnet18.pth")
    options = ["--data", str(data), "--output", str(tmp_path), "--dry-run", "--learning-rate", "1e-9"]
    options += ["--backbone-weights", str(tmp_path / "resnet18.pth"), "--precision", "32-true"]
    assert run.main(["train", "detector", "--backbone", "resnet18", *options]) == 0
    trained = read_detector(tmp_path / "dry-run" / "last.pt")[0]
    assert trained.settings == replace(LIVE, widths=THESIS.widths)
    for name, value in backbone.named_parameters():
        assert torch.allclose(value, trained.encoder.get_parameter(name), atol=1e-6), name
    capsys.readouterr()
    assert run.main(["train", "detector", *options]) == 2  # the live network's backbone is narrower
    assert "resnet18.pth has conv1.weight of shape (64, 3, 7, 7), not (16, 3, 7, 7)" in capsys.readouterr().err


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    assert cosine(0) == pytest.approx(1e-3)
    assert cosine(0.02) == pytest.approx(1)
    assert cosine(0.51) == pytest.approx(0.505)
    assert cosine(1) == pytest.approx(0.01)
