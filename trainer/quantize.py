"""Int8 graphs for the OpenVINO engine: NNCF's post-training quantization, calibrated on training pairs."""

import os
from pathlib import Path

import numpy as np
import openvino as ov

from engines.bundle import QUANTIZED
from realtime.landmarks import render_heatmaps
from trainer.data import Pictures
from trainer.generator import conditions
from trainer.pairs import Pairs

os.environ.setdefault("NNCF_CI", "1")  # NNCF reports its use over the network otherwise
import nncf
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

SAMPLES = 300
MOUTHS = 0.5  # share of the pairs in which a shut mouth opens
# What the generator keeps in floating point: the way of the flow (everything outside the blocks but what joins their
# channels), the first convolution, which reads it, and the sums of its residual blocks, which in int8 move the picture
# by a pixel; and the last convolutions, which in int8 mottle the colour.
BLOCKS = ("read", "flow", "paint", "refine", "at2/")
FLOATING: dict[str, dict[str, list[str]]] = {
    # Heatmaps in int8 make points tremble: twice as much under faint noise.
    "detector": {"patterns": ["^/last.*", "^/project.*"]},
    "generator": {"types": ["Add"], "patterns": ["^/(?!Concat)[A-Z].*", *(f"^/{name}.*" for name in BLOCKS)]},
}

Tensors = dict[str, np.ndarray]


def calibration(pictures: Pictures, count: int = SAMPLES) -> list[dict[str, np.ndarray]]:
    """Training pairs, as augmented as those of the training. Raises InputError where there is nobody to train on."""
    pairs = Pairs(pictures, 256, mouths=MOUTHS)
    return [pairs.draw(np.random.default_rng((0, number))) for number in range(count)]


def quantize(folder: Path, pairs: list[dict[str, np.ndarray]]) -> None:
    """Add detector_int8 and generator_int8, .xml and .bin, to a folder that has the three ONNX graphs."""
    tensors = frame_inputs(folder, pairs)
    for name in QUANTIZED:
        model = nncf.quantize(
            ov.Core().read_model(folder / f"{name}.onnx"),
            nncf.Dataset(tensors[name]),
            preset=nncf.QuantizationPreset.MIXED,  # activations of either sign have a zero point
            subset_size=len(pairs),
            ignored_scope=nncf.IgnoredScope(**FLOATING.get(name, {})),
            # Processors without VNNI add products in 16 bits, which 8-bit weights overflow.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
        ov.save_model(model, folder / f"{name}_int8.xml")


def photo_inputs(pair: dict[str, np.ndarray]) -> Tensors:
    """What the target encoder is given for a pair."""
    return {"crop": pair["photo"][None].astype(np.float32) / 255, "heatmaps": render_heatmaps(pair["target"][None])}


def frame_inputs(folder: Path, pairs: list[dict[str, np.ndarray]]) -> dict[str, list[Tensors]]:
    """What the detector and the generator in a folder of graphs are given for pairs."""
    encoder = ov.Core().compile_model(folder / "target_encoder.onnx", "CPU")
    inputs: dict[str, list[Tensors]] = {"detector": [], "generator": []}
    for pair in pairs:
        read = conditions({name: array[None] for name, array in pair.items()}, 256)
        features = {port.any_name: array.copy() for port, array in encoder(photo_inputs(pair)).items()}
        inputs["detector"].append({"crop": pair["truth"][None].astype(np.float32) / 255})
        inputs["generator"].append({"driving": read["driving"], "prior": read["prior"], **features})
    return inputs
