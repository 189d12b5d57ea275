"""The training loop that detector and generator share: Fabric, a budget, checkpoints, EMA, logs, picture grids.

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

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from realtime.errors import InputError
from trainer.checkpoint import fit, read_checkpoint, write_checkpoint
from trainer.sheet import write_picture


@dataclass(frozen=True)
class LoopSettings:
    minutes: float = 15.0  # of training, summed over all resumed parts
    steps: int = 0  # if given, the budget in place of minutes
    batch: int = 16  # on every device
    learning_rate: float = 1e-3
    checkpoint_minutes: float = 3.0
    ema: float = 0.998
    seed: int = 0
    workers: int = 0  # processes that draw samples; 0: the training process itself


class Task(Protocol):
    """What is trained. `modules` and `optimizers` are saved; `ema` names the modules that are averaged."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    ema: tuple[str, ...]
    settings: Any  # a dataclass: it travels in the checkpoint

    def schedule(self, progress: float, /) -> float: ...  # the learning rate's factor at a share of the budget
    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]: ...
    def step(self, batch: dict[str, Tensor], progress: float, fabric: Fabric) -> dict[str, float]: ...
    def evaluate(self, modules: dict[str, nn.Module]) -> tuple[dict[str, float], np.ndarray]: ...


class Samples(Dataset[dict[str, np.ndarray]]):
    """Sample number i, drawn with a generator seeded by (seed, i)."""

    def __init__(self, draw: Callable[[np.random.Generator], dict[str, np.ndarray]], seed: int) -> None:
        self.draw, self.seed = draw, seed

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.draw(np.random.default_rng((self.seed, index)))


def _numbers(start: int, stride: int) -> Iterator[int]:
    while True:
        yield start
        start += stride


def cosine(progress: float, warm_up: float = 0.02) -> float:
    """Learning-rate factor at a share of the budget: linear warm-up, then half a cosine down to 1 %."""
    if progress < warm_up:
        return progress / warm_up + 1e-3
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def optimize(fabric: Fabric, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float | None = 1.0) -> None:
    """One optimizer step on a loss, its gradient the mean of all devices' and clipped to a norm."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if fabric.world_size > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = fabric.all_reduce(parameter.grad, reduce_op="mean")
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


class Loop:
    """Trains a task within a budget; every checkpoint is complete, so it can be stopped at any moment.

    `output` gets last.pt, stats.jsonl, grid.png and TensorBoard events. A last.pt that is there already is gone on
    with; otherwise `start_from` names a checkpoint whose averaged weights are the first ones.
    Raises InputError for a checkpoint that does not fit.
    """

    def __init__(
        self, task: Task, settings: LoopSettings, output: Path, fabric: Fabric, start_from: Path | None = None
    ) -> None:
        self.task, self.settings, self.output, self.fabric = task, settings, output, fabric
        self.step, self.spent = 0, 0.0  # optimizer steps and seconds of training
        self.metrics: dict[str, float] = {}
        for module in task.modules.values():
            module.to(fabric.device)
        self.averaged = {name: deepcopy(task.modules[name]).eval() for name in task.ema}
        # as asked for now, whatever a checkpoint that is gone on with had
        self._rates = {name: [group["lr"] for group in o.param_groups] for name, o in task.optimizers.items()}
        output.mkdir(parents=True, exist_ok=True)
        self.checkpoint = output / "last.pt"
        if self.checkpoint.exists():
            self._resume()
        elif start_from is not None:
            self._take_over(start_from)

    @property
    def progress(self) -> float:
        """The share of the budget that is spent."""
        if self.settings.steps:
            return min(1.0, self.step / self.settings.steps)
        return min(1.0, self.spent / (60 * self.settings.minutes))

    def run(self) -> dict[str, float]:
        """Train until the budget is spent; returns the last evaluation."""
        if self.progress >= 1:
            return self.metrics
        means: dict[str, float] = {}
        saved = self.spent
        began = time.monotonic() - self.spent
        writer = SummaryWriter(str(self.output)) if self.fabric.is_global_zero else None
        budget = self.settings.steps or round(60 * self.settings.minutes)
        unit = " steps" if self.settings.steps else "s"
        bar = tqdm(total=budget, unit=unit, desc=self.output.name, disable=writer is None)
        for batch in self._batches():
            self._set_learning_rates()
            losses = self.task.step(batch, self.progress, self.fabric)
            for name, value in losses.items():
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            self._average()
            self.step += 1
            self.spent = self.fabric.broadcast(time.monotonic() - began)  # one clock, so that devices stay alike
            done = self.progress >= 1
            bar.update(round(self.progress * budget) - bar.n)
            bar.set_postfix({k: f"{v:.4f}" for k, v in means.items()} | {"n": self._samples()})
            if done or self.spent - saved > self.settings.checkpoint_minutes * 60:
                self._save(writer, means)
                saved = self.spent = self.fabric.broadcast(time.monotonic() - began)
            if done:
                break
        if writer:
            writer.close()
        bar.close()
        return self.metrics

    def _samples(self) -> int:
        return self.step * self.settings.batch * self.fabric.world_size

    def _batches(self) -> Any:
        loader = DataLoader(
            Samples(self.task.sample, self.settings.seed),
            batch_size=self.settings.batch,
            sampler=_numbers(self._samples() + self.fabric.global_rank, self.fabric.world_size),
            num_workers=self.settings.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        return self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)

    def _set_learning_rates(self) -> None:
        factor = self.task.schedule(self.progress)
        for name, optimizer in self.task.optimizers.items():
            for group, highest in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = highest * factor

    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, average in self.averaged.items():
            for a, b in zip(average.state_dict().values(), self.task.modules[name].state_dict().values(), strict=True):
                a.lerp_(b, 1 - decay) if a.is_floating_point() else a.copy_(b)

    def _save(self, writer: SummaryWriter | None, means: dict[str, float]) -> None:
        """Evaluate, log and save, on the first device; the others wait."""
        if writer:
            self.metrics, picture = self.task.evaluate(self.averaged)
            numbers = {"step": self.step, "samples": self._samples(), "minutes": self.spent / 60}
            row = numbers | means | self.metrics
            with (self.output / "stats.jsonl").open("a") as file:
                file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
            for name, value in row.items():
                writer.add_scalar(name, value, self.step)
            write_picture(self.output / "grid.png", picture)
            write_checkpoint(self._state(), self.checkpoint)
            tqdm.write(json.dumps({k: round(v, 4) for k, v in row.items()}))
        self.fabric.barrier()

    def _state(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.task.settings),
            "loop": asdict(self.settings),
            "step": self.step,
            "spent": self.spent,
            "metrics": self.metrics,
            "modules": {n: m.state_dict() for n, m in self.task.modules.items()},
            "ema": {n: m.state_dict() for n, m in self.averaged.items()},
            "optimizers": {n: o.state_dict() for n, o in self.task.optimizers.items()},
        }

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint, *self.averaged, device=self.fabric.device)
        for name in ("batch", "seed"):
            then, now = state["loop"][name], getattr(self.settings, name)
            if then != now:
                raise InputError(
                    f"{self.checkpoint} was trained with {name} {then}, not {now}: its data order would be lost"
                )
        self.step, self.spent, self.metrics = state["step"], state["spent"], state["metrics"]
        for name, module in self.task.modules.items():
            fit(module, state["modules"][name], self.checkpoint)
        for name, module in self.averaged.items():
            fit(module, state["ema"][name], self.checkpoint)
        for name, optimizer in self.task.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self._forget_later_rows()

    def _forget_later_rows(self) -> None:
        """Rows of stats.jsonl that were written after the checkpoint are written anew."""
        stats = self.output / "stats.jsonl"
        if stats.exists() and self.fabric.is_global_zero:
            rows = [row for row in stats.read_text().splitlines(keepends=True) if row.endswith("}\n")]
            stats.write_text("".join(row for row in rows if json.loads(row)["step"] <= self.step))

    def _take_over(self, path: Path) -> None:
        state = read_checkpoint(path, *self.averaged, device=self.fabric.device)
        for name, module in self.task.modules.items():
            if name in state["modules"]:
                fit(module, state["ema"].get(name, state["modules"][name]), path)
        for name, average in self.averaged.items():
            average.load_state_dict(self.task.modules[name].state_dict())
