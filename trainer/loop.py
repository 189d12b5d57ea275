"""The training loop that detector and generator share: Fabric, a time budget, checkpoints, EMA, logs, picture grids.

A sample is a function of the seed and its number alone, so a run that was killed goes on with the same data order.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass(frozen=True)
class LoopSettings:
    minutes: float = 15.0  # of training, summed over all resumed parts
    batch: int = 16
    learning_rate: float = 1e-3
    checkpoint_minutes: float = 3.0
    ema: float = 0.998
    seed: int = 0
    workers: int = 0


class Task(Protocol):
    """What is trained. `modules` and `optimizers` are saved; `ema` names the modules that are averaged."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: tuple[str, ...]
    settings: Any

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]: ...
    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]: ...
    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]: ...


class Samples(Dataset[dict[str, np.ndarray]]):
    """Sample number i, drawn with a generator seeded by (seed, i)."""

    def __init__(self, draw: Callable[[np.random.Generator], dict[str, np.ndarray]], seed: int) -> None:
        self.draw, self.seed = draw, seed

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.draw(np.random.default_rng((self.seed, index)))


def _numbers(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def cosine(progress: float, warm_up: float = 0.02) -> float:
    """Learning-rate factor at a share of the budget: linear warm-up, then half a cosine down to 1 %."""
    if progress < warm_up:
        return progress / warm_up + 1e-3
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


class Loop:
    """Trains a task within a budget of minutes; every checkpoint is complete, so it can be stopped at any moment."""

    def __init__(self, task: Task, settings: LoopSettings, output: Path, fabric: Fabric) -> None:
        self.task, self.settings, self.output, self.fabric = task, settings, output, fabric
        self.step, self.spent = 0, 0.0  # optimizer steps and seconds of training
        self.averaged = {name: deepcopy(task.modules[name]).eval() for name in task.ema}
        output.mkdir(parents=True, exist_ok=True)
        self.checkpoint = output / "last.pt"
        if self.checkpoint.exists():
            self._load()

    def run(self) -> dict[str, float]:
        """Train until the budget is spent; returns the last evaluation."""
        budget = self.settings.minutes * 60
        for name, module in self.task.modules.items():
            self.task.modules[name] = module.to(self.fabric.device)
        writer = SummaryWriter(str(self.output))
        bar = tqdm(total=round(budget), initial=round(self.spent), unit="s", desc=self.output.name)
        numbers = _numbers(self.step * self.settings.batch)
        loader = DataLoader(
            Samples(self.task.sample, self.settings.seed),
            batch_size=self.settings.batch,
            sampler=numbers,  # type: ignore[arg-type]
            num_workers=self.settings.workers,
        )
        result: dict[str, float] = {}
        means: dict[str, float] = {}
        saved = self.spent
        began = time.monotonic() - self.spent
        for batch in self.fabric.setup_dataloaders(loader, use_distributed_sampler=False):
            progress = min(1.0, self.spent / budget)
            for optimizer in self.task.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = group.get("initial_lr", self.settings.learning_rate) * cosine(progress)
            losses = self.task.step(batch, progress, self.fabric)
            for name, value in losses.items():
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            self._average()
            self.step += 1
            spent = time.monotonic() - began
            bar.update(round(spent) - bar.n)
            bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()} | {"n": self.step * self.settings.batch})
            self.spent = spent
            if spent - saved > self.settings.checkpoint_minutes * 60 or spent >= budget:
                result = self._save(writer, means)
                saved = self.spent = time.monotonic() - began
            if spent >= budget:
                break
        writer.close()
        bar.close()
        return result

    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, average in self.averaged.items():
            for a, b in zip(average.state_dict().values(), self.task.modules[name].state_dict().values(), strict=True):
                a.lerp_(b, 1 - decay) if a.is_floating_point() else a.copy_(b)

    def _save(self, writer: SummaryWriter, means: dict[str, float]) -> dict[str, float]:
        result, picture = self.task.evaluate(self.averaged)
        row = {"step": self.step, "samples": self.step * self.settings.batch, "minutes": self.spent / 60} | means | result
        with (self.output / "stats.jsonl").open("a") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
        for name, value in row.items():
            writer.add_scalar(name, value, self.step)
        cv2.imwrite(str(self.output / "grid.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        state = {
            "settings": repr(self.task.settings),
            "loop": asdict(self.settings),
            "step": self.step,
            "spent": self.spent,
            "metrics": result,
            "modules": {n: m.state_dict() for n, m in self.task.modules.items()},
            "ema": {n: m.state_dict() for n, m in self.averaged.items()},
            "optimizers": {n: o.state_dict() for n, o in self.task.optimizers.items()},
        }
        temporary = self.checkpoint.with_suffix(".partial")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        tqdm.write(json.dumps({k: round(v, 4) for k, v in row.items()}))
        return result

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.fabric.device, weights_only=True)
        self.step, self.spent = state["step"], state["spent"]
        for name, module in self.task.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, module in self.averaged.items():
            module.load_state_dict(state["ema"][name])
        for name, optimizer in self.task.optimizers.items():
            if name in state["optimizers"]:
                optimizer.load_state_dict(state["optimizers"][name])
