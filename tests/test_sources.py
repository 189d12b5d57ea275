"""Video files of many kinds, stills, motion tracks, and a camera whose device is a video file."""

import os
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import realtime.camera
from realtime.camera import CameraSource
from realtime.errors import InputError
from realtime.photo import portrait_path
from realtime.sources import Frame, MotionSource, VideoSource, open_source
from tests.clips import RATE, stamps_of, swatch, write_clip

ONE = 1 << 16  # 1 in a display matrix
# Display matrix of a file -> how its stored pictures are turned upright
TURNS = {
    "90 clockwise": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, -1)),
    "180": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, 2)),
    "90 counter-clockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, 1)),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda image: image[:, ::-1]),
    "mirrored and turned": ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda image: image.swapaxes(0, 1)),
}


def read(path: Path) -> list[Frame]:
    source = open_source(str(path))
    frames = list(source)
    source.close()
    return frames


def off_by(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mp4", "libx264", "yuvj420p"),
        ("mkv", "libx264", "yuv444p"),
        ("mkv", "libx264", "yuv420p10le"),
        ("mkv", "libx265", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mpg", "mpeg1video", "yuv420p"),
        ("ts", "mpeg2video", "yuv420p"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("mov", "qtrle", "argb"),
        ("mkv", "ffv1", "gray"),
        ("avi", "mjpeg", "yuvj420p"),
    ],
)
def test_every_frame_of_any_codec_and_pixel_format(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    images = [swatch(index) for index in range(12)]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    frames = read(write_clip(tmp_path / f"clip.{suffix}", images, codec=codec, pixels=pixels, options=options))
    assert [frame.index for frame in frames] == list(range(12))
    seconds = [frame.pts * frame.time_base for frame in frames]
    np.testing.assert_allclose(np.diff(np.float64(seconds)), 1 / 25, atol=1e-3)
    assert abs(seconds[0]) < 0.05
    for frame, image in zip(frames, images, strict=True):
        assert frame.points is None
        assert frame.image is not None
        assert frame.image.dtype == np.uint8
        expected = (
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) if pixels == "gray" else image
        )
        assert off_by(frame.image, expected) < 8


@pytest.mark.parametrize("turn", TURNS)
def test_pictures_stand_upright_whatever_the_display_matrix(tmp_path: Path, turn: str) -> None:
    matrix, upright = TURNS[turn]
    path = write_clip(tmp_path / "phone.mp4", [swatch(index) for index in range(3)], matrix=matrix)
    source = open_source(str(path))
    image = next(source).image
    assert image is not None
    assert image.flags.c_contiguous
    assert image.shape == upright(swatch(0)).shape
    assert source.size == (image.shape[1], image.shape[0])
    assert off_by(image, upright(swatch(0))) < 8


def test_turned_pictures_agree_with_opencvs_reading(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", [swatch(0)], matrix=TURNS["90 clockwise"][0])
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    good, image = capture.read()
    assert good
    assert off_by(read(path)[0].image, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) < 8


def test_odd_sizes_keep_every_pixel(tmp_path: Path) -> None:
    image = swatch(0, 97, 63)
    (frame,) = read(write_clip(tmp_path / "odd.mkv", [image], codec="ffv1", pixels="bgr0"))
    np.testing.assert_array_equal(frame.image, image)


def test_pixels_become_square(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    write_clip(path, [swatch(0, 96, 64)], options={"x264-params": "sar=4/3"})
    source = open_source(str(path))
    assert source.size == (128, 64)
    assert next(source).image.shape == (64, 128, 3)


def test_variable_frame_rate_keeps_its_time_stamps(tmp_path: Path) -> None:
    stamps = [0, 33, 50, 210, 211, 900]
    images = [swatch(index) for index in range(6)]
    frames = read(write_clip(tmp_path / "vfr.mkv", images, stamps, time_base=Fraction(1, 1000)))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(stamp, 1000) for stamp in stamps]


def test_repeated_time_stamps_lose_no_frame(tmp_path: Path) -> None:
    stamps = [0, 3, 6, 8, 10, 40]  # tenths of milliseconds, in a format that counts milliseconds
    path = tmp_path / "repeated.mkv"
    images = [swatch(index) for index in range(6)]
    write_clip(path, images, stamps, time_base=Fraction(1, 10_000), codec="mjpeg", pixels="yuvj420p")
    assert len(set(stamps_of(path))) < 6
    pts = [frame.pts for frame in read(path)]
    assert len(pts) == 6
    assert all(later > earlier for earlier, later in pairwise(pts))


def test_a_bare_stream_without_time_stamps_runs_at_its_rate(tmp_path: Path) -> None:
    frames = read(write_clip(tmp_path / "bare.h264", [swatch(index) for index in range(10)]))
    assert len(frames) == 10
    seconds = np.float64([frame.pts * frame.time_base for frame in frames])
    np.testing.assert_allclose(seconds, np.arange(10) / 25, atol=1e-3)


def test_size_rate_and_count_are_known_beforehand(tmp_path: Path) -> None:
    source = open_source(str(write_clip(tmp_path / "clip.mp4", [swatch(index) for index in range(20)])))
    assert (source.size, source.frame_rate, source.frame_count, source.live) == ((96, 64), RATE, 20, False)
    source.close()
    assert list(source) == []


@pytest.mark.parametrize(("suffix", "kept"), [("mpg", 0.5), ("mkv", 0.5), ("ts", 0.6)])
def test_a_video_cut_short_gives_the_frames_it_has(tmp_path: Path, suffix: str, kept: float) -> None:
    codec = "libx264" if suffix == "mkv" else "mpeg2video"
    images = [np.random.default_rng(index).integers(0, 255, (64, 96, 3), np.uint8) for index in range(40)]
    whole = write_clip(tmp_path / f"whole.{suffix}", images, codec=codec)
    short = tmp_path / f"short.{suffix}"
    short.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * kept)])
    assert 5 < len(read(short)) < 40


def test_damage_is_skipped_and_said(tmp_path: Path) -> None:
    images = [np.random.default_rng(index).integers(0, 255, (64, 96, 3), np.uint8) for index in range(40)]
    path = write_clip(tmp_path / "damaged.mp4", images)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = b"\x5a" * 2000
    path.write_bytes(content)
    words: list[str] = []
    frames = list(VideoSource(path, words.append))
    assert 20 < len(frames) <= 40
    assert words == [f"{path} is damaged or cut short: {len(frames)} frames could be read"]


@pytest.mark.parametrize("name", ["notes.mp4", "notes.txt", "empty.mp4", "headless.mp4", "sound.wav", "me.jpg"])
def test_what_is_no_video_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "headless.mp4":  # its index, at the end, is missing
        write_clip(path, [swatch(index) for index in range(20)])
        path.write_bytes(path.read_bytes()[:1500])
    elif name == "sound.wav":
        path.write_bytes(
            b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x08\0\0\0" + bytes(8)
        )
    else:
        path.write_text("" if name.startswith("empty") else "Dear diary\n" * 200)
    with pytest.raises(InputError) as caught:
        open_source(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["nowhere.mp4", "camera:front", "camera:", "camera:-1", "motion:tapdance", "."])
def test_sources_that_are_not_there_are_named(text: str) -> None:
    with pytest.raises(InputError, match="tapdance" if "tapdance" in text else text):
        open_source(text)


def test_a_still_is_one_frame() -> None:
    source = open_source(str(portrait_path("hopper")))
    (frame,) = source
    assert frame.image.shape == (600, 512, 3)
    assert (source.size, source.frame_count, frame.pts, frame.index) == ((512, 600), 1, 0, 0)


def test_a_motion_track_has_points_and_no_picture() -> None:
    source = MotionSource("talking")
    frames = list(source)
    assert len(frames) == source.frame_count > 10
    assert all(frame.image is None and frame.points.shape == (56, 2) for frame in frames)
    assert [frame.pts for frame in frames] == list(range(len(frames)))
    assert frames[1].pts * frames[1].time_base == 1 / source.frame_rate


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video file in place of a camera's device; its end is an unplug."""
    monkeypatch.setattr(realtime.camera, "RETRY", 0.05)
    return write_clip(tmp_path / "device.avi", [swatch(index) for index in range(20)], codec="mjpeg", pixels="yuvj420p")


def wait_for(words: list[str], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(words) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_camera_gives_its_newest_frame_and_counts_the_others(device: Path) -> None:
    camera = CameraSource(0, lambda _: None, lambda _: cv2.VideoCapture(str(device)))
    assert (camera.live, camera.size, camera.frame_rate) == (True, (96, 64), RATE)
    frames, dropped = [], 0
    for frame in camera:
        assert len(frames) + dropped <= frame.index  # those before it, none counted twice
        frames.append(frame)
        time.sleep(0.02)
        dropped = camera.dropped
        if len(frames) == 5:
            break
    camera.close()
    assert list(camera) == []
    assert "camera:0" not in {thread.name for thread in threading.enumerate()}
    assert off_by(frames[0].image[:32, :48], swatch(0)[:32, :48]) < 12  # RGB, not BGR
    indexes = [frame.index for frame in frames]
    assert indexes == sorted(set(indexes))
    assert 0 < indexes[-1] + 1 - len(frames) <= camera.dropped  # more may come, and go, before it is closed
    stamps = [frame.pts * frame.time_base for frame in frames]
    assert all(later > earlier for earlier, later in pairwise(stamps))


def test_an_unplugged_camera_is_waited_for_and_both_are_said(device: Path) -> None:
    words: list[str] = []
    away = device.with_suffix(".away")

    def say(sentence: str) -> None:
        words.append(sentence)
        if "gone" in sentence and device.exists():
            os.rename(device, away)  # so that it cannot be opened for a while

    camera = CameraSource(3, say, lambda _: cv2.VideoCapture(str(device)))
    wait_for(words, 1)
    time.sleep(0.2)
    assert words == ["camera:3 is gone: trying to reach it again"]
    os.rename(away, device)
    wait_for(words, 2)
    assert words[1] == "camera:3 is back"
    assert next(camera).image.shape == (64, 96, 3)
    camera.close()


def test_a_camera_that_freezes_is_taken_for_unplugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime.camera, "STALL", 0.5)
    images = [swatch(0), swatch(5)] + [swatch(9)] * 400
    path = write_clip(tmp_path / "freezing.avi", images, codec="ffv1", pixels="bgr0")
    capture = realtime.camera.Capture(0, lambda _: cv2.VideoCapture(str(path)))
    reads = 0
    while capture.read() is not None:
        reads += 1
        time.sleep(0.02)
    capture.close()
    assert 3 <= reads < 400  # the file itself had more


def test_a_still_virtual_camera_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime.camera, "STALL", 0.5)
    path = write_clip(tmp_path / "still.avi", [swatch(0)] * 30, codec="ffv1", pixels="bgr0")
    capture = realtime.camera.Capture(0, lambda _: cv2.VideoCapture(str(path)))
    for _ in range(30):
        assert capture.read() is not None
        time.sleep(0.02)
    capture.close()


def test_an_absent_camera_is_refused() -> None:
    with pytest.raises(InputError, match="camera:97 gives no picture"):
        open_source("camera:97")
