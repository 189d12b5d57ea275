"""Puppetcam's command line, and the only file that knows every room.

Each subcommand is `_add_NAME`, which declares its options, and `_NAME`, which runs it and imports what it needs, so
that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.bundle import EngineError
from realtime.errors import InputError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def _add_info(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("info", help="print engines, devices, model and versions: what a bug report needs")
    parser.set_defaults(run=_info)


def _info(_: argparse.Namespace) -> None:
    print("info")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="puppetcam", description="Drive a still photo with your face, live.")
    subparsers = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    for add in (_add_info,):
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
    except KeyboardInterrupt:
        print("puppetcam: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
