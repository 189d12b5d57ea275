"""The reference engine: the bundle's own graphs in PyTorch. It is there to judge the others by, and for cards that
TensorRT does not serve: node by node, compiled, or as CUDA graphs."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch.fx.experimental.proxy_tensor import make_fx

from engines.bundle import GRAPHS, Bundle, EngineError
from engines.graph import Graph
from engines.half import HALVES, halved

Array = NDArray[np.float32]
Features = dict[str, torch.Tensor]
Run = Callable[..., dict[str, torch.Tensor]]  # named tensors in, named tensors out

PRECISIONS = ("f32", *HALVES)


def devices() -> dict[str, str]:
    """The devices torch finds, with their full names: {"cpu": "the processor", "cuda:0": "NVIDIA ..."}."""
    cards = {f"cuda:{n}": torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
    return {"cpu": "the processor", **cards}


class _Base:
    """The three models as the Models protocol wants them, on a CUDA device where there is one."""

    engine: str

    def __init__(
        self,
        bundle: Bundle,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Read a bundle at one of PRECISIONS, f32 by default.

        Raises EngineError for an absent device, an unknown precision or operator.
        """
        self.precision = precision or "f32"
        if self.precision not in PRECISIONS:
            raise EngineError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"torch has no device {self.device!r} here: choose cpu") from error
        if self.precision == "f32":
            torch.backends.cudnn.allow_tf32 = False  # 10 bits are no reference
        if threads is not None:
            torch.set_num_threads(threads)
        self._graphs: dict[str, Run] = {}
        for name in GRAPHS:
            started = time.perf_counter()
            try:
                model = onnx.load(bundle.graph(name))
            except DecodeError as error:
                raise EngineError(f"{bundle.graph(name)} is not an ONNX graph") from error
            graph = Graph(halved(model, self.precision) if self.precision in HALVES else model, self.device)
            shapes = bundle.card["graphs"][name]["inputs"]
            with torch.inference_mode():
                self._graphs[name] = self._ready(
                    graph, {key: torch.zeros(shape, device=self.device) for key, shape in shapes.items()}
                )
            if say:
                say(f"{name}: ready in {time.perf_counter() - started:.2f} s, {self.precision}")

    @torch.inference_mode()
    def detect(self, crop: NDArray[np.uint8]) -> Array:
        """Crop (256, 256, 3) RGB uint8 -> heatmaps (56, 64, 64) in [0, 1]."""
        return _array(self._graphs["detector"](crop=self._picture(crop))["heatmaps"])

    @torch.inference_mode()
    def encode_target(self, crop: NDArray[np.uint8], heatmaps: Array) -> Features:
        """The photo's features, for `generate`: crop (256, 256, 3) RGB uint8 and its heatmaps (56, 64, 64)."""
        made = self._graphs["target_encoder"](crop=self._picture(crop), heatmaps=self._batch(heatmaps))
        return {name: feature.clone() for name, feature in made.items()}  # a CUDA graph's outputs are overwritten

    @torch.inference_mode()
    def generate(self, driving: Array, prior: Array, features: Features) -> tuple[Array, Array, Array]:
        """Heatmaps (56, 64, 64), prior (3, 128, 128) -> flow (2, 128, 128), mask (256, 256), colour (256, 256, 3)."""
        made = self._graphs["generator"](driving=self._batch(driving), prior=self._batch(prior), **features)
        colour = np.ascontiguousarray(_array(made["colour"]).transpose(1, 2, 0))
        return _array(made["flow"]), _array(made["mask"])[0], colour

    def close(self) -> None:
        """Let go of the weights."""
        self._graphs.clear()

    def _ready(self, graph: Graph, _inputs: dict[str, torch.Tensor]) -> Run:
        """A graph as it runs, given inputs such as it will get."""
        return graph

    def _check_card(self) -> None:
        if not self.device.startswith("cuda"):
            raise EngineError(f"{self.engine} needs an NVIDIA card, and torch has {self.device} here: choose torch")

    def _batch(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)

    def _picture(self, crop: NDArray[np.uint8]) -> torch.Tensor:
        return self._batch(crop).permute(0, 3, 1, 2).float() / 255


class Models(_Base):
    """Node by node, and as many frames in one call as there are."""

    engine = "torch"

    @property
    def gpu(self) -> bool:
        """Whether batches gain: a card works on their frames side by side, a processor on one after the other."""
        return self.device.startswith("cuda")

    @torch.inference_mode()
    def detect_many(self, calls: list[tuple[NDArray[np.uint8]]]) -> list[Array]:
        """`detect` of several crops at once."""
        crops = np.stack([crop for (crop,) in calls])
        made = self._graphs["detector"](crop=torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 255)
        return list(made["heatmaps"].cpu().numpy())

    @torch.inference_mode()
    def generate_many(self, calls: list[tuple[Array, Array, Features]]) -> list[tuple[Array, Array, Array]]:
        """`generate` of several frames at once, each with its own photo's features."""
        driving, prior, features = zip(*calls, strict=True)
        together = {name: torch.cat([one[name] for one in features]) for name in features[0]}
        inputs = {"driving": np.stack(driving), "prior": np.stack(prior)}
        given = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
        made = {name: tensor.cpu().numpy() for name, tensor in self._graphs["generator"](**given, **together).items()}
        colour = np.ascontiguousarray(made["colour"].transpose(0, 2, 3, 1))
        return list(zip(made["flow"], made["mask"][:, 0], colour, strict=True))


class Compiled(_Base):
    """Compiled by torch.compile. It wants an NVIDIA card: on processors OpenVINO is faster at all of it."""

    engine = "torch-compiled"

    def _ready(self, graph: Graph, inputs: dict[str, torch.Tensor]) -> Run:
        self._check_card()
        run: Run = torch.compile(traced(graph, inputs), fullgraph=True, dynamic=False)
        try:
            run(**inputs)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise EngineError(f"torch cannot compile the models here: {reason}: choose --engine torch") from error
        return run


class Captured(_Base):
    """As CUDA graphs: one launch in place of hundreds. It wants an NVIDIA card."""

    engine = "torch-graph"

    def _ready(self, graph: Graph, inputs: dict[str, torch.Tensor]) -> Run:
        self._check_card()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(aside):  # libraries set themselves up at first use, which a capture forbids
            for _ in range(3):
                graph(**inputs)
        torch.cuda.current_stream().wait_stream(aside)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            outputs = graph(**inputs)

        def run(**given: torch.Tensor) -> dict[str, torch.Tensor]:
            for name, tensor in given.items():
                inputs[name].copy_(tensor)
            recorded.replay()
            return outputs

        return run


def traced(graph: Graph, inputs: dict[str, torch.Tensor]) -> Run:
    """The graph as torch's own operators, its shapes and indices settled: they are the same for every frame."""
    settled = make_fx(lambda given: graph(**given))(inputs)
    return lambda **given: settled(given)


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor[0].cpu().numpy()
    return array
