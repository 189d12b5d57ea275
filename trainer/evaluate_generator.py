"""The generators' tables: self- and cross-reenactment of people never trained on, at 256x256 on the full crop."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from realtime.alignment import cut, similarity
from realtime.compositor import border_window
from realtime.errors import InputError
from realtime.faces import MeshFinder
from realtime.head import HeadFinder
from realtime.landmarks import STRIDE, five_points, heatmap_points, render_heatmaps
from realtime.prior import driving_prior
from trainer.baselines import Find, copy, dlib_embedding, facemesh, mesh_warp
from trainer.checkpoint import read_generator
from trainer.cross import NOTES as CROSS_NOTES
from trainer.cross import Drive, Reenact, Reenactor, aligned, drives, measure_cross, real_pictures
from trainer.data import Pictures
from trainer.fid import Describe, distance
from trainer.fid import note as fid_note
from trainer.fpn import FpnGenerator, FpnTargetEncoder
from trainer.generator import compose
from trainer.mesh import Surface
from trainer.metrics import (
    PICTURE_METRICS,
    carried_over,
    cosine_similarity,
    error_percent,
    eye_opening,
    mean_of_known,
    mean_rows,
    mouth_opening,
)
from trainer.pairs import Pairs
from trainer.sheet import labelled, sheet, write_picture
from trainer.table import Rows, save_tables

EVERY = 6  # frames of a clip between two that are rebuilt
STILL = 4  # frames of a clip on which flicker is measured
NOTES = (
    "The first frame of a clip is the photo; every sixth later one is rebuilt from it, under the photo's crop. Of "
    "people with several stills, the first is the photo. Expression: NMSE between the points that MediaPipe sees in "
    "truth and result, in % of the pupil distance. CSIM: cosine of dlib's embeddings of photo and result; a dash if "
    "dlib is not installed. Flicker: mean difference, in grey levels, of the results of one frame under two samples of "
    "camera noise of two grey levels. Eyes and mouth: the share of the change of opening that is carried over, as "
    "MediaPipe sees it. "
)


@dataclass(frozen=True)
class Sequence:
    """A photo's crop and the crops it shall become."""

    name: str
    photo: np.ndarray
    truths: list[np.ndarray]


def ours(models: Any) -> Reenactor:
    """The models of a bundle (docs/design.md, Models), driven by their own detector's points, as they are."""
    window, head_finder = torch.from_numpy(border_window(256)), HeadFinder()

    def of_photo(photo: np.ndarray) -> Reenact:
        target, _ = heatmap_points(models.detect(photo))
        head = head_finder.find(photo, target)
        features = models.encode_target(photo, render_heatmaps(target))
        picture = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255

        def reenact(driving: np.ndarray) -> np.ndarray:
            points, _ = heatmap_points(models.detect(driving))
            flow, mask, colour = models.generate(render_heatmaps(points), driving_prior(points, head), features)
            channels = (flow, mask[None], colour.transpose(2, 0, 1))
            moves, shares, paint = (torch.from_numpy(np.array(array[None], np.float32)) for array in channels)
            result = compose(picture, moves, shares, paint, window)
            return (result[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().contiguous().numpy()

        return reenact

    return of_photo


def fpn(path: Path, detect: Callable[[np.ndarray], np.ndarray]) -> Reenactor:
    """The thesis's generator of a checkpoint, at the size it was trained at; `detect` gives a crop's heatmaps
    (56, 64, 64), should it be driven by them. Raises InputError if the checkpoint is not of that generator."""
    encoder, generator, state = read_generator(path)
    if not isinstance(encoder, FpnTargetEncoder) or not isinstance(generator, FpnGenerator):
        raise InputError(f"{path} holds the generator that ships, not the thesis's: `train generator --generator fpn`")
    size: int = state["settings"]["size"]
    window = torch.from_numpy(border_window(256))

    def tensor(crop: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255

    def shrunk(crop: np.ndarray) -> torch.Tensor:
        return tensor(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) if size < 256 else crop)

    def heatmaps(crop: np.ndarray) -> torch.Tensor:
        points, _ = heatmap_points(detect(crop))
        return torch.from_numpy(render_heatmaps(points, size // STRIDE))[None]

    read = shrunk if generator.settings.source == "picture" else heatmaps
    nothing = torch.zeros(1, 2, size // STRIDE, size // STRIDE)

    def of_photo(photo: np.ndarray) -> Reenact:
        whole = tensor(photo)
        with torch.no_grad():
            features = encoder(shrunk(photo), nothing)

        @torch.no_grad()
        def reenact(driving: np.ndarray) -> np.ndarray:
            made = generator(read(driving), nothing, *features)[2]
            made = F.interpolate(made, size=(256, 256), mode="bilinear", align_corners=False)
            result = whole + window * (made - whole)
            return (result[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().contiguous().numpy()

        return reenact

    return of_photo


def baselines(pictures: Pictures) -> dict[str, Reenactor]:
    """Copying the photo, and moving its FaceMesh triangles: those alone, up to the picture's border, and with what
    ours has learnt of hair and background around them."""
    surface = Pairs(pictures, 256).surface
    return {
        "copy": copy,
        "FaceMesh warp": mesh_warp(Surface(surface.mean, rings=False, margin=0)),
        "FaceMesh warp, our hair and background": mesh_warp(surface),
    }


def clip_sequences(pictures: Pictures) -> list[Sequence]:
    """The held-out clips, all frames under the crop of the first."""
    sequences = []
    for name in pictures.held_out_clips:
        indices = np.flatnonzero(pictures.clips == name)
        matrix = similarity(five_points(pictures.points[indices[0]]))
        first, *later = (cut(pictures.image(i), matrix) for i in indices[::EVERY])
        if later:
            sequences.append(Sequence(name, first, later))
    return sequences


def still_sequences(pictures: Pictures) -> list[Sequence]:
    """The held-out people with several stills, each still under its own crop."""
    sequences = []
    for name, indices in pictures.held_out_stills().items():
        first, *later = (aligned(pictures, i) for i in indices)
        if later:
            sequences.append(Sequence(name, first, later))
    return sequences


@dataclass
class Observer:
    """What judges the results: MediaPipe's eyes and dlib's, neither of which was trained with ours."""

    find: Find
    embed: Callable[[np.ndarray], np.ndarray] | None

    def points(self, crop: np.ndarray) -> np.ndarray:
        points = self.find(crop)
        return np.full((56, 2), np.nan, np.float32) if points is None else points


def picture_figures(results: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float]:
    """The means of L1, PSNR and SSIM."""
    pairs = list(zip(results, truths, strict=True))
    return {name: float(np.mean([metric(a, b) for a, b in pairs])) for name, metric in PICTURE_METRICS.items()}


def measure(reenactor: Reenactor, sequence: Sequence, observer: Observer) -> tuple[dict[str, float], list[np.ndarray]]:
    """Every figure for one sequence, and the results."""
    reenact = reenactor(sequence.photo)
    results = [reenact(truth) for truth in sequence.truths]
    row = picture_figures(results, sequence.truths)
    seen = np.stack([observer.points(result) for result in results])
    asked = np.stack([observer.points(truth) for truth in sequence.truths])
    row["expression NMSE %"] = mean_of_known(error_percent(seen, asked))
    if observer.embed:
        of_photo = observer.embed(sequence.photo)
        row["CSIM"] = float(np.mean([cosine_similarity(of_photo, observer.embed(result)) for result in results]))
    else:
        row["CSIM"] = float("nan")
    row["flicker"] = flicker(reenact, sequence.truths)
    photo = observer.points(sequence.photo)[None]
    known = ~np.isnan(seen).any((1, 2)) & ~np.isnan(asked).any((1, 2))
    for name, opening in (("eyes carried over %", eye_opening), ("mouth carried over %", mouth_opening)):
        row[name] = carried_over(opening(seen[known]), opening(asked[known]), opening(photo))
    return row, results


def flicker(reenact: Reenact, frames: list[np.ndarray]) -> float:
    """Mean difference in grey levels between the results of one frame under two samples of camera noise."""
    rng = np.random.default_rng(0)

    def noisy(frame: np.ndarray) -> np.ndarray:
        return np.clip(np.round(frame + rng.normal(0, 2, frame.shape)), 0, 255).astype(np.uint8)

    chosen = frames[:: max(1, len(frames) // STILL)]
    pairs = [(reenact(noisy(frame)), reenact(noisy(frame))) for frame in chosen]
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]))


def evaluate(
    reenactors: dict[str, Reenactor],
    pictures: Pictures,
    output: Path,
    describe: Describe | None = None,
    crossing: dict[str, Reenactor] | None = None,
) -> str:
    """Measure reenactors on the held-out people; writes table.md, table.json and sheet.png, the worst frames of the
    first reenactor first. `describe` gives the FID; `crossing` are measured in cross-reenactment only. Returns the
    tables.

    Raises InputError if there is nothing to rebuild.
    """
    groups = {"Held-out clips": clip_sequences(pictures), "Held-out stills of one person": still_sequences(pictures)}
    groups = {title: sequences for title, sequences in groups.items() if sequences}
    if not groups:
        raise InputError("no clip and no pair of stills shows a person who is held out: more people are needed")
    observer = Observer(facemesh(video=False), dlib_embedding())
    tables: dict[str, Rows] = {}
    columns: list[tuple[float, np.ndarray]] = []
    for title, sequences in groups.items():
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in reenactors}
        made: dict[str, list[np.ndarray]] = {name: [] for name in reenactors}
        for sequence in tqdm(sequences, desc=title, unit=" sequences"):
            shown = []
            for name, reenactor in reenactors.items():
                row, results = measure(reenactor, sequence, observer)
                measured[name].append(row)
                made[name] += results
                shown.append(results)
            columns += _columns(sequence, dict(zip(reenactors, shown, strict=True)))
        truths = [truth for sequence in sequences for truth in sequence.truths]
        tables[title] = {
            name: mean_rows(rows) | {"FID": distance(made[name], truths, describe)} for name, rows in measured.items()
        }
    if crossed := drives(pictures):
        tables["Cross-reenactment"] = cross_rows(reenactors | (crossing or {}), crossed, describe)
    columns.sort(key=lambda column: column[0])
    pictured = [column for _, column in columns[:: max(1, len(columns) // 24)]]
    write_picture(output / "sheet.png", sheet([pictured[i : i + 12] for i in range(0, len(pictured), 12)]))
    return save_tables(tables, NOTES + CROSS_NOTES + fid_note(describe), output)


def cross_rows(reenactors: dict[str, Reenactor], crossed: list[Drive], describe: Describe | None) -> Rows:
    """Every reenactor's figures, the mean over the drives; MediaPipe sees each source once."""
    teacher, embed = MeshFinder(video=False), dlib_embedding()
    asked = {crop.tobytes(): teacher(crop) for drive in crossed for crop in drive.sources}
    real = real_pictures(crossed)

    def mesh(crop: np.ndarray) -> np.ndarray | None:
        known = crop.tobytes()
        return asked[known] if known in asked else teacher(crop)

    rows: Rows = {}
    for name, reenactor in tqdm(reenactors.items(), desc="Cross-reenactment", unit=" generators"):
        measured, results = zip(*(measure_cross(reenactor, drive, mesh, embed) for drive in crossed), strict=True)
        fid = distance([image for made in results for image in made], real, describe)
        rows[name] = {"FID": fid} | mean_rows(list(measured))
    teacher.close()
    return rows


def _columns(sequence: Sequence, results: dict[str, list[np.ndarray]]) -> list[tuple[float, np.ndarray]]:
    """Photo, truth and results above one another for each frame, with the first reenactor's PSNR."""
    columns = []
    for index, truth in enumerate(sequence.truths):
        made = [labelled(frames[index], name) for name, frames in results.items()]
        first = next(iter(results.values()))[index]
        column = np.vstack([labelled(sequence.photo, "photo"), labelled(truth, "truth"), *made])
        columns.append((PICTURE_METRICS["PSNR dB"](first, truth), column))
    return columns
