"""Section 5.5's studies: the thesis's generator under each of its choices, for the same small budget on the same pairs.

Every configuration is a run of its own (trainer.loop) below the study's folder, so that a study that was killed goes
on where it was. The end is a table like 6.2, pictures like 6.4, and the results that people vote on (trainer.vote).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric, seed_everything
from tqdm import tqdm

from realtime.errors import InputError
from trainer.checkpoint import read_checkpoint
from trainer.cross import NOTES as CROSS_NOTES
from trainer.cross import Drive, Reenactor, drives
from trainer.data import Pictures
from trainer.evaluate_generator import clip_sequences, cross_rows, fpn, picture_figures
from trainer.fid import Describe
from trainer.fid import note as fid_note
from trainer.fpn import BACKBONES
from trainer.loop import Loop, LoopSettings
from trainer.metrics import mean_rows
from trainer.sheet import labelled, sheet, write_picture
from trainer.table import Rows, save_tables
from trainer.thesis import WITH_DISCRIMINATOR, WITH_LANDMARK_LOSS, Coefficients
from trainer.train_fpn import FpnTask, FpnTraining, Judges
from trainer.vote import STUDIES

# What is trained: name -> adversary, the detector whose landmarks the discriminator sees, expression penalty.
CONFIGURATIONS = {
    "ralsgan-dlib": ("ralsgan", "dlib", WITH_DISCRIMINATOR),
    "lsgan-dlib": ("lsgan", "dlib", WITH_DISCRIMINATOR),
    "ragan-dlib": ("ragan", "dlib", WITH_DISCRIMINATOR),
    "wgan-dlib": ("wgan", "dlib", WITH_DISCRIMINATOR),
    "ralsgan-unet": ("ralsgan", "unet", WITH_DISCRIMINATOR),
    "ralsgan-unet-loss": ("ralsgan", "unet", WITH_LANDMARK_LOSS),
}
CONTENT_ALONE = Coefficients(content=1.0, adversarial=0.0, identity=0.0)
SHOWN = 10  # pairs of people that people vote on (5.6)
NOTES = (
    "NMSE, CSIM, motion, eyes and mouth are of cross-reenactment; L1, PSNR and SSIM of rebuilding held-out clips from "
    "their first frames, at 256x256 on the full crop. "
)


@dataclass(frozen=True)
class StudySettings:
    """What all configurations share: crops, backbone of the pyramids, channels of the discriminator's first layer."""

    size: int = 128
    backbone: str = "small"
    discriminator: int = 16
    source: str = "picture"
    warm_up: float = 5.0  # minutes in which all learn the photo alone, once: their pyramids know no pictures yet


def training(name: str, settings: StudySettings) -> FpnTraining:
    """One configuration's settings."""
    adversary, landmarks, scales = CONFIGURATIONS[name]
    network = replace(BACKBONES[settings.backbone], source=settings.source)
    return FpnTraining(
        size=settings.size,
        adversary=adversary,
        landmarks=landmarks,
        scales=scales,
        discriminator=settings.discriminator,
        network=network,
    )


def train(
    pictures: Pictures,
    output: Path,
    settings: StudySettings,
    loop: LoopSettings,
    judges: Judges,
    fabric: Fabric,
    start_from: Path | None = None,
) -> dict[str, Path]:
    """Train every configuration that is not finished; returns their checkpoints.

    Raises InputError if one that is there was begun with other settings.
    """

    def trained(name: str, one: FpnTraining, loop: LoopSettings, start_from: Path | None) -> Path:
        seed_everything(loop.seed, verbose=False)  # the same first weights and the same pairs for all
        task = FpnTask(pictures, one, loop.learning_rate, judges)
        _check_same(output / name / "last.pt", task.settings)
        run = Loop(task, loop, output / name, fabric, start_from)
        run.run()
        return run.checkpoint

    if start_from is None and settings.warm_up:
        alone = replace(training("ralsgan-unet", settings), scales=CONTENT_ALONE)
        steps = math.ceil(loop.steps * settings.warm_up / loop.minutes)
        start_from = trained("warm-up", alone, replace(loop, minutes=settings.warm_up, steps=steps), None)
    return {name: trained(name, training(name, settings), loop, start_from) for name in CONFIGURATIONS}


def _check_same(checkpoint: Path, settings: FpnTraining) -> None:
    if not checkpoint.exists():
        return
    then = read_checkpoint(checkpoint, "encoder", "generator")["settings"]
    for name, now in asdict(settings).items():
        if then.get(name) != now:
            raise InputError(f"{checkpoint} was trained with {name} {then.get(name)}, not {now}: name another --output")


def compare(
    checkpoints: dict[str, Path],
    ours: dict[str, Reenactor],
    pictures: Pictures,
    detect: Callable[[np.ndarray], np.ndarray],
    output: Path,
    describe: Describe | None = None,
) -> str:
    """Measure every configuration, and in last place the generator that ships, on held-out people; `describe` gives
    the FID. Writes table.md, table.json, grid.png and the pictures to vote on. Returns the table.

    Raises InputError if there is nobody to measure on.
    """
    reenactors = {name: fpn(path, detect) for name, path in checkpoints.items()} | ours
    crossed, rebuilt = drives(pictures), clip_sequences(pictures)
    if not crossed:
        raise InputError("no held-out person can drive another: more people are needed")
    crossing = cross_rows(reenactors, crossed, describe)
    measured: dict[str, dict[str, float]] = {}
    for name, reenactor in tqdm(reenactors.items(), desc="Self-reenactment", unit=" generators"):
        own = [picture_figures(list(map(reenactor(s.photo), s.truths)), s.truths) for s in rebuilt]
        row = {"NMSE %" if key == "expression NMSE %" else key: value for key, value in crossing[name].items()}
        measured[name] = {key: row[key] for key in ("FID", "NMSE %", "CSIM")} | row | mean_rows(own)
    rows: Rows = {f"{study}: {row}": measured[name] for study, own in STUDIES.items() for row, name in own.items()}
    picture(reenactors, crossed, output)
    return save_tables(
        {"Studies": rows | {name: measured[name] for name in ours}}, NOTES + CROSS_NOTES + fid_note(describe), output
    )


def picture(reenactors: dict[str, Reenactor], crossed: list[Drive], output: Path) -> None:
    """grid.png, rows of source, photo and every result as in table 6.4; and pictures/NUMBER/*.png of each."""
    chosen = [crossed[i] for i in np.unique(np.linspace(0, len(crossed) - 1, min(SHOWN, len(crossed))).astype(int))]
    grid = []
    for number, drive in enumerate(chosen):
        source = drive.sources[-1 if number % 2 else len(drive.sources) // 2]
        row = {"source": source, "photo": drive.photo}
        for name, reenactor in reenactors.items():
            reenact = reenactor(drive.photo)
            reenact(drive.sources[0])
            row[name] = reenact(source)
        folder = output / "pictures" / f"{number:02}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in row.items():
            write_picture(folder / f"{name}.png", image)
        grid.append([labelled(image, name) for name, image in row.items()])
    write_picture(output / "grid.png", sheet(grid))
