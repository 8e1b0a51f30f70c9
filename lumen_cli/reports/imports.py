"""What an import made of a checkpoint, and where checkpoints are: for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lumen_cli.registry.checkpoints.sources import Official
from lumen_cli.reports.models import details, model_argument, official_rows
from lumen_cli.reports.text import count, memory, parameters, printable, short_folder

if TYPE_CHECKING:
    from lumen_cli.registry.checkpoints.importing import Imported


def official_details(official: Official) -> Table:
    """A release of which no model is here: a row each for where it is, its terms and the command."""
    paper = f"{official.paper_title}\n{official.paper_url}"
    about = {"architecture": official.architecture, "weights": "none here yet", "paper": paper}
    return details(about | official_rows(official))


def official_line(official: Official) -> str:
    """The same as one JSON object; `installed` is false."""
    return json.dumps({"installed": False, **asdict(official), "command": official.command})


def import_tables(imported: Imported) -> Iterator[RenderableType]:
    """The parts of the network with what was matched, what was ignored, and where the model is."""
    card = imported.card
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part", style="bold cyan", no_wrap=True)
    table.add_column("tensors", justify="right")
    table.add_column("param.", justify="right")
    for part, (tensors, numbers) in _parts(imported).items():
        table.add_row(Text(printable(part)), str(tensors), parameters(numbers))
    yield table
    ignored = (f"{count(len(names), 'tensor')}: {reason}" for reason, names in imported.match.ignored.items())
    widths = (f"{name} {value}" for name, value in card.network.items())
    yield details(
        {
            "matched": f"all {len(imported.match.taken)} tensors"
            + (f", {len(imported.match.rebuilt)} of them rebuilt" if imported.match.rebuilt else ""),
            "ignored": "\n".join(ignored),
            "parameters": "averaged" if imported.averaged else "the last of the training",
            "network": ", ".join(widths),
            "shapes": _shapes(imported),
            "terms": card.licence,
            "from": "\n".join(f"{file.file} (SHA-256 {file.sha256})" for file in card.imported_from),
        }
    )
    where = Text(f"{card.name} ({memory(imported.size)}) → {short_folder(card.folder)}", style="bold")
    yield Text.assemble("\n", where, f"\nlumen enhance PICTURE --model {model_argument(card)}")


def import_line(imported: Imported) -> str:
    """The same as one JSON object: names by what became of them, counts by part, the card's network and folder."""
    card, match = imported.card, imported.match
    parts = {part: {"tensors": tensors, "parameters": numbers} for part, (tensors, numbers) in _parts(imported).items()}
    return json.dumps(
        {
            "status": "imported",
            "name": card.name,
            "architecture": card.architecture,
            "folder": str(card.folder),
            "same_shapes_as": imported.variant.release or None,
            "network": dict(card.network),
            "averaged": imported.averaged,
            "parts": parts,
            "matched": len(match.taken),
            "rebuilt": match.rebuilt,
            "ignored": match.ignored,
            "parameters": card.parameters,
            "bytes": imported.size,
            "weights_sha256": card.weights_sha256,
            "imported_from": [asdict(file) for file in card.imported_from],
            "licence": card.licence,
        }
    )


def _shapes(imported: Imported) -> str:
    """Shapes are all that a checkpoint shows: weights of the same shapes may be anybody's."""
    release = imported.variant.release
    return f"same shapes as {release}" if release else "no known release has these shapes"


def _parts(imported: Imported) -> dict[str, tuple[int, int]]:
    """First word of the names → tensors and numbers."""
    parts: dict[str, tuple[int, int]] = {}
    for name, tensor in imported.match.taken.items():
        part = name.partition(".")[0]
        tensors, numbers = parts.get(part, (0, 0))
        parts[part] = tensors + 1, numbers + tensor.numel()
    return parts
