"""Cross-reenactment: one person's expressions on another person's photo, where no truth can be compared with."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np

from realtime.alignment import cut, similarity
from realtime.landmarks import FACEMESH, five_points, heatmap_points
from realtime.puppet import Puppet
from realtime.retarget import RetargetSettings
from realtime.sources import Frame
from trainer.data import Pictures
from trainer.mesh import STABLE, rigid_fit
from trainer.metrics import carried_over, cosine_similarity, error_percent, eye_opening, mean_of_known, mouth_opening

Reenact = Callable[[np.ndarray], np.ndarray]  # driving crop -> result, both RGB uint8 (256, 256, 3)
Reenactor = Callable[[np.ndarray], Reenact]  # given a photo's crop
Mesh = Callable[[np.ndarray], np.ndarray | None]  # crop -> FaceMesh (478, 3)
Embed = Callable[[np.ndarray], np.ndarray]  # crop -> embedding

FRAMES = 6  # of each source, its neutral first
NOTES = (
    "Cross-reenactment: each held-out clip, and each held-out person with several stills, drives photos of other "
    "held-out people. Expression: NMSE (thesis 5.1) between the points that MediaPipe sees in source and result after "
    "the head's pose, place and size are taken out of both; the two faces' shapes are left in it. Motion: NMSE of the "
    "points' change since the source's first picture. CSIM: of photo and result. Eyes and mouth: the share of the "
    "change of opening since the first picture that is carried over."
)


@dataclass(frozen=True)
class Drive:
    """A photo's crop and the crops of another person that drive it, neutral first."""

    name: str
    photo: np.ndarray
    sources: list[np.ndarray]


def drives(pictures: Pictures, photos: int = 2) -> list[Drive]:
    """Every held-out clip, and every held-out person with several stills, driving so many photos of others."""
    stills = pictures.held_out_stills()
    sources: dict[str, list[np.ndarray]] = {}
    for name in pictures.held_out_clips:
        indices = np.flatnonzero(pictures.clips == name)
        matrix = similarity(five_points(pictures.points[indices[0]]))
        chosen = indices[np.linspace(0, len(indices) - 1, min(FRAMES, len(indices))).astype(int)]
        sources[name] = [cut(pictures.image(i), matrix) for i in chosen]
    sources |= {name: [aligned(pictures, i) for i in own[:FRAMES]] for name, own in stills.items() if len(own) > 1}
    made = []
    for number, (name, crops) in enumerate(sources.items()):
        others = [person for person in stills if person != name]
        for k in range(min(photos, len(others))):
            person = others[(number * photos + k) * 7 % len(others)]
            made.append(Drive(f"{name} drives {person}", aligned(pictures, stills[person][0]), crops))
    return made


def live(models: Any) -> Reenactor:
    """The live program on a photo's crop: its own retargeting, relative to the first driving crop, unsmoothed."""

    def of_photo(photo: np.ndarray) -> Reenact:
        puppet = Puppet(models, photo, RetargetSettings(smoothing=0.0))
        seconds = count()

        def reenact(driving: np.ndarray) -> np.ndarray:
            points, now = heatmap_points(models.detect(driving))[0], next(seconds)
            return puppet.animate(Frame(None, points, now, Fraction(1), float(now), now)).image

        weakref.finalize(reenact, puppet.close)
        return reenact

    return of_photo


def real_pictures(drives: list[Drive]) -> list[np.ndarray]:
    """Every photo and every source of some drives, once: what results should look like."""
    every = {crop.tobytes(): crop for drive in drives for crop in (drive.photo, *drive.sources)}
    return list(every.values())


def aligned(pictures: Pictures, index: int) -> np.ndarray:
    """A picture under its own crop, RGB uint8 (256, 256, 3)."""
    return cut(pictures.image(index), similarity(five_points(pictures.points[index])))


def expression(mesh: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The 56 points (56, 2) of a mesh (478, 3) that is turned, scaled and shifted like the head of another."""
    rotation, shift = rigid_fit(mesh[STABLE], frame[STABLE])
    return (mesh @ rotation.T + shift)[FACEMESH, :2].astype(np.float32)


def measure_cross(
    reenactor: Reenactor, drive: Drive, mesh: Mesh, embed: Embed | None
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Every figure for one drive, and the results; NaN for what MediaPipe sees no face in."""
    reenact = reenactor(drive.photo)
    results = [reenact(source) for source in drive.sources]
    frame = mesh(drive.sources[0])
    seen = [(mesh(source), mesh(result)) for source, result in zip(drive.sources, results, strict=True)]
    blank = np.full((56, 2), np.nan, np.float32)
    points = np.stack(
        [[blank if frame is None or m is None else expression(m, frame) for m in pair] for pair in seen]
    )  # (N, 2, 56, 2): source, result
    asked, got = points[:, 0], points[:, 1]
    row = {"expression NMSE %": mean_of_known(error_percent(got, asked))}
    moved = got - got[0] + asked[0]
    row["motion NMSE %"] = mean_of_known(error_percent(moved[1:], asked[1:]))
    row["CSIM"] = float("nan")
    if embed:
        of_photo = embed(drive.photo)
        row["CSIM"] = float(np.mean([cosine_similarity(of_photo, embed(result)) for result in results]))
    known = ~np.isnan(points).any((1, 2, 3))
    for name, opening in (("eyes carried over %", eye_opening), ("mouth carried over %", mouth_opening)):
        a, b = opening(asked[known]), opening(got[known])
        nothing = np.zeros(max(0, len(a) - 1))
        row[name] = carried_over(b[1:] - b[:1], a[1:] - a[:1], nothing) if known[0] and len(a) > 1 else float("nan")
    return row, results
