"""`export`: its options, and what runs it. Heavy imports wait until it runs."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from realtime.errors import InputError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_export(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("export", help="make a bundle that the program runs of two checkpoints")
    parser.add_argument("--detector", required=True, type=Path, metavar="CHECKPOINT", help="of `train detector`")
    parser.add_argument("--generator", required=True, type=Path, metavar="CHECKPOINT", help="of `train generator`")
    parser.add_argument("--output", required=True, type=Path, help="folder of the bundle")
    parser.add_argument(
        "--data", type=Path, help="what `train prepare` wrote, to calibrate int8 graphs on; without it there are none"
    )
    parser.add_argument(
        "--trained-on",
        default="not stated",
        metavar="TEXT",
        help="what the models were trained on, whose it is and under which licence, for the card (not stated)",
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from realtime.output import make_folder
    from trainer.data import Pictures
    from trainer.export import export

    make_folder(options.output)
    pictures = Pictures(options.data) if options.data else None
    export(options.detector, options.generator, options.output, pictures, options.trained_on)
    if pictures:
        _compare(options.output)
    print(f"{options.output}: a bundle for --bundle")


def _compare(folder: Path) -> None:
    """Print what int8 costs on the portraits."""
    from engines.bundle import load_bundle
    from engines.load import load_models
    from realtime.parity import difference, portrait_faces, sentence

    with contextlib.ExitStack() as stack:
        int8, full = (
            stack.enter_context(contextlib.closing(load_models("openvino", precision, load_bundle(folder))))
            for precision in ("int8", "f32")
        )
        try:
            print(f"int8 against f32: {sentence(difference(int8, full, list(portrait_faces(full))))}")
        except InputError as error:
            print(f"int8 is not compared: {error}")
