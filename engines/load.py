"""Choosing an engine."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from engines.bundle import Bundle, EngineError

if TYPE_CHECKING:
    from engines.openvino import OpenVINOModels
    from engines.torch import TorchModels


def _openvino(*arguments: Any) -> "OpenVINOModels":
    from engines.openvino import OpenVINOModels

    return OpenVINOModels(*arguments)


def _torch(*arguments: Any) -> "TorchModels":
    from engines.torch import TorchModels

    return TorchModels(*arguments)


# Best first: how to make each engine's models, the modules it needs, and what to install for them.
ENGINES: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "openvino": (_openvino, ("openvino",), "openvino"),
    "torch": (_torch, ("torch", "onnx"), "'puppetcam[train]'"),
}


def present_engines() -> list[str]:
    """The engines whose modules are installed, best first."""
    return [name for name, (_, modules, _) in ENGINES.items() if all(map(find_spec, modules))]


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
    present = present_engines()
    if engine is None:
        if not present:
            raise EngineError("no engine is installed: pip install openvino")
        engine = present[0]
    if engine not in ENGINES:
        raise EngineError(f"there is no engine {engine!r}: choose one of {', '.join(ENGINES)}")
    make, _, package = ENGINES[engine]
    if engine not in present:
        raise EngineError(f"the engine {engine!r} is not installed: pip install {package}")
    models = make(bundle, precision, device, threads, say)
    print(f"engine: {models.engine}, {models.precision}, on {models.device}", file=sys.stderr)
    return models
