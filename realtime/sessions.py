"""How many people one machine serves: sessions side by side, each with its camera at 30 FPS."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from realtime.bench import CAMERA_RATE, Image, Replay, captured, held, peak_memory_mb, render_clip, spread
from realtime.errors import InputError
from realtime.loop import Loop
from realtime.pool import ModelPool
from realtime.puppet import Models, Puppet, Result
from realtime.sources import Frame, Source

SERVED = 0.95  # of a camera's frames, at least, for a session to count as served
SETTLE = 1.0  # seconds before counting


class _Viewer:
    """Counts the pictures of one session, and how old they were, milliseconds."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    def __call__(self, frame: Frame, _result: Result) -> None:
        self.ages.append((time.monotonic() - frame.captured_at) * 1000)


def measure_sessions(
    load: Callable[[], Models],
    photo: Image,
    source: Source | None,
    seconds: float,
    count: int,
    batch: bool | None = None,
) -> dict[str, Any]:
    """Figures of `count` sessions on one device.

    load and batch: as ModelPool has them, which serves the live page, too; photo and source: as
    `realtime.bench.measure` has them. `served` counts the sessions that got 95 of 100 frames of their camera; `fps` is
    each session's; `shared` says whether all had one set of models; `largest_batch` counts frames.
    """
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(contextlib.closing(ModelPool(load, batch)))
        models = [stack.enter_context(pool.lend()) for _ in range(count)]
        puppets = [stack.enter_context(contextlib.closing(Puppet(one, photo))) for one in models]
        frames = list(held(source or render_clip(models[0])))
        if all(puppets[0].animate(captured(frame)).points is None for frame in frames[:10]):
            raise InputError("the source shows no face in the frames measured: a face in view is needed")
        ages, dropped = _run(puppets, frames, seconds)
        fps = [round(len(of_one) / seconds, 1) for of_one in ages]
        everyone = [age for of_one in ages for age in of_one]
        return {
            "sessions": count,
            "served": sum(rate >= SERVED * float(CAMERA_RATE) for rate in fps),
            "fps": fps,
            "fps_together": round(len(everyone) / seconds, 1),
            "latency_ms": spread(everyone or [float("nan")]),
            "dropped": dropped,
            "shared": pool.batcher is not None,
            "largest_batch": pool.batcher.largest if pool.batcher else 1,
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "engine": models[0].engine,
            "precision": models[0].precision,
            "device": models[0].device,
        }


def _run(puppets: Sequence[Puppet], frames: Sequence[Frame], seconds: float) -> tuple[list[list[float]], int]:
    """Ages of every session's pictures, in milliseconds, and how many frames all of them dropped."""
    viewers = [_Viewer() for _ in puppets]
    loops = []
    for number, (puppet, viewer) in enumerate(zip(puppets, viewers, strict=True)):
        begin = number * len(frames) // len(puppets)  # everyone is somewhere else in the clip
        mine = [dataclasses.replace(frame) for frame in [*frames[begin:], *frames[:begin]]]
        loops.append(Loop(Replay(mine, CAMERA_RATE), puppet, viewer))
    for loop in loops:
        loop.start()
    try:
        time.sleep(SETTLE)
        before = [len(viewer.ages) for viewer in viewers]
        dropped = sum(loop.dropped for loop in loops)
        time.sleep(seconds)
        ages = [viewer.ages[start:] for viewer, start in zip(viewers, before, strict=True)]
        dropped = sum(loop.dropped for loop in loops) - dropped
    finally:  # also at Ctrl-C: what they work with is closed next
        for loop in loops:
            loop.stop()
        for loop in loops:
            loop.join()
    return ages, dropped


def sentences(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    each = ", ".join(f"{rate:g}" for rate in figures["fps"])
    latency = figures["latency_ms"]
    models = f"shared, largest batch {figures['largest_batch']}" if figures["shared"] else "a set for each session"
    return "\n".join(
        [
            f"{figures['served']} of {figures['sessions']} sessions served at {CAMERA_RATE} FPS "
            f"by {figures['engine']} {figures['precision']} on {figures['device']}",
            f"frames per second   {each}; together {figures['fps_together']:g}",
            f"latency, ms         median {latency['median']:.1f}, p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f}",
            f"dropped             {figures['dropped']}",
            f"models              {models}",
            f"peak memory, MiB    {figures['peak_memory_mb']}",
        ]
    )
