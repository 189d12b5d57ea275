"""Bad input at the real command line: one clear sentence that names it, exit code 2, nothing written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from realtime.photo import portrait_path
from tests.clips import pictures_of, portrait, swatch, write_clip

ROOT = Path(__file__).parents[1]


def puppetcam(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def refuse(folder: Path, *arguments: object) -> str:
    """Run `video` with arguments that it must refuse; its one sentence."""
    before = sorted(os.listdir(folder))
    given = {str(argument) for argument in arguments}
    usual = {"--source": "motion:talking", "--target": "hopper", "--output": folder / "out.mp4"}
    rest = [item for name, value in usual.items() if name not in given for item in (name, value)]
    done = puppetcam("video", *arguments, *rest)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("puppetcam: ")]
    assert sorted(os.listdir(folder)) == before
    return sentence


def truncated_video(path: Path) -> None:
    write_clip(path, [swatch(index) for index in range(20)])
    path.write_bytes(path.read_bytes()[:1500])


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "text.jpg": lambda path: path.write_text("Dear diary\n" * 50),
    "truncated.jpg": lambda path: path.write_bytes(portrait_path("hopper").read_bytes()[:30_000]),
    "tiny.png": lambda path: PIL.Image.new("RGB", (40, 40)).save(path),
    "ribbon.png": lambda path: PIL.Image.new("RGB", (2000, 100)).save(path),
    "empty.png": lambda path: path.write_bytes(b""),
}
BAD_VIDEOS: dict[str, Callable[[Path], object]] = {
    "text.mp4": lambda path: path.write_text("Dear diary\n" * 50),
    "truncated.mp4": truncated_video,
    "empty.webm": lambda path: path.write_bytes(b""),
    "text.png": lambda path: path.write_text("Dear diary\n" * 50),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_target_that_is_no_usable_picture(tmp_path: Path, name: str) -> None:
    BAD_FILES[name](tmp_path / name)
    assert name in refuse(tmp_path, "--target", tmp_path / name)


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_a_source_that_is_no_usable_video(tmp_path: Path, name: str) -> None:
    BAD_VIDEOS[name](tmp_path / name)
    assert name in refuse(tmp_path, "--source", tmp_path / name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--source", "nowhere.mp4"),
        ("--source", "camera:97"),
        ("--source", "camera:front"),
        ("--source", "motion:tapdance"),
        ("--target", "nobody.jpg"),
        ("--target", "."),
        ("--motion", "sideways"),
        ("--gain", "mouth=loud"),
        ("--gain", "nose=1"),
        ("--engine", "steam"),
        ("--output", "/nowhere/at/all/out.mp4"),
        ("--output", "out.gif"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, option: str, value: str) -> None:
    named = value.removeprefix("motion:").removesuffix("/out.mp4")
    assert named in refuse(tmp_path, option, value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write anything")
def test_files_without_permission(tmp_path: Path) -> None:
    locked = tmp_path / "locked.jpg"
    locked.write_bytes(portrait_path("hopper").read_bytes())
    locked.chmod(0)
    assert "locked.jpg" in refuse(tmp_path, "--target", locked)
    folder = tmp_path / "sealed"
    folder.mkdir(mode=0o500)
    assert "sealed" in refuse(tmp_path, "--output", folder / "out.mp4")


def test_an_existing_output(tmp_path: Path) -> None:
    output = tmp_path / "mine.mp4"
    output.write_text("precious")
    assert "--overwrite" in refuse(tmp_path, "--output", output)
    assert output.read_text() == "precious"


def test_a_photo_without_a_face(tmp_path: Path) -> None:
    photo = tmp_path / "wall.png"
    PIL.Image.fromarray(swatch(3, 300, 300)).save(photo)
    assert "no face" in refuse(tmp_path, "--target", photo)


def test_a_video_without_a_face_in_any_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wall.mp4", [swatch(index, 320, 240) for index in range(5)])
    assert f"{clip} shows no face in any frame" in refuse(tmp_path, "--source", clip)


def test_of_several_faces_the_largest_is_taken_and_it_is_said(tmp_path: Path) -> None:
    photo = tmp_path / "pair.png"
    large, small = portrait(512, 600), portrait(256, 300)
    pair = np.full((600, 768, 3), 128, np.uint8)
    pair[:, :512], pair[:300, 512:] = large, small
    PIL.Image.fromarray(pair).save(photo)
    output = tmp_path / "out.mp4"
    done = puppetcam("video", "--source", "motion:blinking", "--target", photo, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "the photo shows 2 faces: the largest is taken" in done.stderr
    picture = pictures_of(output)[-1].astype(int)
    assert np.abs(picture[:, 560:] - pair[:, 560:]).mean() < 3  # the small one stays still


def test_a_single_picture_needs_absolute_motion_and_it_is_said(tmp_path: Path) -> None:
    source = tmp_path / "face.png"
    PIL.Image.fromarray(portrait(512, 600)).save(source)
    for motion, said in (("relative", True), ("absolute", False)):
        output = tmp_path / f"{motion}.mp4"
        done = puppetcam("video", "--source", source, "--motion", motion, "--output", output)
        assert done.returncode == 0, done.stderr
        assert ("--motion absolute" in done.stderr) == said
