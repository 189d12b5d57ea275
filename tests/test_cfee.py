"""The CFEE database's layout: pictures of one person, in several folders, are known as such."""

import shutil
from pathlib import Path

import pytest

from realtime.photo import portrait_path
from trainer import cfee
from trainer.data import Pictures
from trainer.evaluate_generator import still_sequences
from trainer.prepare import prepare


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("CFEE_Database_230/01-04/Images1/01_126_3963.jpg", "CFEE/126"),
        ("21-26/Images6/23_126_6632.JPG", "CFEE/126"),
        ("09-12/Images3/10_110_2559.jpg", "CFEE/110"),
        ("stills/01_126_3963.jpg", None),
        ("01-04/Images1/126.jpg", None),
        ("01-04/Images1/1_126_3963.jpg", None),
    ],
)
def test_names(path: str, person: str | None) -> None:
    assert cfee.person(Path(path)) == person


def test_a_person_s_expressions_are_pairs(tmp_path: Path) -> None:
    for name in ("05-08/Images2/06_110_2638", "01-04/Images1/01_110_2555", "01-04/Images1/01_126_3963"):
        path = tmp_path / "CFEE_Database_230" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(portrait_path("collins" if "126" in name else "hopper"), path)
    prepare(tmp_path, tmp_path / "data.npz")
    pictures = Pictures(tmp_path / "data.npz")
    assert dict(zip(pictures.names, pictures.persons, strict=True)) == {
        "01_110_2555.jpg": "CFEE/110",
        "01_126_3963.jpg": "CFEE/126",
        "06_110_2638.jpg": "CFEE/110",
    }
    pictures.validation[:] = True
    (sequence,) = still_sequences(pictures)
    assert sequence.name == "CFEE/110"
    assert len(sequence.truths) == 1
