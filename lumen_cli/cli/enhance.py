"""`lumen enhance`: parses, calls, prints."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from lumen_cli.cli.app import Command
from lumen_cli.cli.options import (
    FILES,
    LOOK,
    MACHINE,
    WHICH,
    DetailChoice,
    DetailOption,
    GradingChoice,
    GradingOption,
    RuntimeChoice,
    RuntimeOption,
    SeedOption,
    StepsOption,
    open_engine,
)
from lumen_cli.cli.picture_options import STANDARD, PictureOptions, refuse_together, with_picture_options
from lumen_cli.engine import SMALLEST_TILE, Detail
from lumen_cli.errors import UsageError
from lumen_cli.files import is_tar_name
from lumen_cli.imaging.formats import FORMATS, find_format
from lumen_cli.registry import BRIGHTEST, DIMMEST, check_light, find_model

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
DARK = 0.07
"""Mean linear light below which a picture is dark: 479 of the 485 dark pictures of LOL-v1 are, 3 of the bright ones."""
_WRITTEN = [entry.endings.split() for entry in FORMATS.values() if not entry.kept_as]


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


def _tile(value: str) -> str:
    """auto, off or a number of pixels."""
    if value not in ("auto", "off") and not (value.isascii() and value.isdigit() and int(value) >= SMALLEST_TILE):
        raise typer.BadParameter(f"'{value}' is neither auto, off nor a number of pixels from {SMALLEST_TILE} up.")
    return value


@app.command(cls=Command, no_args_is_help=True)
@with_picture_options()
def enhance(
    options: PictureOptions,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    strength: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="S",
            rich_help_panel=LOOK,
            help="Blend with the original: 0 = unchanged, 1 = full effect.",
        ),
    ] = 1.0,
    brightness: Annotated[
        float | None,
        typer.Option(
            parser=_factor,
            metavar="X|auto",
            rich_help_panel=LOOK,
            help=f"Light of the result, as a multiple of the picture's own, {DIMMEST:g} to {BRIGHTEST:g}: 1 leaves it, "
            "2 doubles the mean (linear) light, 0.5 halves it. auto (default): the model chooses.",
        ),
    ] = None,
    illumination_ratio: Annotated[
        float | None,
        typer.Option(
            "--illumination-ratio",
            parser=_factor,
            metavar="X|auto",
            rich_help_panel=LOOK,
            help=f"The ratio α of the KinD papers, {DIMMEST:g} to {BRIGHTEST:g}, for comparisons with them; only for "
            "models that take one (`lumen models`). auto (default): the model chooses.",
        ),
    ] = None,
    detail: DetailOption = DetailChoice.auto,
    grading: GradingOption = GradingChoice.photo,
    runtime: RuntimeOption = RuntimeChoice.torch,
    tile: Annotated[
        str,
        typer.Option(
            "--tile",
            metavar="auto|off|N",
            callback=_tile,
            rich_help_panel=MACHINE,
            help="Process large images in N-pixel tiles with shared global statistics. auto: only when memory is short "
            "(reported).",
        ),
    ] = "auto",
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            parser=_output_format,
            metavar="FORMAT",
            rich_help_panel=FILES,
            help="keep (each picture its own; camera raw files become 16-bit TIFF, GIF becomes PNG), "
            f"{', '.join(endings[0] for endings in _WRITTEN[:-1])} or {_WRITTEN[-1][0]}.",
        ),
    ] = "keep",
    quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="Q",
            rich_help_panel=FILES,
            help="Quality of lossy outputs (default: a JPEG keeps its own; else 95).",
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            rich_help_panel=FILES,
            help="Also write a page of all pictures before and after, to look through and mark: out/ → out.html.",
        ),
    ] = False,
    single_file: Annotated[
        bool,
        typer.Option(
            "--single-file",
            rich_help_panel=FILES,
            help="Keep the pictures of the page in itself, not in a folder beside it.",
        ),
    ] = False,
    only_dark: Annotated[
        bool,
        typer.Option(
            "--only-dark",
            rich_help_panel=WHICH,
            help="Leave out pictures that are bright enough; they get no output.",
        ),
    ] = False,
    dark_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="X",
            rich_help_panel=WHICH,
            help=f"Mean linear light, 0 to 1, from which on a picture is bright enough (default: {DARK:g}). Implies "
            "--only-dark.",
        ),
    ] = None,
) -> None:
    """Brighten dark pictures: folders in, folders out, same tree, same names, same tags.

    \b
    Examples:
      lumen enhance photos/                      → photos-enhanced/
      lumen enhance night.jpg -o bright.png
      lumen enhance walk.mp4 -o bright.mp4       a video, without flicker
      lumen enhance 'raw/**/*.tif' -o out/ --format png --strength 0.7
      lumen enhance photos/ --brightness 3       three times the light
      lumen enhance photos/                      again: new or changed pictures
      lumen enhance photos/ --only-dark          leave bright pictures out
      lumen enhance photos/ --page               → photos-enhanced.html too
      lumen enhance photos/ --dry-run            only show what would be done
      lumen enhance inbox/ -o out/ --watch       and what comes in later
      lumen enhance s3://bucket/in -o s3://bucket/out
      lumen enhance 'shards/{000..099}.tar' -o out/
      find . -name '*.jpg' -print0 | lumen enhance --from-file - -0 -o out/
      curl -s https://example.com/night.jpg | lumen enhance - > bright.jpg
      lumen enhance photos/ --json | jq 'select(.status == "failed")'
    """  # noqa: D301
    if options.output is None and options.inputs == [STANDARD]:
        options = replace(options, output=STANDARD)
    darker_than = dark_threshold if dark_threshold is not None else DARK if only_dark else None
    if darker_than is not None and options.to_stdout:
        raise UsageError("--only-dark and -o - cannot be combined: a picture that is left out gives no output")
    options.require_consistent()
    if page:
        refuse_together(
            "--page", {"-o -": options.to_stdout, "- as INPUT": options.from_stdin, "--watch": options.watch}
        )
        refuse_together("--page", {"a tar file": any(map(is_tar_name, options.inputs or ()))})
    elif single_file:
        raise UsageError("--single-file needs --page")
    chosen_detail = _detail(detail, tile)
    if runtime is RuntimeChoice.openvino:
        refuse_together(
            "--runtime openvino",
            {
                "--tile": tile != "auto",
                "--detail whole": chosen_detail == "whole",
                "--illumination-ratio": illumination_ratio is not None,
                "--engine ray": options.engine.value == "ray",
            },
        )

    from lumen_cli.cli.inputs import gather
    from lumen_cli.cli.session import carry_out
    from lumen_cli.files.outputs import parse_template

    card = find_model(options.model)
    chosen_steps = card.steps_for(steps)
    check_light(card, brightness, illumination_ratio, grading.value)
    suffix = None
    if output_format != "keep":
        format = find_format(output_format)
        format.require_package()
        suffix = format.suffix
    pattern = options.name_template
    template = None if pattern is None else parse_template(pattern, model=card.name, seed=str(seed))
    with gather(options, clips=True, pieces=not page) as pictures, open_engine(options.where) as engine:
        from lumen_cli.engine.memory import TilePlan, tiling_of
        from lumen_cli.run.operation import Enhance, Settings

        policy = engine.choose_device(
            options.device,
            _precision(card.precision_for(options.precision.value), runtime),
            precisions=card.precisions,
            batch_size=options.batch_size,
            model=card.name,
        )
        if runtime is RuntimeChoice.openvino:
            from lumen_cli.engine.acceleration import check_runtime

            check_runtime(policy)
        settings = Settings.with_model(
            card,
            policy,
            **options.for_tags,
            steps=chosen_steps,
            seed=seed,
            strength=strength,
            format=suffix,
            quality=quality,
            brightness=brightness,
            illumination_ratio=illumination_ratio,
            tile=int(tile) if tile.isdigit() else None,
            detail=chosen_detail,
            grading=grading.value,
            runtime=runtime.value,
        )
        operation = Enhance(settings, TilePlan(tiling_of(tile)))
        run_page = None
        if page:
            from lumen_cli.cli.run_page import RunPage

            run_page = RunPage(single_file)
        carry_out(options, pictures, engine, card, policy, operation, template, darker_than, run_page)


def _detail(detail: DetailChoice, tile: str) -> Detail:
    """The choice of --detail; --tile asks for whole pictures, because reduced ones need no tiles.

    Raises:
        UsageError: the two contradict each other.
    """
    if tile == "auto":
        return detail.value
    if detail is DetailChoice.fast:
        raise UsageError("--tile and --detail fast cannot be combined: only whole pictures run in tiles")
    return "whole"


def _precision(asked: str, runtime: RuntimeChoice) -> str:
    """The precision to choose a device with; OpenVINO has one."""
    return "fp32" if asked == "auto" and runtime is RuntimeChoice.openvino else asked
