"""The reference engine's operators against ONNX Runtime, each in a graph of its own."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.graph import OPERATORS, Graph

SHAPE = (1, 8, 12, 10)
WEIGHTS = np.random.default_rng(1).standard_normal((8, 8, 3, 3)).astype(np.float32)
ONES = np.linspace(0.5, 1.5, 8).astype(np.float32)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


# Operator, its constant inputs after the picture (None leaves one out), its attributes.
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Conv", [WEIGHTS, ONES], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [WEIGHTS[:, :1], None], {"pads": [0, 1, 2, 1], "group": 8}),
    ("Conv", [WEIGHTS], {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    ("ConvTranspose", [WEIGHTS, ONES], {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]}),
    ("BatchNormalization", [ONES, ONES - 1, ONES, ONES * 2], {}),
    ("InstanceNormalization", [ONES, ONES - 1], {"epsilon": 1e-3}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", [], {}),
    (
        "Resize",
        [None, np.float32([1, 1, 2, 2])],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    ("Resize", [None, np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    ("Resize", [None, None, _ints(1, 8, 7, 5)], {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    (
        "GridSample",
        [np.random.default_rng(2).uniform(-1.2, 1.2, (1, 5, 6, 2)).astype(np.float32)],
        {"padding_mode": "border"},
    ),
    (
        "GridSample",
        [np.random.default_rng(3).uniform(-1.2, 1.2, (1, 5, 6, 2)).astype(np.float32)],
        {"align_corners": 1},
    ),
    ("DepthToSpace", [], {"blocksize": 2}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [], {"blocksize": 2}),
    ("Concat", [np.ones(SHAPE, np.float32)], {"axis": 1}),
    ("Slice", [_ints(1, -6), _ints(8, 2**62), _ints(1, 2), _ints(2, 3)], {}),
    ("Split", [_ints(3, 5)], {"axis": 1}),
    ("Reshape", [_ints(0, 4, 2, -1)], {}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Shape", [], {}),
    ("Expand", [_ints(2, 1, 12, 10)], {}),
    ("Unsqueeze", [_ints(0, 3)], {}),
    ("Cast", [], {"to": TensorProto.DOUBLE}),
    ("ReduceMean", [], {"axes": [2, 3]}),
    ("ReduceSum", [_ints(1)], {"keepdims": 0}),
    ("MatMul", [WEIGHTS[0, 0, :1].repeat(10, 0)], {}),
    ("Softmax", [], {"axis": 1}),
    ("Clip", [np.float32(-0.3), np.float32(0.4)], {}),
    ("Clip", [None, np.float32(0.4)], {}),
    ("PRelu", [ONES[:, None, None]], {}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("HardSigmoid", [], {}),
    ("Pow", [np.float32(2)], {}),
    *[(name, [ONES[:, None, None]], {}) for name in ("Add", "Sub", "Mul", "Div")],
    *[(name, [], {}) for name in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Neg", "Identity", "Reciprocal")],
]


@pytest.mark.parametrize(
    ("operator", "constants", "attributes"), CASES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_operator_agrees_with_onnx_runtime(operator: str, constants: list[Any], attributes: dict[str, Any]) -> None:
    names = ["" if constant is None else f"c{i}" for i, constant in enumerate(constants)]
    outputs = ["y", "z"][: 2 if operator == "Split" else 1]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *names], outputs, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(c), n) for c, n in zip(constants, names, strict=True) if n],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(outputs, {"x": x})
    made = Graph(model, "cpu")(x=torch.from_numpy(x))
    for name, array in zip(outputs, expected, strict=True):
        assert made[name].shape == array.shape
        assert made[name].numpy() == pytest.approx(array, abs=1e-5)


def test_every_operator_is_tested() -> None:
    assert {operator for operator, _, _ in CASES} == set(OPERATORS)
