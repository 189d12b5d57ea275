"""How fast the way of a frame is: real frames through the real pipeline, its stages and its latency."""

import dataclasses
import itertools
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray

from realtime.errors import InputError
from realtime.landmarks import CROP_SIZE, Array
from realtime.loop import Loop
from realtime.photo import load_photo
from realtime.puppet import STAGES, Models, Puppet, Result
from realtime.sources import Frame, MotionSource, Source

Image = NDArray[np.uint8]

CAMERA_RATE = Fraction(30)  # frames per second of the camera that latency is measured with
MICROSECOND = Fraction(1, 1_000_000)
CAMERA_SIZE = (640, 480)
CLIP_FRAMES = 90
CLIP_BYTES = 100 << 20  # of a source's first pictures, held in memory
WARM_UP = 20  # frames


class _Warp:
    """Models whose generator moves the picture by its landmarks alone: they make the clip, and time nothing."""

    engine, precision, device = "none", "f32", "cpu"

    def __init__(self, models: Models) -> None:
        self.detect = models.detect

    def encode_target(self, _crop: Image, _heatmaps: Array) -> Array:
        return np.zeros((CROP_SIZE, CROP_SIZE, 3), np.float32)

    def generate(self, _driving: Array, prior: Array, features: Array) -> tuple[Array, Array, Array]:
        return prior[:2], np.ones((CROP_SIZE, CROP_SIZE), np.float32), features

    def close(self) -> None: ...


def render_clip(models: Models, count: int = CLIP_FRAMES) -> Iterator[Frame]:
    """A camera's view of an embedded portrait that talks and sways, with the noise of a sensor: 640x480, 30 FPS."""
    portrait, random = load_photo("collins"), np.random.default_rng(0)
    noise = random.normal(0, 2, (CAMERA_SIZE[1], CAMERA_SIZE[0], 3)).astype(np.int16)
    puppet = Puppet(_Warp(models), portrait)
    middle = np.array(portrait.shape[1::-1]) / 2
    track = list(MotionSource("talking"))
    try:
        for index, moved in zip(range(count), itertools.cycle(track + track[::-1]), strict=False):
            image = puppet.animate(dataclasses.replace(moved, pts=index, time_base=1 / CAMERA_RATE)).image
            phase = 2 * np.pi * index / count
            scale = CAMERA_SIZE[1] / portrait.shape[0] * (1 + 0.03 * np.sin(2 * phase))
            matrix = cv2.getRotationMatrix2D(tuple(middle), 3 * np.sin(phase), scale)
            shift = np.array(CAMERA_SIZE) / 2 - middle + (25 * np.sin(phase), 6 * np.sin(3 * phase))
            matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])
            view = cv2.warpAffine(image, matrix, CAMERA_SIZE, borderMode=cv2.BORDER_REPLICATE)
            grain = np.roll(noise, random.integers(0, CAMERA_SIZE[1], 2), (0, 1))
            seen = np.clip(view + grain, 0, 255).astype(np.uint8)
            yield Frame(seen, None, index, 1 / CAMERA_RATE, time.monotonic(), index)
    finally:
        puppet.close()


def captured(frame: Frame) -> Frame:
    """The frame as if a camera took it now."""
    now = time.monotonic()
    return dataclasses.replace(frame, pts=round(now * 1e6), time_base=MICROSECOND, captured_at=now)


class Replay:
    """A live source of frames from memory, there and back again without end: at a rate, or as fast as they go."""

    size = frame_count = path = None
    live = True

    def __init__(self, frames: Sequence[Frame], rate: Fraction | None) -> None:
        self.frame_rate = rate
        self._closed = threading.Event()
        self._numbered = enumerate(itertools.cycle([*frames, *frames[-2:0:-1]]))
        self._started = time.monotonic()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        index, frame = next(self._numbered)
        if self.frame_rate:
            self._closed.wait(self._started + index / float(self.frame_rate) - time.monotonic())
        if self._closed.is_set():
            raise StopIteration
        return dataclasses.replace(captured(frame), index=index)

    def close(self) -> None:
        self._closed.set()


def held(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames that may be held in memory."""
    room = CLIP_BYTES
    for frame in frames:
        yield frame
        room -= frame.image.nbytes if frame.image is not None else 0
        if room < 0:
            return


def spread(samples: Sequence[float]) -> dict[str, float]:
    median, p95, p99 = np.percentile(samples, [50, 95, 99])
    return {"median": round(median, 3), "p95": round(p95, 3), "p99": round(p99, 3)}


def measure(models: Models, photo: Image, source: Source | None, seconds: float) -> dict[str, Any]:
    """Figures of one engine, as the table and the JSON document show them.

    photo: RGB uint8 (H, W, 3); source: None for `render_clip`, which needs no file; its frames are held in memory, so
    that a decoder is not measured; seconds: how long, half for throughput, half for latency.

    `fps` and `stages_ms` are of frames that follow each other at once, `latency_ms` and `dropped` of a camera at 30 FPS
    and the live loop: from a frame's capture to its composed picture. `first_frame_s` counts from the process's start.
    Raises InputError for a source without a face.
    """
    puppet = Puppet(models, photo)
    try:
        clip = held(source or render_clip(models))
        frames = [next(clip)]
        puppet.animate(captured(frames[0]))
        first_frame_s = time.time() - psutil.Process().create_time()
        frames += clip
        results, fps = _throughput(puppet, frames, seconds / 2)
        if all(result.points is None for result in results):
            raise InputError("the source shows no face in the frames measured: a face in view is needed")
        latencies, dropped = _latency(puppet, frames, seconds / 2)
        changes = [_target_change(puppet, photo, frames[0]) for _ in range(3)]
    finally:
        puppet.close()
    return {
        "fps": round(fps, 2),
        "latency_ms": spread(latencies),
        "stages_ms": {stage: spread([result.stages_ms[stage] for result in results]) for stage in STAGES},
        "frames": len(results) + len(latencies),
        "dropped": dropped,
        "first_frame_s": round(first_frame_s, 3),
        "target_change_ms": round(float(np.median(changes)), 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "engine": models.engine,
        "precision": models.precision,
        "device": models.device,
        "photo": list(photo.shape[1::-1]),
        "source": list(frames[0].image.shape[1::-1]) if frames[0].image is not None else None,
    }


def _throughput(puppet: Puppet, frames: Sequence[Frame], seconds: float) -> tuple[list[Result], float]:
    """Results of frames that follow each other at once, less their pictures, and frames per second."""
    camera = Replay(frames, None)
    results: list[Result] = []
    for frame in itertools.islice(camera, WARM_UP):
        puppet.animate(frame)
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not results:
        results.append(
            dataclasses.replace(puppet.animate(next(camera)), image=np.empty((0, 0, 3), np.uint8), crop=None)
        )
    return results, len(results) / elapsed


def _latency(puppet: Puppet, frames: Sequence[Frame], seconds: float) -> tuple[list[float], int]:
    """Milliseconds from capture to picture in the live loop, and how many frames it dropped."""
    latencies: list[float] = []
    loop = Loop(
        Replay(frames, CAMERA_RATE), puppet, lambda frame, _: latencies.append(time.monotonic() - frame.captured_at)
    )
    loop.start()
    try:
        while not latencies and loop.running:
            time.sleep(0.01)
        time.sleep(seconds)
    finally:  # also at Ctrl-C: what it works with is closed next
        loop.stop()
        loop.join()
    return [1000 * latency for latency in latencies], loop.dropped


def _target_change(puppet: Puppet, photo: Image, frame: Frame) -> float:
    """Milliseconds from another photo to its first picture."""
    started = time.perf_counter()
    puppet.set_photo(photo)
    puppet.animate(captured(frame))
    return (time.perf_counter() - started) * 1000


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MiB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
