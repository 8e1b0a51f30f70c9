from __future__ import annotations

import pytest
from PIL import Image

from lumen_cli.compare.rows import essentials, shutter


def block(**fields: object) -> bytes:
    exif = Image.Exif()
    for name, value in fields.items():
        tag = int(name[1:], 16)
        (exif if tag < 0x8000 else exif.get_ifd(0x8769))[tag] = value
    return exif.tobytes()


def test_what_a_photographer_looks_for() -> None:
    exif = block(
        t010F="NIKON CORPORATION",
        t0110="NIKON D70",
        t829A=1 / 60,
        t829D=5.6,
        t8827=1600,
        t9003="2008:03:15 09:52:01",
        t920A=50.0,
        tA434="50mm f/1.8",
        t9204=-0.7,
    )
    assert essentials(exif) == [
        ("Camera", "NIKON CORPORATION NIKON D70"),
        ("Lens", "50mm f/1.8"),
        ("Exposure", "1/60 s"),
        ("Aperture", "f/5.6"),
        ("ISO", "1600"),
        ("Compensation", "-0.7 EV"),
        ("Focal length", "50 mm"),
        ("Taken", "2008-03-15 09:52:01"),
    ]


def test_a_make_that_the_model_repeats_is_said_once() -> None:
    assert essentials(block(t010F="Canon", t0110="Canon EOS 40D")) == [("Camera", "Canon EOS 40D")]


def test_where_it_was_taken_is_not_shown() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)})
    assert essentials(exif.tobytes()) == []


@pytest.mark.parametrize("damaged", [None, b"", b"II*\0", b"II*\0\xff\xff\xff\xff" + bytes(40), b"nonsense" * 9])
def test_damaged_tags_give_nothing(damaged: bytes | None) -> None:
    assert essentials(damaged) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(1 / 250, "1/250 s"), (0.5, "0.5 s"), (2.0, "2 s"), (30.0, "30 s"), (0.0, "")]
)
def test_exposures_are_written_as_cameras_do(seconds: float, said: str) -> None:
    assert shutter(seconds) == said
