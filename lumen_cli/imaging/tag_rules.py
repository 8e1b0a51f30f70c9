"""Which tags a result gets: all, all but the personal ones, or none; and lumen's own stamp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Keeping = Literal["keep", "private", "strip"]

PERSONAL: dict[str, tuple[str, ...]] = {
    "position": (
        "GPS:all",
        "*GPS*",
        "*Latitude*",
        "*Longitude*",
        "*LatLong*",
        "*Altitude*",
        "*Geolocation*",
        "XMP-iptcExt:Location*",
        "XMP-iptcCore:Location",
        "XMP-iptcCore:CountryCode",
        "XMP-photoshop:City",
        "XMP-photoshop:State",
        "XMP-photoshop:Country",
        "XMP-prism:Location",
        "XMP-xmpDM:*Location*",
        "IPTC:City",
        "IPTC:Sub-location",
        "IPTC:Province-State",
        "IPTC:Country-Primary*",
        "IPTC:ContentLocation*",
    ),
    "serial numbers": ("*Serial*", "*CameraID", "*CameraIdentifier*"),
    "people": (
        "*Owner*",
        "*Artist*",
        "*Author*",
        "*Photographer*",
        "*ImageEditor*",
        "*Copyright*",
        "*Credit*",
        "*Contact*",
        "*Contributor*",
        "*Publisher*",
        "*Person*",
        "*People*",
        "*Licensor*",
        "*CaptionWriter*",
        "*Email*",
        "*Phone*",
        "IFD0:HostComputer",
        "IPTC:By-line*",
        "IPTC:Writer-Editor",
        "Photoshop:URL*",
        "XMP-dc:Creator",
        "XMP-dc:Rights",
        "XMP-iptcCore:Creator*",
        "XMP-iptcExt:*Creator*",
        "XMP-iptcExt:*Supplier*",
        "XMP-plus:all",
        "XMP-xmpRights:all",
        "XMP-cc:all",
    ),
    "faces": (
        "Face*",
        "*Faces*",
        "XMP-mwg-rs:all",
        "XMP-MP:all",
        "XMP-MP1:all",
        "XMP-apple-fi:all",
        "XMP-iptcExt:ImageRegion*",
    ),
    "unique ids": (
        "*UniqueID*",
        "*UniqueDocument*",
        "*GUID*",
        "*UUID*",
        "*DocumentID*",
        "*InstanceID*",
        "*DocumentAncestors*",
        "*BurstID*",
        "XMP-dc:Identifier",
        "XMP-xmp:Identifier",
        "XMP-iptcExt:DigImageGUID",
        "XMP-iptcExt:RegistryID*",
        "XMP-xmpMM:all",
    ),
    # Makers hide serial numbers, owners, places and faces in them, enciphered or undocumented: no part can be vouched
    # for. The same goes for files within the file.
    "maker notes": ("MakerNotes", "MakerNotes:all", "*MakerNote*", "IFD0:DNGPrivateData", "*OriginalRawFile*"),
    "files within the file": (
        "XMP-GImage:all",
        "XMP-GDepth:all",
        "XMP-GAudio:all",
        "XMP-GContainer:all",
        "XMP-Container:all",
        "XMP-Device:all",
    ),
}
"""What `private` leaves behind, by why, in exiftool's words: group:tag, `*` for any letters, `all` for a whole group.

Besides, XMP properties that exiftool has no name for: nobody could say what is in them. Texts that a person wrote as a
description (title, caption, keywords, comments) stay.
"""

SHOWN = ("InteropIFD:InteropIndex", "InteropIFD:InteropVersion")
"""What `strip` keeps of a picture without profile that says by tag that it is Adobe RGB: a viewer needs it."""


@dataclass(frozen=True)
class TagRules:
    """metadata: which of the original's tags are carried; stamp: what lumen says about itself, None for nothing."""

    metadata: Keeping = "keep"
    stamp: str | None = None


KEEP_ALL = TagRules()
"""Every tag, no stamp."""


def left_out(rules: TagRules) -> Iterator[str]:
    """The options that make exiftool leave the personal tags out of what it copies."""
    if rules.metadata == "private":
        for patterns in PERSONAL.values():
            yield from (f"--{pattern}" for pattern in patterns)
