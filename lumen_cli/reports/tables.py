"""Parts that several reports share: tables, grids of facts, lines for failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lumen_cli.text import printable

NARROW = (0, 1, 0, 0)
"""Padding of tables with many columns."""


def plain_table(*columns: str, padding: tuple[int, int, int, int] = (0, 1, 0, 1), **options: Any) -> Table:
    """A table without frame. columns: headings, "<" before one that is aligned left, otherwise right and unwrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, **options)
    for heading in columns:
        if heading.startswith("<"):
            table.add_column(heading[1:], overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def facts_grid(facts: Mapping[str, str | Text]) -> Table:
    """Names and values, which may have several lines; empty values are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(name, Text("\n".join(map(printable, value.split("\n")))) if isinstance(value, str) else value)
    return grid


def failure_line(name: str, reason: str, separator: str = ": ") -> Text:
    """A failure and its reason. Print it without wrapping, so that names can be copied."""
    return Text.assemble(("✗ ", "bold red"), (name, "bold"), f"{separator}{printable(reason)}")
