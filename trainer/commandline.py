"""The trainer's part of the command line, `train`. Heavy imports wait until a command runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.errors import InputError
from trainer.thesis_command import add_study
from trainer.training_command import add_detector, add_generator

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_train(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("train", help="prepare pictures, and train the detector or the generator on them")
    kinds = parser.add_subparsers(title="what to train", metavar="KIND", required=True)
    for add in (
        _add_prepare,
        _add_head,
        add_detector,
        _add_dlib,
        add_generator,
        _add_average,
        _add_restore,
        add_study,
    ):
        add(kinds)


def _add_prepare(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("prepare", help="label and align a folder of pictures and clips, into one file")
    parser.add_argument("--data", required=True, type=Path, help="folder of pictures and clips, at any depth")
    parser.add_argument("--output", required=True, type=Path, help="npz file to write")
    parser.set_defaults(run=_prepare)


def _add_head(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("head", help="fit what 56 landmarks tell of a head, and what expressions do to a face")
    parser.add_argument("--data", required=True, type=Path, help="what `train prepare` wrote")
    parser.add_argument("--output", required=True, type=Path, help="npz file to write: realtime/head.npz ships")
    parser.add_argument(
        "--mean-face",
        type=Path,
        metavar="FILE",
        help="npy file for the mean face, of people's stills named *neutral, too: realtime/mean_face.npy ships",
    )
    parser.set_defaults(run=_head)


def _add_dlib(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("dlib", help="train dlib's shape predictor, the detector's rival (thesis 5.3.3)")
    parser.add_argument("--data", required=True, type=Path, help="what `train prepare` wrote")
    parser.add_argument("--output", required=True, type=Path, help="file of the predictor")
    parser.add_argument("--trees", type=int, default=500, help="per level of the cascade of ten (%(default)s)")
    parser.add_argument("--seed", default=0, type=int, help="of crops and trees (%(default)s)")
    parser.set_defaults(run=_dlib)


def _add_average(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("average", help="write the mean of checkpoints that were trained on from one beginning")
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--output", required=True, type=Path, help="checkpoint file to write")
    parser.set_defaults(run=_average)


def _add_restore(kinds: "Subparsers") -> None:
    parser = kinds.add_parser("restore", help="make checkpoints of a bundle, to train on from the models that ship")
    parser.add_argument("--bundle", type=Path, help="folder of models; the ones that ship if not given")
    parser.add_argument("--data", required=True, type=Path, help="what `train prepare` wrote")
    parser.add_argument("--output", required=True, type=Path, help="folder for detector.pt and generator.pt")
    parser.set_defaults(run=_restore)


def _prepare(options: argparse.Namespace) -> None:
    from trainer.prepare import prepare

    prepare(options.data, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.1f} MiB")


def _head(options: argparse.Namespace) -> None:
    import numpy as np

    from realtime.output import check_path
    from trainer.data import Pictures
    from trainer.head import fit, mean_face

    check_path(options.output, ".npz")
    if options.mean_face:
        check_path(options.mean_face, ".npy")
    pictures = Pictures(options.data)
    if options.mean_face:
        np.save(options.mean_face, mean_face(pictures))
        print(f"{options.mean_face}: the mean face")
    print(f"{options.output}: {fit(pictures, options.output):.2f} crop pixels from the meshes")


def _dlib(options: argparse.Namespace) -> None:
    from realtime.output import check_path
    from trainer.data import Pictures
    from trainer.train_dlib import DlibTraining, train

    check_path(options.output, ".dat")
    if options.trees < 1:
        raise InputError(f"--trees should be 1 or more, not {options.trees}")
    count = train(Pictures(options.data), options.output, DlibTraining(trees=options.trees, seed=options.seed))
    print(f"{options.output}: trained on {count} crops")


def _average(options: argparse.Namespace) -> None:
    from realtime.output import check_path
    from trainer.checkpoint import average

    if len(options.checkpoints) < 2:
        raise InputError(f"an average needs two checkpoints or more, not {options.checkpoints[0]} alone")
    check_path(options.output, ".pt")
    average(options.checkpoints, options.output)
    print(f"{options.output}: the mean of {len(options.checkpoints)} checkpoints")


def _restore(options: argparse.Namespace) -> None:
    from engines.bundle import default_bundle, load_bundle
    from realtime.output import make_folder
    from trainer.data import Pictures
    from trainer.restore import restore

    make_folder(options.output)
    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    for path in restore(bundle, Pictures(options.data), options.output):
        print(f"{path}: to be gone on with by --start-from")
