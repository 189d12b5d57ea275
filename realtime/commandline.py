"""The options of `video`, and what they start."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from realtime.errors import InputError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="video or picture file, motion:NAME, or camera:N until Ctrl-C")
    parser.add_argument("--target", default="hopper", help="photo, or the name of an embedded portrait (%(default)s)")
    parser.add_argument("--output", required=True, type=Path, help="MP4 file to write")
    parser.add_argument("--motion", default="relative", help="relative, or absolute: the face as the source has it")
    parser.add_argument(
        "--reference", default="first", help="the source's neutral: the first frame, or the best, most like the photo"
    )
    parser.add_argument(
        "--gain",
        nargs="+",
        action="extend",
        default=[],
        metavar="PART=GAIN",
        help="strength of relative motion, such as mouth=1.2; parts are mouth, eyes, brows, gaze and head",
    )
    parser.add_argument("--side-by-side", action="store_true", help="put the source left of the photo")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def make_video(options: argparse.Namespace, load_models: Callable[[], Any]) -> None:
    """Drive a photo into an MP4 file. Raises InputError for what cannot be used."""
    from tqdm import tqdm

    from realtime.photo import load_photo
    from realtime.puppet import Puppet
    from realtime.retarget import RetargetSettings, parse_gains
    from realtime.sources import open_source
    from realtime.video import check_output, look_ahead, reenact

    def say(sentence: str) -> None:
        tqdm.write(f"puppetcam: {sentence}", file=sys.stderr)

    check_output(options.output, options.overwrite)
    settings = RetargetSettings(options.motion, options.reference, **parse_gains(options.gain))
    photo = load_photo(options.target, say)
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_source(options.source, say)))
        if source.frame_count == 1 and options.motion == "relative":
            say("a single picture is its own neutral, and moves nothing: --motion absolute gives the photo its face")
        models = stack.enter_context(closing(load_models()))
        try:
            puppet = stack.enter_context(closing(Puppet(models, photo, settings, say)))
        except InputError as error:
            raise InputError(f"{options.target}: {error}") from None
        if options.reference == "best" and not source.live:
            with tqdm(total=source.frame_count, desc="looking for the neutral", unit=" frames", leave=False) as looked:
                look_ahead(options.source, models.detect, puppet.retargeter, looked.update, say)
        progress = stack.enter_context(tqdm(total=source.frame_count, unit=" frames"))
        count = reenact(
            source,
            puppet.animate,
            options.output,
            size=(photo.shape[1], photo.shape[0]),
            overwrite=options.overwrite,
            side_by_side=options.side_by_side,
            on_frame=progress.update,
            notify=say,
        )
    print(f"{options.output}: {count} frames")
