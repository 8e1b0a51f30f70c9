"""A comparison: versions measured row by row, drawn into the page and the contact sheet."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.compare.matching import Matched, Problem, protect_inputs
from lumen_cli.compare.page import Page
from lumen_cli.compare.rows import Looks, Mean, Measured, compare_rows, means
from lumen_cli.compare.sheet import ContactSheet, write_sheet
from lumen_cli.text import printable

if TYPE_CHECKING:
    from lumen_cli.metrics.registry import Metric


@dataclass(frozen=True)
class Wanted:
    """The requested results: metrics, and a page and a contact sheet where they are named."""

    metrics: Sequence[Metric]
    page: Path | None
    sheet: Path | None
    looks: Looks
    linked: bool


@dataclass
class Comparison:
    """One comparison. problems: pictures that were left out; size: bytes of the page, None where none was written;
    complete: whether every row was measured.
    """

    matched: Matched
    wanted: Wanted
    problems: list[Problem] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    size: int | None = None
    complete: bool = False

    def rows(self, stop: threading.Event) -> Iterator[Measured | Problem]:
        """Measure every row; the page and the sheet are written after the last one. Ends early once `stop` is set.

        Raises:
            UsageError: the contact sheet would replace an input.
            LumenError: the page or the sheet cannot be written.
        """
        matched, wanted = self.matched, self.wanted
        self.problems += matched.problems
        if wanted.sheet is not None:
            protect_inputs(wanted.sheet, matched)
        with ExitStack() as stack:
            page = wanted.page and stack.enter_context(
                Page(wanted.page, matched, wanted.metrics, wanted.looks, wanted.linked)
            )
            sheet = ContactSheet(matched.labels, len(matched.rows)) if wanted.sheet else None
            for outcome in compare_rows(matched, wanted.metrics, wanted.looks if page or sheet else None):
                if stop.is_set():
                    return
                if isinstance(outcome, Problem):
                    self.problems.append(outcome)
                    yield outcome
                    continue
                self.measured.append(outcome.measured)
                if page:
                    page.add(outcome)
                if sheet:
                    sheet.add(printable(outcome.measured.row.name), [drawn.image for drawn in outcome.drawn])
                yield outcome.measured
            if stop.is_set():
                return
            self.complete = True
            if page and self.measured:
                self.size = page.write(self.problems)
        if sheet and wanted.sheet and self.measured:
            write_sheet(sheet, wanted.sheet)

    @property
    def written(self) -> tuple[Path | None, Path | None]:
        """The page and the sheet, each None where it was not written."""
        return (self.wanted.page, self.wanted.sheet) if self.measured else (None, None)

    def means(self) -> list[dict[str, Mean]]:
        """See `means`."""
        return means(self.measured, self.wanted.metrics, len(self.matched.labels))
