"""Preparing folders: pictures, clips and hand-placed points become one file; the split is by person."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import run
from realtime.errors import InputError
from realtime.faces import MeshFinder
from realtime.landmarks import FACEMESH, WFLW98, pupil_distance
from realtime.photo import PORTRAITS, load_photo
from tests.clips import portrait, write_clip
from trainer import wflw
from trainer.data import Pictures, held_out
from trainer.metrics import error_percent
from trainer.prepare import LONDON189, PICTURE_SIZE, prepare
from trainer.training_command import parse_skips

ROOT = Path(run.__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded portraits, one of them with hand-placed points, a clip of the other, and a picture of nobody."""
    folder = tmp_path_factory.mktemp("data")
    stills = folder / "stills"
    stills.mkdir()
    for path in PORTRAITS.glob("*.jpg"):
        shutil.copy(path, stills / path.name)
    teacher = MeshFinder(video=False)
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
    teacher = MeshFinder(video=False)
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


def wflw_line(name: str, points: np.ndarray) -> str:
    places = " ".join(f"{value:.3f}" for value in points.reshape(-1))
    x, y = points.min(0), points.max(0)
    return f"{places} {x[0]:.0f} {x[1]:.0f} {y[0]:.0f} {y[1]:.0f} 0 0 0 0 0 0 {name}\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """WFLW in small: a portrait to train on, the other as the test list, and one of nobody whose points are placed."""
    root = tmp_path / "WFLW"
    lists, images = root / wflw.LISTS, root / wflw.IMAGES / "0--Parade"
    lists.mkdir(parents=True)
    images.mkdir(parents=True)
    lines = {}
    teacher = MeshFinder(video=False)
    for name in ("hopper", "collins"):
        shutil.copy(PORTRAITS / f"{name}.jpg", images)
        mesh = teacher(load_photo(name))
        assert mesh is not None
        points = np.full((98, 2), mesh[1, :2], np.float32)  # the rest of the 98 anywhere: at the nose
        points[WFLW98] = mesh[FACEMESH, :2] + [3, 0]
        lines[name] = wflw_line(f"0--Parade/{name}.jpg", points)
    teacher.close()
    cv2.imwrite(str(images / "nobody.png"), np.full((800, 800, 3), 128, np.uint8))
    (lists / "list_98pt_rect_attr_train.txt").write_text(lines["hopper"] + wflw_line("0--Parade/nobody.png", points))
    (lists / "list_98pt_rect_attr_test.txt").write_text(lines["collins"])
    return root


def test_the_released_wflw_is_reduced_to_56_points(release: Path, tmp_path: Path) -> None:
    output = tmp_path / "data.npz"
    assert run.main(["train", "prepare", "--data", str(release.parent), "--output", str(output)]) == 0
    pictures = Pictures(output)
    people = ["WFLW test/0--Parade/collins", "WFLW/0--Parade/hopper", "WFLW/0--Parade/nobody"]
    assert list(pictures.persons) == people  # their pictures are not taken a second time, as pictures of a folder
    assert pictures.validation[0]
    assert not np.isnan(pictures.hand).any()
    assert np.array_equal(pictures.points, pictures.hand)
    for index in range(2):  # where the teacher sees the face, the points are its own and three pixels of the photo off
        off = pictures.hand[index] - pictures.mesh[index, FACEMESH, :2]
        scale = pupil_distance(pictures.hand[index]) / 64
        assert 0 < off.mean(0)[0] / scale < 4
        assert error_percent(pictures.hand[None, index], pictures.mesh[None, index, FACEMESH, :2])[0] < 8
    assert not pictures.mesh[2].any()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: line.rsplit(maxsplit=8)[0], "train.txt, line 2: 207 values are needed"),
        (lambda line: "left" + line[3:], "train.txt, line 2: the first 196 values should be numbers"),
        (lambda line: line.replace("nobody", "anybody"), "train.txt, line 2: there is no picture"),
        (lambda line: "7 " * 196 + "0 " * 10 + "0--Parade/nobody.png", "line 2: the 98 points should be of a face"),
    ],
)
def test_a_broken_line_of_wflw_is_named(spoil, message: str, release: Path, tmp_path: Path) -> None:
    path = release / wflw.LISTS / "list_98pt_rect_attr_train.txt"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{spoil(second)}\n")
    with pytest.raises(InputError) as raised:
        prepare(release, tmp_path / "data.npz")
    assert message in str(raised.value)
    assert not (tmp_path / "data.npz").exists()


class KilledError(Exception):
    """The sudden end of `prepare`."""


def test_a_killed_prepare_labels_nothing_twice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, output = tmp_path / "whole.npz", tmp_path / "data.npz"
    prepare(folder, whole)
    seen = []
    look = MeshFinder.__call__

    def counted(teacher: MeshFinder, image: np.ndarray) -> np.ndarray | None:
        seen.append(image.shape)
        if len(seen) == 2:
            raise KilledError
        return look(teacher, image)

    monkeypatch.setattr(MeshFinder, "__call__", counted)
    with pytest.raises(KilledError):
        prepare(folder, output)
    assert not output.exists()
    prepare(folder, output)
    assert len(seen) == 3  # two pictures, one of which was begun twice
    prepare(folder, output)
    assert len(seen) == 3  # nothing is labelled again
    with np.load(whole) as a, np.load(output) as b:
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name], equal_nan=name == "hand") for name in a.files)
    points = folder / "stills" / "points.csv"
    kept = points.read_text()
    points.write_text(kept.replace("hopper.jpg,0,", "hopper.jpg,0,1"))
    prepare(folder, output)
    points.write_text(kept)
    assert len(seen) == 4  # a picture whose points are other ones is another picture


def test_a_clip_is_one_person_under_one_crop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_clip(data / "talk.mp4", [portrait(shift=4 * index) for index in range(4)])
    prepare(data, tmp_path / "data.npz")
    pictures = Pictures(tmp_path / "data.npz")
    assert list(pictures.names) == [f"talk.mp4:{index}" for index in range(4)]
    assert set(pictures.persons) == set(pictures.clips) == {"talk"}
    across = np.diff(pictures.points.mean(1), axis=0)
    assert (across[:, 0] > 1).all()  # the face moves in the crop, as it does in the clip
    (data / "more").mkdir()
    shutil.copy(data / "talk.mp4", data / "more" / "talk.mov")
    with pytest.raises(InputError, match="would be one clip"):
        prepare(data, tmp_path / "data.npz")
