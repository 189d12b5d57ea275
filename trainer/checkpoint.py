"""Checkpoints of trainer.loop, and the networks rebuilt from the settings that they carry."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from realtime.errors import InputError
from trainer.detector import Detector, DetectorSettings
from trainer.fpn import FpnGenerator, FpnSettings, FpnTargetEncoder
from trainer.generator import Generator, GeneratorSettings, TargetEncoder


def read_checkpoint(path: Path, *names: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint that holds averaged weights of the modules named.

    Raises InputError, naming the file, for anything else.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}: `run.py train` writes one named last.pt")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        there = list(state["ema"])
        dict(state["settings"])
    except (
        OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, UnpicklingError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise InputError(f"{path} is not a checkpoint of `run.py train`: {type(error).__name__}") from error
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"{path} holds no {' and no '.join(missing)}: its networks are {', '.join(there)}")
    return dict(state)


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)


def fit(module: nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Load weights that must fit a module exactly. Raises InputError, naming the first tensor that does not."""
    own = module.state_dict()
    for name in sorted({*own, *weights}):
        a, b = own.get(name), weights.get(name)
        if a is None or b is None:
            raise InputError(f"{path} {'lacks' if b is None else 'has an unknown'} {name}: it is of another network")
        if a.shape != b.shape:
            raise InputError(f"{path} has {name} of shape {tuple(b.shape)}, not {tuple(a.shape)}")
    module.load_state_dict(weights)


def read_detector(path: Path) -> tuple[Detector, dict[str, Any]]:
    """The averaged detector of a checkpoint, in evaluation mode, and the checkpoint."""
    state = read_checkpoint(path, "detector")
    detector = Detector(DetectorSettings(**state["settings"]))
    fit(detector, state["ema"]["detector"], path)
    return detector.eval(), state


def read_generator(
    path: Path,
) -> tuple[TargetEncoder | FpnTargetEncoder, Generator | FpnGenerator, dict[str, Any]]:
    """The averaged target encoder and generator of a checkpoint, in evaluation mode, and the checkpoint."""
    state = read_checkpoint(path, "encoder", "generator")
    settings = state["settings"]
    encoder: TargetEncoder | FpnTargetEncoder
    generator: Generator | FpnGenerator
    if settings.get("generator") == "fpn":
        pyramids = FpnSettings(**settings["network"])
        encoder, generator = FpnTargetEncoder(pyramids), FpnGenerator(pyramids)
    else:
        network = GeneratorSettings(**settings["network"])
        encoder, generator = TargetEncoder(network), Generator(network)
    fit(encoder, state["ema"]["encoder"], path)
    fit(generator, state["ema"]["generator"], path)
    return encoder.eval(), generator.eval(), state


def average(paths: list[Path], output: Path) -> None:
    """Write the mean of checkpoints of one network, trained on from one beginning: often better than each of them
    (Wortsman et al. 2022, "Model soups"). Settings, budget and a discriminator that not all have are the last one's;
    figures there are none yet.

    Raises InputError where they are not of one network.
    """
    states = [read_checkpoint(path) for path in paths]
    last = states[-1]
    for kind in ("modules", "ema"):
        for name, weights in last[kind].items():
            if kind == "modules" and not all(name in state[kind] for state in states):
                continue  # a restored checkpoint has no discriminator
            same = [state[kind].get(name, {}) for state in states]
            for path, other in zip(paths, same, strict=True):
                if _shapes(other) != _shapes(weights):
                    raise InputError(f"{path} and {paths[-1]} do not average: their {name}s are different networks")
            for tensor, value in weights.items():
                if value.is_floating_point():
                    weights[tensor] = torch.stack([other[tensor] for other in same]).mean(0)
    last["metrics"] = {}
    write_checkpoint(last, output)


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
