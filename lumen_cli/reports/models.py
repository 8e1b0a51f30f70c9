"""Model cards for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from lumen_cli.official.sources import PUBLISHED, Official
from lumen_cli.registry import pull_command, user_models
from lumen_cli.reports.text import memory, parameters, printable, short_folder

if TYPE_CHECKING:
    from lumen_cli.card import ModelCard


def models_table(cards: Sequence[ModelCard]) -> Table:
    """One row a model: name, parameters, steps, abilities, trained on, licence; below, how to get missing weights."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", style="bold cyan", no_wrap=True)
    table.add_column("param.", justify="right", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("can")
    table.add_column("trained on", overflow="fold")
    table.add_column("licence", overflow="fold")
    for card in cards:
        steps = "–" if card.default_steps is None else str(card.default_steps)
        trained_on = "\n".join(map(printable, card.trained_on))
        texts = ("\n".join(card.abilities), trained_on or "–", printable(card.licence) or "–")
        name = Text(card.name)
        if card.to_pull:
            name.append("\nweights not here", style="not bold yellow")
            table.caption = Text("weights not here yet: `lumen models pull NAME` fetches them")
            table.caption_justify = "left"
        table.add_row(name, parameters(card.parameters), steps, *map(Text, texts))
    return table


def model_details(card: ModelCard) -> Table:
    """Everything a model card says, a row each; what it leaves out is left out."""
    official = PUBLISHED.get(card.architecture)
    rows = {
        "name": card.name,
        "what": card.summary,
        "architecture": card.architecture,
        "hyper-parameters": ", ".join(f"{name} {_plain(value)}" for name, value in card.network.items()),
        "parameters": "" if card.parameters is None else f"{card.parameters:,} ({parameters(card.parameters)})",
        "steps": _steps(card),
        "abilities": ", ".join(card.abilities),
        "precisions": f"{', '.join(card.precisions)} (default {card.default_precision})",
        "size multiple": f"{card.size_multiple} pixels; any size works, lumen pads" if card.size_multiple > 1 else "",
        "tiling": "as good as whole" if card.tiling else "only where memory asks for it",
        "trained on": "\n".join(card.trained_on),
        "licence": card.licence,
        "paper": "\n".join(filter(None, (card.paper_title, card.paper_url))),
        "official weights": "" if official else card.official_checkpoint,
        **(official_rows(official) if official else {}),
        "imported from": "\n".join(f"{file.file} (SHA-256 {file.sha256})" for file in card.imported_from),
        "folder": short_folder(card.folder),
        "members": "\n".join(f"{each.name} ({each.share:g}; SHA-256 {each.sha256})" for each in card.members),
        "rendition": ", ".join(f"{name} {value}" for name, value in (card.rendition or {}).items()),
        "weights": f"{card.weights_file}{f' (not here yet: {pull_command(card)})' if card.to_pull else ''}",
        "weights' address": card.weights_url,
        "weights' size": "" if card.weights_bytes is None else memory(card.weights_bytes),
        "SHA-256": card.weights_sha256,
    }
    return details(rows)


def official_rows(official: Official) -> dict[str, str]:
    """Where the authors keep their weights, under what terms, and how to make a model folder of them."""
    return {
        "authors' weights": f"{official.repository}\n{official.where}",
        "authors' files": "\n".join(official.files),
        "authors' terms": official.terms,
        "to use them": official.command,
    }


def model_argument(card: ModelCard) -> str:
    """What `--model` takes for a model that was just made: its name, where that is enough to find it."""
    named = card.folder == (user_models() / card.name).absolute()
    return shlex.quote(card.name if named else printable(card.folder))


def details(rows: Mapping[str, str]) -> Table:
    """A grid of names and values, which may have several lines; what is empty is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            grid.add_row(name, Text("\n".join(map(printable, value.split("\n")))))
    return grid


def _steps(card: ModelCard) -> str:
    if card.default_steps is None or card.steps_range is None:
        return "none: one pass"
    return f"{card.default_steps} (from {card.steps_range[0]} to {card.steps_range[1]})"


def _plain(value: object) -> str:
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, list) else str(value)
