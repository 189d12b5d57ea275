"""What people upload: bounded before it is decoded, and never a name on the file system."""

import contextlib
import io
from typing import Any

import numpy as np
import PIL.Image
from fastapi import Request
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.photo import FORMATS, Notify, load_photo

PHOTO_BYTES = 20 << 20
PHOTO_PIXELS = 50_000_000


async def read_body(request: Request, most: int) -> bytes:
    """The request's body. Raises InputError for more than `most` bytes, without reading on."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise InputError(f"the upload is too large: at most {most / 1e6:.1f} MB are taken")
    return bytes(body)


def decode_photo(body: bytes, notify: Notify = lambda _: None) -> NDArray[np.uint8]:
    """An uploaded photo, RGB uint8 (H, W, 3). Raises InputError for what is none, or is too large to be decoded."""
    if len(body) > PHOTO_BYTES:
        raise InputError(f"the photo has {len(body) / 1e6:.1f} MB: at most {PHOTO_BYTES / 1e6:.1f} MB are taken")
    pixels = _pixel_count(body)
    if pixels > PHOTO_PIXELS:
        raise InputError(f"the photo has {pixels / 1e6:.0f} megapixels: at most {PHOTO_PIXELS / 1e6:.0f} are taken")
    return load_photo(body, notify)


def _pixel_count(body: bytes) -> int:
    """Pixels that a picture's header promises; 0 where `load_photo` will say what is wrong with it."""
    picture: Any
    with contextlib.suppress(Exception), PIL.Image.open(io.BytesIO(body), formats=FORMATS) as picture:
        return int(picture.width * picture.height)
    return 0
