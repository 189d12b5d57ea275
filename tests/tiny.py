"""Tiny networks that learn drawn faces in seconds."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from trainer.data import Pictures
from trainer.detector import DetectorSettings
from trainer.fpn import FpnSettings
from trainer.generator import GeneratorSettings
from trainer.loop import Loop, LoopSettings, Task
from trainer.train_detector import DetectorTask
from trainer.train_generator import GeneratorTask, GeneratorTraining

TINY_DETECTOR = DetectorSettings((8, 12, 16, 24, 32), (1, 1, 1, 1), (32, 24, 16), 8, stride=4)
TINY_GENERATOR = GeneratorSettings(8, 12, 16, (16, 24, 32), (16, 12))
TINY_FPN = FpnSettings((8, 8, 12, 16, 16), (1, 1, 1, 1), 8, (16, 16, 16, 12, 12))


def detector_task(pictures: Pictures) -> DetectorTask:
    torch.manual_seed(0)
    return DetectorTask(pictures, TINY_DETECTOR, 4e-3)


def generator_task(pictures: Pictures, **settings: Any) -> GeneratorTask:
    torch.manual_seed(0)
    return GeneratorTask(pictures, GeneratorTraining(size=64, network=TINY_GENERATOR, **settings), 3e-3)


def trained(task: Task, settings: LoopSettings, output: Path, fabric: Fabric) -> Loop:
    loop = Loop(task, settings, output, fabric)
    loop.run()
    return loop
