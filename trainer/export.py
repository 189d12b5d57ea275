"""Checkpoints to a bundle: three ONNX graphs with static shapes, int8 graphs, and the card that describes them."""

import json
import shutil
import tempfile
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from engines.bundle import GRAPHS, QUANTIZED_FILES, load_bundle, weights_hash
from realtime.errors import InputError
from realtime.landmarks import COUNT, CROP_SIZE, HEATMAP_SIZE, SIGMA, STRIDE
from realtime.prior import PRIOR_SIZE
from trainer.checkpoint import read_detector, read_generator
from trainer.data import Pictures
from trainer.fpn import FpnGenerator

OPSET = 17


def _graph(module: nn.Module, path: Path, inputs: dict[str, Tensor], outputs: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecation notes
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,
        )


def _shapes(path: Path) -> dict[str, dict[str, list[int]]]:
    graph = onnx.load(path).graph
    sides = {"inputs": graph.input, "outputs": graph.output}
    return {k: {t.name: [d.dim_value for d in t.type.tensor_type.shape.dim] for t in v} for k, v in sides.items()}


def export(
    detector_path: Path,
    generator_path: Path,
    output: Path,
    pictures: Pictures | None = None,
    trained_on: str = "not stated",
) -> None:
    """Write a bundle from a detector's and a generator's checkpoint; `output` changes only when all of it is good.

    With `pictures` to calibrate on, the bundle has int8 graphs, too. `trained_on`: what both were trained on, whose it
    is and under which licence, for the card.

    Raises InputError for a checkpoint that does not fit.
    """
    if pictures is not None:
        from trainer.quantize import calibration, quantize

        pairs = calibration(pictures)
    detector, of_detector = read_detector(detector_path)
    encoder, generator, of_generator = read_generator(generator_path)
    if detector.settings.stride != STRIDE:
        raise InputError(f"{detector_path} has heatmaps of stride {detector.settings.stride}: a bundle's have {STRIDE}")
    if isinstance(generator, FpnGenerator) and pictures is not None:
        raise InputError(f"{generator_path} is the thesis's generator, which has no int8 graphs: leave out the data")
    if isinstance(generator, FpnGenerator) and generator.settings.source == "picture":
        raise InputError(f"{generator_path} sees the source's picture: a bundle's generator sees its landmarks only")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as name:
        folder = Path(name)
        _write_graphs(folder, detector, encoder, generator)
        if pictures is not None:
            quantize(folder, pairs)
        modules = dict(zip(GRAPHS, (detector, encoder, generator), strict=True))
        card = {
            "name": "puppetcam",
            "date": date.today().isoformat(),
            "weights_sha256": weights_hash(folder),
            "heatmaps": {"count": COUNT, "stride": STRIDE, "sigma": SIGMA * STRIDE},
            "crop": {"size": CROP_SIZE, "layout": "realtime/alignment.py TEMPLATE"},
            "detector": _training(of_detector),
            "generator": _training(of_generator),
            "parameters": {graph: sum(p.numel() for p in module.parameters()) for graph, module in modules.items()},
            "training_data": trained_on,
            "licence": "Apache-2.0",
            "graphs": {graph: _shapes(folder / f"{graph}.onnx") for graph in GRAPHS},
        }
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        load_bundle(folder)
        _put_in_place(folder, output)


def _write_graphs(folder: Path, detector: nn.Module, encoder: Any, generator: nn.Module) -> None:
    """The bundle's ONNX graphs, by their contract (docs/design.md)."""
    crop = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    heatmaps = torch.rand(1, COUNT, HEATMAP_SIZE, HEATMAP_SIZE)
    prior = torch.zeros(1, 3, PRIOR_SIZE, PRIOR_SIZE)
    with torch.no_grad():
        features = dict(zip(encoder.outputs, encoder.eval()(crop, heatmaps), strict=True))
    _graph(detector, folder / "detector.onnx", {"crop": crop}, ("heatmaps",))
    _graph(encoder, folder / "target_encoder.onnx", {"crop": crop, "heatmaps": heatmaps}, encoder.outputs)
    inputs = {"driving": heatmaps, "prior": prior, **features}
    _graph(generator, folder / "generator.onnx", inputs, ("flow", "mask", "colour"))


def _put_in_place(folder: Path, output: Path) -> None:
    """Move a bundle's files to where they shall be; int8 graphs of another one do not stay there."""
    output.mkdir(parents=True, exist_ok=True)
    for name in QUANTIZED_FILES:
        (output / name).unlink(missing_ok=True)
    for file in folder.iterdir():
        shutil.move(file, output / file.name)


def _training(state: dict[str, Any]) -> dict[str, Any]:
    """How a network came to be."""
    return {
        "minutes": round(state["spent"] / 60, 1),
        "steps": state["step"],
        "batch": state["loop"]["batch"],
        "settings": state["settings"],
        "validation": {k: round(v, 3) for k, v in state["metrics"].items()},
    }
