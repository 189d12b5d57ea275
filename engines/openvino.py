"""The OpenVINO engine: the default on processors."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from engines.bundle import GRAPHS, Bundle, EngineError
from engines.cache import Entry

Array = NDArray[np.float32]
Features = dict[str, ov.Tensor]

PRECISIONS = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16}
INT8 = "int8"  # of the convolutions that a bundle has so; the rest is in the device's best floating point
RECIPE = 2  # of the programs that are compiled: a new one makes every program in a cache stale
PLANAR = {"prior", "flow", "mask"}  # every other tensor of four dimensions has its channels last in memory


def devices() -> dict[str, str]:
    """The devices OpenVINO finds, with their full names: {"CPU": "Intel(R) ...", "GPU": ...}."""
    core = ov.Core()
    return {name: str(core.get_property(name, "FULL_DEVICE_NAME")).strip() for name in core.available_devices}


class Models:
    """The three models as the Models protocol wants them. One thread owns it; `detect` may run beside it, in another.

    Arrays that a method returns are the engine's own memory: they hold until the same method is called again.
    """

    engine = "openvino"

    def __init__(
        self,
        bundle: Bundle,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Compile a bundle, or take it from the cache.

        `precision` is int8 or one of PRECISIONS; None takes int8 on a processor if it and the bundle have it, else bf16
        or f16 where the device has them, else f32. `device` is OpenVINO's name, by default the processor; `threads`
        bounds the processor threads, by default one per physical core; `say` is told how each graph was come by.
        Raises EngineError for what is not there or cannot be.
        """
        core = ov.Core()
        self._device_name = device or "CPU"
        if self._device_name not in core.available_devices:
            raise EngineError(
                f"OpenVINO has no device {device!r} here: choose one of {', '.join(core.available_devices)}"
            )
        self.device = str(core.get_property(self._device_name, "FULL_DEVICE_NAME")).strip()
        self.precision, self._floating = self._precisions(core, bundle, precision)
        self._settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[self._floating]}
        if threads is not None and self._device_name == "CPU":
            self._settings["INFERENCE_NUM_THREADS"] = threads
        programs = {name: self._program(core, bundle, name, say) for name in GRAPHS}
        self._detector = programs["detector"].create_infer_request()
        self._encoder = programs["target_encoder"].create_infer_request()
        self._generator = programs["generator"].create_infer_request()
        self._feature_names = list(bundle.features)
        self._features: Features | None = None

    def detect(self, crop: NDArray[np.uint8]) -> Array:
        """Crop (256, 256, 3) RGB uint8 -> heatmaps (56, 64, 64) in [0, 1]."""
        _put(self._detector, "crop", crop)
        self._detector.infer()
        return _output(self._detector, "heatmaps").transpose(2, 0, 1)

    def encode_target(self, crop: NDArray[np.uint8], heatmaps: Array) -> Features:
        """The photo's features, for `generate`: crop (256, 256, 3) RGB uint8 and its heatmaps (56, 64, 64)."""
        _put(self._encoder, "crop", crop)
        _put(self._encoder, "heatmaps", heatmaps.transpose(1, 2, 0))
        self._encoder.infer()
        return {name: ov.Tensor(self._encoder.get_tensor(name).data) for name in self._feature_names}

    def generate(self, driving: Array, prior: Array, features: Features) -> tuple[Array, Array, Array]:
        """Heatmaps (56, 64, 64), prior (3, 128, 128) -> flow (2, 128, 128), mask (256, 256), colour (256, 256, 3)."""
        request = self._generator
        if features is not self._features:  # the request keeps the tensors: nothing is copied from frame to frame
            for name, tensor in features.items():
                request.set_tensor(name, tensor)
            self._features = features
        _put(request, "driving", driving.transpose(1, 2, 0))
        _put(request, "prior", prior)
        request.infer()
        return _output(request, "flow"), _output(request, "mask")[0], _output(request, "colour")

    def close(self) -> None:
        """Let go of the compiled programs."""
        del self._detector, self._encoder, self._generator
        self._features = None

    def _precisions(self, core: ov.Core, bundle: Bundle, asked: str | None) -> tuple[str, str]:
        """The precision to run in, and that of what is not int8."""
        capabilities = core.get_property(self._device_name, "OPTIMIZATION_CAPABILITIES")
        half, capability = ("bf16", "BF16") if self._device_name == "CPU" else ("f16", "FP16")
        floating = half if capability in capabilities else "f32"
        if asked not in (None, INT8, *PRECISIONS):
            raise EngineError(f"there is no precision {asked!r}: choose one of {', '.join((INT8, *PRECISIONS))}")
        if asked == INT8 and not bundle.quantized:
            raise EngineError(f"the model bundle {bundle.folder} has no int8 graphs: `export --data` makes them")
        if asked == INT8 and "INT8" not in capabilities:
            raise EngineError(f"{self.device} has no int8: OpenVINO would run something slower there")
        if asked is None:
            quick = bundle.quantized and self._device_name == "CPU" and "INT8" in capabilities
            return INT8 if quick else floating, floating
        return asked, floating if asked == INT8 else asked

    def _program(self, core: ov.Core, bundle: Bundle, name: str, say: Callable[[str], None] | None) -> ov.CompiledModel:
        started = time.perf_counter()
        graph = bundle.int8_graph(name) if self.precision == INT8 else bundle.graph(name)
        entry = Entry(
            bundle.weights_hash, name, self.engine, f"{ov.get_version()}/{RECIPE}", self.device, self.precision
        )
        cached = _cached(core, entry, self._device_name, self._settings)
        program = cached or _compiled(core, graph, self._device_name, self._settings)
        running = program.get_property("INFERENCE_PRECISION_HINT").to_string()
        if running != self._floating:
            raise EngineError(f"{self.device} cannot run {self._floating}: OpenVINO would run {running} there")
        if cached is None:
            _keep(program, entry)
        if say:
            origin = "compiled" if cached is None else "from the cache"
            say(f"{name}: {origin} in {time.perf_counter() - started:.2f} s, {self.precision}")
        return program


def _cached(core: ov.Core, entry: Entry, device: str, settings: dict[str, object]) -> ov.CompiledModel | None:
    if (blob := entry.read()) is None:
        return None
    try:
        return core.import_model(BytesIO(blob), device, settings)
    except RuntimeError:  # a driver or plugin that changed without changing its version: compile afresh
        return None


def _compiled(core: ov.Core, graph: Path, device: str, settings: dict[str, object]) -> ov.CompiledModel:
    try:
        return core.compile_model(_with_program_layouts(core.read_model(graph)), device, settings)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compile {graph} for {device}: {_last_line(error)}") from error


def _keep(program: ov.CompiledModel, entry: Entry) -> None:
    stream = BytesIO()
    program.export_model(stream)
    entry.keep(stream.getvalue())


def _with_program_layouts(model: ov.Model) -> ov.Model:
    """Have tensors lie in memory as processors' convolutions want them, and pictures as the program holds them: with
    the channels last, (1, 256, 256, 3); pictures come as bytes."""
    steps = PrePostProcessor(model)
    for side, ports in ((steps.input, model.inputs), (steps.output, model.outputs)):
        for port in ports:
            name = port.any_name
            if name in PLANAR or len(port.partial_shape) != 4:
                continue
            tensor = side(name)
            tensor.model().set_layout(ov.Layout("NCHW"))
            tensor.tensor().set_layout(ov.Layout("NHWC"))
            if name == "crop":
                tensor.tensor().set_element_type(ov.Type.u8)
                tensor.preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return steps.build()


def _put(request: ov.InferRequest, name: str, array: NDArray[np.generic]) -> None:
    """Copy an input into the program's memory, which would stretch or cut what is of another shape or type."""
    memory = request.get_tensor(name).data[0]
    if (array.shape, array.dtype) != (memory.shape, memory.dtype):
        raise ValueError(f"{name} should be {memory.dtype} of {memory.shape}, not {array.dtype} of {array.shape}")
    memory[:] = array


def _output(request: ov.InferRequest, name: str) -> Array:
    output: Array = request.get_tensor(name).data[0]
    return output


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
