"""What a pull brought: for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from lumen_cli.reports.models import details, model_argument
from lumen_cli.reports.text import memory, parameters, printable, short_folder

if TYPE_CHECKING:
    from lumen_cli.registry.download import Pulled


def pull_tables(pulled: Pulled) -> Iterator[RenderableType]:
    """What came from where and under what terms, what is to be known of it, and where the model is."""
    card = pulled.card
    size = _size(pulled)
    if not pulled.kept:
        yield details(
            {
                "what": card.summary,
                "from": pulled.weights_from or pulled.source,
                "SHA-256": f"{card.file_sha256} (checked)" if card.file_sha256 else "",
                "parameters": "" if card.parameters is None else parameters(card.parameters),
                "trained on": "\n".join(card.trained_on),
                "licence": card.licence,
            }
        )
    for note in pulled.notes:
        yield Text(f"note: {printable(note)}", style="yellow")
    what = f"{card.name} is here already" if pulled.kept else card.name
    where = Text(f"{what}{f' ({memory(size)})' if size else ''} → {short_folder(card.folder)}", style="bold")
    yield Text.assemble("" if pulled.kept else "\n", where, f"\nlumen enhance PICTURE --model {model_argument(card)}")


def pull_line(pulled: Pulled) -> str:
    """The same as one JSON object: status "pulled", or "kept" where the model was here before."""
    card = pulled.card
    return json.dumps(
        {
            "status": "kept" if pulled.kept else "pulled",
            "name": card.name,
            "architecture": card.architecture,
            "folder": str(card.folder),
            "source": pulled.source,
            "weights_from": pulled.weights_from or None,
            "parameters": card.parameters,
            "bytes": _size(pulled),
            "weights_sha256": card.weights_sha256,
            "licence": card.licence,
            "notes": pulled.notes,
        }
    )


def _size(pulled: Pulled) -> int | None:
    card = pulled.card
    return card.weights_path.stat().st_size if card.weights_file else None
