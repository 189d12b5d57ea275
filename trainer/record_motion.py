"""Records the motions that ship (realtime/motions) from video clips: python -m trainer.record_motion CLIPS.

FaceMesh finds the points, a filter without delay takes the shimmer out, and each take is retargeted onto the mean
face, so that takes of different people join into one. Only landmarks are kept, on a face that is nobody's.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from realtime.expression import smoothstep
from realtime.landmarks import COUNT, EYES, FACEMESH, LIPS, PUPILS, Array
from realtime.motion import FOLDER, save_motion
from realtime.pose import MEAN_FACE, fit_pose, lift, unproject
from realtime.retarget import Retargeter, RetargetSettings
from trainer.prepare import Teacher

DEMO_RATE = Fraction(25)
DEMO = ("talking", "blinking", "smiling", "turning", "surprise")
REST = 0.2  # seconds of neutral between takes
NEUTRAL = MEAN_FACE[:, :2]


@dataclass(frozen=True)
class Take:
    """Frames `span` of a clip. The neutral is the mean of frames, given for the mouth and for the rest; `facing`
    takes their head pose out first. `ease`: seconds from neutral and back to it."""

    clip: str
    span: slice
    mouth: Sequence[int]
    rest: Sequence[int]
    facing: bool = False
    ease: float = 0.2
    gains: dict[str, float] = field(default_factory=dict)


TAKES = {
    "talking": Take("grid_sbia1a.mpg", slice(0, 75), [0, 1], [0, 1]),
    "smiling": Take("webcam_smile.mp4", slice(0, 72), [4, 5], [4, 5], ease=0.3),
    "blinking": Take(
        "grid_id2_vcd_swwp2s.mpg", slice(14, 70), [14], [15, 16, 17], gains={"mouth": 0, "brows": 0.6}
    ),
    "turning": Take(
        "pexels_expressions.mp4",
        slice(384, 472),
        [444],
        [444],
        ease=0.6,
        gains={"mouth": 0, "brows": 0, "eyes": 0, "gaze": 0},
    ),
    "surprise": Take(
        "pexels_expressions.mp4",
        slice(262, 288),
        range(0, 16),
        range(330, 380, 5),
        facing=True,
        ease=0.4,
        gains={"head": 0.4, "brows": 1.5, "eyes": 1.3, "gaze": 0.5},
    ),
    "gaze": Take("webcam_gaze.mp4", slice(0, 170), [8, 9], [8, 9], ease=0.3),
}


def track_clip(path: Path) -> tuple[Array, Fraction]:
    """FaceMesh's points in every frame of a clip, (T, 56, 2) in its pixels, and its frame rate."""
    teacher, points = Teacher(video=True), []
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        for frame in container.decode(video=0):
            mesh = teacher(frame.to_ndarray(format="rgb24"))
            if mesh is None:
                raise ValueError(f"{path} shows no face in frame {len(points)}")
            points.append(mesh[FACEMESH, :2])
    teacher.close()
    assert rate is not None
    return np.array(points, np.float32), rate


def without_shimmer(track: Array) -> Array:
    """A Gaussian along time, without delay: one frame wide for the head, half a frame for lids and lips."""
    widths = np.full(COUNT, 1.0)
    widths[EYES] = widths[LIPS] = 0.5
    widths[PUPILS] = 0.7
    steps = np.arange(-3, 4)
    kernels = np.exp(-0.5 * (steps[:, None] / widths) ** 2)
    kernels /= kernels.sum(0)
    padded = np.pad(track, ((3, 3), (0, 0), (0, 0)), mode="edge")
    shifted = [padded[3 + step : len(track) + 3 + step] * kernel[:, None] for step, kernel in zip(steps, kernels)]
    return np.sum(shifted, 0).astype(np.float32)


def facing(points: Array) -> Array:
    """Points (56, 2) as they would be were the head straight."""
    pose = fit_pose(points, MEAN_FACE)
    return unproject(points, lift(points)[:, 2], pose)


def record(take: Take, track: Array, rate: Fraction) -> Array:
    """The take on the mean face, (T, 56, 2), from neutral to neutral."""
    track = without_shimmer(track)
    neutrals = [[facing(p) if take.facing else p for p in track[list(frames)]] for frames in (take.mouth, take.rest)]
    mouth, neutral = (np.mean(frames, 0) for frames in neutrals)
    neutral[LIPS] = mouth[LIPS]
    retargeter = Retargeter(NEUTRAL, RetargetSettings(smoothing=0, **take.gains))
    retargeter.calibrate(neutral.astype(np.float32))
    driven = np.array([retargeter.drive(points, i / rate) for i, points in enumerate(track[take.span])])
    seconds = np.arange(len(driven)) / float(rate)
    near = np.minimum(seconds, seconds[-1] - seconds) / take.ease
    return (NEUTRAL + smoothstep(near)[:, None, None] * (driven - NEUTRAL)).astype(np.float32)


def resample(track: Array, rate: Fraction, new_rate: Fraction) -> Array:
    """The track at another frame rate, each point along a straight line between frames."""
    times = np.arange(0, len(track) - 1 + 1e-6, float(rate / new_rate))
    before = np.minimum(times.astype(int), len(track) - 2)
    share = (times - before)[:, None, None]
    return ((1 - share) * track[before] + share * track[before + 1]).astype(np.float32)


def main(clips: Path) -> None:
    """Writes every motion, and the demo that strings them together."""
    FOLDER.mkdir(exist_ok=True)
    pause = np.repeat(NEUTRAL[None], round(REST * DEMO_RATE), 0)
    parts = {}
    for name, take in TAKES.items():
        track, rate = track_clip(clips / take.clip)
        motion = record(take, track, rate)
        save_motion(FOLDER / f"{name}.npz", motion, rate)
        parts[name] = resample(motion, rate, DEMO_RATE)
    demo = np.concatenate([part for name in DEMO for part in (parts[name], pause)])
    save_motion(FOLDER / "demo.npz", demo, DEMO_RATE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
