"""Small real media files, made where a test needs them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from realtime.photo import load_photo, portrait_path

RATE = Fraction(25)


def swatch(index: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """A picture whose corners tell which way up it is, and whose brightness tells its number."""
    image = np.full((height, width, 3), 40 + 8 * (index % 20), np.uint8)
    image[: height // 2, : width // 2] = (220, 30, 30)
    image[: height // 2, width // 2 :] = (30, 200, 30)
    return image


def portrait(width: int = 256, height: int = 300, shift: int = 0) -> NDArray[np.uint8]:
    """The embedded portrait at a size, moved to the right by some pixels."""
    from PIL import Image

    photo = Image.fromarray(load_photo(portrait_path("hopper"))).resize((width, height))
    return np.roll(np.asarray(photo), shift, axis=1)


def write_clip(
    path: Path,
    images: Iterable[NDArray[np.uint8]],
    stamps: Sequence[int] | None = None,
    *,
    time_base: Fraction = 1 / RATE,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    matrix: Sequence[int] | None = None,
    sound: str | None = None,
    sound_rate: int = 48000,
    sound_from: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures, shown from `stamps` on, with a click at one second in `sound`, an audio codec's name."""
    pictures = list(images)
    with av.open(path, "w") as container:
        video = container.add_stream(codec, rate=RATE, options=options or {})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = pixels
        video.time_base = video.codec_context.time_base = time_base
        if matrix:
            video.set_display_matrix(matrix)
        audio = container.add_stream(sound, rate=sound_rate, layout="mono") if sound else None
        for index, image in enumerate(pictures):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            picture.pts, picture.time_base = stamps[index] if stamps else index, time_base
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio:
            seconds = (stamps[-1] if stamps else len(pictures)) * time_base
            for chunk in _click(sound_rate, float(seconds), float(sound_from)):
                container.mux(audio.encode(chunk))
            container.mux(audio.encode(None))
    return path


def _click(rate: int, seconds: float, start: float) -> Iterable[av.AudioFrame]:
    samples = np.zeros((1, int(rate * max(seconds, 1.2))), np.float32)
    samples[0, rate : rate + rate // 50] = np.sin(np.arange(rate // 50) * 0.5)
    for offset in range(int(rate * start), samples.shape[1], 1000):
        chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, offset : offset + 1000]), "fltp", "mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = rate, offset, Fraction(1, rate)
        yield chunk


def stamps_of(path: Path) -> list[Fraction]:
    """When each picture of a file is shown, in seconds."""
    with av.open(path) as container:
        return [picture.pts * picture.time_base for picture in container.decode(video=0)]


def pictures_of(path: Path) -> list[NDArray[np.uint8]]:
    """A file's pictures, RGB."""
    with av.open(path) as container:
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]


def click_of(path: Path) -> float:
    """When the sound of a file is first loud, in seconds."""
    with av.open(path) as container:
        for chunk in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(chunk.to_ndarray().astype(np.float64)).max(0) > _threshold(chunk))
            if len(loud):
                return float(chunk.pts * chunk.time_base) + int(loud[0]) / chunk.sample_rate
    raise AssertionError(f"{path} is silent")


def _threshold(chunk: av.AudioFrame) -> float:
    return 0.3 if "flt" in chunk.format.name else 0.3 * 2**15
