"""Video files from end to end: frames, time stamps, sound, what an interruption leaves, and what errors leave."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from realtime.errors import InputError
from realtime.faces import FaceState
from realtime.motion import load_motion
from realtime.photo import load_photo, portrait_path
from realtime.puppet import STAGES, Result
from realtime.sources import Frame, open_source
from realtime.video import LABEL, check_output, reenact
from tests.clips import click_of, pictures_of, portrait, stamps_of, swatch, write_clip

ROOT = Path(__file__).parents[1]
SIZE = (120, 90)


def painter(size: tuple[int, int] = SIZE, face: bool = True) -> Callable[[Frame], Result]:
    """An animation of its own: a picture of a size whose brightness is the frame's number."""

    def paint(frame: Frame) -> Result:
        image = np.full((size[1], size[0], 3), 20 + 4 * (frame.index % 50), np.uint8)
        state = FaceState.TRACKED if face else FaceState.UNSEEN
        points = np.zeros((56, 2), np.float32) if face else None
        return Result(image, state, dict.fromkeys(STAGES, 0.0), points, None)

    return paint


def drive(clip: Path | str, output: Path, size: tuple[int, int] = SIZE, **options: object) -> int:
    source = open_source(str(clip))
    try:
        return reenact(source, painter(size), output, size=size, **options)
    finally:
        source.close()


def swatches(count: int) -> list[np.ndarray]:
    return [swatch(index) for index in range(count)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mpg", "ts", "webm"])
def test_as_many_frames_as_the_source_at_the_same_times(tmp_path: Path, suffix: str) -> None:
    codec = {"mpg": "mpeg1video", "webm": "libvpx", "avi": "mpeg4"}.get(suffix, "libx264")
    clip = write_clip(tmp_path / f"clip.{suffix}", swatches(60), codec=codec)
    output = tmp_path / "out.mp4"
    assert drive(clip, output) == 60
    source = stamps_of(clip)
    start = source[0] if suffix in {"mpg", "ts"} else 0  # their clocks start anywhere
    assert stamps_of(output) == [stamp - start for stamp in source]
    brightness = [picture.mean() for picture in pictures_of(output)]
    np.testing.assert_allclose(brightness, [20 + 4 * (index % 50) for index in range(60)], atol=3)


def test_variable_frame_rate_is_kept_and_so_is_the_length(tmp_path: Path) -> None:
    stamps = [100, 133, 150, 310, 311, 2900]
    clip = write_clip(tmp_path / "vfr.mkv", swatches(6), stamps, time_base=Fraction(1, 1000))
    output = tmp_path / "out.mp4"
    drive(clip, output)
    assert stamps_of(output) == [Fraction(stamp, 1000) for stamp in stamps]
    with av.open(output) as container:
        assert container.duration >= 2.8 * av.time_base


def test_a_still_gives_one_frame(tmp_path: Path) -> None:
    assert drive(portrait_path("hopper"), tmp_path / "out.mp4") == 1
    assert len(stamps_of(tmp_path / "out.mp4")) == 1


@pytest.mark.parametrize(("size", "coded"), [((121, 91), (120, 90)), ((120, 91), (120, 90)), ((64, 64), (64, 64))])
def test_odd_sizes_lose_one_pixel(tmp_path: Path, size: tuple[int, int], coded: tuple[int, int]) -> None:
    drive(write_clip(tmp_path / "clip.mp4", swatches(3)), tmp_path / "out.mp4", size)
    assert {picture.shape for picture in pictures_of(tmp_path / "out.mp4")} == {(coded[1], coded[0], 3)}


def test_the_file_is_what_players_and_readers_expect(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    drive(write_clip(tmp_path / "clip.mp4", swatches(30)), output)
    content = output.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # faststart
    with av.open(output) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.metadata["comment"] == LABEL
        assert "synthetic" in LABEL


def test_colours_survive(tmp_path: Path) -> None:
    def paint(_: Frame) -> Result:
        return Result(swatch(0, *SIZE), FaceState.TRACKED, {}, np.zeros((56, 2), np.float32), None)

    reenact(open_source("motion:talking"), paint, tmp_path / "out.mp4", size=SIZE)
    assert np.abs(pictures_of(tmp_path / "out.mp4")[5].astype(int) - swatch(0, *SIZE)).mean() < 4


@pytest.mark.parametrize(
    ("suffix", "sound", "rate", "written"),
    [
        ("mp4", "aac", 44100, "aac"),
        ("mp4", "libmp3lame", 48000, "mp3float"),
        ("mp4", "ac3", 48000, "ac3"),
        ("ts", "aac", 48000, "aac"),
        ("webm", "libopus", 48000, "opus"),
        ("mkv", "flac", 22050, "flac"),
        ("mpg", "mp2", 44100, "aac"),
        ("avi", "pcm_s16le", 22050, "aac"),
        ("mov", "pcm_s16le", 192000, "aac"),
    ],
)
def test_sound_is_copied_or_encoded_and_stays_in_sync(
    tmp_path: Path, suffix: str, sound: str, rate: int, written: str
) -> None:
    codec = {"mpg": "mpeg1video", "webm": "libvpx"}.get(suffix, "libx264")
    clip = write_clip(tmp_path / f"clip.{suffix}", swatches(50), codec=codec, sound=sound, sound_rate=rate)
    output = tmp_path / "out.mp4"
    drive(clip, output)
    with av.open(output) as container:
        assert container.streams.audio[0].codec_context.name == written
        assert container.streams.audio[0].duration * container.streams.audio[0].time_base > 1.9
    before = click_of(clip) - float(stamps_of(clip)[0])
    assert abs(click_of(output) - float(stamps_of(output)[0]) - before) < 0.02  # half a frame


@pytest.mark.parametrize(("suffix", "sound"), [("mkv", "aac"), ("mkv", "pcm_s16le")])
def test_sound_that_starts_late_stays_late(tmp_path: Path, suffix: str, sound: str) -> None:
    clip = write_clip(tmp_path / f"clip.{suffix}", swatches(50), sound=sound, sound_from=Fraction(1, 2))
    drive(clip, tmp_path / "out.mp4")
    assert abs(click_of(tmp_path / "out.mp4") - 1) < 0.04


def test_copied_sound_is_bit_for_bit_the_sources(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", swatches(50), sound="aac")
    drive(clip, tmp_path / "out.mp4")

    def packets(path: Path) -> list[bytes]:
        with av.open(path) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(tmp_path / "out.mp4") == packets(clip)


def test_sound_is_in_sync_where_no_face_is_seen(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", swatches(50), sound="aac")

    def paint(frame: Frame) -> Result:
        return painter(face=frame.index > 40)(frame)

    reenact(open_source(str(clip)), paint, tmp_path / "out.mp4", size=SIZE)
    assert stamps_of(tmp_path / "out.mp4") == stamps_of(clip)
    assert abs(click_of(tmp_path / "out.mp4") - click_of(clip)) < 0.02


def test_side_by_side_puts_the_source_left_at_the_photos_height(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    drive(write_clip(tmp_path / "clip.mp4", swatches(10)), output, side_by_side=True)
    picture = pictures_of(output)[0].astype(int)
    assert picture.shape == (90, 134 + 120, 3)  # 96x64 at height 90 is 135 wide, made even
    assert np.abs(picture[10, 10] - (220, 30, 30)).max() < 20
    assert np.abs(picture[:, 140:] - 20).max() < 12


def test_side_by_side_draws_a_motion_tracks_points(tmp_path: Path) -> None:
    drive("motion:talking", tmp_path / "out.mp4", side_by_side=True)
    pictures = pictures_of(tmp_path / "out.mp4")
    assert len(pictures) == len(load_motion("talking").points)
    left = pictures[0][:, :90]
    assert left.max() > 200
    assert np.median(left) < 20


def test_a_video_without_a_face_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", swatches(10))
    with pytest.raises(InputError, match="no face in any frame") as caught:
        reenact(open_source(str(clip)), painter(face=False), tmp_path / "out.mp4", size=SIZE)
    assert str(clip) in str(caught.value)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_existing_file_needs_overwrite_and_survives_errors(tmp_path: Path) -> None:
    clip, output = write_clip(tmp_path / "clip.mp4", swatches(10)), tmp_path / "out.mp4"
    output.write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        drive(clip, output)
    with pytest.raises(InputError, match="no face"):
        reenact(open_source(str(clip)), painter(face=False), output, size=SIZE, overwrite=True)
    assert output.read_text() == "precious"
    assert drive(clip, output, overwrite=True) == 10
    assert len(stamps_of(output)) == 10


def test_the_source_is_not_written_over(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", swatches(10))
    with pytest.raises(InputError, match="is the source itself"):
        drive(clip, clip, overwrite=True)
    assert len(stamps_of(clip)) == 10


def test_outputs_that_cannot_be_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for output, words in (
        (tmp_path / "nowhere" / "out.mp4", "nowhere does not exist"),
        (tmp_path / "out.gif", "must end in .mp4"),
        (tmp_path / "folder.mp4", "is a folder"),
    ):
        with pytest.raises(InputError, match=words):
            check_output(output, overwrite=True)


@pytest.mark.parametrize("failing", [0, 7])
def test_an_error_of_the_animation_is_passed_on_and_leaves_nothing(tmp_path: Path, failing: int) -> None:
    def paint(frame: Frame) -> Result:
        if frame.index == failing:
            raise ZeroDivisionError
        return painter()(frame)

    clip = write_clip(tmp_path / "clip.mp4", swatches(10))
    with pytest.raises(ZeroDivisionError):
        reenact(open_source(str(clip)), paint, tmp_path / "out.mp4", size=SIZE)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def run_python(program: str, *arguments: object) -> subprocess.Popen[str]:
    code = "from tests.test_video import *\n" + textwrap.dedent(program)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are of Unix")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(50)]
    clip = write_clip(tmp_path / "clip.mp4", noise)
    # A limit on file sizes stops writing as a full disk does.
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        clip, output = map(Path, sys.argv[1:])
        try:
            reenact(open_source(str(clip)), painter(), output, size=SIZE, side_by_side=True)
        except InputError as error:
            print(error)
    """
    process = run_python(program, clip, tmp_path / "out.mp4")
    said, errors = process.communicate(timeout=120)
    assert said == f"the film cannot be written to {tmp_path}: File too large\n", errors
    assert errors == ""
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal of Unix")
def test_ctrl_c_leaves_a_playable_file_of_what_was_done(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", swatches(200), sound="aac")
    program = """
        clip, output = map(Path, sys.argv[1:])
        def said_frame():
            print("frame", flush=True)
            time.sleep(0.02)
        try:
            reenact(open_source(str(clip)), painter(), output, size=SIZE, on_frame=said_frame, notify=print)
        except KeyboardInterrupt:
            print("interrupted")
    """
    process = run_python("import time\n" + textwrap.dedent(program), clip, tmp_path / "out.mp4")
    assert process.stdout is not None
    for _ in range(30):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    stamps = stamps_of(tmp_path / "out.mp4")
    assert errors == ""
    assert said.endswith(f"{tmp_path / 'out.mp4'} holds the first {len(stamps)} frames\ninterrupted\n")
    assert 30 <= len(stamps) < 200
    assert stamps == stamps_of(clip)[: len(stamps)]
    assert {later - earlier for earlier, later in pairwise(stamps)} == {Fraction(1, 25)}
    assert abs(click_of(tmp_path / "out.mp4") - click_of(clip)) < 0.02
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), "video", "--target", "hopper", *map(str, arguments)]


def test_a_photo_driven_from_the_command_line(tmp_path: Path) -> None:
    faces = [portrait(shift=index) for index in range(12)]
    clip = write_clip(tmp_path / "clip.mkv", [swatch(0, 256, 300), *faces], list(range(0, 26, 2)), sound="aac")
    output = tmp_path / "out.mp4"
    done = subprocess.run(
        command_line("--source", clip, "--output", output, "--gain", "mouth=1.2", "eyes=0.9", "--side-by-side"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: 13 frames\n"
    assert stamps_of(output) == stamps_of(clip)
    assert abs(click_of(output) - click_of(clip)) < 0.02
    pictures = pictures_of(output)
    assert pictures[0].shape == (600, 512 + 512, 3)
    assert np.abs(pictures[0][:, :512].astype(int) - pictures[0][:, 512:]).mean() > 30  # no face yet: never the source
    photo = load_photo("hopper").astype(int)
    assert np.abs(pictures[0][:, 512:] - photo).mean() < 8


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal of Unix")
def test_ctrl_c_at_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    process = subprocess.Popen(command_line("--source", "motion:demo", "--output", output), stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    while not re.search(rb"\s[3-9]\d*/\d+ ", said):
        said += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=300)[1]
    assert process.returncode == 130
    count = len(stamps_of(output))
    assert 3 <= count < len(load_motion("demo").points)
    assert f"puppetcam: {output} holds the first {count} frames" in said.decode()
    assert b"Traceback" not in said
    assert os.listdir(tmp_path) == ["out.mp4"]
