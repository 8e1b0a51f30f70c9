"""`lumen decompose`: parses, calls, prints."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import FILES, LOOK, MACHINE, Precision, open_engine
from lumen_cli.cli.picture_options import PictureOptions, with_picture_options
from lumen_cli.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class MapFormat(str, enum.Enum):
    """The values of --format."""

    png = "png"
    npy = "npy"
    npz = "npz"


class Depth(str, enum.Enum):
    """The values of --depth."""

    eight = "8"
    sixteen = "16"


OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        rich_help_panel=FILES,
        help="Output folder (default: NAME-decomposed beside an input folder; a picture named alone: its own folder).",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        metavar="PRECISION",
        rich_help_panel=MACHINE,
        help="auto, fp32, bf16 or fp16. auto: fp32, because maps are measurements.",
    ),
]


@app.command(cls=Command, no_args_is_help=True)
@with_picture_options(output=OutputOption, precision=PrecisionOption)
def decompose(
    options: PictureOptions,
    map_format: Annotated[
        MapFormat,
        typer.Option(
            "--format",
            metavar="FORMAT",
            rich_help_panel=FILES,
            help="png; npy: the maps in float32; npz: one file with float32 arrays reflectance and illumination, "
            "or the latents of a latent model.",
        ),
    ] = MapFormat.png,
    depth: Annotated[
        Depth | None,
        typer.Option(metavar="8|16", rich_help_panel=FILES, help="Bits of the PNG files (default: 8)."),
    ] = None,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side",
            rich_help_panel=LOOK,
            help="Also write NAME-sheet.png: input, R, L and R × L with captions.",
        ),
    ] = False,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct",
            rich_help_panel=LOOK,
            help="Also write NAME-reconstructed.png, R × L, and report its error (mean absolute error, PSNR).",
        ),
    ] = False,
) -> None:
    """Take pictures apart into reflectance R (H×W×3) and illumination L (H×W).

    Writes NAME-reflectance and NAME-illumination for every picture, with its
    tags where the format holds them.

    kind decomposes the picture itself, at full size, after spreading its
    values over 0 to 1: R × L rebuilds that stretched picture, and the
    reconstruction error is against it.

    lightendiffusion decomposes a latent of an eighth of the size. npz holds
    the latents: reflectance 3×h×w, illumination 1×h×w, latent 3×h×w.
    png and npy hold pictures of them: the reflectance decoded,
    the illumination enlarged by 8, R × L multiplied as latents, then decoded.

    \b
    Examples:
      lumen decompose photos/ --model kind       → photos-decomposed/
      lumen decompose night.jpg --model kind --side-by-side --reconstruct
      lumen decompose photos/ --format npz -o maps/
      lumen decompose photos/ --depth 16
    """  # noqa: D301
    options.require_consistent()
    if options.to_stdout or (options.from_stdin and options.output is None):
        raise UsageError("a picture becomes several files, which standard output cannot take; name a folder with -o")
    if depth is not None and map_format is not MapFormat.png and not reconstruct:
        raise UsageError(f"--depth is for PNG files, and {map_format.value} holds float32; use one of the two")

    from lumen_cli.cli.inputs import gather
    from lumen_cli.cli.session import carry_out
    from lumen_cli.files.outputs import parse_template
    from lumen_cli.registry import find_model, require_ability

    card = find_model(options.model, "decompose")
    require_ability(card, "decompose")
    pattern = options.name_template
    template = None if pattern is None else parse_template(pattern, model=card.name, part="")
    with gather(options) as pictures, open_engine(options.where) as engine:
        from lumen_cli.run.decompose import Decompose, MapSettings

        wanted = options.precision.value
        if options.precision is Precision.auto and "fp32" in card.precisions:
            wanted = "fp32"
        policy = engine.choose_device(
            options.device, wanted, precisions=card.precisions, batch_size=options.batch_size, model=card.name
        )
        settings = MapSettings.with_model(
            card,
            policy,
            **options.for_tags,
            format=map_format.value,
            depth=int(depth.value) if depth else 8,
        )
        operation = Decompose(settings, side_by_side, reconstruct)
        carry_out(options, pictures, engine, card, policy, operation, template)
