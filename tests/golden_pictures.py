"""Small pictures of many formats, made by other libraries than lumen: what tests/test_golden.py runs the command on."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

SAMPLES = Path(__file__).parent.parent / "sample_images"
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmp:Rating="4" dc:format="image/jpeg"/></rdf:RDF></x:xmpmeta>"""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
P3 = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.78407)}


def scene(height: int, width: int, seed: int = 0, noise: float = 0.01) -> np.ndarray:
    """A dark scene H×W×3, values 0 to 1: a ramp, a lamp, a chequered wall and noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    wall = 0.05 + 0.1 * x + 0.03 * ((np.floor(x * 12) + np.floor(y * 12)) % 2)
    lamp = 0.7 / (1 + 400 * ((x - 0.7) ** 2 + (y - 0.2) ** 2))
    values = wall[..., None] * (1.0, 0.8, 0.6) + lamp[..., None] * (1.0, 0.9, 0.5)
    return np.clip(values + np.random.default_rng(seed).uniform(-noise, noise, values.shape), 0, 1)


def eight(height: int, width: int, seed: int = 0, noise: float = 0.01) -> np.ndarray:
    return np.round(scene(height, width, seed, noise) * 255).astype(np.uint8)


def profile(primaries: dict[bytes, tuple[float, float, float]] | None = None) -> bytes:
    """Little CMS's sRGB profile with a fixed date, with other primaries where given."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    for index in range(struct.unpack_from(">I", data, 128)[0]):
        tag, start, _ = struct.unpack_from(">4sII", data, 132 + 12 * index)
        if tag in (primaries or {}):
            struct.pack_into(">3i", data, start + 8, *(round(value * 65536) for value in primaries[tag]))
    return bytes(data)


def exif(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x0112], tags[0x8298] = "Maker", "Model 1", orientation, "A. Photographer"
    tags[0x8769] = {0x829A: (1, 30), 0x8827: 3200, 0x9003: "2020:01:02 03:04:05", 0xA434: "50mm f/1.8"}
    tags[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    return tags.tobytes()


def iptc(jpeg: bytes) -> bytes:
    """The JPEG with an IPTC caption in a Photoshop segment."""
    caption = b"\x1c\x02\x78\x00\x05night"
    block = (
        b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(caption)) + caption + b"\0" * (len(caption) % 2)
    )
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def interlaced(pixels: np.ndarray) -> bytes:
    """A PNG in the seven passes of Adam7."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + r.tobytes() for x, y, w, h in ADAM7 for r in pixels[y::h, x::w]))),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def dng(path: Path) -> None:
    """A camera's raw file of a grey ramp: a Bayer mosaic with a white balance."""
    mosaic = np.linspace(0.005, 0.4, 96)[None, :] * np.ones((64, 1))
    mosaic[0::2, 0::2] *= 0.5
    mosaic[1::2, 1::2] *= 0.7
    to_srgb = (32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572)
    tags = (
        (274, 3, 1, 6),
        (271, 2, 0, "Maker"),
        (33421, 3, 2, (2, 2)),
        (33422, 1, 4, bytes((0, 1, 1, 2))),
        (50706, 1, 4, bytes((1, 4, 0, 0))),
        (50708, 2, 0, "Maker Model"),
        (50714, 3, 1, 0),
        (50717, 3, 1, 65535),
        (50721, 10, 9, [part for value in to_srgb for part in (value, 10000)]),
        (50728, 5, 3, (5, 10, 10, 10, 7, 10)),
        (50778, 3, 1, 21),
    )
    values = np.round(mosaic * 65535).astype(np.uint16)
    extra = [(*tag, True) for tag in tags]
    tifffile.imwrite(path, values, photometric=32803, extratags=extra, metadata=None, software=False)


def write_formats(folder: Path) -> None:
    """About fifty pictures, each of another kind."""
    folder.mkdir()
    rgb = eight(44, 60)
    deep, grey = (scene(44, 60) * 65535).astype(np.uint16), rgb[..., 1]
    alpha = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (44, 1))
    picture, rgba = Image.fromarray(rgb), Image.fromarray(np.dstack([rgb, alpha]))
    p3, srgb, tags = profile(P3), profile(), exif()
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "night")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    hdr = PngImagePlugin.PngInfo()
    hdr.add(b"cICP", bytes((9, 16, 0, 1)))
    gamma = PngImagePlugin.PngInfo()
    gamma.add(b"gAMA", struct.pack(">I", 100000))

    picture.save(folder / "rgb.png")
    cv2.imwrite(str(folder / "rgb-16.png"), deep[..., ::-1])
    cv2.imwrite(str(folder / "grey-16.png"), deep[..., 1])
    cv2.imwrite(str(folder / "rgba-16.png"), np.dstack([deep[..., ::-1], alpha * np.uint16(257)]))
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.dstack([grey, alpha])).save(folder / "grey-alpha.png")
    Image.fromarray(grey > 30).save(folder / "one-bit.png")
    picture.quantize(16).save(folder / "palette.png")
    picture.quantize(16).save(folder / "palette-clear.png", transparency=3)
    rgba.save(folder / "rgba.png")
    (folder / "interlaced.png").write_bytes(interlaced(rgb))
    picture.save(folder / "tags.png", pnginfo=info, exif=tags, icc_profile=p3, dpi=(300, 300))
    picture.save(folder / "cicp-pq.png", pnginfo=hdr)
    picture.save(folder / "linear.png", pnginfo=gamma)

    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=90)
    picture.save(folder / "progressive.jpg", quality=85, progressive=True)
    picture.save(folder / "444.jpg", quality=92, subsampling=0)
    picture.save(folder / "420.jpg", quality=80, subsampling=2)
    picture.save(folder / "422.jpg", quality=80, subsampling=1)
    Image.fromarray(grey).save(folder / "grey.jpg", quality=90)
    for turn in (3, 6, 7):
        picture.save(folder / f"turned-{turn}.jpg", quality=90, exif=exif(turn))
    picture.save(folder / "srgb.jpg", quality=90, icc_profile=srgb)
    picture.save(folder / "p3.jpg", quality=90, icc_profile=p3, exif=tags)
    stream = io.BytesIO()
    picture.save(stream, "jpeg", quality=90, exif=tags, xmp=XMP, comment="by night", dpi=(240, 240))
    (folder / "tags.jpg").write_bytes(iptc(stream.getvalue()))

    photographic = {"photometric": "rgb", "metadata": None, "software": False}
    tifffile.imwrite(folder / "8.tif", rgb, **photographic)
    tifffile.imwrite(folder / "16.tif", deep, **photographic, iccprofile=p3)
    tifffile.imwrite(folder / "float.tif", scene(44, 60).astype(np.float32), **photographic)
    tifffile.imwrite(folder / "tiled.tif", deep, **photographic, tile=(16, 16), compression="zlib")
    tifffile.imwrite(folder / "planes.tif", np.moveaxis(rgb, 2, 0), **photographic, planarconfig="separate")
    tifffile.imwrite(folder / "pages.tif", np.stack([rgb, rgb]), **photographic)
    tifffile.imwrite(folder / "grey-16.tif", deep[..., 1], photometric="minisblack", metadata=None, software=False)
    picture.save(folder / "lzw.tif", compression="tiff_lzw")
    picture.save(folder / "tags.tif", exif=tags, icc_profile=p3)
    picture.save(folder / "deflate.tif", compression="tiff_adobe_deflate", dpi=(300, 300))
    rgba.save(folder / "rgba.tif")

    picture.save(folder / "rgb.bmp")
    imageio.imwrite(folder / "rgb.ppm", rgb)
    picture.save(folder / "lossy.webp", quality=80, exif=tags, xmp=XMP)
    rgba.save(folder / "lossless.webp", lossless=True, icc_profile=srgb)
    picture.save(folder / "still.gif")
    picture.save(folder / "moving.gif", save_all=True, append_images=[Image.fromarray(rgb[::-1])])
    picture.save(folder / "rgb.avif", quality=80, exif=exif(6), max_threads=1)
    rgba.save(folder / "rgba.avif", quality=100, icc_profile=p3, max_threads=1)

    Image.fromarray(rgb[:1, :1]).save(folder / "one-pixel.png")
    Image.fromarray(rgb[:1]).save(folder / "row.png")
    Image.fromarray(rgb[:, :1]).save(folder / "column.png")
    Image.fromarray(np.full_like(rgb, (40, 30, 20))).save(folder / "one-colour.png")
    Image.fromarray(np.zeros_like(rgb)).save(folder / "black.png")
    Image.fromarray(np.full_like(rgb, 255)).save(folder / "white.jpg", quality=90)


def write_extras(folder: Path) -> None:
    """Those of pillow-heif, pyjpegxl and rawpy."""
    import pillow_heif
    import pyjpegxl

    folder.mkdir()
    rgb, deep = eight(64, 80), (scene(64, 80) * 65535).astype(np.uint16)
    heif = pillow_heif.from_pillow(Image.fromarray(rgb))
    heif.info["exif"] = exif()
    heif.save(folder / "rgb.heic", quality=80)
    pillow_heif.encode("RGB;16", (80, 64), deep.tobytes(), folder / "10.heic", quality=90)
    (folder / "rgb.jxl").write_bytes(pyjpegxl.encode_from_numpy(rgb))
    dng(folder / "raw.dng")
    (folder / "16.jxl").write_bytes(pyjpegxl.encode_from_numpy(deep, lossless=True))


def write_broken(folder: Path, formats: Path) -> None:
    """A batch of one good picture and some that cannot be read."""
    folder.mkdir()
    shutil.copy(formats / "rgb.png", folder / "good.png")
    (folder / "cut.jpg").write_bytes((formats / "tags.jpg").read_bytes()[:-400])
    (folder / "cut.png").write_bytes((formats / "rgb-16.png").read_bytes()[:2000])
    (folder / "cut.tif").write_bytes((formats / "16.tif").read_bytes()[:2000])
    (folder / "empty.webp").touch()
    (folder / "text.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture either")


def write_inputs(root: Path) -> None:
    """Folders of inputs, by the names that the commands of the test use."""
    shutil.copytree(SAMPLES, root / "samples", ignore=shutil.ignore_patterns("*.py", "*.md"))
    write_formats(root / "formats")
    write_broken(root / "broken", root / "formats")
    for name, chosen in {
        "mixed": ("rgb-16.png", "rgba.png", "tags.jpg", "p3.jpg", "grey-alpha.png"),
        "tagged": ("tags.jpg", "tags.png", "tags.tif", "lossy.webp"),
        "foreign": ("grey.png", "rgb.bmp"),
        "own": ("grey.png",),
        "tiny": ("one-pixel.png",),
    }.items():
        (root / name).mkdir()
        for one in chosen:
            shutil.copy(root / "formats" / one, root / name)
    for name in ("night/deeper", "large", "wide"):
        (root / name).mkdir(parents=True)
    Image.fromarray(eight(96, 128, 1)).save(root / "night/a.png")
    Image.fromarray(eight(70, 90, 2)).save(root / "night/deeper/b.png")
    (root / "list.txt").write_text("night/deeper/b.png\nformats/grey.jpg\n")
    # Above 0.4 megapixels.
    Image.fromarray(eight(600, 720, 3, noise=0.06)).save(root / "large/noisy.png", compress_level=1)
    Image.fromarray(eight(600, 720, 4)).save(root / "wide/turned.jpg", quality=90, exif=exif(6))
    deep = (scene(600, 720, 5) * 65535).astype(np.uint16)
    tifffile.imwrite(root / "wide/16.tif", deep, photometric="rgb", metadata=None, software=False)
