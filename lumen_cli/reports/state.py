"""The checks of `lumen doctor` and the outputs of `lumen status`, as tables, as text and as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lumen_cli.reports import plain_table
from lumen_cli.reports.jsonlines import CheckLine, OutputLine, StatusLine
from lumen_cli.run.shards import STATES, OutputState, State
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


_MOST = 20
"""Outputs of one state that are listed by name."""
_STYLES: Mapping[State, str] = {"done": "green", "failed": "red"}


def states_table(counts: Mapping[str, Counter[State]]) -> Table:
    """A row for each manifest, that is for each shard, and one for all; a column for each state that occurs."""
    total = sum(counts.values(), Counter[State]())
    shown = [state for state in STATES if total[state] or state == "done"]
    table = plain_table("<shard", *(f">{state}" for state in shown))
    rows = [(_shard_name(name), numbers) for name, numbers in sorted(counts.items())]
    for name, numbers in rows if len(rows) > 1 else ():
        table.add_row(name, *(Text(str(numbers[state] or ""), _STYLES.get(state, "yellow")) for state in shown))
    table.add_row("all", *(Text(str(total[state]), _STYLES.get(state, "yellow")) for state in shown))
    return table


def failures_text(states: Sequence[OutputState]) -> Text:
    """The outputs that are not done, by state, with the reasons of failures."""
    text = Text()
    for state, meaning in STATES.items():
        names = [each for each in states if each.state == state and state != "done"]
        if names:
            text.append(f"\n{state}", _STYLES.get(state, "yellow")).append(f" ({meaning})\n")
        for each in names[:_MOST]:
            name = printable(each.source if state in ("failed", "new", "stale") else each.output)
            text.append(f"  {name}" + (f": {printable(each.reason)}" if each.reason else "") + "\n")
        if len(names) > _MOST:
            text.append(f"  … and {len(names) - _MOST} more (--json lists all)\n", "dim")
    return text


def state_line(state: OutputState) -> str:
    """An output that is not done as a JSON line."""
    return OutputLine(
        state=state.state,
        input=state.source,
        output=state.output or None,
        reason=state.reason or None,
        shard=_shard_name(state.manifest) if state.manifest else None,
    ).line()


def totals_line(folder: str, counts: Mapping[str, Counter[State]]) -> str:
    """The numbers of all states as a JSON line."""
    total = sum(counts.values(), Counter[State]())
    shards: dict[str, dict[str, int]] = {
        _shard_name(name): {state: numbers[state] for state in STATES} for name, numbers in counts.items()
    }
    return StatusLine(folder=folder, states={state: total[state] for state in STATES}, shards=shards).line()


def _shard_name(manifest: str) -> str:
    """For a part's manifest its number, such as "3/8", for that of a whole run "whole", for no manifest nothing."""
    number, separator, rest = manifest.partition("-of-")
    if separator:
        return f"{int(number)}/{rest.removesuffix('.jsonl')}"
    return "whole" if manifest else ""
