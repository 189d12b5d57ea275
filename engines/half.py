"""Half precision, written into the ONNX graphs themselves: TensorRT's networks are strongly typed.

Convolutions and what lies between them keep their values in 16 bits. Whatever is a coordinate or an output stays in
float32: what is made of the inputs before the first convolution; sampling grids and the graph's outputs, back to the
last convolution before them, it included; and the sampling. Inputs and outputs of a graph keep their types.
"""

import onnx
import onnx.version_converter
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

HALVES = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
CONVOLUTIONS = ("Conv", "ConvTranspose")
# Inputs that are no pictures, but coordinates or sizes, by operator.
COORDINATES = {"GridSample": (1,), "Resize": (1, 2, 3)}
BF16_OPSET = 22  # the first one whose convolutions know bf16


def halved(model: ModelProto, precision: str) -> ModelProto:
    """The graph in one of HALVES, weights and casts included; `model` itself may be changed."""
    kind = HALVES[precision]
    if precision == "bf16":
        model = onnx.version_converter.convert_version(model, BF16_OPSET)
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    floats = _floats(graph)
    chosen = _half_nodes(graph, floats)
    halves = {output for number in chosen for output in graph.node[number].output}
    weights = {weight.name: weight for weight in graph.initializer}
    nodes, made = [], set()

    def converted(name: str, to: int, suffix: str) -> str:
        result = f"{name}/{suffix}"
        if result not in made and name in weights:
            array = numpy_helper.to_array(weights[name]).astype(helper.tensor_dtype_to_np_dtype(to))
            graph.initializer.append(numpy_helper.from_array(array, result))
        elif result not in made:
            nodes.append(helper.make_node("Cast", [name], [result], f"{result}/cast", to=to))
        made.add(result)
        return result

    for number, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if number not in chosen and name in halves:
                node.input[place] = converted(name, TensorProto.FLOAT, "f32")
            elif number in chosen and name in floats - halves and place not in COORDINATES.get(node.op_type, ()):
                node.input[place] = converted(name, kind, precision)
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _floats(graph: GraphProto) -> set[str]:
    """Names of the values in float32; a shape or an index is none."""
    values = (*graph.value_info, *graph.input, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    constants = [node for node in graph.node if node.op_type == "Constant"]
    return floats | {node.output[0] for node in constants if node.attribute[0].t.data_type == TensorProto.FLOAT}


def _half_nodes(graph: GraphProto, floats: set[str]) -> set[int]:
    """Numbers of the nodes that work in 16 bits: after the first convolution, before the last one, and no sampling."""
    maker = {output: number for number, node in enumerate(graph.node) for output in node.output}
    wanted = [output.name for output in graph.output]
    wanted += [node.input[1] for node in graph.node if node.op_type == "GridSample"]
    precise = {number for number, node in enumerate(graph.node) if node.op_type == "GridSample"}
    while wanted:
        number = maker.get(wanted.pop())
        if number is not None and number not in precise:
            precise.add(number)
            if graph.node[number].op_type not in CONVOLUTIONS:
                wanted += graph.node[number].input
    convolved: set[str] = set()
    chosen = set()
    for number, node in enumerate(graph.node):
        if node.op_type in CONVOLUTIONS or convolved.intersection(node.input):
            convolved.update(node.output)
            if number not in precise and floats.issuperset(node.output):
                chosen.add(number)
    return chosen
