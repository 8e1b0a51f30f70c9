"""`lumen enhance`: parses, calls, prints."""

from __future__ import annotations

from typing import Annotated

import typer

from lumen_cli.cli.options import (
    BatchSizeOption,
    BrightnessOption,
    DeviceOption,
    DryRunOption,
    FormatOption,
    JobsOption,
    JsonOption,
    Metadata,
    MetadataOption,
    ModelOption,
    NoStampOption,
    OutputFormat,
    OutputOption,
    OverwriteOption,
    Precision,
    PrecisionOption,
    PreserveTimesOption,
    QualityOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    StepsOption,
    StrengthOption,
)
from lumen_cli.cli.running import existing_outputs, refuse_both, run_plan, show_plan
from lumen_cli.registry import DEFAULT_MODEL


def enhance(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (with all below them) or globs.")
    ],
    output: OutputOption = None,
    model: ModelOption = DEFAULT_MODEL,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    strength: StrengthOption = 1.0,
    brightness: BrightnessOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    batch_size: BatchSizeOption = None,
    output_format: FormatOption = OutputFormat.keep,
    quality: QualityOption = None,
    metadata: MetadataOption = Metadata.keep,
    no_stamp: NoStampOption = False,
    preserve_times: PreserveTimesOption = False,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Brighten dark pictures: folders in, folders out, same tree, same names, same tags.

    Exit codes: 0 all done, 1 some failed, 2 wrong usage, 130 interrupted.

    \b
    Examples:
      lumen enhance photos/                      → photos-enhanced/
      lumen enhance night.jpg -o bright.png
      lumen enhance 'raw/**/*.tif' -o out/ --format png --strength 0.7
      lumen enhance photos/ --model kind --brightness 3
      lumen enhance photos/ --resume             go on where a run was ended
      lumen enhance photos/ --dry-run            only show what would be done
      lumen enhance photos/ --json | jq 'select(.status == "failed")'
    """  # noqa: D301
    refuse_both(overwrite, resume)

    from dataclasses import replace

    from lumen_cli.abilities import brightness_for
    from lumen_cli.imaging.files import find_pictures, plan_outputs
    from lumen_cli.imaging.formats import suffix_for
    from lumen_cli.pipeline.plan import Settings, make_plan
    from lumen_cli.registry import find_model

    card = find_model(model)
    chosen_steps = card.steps_for(steps)
    chosen_brightness = brightness_for(card, brightness)
    sources = find_pictures(inputs)
    suffix = None if output_format is OutputFormat.keep else suffix_for(output_format.value)
    pictures = plan_outputs(sources, output, suffix)

    from lumen_cli.pipeline.device import choose_device
    from lumen_cli.pipeline.sidecars import with_sidecars
    from lumen_cli.pipeline.stamp import enhanced_stamp, rules_for
    from lumen_cli.pipeline.work import Enhancement

    asked = card.precision_for(precision.value)
    policy = choose_device(device, asked, precisions=card.precisions, batch_size=batch_size, model=card.name)
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
        brightness=chosen_brightness,
    )
    settings = replace(
        settings, tags=rules_for(metadata.value, None if no_stamp else enhanced_stamp(card.name, settings))
    )
    plan = with_sidecars(make_plan(pictures, settings.fingerprint(), existing_outputs(overwrite, resume)))
    if dry_run:
        show_plan(plan, as_json)
    else:
        run_plan(card, policy, Enhancement(settings), plan, jobs, as_json, quiet, preserve_times)
