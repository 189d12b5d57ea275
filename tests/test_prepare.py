"""Preparing folders: pictures, clips and hand-placed points become one file; the split is by person."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import run
from realtime.errors import InputError
from realtime.landmarks import FACEMESH, pupil_distance
from realtime.photo import PORTRAITS, load_photo
from trainer.commandline import parse_skips
from trainer.data import Pictures, held_out
from trainer.metrics import error_percent
from trainer.prepare import LONDON189, PICTURE_SIZE, Teacher, prepare

ROOT = Path(run.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded portraits, one of them with hand-placed points, a clip of the other, and a picture of nobody."""
    folder = tmp_path_factory.mktemp("data")
    stills = folder / "stills"
    stills.mkdir()
    for path in PORTRAITS.glob("*.jpg"):
        shutil.copy(path, stills / path.name)
    teacher = Teacher(video=False)
    mesh = teacher(load_photo("hopper"))
    teacher.close()
    assert mesh is not None
    with (stills / "points.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "point", "x", "y"])
        for number, (x, y) in zip(LONDON189, mesh[FACEMESH, :2] + [3, 0], strict=True):
            if number >= 0:
                rows.writerow(["hopper.jpg", number, x, y])
    return folder


@pytest.fixture(scope="module")
def pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    output = tmp_path_factory.mktemp("prepared") / "data.npz"
    assert run.main(["train", "prepare", "--data", str(folder), "--output", str(output)]) == 0
    return Pictures(output)


def test_a_folder_becomes_aligned_labelled_pictures(pictures: Pictures) -> None:
    assert sorted(pictures.names) == ["collins.jpg", "hopper.jpg"]
    teacher = Teacher(video=False)
    for index in range(len(pictures)):
        image = pictures.image(index)
        assert image.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
        assert pupil_distance(pictures.points[index]) == pytest.approx(64, abs=8)  # as alignment wants it
        found = teacher(image)
        assert found is not None
        # seen anew in the aligned picture, the face is where the label says
        assert error_percent(found[None, FACEMESH, :2], pictures.mesh[None, index, FACEMESH, :2])[0] < 4
    teacher.close()


def test_hand_placed_points_take_precedence(pictures: Pictures) -> None:
    index = list(pictures.names).index("hopper.jpg")
    placed = ~np.isnan(pictures.hand[index, :, 0])
    assert placed.sum() == sum(number >= 0 for number in LONDON189)
    assert np.array_equal(pictures.points[index][placed], pictures.hand[index][placed])
    off = pictures.points[index] - pictures.mesh[index, FACEMESH, :2]
    assert np.linalg.norm(off[placed], axis=1).min() > 1


def test_the_split_is_by_person_and_about_one_in_ten() -> None:
    people = [f"folder/{number:03}" for number in range(2000)]
    assert 0.08 < np.mean([held_out(person) for person in people]) < 0.12


def test_two_pictures_of_a_person_are_on_one_side(pictures: Pictures) -> None:
    assert all(pictures.validation[i] == held_out(str(pictures.persons[i])) for i in range(len(pictures)))
    assert set(pictures.persons) == {"stills/hopper", "stills/collins"}


def broken_picture(folder: Path) -> str:
    (folder / "torn.jpg").write_bytes(b"no picture")
    return "torn.jpg is not a readable picture"


def broken_clip(folder: Path) -> str:
    (folder / "torn.mp4").write_bytes(b"no video")
    return "torn.mp4 is not a readable video"


def broken_points(folder: Path) -> str:
    (folder / "points.csv").write_text("file,point,x,y\na.jpg,0,1,2\na.jpg,1,one,2\n")
    shutil.copy(PORTRAITS / "hopper.jpg", folder / "a.jpg")
    return "points.csv, line 3"


def nothing(_: Path) -> str:
    return "holds no picture and no clip"


@pytest.mark.parametrize("spoil", [broken_picture, broken_clip, broken_points, nothing])
def test_what_cannot_be_read_is_named(spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "data.npz"
    folder = tmp_path / "data"
    folder.mkdir()
    message = spoil(folder)
    assert run.main(["train", "prepare", "--data", str(folder), "--output", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detector", "--data", "nowhere.npz"], "there is no nowhere.npz"),
        (["detector", "--data", "run.py"], "run.py is not a file"),
        (["detector", "--data", "x.npz", "--batch", "0"], "--batch should be more than 0"),
        (["generator", "--data", "x.npz", "--adversary-from", "2"], "--adversary-from 2 is out of range"),
        (["generator", "--data", "x.npz", "--skip", "talk"], "--skip talk should be CLIP:FROM-TO"),
    ],
)
def test_bad_options_are_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["train", *arguments, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_skips() -> None:
    assert parse_skips(["a:1-2", "b_c:3-3"]) == {"a": (1, 2), "b_c": (3, 3)}
    with pytest.raises(InputError, match="a:5-2"):
        parse_skips(["a:5-2"])


def test_prepare_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "data.npz")


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; import run; sys.exit(run.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        "train",
        "detector",
        "--data",
        str(tmp_path / "x.npz"),
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "puppetcam: torch is not installed: pip install 'puppetcam[train]'\n"
