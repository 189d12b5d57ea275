"""The reference engine: the bundle's own graphs in PyTorch, at full precision. It is there to judge the others by."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from engines.bundle import GRAPHS, Bundle, EngineError
from engines.graph import Graph

Array = NDArray[np.float32]
Features = dict[str, torch.Tensor]


def devices() -> dict[str, str]:
    """The devices torch finds, with their full names: {"cpu": "the processor", "cuda:0": "NVIDIA ..."}."""
    cards = {f"cuda:{n}": torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
    return {"cpu": "the processor", **cards}


class Models:
    """The three models as the Models protocol wants them, on a CUDA device where there is one."""

    engine = "torch"
    precision = "f32"

    def __init__(
        self,
        bundle: Bundle,
        precision: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Read a bundle. Raises EngineError for an absent device, another precision than f32, an unknown operator."""
        if precision not in (None, "f32"):
            raise EngineError(f"the torch engine is the reference and runs in f32 only, not {precision}")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(f"torch has no device {self.device!r} here: choose cpu") from error
        if threads is not None:
            torch.set_num_threads(threads)
        self._graphs = {}
        for name in GRAPHS:
            started = time.perf_counter()
            try:
                self._graphs[name] = Graph(onnx.load(bundle.graph(name)), self.device)
            except DecodeError as error:
                raise EngineError(f"{bundle.graph(name)} is not an ONNX graph") from error
            if say:
                say(f"{name}: read in {time.perf_counter() - started:.2f} s, f32")

    def detect(self, crop: NDArray[np.uint8]) -> Array:
        """Crop (256, 256, 3) RGB uint8 -> heatmaps (56, 64, 64) in [0, 1]."""
        return _array(self._graphs["detector"](crop=self._picture(crop))["heatmaps"])

    def encode_target(self, crop: NDArray[np.uint8], heatmaps: Array) -> Features:
        """The photo's features, for `generate`: crop (256, 256, 3) RGB uint8 and its heatmaps (56, 64, 64)."""
        return self._graphs["target_encoder"](crop=self._picture(crop), heatmaps=self._batch(heatmaps))

    def generate(self, driving: Array, prior: Array, features: Features) -> tuple[Array, Array, Array]:
        """Heatmaps (56, 64, 64), prior (2, 128, 128) -> flow (2, 128, 128), mask (256, 256), colour (256, 256, 3)."""
        made = self._graphs["generator"](driving=self._batch(driving), prior=self._batch(prior), **features)
        colour = np.ascontiguousarray(_array(made["colour"]).transpose(1, 2, 0))
        return _array(made["flow"]), _array(made["mask"])[0], colour

    def close(self) -> None:
        """Let go of the weights."""
        self._graphs.clear()

    def _batch(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device)

    def _picture(self, crop: NDArray[np.uint8]) -> torch.Tensor:
        return self._batch(crop).permute(0, 3, 1, 2).float() / 255


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor[0].cpu().numpy()
    return array
