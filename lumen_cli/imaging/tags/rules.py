"""The rules for tags, as tables: which tags a result gets, which change, and every other difference with its reason.

Tags are patterns "group:name" with exiftool's groups of family 1; `*` stands for any letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Keeping = Literal["keep", "private", "strip"]


@dataclass(frozen=True)
class TagRules:
    """Which of the original's tags a result gets, and what lumen adds."""

    metadata: Keeping = "keep"
    """All tags, those that `PRIVATE` allows, or none."""
    stamp: str | None = None
    """What lumen writes about itself; None for nothing."""
    credits: bool = False
    """Whether `private` keeps title and rights."""


KEEP_ALL = TagRules()
"""Every tag, no stamp."""

# What changes with the pixels.

TURNED = ("IFD0:Orientation", "XMP-tiff:Orientation")
"""1 in the result, whose pixels are upright. Only written where the original has them."""
SIZES = ("ExifIFD:ExifImage", "XMP-exif:ExifImage", "XMP-tiff:Image")
"""With Width and Height appended: the result's size. Only written where the original has them."""
BLOCK_SIZES = ("InteropIFD:RelatedImage", "IFD0:Image")
"""The same for a whole EXIF block; tag by tag, exiftool does not copy them."""
PREVIEWS = (
    *("IFD1:all", "ThumbnailImage", "PreviewImage", "JpgFromRaw", "OtherImage", "Photoshop:PhotoshopThumbnail"),
    "XMP-xmp:Thumbnails*",
)
"""Small copies of the dark original. A result gets a thumbnail of its own where the original's EXIF has one."""
BEHIND = ("XMP-GCamera:all", "XMP-GContainer:all", "XMP-Container:all", "XMP-hdrgm:all", "XMP-HDRGainMap:all")
"""Pointers to a video, a depth map or a gain map behind the picture, which a result does not have."""
NO_IPTC = ("webp", "avif", "heif", "jxl")
"""Formats without a place for IPTC."""


def _names(group: str, names: str) -> tuple[str, ...]:
    return tuple(f"{group}:{name}" for name in names.split())


_IN_TIFF = (
    "ImageWidth ImageHeight BitsPerSample Compression PhotometricInterpretation StripOffsets StripByteCounts "
    "RowsPerStrip SamplesPerPixel PlanarConfiguration Predictor ExtraSamples SampleFormat Tile* SubfileType "
    "OldSubfileType FillOrder YCbCrSubSampling JPEGTables"
)
_IN_PNG = _names(
    "PNG",
    "ImageWidth ImageHeight BitDepth ColorType Compression Filter Interlace ProfileName Palette Transparency "
    "SignificantBits Gamma WhitePoint* Red* Green* Blue* SRGBRendering BackgroundColor",
)
_IN_CONTAINERS = ("JFIF:*", "Adobe:*", "RIFF:*", "QuickTime:*", "Jpeg2000:*", "JXL:*", *_IN_PNG)
_RESOLUTION = "XResolution YResolution ResolutionUnit"

# What `private` keeps: a list of what is allowed, so that unknown tags are left out.

Kind = Literal["numbers", "dates", "text", "interop", "any"]


@dataclass(frozen=True)
class Allowed:
    """Tags that `private` keeps where their values are of a kind: a date that holds a sentence is not a date."""

    values: Kind
    tags: tuple[str, ...]


def _table(text: str) -> tuple[Allowed, ...]:
    """Rows of "kind: group group: name name", continued on indented lines."""
    rows = text.strip().replace("\n    ", " ").splitlines()
    parts = (row.split(": ") for row in rows)
    return tuple(
        Allowed(kind, tuple(tag for group in groups.split() for tag in _names(group, names)))  # type: ignore[arg-type]
        for kind, groups, names in parts
    )


COPIED = _table("""
numbers: ExifIFD XMP-exif: ExposureTime FNumber ExposureProgram ShutterSpeedValue ApertureValue BrightnessValue
    MaxApertureValue SubjectDistance MeteringMode LightSource FocalLength FlashEnergy FocalPlaneXResolution
    FocalPlaneYResolution FocalPlaneResolutionUnit ExposureIndex SensingMethod CustomRendered ExposureMode WhiteBalance
    DigitalZoomRatio SceneCaptureType GainControl Contrast Saturation Sharpness SubjectDistanceRange CompositeImage
    ExposureCompensation FileSource SceneType ISO FocalLengthIn35mmFormat Gamma ColorSpace ExifVersion FlashpixVersion
    ComponentsConfiguration
numbers: ExifIFD XMP-exifEX: StandardOutputSensitivity RecommendedExposureIndex ISOSpeed ISOSpeedLatitudeyyy
    ISOSpeedLatitudezzz SensitivityType LensInfo
numbers: ExifIFD: Flash
numbers: XMP-exifEX: PhotographicSensitivity Gamma
numbers: XMP-aux: LensInfo ApproximateFocusDistance
text: IFD0 XMP-tiff: Make Model
text: ExifIFD XMP-exifEX: LensMake LensModel
text: XMP-aux: Lens
dates: IFD0: ModifyDate
dates: ExifIFD: DateTimeOriginal CreateDate SubSecTime SubSecTimeOriginal SubSecTimeDigitized OffsetTime
    OffsetTimeOriginal OffsetTimeDigitized
dates: XMP-exif: DateTimeOriginal DateTimeDigitized
dates: XMP-tiff: DateTime
dates: XMP-xmp: CreateDate ModifyDate MetadataDate
dates: XMP-photoshop: DateCreated
dates: IPTC: DateCreated TimeCreated DigitalCreationDate DigitalCreationTime
dates: PNG: CreateDate ModifyDate
numbers: IFD0 XMP-tiff: Orientation XResolution YResolution ResolutionUnit
numbers: IFD0: YCbCrPositioning YCbCrCoefficients WhitePoint PrimaryChromaticities ReferenceBlackWhite
numbers: InteropIFD: InteropVersion
interop: InteropIFD: InteropIndex
""")
"""What `private` copies: capture settings, camera and lens, dates, colours, orientation and resolution."""

CREDITS = _table("""
any: IFD0: Artist Copyright XPTitle
any: XMP-dc: Title Title-* Creator Rights Rights-*
any: XMP-photoshop: Credit
any: XMP-xmpRights: Marked UsageTerms UsageTerms-* WebStatement
any: XMP-cc: License
any: IPTC: ObjectName By-line CopyrightNotice Credit
any: PNG: Title Author Copyright
""")
"""What `private` copies besides where the user asks for it: title and rights."""

WRITTEN = (
    Allowed("any", (*_IN_CONTAINERS, *_names("IFD0", f"{_IN_TIFF} InkSet"))),
    *_table("""
any: File: FileType FileTypeExtension MIMEType ExifByteOrder CurrentIPTCDigest ImageWidth ImageHeight EncodingProcess
    BitsPerSample ColorComponents YCbCrSubSampling
any: Meta PNG-pHYs PNG-cICP ICC*: *
any: IFD1: Compression XResolution YResolution ResolutionUnit ThumbnailOffset ThumbnailLength ThumbnailImage
any: IPTC: CodedCharacterSet ApplicationRecordVersion EnvelopeRecordVersion
any: Photoshop: IPTCDigest
numbers: ExifIFD XMP-exif: ExifImageWidth ExifImageHeight
numbers: XMP-tiff: ImageWidth ImageHeight
"""),
)
"""What lumen and exiftool write into every result: container, pixels, profile, size and thumbnail."""


def copied_tags(credits: bool) -> Iterator[str]:
    """The tags that `private` copies."""
    for entry in (*COPIED, *(CREDITS if credits else ())):
        yield from entry.tags


# How a result's tags may differ from its original's.


@dataclass(frozen=True)
class Change:
    """Tags that may differ between original and result, and why."""

    why: str
    happens: str
    """"+" for an added tag, "-" for a missing one, "~" for another value."""
    tags: tuple[str, ...]
    """Any group may match, also one of family 0; "all" is any name, as in exiftool."""
    ways: tuple[Keeping, ...] = ("keep", "private")
    sources: tuple[str, ...] = ()
    """Formats of the original; empty for all."""
    targets: tuple[str, ...] = ()
    """Formats of the result; empty for all."""
    within: float | None = None
    """How far a number may be off, relative to its value; None for any value."""
    line: str = ""
    """Words of the warning that has to report it; "" for a change without a warning."""


_NUMBERED = ("avif", "heif", "jxl")
_BY_NUMBER = "these formats may name their colours by number, others by a profile"
_REQUIRED = "tags are written one by one, so exiftool adds what EXIF requires"
_ROUNDED = "tags are written one by one, so exiftool rounds fractions"
_ALWAYS: tuple[Keeping, ...] = ("keep", "private", "strip")
_COMMENTS = ("File:Comment", "PNG:Comment", "GIF:Comment")
_SIDES = ("Width", "Height")
_MANDATORY = (
    *_names("ExifIFD", "ExifVersion FlashpixVersion ComponentsConfiguration ColorSpace"),
    *_names("IFD0", f"{_RESOLUTION} YCbCrPositioning"),
    *("GPS:GPSVersionID", "InteropIFD:InteropVersion"),
)
_DEVELOPED = ("SubIFD*:*", "IFD2:all", "IFD3:all", "IFD0:AnalogBalance", "IFD0:AsShot*")
_MORE_IPTC = ("IPTC2:all", "IPTC3:all")
"""Where exiftool lists the IPTC of trailers."""

_REPORTED: dict[str, tuple[str, ...]] = {
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
    "AFCP": ("AFCP:all", *_MORE_IPTC),
    "Photo Mechanic": ("PhotoMechanic:all",),
    "FotoStation": ("FotoStation:all", *_MORE_IPTC),
    "Canon's program": ("CanonVRD:all",),
    "behind its end": (
        *("MIE:all", "AFCP:all", "FotoStation:all", "CanonVRD:all", "Samsung:all", "PhotoMechanic:all"),
        *_MORE_IPTC,
    ),
    "CMYK": ("ICC_Profile:all",),
}
"""What a warning says is left out, by words of the warning."""

CHANGES: tuple[Change, ...] = (
    Change("the pixels are upright", "~", TURNED),
    Change("sizes are the result's", "~", tuple(tag + side for tag in SIZES for side in _SIDES)),
    Change("sizes are the result's", "~-", tuple(tag + side for tag in BLOCK_SIZES for side in _SIDES)),
    Change("previews show the dark original; the result gets a new thumbnail", "+-~", PREVIEWS),
    Change("the result has nothing behind the picture", "-", BEHIND),
    Change("lumen's stamp", "+~", ("IFD0:ProcessingSoftware",)),
    Change("facts of the container", "+-~", (*_IN_CONTAINERS, "GIF:*", "MPF:*"), _ALWAYS),
    Change(
        "how the pixels are stored",
        "+-~",
        _names("IFD0", f"{_IN_TIFF} ColorMap YCbCrPositioning YCbCrCoefficients ReferenceBlackWhite"),
        _ALWAYS,
    ),
    Change(_BY_NUMBER, "+-", ("ICC_Profile:all",), _ALWAYS, sources=_NUMBERED),
    Change(_BY_NUMBER, "+-", ("ICC_Profile:all",), _ALWAYS, targets=_NUMBERED),
    Change("how the pixels were compressed", "-", ("ExifIFD:CompressedBitsPerPixel",)),
    Change("exiftool writes its own name", "+~", ("XMP-x:XMPToolkit",)),
    Change("exiftool cannot write Photoshop's print and layout settings", "-", ("Photoshop:all",), ("private",)),
    Change("it holds the small pictures", "~", ("*Preview*", "*Thumbnail*")),
    Change("a profile names the colours", "+", ("ICC_Profile:all",), _ALWAYS),
    Change("how a raw file is developed", "-", _DEVELOPED, _ALWAYS, sources=("raw",)),
    *(Change(f"reported: {words}", "-", tags, line=words) for words, tags in _REPORTED.items()),
    Change("exiftool sees data behind the end of damaged maker notes", "+", ("MakerNotes:DataDump",)),
    Change("WebP, AVIF, HEIC and JPEG XL have no place for IPTC", "-", ("IPTC:all",), ("private",), targets=NO_IPTC),
    Change("only JPEG and PNG have a place for a comment", "-", _COMMENTS, ("private",), targets=("tiff", *NO_IPTC)),
    Change("a comment is in another group there", "+-", _COMMENTS, sources=("jpeg", "gif"), targets=("png",)),
    Change("a comment is in another group there", "+-", _COMMENTS, sources=("png",), targets=("jpeg",)),
    Change("only PNG has a place for PNG's texts", "-", ("PNG:all",), ("private",), targets=("jpeg", "tiff", *NO_IPTC)),
    Change(_REQUIRED, "+", _MANDATORY, ("private",)),
    Change(_REQUIRED, "+", _MANDATORY, ("keep",), sources=("tiff",)),
    Change(_REQUIRED, "+", _MANDATORY, ("keep",), targets=("tiff", *_NUMBERED)),
    Change(_ROUNDED, "~", ("EXIF:all", "XMP:all"), ("private",), within=1e-6),
    Change(_ROUNDED, "~", ("EXIF:all",), ("keep",), sources=("tiff",), within=1e-6),
    Change(_ROUNDED, "~", ("EXIF:all",), ("keep",), targets=("tiff",), within=1e-6),
    Change("TIFF requires a resolution", "+~", _names("IFD0", _RESOLUTION), ("strip",)),
    Change("no tags at all", "-", ("*",), ("strip",)),
)
"""Every difference between the tags of an original and its result. `write_picture` writes the colour profile."""
