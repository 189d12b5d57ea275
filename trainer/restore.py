"""A bundle back to checkpoints, so that training can go on from the models that ship.

Export folds every batch normalization into the convolution before it. Here it comes out again: with the statistics of
training pairs, and with the scale and shift that leave the network as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engines.bundle import GRAPHS, Bundle
from realtime.errors import InputError
from trainer.checkpoint import write_checkpoint
from trainer.data import Pictures
from trainer.detector import Detector, DetectorSettings
from trainer.generator import Generator, GeneratorSettings, TargetEncoder
from trainer.quantize import Tensors, calibration, graph_inputs

SAMPLES = 64  # pairs that the statistics are taken over
Layer = tuple[nn.Conv2d, nn.BatchNorm2d | None]  # a convolution, and the normalization of what comes out of it


def restore(bundle: Bundle, pictures: Pictures, output: Path) -> list[Path]:
    """Write `detector.pt` and `generator.pt`, checkpoints of a bundle's networks, into the folder `output`.

    Raises InputError if the graphs are not the networks of the bundle's card, or are the thesis's.
    """
    of_detector, of_generator = bundle.card["detector"], bundle.card["generator"]
    if of_generator["settings"].get("generator") == "fpn":
        raise InputError(f"{bundle.folder} has the thesis's generator: only the one that ships can be restored")
    network = GeneratorSettings(**_tuples(of_generator["settings"]["network"]))
    modules: tuple[nn.Module, ...] = (
        Detector(DetectorSettings(**_tuples(of_detector["settings"]))),
        TargetEncoder(network),
        Generator(network),
    )
    inputs = graph_inputs(bundle.folder, calibration(pictures, SAMPLES))
    for name, module in zip(GRAPHS, modules, strict=True):
        unfold(module, bundle.graph(name), inputs[name])
    detector, encoder, generator = modules
    output.mkdir(parents=True, exist_ok=True)
    return [
        _write(output / "detector.pt", of_detector, {"detector": detector}),
        _write(output / "generator.pt", of_generator, {"encoder": encoder, "generator": generator}),
    ]


def unfold(module: nn.Module, graph: Path, samples: list[Tensors]) -> None:
    """Give a module the weights of its exported graph. `samples`, inputs by name in the order of the module's
    arguments, give the normalizations their statistics. Raises InputError if the graph is of another network."""
    batches = [[torch.from_numpy(array) for array in sample.values()] for sample in samples]
    layers = _layers(module.eval(), batches[0])
    weights = _convolutions(graph)
    if [tuple(conv.weight.shape) for conv, _ in layers] != [weight.shape for weight, _ in weights]:
        raise InputError(f"{graph} is not the network that its card describes")
    for (conv, norm), (weight, bias) in zip(layers, weights, strict=True):
        conv.weight.data = torch.from_numpy(weight.copy())
        shift = torch.from_numpy(bias.copy())
        if norm is None:
            conv.bias = nn.Parameter(shift)
        else:
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
            norm.bias.data = shift
    with _statistics([norm for _, norm in layers if norm is not None]) as moments, torch.no_grad():
        for batch in batches:
            module(*batch)
    for norm, (mean, square) in moments.items():
        norm.running_mean, norm.running_var = mean, square - mean.square()
        norm.weight.data = (norm.running_var + norm.eps).sqrt()
        norm.bias.data += mean


def _layers(module: nn.Module, batch: list[Tensor]) -> list[Layer]:
    """The convolutions in the order in which they run."""
    ran: list[nn.Module] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in module.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        module(*batch)
    for hook in hooks:
        hook.remove()
    following = [*ran[1:], None]
    return [
        (one, after if isinstance(after, nn.BatchNorm2d) else None)
        for one, after in zip(ran, following, strict=True)
        if isinstance(one, nn.Conv2d)
    ]


def _convolutions(graph: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a graph's convolutions in the order in which they run, but those of constant kernels."""
    model = onnx.load(graph).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    nodes = [node for node in model.node if node.op_type == "Conv" and node.input[1] in values]
    return [
        (weight, values[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32))
        for node in nodes
        for weight in [values[node.input[1]]]
    ]


@contextmanager
def _statistics(norms: list[nn.BatchNorm2d]) -> Iterator[dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]]:
    """Means and mean squares of what goes into each normalization, a channel each, over all that runs within."""
    seen: dict[nn.BatchNorm2d, list[Tensor]] = {norm: [] for norm in norms}
    moments: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def see(norm: Any, inputs: tuple[Tensor]) -> None:
        x = inputs[0]
        seen[norm].append(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))

    hooks = [norm.register_forward_pre_hook(see) for norm in norms]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()
    for norm, values in seen.items():
        mean, square = torch.stack(values).mean(0)
        moments[norm] = mean, square


def _write(path: Path, card: dict[str, Any], modules: dict[str, nn.Module]) -> Path:
    weights = {name: module.state_dict() for name, module in modules.items()}
    state = {
        "settings": card["settings"],
        "loop": {"batch": card["batch"]},
        "step": card["steps"],
        "spent": 60 * card["minutes"],
        "metrics": card["validation"],
        "modules": weights,
        "ema": weights,
    }
    write_checkpoint(state, path)
    return path


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the settings have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
