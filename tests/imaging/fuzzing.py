"""Damaged pictures: seeds of every format lumen reads, and what is done to them. As a program: reads them one by one.

`python -m tests.imaging.fuzzing SEEDS FIRST LAST` says a line a case, before and after, so that whoever started it
learns which case it was when the process dies or hangs.
"""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.imaging import make

_PNG = b"\x89PNG\r\n\x1a\n"
_EXTREMES = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\0\0\xff\xff",
]
MEMORY = 6 << 30
"""Bytes of address space a reading process gets: what a small file claims must not take the machine down."""


def write_seeds(folder: Path) -> None:
    """One or several small files of every format that can be made here."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Lumen", 6
    exif.get_ifd(0x8769).update({0x829A: (1, 15), 0x927C: b"maker note"})
    icc = make.srgb_profile()
    colour, grey, clear = make.photo(), make.photo(channels=1)[:, :, 0], make.photo(channels=4)
    rgb, rgba, luma = Image.fromarray(colour), Image.fromarray(clear), Image.fromarray(grey)
    both = {"exif": exif, "icc_profile": icc}
    rgb.save(folder / "colour.jpg", **both)
    rgb.save(folder / "progressive.jpg", progressive=True, subsampling=2, xmp=b"<x:xmpmeta/>")
    luma.save(folder / "grey.jpg")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "colour.png", **both)
    rgba.save(folder / "alpha.png")
    rgb.convert("P").save(folder / "palette.png", transparency=3)
    luma.convert("1").save(folder / "bits.png")
    make.png16(folder / "deep.png", make.deep(), (b"gAMA", b"\0\0\xb1\x8f"))
    rgb.save(folder / "moving.png", save_all=True, append_images=[rgb.rotate(180)])
    rgb.save(folder / "lossy.webp", **both)
    rgba.save(folder / "lossless.webp", lossless=True)
    rgb.save(folder / "moving.webp", save_all=True, append_images=[rgb.rotate(180)])
    rgb.save(folder / "plain.tif", exif=exif)
    rgba.save(folder / "lzw.tif", compression="tiff_lzw")
    rgb.save(folder / "jpeg.tif", compression="jpeg")
    luma.convert("1").save(folder / "fax.tif", compression="group4")
    rgb.convert("CMYK").save(folder / "cmyk.tif", compression="packbits")
    tifffile.imwrite(folder / "deep.tif", make.deep(), photometric="rgb", compression="zlib", predictor=True)
    tifffile.imwrite(folder / "float.tif", colour.astype(np.float32) / 255, photometric="rgb")
    tifffile.imwrite(folder / "tiled.tif", make.deep(64, 64), photometric="rgb", tile=(32, 32), bigtiff=True)
    rgb.save(folder / "colour.bmp")
    rgb.convert("P").save(folder / "palette.bmp")
    rgb.convert("P").save(folder / "still.gif")
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgb.rotate(180)])
    _by_lumen(folder)


def _by_lumen(folder: Path) -> None:
    """Formats whose encoders are extras: made by lumen itself where it can."""
    from lumen_cli.errors import LumenError
    from lumen_cli.imaging.picture import read_picture, write_picture

    picture = read_picture(folder / "colour.jpg")
    for name, format in (("colour.avif", "avif"), ("colour.heic", "heif"), ("colour.jxl", "jxl")):
        try:
            write_picture(picture, folder / name, format=format)
        except (LumenError, ImportError):
            (folder / name).unlink(missing_ok=True)


def damaged(seeds: list[Path], case: int) -> tuple[str, bytes]:
    """Case number `case`: the name of the seed, and its bytes flipped, cut, filled, moved or mixed with another's."""
    random = np.random.default_rng(case)
    seed = seeds[int(random.integers(len(seeds)))]
    data = bytearray(seed.read_bytes())
    for _ in range(int(random.integers(1, 4))):
        _damage(data, random, seeds)
    whole = bytes(data)
    if whole.startswith(_PNG) and random.random() < 0.7:
        whole = _with_true_checksums(whole)  # else nearly every case ends at the first one
    return seed.name, whole


def _damage(data: bytearray, random: np.random.Generator, seeds: list[Path]) -> None:
    # The structure lies at a file's beginning, in TIFF and boxes at its end as well: more than half of the hits there.
    place = [
        lambda n: random.integers(n),
        lambda n: random.integers(min(n, 200)),
        lambda n: n - 1 - random.integers(min(n, 200)),
    ]
    at = int(place[int(random.integers(3))](max(1, len(data))))
    length = int(random.integers(1, 64))
    if not data:
        return
    match int(random.integers(9)):
        case 0 | 1:
            for _ in range(int(random.integers(1, 9))):
                data[int(random.integers(max(1, len(data))))] ^= 1 << int(random.integers(8))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + length]
        case 4:
            data[at : at + length] = random.bytes(length)
        case 5:
            data[at:at] = data[at : at + length]
        case 6:
            data[at : at + 4] = _EXTREMES[int(random.integers(len(_EXTREMES)))]
        case 7:
            data[at : at + length] = bytes([int(random.choice([0, 255]))]) * length
        case _:
            other = seeds[int(random.integers(len(seeds)))].read_bytes()
            data[at:] = other[min(at, len(other)) :]


def _with_true_checksums(data: bytes) -> bytes:
    fixed, at = bytearray(data), len(_PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


def fault_of(path: Path) -> str | None:
    """What is wrong with how lumen takes this file; None for a picture or one line."""
    from lumen_cli.errors import PictureError
    from lumen_cli.imaging.picture import read_picture

    try:
        picture = read_picture(path)
        picture.digest()
    except PictureError as error:
        return "more than one line" if "\n" in str(error) or len(error.reason) > 500 else None
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    if picture.pixels.ndim != 3 or picture.pixels.shape[2] != 3 or not np.isfinite(picture.pixels).all():
        return f"no picture: {picture.pixels.shape}, {picture.pixels.dtype}"
    return None


def main(seeds_folder: Path, first: int, last: int) -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seeds = sorted(seeds_folder.iterdir())
    lines = io.TextIOWrapper(sys.stdout.buffer, write_through=True)
    for case in range(first, last):
        name, data = damaged(seeds, case)
        path = seeds_folder.with_name(f"case-{case}{Path(name).suffix}")
        path.write_bytes(data)
        lines.write(f"begun {case} {name}\n")
        fault = fault_of(path)
        if fault:
            lines.write(f"fault {case} {name}: {fault}\n")
        else:
            path.unlink()
        lines.write(f"done {case}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
