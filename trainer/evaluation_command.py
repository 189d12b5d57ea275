"""`evaluate detector` and `evaluate generator`: options, and what runs them. Heavy imports wait until they run."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import EngineError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Load = Callable[[argparse.Namespace], Any]  # the models that the options ask for


def add_evaluate(
    subparsers: "Subparsers", add_engine_options: Callable[[argparse.ArgumentParser], None], load: Load
) -> None:
    parser = subparsers.add_parser("evaluate", help="measure the models against others, on people not trained on")
    kinds = parser.add_subparsers(title="what to measure", metavar="KIND", required=True)

    detector = kinds.add_parser("detector", help="landmarks: accuracy, steadiness and speed")
    detector.add_argument(
        "--checkpoint", nargs="+", action="extend", default=[], type=Path, help="of `train detector`, to measure beside"
    )
    detector.add_argument("--dlib", nargs="+", action="extend", default=[], type=Path, help="of `train dlib`, likewise")
    detector.set_defaults(run=lambda options: _evaluate_detector(options, load))

    generator = kinds.add_parser("generator", help="self-reenactment: truth to picture, expression and person")
    generator.add_argument(
        "--fpn", nargs="+", action="extend", default=[], type=Path, metavar="CHECKPOINT",
        help="of `train generator --generator fpn`, the thesis's, to measure beside",
    )  # fmt: skip
    generator.add_argument("--inception", type=Path, metavar="FILE", help="pytorch-fid's weights, for the FID")
    generator.set_defaults(run=lambda options: _evaluate_generator(options, load))

    for name, kind in (("detector", detector), ("generator", generator)):
        kind.add_argument("--data", required=True, type=Path, help="what `train prepare` wrote")
        kind.add_argument("--output", type=Path, default=Path("runs/evaluation") / name, help="folder (%(default)s)")
        add_engine_options(kind)


def every_engine(options: argparse.Namespace, load: Load) -> Iterator[Any]:
    """The models on the engine that is asked for; on every one that is installed and can run here, if none is."""
    from engines.load import present_engines

    if options.engine:
        yield load(options)
        return
    for name in present_engines():
        try:
            models = load(argparse.Namespace(**vars(options) | {"engine": name}))
        except EngineError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        yield models


def _evaluate_detector(options: argparse.Namespace, load: Load) -> None:
    from realtime.faces import FaceFinder
    from realtime.output import make_folder
    from trainer import evaluate_detector as evaluation
    from trainer.data import Pictures

    make_folder(options.output)
    pictures = Pictures(options.data)
    methods = {f"{path}": evaluation.of_checkpoint(path) for path in options.checkpoint}
    methods |= {f"{path}": evaluation.of_predictor(path) for path in options.dlib}
    with contextlib.ExitStack() as stack:
        finder = stack.enter_context(contextlib.closing(FaceFinder()))
        ours = {}
        for models in every_engine(options, load):
            stack.enter_context(contextlib.closing(models))
            ours[f"ours, {models.engine} {models.precision}"] = evaluation.of_models(models, finder)
        print(evaluation.evaluate(ours | methods | evaluation.baselines(), pictures, options.output))
    print(f"{options.output} has the table and the pictures")


def _evaluate_generator(options: argparse.Namespace, load: Load) -> None:
    from realtime.output import make_folder
    from trainer import evaluate_generator as evaluation
    from trainer.cross import live
    from trainer.data import Pictures
    from trainer.fid import inception

    describe = inception(options.inception) if options.inception else None
    make_folder(options.output)
    pictures = Pictures(options.data)
    with contextlib.closing(load(options)) as models:
        name = f"ours, {models.engine} {models.precision}"
        reenactors = {name: evaluation.ours(models)} | evaluation.baselines(pictures)
        reenactors |= {f"{path}": evaluation.fpn(path, models.detect) for path in options.fpn}
        crossing = {f"{name}, relative": live(models)}
        print(evaluation.evaluate(reenactors, pictures, options.output, describe, crossing))
    print(f"{options.output} has the table and the pictures")
