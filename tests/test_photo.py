"""Pictures as users have them: turned, grey, transparent, deep, printed, damaged, huge or tiny."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from realtime.errors import InputError
from realtime.photo import load_photo, portrait_names, portrait_path

ORIENTATION = 0x0112  # EXIF tag


def hopper() -> PIL.Image.Image:
    return PIL.Image.open(portrait_path("hopper"))


def saved(picture: PIL.Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("name", ["hopper", "collins"])
def test_portraits_load_by_name(name: str) -> None:
    photo = load_photo(name)
    assert photo.dtype == np.uint8
    assert photo.shape[2] == 3
    assert min(photo.shape[:2]) >= 480
    np.testing.assert_array_equal(photo, load_photo(portrait_path(name)))
    assert name in portrait_names()


def test_a_file_of_a_portraits_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hopper").write_bytes(saved(PIL.Image.new("RGB", (80, 90), "teal"), "PNG"))
    assert load_photo("hopper").shape == (90, 80, 3)


def test_bytes_and_path_give_the_same_pixels() -> None:
    path = portrait_path("hopper")
    np.testing.assert_array_equal(load_photo(path.read_bytes()), load_photo(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    undo = {
        1: None,
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_90,
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_270,
    }[orientation]
    stored = hopper() if undo is None else hopper().transpose(undo)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    np.testing.assert_array_equal(load_photo(saved(stored, "PNG", exif=exif)), np.asarray(hopper()))


def test_grey_becomes_three_equal_channels() -> None:
    grey = hopper().convert("L")
    np.testing.assert_array_equal(load_photo(saved(grey, "PNG")), np.repeat(np.asarray(grey)[..., None], 3, 2))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.asarray(hopper().convert("L"))
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(load_photo(saved(deep, file_format))[..., 0], grey)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_put_over_white(mode: str) -> None:
    picture = PIL.Image.new("RGBA", (100, 80), (200, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 50, 80))
    photo = load_photo(saved(picture.convert(mode), "PNG"))
    assert (photo[:, :50] < 8).all()
    assert (photo[:, 50:] == 255).all()


def test_cmyk_keeps_its_colours() -> None:
    photo = load_photo(saved(hopper().convert("CMYK"), "JPEG", quality=95))
    assert difference(photo, np.asarray(hopper())) < 4


def test_palette_keeps_its_colours() -> None:
    assert difference(load_photo(saved(hopper().quantize(256), "GIF")), np.asarray(hopper())) < 12


def test_large_pictures_are_reduced_with_a_word(tmp_path: Path) -> None:
    path, words = tmp_path / "large.png", []
    PIL.Image.new("RGB", (5000, 2500), "navy").save(path)
    assert load_photo(path, words.append).shape == (2048, 4096, 3)
    assert words == [f"{path} is reduced from 5000x2500 to 4096x2048 px"]


def test_pictures_up_to_4096_px_stay_as_they_are() -> None:
    words: list[str] = []
    assert load_photo(saved(PIL.Image.new("RGB", (4096, 600)), "PNG"), words.append).shape == (600, 4096, 3)
    assert words == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dear diary, this is no picture.\n", "is not a picture"),
        (b"", "is not a picture"),
        (portrait_path("hopper").read_bytes()[:30_000], "truncated"),
        (portrait_path("hopper").read_bytes()[:300], "cannot be read"),
        (saved(PIL.Image.new("RGB", (63, 400)), "PNG"), "63x400"),
        (saved(PIL.Image.new("RGB", (100, 801)), "PNG"), "100x801"),
    ],
    ids=["text", "empty", "truncated", "header only", "tiny", "extreme aspect"],
)
def test_what_is_no_usable_picture_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "me.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_anywhere_in_a_file_is_either_read_or_refused() -> None:
    whole = saved(hopper(), "PNG")
    refused = 0
    for place in np.linspace(8, len(whole) - 20, 60).astype(int):
        damaged = whole[:place] + b"\xff" * 8 + whole[place + 8 :]
        try:
            assert load_photo(damaged).shape == (600, 512, 3)
        except InputError:
            refused += 1
    assert refused > 0


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_photo(tmp_path / "nobody.jpg")
    with pytest.raises(InputError, match="is a folder"):
        load_photo(tmp_path)
    with pytest.raises(InputError, match="collins, hopper"):
        portrait_path("nobody")
