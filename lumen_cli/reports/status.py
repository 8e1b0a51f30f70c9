"""The states of a folder's outputs as a table, as text and as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lumen_cli.reports.jsonlines import OutputLine, StatusLine
from lumen_cli.reports.progress import plain_table
from lumen_cli.run.shards import STATES, OutputState, State
from lumen_cli.text import printable

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
