"""Model cards, imports and downloads as tables and JSON lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lumen_cli.registry import pull_command, user_models
from lumen_cli.registry.architectures import ARCHITECTURES, Architecture
from lumen_cli.reports import facts_grid, plain_table
from lumen_cli.reports.jsonlines import ExportLine, ImportLine, ModelLine, PullLine, ReleaseLine
from lumen_cli.text import count, memory, parameters, printable, short_folder

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard, WeightsFile
    from lumen_cli.registry.checkpoints.importing import Imported
    from lumen_cli.registry.download import Pulled
    from lumen_cli.registry.export import Exported

_MARK, _SECONDS, _SIZE, _GAPS = 1, 7, 7, 12
"""Widths of the table's columns beside the name and the text, and of the space between all."""


def models_table(cards: Sequence[ModelCard], width: int, default: str = "") -> Table:
    """A row for each model: name, purpose, seconds and size; the default is marked.

    Names and figures stay whole so that they can be copied; the purpose is shortened to fit `width`.
    """
    table = plain_table(collapse_padding=True)
    longest = max((len(card.name) for card in cards), default=0)
    left = max(8, width - longest - _MARK - _SECONDS - _SIZE - _GAPS)
    table.add_column("", no_wrap=True, width=_MARK)
    table.add_column("model", style="bold cyan", no_wrap=True, width=longest)
    table.add_column("best for", no_wrap=True, overflow="ellipsis", max_width=left)
    table.add_column("seconds", justify="right", no_wrap=True, width=_SECONDS)
    table.add_column("size", justify="right", no_wrap=True, width=_SIZE)
    notes = ["* the default; seconds: for 600×400 pixels, two CPU cores", "details: lumen models info MODEL"]
    for card in cards:
        mark = "*" if card.name == default else ""
        what = Text(printable(card.best_for or card.summary or "–"))
        seconds = "–" if card.seconds is None else f"{card.seconds:.2f}"
        size = Text("to pull", "yellow") if card.to_pull else Text(_size(card, cards))
        table.add_row(mark, Text(card.name), what, seconds, size)
    if any(card.to_pull for card in cards):
        notes.append("to pull: fetch the weights with lumen models pull MODEL")
    table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    return table


def _size(card: ModelCard, cards: Sequence[ModelCard]) -> str:
    """Size of the weights on disk, with those of members."""
    by_name = {each.name: each for each in cards}
    every = [card, *(by_name[member.model] for member in card.members if member.model in by_name)]
    try:
        size = sum(each.path(file).stat().st_size for each in every for file in each.files.values())
    except OSError:
        return "–"
    return memory(size) if size else "–"


def model_details(card: ModelCard) -> Table:
    """All fields of a model card, one row each; empty fields are left out."""
    architecture = ARCHITECTURES.get(card.architecture)
    released = release_rows(architecture) if architecture else {}
    number = card.weights.parameters
    not_here = [f"not here yet: {pull_command(card)}"] if card.to_pull else []
    rows = {
        "name": card.name,
        "what": card.summary,
        "best for": card.best_for,
        "seconds": "" if card.seconds is None else f"{card.seconds:g} for 600×400 pixels on two CPU cores",
        "architecture": card.architecture,
        "hyper-parameters": ", ".join(f"{name} {_plain(value)}" for name, value in card.network.items()),
        "parameters": "" if number is None else f"{number:,} ({parameters(number)})",
        "steps": _steps(card),
        "abilities": ", ".join(card.abilities),
        "precisions": f"{', '.join(card.precisions)} (default {card.defaults.precision})",
        "size multiple": f"{card.size_multiple} pixels; any size works, lumen pads" if card.size_multiple > 1 else "",
        "tiling": "matches the untiled result" if card.tiling else "approximate; only where memory is short",
        "trained on": "\n".join(card.trained_on),
        "licence": card.licence,
        "paper": "\n".join(filter(None, (card.paper.title, card.paper.url))),
        "official weights": "" if released else card.official_checkpoint,
        **released,
        "imported from": "\n".join(f"{file.file} (SHA-256 {file.sha256})" for file in card.imported_from),
        "folder": short_folder(card.folder),
        "members": "\n".join(f"{each.model} ({each.share:g}; SHA-256 {each.sha256})" for each in card.members),
        "grading": ", ".join(f"{name} {value}" for name, value in card.grading or ()),
        "weights": "\n".join([*map(_file_line, card.files.values()), *not_here]),
        "SHA-256": card.weights_sha256,
    }
    return facts_grid(rows)


def _file_line(file: WeightsFile) -> str:
    size = "" if file.bytes is None else f" ({memory(file.bytes)})"
    return f"{file.file}{size}" + (f", {file.url}" if file.url else "")


def release_rows(architecture: Architecture) -> dict[str, str]:
    """Where the authors publish their weights, the terms, and how to import them; empty without a release."""
    release = architecture.release
    if release is None:
        return {}
    return {
        "authors' weights": f"{release.repository}\n{release.where}",
        "authors' files": "\n".join(release.files),
        "authors' terms": release.terms,
        "to use them": architecture.import_command,
    }


def model_argument(card: ModelCard) -> str:
    """The value of `--model` for a new model: its name where that is enough, otherwise its folder."""
    named = card.folder == (user_models() / card.name).absolute()
    return shlex.quote(card.name if named else printable(card.folder))


def _steps(card: ModelCard) -> str:
    if card.defaults.steps is None or card.steps_range is None:
        return "none: one pass"
    return f"{card.defaults.steps} (from {card.steps_range[0]} to {card.steps_range[1]})"


def _plain(value: object) -> str:
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, list) else str(value)


def release_details(architecture: Architecture) -> Table:
    """An architecture's release of which no model is here: where it is, its terms and the command to import it."""
    assert architecture.release is not None
    paper = f"{architecture.release.paper_title}\n{architecture.release.paper_url}"
    about = {"architecture": architecture.id, "weights": "none here yet", "paper": paper}
    return facts_grid(about | release_rows(architecture))


def release_line(architecture: Architecture) -> str:
    """The same as a JSON line."""
    assert architecture.release is not None
    record = ReleaseLine(architecture=architecture.id, command=architecture.import_command)
    return record.line(asdict(architecture.release))


def import_tables(imported: Imported) -> Iterator[RenderableType]:
    """The parts of the network, matched and ignored tensors, and the model's folder."""
    card = imported.card
    table = plain_table()
    table.add_column("part", style="bold cyan", no_wrap=True)
    table.add_column("tensors", justify="right")
    table.add_column("param.", justify="right")
    for part, (tensors, numbers) in _parts(imported).items():
        table.add_row(Text(printable(part)), str(tensors), parameters(numbers))
    yield table
    ignored = (f"{count(len(names), 'tensor')}: {reason}" for reason, names in imported.match.ignored.items())
    widths = (f"{name} {value}" for name, value in card.network.items())
    yield facts_grid(
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
    """The same as a JSON line."""
    card, match = imported.card, imported.match
    parts = {part: {"tensors": tensors, "parameters": numbers} for part, (tensors, numbers) in _parts(imported).items()}
    return ImportLine(
        name=card.name,
        architecture=card.architecture,
        folder=str(card.folder),
        same_shapes_as=imported.variant.release or None,
        network=dict(card.network),
        averaged=imported.averaged,
        parts=parts,
        matched=len(match.taken),
        rebuilt=list(match.rebuilt),
        ignored={reason: list(names) for reason, names in match.ignored.items()},
        parameters=card.weights.parameters,
        bytes=imported.size,
        weights_sha256=card.weights_sha256,
        imported_from=[file.model_dump() for file in card.imported_from],
        licence=card.licence,
    ).line()


def _shapes(imported: Imported) -> str:
    """A checkpoint only shows its shapes; other weights may have the same shapes."""
    release = imported.variant.release
    return f"same shapes as {release}" if release else "no known release has these shapes"


def _parts(imported: Imported) -> dict[str, tuple[int, int]]:
    """First part of the names → number of tensors and of parameters."""
    parts: dict[str, tuple[int, int]] = {}
    for name, tensor in imported.match.taken.items():
        part = name.partition(".")[0]
        tensors, numbers = parts.get(part, (0, 0))
        parts[part] = tensors + 1, numbers + tensor.numel()
    return parts


def pull_tables(pulled: Pulled) -> Iterator[RenderableType]:
    """Source, terms, notes and folder of a downloaded model."""
    card = pulled.card
    size = _pulled_size(pulled)
    if not pulled.kept:
        yield facts_grid(
            {
                "what": card.summary,
                "from": "\n".join(pulled.weights_from) or pulled.source,
                "SHA-256": "\n".join(f"{file.sha256} (checked)" for file in card.files.values()),
                "parameters": "" if card.weights.parameters is None else parameters(card.weights.parameters),
                "trained on": "\n".join(card.trained_on),
                "licence": card.licence,
            }
        )
    for note in pulled.notes:
        yield Text(f"note: {printable(note)}", style="yellow")
    what = f"{card.name} already exists" if pulled.kept else card.name
    where = Text(f"{what}{f' ({memory(size)})' if size else ''} → {short_folder(card.folder)}", style="bold")
    yield Text.assemble("" if pulled.kept else "\n", where, f"\nlumen enhance PICTURE --model {model_argument(card)}")


def pull_line(pulled: Pulled) -> str:
    """The same as a JSON line."""
    card = pulled.card
    return PullLine(
        status="kept" if pulled.kept else "pulled",
        name=card.name,
        architecture=card.architecture,
        folder=str(card.folder),
        source=pulled.source,
        weights_from=list(pulled.weights_from),
        parameters=card.weights.parameters,
        bytes=_pulled_size(pulled),
        weights_sha256=card.weights_sha256,
        licence=card.licence,
        notes=list(pulled.notes),
    ).line()


def _pulled_size(pulled: Pulled) -> int | None:
    card = pulled.card
    return sum(card.path(file).stat().st_size for file in card.files.values()) or None


def model_line(card: ModelCard) -> str:
    """A model's card."""
    return ModelLine(folder=str(card.folder), weights_sha256=card.weights_sha256, to_pull=card.to_pull).line(
        card.model_dump()
    )


def export_table(exported: Exported) -> RenderableType:
    """Inputs, outputs and folder of an export."""
    facts = exported.facts
    ports = [f"{port['name']} {'×'.join(map(str, port['shape']))}" for port in (*facts["inputs"], *facts["outputs"])]
    table = facts_grid(
        {
            "inputs": "\n".join(ports[:-1]),
            "output": ports[-1],
            "steps": "" if facts["steps"] is None else str(facts["steps"]),
            "licence": facts["licence"],
        }
    )
    where = f"{exported.card.name} ({memory(exported.size)}) → {short_folder(exported.folder)}"
    return Group(table, Text.assemble("\n", Text(where, style="bold"), "\nREADME.md there says how to run it"))


def export_line(exported: Exported) -> str:
    """The same as a JSON line."""
    return ExportLine(
        name=exported.card.name, folder=str(exported.folder), bytes=exported.size, facts=exported.facts
    ).line()
