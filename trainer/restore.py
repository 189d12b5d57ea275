"""A bundle back to checkpoints, so that training can go on from the models that ship.

Export folds every batch normalization into the convolution before it. Here it comes out again: with the statistics of
training pairs, and with the scale and shift that leave the network as it was.
"""

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
from trainer.quantize import Tensors, calibration, frame_inputs, photo_inputs

SAMPLES = 64  # pairs that the statistics are taken over
Layer = tuple[nn.Conv2d, nn.BatchNorm2d | None]  # a convolution, and the normalization of what comes out of it


def restore(bundle: Bundle, pictures: Pictures, output: Path) -> list[Path]:
    """Write `detector.pt` and `generator.pt`, checkpoints of a bundle's networks, into the folder `output`.

    Raises InputError if the graphs are not the networks of the bundle's card, or are the thesis's.
    """
    modules = _networks(bundle)
    layers = {name: _matched(module, bundle, name) for name, module in modules.items()}
    pairs = calibration(pictures, SAMPLES)
    inputs = frame_inputs(bundle.folder, pairs) | {"target_encoder": [photo_inputs(pair) for pair in pairs]}
    for name, module in modules.items():
        _unfold(module, layers[name], inputs[name])
    detector, encoder, generator = modules.values()
    return [
        _write(output / "detector.pt", bundle.card["detector"], {"detector": detector}),
        _write(output / "generator.pt", bundle.card["generator"], {"encoder": encoder, "generator": generator}),
    ]


def _networks(bundle: Bundle) -> dict[str, nn.Module]:
    """The networks that a card describes, by their graphs' names, untrained."""
    try:
        of_detector, of_generator = (bundle.card[name]["settings"] for name in ("detector", "generator"))
        if of_generator.get("generator") == "fpn":
            raise InputError(f"{bundle.folder} has the thesis's generator: only the one that ships can be restored")
        network = GeneratorSettings(**_tuples(of_generator["network"]))
        detector = Detector(DetectorSettings(**_tuples(of_detector)))
    except (KeyError, TypeError) as error:
        raise InputError(f"the card of {bundle.folder} does not say how its networks are built: {error!r}") from error
    return dict(zip(GRAPHS, (detector, TargetEncoder(network), Generator(network)), strict=True))


def _matched(module: nn.Module, bundle: Bundle, name: str) -> list[Layer]:
    """The module's convolutions, with the weights of its graph. Raises InputError if that is of another network."""
    graph, shapes = bundle.graph(name), bundle.card["graphs"][name]["inputs"].values()
    layers, weights = _layers(module.eval(), [torch.zeros(shape) for shape in shapes]), _convolutions(graph)
    if [conv.weight.shape for conv, _ in layers] != [weight.shape for weight, _ in weights]:
        raise InputError(f"{graph} is not the network that its card describes")
    for (conv, norm), (weight, bias) in zip(layers, weights, strict=True):
        conv.weight.data = torch.from_numpy(weight.copy())
        shift = torch.from_numpy(bias.copy())
        if norm is None:
            conv.bias = nn.Parameter(shift)
        else:
            norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]
            norm.bias.data = shift
    return layers


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


def _unfold(module: nn.Module, layers: list[Layer], samples: list[Tensors]) -> None:
    """Give the normalizations the statistics of samples, inputs by name in the order of the module's arguments, and
    the scale and shift that undo them."""
    norms = [norm for _, norm in layers if norm is not None]
    moments = _moments(module, norms, [[torch.from_numpy(array) for array in sample.values()] for sample in samples])
    for norm, (mean, square) in zip(norms, moments, strict=True):
        norm.running_mean, norm.running_var = mean, (square - mean.square()).clamp(min=0)
        norm.weight.data = (norm.running_var + norm.eps).sqrt()
        norm.bias.data += mean


@torch.no_grad()
def _moments(module: nn.Module, norms: list[nn.BatchNorm2d], batches: list[list[Tensor]]) -> list[Tensor]:
    """Mean and mean square, (2, C), of what goes into each normalization."""
    sums: dict[nn.Module, Tensor] = {norm: torch.zeros(2, norm.num_features) for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        sums[norm] += torch.stack([inputs[0].mean((0, 2, 3)), inputs[0].square().mean((0, 2, 3))])

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for batch in batches:
        module(*batch)
    for hook in hooks:
        hook.remove()
    return [sums[norm] / len(batches) for norm in norms]


def _write(path: Path, card: dict[str, Any], modules: dict[str, nn.Module]) -> Path:
    state = {
        "settings": card["settings"],
        "loop": {"batch": card["batch"]},
        "step": card["steps"],
        "spent": 60 * card["minutes"],
        "metrics": card["validation"],
        # two dictionaries each: one would be averaged twice
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "ema": {name: module.state_dict() for name, module in modules.items()},
    }
    write_checkpoint(state, path)
    return path


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the settings have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
