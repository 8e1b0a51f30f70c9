"""Which tags a result gets: all, those on a list of harmless ones, or none; and lumen's own stamp.

`CHANGES` names every way in which a result's tags may differ from its original's, and why: what exiftool prints of
both differs in nothing else.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lumen_cli.imaging.tags.allowed import is_copied

Keeping = Literal["keep", "private", "strip"]

TURNED = ("IFD0:Orientation", "XMP-tiff:Orientation")
"""1 in the result, whose pixels are upright; written only where the original has them."""

SIZES = ("ExifIFD:ExifImage", "XMP-exif:ExifImage", "XMP-tiff:Image")
"""With Width and Height behind: the result's size, written only where the original has them."""

BLOCK_SIZES = ("InteropIFD:RelatedImage", "IFD0:Image")
"""The same, where the whole EXIF block was copied; tag by tag exiftool does not copy them."""

PREVIEWS = (
    "IFD1:all",
    "ThumbnailImage",
    "PreviewImage",
    "JpgFromRaw",
    "OtherImage",
    "Photoshop:PhotoshopThumbnail",
    "XMP-xmp:Thumbnails*",
)
"""Small copies of the dark original. Where its EXIF held a thumbnail, the result gets one of itself (TIFF: none)."""

BEHIND = ("XMP-GCamera:all", "XMP-GContainer:all", "XMP-Container:all", "XMP-hdrgm:all", "XMP-HDRGainMap:all")
"""Point at a video, a depth map or a gain map that lay behind the picture and is not there any more."""


def _of(group: str, names: str) -> tuple[str, ...]:
    return tuple(f"{group}:{name}" for name in names.split())


_LAYOUT = _of(
    "IFD0",
    "ImageWidth ImageHeight BitsPerSample Compression PhotometricInterpretation StripOffsets StripByteCounts "
    "RowsPerStrip SamplesPerPixel PlanarConfiguration Predictor ExtraSamples SampleFormat Tile* SubfileType ColorMap "
    "OldSubfileType FillOrder YCbCrSubSampling YCbCrPositioning YCbCrCoefficients ReferenceBlackWhite JPEGTables",
)
_CONTAINERS = (
    *("JFIF:all", "Adobe:all", "RIFF:all", "QuickTime:all", "Jpeg2000:all", "JXL:all", "GIF:all", "MPF:all"),
    *_of("PNG", "ImageWidth ImageHeight BitDepth ColorType Compression Filter Interlace ProfileName Palette"),
    *_of("PNG", "Transparency SignificantBits Gamma WhitePoint* Red* Green* Blue* SRGBRendering BackgroundColor"),
)
_DEMANDED = (
    *_of("ExifIFD", "ExifVersion FlashpixVersion ComponentsConfiguration ColorSpace"),
    *_of("IFD0", "XResolution YResolution ResolutionUnit YCbCrPositioning"),
    *("GPS:GPSVersionID", "InteropIFD:InteropVersion"),
)


@dataclass(frozen=True)
class TagRules:
    """Which of the original's tags are carried, and what lumen adds.

    metadata: all, those of `tag_allowed`, or none; stamp: what lumen says about itself, None for nothing; credits:
    whether `private` keeps title and rights.
    """

    metadata: Keeping = "keep"
    stamp: str | None = None
    credits: bool = False


KEEP_ALL = TagRules()
"""Every tag, no stamp."""


@dataclass(frozen=True)
class Change:
    """Tags that may differ between original and result, and why.

    happens: "+" a tag more, "-" one less, "~" another value; tags: "group:name", `*` for any letters; ways: of
    `TagRules.metadata`; sources, targets: formats, empty for all; within: how far a number may be off, relative to
    it, None for any value; said: words of the line that has to name it, "" for a change of which nothing is said.
    """

    why: str
    happens: str
    tags: tuple[str, ...]
    ways: tuple[Keeping, ...] = ("keep", "private")
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    within: float | None = None
    said: str = ""


NO_IPTC = ("webp", "avif", "heif", "jxl")
"""Formats without a place for IPTC."""

_NUMBERED = ("avif", "heif", "jxl")
_BY_NUMBER = "these formats may name their colours by number, others by a profile"
_FURTHER_IPTC = ("IPTC2:all", "IPTC3:all")
"""Where exiftool lists IPTC of trailers."""
_COMMENTS = ("File:Comment", "PNG:Comment", "GIF:Comment")
_NAMED: dict[str, tuple[str, ...]] = {
    "cannot hold IPTC": ("IPTC:all", "Photoshop:IPTCDigest"),
    "cannot hold a comment": _COMMENTS,
    "cannot hold PNG's texts": ("PNG:all",),
    "C2PA": ("JUMBF:all", "CBOR:all"),
    "its colour profile was left out": ("ICC_Profile:all",),
    "incomplete": ("ICC_Profile:all", "PNG:ICC_Profile"),
    "colours became sRGB": ("ICC_Profile:all",),
    "cannot hold colour profile": ("ICC_Profile:all",),
    "an old preview": ("JFXX:all", "APP*:*"),
    "SPIFF": ("SPIFF:all",),
    "AVI1": ("AVI1:all",),
    "only the first of": ("PNG:Animation*", "GIF:Frame*", "GIF:Animation*"),
    "orNT": ("PNG:Orientation",),
    "Scalado": ("Scalado:all",),
    "JPEG-HDR": ("JPEG-HDR:all",),
    "AROT": ("APP10:all",),
    "JUMBF": ("JUMBF:all",),
    "its video": ("Samsung:Embedded*", "Trailer:all"),
    "Samsung's trailer": ("Samsung:all",),
    "AFCP": ("AFCP:all", *_FURTHER_IPTC),
    "Photo Mechanic": ("PhotoMechanic:all",),
    "FotoStation": ("FotoStation:all", *_FURTHER_IPTC),
    "Canon's program": ("CanonVRD:all",),
    "behind its end": (
        *("MIE:all", "AFCP:all", "FotoStation:all", "CanonVRD:all", "Samsung:all", "PhotoMechanic:all"),
        *_FURTHER_IPTC,
    ),
    "CMYK": ("ICC_Profile:all",),
}
"""What a line says is left out, by words of the line."""
_DEVELOPED = ("SubIFD*:*", "IFD2:all", "IFD3:all", "IFD0:AnalogBalance", "IFD0:AsShot*")
_EVERY: tuple[Keeping, ...] = ("keep", "private", "strip")
_BY_TAG = "written tag by tag, not as a block: what EXIF demands is added"
_ROUNDED = "written tag by tag, not as a block: exiftool rounds fractions"

CHANGES: tuple[Change, ...] = (
    Change("pixels are upright", "~", TURNED),
    Change("sizes are the result's", "~", tuple(f"{tag}{side}" for tag in SIZES for side in ("Width", "Height"))),
    Change(
        "sizes are the result's", "~-", tuple(f"{tag}{side}" for tag in BLOCK_SIZES for side in ("Width", "Height"))
    ),
    Change("previews show the dark original; a thumbnail is made anew", "+-~", PREVIEWS),
    Change("what lay behind the picture is not there any more", "-", BEHIND),
    Change("lumen's stamp", "+~", ("IFD0:ProcessingSoftware",)),
    Change("the container's own", "+-~", _CONTAINERS, _EVERY),
    Change("how the pixels are stored", "+-~", _LAYOUT, _EVERY),
    Change(_BY_NUMBER, "+-", ("ICC_Profile:all",), _EVERY, sources=_NUMBERED),
    Change(_BY_NUMBER, "+-", ("ICC_Profile:all",), _EVERY, targets=_NUMBERED),
    Change("how the pixels were compressed", "-", ("ExifIFD:CompressedBitsPerPixel",)),
    Change("exiftool writes its own name", "+~", ("XMP-x:XMPToolkit",)),
    Change("exiftool cannot write Photoshop's settings for print and layout", "-", ("Photoshop:all",), ("private",)),
    Change("it holds the small pictures", "~", ("*Preview*", "*Thumbnail*")),
    Change("colours are named by a profile", "+", ("ICC_Profile:all",), _EVERY),
    Change("a raw file's own: how it is developed", "-", _DEVELOPED, _EVERY, sources=("raw",)),
    *(Change(f"named: {words}", "-", tags, said=words) for words, tags in _NAMED.items()),
    Change("exiftool sees data behind the end of damaged maker notes", "+", ("MakerNotes:DataDump",)),
    Change("WebP, AVIF, HEIC and JPEG XL have no place for IPTC", "-", ("IPTC:all",), ("private",), targets=NO_IPTC),
    Change("only JPEG and PNG have a place for a comment", "-", _COMMENTS, ("private",), targets=("tiff", *NO_IPTC)),
    Change("the comment is at home in another group", "+-", _COMMENTS, sources=("jpeg", "gif"), targets=("png",)),
    Change("the comment is at home in another group", "+-", _COMMENTS, sources=("png",), targets=("jpeg",)),
    Change("only PNG has a place for PNG's texts", "-", ("PNG:all",), ("private",), targets=("jpeg", "tiff", *NO_IPTC)),
    Change(_BY_TAG, "+", _DEMANDED, ("private",)),
    Change(_BY_TAG, "+", _DEMANDED, ("keep",), sources=("tiff",)),
    Change(_BY_TAG, "+", _DEMANDED, ("keep",), targets=("tiff",)),
    Change(_BY_TAG, "+", _DEMANDED, ("keep",), targets=_NUMBERED),
    Change(_ROUNDED, "~", ("EXIF:all", "XMP:all"), ("private",), within=1e-6),
    Change(_ROUNDED, "~", ("EXIF:all",), ("keep",), sources=("tiff",), within=1e-6),
    Change(_ROUNDED, "~", ("EXIF:all",), ("keep",), targets=("tiff",), within=1e-6),
    Change("TIFF demands a resolution", "+~", _of("IFD0", "XResolution YResolution ResolutionUnit"), ("strip",)),
    Change("no tags at all", "-", ("*",), ("strip",)),
)
"""Every difference between the tags of an original and of its result. The colour profile is `write_picture`'s."""


def explanation(
    tag: str, before: object, after: object, rules: TagRules, source: str, target: str, said: Sequence[str] = ()
) -> str | None:
    """Why a tag of the result differs from the original's; None where nothing says that it may.

    Args:
        tag: groups and name as exiftool prints them with -G0:1, "EXIF:IFD0:Orientation" for example.
        before: its value in the original, None where it is missing.
        after: its value in the result, None where it is missing.
        rules: what the result was made under.
        source: the original's format.
        target: the result's.
        said: the lines about this picture.
    """
    happened = "+" if before is None else "-" if after is None else "~"
    for change in CHANGES:
        if (
            happened in change.happens
            and rules.metadata in change.ways
            and (not change.sources or source in change.sources)
            and (not change.targets or target in change.targets)
            and (not change.said or any(change.said in line for line in said))
            and (change.within is None or _near(before, after, change.within))
            and any(_is_meant(pattern, tag) for pattern in change.tags)
        ):
            return change.why
    if happened == "-" and rules.metadata == "private":
        known = ":".join(tag.split(":")[-2:])
        return None if is_copied(known, before, rules.credits) else "not on the list of what private keeps"
    return None


def _is_meant(pattern: str, tag: str) -> bool:
    """Whether exiftool would take the tag for one that `pattern` names."""
    group, _, name = pattern.lower().rpartition(":")
    *groups, own = tag.lower().split(":")
    return (not group or any(fnmatch.fnmatchcase(one, group) for one in groups)) and (
        name == "all" or fnmatch.fnmatchcase(own, name)
    )


def _near(before: object, after: object, within: float) -> bool:
    try:
        one, other = ([float(part) for part in str(value).split()] for value in (before, after))
    except ValueError:
        return False
    return len(one) == len(other) and all(math.isclose(*pair, rel_tol=within) for pair in zip(one, other, strict=True))
