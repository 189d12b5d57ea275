"""TensorRT plans: a bundle's graphs compiled for a card, or for any card of RTX where there is none.

Two packages have the same interface: `tensorrt_rtx` for GeForce and RTX cards, which builds without a card, and
`tensorrt` for data-centre cards. The graphs take the crop, and give the colour, as the program holds pictures:
(1, 256, 256, 3), the crop in uint8.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tqdm import tqdm

from engines.bundle import GRAPHS, Bundle, EngineError
from engines.cache import Entry
from engines.half import HALVES, halved
from engines.nvidia import Card

PRECISIONS = ("f32", *HALVES)
DEFAULT = "f16"
RECIPE = 1  # of the graphs that are compiled: a new one makes every plan in a cache stale
LISTING = "LayerType: "  # in the builder's list of layers, once for each


class Plan(NamedTuple):
    """A compiled graph. layers: how many TensorRT made of it; types: how often they read or write a type of number."""

    program: bytes
    layers: int
    types: dict[str, int]


def flavour(card: Card | None) -> ModuleType:
    """The package for a card: `tensorrt_rtx` where it knows the card, or where there is no other."""
    if find_spec("tensorrt_rtx") is not None:
        rtx = import_module("tensorrt_rtx")
        if card is None or supports(rtx, card) or find_spec("tensorrt") is None:
            return rtx
    return import_module("tensorrt")


def supports(tensorrt: ModuleType, card: Card) -> bool:
    """Whether a package lists a card's compute capability; `tensorrt` lists none, and knows them all."""
    known = getattr(tensorrt, "ComputeCapability", None)
    return known is None or "SM{}{}".format(*card.capability) in known.__members__


def entry(bundle: Bundle, graph: str, precision: str, card: Card | None) -> Entry:
    """Where the plan of one of GRAPHS is kept."""
    tensorrt = flavour(card)
    device = "any RTX card" if card is None else str(card)
    return Entry(bundle.weights_hash, graph, tensorrt.__name__, f"{tensorrt.__version__}/{RECIPE}", device, precision)


def build(bundle: Bundle, precision: str, card: Card | None, say: Callable[[str], None] | None) -> dict[str, bytes]:
    """The plans of all graphs, from the cache or compiled. Raises EngineError in TensorRT's words where it cannot."""
    if precision not in PRECISIONS:
        raise EngineError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    plans = {}
    for graph in GRAPHS:
        started = time.perf_counter()
        place = entry(bundle, graph, precision, card)
        program = place.read()
        origin = "from the cache"
        if program is None:
            plan = compiled(prepared(bundle, graph, precision), graph, card)
            place.keep(program := plan.program)
            types = ", ".join(f"{count} {name}" for name, count in plan.types.items())
            origin = f"{plan.layers} layers, their tensors {types}, compiled"
        plans[graph] = program
        if say:
            say(f"{graph}: {origin} in {time.perf_counter() - started:.2f} s, {precision}")
    return plans


def prepared(bundle: Bundle, graph: str, precision: str) -> ModelProto:
    """One of a bundle's graphs at a precision, its pictures laid out as the program has them."""
    try:
        model = onnx.load(bundle.graph(graph))
    except DecodeError as error:
        raise EngineError(f"{bundle.graph(graph)} is not an ONNX graph") from error
    return _with_program_layouts(halved(model, precision) if precision in HALVES else model)


def compiled(model: ModelProto, name: str, card: Card | None) -> Plan:
    """Compile a graph; `name` is for messages. Raises EngineError in the words of TensorRT's parser or builder."""
    tensorrt = flavour(card)
    log = log_of(tensorrt)
    log.clear()
    try:
        builder = tensorrt.Builder(log)
    except TypeError:  # how its bindings say that the library gave them nothing
        raise EngineError(f"{tensorrt.__name__} cannot build here: {log.complaint()}") from None
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        said = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise EngineError(f"TensorRT cannot read {name}.onnx: {said}")
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # for the list of layers
    if card is not None and supports(tensorrt, card) and hasattr(tensorrt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(tensorrt.ComputeCapability.CURRENT, 0)
    with tqdm(desc=f"compiling {name}", leave=False, disable=None) as bar:
        config.progress_monitor = _progress(tensorrt, bar)
        program = builder.build_serialized_network(network, config)
    if program is None:
        raise EngineError(f"TensorRT cannot compile {name}.onnx: {log.complaint()}")
    return Plan(bytes(program), *layers("\n".join(log.listing)))


def layers(listing: str) -> tuple[int, dict[str, int]]:
    """Number of layers and counts of number types in TensorRT's own list: the builder's or its engine inspector's."""
    return listing.count(LISTING), dict(Counter(re.findall(r"Datatype: (\w+)", listing)).most_common())


@cache
def log_of(tensorrt: ModuleType) -> Any:
    """A log that remembers complaints and the list of layers, and prints nothing: TensorRT wants one per process."""

    class Log(tensorrt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.clear()

        def clear(self) -> None:
            self.errors: list[str] = []
            self.listing: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(tensorrt.ILogger.Severity.ERROR):
                self.errors.append(message)
            elif LISTING in message:
                self.listing.append(message)

        def complaint(self) -> str:
            return " ".join((self.errors or ["it gave no reason"])[0].split())

    return Log()


def _progress(tensorrt: ModuleType, bar: Any) -> Any:
    """A monitor that moves a bar by the steps of the outermost phase."""

    class Progress(tensorrt.IProgressMonitor):  # type: ignore[misc, name-defined]
        outermost: str | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self.outermost = phase
                bar.reset(steps)

        def step_complete(self, phase: str, _step: int) -> bool:
            if phase == self.outermost:
                bar.update()
            return True

        def phase_finish(self, phase: str) -> None: ...

    return Progress()


def _with_channels_last(tensor: onnx.ValueInfoProto, kind: int) -> None:
    """An input's or output's declaration, (1, 3, height, width), as (1, height, width, 3) of another type."""
    shape = [dim.dim_value for dim in tensor.type.tensor_type.shape.dim]
    tensor.CopyFrom(helper.make_tensor_value_info(tensor.name, kind, [shape[i] for i in (0, 2, 3, 1)]))


def _with_program_layouts(model: ModelProto) -> ModelProto:
    """The graph, taking uint8 pictures and giving pictures as (1, height, width, 3)."""
    graph = model.graph
    first, last = [], []
    for tensor in graph.input:
        if tensor.name == "crop":
            _rename(graph, "crop", "crop/planes")
            _with_channels_last(tensor, TensorProto.UINT8)
            graph.initializer.append(numpy_helper.from_array(np.float32(255), "crop/white"))
            first += [
                helper.make_node("Cast", ["crop"], ["crop/float"], to=TensorProto.FLOAT),
                helper.make_node("Transpose", ["crop/float"], ["crop/turned"], perm=[0, 3, 1, 2]),
                helper.make_node("Div", ["crop/turned", "crop/white"], ["crop/planes"]),
            ]
    for tensor in graph.output:
        if tensor.name == "colour":
            _rename(graph, "colour", "colour/planes")
            _with_channels_last(tensor, TensorProto.FLOAT)
            last.append(helper.make_node("Transpose", ["colour/planes"], ["colour"], perm=[0, 2, 3, 1]))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _rename(graph: onnx.GraphProto, name: str, to: str) -> None:
    """Give a value another name wherever a node takes or makes it."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [to if one == name else one for one in names]
