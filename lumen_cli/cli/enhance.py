"""`lumen enhance`: parses, calls, prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lumen_cli.cli.inputs import STANDARD, Request, checked
from lumen_cli.cli.options import (
    BatchSizeOption,
    BrightnessOption,
    DetailChoice,
    DetailOption,
    DeviceOption,
    DryRunOption,
    FollowLinksOption,
    FormatOption,
    FromFileOption,
    IlluminationRatioOption,
    IncludeOutputsOption,
    InputsArgument,
    JobsOption,
    JsonOption,
    KeepCreditsOption,
    MaxPixelsOption,
    Metadata,
    MetadataOption,
    ModelOption,
    NameTemplateOption,
    NoStampOption,
    NullOption,
    OutputOption,
    OverwriteOption,
    Precision,
    PrecisionOption,
    PreserveTimesOption,
    QualityOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    SkipExistingOption,
    StatsOption,
    StepsOption,
    StrengthOption,
    TileOption,
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
    from lumen_cli.limits import Detail
    from lumen_cli.run.plan import Plan


def enhance(
    inputs: InputsArgument = None,
    from_file: FromFileOption = None,
    null: NullOption = False,
    follow_links: FollowLinksOption = False,
    include_outputs: IncludeOutputsOption = False,
    watch: WatchOption = False,
    output: OutputOption = None,
    model: ModelOption = DEFAULT_MODEL,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    strength: StrengthOption = 1.0,
    brightness: BrightnessOption = None,
    illumination_ratio: IlluminationRatioOption = None,
    detail: DetailOption = DetailChoice.auto,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSizeOption = None,
    output_format: FormatOption = "keep",
    quality: QualityOption = None,
    metadata: MetadataOption = Metadata.keep,
    keep_credits: KeepCreditsOption = False,
    no_stamp: NoStampOption = False,
    preserve_times: PreserveTimesOption = False,
    jobs: JobsOption = None,
    max_pixels: MaxPixelsOption = MAXIMUM_PIXELS,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    tile: TileOption = "auto",
    name_template: NameTemplateOption = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    stats: StatsOption = False,
) -> None:
    """Brighten dark pictures: folders in, folders out, same tree, same names, same tags.

    Exit codes: 0 all done, 1 some failed or were left alone, 2 wrong usage,
    130 interrupted, 141 standard output closed by its reader.

    \b
    Examples:
      lumen enhance photos/                      → photos-enhanced/
      lumen enhance night.jpg -o bright.png
      lumen enhance 'raw/**/*.tif' -o out/ --format png --strength 0.7
      lumen enhance photos/ --brightness 3       three times the light
      lumen enhance photos/                      again: what is new or changed
      lumen enhance photos/ --dry-run            only show what would be done
      lumen enhance inbox/ -o out/ --watch       and what comes in later
      find . -name '*.jpg' -print0 | lumen enhance --from-file - -0 -o out/
      curl -s https://example.com/night.jpg | lumen enhance - > bright.jpg
      lumen enhance photos/ --json | jq 'select(.status == "failed")'
    """  # noqa: D301
    together = Request(
        inputs=tuple(inputs or ()),
        output=STANDARD if output is None and inputs == [STANDARD] else output,
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
    chosen_detail = _detail(detail, tile)

    from dataclasses import replace

    from lumen_cli.cli.inputs import gathered
    from lumen_cli.files.outputs import name_template as template_of
    from lumen_cli.files.outputs import plan_outputs
    from lumen_cli.imaging.formats import find_format
    from lumen_cli.registry.catalog import check_light, find_model
    from lumen_cli.run.plan import Settings, make_plan

    card = find_model(model)
    chosen_steps = card.steps_for(steps)
    check_light(card, brightness, illumination_ratio)
    suffix = None
    if output_format != "keep":
        wanted_format = find_format(output_format)
        wanted_format.require_package()
        suffix = wanted_format.suffix
    template = None if name_template is None else template_of(name_template, model=card.name, seed=str(seed))
    with gathered(request) as pictures:
        plan_outputs(pictures.found.sources, pictures.output, suffix, template)  # names that cannot be are said at once

        from lumen_cli.engine.device import choose_device
        from lumen_cli.engine.tile_plan import TilePlan, tiling_of
        from lumen_cli.run.operation import Enhancement
        from lumen_cli.run.sidecars import with_sidecars
        from lumen_cli.run.stamp import enhanced_stamp, rules_for

        wanted = card.precision_for(precision.value)
        policy = choose_device(device, wanted, precisions=card.precisions, batch_size=batch_size, model=card.name)
        settings = Settings(
            architecture=card.architecture,
            network=card.network,
            weights=card.weights_sha256,
            steps=chosen_steps,
            seed=seed,
            strength=strength,
            precision=policy.precision,
            deep_precision=policy.deep_precision,
            format=suffix,
            quality=quality,
            brightness=brightness,
            illumination_ratio=illumination_ratio,
            tile=int(tile) if tile.isdigit() else None,
            detail=chosen_detail,
        )
        stamp = None if no_stamp else enhanced_stamp(card.name, settings)
        settings = replace(settings, tags=rules_for(metadata.value, stamp, keep_credits))

        def planner(sources: Sequence[Source], looked: Callable[[], None]) -> Plan:
            named = plan_outputs(sources, pictures.output, suffix, template)
            made = make_plan(
                named,
                settings.fingerprint(),
                request.existing,
                looked=looked,
                in_state=not request.to_stdout,
                stamp=settings.tags.stamp,
            )
            return with_sidecars(made)

        carry_out(request, pictures, card, policy, Enhancement(settings, TilePlan(tiling_of(tile))), planner)


def _detail(detail: DetailChoice, tile: str) -> Detail:
    """The choice of --detail; --tile asks for whole pictures, as reduced ones need no tiles.

    Raises:
        UsageError: both were given and contradict each other.
    """
    if tile == "auto":
        return detail.value
    if detail is DetailChoice.fast:
        raise UsageError("--tile and --detail fast cannot be combined: only whole pictures run in tiles")
    return "whole"
