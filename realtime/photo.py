"""The photo of the target: any still picture, read as upright RGB."""

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageOps

from realtime.errors import InputError

Notify = Callable[[str], None]  # takes a sentence for the user

PORTRAITS = Path(__file__).parent / "portraits"
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")  # no format that runs other programs
SHORTEST_SIDE = 64
LONGEST_SIDE = 4096
STEEPEST_ASPECT = 8

_log = logging.getLogger(__name__)


def portrait_names() -> list[str]:
    """The portraits that ship with the program; `hopper` is the default target."""
    return sorted(path.stem for path in PORTRAITS.glob("*.jpg"))


def portrait_path(name: str) -> Path:
    """The file of a portrait that ships with the program. Raises InputError if there is none of that name."""
    path = PORTRAITS / f"{name}.jpg"
    if name not in portrait_names():
        raise InputError(f"there is no portrait {name!r}: the ones that ship are {', '.join(portrait_names())}")
    return path


def load_photo(source: str | Path | bytes, notify: Notify = _log.warning) -> NDArray[np.uint8]:
    """A still picture as RGB uint8 (height, width, 3): upright, over white where it is transparent.

    `source` is a path, the name of an embedded portrait where no such file exists, or a file's bytes. A picture with a
    side over 4096 px is reduced to that, and `notify` is told so. Raises InputError for what is not a picture, is
    cut short, is shorter than 64 px or longer than 8:1.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture", notify)
    path = Path(source)
    if str(source) in portrait_names() and not path.exists():
        path = portrait_path(str(source))
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{source} {what}: a picture file or one of {', '.join(portrait_names())} is needed")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    return _decode(io.BytesIO(content), str(source), notify)


def _decode(file: io.BytesIO, name: str, notify: Notify) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but readable files
            with PIL.Image.open(file, formats=FORMATS) as picture:
                _check_size(picture, name)
                return np.array(_reduced(_rgb(ImageOps.exif_transpose(picture)), name, notify))
    except InputError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a picture in a known format: JPEG, PNG, WebP, AVIF, TIFF and BMP are"
        ) from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise errors of nearly any type
        raise InputError(f"{name} cannot be read as a picture: {error}") from error


def _check_size(picture: PIL.Image.Image, name: str) -> None:
    short, long = sorted(picture.size)
    said = f"{name} is {picture.width}x{picture.height} px"
    if short < SHORTEST_SIDE:
        raise InputError(f"{said}: no side may be shorter than {SHORTEST_SIDE} px")
    if long > STEEPEST_ASPECT * short:
        raise InputError(f"{said}: no side may be more than {STEEPEST_ASPECT} times the other")


def _rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip instead of scaling
        return PIL.Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _reduced(picture: PIL.Image.Image, name: str, notify: Notify) -> PIL.Image.Image:
    if max(picture.size) <= LONGEST_SIDE:
        return picture
    small = ImageOps.contain(picture, (LONGEST_SIDE, LONGEST_SIDE), PIL.Image.Resampling.LANCZOS)
    notify(f"{name} is reduced from {picture.width}x{picture.height} to {small.width}x{small.height} px")
    return small
