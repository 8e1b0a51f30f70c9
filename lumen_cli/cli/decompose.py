"""`lumen decompose`: parses, calls, prints."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.options import (
    FILES,
    LOOK,
    MACHINE,
    BatchSizeOption,
    Depth,
    DeviceOption,
    DryRunOption,
    JobsOption,
    JsonOption,
    MapFormat,
    Metadata,
    MetadataOption,
    ModelOption,
    NoStampOption,
    OverwriteOption,
    Precision,
    PreserveTimesOption,
    QuietOption,
    ResumeOption,
)
from lumen_cli.cli.running import existing_outputs, refuse_both, run_plan, show_plan
from lumen_cli.errors import UsageError
from lumen_cli.registry import DEFAULT_MODEL


def decompose(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (with all below them) or globs.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            rich_help_panel=FILES,
            help="Where to (default: NAME-decomposed beside an input folder; beside a picture named alone).",
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    map_format: Annotated[
        MapFormat,
        typer.Option(
            "--format",
            metavar="FORMAT",
            rich_help_panel=FILES,
            help="png; npy: the same in float32; npz: one file with float32 arrays reflectance and illumination, "
            "of a latent model its latents.",
        ),
    ] = MapFormat.png,
    depth: Annotated[
        Depth | None,
        typer.Option(metavar="8|16", rich_help_panel=FILES, help="Bits of the PNG files (default: 8)."),
    ] = None,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side", rich_help_panel=LOOK, help="NAME-sheet.png too: input, R, L and R × L with captions."
        ),
    ] = False,
    reconstruct: Annotated[
        bool,
        typer.Option(
            "--reconstruct",
            rich_help_panel=LOOK,
            help="NAME-reconstructed.png too: R × L, and its error (mean absolute error, PSNR).",
        ),
    ] = False,
    device: DeviceOption = "auto",
    precision: Annotated[
        Precision,
        typer.Option(
            metavar="PRECISION",
            rich_help_panel=MACHINE,
            help="auto, fp32, bf16 or fp16. auto: fp32, as maps are for measuring.",
        ),
    ] = Precision.auto,
    metadata: MetadataOption = Metadata.keep,
    no_stamp: NoStampOption = False,
    preserve_times: PreserveTimesOption = False,
    batch_size: BatchSizeOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
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

    Exit codes: 0 all done, 1 some failed, 2 wrong usage, 130 interrupted.

    \b
    Examples:
      lumen decompose photos/ --model kind       → photos-decomposed/
      lumen decompose night.jpg --model kind --side-by-side --reconstruct
      lumen decompose photos/ --format npz -o maps/
      lumen decompose photos/ --depth 16 --resume
    """  # noqa: D301
    refuse_both(overwrite, resume)
    if depth is not None and map_format is not MapFormat.png and not reconstruct:
        raise UsageError(f"--depth is about PNG files, {map_format.value} holds float32; leave one of the two out")

    from dataclasses import replace

    from lumen_cli.abilities import require_ability
    from lumen_cli.imaging.files import find_pictures
    from lumen_cli.registry import find_model

    card = find_model(model)
    require_ability(card, "decompose")
    sources = find_pictures(inputs)

    from lumen_cli.pipeline.decomposition import Decomposition, MapSettings
    from lumen_cli.pipeline.device import choose_device
    from lumen_cli.pipeline.parts import plan_parts
    from lumen_cli.pipeline.plan import make_plan
    from lumen_cli.pipeline.stamp import decomposed_stamp, rules_for

    asked = precision.value if precision is not Precision.auto else "fp32" if "fp32" in card.precisions else "auto"
    policy = choose_device(device, asked, precisions=card.precisions, batch_size=batch_size, model=card.name)
    settings = MapSettings(
        architecture=card.architecture,
        network=card.network,
        weights=card.weights_sha256,
        precision=policy.precision,
        deep_precision=policy.deep_precision,
        format=map_format.value,
        depth=int(depth.value) if depth else 8,
    )
    stamp = None if no_stamp else decomposed_stamp(card.name, settings)
    settings = replace(settings, tags=rules_for(metadata.value, stamp))
    work = Decomposition(settings, side_by_side, reconstruct)
    pictures, parts = plan_parts(sources, output, work.endings)
    plan = make_plan(pictures, work.fingerprint(), existing_outputs(overwrite, resume), parts)
    if dry_run:
        show_plan(plan, as_json)
    else:
        run_plan(card, policy, work, plan, jobs, as_json, quiet, preserve_times)
