"""The TensorRT engine, for NVIDIA cards: plans of `engines.plan`, run by cuda-python.

One stream; host buffers are pinned and, like the card's, made once; a photo's features stay on the card. A graph's
copies and kernels are one CUDA graph, so that a frame is two launches.
"""

import math
import sys
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from cuda.bindings import runtime as cuda
from numpy.typing import NDArray

from engines.bundle import GRAPHS, Bundle, EngineError
from engines.cache import Entry
from engines.cuda import ON_CARD, TO_CARD, TO_HOST, card_memory, done, pinned_array
from engines.nvidia import Card, card
from engines.nvidia import devices as devices
from engines.plan import DEFAULT, build, entry, flavour, log_of

Array = NDArray[np.float32]
CAPTURE = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads may allocate the while


class Features:
    """A photo's features, in the card's memory until the object goes."""

    def __init__(self, program: "_Program", names: frozenset[str], stream: Any) -> None:
        self.places: dict[str, int] = {}
        for name in names:
            self.places[name] = place = done(cuda.cudaMalloc(program.sizes[name]))
            weakref.finalize(self, cuda.cudaFree, place)
            done(cuda.cudaMemcpyAsync(place, program.places[name], program.sizes[name], ON_CARD, stream))
        done(cuda.cudaStreamSynchronize(stream))


class Models:
    """The three models as the Models protocol wants them. One thread at a time has it; `detect` may run beside it.

    Arrays that a method returns are pinned buffers: they hold until the next call of the same method, or `close`.
    """

    engine = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,  # noqa: ARG002  the processor has nothing to do
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Compile a bundle, or take it from the cache, and make it ready on the card.

        `precision` is one of engines.plan.PRECISIONS, by default f16; `device` is such as "cuda:0", by default the
        first card; `say` is told how each graph was come by. Raises EngineError for what is not there or cannot be.
        """
        try:
            self._card = card(device)
        except EngineError as error:
            raise EngineError(f"--engine tensorrt cannot run here: {error}; or choose --engine openvino") from None
        self.device, self.precision = self._card.name, precision or DEFAULT
        done(cuda.cudaSetDevice(self._card.number))  # plans are compiled for the current card
        plans = build(bundle, self.precision, self._card, say)
        self._resident = frozenset(bundle.features)
        self._features: Features | None = None
        with ExitStack() as stack:
            self._stream = done(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
            stack.callback(cuda.cudaStreamDestroy, self._stream)
            self._programs = {}
            for name in GRAPHS:
                kernels = entry(bundle, f"{name}-kernels", self.precision, self._card)
                self._programs[name] = _Program(plans[name], kernels, self._card, self._stream, self._resident, stack)
            self._stack = stack.pop_all()

    def detect(self, crop: NDArray[np.uint8]) -> Array:
        """Crop (256, 256, 3) RGB uint8 -> heatmaps (56, 64, 64) in [0, 1]."""
        heatmaps: Array = self._run("detector", crop=crop)["heatmaps"][0]
        return heatmaps

    def encode_target(self, crop: NDArray[np.uint8], heatmaps: Array) -> Features:
        """The photo's features, for `generate`: crop (256, 256, 3) RGB uint8 and its heatmaps (56, 64, 64)."""
        self._run("target_encoder", crop=crop, heatmaps=heatmaps)
        return Features(self._programs["target_encoder"], self._resident, self._stream)

    def generate(self, driving: Array, prior: Array, features: Features) -> tuple[Array, Array, Array]:
        """Heatmaps (56, 64, 64), prior (3, 128, 128) -> flow (2, 128, 128), mask (256, 256), colour (256, 256, 3)."""
        if features is not self._features:  # once per photo: the generator's buffers never move
            program = self._programs["generator"]
            for name, place in features.places.items():
                done(cuda.cudaMemcpyAsync(program.places[name], place, program.sizes[name], ON_CARD, self._stream))
            self._features = features
        made = self._run("generator", driving=driving, prior=prior)
        return made["flow"][0], made["mask"][0, 0], made["colour"][0]

    def close(self) -> None:
        """Give back the card's memory and the pinned one."""
        self._programs.clear()
        self._features = None
        self._stack.close()

    def _run(self, name: str, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        done(cuda.cudaSetDevice(self._card.number))  # the choice is a thread's, and the thread may be another now
        program = self._programs[name]
        for tensor, array in inputs.items():
            program.arrays[tensor][0] = array
        program.launch()
        done(cuda.cudaStreamSynchronize(self._stream))
        return program.arrays


class _Program:
    """One plan on the card: its buffers, and its launch. `stack` lets go of them.

    places and sizes: every tensor's address on the card, and its bytes; arrays: all but `resident` ones, pinned.
    """

    def __init__(
        self, plan: bytes, kernels: Entry, device: Card, stream: Any, resident: frozenset[str], stack: ExitStack
    ) -> None:
        self._tensorrt, self._stream, self._log = flavour(device), stream, log_of(flavour(device))
        self._log.clear()
        self._runtime = self._tensorrt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = None if self._engine is None else self._new_context(kernels)
        if self._context is None:
            raise EngineError(f"{self._tensorrt.__name__} cannot run on {device}: {self._log.complaint()}")
        self.places, self.sizes = dict[str, int](), dict[str, int]()
        self.arrays: dict[str, NDArray[Any]] = {}
        self._copies: tuple[list[Any], list[Any]] = [], []  # before the kernels, and after them
        for number in range(self._engine.num_io_tensors):
            self._place(self._engine.get_tensor_name(number), resident, stack)
        self._enqueue()  # compiles what is compiled at first use, which a capture could not
        done(cuda.cudaStreamSynchronize(stream))
        if self._kernels is not None and (made := bytes(self._kernels.serialize())) != kernels.read():
            kernels.keep(made)
        self._graph = self._captured(stack)

    def launch(self) -> None:
        """Have the card do it all, and do not wait."""
        if self._graph is None:
            self._enqueue()
        else:
            done(cuda.cudaGraphLaunch(self._graph, self._stream))

    def _enqueue(self) -> None:
        for copy in self._copies[0]:
            done(cuda.cudaMemcpyAsync(*copy, self._stream))
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT failed on the card: {self._log.complaint()}")
        for copy in self._copies[1]:
            done(cuda.cudaMemcpyAsync(*copy, self._stream))

    def _captured(self, stack: ExitStack) -> Any:
        """The copies and kernels as a CUDA graph, or None, and a word of it, where they cannot be one."""
        capturable = getattr(
            self._context, "is_stream_capturable", None
        )  # `tensorrt` always is, and has no such method
        if capturable is not None and not capturable(int(self._stream)):
            print("TensorRT's work cannot be a CUDA graph here: it is launched step by step", file=sys.stderr)
            return None
        done(cuda.cudaStreamBeginCapture(self._stream, CAPTURE))
        self._enqueue()
        recorded = done(cuda.cudaStreamEndCapture(self._stream))
        stack.callback(cuda.cudaGraphDestroy, recorded)
        graph = done(cuda.cudaGraphInstantiate(recorded, 0))
        stack.callback(cuda.cudaGraphExecDestroy, graph)
        return graph

    def _new_context(self, kernels: Entry) -> Any:
        """An execution context; for RTX with the kernels that earlier starts compiled."""
        if not hasattr(self._tensorrt, "IRuntimeCache"):
            self._kernels = None
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        self._kernels = config.create_runtime_cache()
        if kept := kernels.read():
            self._kernels.deserialize(kept)  # what it cannot use, it leaves, and compiles afresh
        config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(runtime_config=config)

    def _place(self, name: str, resident: frozenset[str], stack: ExitStack) -> None:
        """Make a tensor's buffers."""
        shape = tuple(self._engine.get_tensor_shape(name))
        kind = np.dtype(self._tensorrt.nptype(self._engine.get_tensor_dtype(name)))
        self.sizes[name] = size = math.prod(shape) * kind.itemsize
        self.places[name] = place = card_memory(size, stack)
        self._context.set_tensor_address(name, place)
        if name not in resident:
            self.arrays[name] = pinned_array(shape, kind, stack)
            host = self.arrays[name].ctypes.data
            if self._engine.get_tensor_mode(name) == self._tensorrt.TensorIOMode.INPUT:
                self._copies[0].append((place, host, size, TO_CARD))
            else:
                self._copies[1].append((host, place, size, TO_HOST))
