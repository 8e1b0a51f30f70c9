"""The few tags that tell how a picture was taken. Where it was taken is not shown: pages are handed on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

_MAKE, _MODEL, _DATE, _EXIF = 0x010F, 0x0110, 0x0132, 0x8769
_EXPOSURE, _F_NUMBER, _ISO, _TAKEN, _BIAS, _FOCAL, _LENS = 0x829A, 0x829D, 0x8827, 0x9003, 0x9204, 0x920A, 0xA434
_LONGEST = 120


def essentials(block: bytes | None) -> list[tuple[str, str]]:
    """Camera, lens, exposure, ISO and date of a raw EXIF block, name and value; those that are there.

    A damaged block gives what can be read of it, or nothing.
    """
    if not block:
        return []
    from PIL import Image

    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif.load(block)
            inner = exif.get_ifd(_EXIF)
    except Exception:  # Pillow raises many kinds on damaged blocks, and tags are no reason to fail
        return []
    return [(name, value[:_LONGEST]) for name, value in _rows(exif, inner) if value]


def _rows(exif: Any, inner: Any) -> Iterator[tuple[str, str]]:
    make, model = _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
    yield "Camera", model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
    yield "Lens", _text(inner.get(_LENS))
    exposure, aperture, focal = (_number(inner.get(tag)) for tag in (_EXPOSURE, _F_NUMBER, _FOCAL))
    yield "Exposure", "" if exposure is None else shutter(exposure)
    yield "Aperture", "" if not aperture else f"f/{aperture:.2g}" if aperture < 10 else f"f/{aperture:.0f}"
    iso = inner.get(_ISO)
    iso = _number(iso[0] if isinstance(iso, tuple) and iso else iso)
    yield "ISO", "" if not iso else f"{iso:.0f}"
    bias = _number(inner.get(_BIAS), negative=True)
    yield "Compensation", f"{bias:+.2g} EV" if bias else ""
    yield "Focal length", f"{focal:.3g} mm" if focal else ""
    date = _text(inner.get(_TAKEN)) or _text(exif.get(_DATE))
    yield "Taken", date.replace(":", "-", 2)


def shutter(seconds: float) -> str:
    """0.004 → "1/250 s", 2 → "2 s"."""
    if seconds <= 0:
        return ""
    return f"1/{1 / seconds:.0f} s" if seconds < 0.3 else f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def _number(value: object, negative: bool = False) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # Pillow's rationals are numbers, whatever else is refused below
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    usable = abs(number) < 1e9 and (number >= 0 or negative)  # no NaN passes this
    return number if usable else None
