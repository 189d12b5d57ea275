"""Records the motions that ship (realtime/motions) from video clips: python -m trainer.record_motion CLIPS.

FaceMesh finds the points, a filter without delay takes the shimmer out, and each take is laid on the mean face, so
that takes of different people join into one. Only landmarks are kept, on a face that is nobody's.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from realtime.alignment import similarity, transform
from realtime.expression import smoothstep
from realtime.faces import MeshFinder
from realtime.landmarks import BROWS, COUNT, EYES, FACEMESH, LIPS, MIRROR, PUPILS, Array, five_points
from realtime.motion import FOLDER, save_motion
from realtime.pose import MEAN_FACE, fit_pose, lift, limit_pose, project, unproject

DEMO_RATE = Fraction(25)
DEMO = ("talking", "blinking", "smiling", "turning", "surprise")
REST = 0.2  # seconds of neutral between takes
NEUTRAL = MEAN_FACE[:, :2]
PARTS = {"mouth": LIPS, "brows": BROWS, "eyes": EYES, "gaze": PUPILS}


@dataclass(frozen=True)
class Take:
    """Frames of a clip, in the order to play. The neutral is the mean of frames, given for the mouth and for the rest;
    `facing` takes their head pose out first. `ease`: seconds from neutral and back to it. `pose`: gains of log scale,
    roll, yaw, pitch and shift. `symmetric`: the mean of the motion and its mirror image."""

    clip: str
    frames: Sequence[int]
    mouth: Sequence[int]
    rest: Sequence[int]
    facing: bool = False
    symmetric: bool = False
    ease: float = 0.2
    pose: tuple[float, ...] = (1, 1, 1, 1, 1, 1)
    gains: dict[str, float] = field(default_factory=dict)


TAKES = {
    "talking": Take("grid_sbia1a.mpg", range(75), [0, 1], [0, 1]),
    "smiling": Take("webcam_smile.mp4", range(72), [4, 5], [4, 5], ease=0.3),
    "blinking": Take("grid_id2_vcd_swwp2s.mpg", range(14, 70), [14], [15, 16, 17], gains={"mouth": 0, "brows": 0.6}),
    "turning": Take(  # she tilts her head more than she turns it, and stays there for long
        "pexels_expressions.mp4",
        [*range(386, 408), *range(408, 438, 3), *range(438, 472)],
        [444],
        [444],
        ease=0.7,
        pose=(1, 0.35, 1.7, 1, 0.5, 0.5),
        gains={"mouth": 0, "brows": 0, "eyes": 0, "gaze": 0},
    ),
    "surprise": Take(
        "pexels_expressions.mp4",
        [*range(264, 287), *range(285, 264, -1)],
        range(0, 16),
        range(330, 380, 5),
        facing=True,
        symmetric=True,
        ease=0.4,
        pose=(0, 1, 1, 0.5, 0, 0),
        gains={"mouth": 0.85, "brows": 1.4, "eyes": 1.3},
    ),
    "gaze": Take("webcam_gaze.mp4", range(170), [8, 9], [8, 9], ease=0.3),
}


def track_clip(path: Path) -> tuple[Array, Fraction]:
    """FaceMesh's points in every frame of a clip, (T, 56, 2) in its pixels, and its frame rate."""
    teacher = MeshFinder(video=True)
    points: list[Array] = []
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        for frame in container.decode(video=0):
            mesh = teacher(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
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
    shifted = [
        padded[3 + step : len(track) + 3 + step] * kernel[:, None] for step, kernel in zip(steps, kernels, strict=True)
    ]
    return np.sum(shifted, 0).astype(np.float32)


def facing(points: Array) -> Array:
    """Points (56, 2) as they would be were the head straight."""
    pose = fit_pose(points, MEAN_FACE)
    return unproject(points, lift(points)[:, 2], pose)


def record(take: Take, track: Array, rate: Fraction) -> Array:
    """The take on the mean face, (T, 56, 2), from neutral to neutral.

    Plainly added: the rules that fit an expression to a face are for whoever plays the track, and must not act twice.
    """
    neutrals = [[facing(p) if take.facing else p for p in track[list(frames)]] for frames in (take.mouth, take.rest)]
    mouth, neutral = (np.mean(frames, 0, np.float32) for frames in neutrals)
    neutral[LIPS] = mouth[LIPS]
    placement = similarity(five_points(neutral), five_points(NEUTRAL))
    face = lift(transform(neutral, placement))
    gains = np.ones((COUNT, 1))
    for part, gain in take.gains.items():
        gains[PARTS[part]] = gain
    driven = []
    for points in transform(track[list(take.frames)], placement):
        pose = fit_pose(points, face)
        change = gains * (unproject(points, face[:, 2], pose) - face[:, :2])
        driven.append(project(MEAN_FACE + np.pad(change, ((0, 0), (0, 1))), limit_pose(pose * take.pose)))
    motion = np.array(driven)
    if take.symmetric:
        motion = (motion + [256, 0] + motion[:, MIRROR] * [-1, 1]) / 2
    seconds = np.arange(len(motion)) / float(rate)
    near = np.minimum(seconds, seconds[-1] - seconds) / take.ease
    return (NEUTRAL + smoothstep(near)[:, None, None] * (motion - NEUTRAL)).astype(np.float32)


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
        motion = record(take, without_shimmer(track), rate)
        save_motion(FOLDER / f"{name}.npz", motion, rate)
        parts[name] = resample(motion, rate, DEMO_RATE)
    demo = np.concatenate([part for name in DEMO for part in (parts[name], pause)])
    save_motion(FOLDER / "demo.npz", demo, DEMO_RATE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
