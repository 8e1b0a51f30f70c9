"""What the options that `enhance` and `decompose` share ask for, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.limits import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from lumen_cli.run.existing import Existing

STANDARD = "-"
"""Standard input as INPUT, standard output as --output."""


@dataclass(frozen=True)
class Request:
    """Where pictures come from and go to, and how the run speaks. The fields are the options of the same name."""

    inputs: tuple[str, ...]
    output: str | None
    from_file: str | None = None
    null: bool = False
    follow_links: bool = False
    include_outputs: bool = False
    watch: bool = False
    dry_run: bool = False
    overwrite: bool = False
    skip_existing: bool = False
    jobs: int | None = None
    as_json: bool = False
    quiet: bool = False
    stats: bool = False
    preserve_times: bool = False
    max_pixels: int = MAXIMUM_PIXELS
    timeout: float = DEFAULT_TIMEOUT

    @property
    def from_stdin(self) -> bool:
        """Whether the one picture comes on standard input."""
        return STANDARD in self.inputs

    @property
    def to_stdout(self) -> bool:
        """Whether the one picture goes to standard output."""
        return self.output == STANDARD

    @property
    def existing(self) -> Existing:
        """What happens to outputs that are there."""
        from lumen_cli.run.existing import Existing

        return Existing.OVERWRITE if self.overwrite else Existing.SKIP if self.skip_existing else Existing.RESUME


def checked(request: Request, resume: bool = False) -> Request:
    """The request, where its parts go together.

    Raises:
        UsageError: they do not.
    """
    asked = {"--overwrite": request.overwrite, "--skip-existing": request.skip_existing, "--resume": resume}
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} cannot be combined; choose one")
    if not request.inputs and request.from_file is None:
        raise UsageError("no input given: name pictures, folders or patterns, or a list of them with --from-file")
    if request.null and request.from_file is None:
        raise UsageError("--null is about --from-file, and there is none")
    if request.from_stdin:
        if len(request.inputs) > 1 or request.from_file is not None:
            raise UsageError("- stands for one picture on standard input, and for it alone (a file of that name: ./-)")
        _refuse_together("- as INPUT", {"--watch": request.watch, "--dry-run": request.dry_run})
    if request.to_stdout:
        _refuse_together("-o -", {"--watch": request.watch, "--dry-run": request.dry_run, "--json": request.as_json})
    if request.watch:
        _refuse_together("--watch", {"--dry-run": request.dry_run})
    return request


def _refuse_together(what: str, others: dict[str, bool]) -> None:
    for name, wanted in others.items():
        if wanted:
            raise UsageError(f"{what} and {name} cannot be combined")
