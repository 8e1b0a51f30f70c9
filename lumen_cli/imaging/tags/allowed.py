"""The tags that `--metadata private` keeps: a list of what is allowed, so that an unknown tag is left out.

A tag is allowed by its name, its group and the kind of its value: a date that holds a sentence is no date.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["numbers", "dates", "text", "interop", "any"]

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|\d+/\d+|inf|undef|nan)"
_KINDS: Mapping[Kind, re.Pattern[str]] = {
    "numbers": re.compile(rf"(?:{_NUMBER}(?:[ ,;]+|$)){{0,64}}", re.IGNORECASE),
    "dates": re.compile(r"[0-9:.+\-TZ ]{0,40}"),
    "text": re.compile(r"[^\x00-\x1f\x7f]{0,200}"),
    "interop": re.compile(r"R98|R03|THM"),
    "any": re.compile(r".*", re.DOTALL),
}


@dataclass(frozen=True)
class Allowed:
    """Tags that may stay. values: what they have to hold; tags: exiftool's "group:name", "*" for any letters."""

    why: str
    values: Kind
    tags: tuple[str, ...]


def _of(group: str, names: str) -> tuple[str, ...]:
    return tuple(f"{group}:{name}" for name in names.split())


_EXPOSURE = (
    "ExposureTime FNumber ExposureProgram ShutterSpeedValue ApertureValue BrightnessValue MaxApertureValue "
    "SubjectDistance MeteringMode LightSource FocalLength FlashEnergy FocalPlaneXResolution FocalPlaneYResolution "
    "FocalPlaneResolutionUnit ExposureIndex SensingMethod CustomRendered ExposureMode WhiteBalance DigitalZoomRatio "
    "SceneCaptureType GainControl Contrast Saturation Sharpness SubjectDistanceRange CompositeImage "
    "ExposureCompensation FileSource SceneType ISO FocalLengthIn35mmFormat Gamma ColorSpace ExifVersion "
    "FlashpixVersion ComponentsConfiguration"
)
_ISO = "StandardOutputSensitivity RecommendedExposureIndex ISOSpeed ISOSpeedLatitudeyyy ISOSpeedLatitudezzz"

COPIED: tuple[Allowed, ...] = (
    Allowed(
        "capture settings",
        "numbers",
        (
            *_of("ExifIFD", f"{_EXPOSURE} {_ISO} SensitivityType Flash LensInfo"),
            *_of("XMP-exif", _EXPOSURE),
            *_of("XMP-exifEX", f"{_ISO} PhotographicSensitivity SensitivityType LensInfo Gamma"),
            *_of("XMP-aux", "LensInfo ApproximateFocusDistance"),
        ),
    ),
    Allowed(
        "camera and lens",
        "text",
        (
            *_of("IFD0", "Make Model"),
            *_of("ExifIFD", "LensMake LensModel"),
            *_of("XMP-tiff", "Make Model"),
            *_of("XMP-exifEX", "LensMake LensModel"),
            "XMP-aux:Lens",
        ),
    ),
    Allowed(
        "dates",
        "dates",
        (
            "IFD0:ModifyDate",
            *_of("ExifIFD", "DateTimeOriginal CreateDate SubSecTime SubSecTimeOriginal SubSecTimeDigitized"),
            *_of("ExifIFD", "OffsetTime OffsetTimeOriginal OffsetTimeDigitized"),
            *_of("XMP-exif", "DateTimeOriginal DateTimeDigitized"),
            *_of("XMP-tiff", "DateTime"),
            *_of("XMP-xmp", "CreateDate ModifyDate MetadataDate"),
            *_of("XMP-photoshop", "DateCreated"),
            *_of("IPTC", "DateCreated TimeCreated DigitalCreationDate DigitalCreationTime"),
            *_of("PNG", "CreateDate ModifyDate"),
        ),
    ),
    Allowed(
        "colour, orientation, resolution",
        "numbers",
        (
            *_of("IFD0", "Orientation XResolution YResolution ResolutionUnit YCbCrPositioning YCbCrCoefficients"),
            *_of("IFD0", "WhitePoint PrimaryChromaticities ReferenceBlackWhite"),
            *_of("XMP-tiff", "Orientation XResolution YResolution ResolutionUnit"),
            "InteropIFD:InteropVersion",
        ),
    ),
    Allowed("Adobe RGB or sRGB", "interop", ("InteropIFD:InteropIndex",)),
)
"""What is copied from the original."""

CREDITS: tuple[Allowed, ...] = (
    Allowed(
        "title and rights",
        "any",
        (
            *_of("IFD0", "Artist Copyright XPTitle"),
            *_of("XMP-dc", "Title Title-* Creator Rights Rights-*"),
            *_of("XMP-photoshop", "Credit"),
            *_of("XMP-xmpRights", "Marked UsageTerms UsageTerms-* WebStatement"),
            *_of("XMP-cc", "License"),
            *_of("IPTC", "ObjectName By-line CopyrightNotice Credit"),
            *_of("PNG", "Title Author Copyright"),
        ),
    ),
)
"""What is copied besides where the user asks for it."""

_MADE: tuple[Allowed, ...] = (
    Allowed(
        "the container and its pixels",
        "any",
        (
            *_of("File", "FileType FileTypeExtension MIMEType ExifByteOrder CurrentIPTCDigest ImageWidth ImageHeight"),
            *_of("File", "EncodingProcess BitsPerSample ColorComponents YCbCrSubSampling"),
            *(
                "JFIF:*",
                "Adobe:*",
                "RIFF:*",
                "QuickTime:*",
                "Meta:*",
                "Jpeg2000:*",
                "JXL:*",
                "PNG-pHYs:*",
                "PNG-cICP:*",
            ),
            *_of("PNG", "ImageWidth ImageHeight BitDepth ColorType Compression Filter Interlace ProfileName Palette"),
            *_of("PNG", "Transparency SignificantBits Gamma WhitePoint* Red* Green* Blue* SRGBRendering"),
            *_of("PNG", "BackgroundColor"),
            *_of("IFD0", "ImageWidth ImageHeight BitsPerSample Compression PhotometricInterpretation StripOffsets"),
            *_of("IFD0", "StripByteCounts RowsPerStrip SamplesPerPixel PlanarConfiguration Predictor ExtraSamples"),
            *_of("IFD0", "SampleFormat Tile* SubfileType OldSubfileType FillOrder YCbCrSubSampling JPEGTables InkSet"),
        ),
    ),
    Allowed("the colour profile", "any", ("ICC*:*",)),
    Allowed(
        "the result's size",
        "numbers",
        (
            *_of("ExifIFD", "ExifImageWidth ExifImageHeight"),
            *_of("XMP-exif", "ExifImageWidth ExifImageHeight"),
            *_of("XMP-tiff", "ImageWidth ImageHeight"),
        ),
    ),
    Allowed(
        "the result's thumbnail",
        "any",
        _of(
            "IFD1", "Compression XResolution YResolution ResolutionUnit ThumbnailOffset ThumbnailLength ThumbnailImage"
        ),
    ),
    Allowed("IPTC's own", "any", _of("IPTC", "CodedCharacterSet ApplicationRecordVersion EnvelopeRecordVersion")),
    Allowed("IPTC's own", "any", ("Photoshop:IPTCDigest",)),
)
"""What lumen and exiftool write themselves."""

_ABOUT_THE_FILE = ("SourceFile", "System", "ExifTool", "Composite")
_STAMP, _TOOLKIT = "IFD0:ProcessingSoftware", "XMP-x:XMPToolkit"


def copied_tags(credits: bool) -> Iterator[str]:
    """The tags to copy, as "group:name"."""
    for entry in (*COPIED, *(CREDITS if credits else ())):
        yield from entry.tags


def is_copied(tag: str, value: object, credits: bool) -> bool:
    """Whether a tag of an original, "group:name" with exiftool's family 1, is copied: by name and kind of value."""
    return _is_in((*COPIED, *(CREDITS if credits else ())), tag, value)


def is_allowed(tag: str, value: object, credits: bool) -> bool:
    """Whether a finished file may hold a tag: one that is copied, or that lumen or exiftool writes itself."""
    return is_copied(tag, value, credits) or _is_in(_MADE, tag, value)


def _is_in(entries: Iterable[Allowed], tag: str, value: object) -> bool:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return any(
        _KINDS[entry.values].fullmatch(text) is not None and any(fnmatch.fnmatchcase(tag, one) for one in entry.tags)
        for entry in entries
    )


def unwanted(tags: Mapping[str, Any], credits: bool, software: str | None) -> list[str]:
    """Those of a finished file's tags that are not on the list, as "group:name".

    Args:
        tags: what exiftool prints with -j -n -a -G1:4, structures flattened.
        credits: whether title and rights may be there.
        software: what ProcessingSoftware may say; None: it may not be there.
    """
    return list(
        dict.fromkeys(tag for tag, value in _named(tags.items()) if not _may_stay(tag, value, credits, software))
    )


def _may_stay(tag: str, value: object, credits: bool, software: str | None) -> bool:
    if tag == _STAMP:
        return value == software
    if tag == _TOOLKIT:
        return str(value).startswith("Image::ExifTool ")
    return is_allowed(tag, value, credits)


def _named(tags: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for key, value in tags:
        parts = key.split(":")
        if parts[0] not in _ABOUT_THE_FILE:
            yield f"{parts[0]}:{parts[-1]}", value
