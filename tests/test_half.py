"""Half precision in the ONNX graphs: what stays in float32, and how little the rest costs on a real face."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from engines.bundle import GRAPHS, Bundle
from engines.half import CONVOLUTIONS, HALVES, halved
from engines.load import load_models
from realtime.head import make_head
from realtime.landmarks import heatmap_points, render_heatmaps
from realtime.parity import Face, difference, sentence
from realtime.prior import driving_prior

Image = NDArray[np.uint8]


def _types(model: ModelProto) -> dict[str, int]:
    """The element type of every value."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def _run(model: ModelProto, **inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return dict(zip([tensor.name for tensor in session.get_outputs()], session.run(None, inputs), strict=True))


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", GRAPHS)
def test_coordinates_and_the_interface_stay_in_f32(bundle: Bundle, name: str, precision: str) -> None:
    full = onnx.load(bundle.graph(name))
    half = halved(onnx.load(bundle.graph(name)), precision)
    onnx.checker.check_model(half, full_check=True)
    assert half.graph.input == full.graph.input
    assert half.graph.output == full.graph.output
    types = _types(half)
    for node in half.graph.node:
        if node.op_type == "GridSample":
            assert [types[value] for value in (*node.input, *node.output)] == [TensorProto.FLOAT] * 3
    convolutions = Counter(types[node.output[0]] for node in half.graph.node if node.op_type in CONVOLUTIONS)
    assert set(convolutions) == {HALVES[precision], TensorProto.FLOAT}
    assert convolutions[HALVES[precision]] > 2 * convolutions[TensorProto.FLOAT]
    assert half.ByteSize() < 0.6 * full.ByteSize()


def test_f16_in_onnx_runtime_moves_nothing_that_can_be_seen(bundle: Bundle, crop: Image) -> None:
    planes = crop.transpose(2, 0, 1)[None].astype(np.float32) / 255
    inputs = {"crop": planes}
    made = []
    for convert in (lambda model: model, lambda model: halved(model, "f16")):
        detector, encoder, generator = (convert(onnx.load(bundle.graph(name))) for name in GRAPHS)
        heatmaps = _run(detector, crop=planes)["heatmaps"]
        inputs.setdefault("heatmaps", heatmaps)
        points = heatmap_points(inputs["heatmaps"][0])[0]
        features = _run(encoder, **inputs)
        driving = points + np.float32([3, -2])
        prior = driving_prior(driving, make_head(points))[None]
        made.append(_run(generator, driving=render_heatmaps(driving)[None], prior=prior, **features))
        made[-1]["points"] = heatmap_points(heatmaps[0])[0]
    full, half = made
    assert np.abs(half["points"] - full["points"]).max() < 0.05
    assert np.abs(half["flow"] - full["flow"]).max() < 0.05
    assert np.abs(half["colour"] - full["colour"]).max() * 255 < 2
    assert not np.array_equal(half["flow"], full["flow"])


@pytest.mark.parametrize(("precision", "pixels", "grey_levels"), [("f16", 0.25, 3), ("bf16", 3, 24)])
def test_values_rounded_as_a_card_rounds_them(
    bundle: Bundle, crop: Image, precision: str, pixels: float, grey_levels: float
) -> None:
    full, half = (load_models("torch", one, bundle, "cpu") for one in ("f32", precision))
    points = heatmap_points(full.detect(crop))[0]
    worst = difference(half, full, [Face(crop, make_head(points), [points * np.float32([1.02, 1.05]) - 4])])
    assert 0 < worst["landmarks"] < pixels
    assert 0 < worst["flow"] < pixels
    assert 0 < worst["colour"] < grey_levels
    assert f"{worst['flow']:.3f} px of flow" in sentence(worst)
