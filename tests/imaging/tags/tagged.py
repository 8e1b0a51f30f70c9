"""Pictures full of tags for the tests, and what exiftool reads from files."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import ExifTags, Image, features
from PIL.TiffImagePlugin import IFDRational

from lumen_cli.imaging.formats import find_format
from lumen_cli.imaging.picture import read_picture, write_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.imaging.tags.arguments import LISTING
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.transfer import Tags, parse_listing
from tests.imaging import make

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
both_engines = pytest.mark.parametrize("engine", [pytest.param("exiftool", marks=needs_exiftool), "pillow"])
FORMATS = ["jpeg", "png", "webp", "tiff"]
_MODULES = {"avif": None, "heif": "pillow_heif", "jxl": "pyjpegxl"}
STAMP = "lumen 0.1.0, model tiny (weights 0123456789ab), seed 0, strength 1, fp32"
MAKER_NOTE = b"LUMENCAM serial 0815 shutter count 12345"
PACKET = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:my="http://example.com/my/" my:Shelf="42"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""A namespace that exiftool cannot write tag by tag."""
PACKETS = {
    "sound": PACKET,
    "cut short": PACKET[:-2],
    "no end": PACKET.replace(b'<?xpacket end="w"?>', b""),
    "padded": PACKET + bytes(40),
    "no wrapper": PACKET.replace(b'<x:xmpmeta xmlns:x="adobe:ns:meta/">', b"").replace(b"</x:xmpmeta>", b""),
}
"""The packet as cameras and programs write it. exiftool refuses all but the first as a block, with exit code 0."""


def can_write(format: str) -> bool:
    """Whether the encoder, an extra for some formats, is there."""
    if format == "avif":
        return bool(features.check("avif"))
    return not _MODULES.get(format) or importlib.util.find_spec(str(_MODULES[format])) is not None


CONTAINERS = [format for format in (*FORMATS, *_MODULES) if can_write(format)]


def camera_file(path: Path, orientation: int = 6) -> Path:
    """A JPEG as from a camera: exposure, GPS, a maker note; turned by its tag."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Lumen", "Nocturne 1"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = "2024:01:02 03:04:05"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExposureTime], inner[ExifTags.Base.FNumber] = IFDRational(1, 15), 1.8
    inner[ExifTags.Base.FocalLength] = 21.3125
    inner[ExifTags.Base.ISOSpeedRatings] = 6400
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = 6000, 4000
    inner[ExifTags.Base.MakerNote] = MAKER_NOTE
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (47.0, 22.0, 5.5)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E", (8.0, 32.0, 30.25)
    stored = Image.fromarray(make.stored(make.photo(), orientation))
    stored.save(path, exif=exif, quality=98, subsampling=0, icc_profile=make.srgb_profile())
    return path


def jpeg(path: Path, *segments: bytes, behind: bytes = b"", exif: bytes | None = None) -> Path:
    """A JPEG with these segments after JFIF's, and these bytes behind its end."""
    buffer = io.BytesIO()
    Image.fromarray(make.photo()).save(buffer, "JPEG", quality=95, **({"exif": exif} if exif else {}))
    data = buffer.getvalue()
    at = 4 + int.from_bytes(data[4:6], "big")
    path.write_bytes(data[:at] + b"".join(segments) + data[at:] + behind)
    return path


def small_jpeg(width: int = 64, height: int = 48, quality: int = 90) -> bytes:
    """A JPEG of noise."""
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_tags(path: Path, *tags: str) -> None:
    """Write tags, "group:name=value" or other options of exiftool's, into a file."""
    command = ["exiftool", "-q", "-m", "-n", "-overwrite_original", *(f"-{tag}" for tag in tags), path.name]
    subprocess.run(command, check=True, cwd=path.parent)


def write_xmp(path: Path, attributes: str) -> None:
    """Write an XMP packet with these attributes into a file."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"<rdf:Description {attributes}/></rdf:RDF></x:xmpmeta>"
    )
    path.with_name("packet.xmp").write_text(packet)
    command = ["exiftool", "-q", "-overwrite_original", "-tagsFromFile", "packet.xmp", "-XMP", path.name]
    subprocess.run(command, check=True, cwd=path.parent)


def read_tags(path: Path) -> dict[str, Any]:
    """All tags by group and name, binary values and unknown tags too."""
    command = ["exiftool", "-j", "-n", "-G1", "-a", "-s", "-u", "-b", "-struct", str(path)]
    tags: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    return tags


def own_tags(path: Path) -> dict[str, Any]:
    """`read_tags` without those of the container."""
    container = {"SourceFile", "ExifTool", "System", "File", "Composite", "JFIF", "PNG", "RIFF"}
    return {name: value for name, value in read_tags(path).items() if name.split(":")[0] not in container}


def list_tags(paths: Iterable[Path]) -> dict[str, Tags]:
    """The tags of each file by its name, for `find_differences`; binary values too."""
    command = ["exiftool", *map(bytes.decode, LISTING), "-b", *map(str, paths)]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    names = [Path(file["SourceFile"]).name for file in json.loads(output)]
    return dict(zip(names, parse_listing(output), strict=True))


def carry(
    writer: TagWriter, source: Path, format: str | None = None, target: Path | None = None
) -> tuple[Path, list[str]]:
    """Read a picture, write it unchanged, copy its tags: the result and the lines about it."""
    picture = read_picture(source)
    format = format or picture.format
    target = target or source.with_name(f"out{find_format(format).suffix}")
    write_picture(picture, target, format=format)
    return target, writer.copy(source, target, picture)


def carry_by(
    rules: TagRules, source: Path, format: str | None = None, engine: Any = "exiftool"
) -> tuple[Path, list[str]]:
    """`carry` with a writer of its own."""
    with TagWriter(engine, rules=rules) as writer:
        return carry(writer, source, format)


def running_exiftools() -> set[int]:
    """The ids of the exiftool processes of this process."""
    children = psutil.Process().children()
    return {child.pid for child in children if any("exiftool" in part for part in child.cmdline())}
