"""The options that `enhance` and `decompose` share, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from lumen_cli.cli.options import (
    FILES,
    LOGGING,
    LOOK,
    MACHINE,
    WHICH,
    DeviceOption,
    EngineChoice,
    EngineOption,
    EngineOptions,
    GpusPerWorkerOption,
    JsonOption,
    Metadata,
    OverwriteOption,
    Precision,
    PrecisionOption,
    QuietOption,
    RayAddressOption,
    WorkersOption,
    complete_model,
)
from lumen_cli.errors import UsageError
from lumen_cli.files.places import is_address
from lumen_cli.imaging.formats import DEFAULT_TIMEOUT, MAXIMUM_PIXELS
from lumen_cli.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from lumen_cli.files.outputs import NameTemplate
    from lumen_cli.run.run import RunOptions

_Own = ParamSpec("_Own")
STANDARD = "-"
"""Standard input as INPUT, standard output as --output."""


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


@dataclass(frozen=True)
class PictureOptions:
    """The options that enhance and decompose share; a field for each, in the order of the help page."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="Pictures (enhance: videos and tar files too), folders (searched recursively) or globs, also in "
            "stores (s3://…); - for a picture on standard input.",
        ),
    ] = None
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from-file",
            metavar="LIST",
            rich_help_panel=WHICH,
            help="A file with one path or address per line, relative to the working folder; - for standard input.",
        ),
    ] = None
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            rich_help_panel=WHICH,
            help="Paths in LIST end with a NUL byte, as find -print0 writes them.",
        ),
    ] = False
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", rich_help_panel=WHICH, help="Follow links that lead out of an input folder."),
    ] = False
    include_outputs: Annotated[
        bool,
        typer.Option(
            "--include-outputs",
            rich_help_panel=WHICH,
            help="Also process pictures that lumen wrote; they are left out otherwise.",
        ),
    ] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", rich_help_panel=WHICH, help="Keep watching for new or changed pictures; stop with Ctrl-C."
        ),
    ] = False
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            rich_help_panel=WHICH,
            help="Process part I of N, for N machines that share the folders; auto in a Slurm array, auto/N in a "
            "Kubernetes job.",
        ),
    ] = None
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", rich_help_panel=WHICH, help="Only the pictures whose last attempt failed."),
    ] = False
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE",
            rich_help_panel=FILES,
            help="Output file or folder, also in a store (default: NAME-enhanced beside the input); - for standard "
            "output.",
        ),
    ] = None
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=complete_model,
            rich_help_panel=LOOK,
            help="auto (the best model for the task), a name (see `lumen models`), a model folder or hf://org/name.",
        ),
    ] = DEFAULT_MODEL
    device: DeviceOption = "auto"
    precision: PrecisionOption = Precision.auto
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=MACHINE,
            help="Pictures in one batch on a GPU (default: by memory); a CPU runs one at a time.",
        ),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            metavar="N",
            rich_help_panel=MACHINE,
            help="Number of reader threads and of writer threads (default: the cores, at most 16).",
        ),
    ] = None
    engine: EngineOption = EngineChoice.local
    ray_address: RayAddressOption = None
    workers: WorkersOption = None
    gpus_per_worker: GpusPerWorkerOption = None
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            parser=_pixels,
            metavar="N",
            show_default=False,
            rich_help_panel=MACHINE,
            help="Reject larger images before decoding: 40M, 1G or a plain number; 0 = no limit (default: 250M).",
        ),
    ] = MAXIMUM_PIXELS
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0.0,
            metavar="SECONDS",
            rich_help_panel=MACHINE,
            help="Time a picture may take to decode, in the formats that are decoded in a process of their own (all "
            "but JPEG, PNG, WebP, BMP); 0 for no limit.",
        ),
    ] = DEFAULT_TIMEOUT
    metadata: Annotated[
        Metadata,
        typer.Option(
            "--metadata",
            metavar="TAGS",
            rich_help_panel=FILES,
            help="keep (all tags), private (only capture settings, camera, lens, dates, colour and orientation) or "
            "strip (none but the colour profile).",
        ),
    ] = Metadata.keep
    keep_credits: Annotated[
        bool,
        typer.Option(
            "--keep-credits",
            rich_help_panel=FILES,
            help="With --metadata private: keep title, author and copyright too.",
        ),
    ] = False
    no_stamp: Annotated[
        bool,
        typer.Option("--no-stamp", rich_help_panel=FILES, help="Do not record lumen in EXIF ProcessingSoftware."),
    ] = False
    preserve_times: Annotated[
        bool, typer.Option("--preserve-times", rich_help_panel=FILES, help="Preserve file timestamps.")
    ] = False
    name_template: Annotated[
        str | None,
        typer.Option(
            "--name-template",
            metavar="NAME",
            rich_help_panel=FILES,
            help="Output file name pattern, for example {stem}-{model}{suffix}; further fields: {parent}, the "
            "picture's folder, {seed} for enhance, {part} for decompose.",
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=FILES, help="Show what would be done without writing.")
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=FILES,
            help="Process missing or outdated outputs (default); files that lumen did not write are left untouched.",
        ),
    ] = False
    overwrite: OverwriteOption = False
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", rich_help_panel=FILES, help="Never touch existing outputs."),
    ] = False
    as_json: JsonOption = False
    quiet: QuietOption = False
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            rich_help_panel=LOGGING,
            help="Show the timing table for one picture too (batches always show it).",
        ),
    ] = False

    @property
    def from_stdin(self) -> bool:
        """Whether the one picture comes on standard input."""
        return STANDARD in (self.inputs or ())

    @property
    def to_stdout(self) -> bool:
        """Whether the one picture goes to standard output."""
        return self.output == STANDARD

    def require_consistent(self) -> None:
        """UsageError where options contradict each other, or nothing is named to work on."""
        choices = {"--overwrite": self.overwrite, "--skip-existing": self.skip_existing, "--resume": self.resume}
        chosen = [name for name, wanted in choices.items() if wanted]
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} cannot be combined; choose one")
        if not self.inputs and self.from_file is None:
            raise UsageError("no input given: name pictures, folders or patterns, or a list of them with --from-file")
        if self.null and self.from_file is None:
            raise UsageError("--null needs --from-file")
        if self.from_stdin:
            if len(self.inputs or ()) > 1 or self.from_file is not None:
                raise UsageError(
                    "- stands for one picture on standard input, and for it alone (a file of that name: ./-)"
                )
            refuse_together("- as INPUT", {"--watch": self.watch, "--dry-run": self.dry_run})
        if self.to_stdout:
            refuse_together("-o -", {"--watch": self.watch, "--dry-run": self.dry_run, "--json": self.as_json})
        if self.watch:
            refuse_together("--watch", {"--dry-run": self.dry_run})
            refuse_together("--watch", {"the address of a store": any(map(is_address, self.inputs or ()))})
        if self.from_stdin or self.to_stdout:
            parts = {"--shard": self.shard is not None, "--retry-failed": self.retry_failed}
            refuse_together("- as INPUT" if self.from_stdin else "-o -", parts)
        if self.engine is EngineChoice.ray:
            refuse_together(
                "--engine ray", {"--watch": self.watch, "- as INPUT": self.from_stdin, "-o -": self.to_stdout}
            )
        self.where.check()

    @property
    def where(self) -> EngineOptions:
        """Where the run computes."""
        return EngineOptions(self.engine, self.ray_address, self.workers, self.gpus_per_worker, self.device, self.quiet)

    @property
    def for_tags(self) -> dict[str, Any]:
        """The arguments of `ModelSettings.with_model` about tags."""
        return {"metadata": self.metadata.value, "credits": self.keep_credits, "stamped": not self.no_stamp}

    def for_run(self, output: str | None, template: NameTemplate | None) -> RunOptions:
        """What the run needs of these options. output: where files are written, also those for standard output."""
        from lumen_cli.run.existing import IfExists
        from lumen_cli.run.run import RunOptions

        shard = None
        if self.shard is not None:
            from lumen_cli.run.shards import parse_shard

            shard = parse_shard(self.shard)
        return RunOptions(
            output,
            template,
            IfExists.OVERWRITE if self.overwrite else IfExists.SKIP if self.skip_existing else IfExists.RESUME,
            among_photographs=not self.to_stdout,
            jobs=self.jobs,
            preserve_times=self.preserve_times,
            max_pixels=self.max_pixels,
            timeout=self.timeout or None,
            shard=shard,
            only_failed=self.retry_failed,
        )


def refuse_together(what: str, others: dict[str, bool]) -> None:
    """UsageError where one of the other options is given too."""
    for name, wanted in others.items():
        if wanted:
            raise UsageError(f"{what} and {name} cannot be combined")


_OWN_BEFORE = "metadata"
"""A command's own options stand before this one on its help page."""


def with_picture_options(
    **declarations: Any,
) -> Callable[[Callable[Concatenate[PictureOptions, _Own], None]], Callable[..., None]]:
    """Give a command the options of `PictureOptions`, which it takes as its first argument.

    declarations: for fields that this command declares in its own way, the annotation.
    """

    def decorate(command: Callable[Concatenate[PictureOptions, _Own], None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in list(inspect.signature(command).parameters.items())[1:]
        ]
        types = get_type_hints(PictureOptions, include_extras=True) | declarations
        parameters: list[inspect.Parameter] = []
        for field in fields(PictureOptions):
            parameters += own if field.name == _OWN_BEFORE else []
            kind, annotation = inspect.Parameter.KEYWORD_ONLY, types[field.name]
            parameters.append(inspect.Parameter(field.name, kind, default=field.default, annotation=annotation))

        @functools.wraps(command)
        def run(**values: Any) -> None:
            options = PictureOptions(**{field.name: values.pop(field.name) for field in fields(PictureOptions)})
            command(options, **values)  # type: ignore[call-arg]

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
