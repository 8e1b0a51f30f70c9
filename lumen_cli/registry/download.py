"""Model folders from elsewhere: fetched, checked as a stranger's are, put where they are found by name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry.atomic_folder import holds_model, placing
from lumen_cli.registry.card import CARD_FILE, CONFIG_FILE, HUGGING_FACE, LARGEST_TEXT, ModelCard, read_card
from lumen_cli.registry.catalog import (
    bundled_models,
    find_model,
    list_models,
    model_roots,
    pull_command,
    require_usable_name,
    scan_models,
    user_models,
)
from lumen_cli.registry.fetch import NotGivenError, Progress, fetch, require_web_address
from lumen_cli.registry.hub import LARGEST_WEIGHTS
from lumen_cli.registry.load import checksum, find_members, require_loadable


@dataclass(frozen=True)
class Pulled:
    """A model that is here now.

    source: what was asked for; weights_from: the address or file that the weights came from, empty where none were
    brought; kept: whether the model was here before and nothing was changed; notes: what a user should know, a line
    each.
    """

    card: ModelCard
    source: str
    weights_from: str = ""
    kept: bool = False
    notes: tuple[str, ...] = ()


def pull_model(
    source: str, folder: Path | None = None, *, overwrite: bool = False, progress: Progress | None = None
) -> Pulled:
    """Fetch a model folder, or the weights that a listed model lacks; the folder appears whole or not at all.

    Args:
        source: a model's name or folder, the https address of a model folder or its config.json, or
            `hf://org/name[@revision]`.
        folder: where to, None for the user's own models, under the model's name.
        overwrite: whether another model is replaced; weights that are here already are not fetched again.
        progress: told about every piece of the weights that arrives.

    Raises:
        UsageError: another model is there, or something that is no model folder.
        ModelError: something cannot be fetched or was refused: no such file, plain http, too large, another checksum,
            a config.json or weights that lumen cannot use, members that are not here.
    """
    with _found(source) as (card, where), _errors_about(card.folder, where):
        if folder is None and not _is_stranger(source) and _is_whole(card):
            return _kept(card, source)
        target = (folder or user_models() / card.name).absolute()
        there = _model_at(target, card, overwrite)
        if there is not None and there.weights_sha256 == card.weights_sha256:
            differs = _text(there.folder) != _text(card.folder)
            if _is_whole(there) and not (differs and overwrite):
                note = f"its {CONFIG_FILE} differs from that of {where}: --overwrite takes the new one"
                return _kept(there, source, *([note] if differs else []))
            if not overwrite and differs:
                raise UsageError(f"{target} holds another {CONFIG_FILE}: --overwrite replaces it")
        require_usable_name(card.name)
        listed = target.parent.resolve() in {root.resolve() for root in model_roots()}
        guarded = listed and _is_stranger(source) and not overwrite
        if guarded:
            _require_free_name(card, target)
        with placing(target) as temporary, _errors_about(temporary, where):
            for name in (CONFIG_FILE, CARD_FILE):
                if (card.folder / name).is_file():
                    shutil.copyfile(card.folder / name, temporary / name)
            weights_from = _bring_weights(card, there, source, temporary / card.weights_file, progress)
            require_loadable(read_card(temporary))
            if guarded:
                _require_free_name(card, target)
            _model_at(target, card, overwrite)  # whoever put one there meanwhile
    card = read_card(target)
    return Pulled(card, source, weights_from, notes=_notes(card))


@contextmanager
def _found(source: str) -> Iterator[tuple[ModelCard, str]]:
    """The source's card, which lies in a folder with at least its config.json, and what errors call that folder."""
    if not _is_address(source):
        card = find_model(source)
        yield card, source if source.startswith(HUGGING_FACE) else str(card.folder)
        return
    require_web_address(source)
    # Not beside the target yet: config.json says what the model is called.
    with tempfile.TemporaryDirectory(prefix="lumen-") as scratch:
        folder, where = Path(scratch), _beside(source, "").split("?")[0].rstrip("/")
        fetch(_beside(source, CONFIG_FILE), folder / CONFIG_FILE, LARGEST_TEXT)
        try:
            fetch(_beside(source, CARD_FILE), folder / CARD_FILE, LARGEST_TEXT)
        except NotGivenError:
            (folder / CARD_FILE).unlink(missing_ok=True)
        with _errors_about(folder, where):
            card = read_card(folder)
        yield card, where


def _bring_weights(card: ModelCard, there: ModelCard | None, source: str, path: Path, progress: Progress | None) -> str:
    """Copy or fetch a card's weights into a file and check what they are; returns where they came from."""
    if not card.weights_file:
        return ""
    for here in filter(None, (there, card)):
        if here.file_sha256 == card.file_sha256 and here.weights_path.is_file() and _is_whole(here):
            shutil.copyfile(here.weights_path, path)
            return str(here.weights_path)
    if card.weights_path.is_file() and not card.weights_url:
        raise ModelError(_another(str(card.weights_path), card, checksum(card.weights_path)))
    if not card.weights_url and not _is_address(source):
        raise ModelError(f'{card.folder} has no {card.weights_file}, and its {CONFIG_FILE} no "url" to fetch it from')
    address = card.weights_url or _beside(source, card.weights_file)
    if _is_stranger(source) and urlsplit(address).scheme == "http" != urlsplit(source).scheme:
        raise ModelError(f"{card.folder / CONFIG_FILE}: it says that its weights are on this machine ({address})")
    fetch(address, path, card.weights_bytes or LARGEST_WEIGHTS, size=card.weights_bytes, progress=progress)
    found = checksum(path)
    if found != card.file_sha256:
        raise ModelError(_another(address, card, found))
    return address


def _another(where: str, card: ModelCard, found: str) -> str:
    return f"{where} is not the weights file of {card.name}: expected SHA-256 {card.file_sha256}, found {found}"


def _model_at(target: Path, card: ModelCard, overwrite: bool) -> ModelCard | None:
    """The model at the target, None where there is none; UsageError where it must not give way."""
    if not holds_model(target):
        return None
    elsewhere = "--overwrite replaces it, -o FOLDER puts this one elsewhere"
    try:
        there = read_card(target)
    except ModelError as error:
        if overwrite:
            return None
        raise UsageError(f"{target} holds a model that cannot be used: {elsewhere} ({error})") from None
    if overwrite:
        return there
    if there.weights_sha256 != card.weights_sha256:
        other = f"SHA-256 {there.weights_sha256}, not {card.weights_sha256}"
        raise UsageError(f"{target} holds another model ({other}): {elsewhere}")
    if there.weights_path.is_file() and not _is_whole(there):
        raise UsageError(f"{there.weights_path} is damaged: --overwrite replaces it")
    return there


def _require_free_name(card: ModelCard, target: Path) -> None:
    """UsageError where a stranger's model would come before another one of the same name, or after it.

    Names are the same in any case of letters; a model is the same where each of its files is.
    """
    cards, broken = scan_models()
    others = [(other.name, other.folder) for other in cards] + [(folder.name, folder) for folder, _ in broken]
    for name, other in [*others, *((entry.name, entry) for entry in bundled_models().glob("*"))]:
        if name.casefold() == card.name.casefold() and other.resolve() != target.resolve() and not _same(other, card):
            raise UsageError(
                f"another model is called {card.name} here already ({other}): -o FOLDER keeps the two apart, "
                "--overwrite puts this one among your models nevertheless"
            )


def _same(folder: Path, card: ModelCard) -> bool:
    """Whether a folder is this model, byte for byte; weights are told by the checksum that a card states."""
    try:
        return _text(folder) == _text(card.folder) and _readme(folder) == _readme(card.folder)
    except OSError:
        return False


def _kept(card: ModelCard, source: str, *notes: str) -> Pulled:
    if card.members:
        find_members(card)
    return Pulled(card, source, kept=True, notes=(*notes, *_notes(card)))


def _notes(card: ModelCard) -> tuple[str, ...]:
    notes = []
    if not (card.folder / CARD_FILE).is_file():
        notes.append(f"it has no {CARD_FILE}: a model card is expected that says where it comes from and what it does")
    if card.members:
        lacking = [member for member in find_members(card) if member.to_pull]
        notes += [f"its member {each.name} has no weights here yet: run `{pull_command(each)}`" for each in lacking]
    first = next((each for each in list_models() if each.name == card.name), card)
    if first.folder != card.folder and card.folder.parent == user_models().absolute():
        notes.append(f"{first.folder} has the same name and goes before it")
    return tuple(notes)


def _is_whole(card: ModelCard) -> bool:
    """Whether the weights are here, and those of the card; nothing is lacking where it has none of its own."""
    if not card.weights_file:
        return True
    return card.weights_path.is_file() and checksum(card.weights_path) == card.file_sha256


def _text(folder: Path) -> bytes:
    return (folder / CONFIG_FILE).read_bytes()


def _readme(folder: Path) -> bytes | None:
    return (folder / CARD_FILE).read_bytes() if (folder / CARD_FILE).is_file() else None


def _is_address(source: str) -> bool:
    return source.lower().startswith(("https://", "http://"))


def _is_stranger(source: str) -> bool:
    return _is_address(source) or source.startswith(HUGGING_FACE)


def _beside(address: str, name: str) -> str:
    """The address of a file in a model folder, given the folder's address or that of its config.json."""
    parts = urlsplit(address)
    folder = parts.path.removesuffix(f"/{CONFIG_FILE}").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, f"{folder}/{quote(name)}", parts.query, ""))


@contextmanager
def _errors_about(folder: Path, where: str) -> Iterator[None]:
    """Errors of what is inside speak of the place that a folder's content comes from, not of the temporary one."""
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(str(folder), where)) from None
