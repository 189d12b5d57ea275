"""Puppetcam's command line, and the only file that knows every room.

Each subcommand is an `_add_NAME` here or an `add_NAME` of its room's command line, which declares its options and what
runs it. What runs imports what it needs itself, so that `--help` answers at once.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Between two small products OpenBLAS's threads wait by spinning, which takes a core from whoever needs it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

from engines.bundle import Bundle, EngineError, default_bundle, load_bundle
from engines.load import ENGINES
from realtime.commandline import add_options as add_video_options
from realtime.commandline import make_video
from realtime.errors import InputError
from trainer.commandline import add_train
from trainer.evaluation_command import add_evaluate
from trainer.export_command import add_export
from web.commandline import add_batch_option, serve_live
from web.commandline import add_options as add_live_options

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", help=f"one of {', '.join(ENGINES)}; the best one here if not given")
    parser.add_argument(
        "--precision",
        help="int8, f32, bf16 or f16 (fp32 and fp16 do, too); the fastest that engine and device have if not given",
    )
    parser.add_argument("--device", help="where to run, as `info` names it; the engine's own choice if not given")
    parser.add_argument(
        "--threads",
        type=int,
        help="processor threads of a model; one per physical core if not given, half as many in `live`",
    )
    parser.add_argument("--bundle", type=Path, help="folder of models; the ones that ship if not given")


def _models(options: argparse.Namespace, say: Callable[[str], None] | None = None) -> Any:
    from engines.load import load_models

    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    return load_models(options.engine, options.precision, bundle, options.device, options.threads, say)


def _add_build(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("build", help="compile the models into the user's cache folder")
    _add_engine_options(parser)
    parser.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> None:
    from engines.cache import cache_folder
    from engines.load import build_models, is_half

    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    build_models(options.engine, options.precision, bundle, options.device, options.threads, print)
    print(f"compiled models live in {cache_folder()}")
    if options.engine == "tensorrt" and is_half(options.precision):
        _print_error(options, bundle)


def _print_error(options: argparse.Namespace, bundle: Bundle) -> None:
    """What half precision costs, on real faces: PyTorch rounds every value as a card does."""
    from importlib.util import find_spec

    from engines.load import load_models
    from realtime.parity import difference, portrait_faces, sentence

    if find_spec("torch") is None:
        print("what half precision costs is measured with PyTorch, which is not here: pip install 'puppetcam[train]'")
        return
    with contextlib.ExitStack() as stack:
        asked = (options.precision or "f16", "f32")
        half, full = (
            stack.enter_context(contextlib.closing(load_models("torch", precision, bundle, "cpu", options.threads)))
            for precision in asked
        )
        print(f"{half.precision} against f32: {sentence(difference(half, full, list(portrait_faces(full))))}")


def _add_info(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("info", help="print engines, devices, models and versions: what a bug report needs")
    parser.set_defaults(run=_info)


def _info(_: argparse.Namespace) -> None:
    import json
    import platform

    from engines.cache import cache_folder
    from engines.load import present_engines
    from engines.machine import package_versions, processor

    present = present_engines()
    try:
        model: object = default_bundle().summary()
    except EngineError as error:
        model = str(error)
    facts = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "engines": {name: present[name].devices() if name in present else "not installed" for name in ENGINES},
        "model": model,
        "cache": str(cache_folder()),
        "packages": package_versions(),
    }
    print(json.dumps(facts, indent=2))


def _add_video(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("video", help="drive a photo with a video, a motion or a camera, into an MP4 file")
    add_video_options(parser)
    _add_engine_options(parser)
    parser.set_defaults(run=lambda options: make_video(options, lambda: _models(options)))


def _add_live(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("live", help="serve the live page: drive a photo with the browser's camera")
    add_live_options(parser)
    _add_engine_options(parser)
    parser.set_defaults(run=lambda options: serve_live(options, lambda: _models(options)))


def _add_bench(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("bench", help="measure speed, latency and memory on real frames")
    _add_engine_options(parser)
    parser.add_argument("--source", help="video, picture, or motion:NAME; a portrait that talks if not given")
    parser.add_argument("--target", default="hopper", help="photo, or the name of an embedded portrait (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="how long to measure an engine (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--plot", type=Path, help="PNG file for a bar chart of the stages")
    parser.add_argument("--web", action="store_true", help="measure the live page in Chromium, from glass to glass")
    parser.add_argument("--sessions", type=int, help="measure how many of so many people are served at 30 FPS")
    add_batch_option(parser)
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> None:
    import json

    from realtime import report
    from realtime.output import check_path

    for path, suffix in ((options.output, ".json"), (options.plot, ".png")):
        if path is not None:
            check_path(path, suffix)
    if not 0 < options.seconds <= 3600:
        raise InputError(f"--seconds {options.seconds:g} is out of range: more than 0 and at most 3600 is needed")
    if options.web and (options.sessions, options.batch) != (None, None):
        raise InputError("--web measures the page of one person: --sessions and --batch go without it")
    if options.batch is not None and options.sessions is None:
        raise InputError(f"--{'' if options.batch else 'no-'}batch is about --sessions: say how many")
    if options.web or options.sessions is not None:
        if options.plot:
            raise InputError("--plot draws the stages of a benchmark without --web or --sessions")
        figures = _bench_web(options) if options.web else _bench_sessions(options)
        if options.output:
            report.write_report([figures], options.output)
        print(json.dumps(figures, separators=(",", ":")))
        return
    engines = (options.engine or "").split(",")
    runs = [_measure(options)] if len(engines) == 1 else [_measure_apart(options, engine) for engine in engines]
    print(report.table(runs))
    if options.output:
        report.write_report(runs, options.output)
    if options.plot:
        report.plot(runs, options.plot)
    print(json.dumps(report.document(runs), separators=(",", ":")))


def _bench_sessions(options: argparse.Namespace) -> dict[str, Any]:
    from realtime.photo import load_photo
    from realtime.sessions import measure_sessions, sentences
    from realtime.sources import open_source

    if not 1 <= options.sessions <= 256:
        raise InputError(f"--sessions {options.sessions} is out of range: 1 to 256 is needed")
    photo = load_photo(options.target)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(open_source(options.source))) if options.source else None
        load, count = lambda: _models(options), options.sessions
        figures = measure_sessions(load, photo, source, options.seconds, count, options.batch)
    print(sentences(figures))
    return figures


def _bench_web(options: argparse.Namespace) -> dict[str, Any]:
    """The live server is a process of its own, as it is in earnest."""
    import signal
    import subprocess
    import tempfile

    from realtime.bench import render_clip
    from realtime.sources import open_source
    from web.bench import find_browser, measure_page, write_clip

    find_browser()
    names = ("engine", "precision", "device", "threads", "bundle", "target")
    given = [f"--{name}={value}" for name in names if (value := getattr(options, name)) is not None]
    with tempfile.TemporaryDirectory(prefix="puppetcam-") as folder:
        clip = Path(folder) / "camera.mjpeg"
        if options.source:
            with contextlib.closing(open_source(options.source)) as source:
                write_clip(source, clip)
        else:
            with contextlib.closing(_models(options)) as models:
                write_clip(render_clip(models), clip)
        command = [sys.executable, __file__, "live", "--port=0", *given]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                said = server.stdout.readline().split()
                if not said:
                    sys.exit(server.wait())  # it has said why
                return measure_page(said[3], server.pid, clip, options.seconds)
            finally:
                server.send_signal(signal.SIGINT)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from realtime.bench import measure
    from realtime.photo import load_photo
    from realtime.sources import open_source

    photo = load_photo(options.target)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(open_source(options.source))) if options.source else None
        models = stack.enter_context(contextlib.closing(_models(options)))
        return measure(models, photo, source, options.seconds)


def _measure_apart(options: argparse.Namespace, engine: str) -> dict[str, Any]:
    """One of several engines, in a process of its own: start-up and memory are its own, too."""
    import json
    import subprocess

    names = ("precision", "device", "threads", "bundle", "source", "target", "seconds")
    given = [f"--{name}={value}" for name in names if (value := getattr(options, name)) is not None]
    command = [sys.executable, __file__, "bench", f"--engine={engine}", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _add_landmarks(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("landmarks", help="find the 56 landmarks of still pictures")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="picture file")
    parser.add_argument("--output", required=True, type=Path, help="JSON file for the points")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="save the pictures with the points on them there")
    _add_engine_options(parser)
    parser.set_defaults(run=_landmarks)


def _landmarks(options: argparse.Namespace) -> None:
    import json

    from tqdm import tqdm

    from realtime.annotation import annotate, check_drawn
    from realtime.output import check_path

    check_path(options.output, ".json")
    check_drawn(options.pictures, options.draw)
    with contextlib.closing(_models(options)) as models:
        found = list(annotate(tqdm(options.pictures, unit=" pictures"), models.detect, options.draw))
    options.output.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"{options.output}: {sum(one['points'] is not None for one in found)} faces in {len(found)} pictures")


def _add_evaluate(subparsers: "Subparsers") -> None:
    add_evaluate(subparsers, _add_engine_options, _models)


# Packages that an extra brings: the first part of a module's name, and the extra.
EXTRAS = dict.fromkeys(["kornia", "lightning", "nncf", "onnx", "scipy", "skimage", "tensorboard", "torch"], "train")
EXTRAS["pyvirtualcam"] = "virtual-camera"
EXTRAS["dlib"] = "eval"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="puppetcam", description="Drive a still photo with your face, live.")
    subparsers = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    trainer = (add_train, _add_evaluate, add_export)
    for add in (_add_live, _add_build, _add_info, _add_video, _add_bench, _add_landmarks, *trainer):
        add(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the process's exit code: 0, 2 for bad input, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (InputError, EngineError) as error:
        print(f"puppetcam: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(f"puppetcam: {error.name} is not installed: pip install 'puppetcam[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("puppetcam: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
