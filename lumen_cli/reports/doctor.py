"""The checks of `lumen doctor` as a table and as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lumen_cli.reports.jsonlines import CheckLine
from lumen_cli.reports.progress import plain_table
from lumen_cli.text import count, printable

if TYPE_CHECKING:
    from lumen_cli.doctor.machine import Check

_MARKS = {"ok": Text("✓", "green"), "limited": Text("!", "yellow"), "broken": Text("✗", "bold red")}


def check_line(check: Check) -> str:
    """A check as a JSON line."""
    return CheckLine(
        status=check.status,
        area=check.area,
        name=check.name,
        found=check.found,
        advice=check.advice or None,
        facts=dict(check.facts),
    ).line()


def checks_table(checks: Sequence[Check]) -> Table:
    """A row for each check and, below it, what to do; checks of one area that found the same share a row."""
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for check in checks:
        rows.setdefault((check.area, check.status, check.found, check.advice), []).append(check.name)
    table = plain_table("<", "<", "<found", show_header=False)
    previous = ""
    for (area, status, found, advice), names in rows.items():
        own = names == [area]
        what = Text(printable(found)) if own else Text.assemble((printable(", ".join(names)), "bold"), f": {found}")
        if advice:
            what.append(f"\n→ {printable(advice)}", "cyan")
        table.add_row(_MARKS[status], Text("" if area == previous else area, "dim"), what)
        previous = area
    return table


def verdict(checks: Sequence[Check]) -> str:
    """The last line: how much is broken or limited."""
    numbers = Counter(check.status for check in checks)
    parts = [f"{count(numbers[status], 'check')} {status}" for status in ("broken", "limited") if numbers[status]]
    return f"{', '.join(parts)} of {len(checks)}" if parts else f"all {len(checks)} checks passed"
