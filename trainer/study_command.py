"""`train study`: its options, and what runs it. Heavy imports wait until it runs."""

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.errors import InputError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_study(kinds: "Subparsers") -> None:
    parser = kinds.add_parser(
        "study", help="repeat the thesis's studies (5.5): expression penalty, landmark detector, GAN loss"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the study; one that is there is gone on")
    parser.add_argument("--data", type=Path, help="what `train prepare` wrote, or a folder to prepare")
    parser.add_argument("--judge", default=Path("runs/detector/last.pt"), type=Path, metavar="CHECKPOINT",
                        help="of `train detector`: the U-Net of the studies (%(default)s)")  # fmt: skip
    parser.add_argument("--minutes", default=2.5, type=float, help="of training per configuration (%(default)s)")
    parser.add_argument("--warm-up", default=5.0, type=float, metavar="MINUTES",
                        help="in which all learn the photo alone, once, for want of a backbone that knows pictures "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--steps", default=0, type=int, help="optimizer steps per configuration in place of minutes")
    parser.add_argument("--size", default=128, type=int, choices=(128, 256), help="side of the crops (%(default)s)")
    parser.add_argument("--backbone", default="small", choices=("small", "resnet18"), help="(%(default)s, for CPUs)")
    parser.add_argument("--batch", default=1, type=int, help="pairs per step (%(default)s, as in the thesis)")
    parser.add_argument("--learning-rate", type=float, help="(0.0005; the thesis, in 100 epochs: 0.0001)")
    parser.add_argument("--seed", default=0, type=int, help="of weights and pairs (%(default)s)")
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="begin all with this run's weights")
    parser.add_argument("--threads", type=int, help="processor threads of the networks; PyTorch's choice if not given")
    parser.set_defaults(run=_study, dry_run=False, workers=0, devices=1, precision="bf16-mixed")


def _study(options: argparse.Namespace) -> None:
    if options.data is None:
        raise InputError("train study needs --data, what `train prepare` wrote, or --vote to vote on a study's results")
    if options.warm_up < 0:
        raise InputError(f"--warm-up {options.warm_up:g} is out of range: 0 minutes or more are needed")
    from engines.bundle import default_bundle
    from engines.load import load_models
    from trainer import study
    from trainer.checkpoint import read_detector
    from trainer.commandline import check_output_folder, common
    from trainer.evaluate_generator import ours

    judges = study.Judges(read_detector(options.judge)[0])
    check_output_folder(options.output)
    fabric, pictures, loop = common(options, 5e-4)
    loop = replace(loop, checkpoint_minutes=1.0)
    width = 16 if options.backbone == "small" else 64
    settings = study.StudySettings(options.size, options.backbone, width, warm_up=options.warm_up)
    checkpoints = study.train(pictures, options.output, settings, loop, judges, fabric, options.start_from)
    with closing(load_models(None, None, default_bundle())) as models:
        print(study.compare(checkpoints, ours(models), pictures, models.detect, options.output))
    print(f"{options.output} has the table and the pictures; --vote lets people vote on them")
