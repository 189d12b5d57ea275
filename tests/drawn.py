"""Drawn faces with known landmarks: what the tests train on. Nobody's face: a FaceMesh in simple colours."""

from pathlib import Path

import cv2
import numpy as np

from realtime.alignment import transform
from realtime.faces import MeshFinder
from realtime.landmarks import (
    FACEMESH,
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    OUTER_LIPS,
    PUPILS,
    RIGHT_BROW,
    RIGHT_EYE,
    five_points,
)
from realtime.photo import load_photo, portrait_path
from trainer.data import held_out
from trainer.mesh import OVAL, STABLE, move_gaze, move_jaw, move_lids, turn
from trainer.prepare import PICTURE_SIZE, Picture, align, save


def portrait_mesh(name: str = "hopper") -> np.ndarray:
    """FaceMesh (478, 3) of an embedded portrait, in the pixels of its aligned picture of 320 pixels."""
    image = load_photo(portrait_path(name))
    teacher = MeshFinder(video=False)
    mesh = teacher(image)
    teacher.close()
    assert mesh is not None
    return align(image, mesh, five_points(mesh[FACEMESH, :2]))[1]


def posed(mesh: np.ndarray, rng: np.random.Generator, wander: float) -> np.ndarray:
    """The mesh with another expression and pose, shifted by about `wander` pixels."""
    mesh = mesh.astype(np.float64)
    move_jaw(mesh, rng)
    move_lids(mesh, rng)
    move_gaze(mesh, rng)
    pivot = mesh[STABLE].mean(0) + [0, 30, 70]
    mesh = (mesh - pivot) @ turn(*rng.normal(0, 0.12, 3)).T + pivot
    mesh[:, :2] += rng.normal(0, wander, 2)
    return mesh.astype(np.float32)


def draw(mesh: np.ndarray, person: int) -> np.ndarray:
    """A face as RGB uint8 (320, 320, 3) in a person's own colours."""
    colours = np.random.default_rng(person)
    x, y = np.meshgrid(np.arange(PICTURE_SIZE), np.arange(PICTURE_SIZE))
    waves = np.sin(x / colours.uniform(9, 25)) + np.cos(y / colours.uniform(9, 25))
    image = np.clip(colours.uniform(60, 200, 3) + 15 * waves[..., None], 0, 255).astype(np.uint8)
    skin, lips, brow = colours.uniform(130, 230, 3), colours.uniform(90, 140, 3), colours.uniform(20, 70, 3)
    points = mesh[FACEMESH, :2]

    def fill(outline: np.ndarray, colour: np.ndarray | tuple[int, int, int]) -> None:
        shape = np.round(outline * 16).astype(np.int32)
        cv2.fillPoly(image, [shape], [float(c) for c in colour], cv2.LINE_AA, 4)

    fill(mesh[OVAL, :2], skin)
    for part in (LEFT_BROW, RIGHT_BROW):
        fill(points[part], brow)
    for part, pupil in zip((LEFT_EYE, RIGHT_EYE), PUPILS, strict=True):
        fill(points[part], (245, 245, 245))
        ring = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], 1)
        fill(points[pupil] + 4 * ring, (40, 30, 20))
    fill(points[OUTER_LIPS], lips)
    fill(points[INNER_LIPS], (30, 10, 10))
    return image


def names(prefix: str, validation: bool, count: int) -> list[str]:
    """Names of people who do or do not belong to the validation split."""
    every = (f"{prefix}{number}" for number in range(1000))
    return [name for name in every if held_out(name) == validation][:count]


def write_drawn(path: Path, stills: int, held_out_stills: int, frames: int, wander: float) -> None:
    """A prepared file of drawn stills, one person each, and of two clips: one to train on and one held out."""
    mesh = portrait_mesh()
    rng = np.random.default_rng(1)
    pictures = []

    def add(person: str, number: int, clip: str = "", frame: int = 0, away: float = wander) -> None:
        moved = posed(mesh, rng, away) if frame or not clip else mesh
        image = draw(moved, number)
        points = transform(moved[FACEMESH, :2], np.float32([[1, 0, 0], [0, 1, 0]]))
        pictures.append(Picture(image, moved, f"{person}:{frame}", person, clip, points))

    people = names("drawn", False, stills) + names("drawn", True, held_out_stills)
    for number, person in enumerate(people):
        add(person, number)
    for number, clip in enumerate(names("clip", False, 1) + names("clip", True, 1)):
        for frame in range(frames):
            add(clip, 100 + number, clip, frame, 2)
    save(pictures, path)
