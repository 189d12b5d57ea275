"""`train detector` and `train generator`: their options, and what runs them. Heavy imports wait until one runs."""

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.errors import InputError
from trainer.thesis_command import add_fpn, fpn_task

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from trainer.data import Pictures
    from trainer.loop import LoopSettings, Task

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

PRECISIONS = ("bf16-mixed", "32-true")


def add_detector(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("detector", help="train the landmark detector (thesis 4.2.2)")
    parser.add_argument(
        "--preset", default="live", choices=("live", "thesis"), help="network, loss and schedule (%(default)s)"
    )
    parser.add_argument("--backbone", choices=("resnet18", "narrow"), help="in place of the preset's")
    parser.add_argument(
        "--backbone-weights", type=Path, metavar="FILE", help="begin with public ImageNet weights of a ResNet-18"
    )
    parser.add_argument(
        "--coarse",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the budget on half-size crops, preset live (%(default)s); 0 to go on with a trained one",
    )
    parser.add_argument("--loss", choices=("live", "iou", "mse"), help="in place of the preset's")
    _add_loop_options(parser, "0.002; preset thesis: 0.0001")
    parser.set_defaults(run=_detector)


def add_generator(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("generator", help="train the generator: at 128 pixels first, then at 256")
    parser.add_argument("--generator", default="live", choices=("live", "fpn"), help="fpn: the thesis's (%(default)s)")
    parser.add_argument("--size", default=128, type=int, choices=(128, 256), help="side of the crops (%(default)s)")
    parser.add_argument(
        "--mouths", type=float, default=0.0, metavar="SHARE", help="of pairs in which a shut mouth opens (%(default)s)"
    )
    parser.add_argument(
        "--judge",
        type=Path,
        metavar="CHECKPOINT",
        help="the detector that judges expressions, and whose points drive; fpn needs one",
    )
    parser.add_argument("--keep-encoder", action="store_true", help="leave the target encoder as it is")
    parser.add_argument(
        "--adversary-from",
        default=1.0,
        type=float,
        metavar="SHARE",
        help="share of the budget after which the adversary joins; 1: never (%(default)s)",
    )
    parser.add_argument(
        "--skip",
        nargs="+",
        action="extend",
        default=[],
        metavar="CLIP:FROM-TO",
        help="frames of a clip that are not used, where something hides the face, say",
    )
    _add_loop_options(parser, "0.001; fpn: 0.0001")
    add_fpn(parser)
    parser.set_defaults(run=_generator)


def _add_loop_options(parser: argparse.ArgumentParser, rates: str) -> None:
    parser.add_argument("--data", required=True, type=Path, help="what `train prepare` wrote, or a folder to prepare")
    parser.add_argument(
        "--output", required=True, type=Path, help="folder of the run; one that is there is gone on with"
    )
    parser.add_argument("--minutes", default=15.0, type=float, help="of training, over all resumed parts (%(default)s)")
    parser.add_argument("--steps", default=0, type=int, help="optimizer steps in place of minutes")
    parser.add_argument(
        "--batch",
        type=int,
        help="samples per step and device (16; fpn: 1); the detector's preset live sees each in two views",
    )
    parser.add_argument("--learning-rate", type=float, help=f"at its highest ({rates})")
    parser.add_argument("--seed", default=0, type=int, help="of weights and samples (%(default)s)")
    parser.add_argument(
        "--start-from", type=Path, metavar="CHECKPOINT", help="begin with another run's averaged weights"
    )
    parser.add_argument("--threads", type=int, help="processor threads of the networks; PyTorch's choice if not given")
    parser.add_argument("--workers", default=0, type=int, help="processes that draw samples (%(default)s: none apart)")
    parser.add_argument("--precision", default=PRECISIONS[0], choices=PRECISIONS, help="(%(default)s)")
    parser.add_argument(
        "--devices", default=1, type=int, help="how many devices of the best kind present (%(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="two steps, an evaluation, a checkpoint in OUTPUT/dry-run"
    )


def _detector(options: argparse.Namespace) -> None:
    from trainer.detector import BACKBONES, PRESETS
    from trainer.fpn import RESNET
    from trainer.train_detector import DetectorTask
    from trainer.weights import load_public

    fabric, pictures, loop = common(options, 1e-4 if options.preset == "thesis" else 2e-3)
    settings = PRESETS[options.preset]
    if options.loss:
        settings = replace(settings, loss=options.loss)
    if options.backbone:
        settings = replace(settings, widths=BACKBONES[options.backbone])
    task = DetectorTask(pictures, settings, loop.learning_rate, options.coarse)
    if options.backbone_weights:
        load_public(task.modules["detector"].encoder, options.backbone_weights, RESNET)  # type: ignore[arg-type]
    _train(options, task, loop, fabric)


def _generator(options: argparse.Namespace) -> None:
    from trainer.checkpoint import read_detector
    from trainer.train_generator import JUDGED, GeneratorTask, GeneratorTraining

    if not 0 <= options.mouths <= 1:
        raise InputError(f"--mouths {options.mouths:g} is out of range: a share from 0 to 1 is needed")
    if not 0 <= options.adversary_from <= 1:
        raise InputError(f"--adversary-from {options.adversary_from:g} is out of range: a share from 0 to 1 is needed")
    skip = parse_skips(options.skip)
    fpn = options.generator == "fpn"
    fabric, pictures, loop = common(options, *((1e-4, 1) if fpn else (1e-3, 16)))
    unknown = sorted(set(skip) - set(pictures.clips))
    if unknown:
        raise InputError(f"--skip {unknown[0]}: {options.data} has no such clip, only {', '.join(pictures.clip_names)}")
    if fpn:
        _train(options, fpn_task(options, pictures, skip, loop.learning_rate), loop, fabric)
        return
    judge = read_detector(options.judge)[0] if options.judge else None
    training = GeneratorTraining(
        options.size,
        adversary_from=options.adversary_from,
        mouths=options.mouths,
        train_encoder=not options.keep_encoder,
        landmark=JUDGED if judge else 0.0,
        skip=skip,
    )
    _train(options, GeneratorTask(pictures, training, loop.learning_rate, judge), loop, fabric)


def parse_skips(values: list[str]) -> dict[str, tuple[int, int]]:
    """["CLIP:FROM-TO", ...] as {clip: (first, last)}. Raises InputError for what is not of that form."""
    skips = {}
    for value in values:
        match = re.fullmatch(r"(.+):(\d+)-(\d+)", value)
        if match is None or int(match[2]) > int(match[3]):
            raise InputError(f"--skip {value} should be CLIP:FROM-TO, as in talk:58-245")
        skips[match[1]] = (int(match[2]), int(match[3]))
    return skips


def common(
    options: argparse.Namespace, learning_rate: float, batch: int = 16
) -> tuple["Fabric", "Pictures", "LoopSettings"]:
    """What every training needs: launched devices, seeded; the pictures; and the loop's settings."""
    if options.batch is None:
        options.batch = batch
    if options.learning_rate is None:
        options.learning_rate = learning_rate
    for name in ("minutes", "batch", "learning_rate", "devices"):
        if getattr(options, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} should be more than 0, not {getattr(options, name):g}")
    for name in ("steps", "seed", "workers"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name} should be 0 or more, not {getattr(options, name)}")
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads should be 1 or more, not {options.threads}")
    import cv2
    import torch
    from lightning.fabric import Fabric, seed_everything

    from trainer.data import Pictures
    from trainer.loop import LoopSettings

    if options.threads:
        torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    pictures = Pictures(_prepared(options))
    if options.devices > max(1, torch.cuda.device_count()) and torch.cuda.is_available():
        raise InputError(f"--devices {options.devices}: this machine has {torch.cuda.device_count()}")
    devices, machines = options.devices, 1
    if torch.distributed.is_torchelastic_launched():  # torchrun says how many, on how many machines
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(accelerator="auto", devices=devices, num_nodes=machines, precision=options.precision)
    fabric.launch()
    seed_everything(options.seed, verbose=False)
    loop = LoopSettings(
        minutes=options.minutes,
        steps=2 if options.dry_run else options.steps,
        batch=min(2, options.batch) if options.dry_run else options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        workers=options.workers,
    )
    return fabric, pictures, loop


def _prepared(options: argparse.Namespace) -> Path:
    """The file to train on: the one given, or one made of the folder given, once, in the run's folder."""
    if not options.data.is_dir():
        return Path(options.data)
    from trainer.prepare import prepare

    file = Path(options.output) / "data.npz"
    if not file.exists():
        prepare(options.data, file)
    return file


def _train(options: argparse.Namespace, task: "Task", settings: "LoopSettings", fabric: "Fabric") -> None:
    from realtime.output import make_folder
    from trainer.loop import Loop

    make_folder(options.output)
    output = options.output / "dry-run" if options.dry_run else options.output
    if options.dry_run:
        (output / "last.pt").unlink(missing_ok=True)
    loop = Loop(task, settings, output, fabric, options.start_from)
    result = loop.run()
    if fabric.is_global_zero:
        print(f"{loop.checkpoint}: " + ", ".join(f"{name} {value:.3f}" for name, value in result.items()))
