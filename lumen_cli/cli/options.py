"""Options that several commands share, with their ranges and help."""

from __future__ import annotations

import enum
import re
from typing import Annotated

import typer

from lumen_cli.imaging.formats import FORMATS
from lumen_cli.limits import SMALLEST_TILE
from lumen_cli.registry.catalog import BRIGHTEST, DIMMEST

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class Precision(str, enum.Enum):
    """Precisions a command line can ask for."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DetailChoice(str, enum.Enum):
    """How large pictures reach their own size."""

    auto = "auto"
    fast = "fast"
    whole = "whole"


_WRITTEN = [entry.endings.split() for entry in FORMATS.values() if not entry.kept_as]


class Metadata(enum.Enum):
    """What becomes of an original's tags."""

    keep = "keep"
    private = "private"
    strip = "strip"


class MapFormat(str, enum.Enum):
    """What reflectance and illumination can be written as."""

    png = "png"
    npy = "npy"
    npz = "npz"


class Depth(str, enum.Enum):
    """Bits of a PNG's channels."""

    eight = "8"
    sixteen = "16"


def _output_format(value: str) -> str:
    """The value: "keep", or a file name ending of a format that lumen writes."""
    if value != "keep" and not any(value in endings for endings in _WRITTEN):
        raise typer.BadParameter(f"{value!r} is not one of keep, {', '.join(endings[0] for endings in _WRITTEN)}")
    return value


def _factor(value: str) -> float | None:
    """A factor of light within its range, None for "auto"."""
    if value == "auto":
        return None
    try:
        ratio = float(value)
    except ValueError:
        raise typer.BadParameter(f"'{value}' is neither auto nor a number.") from None
    if not DIMMEST <= ratio <= BRIGHTEST:
        raise typer.BadParameter(f"{value} is not in the range {DIMMEST:g} to {BRIGHTEST:g}.")
    return ratio


def _pixels(value: str | int) -> int:
    """A number of pixels; M and G stand for millions and thousands of millions."""
    text = str(value).strip().upper()  # the default comes as a number
    factor = {"K": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    try:
        number = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        raise typer.BadParameter(f"'{value}' is not a number of pixels, such as 40000000 or 40M.") from None
    if not 0 <= number < float("inf"):
        raise typer.BadParameter(f"{value} is not a number of pixels, 0 or more.")
    return round(number)


def _tile(value: str) -> str:
    """auto, off or a number of pixels."""
    if value not in ("auto", "off") and not (value.isascii() and value.isdigit() and int(value) >= SMALLEST_TILE):
        raise typer.BadParameter(f"'{value}' is neither auto, off nor a number of pixels from {SMALLEST_TILE} up.")
    return value


def _known_device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise typer.BadParameter(f"'{value}' is not one of auto, cpu, cuda, cuda:N, mps.")
    return value


LOOK = "Model and look"
MACHINE = "Machine"
FILES = "Files"
SAID = "Output and logging"

OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR|FILE",
        rich_help_panel=FILES,
        help="Output file or folder (default: NAME-enhanced beside the input); - for standard output.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=FILES, help="Show what would be done without writing.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=FILES, help="Overwrite existing outputs.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        rich_help_panel=LOOK,
        help="auto (the best there is for the task), a name (see `lumen models`), a model folder or hf://org/name.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=LOOK,
        help="Sampling steps, within the model's range (default: the model's).",
    ),
]
SeedOption = Annotated[
    int, typer.Option(metavar="N", rich_help_panel=LOOK, help="Seed of the noise; the same seed gives the same pixels.")
]
StrengthOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        metavar="S",
        rich_help_panel=LOOK,
        help="Blend with the original: 0 = unchanged, 1 = full effect.",
    ),
]
BrightnessOption = Annotated[
    float | None,
    typer.Option(
        parser=_factor,
        metavar="X|auto",
        rich_help_panel=LOOK,
        help=f"Light of the result, as a multiple of the picture's own, {DIMMEST:g} to {BRIGHTEST:g}: 1 leaves it, 2 "
        "doubles the mean (linear) light, 0.5 halves it. auto (default): the model chooses.",
    ),
]
IlluminationRatioOption = Annotated[
    float | None,
    typer.Option(
        "--illumination-ratio",
        parser=_factor,
        metavar="X|auto",
        rich_help_panel=LOOK,
        help=f"The ratio α of the KinD papers, {DIMMEST:g} to {BRIGHTEST:g}, for comparisons with them; only for "
        "models that take one (`lumen models`). auto (default): the model chooses.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE", callback=_known_device, rich_help_panel=MACHINE, help="auto, cpu, cuda, cuda:N or mps."
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        metavar="PRECISION",
        rich_help_panel=MACHINE,
        help="auto, fp32, bf16 or fp16. auto: bf16 where the chip has it natively; 16-bit pictures stay in fp32.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=MACHINE,
        help="Pictures in one batch on a GPU (default: by memory); a CPU takes one at a time.",
    ),
]
DetailOption = Annotated[
    DetailChoice,
    typer.Option(
        "--detail",
        metavar="auto|fast|whole",
        rich_help_panel=LOOK,
        help="For pictures above 0.4 megapixels. auto: run the network on the reduced picture, carry its result to "
        "full size and refine it where noise is strong; fast: the same without refining; whole: run it at full "
        "size, which takes minutes and gigabytes.",
    ),
]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|off|N",
        callback=_tile,
        rich_help_panel=MACHINE,
        help="Process large images in N-pixel tiles with shared global statistics. auto: only when memory is short "
        "(reported).",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.0,
        metavar="SECONDS",
        rich_help_panel=MACHINE,
        help="Time a picture may take to decode, in the formats that are decoded in a process of their own (all but "
        "JPEG, PNG, WebP, BMP); 0 for no limit.",
    ),
]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        parser=_output_format,
        metavar="FORMAT",
        rich_help_panel=FILES,
        help="keep (each picture its own; camera raw files become 16-bit TIFF, GIF becomes PNG), "
        f"{', '.join(endings[0] for endings in _WRITTEN[:-1])} or {_WRITTEN[-1][0]}.",
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        metavar="Q",
        rich_help_panel=FILES,
        help="Quality of lossy outputs (default: a JPEG keeps its own; else 95).",
    ),
]
MaxPixelsOption = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        parser=_pixels,
        metavar="N",
        show_default=False,
        rich_help_panel=MACHINE,
        help="Reject larger images before decoding: 40M, 1G or a plain number; 0 = no limit (default: 250M).",
    ),
]
MetadataOption = Annotated[
    Metadata,
    typer.Option(
        "--metadata",
        metavar="TAGS",
        rich_help_panel=FILES,
        help="keep (all tags), private (only capture settings, camera, lens, dates, colour and orientation) or strip "
        "(none but the colour profile).",
    ),
]
KeepCreditsOption = Annotated[
    bool,
    typer.Option(
        "--keep-credits", rich_help_panel=FILES, help="With --metadata private: keep title, author and copyright too."
    ),
]
NoStampOption = Annotated[
    bool,
    typer.Option("--no-stamp", rich_help_panel=FILES, help="Do not record lumen in EXIF ProcessingSoftware."),
]
PreserveTimesOption = Annotated[
    bool, typer.Option("--preserve-times", rich_help_panel=FILES, help="Preserve file timestamps.")
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        rich_help_panel=MACHINE,
        help="Number of reader threads and of writer threads (default: the cores, at most 8).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=SAID, help="Print one JSON object per line.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=SAID, help="Only print errors.")]
StatsOption = Annotated[
    bool,
    typer.Option(
        "--stats", rich_help_panel=SAID, help="Show the timing table for one picture too (batches always show it)."
    ),
]


WHICH = "Which pictures"

InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Pictures, folders (with all below them) or globs; - for a picture on standard input.",
    ),
]
FromFileOption = Annotated[
    str | None,
    typer.Option(
        "--from-file",
        metavar="LIST",
        rich_help_panel=WHICH,
        help="A file with a path on each line, relative to the working folder; - for standard input.",
    ),
]
NullOption = Annotated[
    bool,
    typer.Option(
        "--null", "-0", rich_help_panel=WHICH, help="Paths in LIST end with a NUL byte, as find -print0 writes them."
    ),
]
FollowLinksOption = Annotated[
    bool,
    typer.Option("--follow-links", rich_help_panel=WHICH, help="Follow links that lead out of an input folder."),
]
IncludeOutputsOption = Annotated[
    bool,
    typer.Option(
        "--include-outputs",
        rich_help_panel=WHICH,
        help="Also process pictures that lumen wrote; they are left out otherwise.",
    ),
]
WatchOption = Annotated[
    bool,
    typer.Option("--watch", rich_help_panel=WHICH, help="Keep watching for new or changed pictures; stop with Ctrl-C."),
]
NameTemplateOption = Annotated[
    str | None,
    typer.Option(
        "--name-template",
        metavar="NAME",
        rich_help_panel=FILES,
        help="Output file name pattern, for example {stem}-{model}{suffix}; further fields: {parent}, the picture's "
        "folder, {seed} for enhance, {part} for decompose.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        rich_help_panel=FILES,
        help="Process missing or outdated outputs (default); what lumen did not write is left alone.",
    ),
]
SkipExistingOption = Annotated[
    bool,
    typer.Option("--skip-existing", rich_help_panel=FILES, help="Never touch existing outputs."),
]
