"""Training on drawn faces: tiny networks learn, a killed run goes on as if nothing had happened, and exports load."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

import run
from engines.bundle import load_bundle
from realtime.errors import InputError
from tests.drawn import write_drawn
from trainer.checkpoint import average, read_detector, read_generator
from trainer.data import Pictures
from trainer.detector import LIVE, THESIS, Detector, DetectorSettings
from trainer.export import export
from trainer.fpn import FpnSettings, FpnTargetEncoder
from trainer.generator import GeneratorSettings
from trainer.loop import Loop, LoopSettings, Samples, cosine
from trainer.metrics import error_percent
from trainer.prepare import MARGIN
from trainer.thesis import ADVERSARIAL, WITH_LANDMARK_LOSS
from trainer.train_detector import DetectorTask, find_points, seen_by
from trainer.train_fpn import FpnTask, FpnTraining, Judges
from trainer.train_generator import GeneratorTask, GeneratorTraining

TINY_DETECTOR = DetectorSettings((8, 12, 16, 24, 32), (1, 1, 1, 1), (32, 24, 16), 8, stride=4)
TINY_GENERATOR = GeneratorSettings(8, 12, 16, (16, 24, 32), (16, 12))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "data.npz"
    write_drawn(path, stills=24, held_out_stills=6, frames=8, wander=10)
    return path


@pytest.fixture(scope="module")
def pictures(data: Path) -> Pictures:
    return Pictures(data)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def detector_task(pictures: Pictures) -> DetectorTask:
    torch.manual_seed(0)
    return DetectorTask(pictures, TINY_DETECTOR, 4e-3)


def generator_task(pictures: Pictures, **settings: Any) -> GeneratorTask:
    torch.manual_seed(0)
    return GeneratorTask(pictures, GeneratorTraining(size=64, network=TINY_GENERATOR, **settings), 3e-3)


@pytest.fixture(scope="module")
def trained_detector(pictures: Pictures, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    settings = LoopSettings(steps=300, batch=6, learning_rate=4e-3, ema=0.9)
    loop = Loop(detector_task(pictures), settings, tmp_path_factory.mktemp("detector"), fabric)
    loop.run()
    return loop


@pytest.fixture(scope="module")
def trained_generator(pictures: Pictures, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    settings = LoopSettings(steps=60, batch=8, learning_rate=3e-3, ema=0.9)
    loop = Loop(generator_task(pictures), settings, tmp_path_factory.mktemp("generator"), fabric)
    loop.run()
    return loop


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


def test_export_rebuilds_the_networks_from_their_settings(
    trained_detector: Loop, trained_generator: Loop, tmp_path: Path
) -> None:
    assert read_detector(trained_detector.checkpoint)[0].settings == TINY_DETECTOR
    assert read_generator(trained_generator.checkpoint)[1].settings == TINY_GENERATOR
    export(trained_detector.checkpoint, trained_generator.checkpoint, tmp_path / "bundle", trained_on="drawn faces")
    card = load_bundle(tmp_path / "bundle").card
    assert card["training_data"] == "drawn faces"
    assert card["detector"]["settings"]["stride"] == 4
    assert card["generator"]["settings"]["network"]["motion"] == [16, 24, 32]
    assert card["detector"]["validation"]["stills_nmse"] == round(trained_detector.metrics["stills_nmse"], 3)
    assert len(list((tmp_path / "bundle").iterdir())) == 4


def test_an_exported_detector_sees_what_the_checkpoint_sees(
    trained_detector: Loop, trained_generator: Loop, pictures: Pictures, tmp_path: Path
) -> None:
    from engines.load import load_models

    export(trained_detector.checkpoint, trained_generator.checkpoint, tmp_path / "bundle")
    models = load_models("openvino", "f32", load_bundle(tmp_path / "bundle"))
    crop = np.ascontiguousarray(pictures.image(0)[MARGIN:-MARGIN, MARGIN:-MARGIN])
    with torch.no_grad():
        batch = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
        expected = trained_detector.averaged["detector"].eval()(batch)[0].numpy()
    assert np.abs(models.detect(crop) - expected).max() < 1e-3
    models.close()


def test_int8_graphs_are_calibrated_on_the_pictures(
    trained_detector: Loop, trained_generator: Loop, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.load import load_models

    monkeypatch.setattr("trainer.quantize.SAMPLES", 12)
    export(trained_detector.checkpoint, trained_generator.checkpoint, tmp_path / "bundle", pictures)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.quantized
    crop = np.ascontiguousarray(pictures.image(0)[MARGIN:-MARGIN, MARGIN:-MARGIN])
    seen = []
    for precision in ("f32", "int8"):
        models = load_models("openvino", precision, bundle)
        seen.append(models.detect(crop).copy())
        models.close()
    assert 0 < np.abs(seen[0] - seen[1]).mean() < 0.2 * seen[0].mean()
    export(trained_detector.checkpoint, trained_generator.checkpoint, tmp_path / "bundle")
    assert not load_bundle(tmp_path / "bundle").quantized  # none that belong to other weights stay behind


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


def test_export_refuses_what_is_no_checkpoint(trained_generator: Loop, tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(trained_generator.checkpoint.read_bytes()[:5000])
    state = torch.load(trained_generator.checkpoint, weights_only=True)
    torch.save(state | {"settings": "as text, once"}, tmp_path / "old.pt")
    for path in (tmp_path / "torn.pt", tmp_path / "old.pt", tmp_path / "none.pt", trained_generator.checkpoint):
        with pytest.raises(InputError, match=path.name):
            export(path, trained_generator.checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


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


TINY_FPN = FpnSettings((8, 8, 12, 16, 16), (1, 1, 1, 1), 8, (16, 16, 16, 12, 12))


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
