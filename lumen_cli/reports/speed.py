"""The speed of models as tables, and as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from lumen_cli.reports import NARROW, facts_grid, failure_line, plain_table, transient_line
from lumen_cli.reports.jsonlines import SpeedLine
from lumen_cli.text import count, duration, memory, parameters, printable

if TYPE_CHECKING:
    from lumen_cli.benchmark.speed_request import Pipeline, Plain, SpeedCase, SpeedResult, Spread

_Column = tuple[str, "Callable[[SpeedResult], str]"]


def speed_line(result: SpeedResult) -> str:
    """A result and the figures derived from it as a JSON line; null where there is none."""
    folder = result.pipeline
    return SpeedLine(
        pipeline=None if folder is None else asdict(folder) | {"images_per_second": folder.images_per_second},
        images_per_second=result.images_per_second,
        megapixels_per_second=result.megapixels_per_second,
        ratio=result.ratio,
    ).line(asdict(result))


def speed_tables(results: Sequence[SpeedResult]) -> Iterator[RenderableType]:
    """Tables of times (network, reference implementation, folder), of memory and work, of settings, and failures."""
    measured = [result for result in results if result.error is None]
    if measured:
        yield _table(measured, _TIMING)
        plain = [result for result in measured if result.plain is not None]
        if plain:
            yield _table(plain, _PLAIN)
        folders = [result for result in measured if result.pipeline is not None]
        if folders:
            yield _table(folders, _FOLDER)
        yield _table(measured, _costs(measured))
        yield _how(measured)
    failed = [result for result in results if result.error is not None or result.plain_error is not None]
    if failed:
        yield _failures(failed)


@contextmanager
def speed_progress(console: Console, total: int) -> Iterator[tuple[Callable[[SpeedCase], None], Callable[..., None]]]:
    """Show progress inside; yields the functions that `run_speed` calls before and after each row."""
    now = TextColumn("[bold]timing[/] {task.fields[what]}", table_column=Column(no_wrap=True))
    line = transient_line(console, now, TimeElapsedColumn(), left=False)
    task = line.add_task("", total=total, what="")
    with line:
        yield lambda case: line.update(task, what=escape(_what(case))), lambda _: line.advance(task)


def _table(results: Sequence[SpeedResult], columns: Sequence[_Column]) -> Table:
    """A row for each result, grouped by model; the batch size only where it is not 1."""
    table = plain_table(padding=NARROW)
    table.add_column("model", style="bold cyan", overflow="fold", min_width=10)
    table.add_column("size", no_wrap=True)
    table.add_column("in", no_wrap=True)
    batched = any(result.batch != 1 for result in results)
    if batched:
        table.add_column("batch", justify="right", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    before = ""
    for result in results:
        if before and result.model != before:
            table.add_section()
        name = Text("" if result.model == before else _name(result))
        batch = [str(result.batch)] if batched else []
        size = f"{result.width}×{result.height}"
        table.add_row(name, size, result.precision, *batch, *(cell(result) for _, cell in columns))
        before = result.model
    return table


def _costs(results: Sequence[SpeedResult]) -> list[_Column]:
    columns: list[_Column] = [
        ("param.", lambda result: parameters(result.parameters)),
        ("steps", lambda result: "–" if result.steps is None else str(result.steps)),
        ("GFLOPs", lambda result: _number(result.gflops)),
        ("memory", lambda result: _bytes(result.host_memory)),
    ]
    if any(result.plain is not None for result in results):
        columns.insert(3, ("(ref.)", lambda result: "–" if result.plain is None else _number(result.plain.gflops)))
    if any(result.device_memory is not None for result in results):
        columns.append(("on device", lambda result: _bytes(result.device_memory)))
    return columns


_TIMING: list[_Column] = [
    ("per picture", lambda result: _median(result.seconds)),
    ("quartiles", lambda result: _quartiles(result.seconds)),
    ("pict./s", lambda result: _number(result.images_per_second)),
    ("MP/s", lambda result: _number(result.megapixels_per_second)),
]
_PLAIN: list[_Column] = [
    ("reference", lambda result: _median(_plain(result).seconds)),
    ("quartiles", lambda result: _quartiles(_plain(result).seconds)),
    ("differs by", lambda result: _small(_plain(result).difference)),
    ("ratio", lambda result: "–" if result.ratio is None else f"{result.ratio:.2f}×"),
]
_FOLDER: list[_Column] = [
    ("folder of", lambda result: str(_folder(result).pictures)),
    ("took", lambda result: duration(_folder(result).seconds)),
    ("pict./s", lambda result: _number(_folder(result).images_per_second)),
    ("busy", lambda result: f"{_folder(result).busy:.0%}"),
    ("vs alone", lambda result: f"{_folder(result).against_alone:.0%}"),
]


def _plain(result: SpeedResult) -> Plain:
    assert result.plain is not None
    return result.plain


def _folder(result: SpeedResult) -> Pipeline:
    assert result.pipeline is not None
    return result.pipeline


def _how(results: Sequence[SpeedResult]) -> Table:
    """Where and how it was measured."""
    first = results[0]
    threads = "" if first.threads is None or first.device != "cpu" else f", threads: {first.threads}"
    facts = {
        "ran on": f"{first.device} ({first.device_name}){threads}, torch {first.torch}",
        "timed": f"the network alone, {count(first.repeat, 'time')} after {first.warmup} to warm up: median, quartiles",
        "memory": "peak resident memory of a new process for each row, with libraries and weights",
        "GFLOPs": "10⁹ operations per picture; a multiplication and an addition are two",
    }
    if any(result.published for result in results):
        facts["(published)"] = "the network at its paper's size with random weights"
    plain = {result.architecture: result.plain for result in results if result.plain is not None}
    if plain:
        facts["reference"] = "as in the paper's code: fp32, eager, one picture at a time; timed alternately with ours"
        facts["differs by"] = "greatest difference of a value in [0, 1] from ours"
    for architecture, way in plain.items():
        facts[f"· {printable(architecture)}"] = "; ".join(way.redundant) or "no redundant computation is known"
    if any(result.pipeline is not None for result in results):
        facts["folder"] = "generated JPEGs with tags from disk to disk"
        facts["busy"] = "share of that time in which the network computed; vs alone: pictures/s relative to that alone"
    return facts_grid(facts)


def _failures(results: Sequence[SpeedResult]) -> Text:
    """Failed rows with their reasons, two lines each."""
    lines = [
        failure_line(
            _what(result) + ("" if result.error is not None else ", reference implementation"),
            result.error or result.plain_error or "",
            separator="\n  ",
        )
        for result in results
    ]
    return Text("\n").join([Text(""), *lines])


def _what(row: SpeedCase | SpeedResult) -> str:
    batch = f" batch {row.batch}" if row.batch != 1 else ""
    return f"{printable(row.model)} {row.width}×{row.height} {row.precision}{batch}"


def _name(result: SpeedResult) -> str:
    return f"{printable(result.architecture)}\n(published)" if result.published else printable(result.model)


def _median(spread: Spread | None) -> str:
    return "–" if spread is None else duration(spread.median)


def _quartiles(spread: Spread | None) -> str:
    """Two times, with one unit where it is the same."""
    if spread is None:
        return "–"
    lower, upper = duration(spread.lower), duration(spread.upper)
    number, _, unit = lower.partition(" ")
    return f"{number} – {upper}" if upper.partition(" ")[2] == unit else f"{lower} – {upper}"


def _small(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0.0 else f"{value:.1e}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2 if value >= 0.0995 else 3
    return f"{value:.{digits}f}"


def _bytes(value: int | None) -> str:
    return "–" if value is None else memory(value)
