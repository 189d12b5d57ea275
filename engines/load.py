"""Choosing an engine."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from engines.bundle import Bundle, EngineError


class Engine(NamedTuple):
    """`module` imports a module with `Models` and `devices()`; it takes `needs`, which `package` installs."""

    module: Callable[[], ModuleType]
    needs: tuple[str, ...]
    package: str


def _openvino() -> ModuleType:
    from engines import openvino

    return openvino


def _torch() -> ModuleType:
    from engines import torch

    return torch


# Best first.
ENGINES = {
    "openvino": Engine(_openvino, ("openvino",), "openvino"),
    "torch": Engine(_torch, ("torch", "onnx"), "'puppetcam[train]'"),
}


def present_engines() -> dict[str, ModuleType]:
    """The modules of the engines that are installed, best first."""
    return {name: engine.module() for name, engine in ENGINES.items() if _installed(engine)}


def _installed(engine: Engine) -> bool:
    return all(find_spec(need) is not None for need in engine.needs)


def load_models(
    engine: str | None,
    precision: str | None,
    bundle: Bundle,
    device: str | None = None,
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Any:
    """Compile a bundle, or take it from the cache: models as the Models protocol wants them.

    None takes the best engine present and the best precision its device has. The choice is printed to standard error,
    and how each graph was come by goes to `say`. Raises EngineError for what is not there: nothing slower steps in.
    """
    if engine is None:
        engine = next((name for name in ENGINES if _installed(ENGINES[name])), "openvino")
    if engine not in ENGINES:
        raise EngineError(f"there is no engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if not _installed(ENGINES[engine]):
        raise EngineError(f"the engine {engine!r} is not installed: pip install {ENGINES[engine].package}")
    if threads is not None and threads < 1:
        raise EngineError(f"the number of threads should be 1 or more, not {threads}")
    models = ENGINES[engine].module().Models(bundle, precision, device, threads, say)
    print(f"engine: {models.engine}, {models.precision}, on {models.device}", file=sys.stderr)
    return models
