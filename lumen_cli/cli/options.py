"""Options that several commands share, with their ranges and help. Each is declared once."""

from __future__ import annotations

import enum
import re
from typing import Annotated

import typer

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class Precision(str, enum.Enum):
    """The values of --precision."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DetailChoice(str, enum.Enum):
    """How large pictures reach their size."""

    auto = "auto"
    fast = "fast"
    whole = "whole"


class Metadata(enum.Enum):
    """Which of an original's tags are kept."""

    keep = "keep"
    private = "private"
    strip = "strip"


def _known_device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise typer.BadParameter(f"'{value}' is not one of auto, cpu, cuda, cuda:N, mps.")
    return value


WHICH = "Which pictures"
LOOK = "Model and look"
MACHINE = "Machine"
FILES = "Files"
LOGGING = "Output and logging"

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=FILES, help="Overwrite existing outputs.")
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
JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=LOGGING, help="Print one JSON object per line.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=LOGGING, help="Only print errors.")]
