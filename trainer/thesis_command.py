"""The thesis's generator on the command line: its options, and `train study`. Heavy imports wait until one runs."""

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.errors import InputError

if TYPE_CHECKING:
    from trainer.data import Pictures
    from trainer.train_fpn import FpnTask, Judges

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_fpn(generator: argparse.ArgumentParser) -> None:
    """What `train generator --generator fpn` takes besides."""
    parser = generator.add_argument_group("the thesis's generator", "with --generator fpn")
    adversaries = ("ralsgan", "lsgan", "ragan", "wgan")
    parser.add_argument("--adversary", default="ralsgan", choices=adversaries, help="(%(default)s)")
    parser.add_argument("--landmark-loss", action="store_true", help="penalize expressions by equation 4.1")
    parser.add_argument("--landmarks", default="unet", choices=("unet", "dlib"),
                        help="whose the discriminator is shown: the judge's or dlib's (%(default)s)")  # fmt: skip
    parser.add_argument("--source", default="heatmaps", choices=("heatmaps", "picture"),
                        help="what the generator sees of the source; picture: as in the thesis, and not for a bundle "
                        "(%(default)s)")  # fmt: skip
    _add_networks(parser, "inception_resnet_v2")


def _add_networks(parser: "argparse._ActionsContainer", backbone: str) -> None:
    names = ("inception_resnet_v2", "resnet18", "small")
    parser.add_argument("--backbone", default=backbone, choices=names, help="of the pyramids (%(default)s)")
    parser.add_argument("--backbone-weights", type=Path, metavar="FILE", help="its public ImageNet weights")
    parser.add_argument("--vgg19", type=Path, metavar="FILE",
                        help="torchvision's weights, for the content loss; else the judge's encoder")  # fmt: skip
    parser.add_argument("--arcface", type=Path, metavar="FILE",
                        help="SE-ResNet-50's weights, for the identity loss; else the judge's encoder")  # fmt: skip


def judges(options: argparse.Namespace) -> "Judges":
    """The frozen networks that the options name, told on standard output."""
    from trainer.checkpoint import read_detector
    from trainer.train_fpn import Judges
    from trainer.weights import content_features, identity_features

    if options.judge is None:
        raise InputError("--generator fpn needs --judge, a checkpoint of `train detector`")
    chosen = Judges(
        read_detector(options.judge)[0],
        content_features(options.vgg19) if options.vgg19 else None,
        identity_features(options.arcface) if options.arcface else None,
        options.backbone_weights,
    )
    print(f"content loss: {chosen.content_name}\nidentity loss: {chosen.identity_name}")
    return chosen


def fpn_task(
    options: argparse.Namespace, pictures: "Pictures", skip: dict[str, tuple[int, int]], learning_rate: float
) -> "FpnTask":
    from trainer.fpn import BACKBONES
    from trainer.thesis import WITH_DISCRIMINATOR, WITH_LANDMARK_LOSS
    from trainer.train_fpn import FpnTask, FpnTraining

    training = FpnTraining(
        size=options.size,
        adversary=options.adversary,
        landmarks=options.landmarks,
        scales=WITH_LANDMARK_LOSS if options.landmark_loss else WITH_DISCRIMINATOR,
        skip=skip,
        network=replace(BACKBONES[options.backbone], source=options.source),
    )
    return FpnTask(pictures, training, learning_rate, judges(options))


def add_study(kinds: "Subparsers") -> None:
    parser = kinds.add_parser(
        "study", help="repeat the thesis's studies (5.5): expression penalty, landmark detector, GAN loss"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the study; one that is there is gone on")
    parser.add_argument("--data", type=Path, help="what `train prepare` wrote, or a folder to prepare")
    parser.add_argument("--judge", default=Path("runs/detector/last.pt"), type=Path, metavar="CHECKPOINT",
                        help="of `train detector`: the U-Net of the studies (%(default)s)")  # fmt: skip
    parser.add_argument("--minutes", default=2.5, type=float, help="of training per configuration (%(default)s)")
    parser.add_argument("--steps", default=0, type=int, help="optimizer steps per configuration in place of minutes")
    parser.add_argument("--warm-up", default=5.0, type=float, metavar="MINUTES",
                        help="in which all learn the photo alone, once, for want of a backbone that knows pictures "
                        "(%(default)s)")  # fmt: skip
    parser.add_argument("--size", default=128, type=int, choices=(128, 256), help="side of the crops (%(default)s)")
    _add_networks(parser, "small")
    parser.add_argument("--batch", default=1, type=int, help="pairs per step (%(default)s, as in the thesis)")
    parser.add_argument("--learning-rate", type=float, help="(0.0005; the thesis, in 100 epochs: 0.0001)")
    parser.add_argument("--seed", default=0, type=int, help="of weights and pairs (%(default)s)")
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT",
                        help="begin all with this run's weights, in place of a warm-up")  # fmt: skip
    parser.add_argument("--threads", type=int, help="processor threads of the networks; PyTorch's choice if not given")
    parser.add_argument("--vote", action="store_true", help="let people vote on the results of OUTPUT, on a local page")
    parser.add_argument("--questions", default=28, type=int, help="--vote: of each visitor (%(default)s)")
    parser.add_argument("--port", default=7861, type=int, help="--vote: of the page, 0 for any (%(default)s)")
    parser.add_argument("--inception", type=Path, metavar="FILE", help="pytorch-fid's weights, for the FID")
    parser.set_defaults(run=_study, dry_run=False, workers=0, devices=1, precision="bf16-mixed")


def _study(options: argparse.Namespace) -> None:
    if options.vote:
        _vote(options)
        return
    if options.data is None:
        raise InputError("train study needs --data, what `train prepare` wrote, or --vote to vote on a study's results")
    if options.warm_up < 0:
        raise InputError(f"--warm-up {options.warm_up:g} is out of range: 0 minutes or more are needed")
    from engines.bundle import default_bundle
    from engines.load import load_models
    from realtime.output import make_folder
    from trainer import study
    from trainer.cross import live
    from trainer.evaluate_generator import ours
    from trainer.fid import inception
    from trainer.training_command import common
    from trainer.vote import OURS

    describe = inception(options.inception) if options.inception else None
    chosen = judges(options)
    make_folder(options.output)
    fabric, pictures, loop = common(options, 5e-4)
    loop = replace(loop, checkpoint_minutes=1.0)
    width = 16 if options.backbone == "small" else 64
    settings = study.StudySettings(options.size, options.backbone, width, warm_up=options.warm_up)
    checkpoints = study.train(pictures, options.output, settings, loop, chosen, fabric, options.start_from)
    with closing(load_models(None, None, default_bundle())) as models:
        mine = {f"{OURS}, absolute": ours(models), OURS: live(models)}
        print(study.compare(checkpoints, mine, pictures, models.detect, options.output, describe))
    print(f"{options.output} has the table and the pictures; --vote lets people vote on them")


def _vote(options: argparse.Namespace) -> None:
    from trainer.vote import Study, comparisons, serve

    if options.questions < 1:
        raise InputError(f"--questions {options.questions} is out of range: 1 or more are needed")
    serve(Study(options.output, comparisons(), options.questions), options.port)
