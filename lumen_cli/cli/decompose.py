"""`lumen decompose`: parses, calls, prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lumen_cli.cli.inputs import Request, checked
from lumen_cli.cli.options import (
    FILES,
    LOOK,
    MACHINE,
    BatchSizeOption,
    Depth,
    DeviceOption,
    DryRunOption,
    FollowLinksOption,
    FromFileOption,
    IncludeOutputsOption,
    InputsArgument,
    JobsOption,
    JsonOption,
    KeepCreditsOption,
    MapFormat,
    MaxPixelsOption,
    Metadata,
    MetadataOption,
    ModelOption,
    NameTemplateOption,
    NoStampOption,
    NullOption,
    OverwriteOption,
    Precision,
    PreserveTimesOption,
    QuietOption,
    ResumeOption,
    SkipExistingOption,
    StatsOption,
    TimeoutOption,
    WatchOption,
)
from lumen_cli.cli.running import carry_out
from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.limits import DEFAULT_TIMEOUT
from lumen_cli.registry.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lumen_cli.files.find import Source
    from lumen_cli.run.plan import Plan


def decompose(
    inputs: InputsArgument = None,
    from_file: FromFileOption = None,
    null: NullOption = False,
    follow_links: FollowLinksOption = False,
    include_outputs: IncludeOutputsOption = False,
    watch: WatchOption = False,
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
    keep_credits: KeepCreditsOption = False,
    no_stamp: NoStampOption = False,
    preserve_times: PreserveTimesOption = False,
    batch_size: BatchSizeOption = None,
    jobs: JobsOption = None,
    max_pixels: MaxPixelsOption = MAXIMUM_PIXELS,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    name_template: NameTemplateOption = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    stats: StatsOption = False,
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

    Exit codes: 0 all done, 1 some failed or were left alone, 2 wrong usage,
    130 interrupted, 141 standard output closed by its reader.

    \b
    Examples:
      lumen decompose photos/ --model kind       → photos-decomposed/
      lumen decompose night.jpg --model kind --side-by-side --reconstruct
      lumen decompose photos/ --format npz -o maps/
      lumen decompose photos/ --depth 16
    """  # noqa: D301
    together = Request(
        inputs=tuple(inputs or ()),
        output=output,
        from_file=from_file,
        null=null,
        follow_links=follow_links,
        include_outputs=include_outputs,
        watch=watch,
        dry_run=dry_run,
        overwrite=overwrite,
        skip_existing=skip_existing,
        jobs=jobs,
        as_json=as_json,
        quiet=quiet,
        stats=stats,
        preserve_times=preserve_times,
        max_pixels=max_pixels,
        timeout=timeout,
    )
    request = checked(together, resume)
    if request.to_stdout or (request.from_stdin and output is None):
        raise UsageError("a picture becomes several files, which standard output cannot take; name a folder with -o")
    if depth is not None and map_format is not MapFormat.png and not reconstruct:
        raise UsageError(f"--depth is about PNG files, {map_format.value} holds float32; leave one of the two out")

    from dataclasses import replace

    from lumen_cli.cli.inputs import gathered
    from lumen_cli.files.outputs import name_template as template_of
    from lumen_cli.registry.catalog import find_model, require_ability

    card = find_model(model, "decompose")
    require_ability(card, "decompose")
    template = None if name_template is None else template_of(name_template, model=card.name, part="")
    with gathered(request) as pictures:
        from lumen_cli.engine.device import choose_device
        from lumen_cli.run.decompose import Decomposition, MapSettings
        from lumen_cli.run.parts import plan_parts
        from lumen_cli.run.plan import make_plan
        from lumen_cli.run.stamp import decomposed_stamp, rules_for

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
        settings = replace(settings, tags=rules_for(metadata.value, stamp, keep_credits))
        work = Decomposition(settings, side_by_side, reconstruct)
        names = work.endings
        plan_parts(pictures.found.sources, pictures.output, names, template=template)  # what cannot be is said at once

        def planner(sources: Sequence[Source], looked: Callable[[], None]) -> Plan:
            named, parts = plan_parts(sources, pictures.output, names, template=template)
            stamp = settings.tags.stamp
            return make_plan(named, work.fingerprint(), request.existing, parts, looked, in_state=True, stamp=stamp)

        carry_out(request, pictures, card, policy, work, planner)
