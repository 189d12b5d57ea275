"""An ONNX graph run by PyTorch, node by node: the operators that the trainer's export emits, and no others."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from engines.bundle import EngineError

Tensor = torch.Tensor
Attributes = dict[str, Any]
Operator = Callable[..., Tensor | Sequence[Tensor]]  # attributes first, then the node's inputs
TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


class Graph:
    """An ONNX graph that PyTorch runs: named tensors in, named tensors out."""

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        """Raises EngineError for an operator that is not in OPERATORS."""
        unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS.keys() - {"Constant"})
        if unknown:
            raise EngineError(f"the torch engine does not know the operators {', '.join(unknown)}")
        # What Python reads stays where it can: a scale read from a card would make every frame wait.
        here = {node.input[2] for node in model.graph.node if node.op_type == "Resize" and len(node.input) > 2}
        self._constants = {
            weight.name: _constant(weight, "cpu" if weight.name in here else device)
            for weight in model.graph.initializer
        }
        self._nodes: list[tuple[Operator, Attributes, list[str], list[str]]] = []
        self._outputs = [output.name for output in model.graph.output]
        for node in model.graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                name = node.output[0]
                self._constants[name] = _constant(attributes["value"], "cpu" if name in here else device)
            else:
                self._nodes.append((OPERATORS[node.op_type], attributes, list(node.input), list(node.output)))

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        values = self._constants | inputs
        for operator, attributes, taken, given in self._nodes:
            made = operator(attributes, *(values[name] if name else None for name in taken))
            values.update(zip(given, [made] if isinstance(made, Tensor) else made, strict=True))
        return {name: values[name] for name in self._outputs}


def _constant(value: onnx.TensorProto, device: str) -> Tensor:
    """A weight goes to the device; shapes and indices stay where Python can read them."""
    array = numpy_helper.to_array(value)
    if value.data_type == onnx.TensorProto.BFLOAT16:  # numpy has no such type
        array = array.astype(np.float32)
    tensor = torch.from_numpy(array.copy()).to(TYPES[value.data_type])
    return tensor.to(device) if tensor.is_floating_point() else tensor


def _padded(a: Attributes, x: Tensor, value: float = 0.0) -> Tensor:
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    return F.pad(x, (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else x


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, dilation = a.get("strides", (1, 1)), a.get("dilations", (1, 1))
    if x.dtype == torch.float16 and x.device.type == "cpu":  # adds up in f32 and rounds the sum, as a card does
        return _conv(a, x.float(), weight.float(), None if bias is None else bias.float()).half()
    return F.conv2d(_padded(a, x), weight, bias, tuple(stride), 0, tuple(dilation), a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    stride, padding = tuple(a.get("strides", (1, 1))), tuple(a.get("pads", (0, 0, 0, 0))[:2])
    extra = tuple(a.get("output_padding", (0, 0)))
    return F.conv_transpose2d(x, weight, bias, stride, padding, extra, a.get("group", 1))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    return F.max_pool2d(_padded(a, x, -torch.inf), tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1))))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    if any(a.get("pads", ())) and not a.get("count_include_pad", 0):
        raise EngineError("the torch engine averages over padding only where the padding counts")
    return F.avg_pool2d(_padded(a, x), tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1))))


def _resize(
    a: Attributes, x: Tensor, _roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None = None
) -> Tensor:
    mode, places = a.get("mode", b"nearest"), a.get("coordinate_transformation_mode", b"half_pixel")
    if scales is not None and scales.numel():
        size = [int(extent * scale) for extent, scale in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    else:
        assert sizes is not None
        size = sizes.tolist()[2:]
    if (mode, places) == (b"nearest", b"asymmetric"):
        return F.interpolate(x, size)
    if mode == b"linear" and places in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        return F.interpolate(x, size, mode="bilinear", align_corners=places == b"align_corners")
    raise EngineError(f"the torch engine does not know the resize {mode.decode()} {places.decode()}")


def _grid_sample(a: Attributes, x: Tensor, grid: Tensor) -> Tensor:
    mode, padding = a.get("mode", b"bilinear").decode(), a.get("padding_mode", b"zeros").decode()
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)  # as opset 20 calls them
    return F.grid_sample(x, grid, mode, padding, align_corners=bool(a.get("align_corners", 0)))


def _slice(
    _: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    count = len(starts)
    along = axes.tolist() if axes is not None else range(count)
    by = steps.tolist() if steps is not None else [1] * count
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), by, strict=True):
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _split(a: Attributes, x: Tensor, sizes: Tensor) -> Sequence[Tensor]:
    return torch.split(x, sizes.tolist(), a.get("axis", 0))


def _reduce(a: Attributes, x: Tensor, axes: Tensor | None, how: Callable[..., Tensor]) -> Tensor:
    along = axes.tolist() if axes is not None else a.get("axes", range(x.ndim))
    return how(x, tuple(along), keepdim=bool(a.get("keepdims", 1)))


def _unsqueeze(_: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _reshape(_: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(shape.tolist())])


def _cast(a: Attributes, x: Tensor) -> Tensor:
    return x.to(TYPES[a["to"]])


def _space_to_depth(a: Attributes, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    block = a["blocksize"]
    cells = x.reshape(batch, channels, height // block, block, width // block, block)
    return cells.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    block = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, block, block, channels // block**2, height, width)
    return cells.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // block**2, height * block, width * block)


OPERATORS: dict[str, Operator] = {
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "Pow": lambda a, x, y: x**y,
    "Reciprocal": lambda a, x: 1 / x,
    "Exp": lambda a, x: x.exp(),
    "Neg": lambda a, x: -x,
    "Clip": lambda a, x, low=None, high=None: x.clamp(low, high),
    "Identity": lambda a, x: x,
    "Relu": lambda a, x: x.relu(),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "PRelu": lambda a, x, slope: torch.where(x < 0, x * slope, x),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Tanh": lambda a, x: x.tanh(),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": lambda a, x, y: x @ y,
    "BatchNormalization": lambda a, x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, eps=a.get("epsilon", 1e-5)),
    "InstanceNormalization": lambda a, x, w, b: F.instance_norm(x, weight=w, bias=b, eps=a.get("epsilon", 1e-5)),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "ReduceMean": lambda a, x, axes=None: _reduce(a, x, axes, torch.mean),
    "ReduceSum": lambda a, x, axes=None: _reduce(a, x, axes, torch.sum),
    "Resize": _resize,
    "GridSample": _grid_sample,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Shape": lambda a, x: torch.tensor(x.shape),
    "Expand": lambda a, x, shape: x.expand(np.broadcast_shapes(x.shape, shape.tolist())),
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Cast": _cast,
}
