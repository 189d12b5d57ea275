"""Choosing an engine."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from engines import nvidia
from engines.bundle import Bundle, EngineError


class Engine(NamedTuple):
    """`module` imports a module with `models`, the class, and `devices()`; it takes `needs`, which `package` installs.

    A need is a module's name, or several of which one will do.
    """

    module: Callable[[], ModuleType]
    needs: tuple[str | tuple[str, ...], ...]
    package: str
    models: str = "Models"


def _openvino() -> ModuleType:
    from engines import openvino

    return openvino


def _tensorrt() -> ModuleType:
    from engines import tensorrt

    return tensorrt


def _torch() -> ModuleType:
    from engines import torch

    return torch


TENSORRT = ("tensorrt_rtx", "tensorrt")
ENGINES = {
    "tensorrt": Engine(_tensorrt, ("onnx", "cuda", TENSORRT), "'puppetcam[tensorrt]'"),
    "openvino": Engine(_openvino, ("openvino",), "openvino"),
    "torch": Engine(_torch, ("torch", "onnx"), "'puppetcam[train]'"),
    "torch-compiled": Engine(_torch, ("torch", "onnx"), "'puppetcam[train]'", "Compiled"),
    "torch-graph": Engine(_torch, ("torch", "onnx"), "'puppetcam[train]'", "Captured"),
}
SPELLINGS = {"fp32": "f32", "fp16": "f16"}


def present_engines() -> dict[str, ModuleType]:
    """The modules of the engines that are installed."""
    return {name: engine.module() for name, engine in ENGINES.items() if _installed(engine)}


def _installed(engine: Engine) -> bool:
    alternatives = [(need,) if isinstance(need, str) else need for need in engine.needs]
    return all(any(find_spec(name) is not None for name in names) for names in alternatives)


def best_engine() -> tuple[str, str]:
    """The fastest engine that can run here, and why it is that one."""
    try:
        card = nvidia.card(None)
    except EngineError as error:
        return "openvino", str(error).partition(":")[0]
    if _installed(ENGINES["tensorrt"]):
        from engines.plan import flavour, supports

        if supports(flavour(card), card):
            return "tensorrt", f"{card} is here"
    if _installed(ENGINES["torch"]) and len(_torch().devices()) > 1:
        return "torch", f"{card} is here, and no TensorRT for it"
    wheel = "tensorrt" if _installed(ENGINES["tensorrt"]) else ENGINES["tensorrt"].package  # rtx lists no such card
    return "openvino", f"{card} is here, but no TensorRT for it: pip install {wheel}"


def check_engine(engine: str) -> None:
    """Raise EngineError unless there is an engine of that name, and it is installed."""
    if engine not in ENGINES:
        raise EngineError(f"there is no engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if not _installed(ENGINES[engine]):
        raise EngineError(f"the engine {engine!r} is not installed: pip install {ENGINES[engine].package}")


def load_models(
    engine: str | None,
    precision: str | None,
    bundle: Bundle,
    device: str | None = None,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Any:
    """Compile a bundle, or take it from the cache: models as the Models protocol wants them.

    None takes the best engine here and the best precision its device has. The choice, and why, is printed to standard
    error, and how each graph was come by goes to `say`. Raises EngineError for what is not there: nothing slower steps
    in.
    """
    why = ""
    if engine is None:
        engine, why = best_engine()
    check_engine(engine)
    if threads is not None and threads < 1:
        raise EngineError(f"the number of threads should be 1 or more, not {threads}")
    precision = SPELLINGS.get(precision or "", precision)
    models = getattr(ENGINES[engine].module(), ENGINES[engine].models)(bundle, precision, device, threads, say)
    reason = f", the best here: {why}" if why else ""
    print(f"engine: {models.engine}, {models.precision}, on {models.device}{reason}", file=sys.stderr)
    return models


def is_half(precision: str | None) -> bool:
    """Whether TensorRT would work in 16 bits."""
    return precision is None or SPELLINGS.get(precision, precision) != "f32"


def build_models(
    engine: str | None,
    precision: str | None,
    bundle: Bundle,
    device: str | None,
    threads: int | None,
    say: Callable[[str], None],
) -> None:
    """Have a bundle compiled in the cache. TensorRT's RTX flavour needs no card for it."""
    if engine == "tensorrt" and device is None and not nvidia.present():
        check_engine(engine)
        from engines import plan

        plan.build(bundle, SPELLINGS.get(precision or "", precision) or plan.DEFAULT, None, say)
        say("compiled for any RTX card from compute capability 8.0 on: where there is a card, it is done again for it")
    else:
        load_models(engine, precision, bundle, device, threads, say).close()
