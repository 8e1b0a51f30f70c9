"""The summary of a run: times by stage, device and memory, warnings, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lumen_cli.reports import facts_grid, failure_line, plain_table
from lumen_cli.run.existing import EDITED
from lumen_cli.text import count, duration, memory, printable, short_path, with_options

if TYPE_CHECKING:
    from lumen_cli.files import Source
    from lumen_cli.files.find import Trouble
    from lumen_cli.run import Result

_MOST_ROWS = 40
_MOST_LEFT = 10
STAGES = {"read": "read and decode", "run": "run the network", "write": "encode and write", "tags": "copy tags"}


def source_name(source: Source) -> str:
    """The name of a picture in messages: its path, or "standard input"."""
    return "standard input" if source.label == "-" else short_path(source.path)


@dataclass(frozen=True)
class Line:
    """A picture's printable name and its message."""

    name: str
    reason: str


@dataclass
class Summary:
    """Adds up results. total: pictures of the run; kept: finished before; word: what was done ("enhanced").

    skipped: pictures that are bright enough; failures: failed pictures with reasons; left: pictures whose outputs lumen
    did not write; edited: kept outputs that were changed since; whys: counts of the reasons for processing.
    """

    total: int
    kept: int = 0
    skipped: int = 0
    edited: int = 0
    word: str = "enhanced"
    done: int = 0
    pixels: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)
    whys: Counter[str] = field(default_factory=Counter)
    failures: list[Line] = field(default_factory=list)
    left: list[Line] = field(default_factory=list)
    reconstructed: list[Result] = field(default_factory=list)
    sidecars: int = 0
    tars: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count one result of the stream. A tar file counts by its pictures, unless it failed or was left."""
        if result.member:
            self.total += 1
        if result.status in ("failed", "left"):
            lines = self.failures if result.status == "failed" else self.left
            lines.append(Line(source_name(result.task.job.source), with_options(result.reason or "", result.remedy)))
            return
        if result.task.is_tar:
            self.total -= 1
            self.tars[result.status] += 1
            return
        if result.status == "skipped":
            self.skipped += 1
            return
        if result.status == "kept":
            self.kept += 1
            self.edited += result.task.why == EDITED
            return
        self.done += 1
        self.whys[result.task.why] += 1
        self.pixels += (result.width or 0) * (result.height or 0)
        self.warnings.update(set(result.warnings))
        self.notices.update(set(result.notices))
        self.sidecars += len(result.sidecars)
        if result.fidelity is not None:
            self.reconstructed.append(result)
        for stage in STAGES:
            self.seconds[stage] += getattr(result.timings, stage)

    def trouble(self, trouble: Trouble) -> None:
        """Count an input that could not be processed at all."""
        self.failures.append(Line(short_path(trouble.path), trouble.reason))

    @property
    def missing(self) -> int:
        """Pictures that an interrupted run did not reach."""
        return self.total - self.kept - self.skipped - self.done - len(self.failures) - len(self.left)

    def headline(self, where: str) -> Text:
        """One line: counts and the place of the outputs."""
        parts = [f"{self.done} {self.word}"]
        edited = f" ({self.edited} of them changed since lumen wrote {'it' if self.edited == 1 else 'them'})"
        parts += [f"{count(self.tars['done'], 'tar file')} written"] if self.tars["done"] else []
        parts += [f"{count(self.tars['kept'], 'tar file')} kept"] if self.tars["kept"] else []
        parts += [f"{self.kept} kept{edited if self.edited else ''}"] if self.kept else []
        parts += [f"{self.skipped} bright enough"] if self.skipped else []
        parts += [f"{len(self.left)} left untouched"] if self.left else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        parts += [f"{self.missing} remaining"] if self.missing else []
        style = "bold red" if self.failures or self.left else "bold yellow" if self.missing else "bold green"
        text = f"{count(self.total, 'picture')}: {', '.join(parts)}"
        return Text.assemble((text, style), f" → {where}" if self.done or self.kept or self.tars else "")

    def tables(self, loading: float, working: float, facts: dict[str, str]) -> Iterator[RenderableType]:
        """Reconstruction errors, the timing table with `facts` (model, device, …) below it, then notices and warnings.

        Args:
            loading: seconds to load the model.
            working: seconds from then to the last picture; stages overlap, so their sum may be greater.
            facts: further lines by name.
        """
        if self.reconstructed:
            yield self._reconstructions()
        if self.done:
            yield self._timing(loading, working)
        yield facts_grid(facts)
        if self.notices:
            yield _count_lines("notice", self.notices, "cyan")
        if self.warnings:
            yield _count_lines("warning", self.warnings, "yellow")

    def remarks(self) -> Iterator[RenderableType]:
        """Reconstruction error, notices and warnings of one picture, without the other tables."""
        if self.reconstructed:
            yield self._reconstructions()
        for what, lines, style in (("notice", self.notices, "cyan"), ("warning", self.warnings, "yellow")):
            for line in lines:
                yield Text(f"{what}: {printable(line)}", style)

    def _timing(self, loading: float, working: float) -> Table:
        table = plain_table("<stage", "total", "per picture", "<")
        for stage, name in STAGES.items():
            table.add_row(name, duration(self.seconds[stage]), duration(self.seconds[stage] / self.done))
        rate = f"{self.done / working:.2f} pictures/s · {self.pixels / working / 1e6:.2f} MP/s"
        table.add_section()
        table.add_row("wall clock", duration(working), duration(working / self.done), Text(rate, "cyan"), style="bold")
        table.add_row("load the model", duration(loading), style="dim")
        return table

    def _reconstructions(self) -> Table:
        """The error of R ∘ L for each picture (of many, the worst), and the means over all."""
        results = sorted(self.reconstructed, key=lambda result: result.task.job.source.path)
        left_out = max(0, len(results) - _MOST_ROWS)
        if left_out:
            results = sorted(results, key=_mean_error, reverse=True)[:_MOST_ROWS]
        table = plain_table("<reconstruction of", "mean |error|", "PSNR")
        for result in results:
            assert result.fidelity is not None
            table.add_row(
                Text(source_name(result.task.job.source)), *_errors(result.fidelity.mae, result.fidelity.psnr)
            )
        if left_out:
            table.add_row(Text(f"… and {count(left_out, 'picture')} with smaller errors", "dim"), "", "")
        every = [result.fidelity for result in self.reconstructed if result.fidelity is not None]
        ratios = [fidelity.psnr for fidelity in every if fidelity.psnr is not None]
        means = fmean(fidelity.mae for fidelity in every), fmean(ratios) if ratios else None
        table.add_section()
        table.add_row(f"mean of {count(len(every), 'picture')}", *_errors(*means), style="bold")
        return table

    def failed(self) -> Text:
        """Failed pictures and the first few that were left, with reasons, two lines each. Print it without wrapping."""
        text = Text()
        left = sorted(self.left, key=lambda line: line.name)
        for line in (*sorted(self.failures, key=lambda line: line.name), *left[:_MOST_LEFT]):
            text.append("\n").append_text(failure_line(line.name, line.reason, separator="\n  "))
        if len(left) > _MOST_LEFT:
            text.append(f"\n✗ … and {count(len(left) - _MOST_LEFT, 'picture')} more whose outputs were left untouched")
        return text


def _count_lines(what: str, lines: Counter[str], style: str) -> Table:
    """Each line with the number of pictures it applies to."""
    table = plain_table("pictures", f"<{what}")
    for line, number in lines.most_common():
        table.add_row(str(number), Text(printable(line), style))
    return table


def _mean_error(result: Result) -> float:
    return 0.0 if result.fidelity is None else result.fidelity.mae


def _errors(mae: float, psnr: float | None) -> tuple[str, str]:
    return f"{mae:.4f}", "exact" if psnr is None else f"{psnr:.2f} dB"


def peak_memory(devices: Sequence[str]) -> str:
    """The most memory that this process held, and the most that the network held on each CUDA device."""
    from lumen_cli.engine.memory import peak_resident

    text = memory(peak_resident())
    for device in (each for each in devices if each.startswith("cuda")):
        import torch

        text += f", {memory(torch.cuda.max_memory_allocated(device))} on {device}"
    return text
