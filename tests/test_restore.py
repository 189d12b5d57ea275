"""The models that ship, back as checkpoints: the same networks, which training can go on from."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import run
from engines.bundle import default_bundle, load_bundle
from trainer.checkpoint import average, read_detector, read_generator
from trainer.data import Pictures
from trainer.export import export
from trainer.losses import PatchDiscriminator
from trainer.quantize import calibration, frame_inputs, photo_inputs


@pytest.fixture(scope="module")
def restored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `train restore` made of the bundle that ships."""
    folder = tmp_path_factory.mktemp("restored")
    assert run.main(["train", "restore", f"--data={data}", f"--output={folder}"]) == 0
    return folder


def networks(folder: Path) -> dict[str, torch.nn.Module]:
    encoder, generator, _ = read_generator(folder / "generator.pt")
    return {
        "detector": read_detector(folder / "detector.pt")[0],
        "target_encoder": encoder,
        "generator": generator,
    }


@pytest.mark.parametrize("name", ["detector", "target_encoder", "generator"])
def test_the_networks_that_ship_come_back(name: str, restored: Path, data: Path) -> None:
    bundle, network = default_bundle(), networks(restored)[name]
    pairs = calibration(Pictures(data), 1)
    sample = (frame_inputs(bundle.folder, pairs) | {"target_encoder": [photo_inputs(pairs[0])]})[name][0]
    session = onnxruntime.InferenceSession(bundle.graph(name), providers=["CPUExecutionProvider"])
    asked = session.run(None, {k: np.ascontiguousarray(v) for k, v in sample.items()})
    with torch.no_grad():
        found = network(*(torch.from_numpy(array) for array in sample.values()))
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(asked, found, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-3 * max(1.0, float(np.abs(a).max())))


def test_training_can_go_on_from_them(restored: Path, data: Path) -> None:
    """Normalized by its own batch, as in training, the detector sees about what it saw: its statistics are real."""
    detector = networks(restored)["detector"]
    inputs = frame_inputs(default_bundle().folder, calibration(Pictures(data), 8))
    crops = [one["crop"] for one in inputs["detector"]]
    batch = torch.from_numpy(np.concatenate(crops))
    with torch.no_grad():
        still, trained = detector.eval()(batch), detector.train()(batch)
    assert still.max() > 0.5
    assert (trained - still).abs().mean() < 0.1 * still.mean()


def test_a_bundle_of_them_is_the_bundle_they_came_from(restored: Path, tmp_path: Path) -> None:
    export(restored / "detector.pt", restored / "generator.pt", tmp_path / "bundle")
    ours, theirs = load_bundle(tmp_path / "bundle").card, default_bundle().card
    for name in ("graphs", "parameters"):
        assert ours[name] == theirs[name]
    assert ours["generator"]["settings"] == theirs["generator"]["settings"]


def test_they_average_with_what_was_trained_on_from_them(restored: Path, tmp_path: Path) -> None:
    """A restored checkpoint has no discriminator: painters are averaged, the discriminator stays."""
    state = torch.load(restored / "generator.pt", weights_only=True)
    own = state["ema"]["generator"]["paint.bias"].clone()
    discriminator = PatchDiscriminator().state_dict()
    state["modules"]["discriminator"] = discriminator
    for kind in ("modules", "ema"):
        state[kind]["generator"] = state[kind]["generator"] | {"paint.bias": own + 2}
    torch.save(state, tmp_path / "trained.pt")
    average([restored / "generator.pt", tmp_path / "trained.pt"], tmp_path / "mean.pt")
    mean = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert torch.allclose(read_generator(tmp_path / "mean.pt")[1].state_dict()["paint.bias"], own + 1, atol=1e-6)
    average([tmp_path / "trained.pt", restored / "generator.pt"], tmp_path / "other.pt")
    assert torch.allclose(read_generator(tmp_path / "other.pt")[1].state_dict()["paint.bias"], own + 1, atol=1e-6)
    for name, value in discriminator.items():
        assert torch.equal(mean["modules"]["discriminator"][name], value)


def test_a_bundle_of_another_network_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in default_bundle().folder.iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    card = (bundle / "card.json").read_text()
    arguments = [f"--bundle={bundle}", f"--data={data}", f"--output={tmp_path / 'restored'}"]
    for changed, complaint in (
        (card.replace('"fine": 16', '"fine": 8', 1), "is not the network that its card describes"),
        (card.replace('"widths"', '"girths"', 1), "does not say how its networks are built"),
        (card.replace('"network": {', '"generator": "fpn", "network": {', 1), "has the thesis's generator"),
    ):
        (bundle / "card.json").write_text(changed)
        assert run.main(["train", "restore", *arguments]) == 2
        assert complaint in capsys.readouterr().err
