"""The options of `live`, and what they start."""

import argparse
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s); others need TLS")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (%(default)s); 0 takes a free one")
    parser.add_argument("--target", default="hopper", help="photo, or the name of an embedded portrait (%(default)s)")
    parser.add_argument(
        "--source", default="motion:demo", help="what drives it until the browser's camera does (%(default)s)"
    )
    parser.add_argument("--camera", type=int, metavar="N", help="this machine's camera: short for --source camera:N")
    parser.add_argument(
        "--virtual-camera", action="store_true", help="show the first person's result to meetings on this machine, too"
    )
    parser.add_argument("--sessions", type=int, default=2, help="how many people at once (%(default)s)")
    add_batch_option(parser)
    parser.add_argument("--token", help="what visitors must know; made and printed for other hosts than this machine")
    parser.add_argument("--tls-cert", type=Path, help="certificate, a PEM file")
    parser.add_argument("--tls-key", type=Path, help="its key, a PEM file")
    parser.add_argument("--self-signed", action="store_true", help="TLS with a certificate made now")
    parser.add_argument("--no-mark", action="store_true", help='leave out the word "synthetic" in the corner')


def add_batch_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch",
        action=argparse.BooleanOptionalAction,
        help="have sessions share one set of models that takes their frames in batches, or not; if not given, they "
        "share where the engine takes batches on a GPU",
    )


def serve_live(options: argparse.Namespace, load_models: Callable[[], Any]) -> None:
    """Serve the live page until Ctrl-C. Raises InputError for what cannot be used."""
    from realtime.pool import ModelPool
    from web.address import Address
    from web.virtualcam import VirtualCamera

    if options.threads is None:  # two models work at a time, and the browser beside them
        options.threads = max(1, (psutil.cpu_count(logical=False) or 1) // 2)
    address = Address(options.host, options.port, options.token, options.tls_cert, options.tls_key, options.self_signed)

    with ExitStack() as stack:
        # Models are closed last: OpenVINO takes the stack that signals are handled on with it, and uvicorn raises the
        # signal that ended it once more.
        pool = stack.enter_context(closing(ModelPool(load_models, options.batch)))
        virtual_camera = stack.enter_context(closing(VirtualCamera())) if options.virtual_camera else None
        from realtime.sources import open_source  # what takes long to import comes when the rest is right
        from web.serve import serve
        from web.studio import Studio

        studio = Studio(
            target=options.target,
            source=options.source if options.camera is None else f"camera:{options.camera}",
            sessions=options.sessions,
            mark=not options.no_mark,
            asked=" ".join(filter(None, (options.engine, options.precision))),
            open_source=open_source,
            pool=pool,
            virtual_camera=virtual_camera,
        )
        serve(studio, address)
