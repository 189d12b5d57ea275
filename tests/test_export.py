"""Bundles exported of checkpoints: what they hold, and what they see."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.bundle import load_bundle
from realtime.errors import InputError
from tests.tiny import TINY_DETECTOR, TINY_GENERATOR
from trainer.checkpoint import read_detector, read_generator
from trainer.data import Pictures
from trainer.export import export
from trainer.loop import Loop
from trainer.prepare import MARGIN


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


def test_export_refuses_what_is_no_checkpoint(trained_generator: Loop, tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(trained_generator.checkpoint.read_bytes()[:5000])
    state = torch.load(trained_generator.checkpoint, weights_only=True)
    torch.save(state | {"settings": "as text, once"}, tmp_path / "old.pt")
    for path in (tmp_path / "torn.pt", tmp_path / "old.pt", tmp_path / "none.pt", trained_generator.checkpoint):
        with pytest.raises(InputError, match=path.name):
            export(path, trained_generator.checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
