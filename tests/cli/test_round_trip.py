"""What comes out at --strength 0 is what went in: every depth, channel, colour space and container, by the command."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.imaging import make, profiles

Values = np.ndarray


def wide(channels: int = 3, depth: int = 8) -> Values:
    """Every third pixel at the edge of the gamut, the others anywhere in it, in blocks that JPEG keeps nearly."""
    generator = np.random.default_rng(3)
    values = generator.random((12, 16, channels))
    values[:, ::3] = values[:, ::3] > 0.5
    if depth == 32:
        return values.astype(np.float32)
    return np.rint(values * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)


def pillow(path: Path, values: Values, **options: Any) -> None:
    mode = options.pop("mode", None)
    image = Image.frombytes(mode, values.shape[1::-1], values.tobytes()) if mode else Image.fromarray(values)
    image.save(path, **options)


def tiff(path: Path, values: Values, icc: bytes | None = None, **options: Any) -> None:
    colours = options.pop("colours", "rgb" if values.ndim == 3 else "minisblack")
    extra = ["unassalpha"] if values.ndim == 3 and values.shape[2] == (5 if colours == "separated" else 4) else None
    extra = None if colours == "separated" and values.shape[2] == 4 else extra
    tifffile.imwrite(
        path,
        values,
        photometric=colours,
        extrasamples=extra,
        iccprofile=icc,
        planarconfig="contig" if values.ndim == 3 else None,
        metadata=None,
        **options,
    )


def png16(path: Path, values: Values, icc: bytes | None = None, *chunks: tuple[bytes, bytes]) -> None:
    import zlib

    profile = ((b"iCCP", b"p\0\0" + zlib.compress(icc)),) if icc else ()
    make.png16(path, values, *profile, *chunks)


def values_in(path: Path) -> Values:
    """The stored values, by libraries that leave colours alone; RGB order."""
    if path.suffix == ".tif":
        values = tifffile.imread(path) if _plainly_packed(path) else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return (
            values if _plainly_packed(path) or values.ndim == 2 else values[:, :, [2, 1, 0, *range(3, values.shape[2])]]
        )
    with Image.open(path) as image:
        deep = path.suffix == ".png" and path.read_bytes()[24] == 16
        if not deep:
            return np.asarray(
                image if image.mode != "P" else image.convert("RGBA" if "transparency" in image.info else "RGB")
            )
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return values if values.ndim == 2 else values[:, :, [2, 1, 0, *range(3, values.shape[2])]]


def _plainly_packed(path: Path) -> bool:
    with tifffile.TiffFile(path) as file:
        return int(file.pages.first.compression) in (1, 8)


def profile_in(path: Path) -> bytes | None:
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            tag = file.pages.first.tags.get(34675)
            return bytes(tag.value) if tag else None
    with Image.open(path) as image:
        return image.info.get("icc_profile") or None


CHRM = b"".join(struct.pack(">I", value) for value in (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
EXACT: dict[str, Callable[[Path], None]] = {
    "rgb8.png": lambda p: pillow(p, wide()),
    "rgba8.png": lambda p: pillow(p, wide(4)),
    "grey8.png": lambda p: pillow(p, wide(1)[:, :, 0]),
    "grey8-alpha.png": lambda p: pillow(p, wide(2), mode="LA"),
    "palette.png": lambda p: Image.fromarray(wide()).quantize(64).save(p),
    "palette-transparent.png": lambda p: Image.fromarray(wide()).quantize(64).save(p, transparency=3),
    "rgb16.png": lambda p: png16(p, wide(3, 16)),
    "rgba16.png": lambda p: png16(p, wide(4, 16)),
    "grey16.png": lambda p: png16(p, wide(1, 16)),
    "grey16-alpha.png": lambda p: png16(p, wide(2, 16)),
    "p3-8.png": lambda p: pillow(p, wide(), icc_profile=profiles.display_p3()),
    "p3-8-alpha.png": lambda p: pillow(p, wide(4), icc_profile=profiles.display_p3()),
    "p3-16.png": lambda p: png16(p, wide(3, 16), profiles.display_p3()),
    "adobe-16.png": lambda p: png16(p, wide(3, 16), profiles.adobe_rgb()),
    "prophoto-16-alpha.png": lambda p: png16(p, wide(4, 16), profiles.prophoto()),
    "gamma-chunk-16.png": lambda p: png16(p, wide(3, 16), None, (b"gAMA", struct.pack(">I", 100000)), (b"cHRM", CHRM)),
    "pq-16.png": lambda p: png16(p, wide(3, 16), None, (b"cICP", bytes((9, 16, 0, 1)))),
    "grey-profile-8.png": lambda p: pillow(p, wide(1)[:, :, 0], icc_profile=profiles.grey()),
    "grey-profile-16.png": lambda p: png16(p, wide(1, 16), profiles.grey()),
    "rgb8.tif": lambda p: tiff(p, wide()),
    "rgba16.tif": lambda p: tiff(p, wide(4, 16)),
    "grey16.tif": lambda p: tiff(p, wide(1, 16)[:, :, 0]),
    "adobe-16.tif": lambda p: tiff(p, wide(3, 16), profiles.adobe_rgb()),
    "prophoto-16.tif": lambda p: tiff(p, wide(3, 16), profiles.prophoto()),
    "sampled-curves-16.tif": lambda p: tiff(p, wide(3, 16), profiles.sampled_rgb()),
    "rgb32f.tif": lambda p: tiff(p, wide(3, 32)),
    "rgb32f-beyond-white.tif": lambda p: tiff(p, wide(3, 32) * 4 - 0.5),
    "linear-p3-32f.tif": lambda p: tiff(p, wide(3, 32), profiles.matrix(profiles.DISPLAY_P3, profiles.gamma(1))),
    "cmyk8.tif": lambda p: tiff(p, wide(4), colours="separated"),
    "cmyk8-profile.tif": lambda p: tiff(p, wide(4), profiles.cmyk(), colours="separated"),
    "cmyk16-profile.tif": lambda p: tiff(p, wide(4, 16), profiles.cmyk(), colours="separated"),
    "p3-8.webp": lambda p: pillow(p, wide(), icc_profile=profiles.display_p3(), lossless=True),
    "rgba8.webp": lambda p: pillow(p, wide(4), lossless=True, exact=True),
    "rgb8.bmp": lambda p: pillow(p, wide()),
}  # fmt: skip


SMOOTH: dict[str, Callable[[Path], None]] = {
    "rgb.jpg": lambda p: pillow(p, make.photo(), quality=92, subsampling=0),
    "grey.jpg": lambda p: pillow(p, make.photo(channels=1)[:, :, 0], quality=92),
    "p3.jpg": lambda p: pillow(p, make.photo(), quality=92, subsampling=0, icc_profile=profiles.display_p3()),
    "p3-halved.jpg": lambda p: pillow(p, make.photo(), quality=92, subsampling=2, icc_profile=profiles.display_p3()),
    "adobe.jpg": lambda p: pillow(p, make.photo(), quality=92, subsampling=0, icc_profile=profiles.adobe_rgb()),
    "cmyk.jpg": lambda p: pillow(p, make.photo(channels=4), mode="CMYK", quality=92, icc_profile=profiles.cmyk()),
    "cmyk-plain.jpg": lambda p: pillow(p, make.photo(channels=4), mode="CMYK", quality=92),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All the pictures, and what one run of the command made of them."""
    from lumen_cli.__main__ import main

    root = tmp_path_factory.mktemp("round-trip")
    (root / "in").mkdir()
    for name, write in {**EXACT, **SMOOTH}.items():
        write(root / "in" / name)
    command = [
        "enhance",
        root / "in",
        "-m",
        "kind",
        "--device",
        "cpu",
        "--strength",
        "0",
        "-o",
        root / "out",
        "--quiet",
    ]
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in command])
    assert not end.value.code
    return root / "in", root / "out"


@pytest.mark.parametrize("name", EXACT)
def test_strength_0_gives_back_every_bit(name: str, folders: tuple[Path, Path]) -> None:
    source, result = (folder / name for folder in folders)
    before, after = values_in(source), values_in(result)
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert np.array_equal(after, before)
    assert profile_in(result) == profile_in(source)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_jpeg_comes_back_within_a_step_of_its_values(name: str, folders: tuple[Path, Path]) -> None:
    source, result = (folder / name for folder in folders)
    before, after = values_in(source), values_in(result)
    assert after.shape == before.shape
    # Half the colour resolution cannot be had back to the last step.
    assert np.abs(after.astype(int) - before.astype(int)).max() <= (2 if "halved" in name else 1)
    assert profile_in(result) == profile_in(source)
    with Image.open(source) as one, Image.open(result) as other:
        assert other.mode == one.mode
