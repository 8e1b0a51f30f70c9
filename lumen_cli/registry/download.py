"""Pull model folders: download them, check them as a stranger's, put them where they are found by name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.files.contents import checksum
from lumen_cli.registry import (
    CARD_FILE,
    CONFIG_FILE,
    HUGGING_FACE,
    LARGEST_TEXT,
    atomic_folder,
    bundled_models,
    find_model,
    holds_model,
    list_models,
    model_roots,
    pull_command,
    require_usable_name,
    scan_models,
    user_models,
)
from lumen_cli.registry.card import ModelCard, WeightsFile, read_card
from lumen_cli.registry.fetch import LARGEST_WEIGHTS, NotGivenError, Progress, fetch, require_web_address
from lumen_cli.registry.load import find_members, require_loadable


@dataclass(frozen=True)
class Pulled:
    """A model that is here now."""

    card: ModelCard
    source: str
    """What the user asked for."""
    weights_from: tuple[str, ...] = ()
    """The addresses or files that the weights were copied from."""
    kept: bool = False
    """Whether the model was here before, and nothing changed."""
    notes: tuple[str, ...] = ()
    """Lines that a user should read."""


def pull_model(
    source: str, folder: Path | None = None, *, overwrite: bool = False, progress: Progress | None = None
) -> Pulled:
    """Pull a model folder, or the weights that a listed model lacks; the folder appears whole or not at all.

    Args:
        source: a model's name or folder, the https address of a model folder or its config.json, or
            `hf://org/name[@revision]`.
        folder: the target; None: the user's own models, under the model's name.
        overwrite: whether another model may be replaced; weights that are here already are not downloaded again.
        progress: is called for every piece of the weights that arrives.

    Raises:
        UsageError: the target holds another model, or is no model folder.
        ModelError: something cannot be downloaded or is refused: no such file, plain http, too large, another checksum,
            a config.json or weights that lumen cannot use, members that are not here.
    """
    with _found(source) as (card, where), _errors_about(card.folder, where):
        if folder is None and not _is_stranger(source) and _is_whole(card):
            return _kept(card, source)
        target = (folder or user_models() / card.name).absolute()
        there = _model_at(target, card, overwrite)
        if there is not None and there.weights_sha256 == card.weights_sha256:
            differs = _texts(there.folder)[0] != _texts(card.folder)[0]
            if _is_whole(there) and not (differs and overwrite):
                note = f"its {CONFIG_FILE} differs from that of {where}; it is kept unless you overwrite it"
                return _kept(there, source, *([note] if differs else []))
            if not overwrite and differs:
                raise UsageError(f"{target} holds another {CONFIG_FILE}", remedy="overwrite")
        require_usable_name(card.name)
        listed = target.parent.resolve() in {root.resolve() for root in model_roots()}
        guarded = listed and _is_stranger(source) and not overwrite
        if guarded:
            _require_free_name(card, target)
        with atomic_folder(target) as temporary, _errors_about(temporary, where):
            for name in (CONFIG_FILE, CARD_FILE):
                if (card.folder / name).is_file():
                    shutil.copyfile(card.folder / name, temporary / name)
            weights_from = tuple(
                _bring(file, card, there, source, temporary / file.file, progress) for file in card.files.values()
            )
            require_loadable(read_card(temporary))
            if guarded:
                _require_free_name(card, target)
            _model_at(target, card, overwrite)  # another process may have put one there
    card = read_card(target)
    return Pulled(card, source, weights_from, notes=_notes(card))


@contextmanager
def _found(source: str) -> Iterator[tuple[ModelCard, str]]:
    """The source's card, in a folder with at least its config.json, and the name of that folder for errors."""
    if not _is_address(source):
        card = find_model(source)
        yield card, source if source.startswith(HUGGING_FACE) else str(card.folder)
        return
    require_web_address(source)
    # Not beside the target yet: only config.json has the model's name.
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


def _bring(
    file: WeightsFile, card: ModelCard, there: ModelCard | None, source: str, path: Path, progress: Progress | None
) -> str:
    """Copy or download a weights file to `path` and check it; returns where it came from.

    there: the model at the target, whose files are copied where they are the same.
    """
    for here in filter(None, (there, card)):
        for each in here.files.values():
            if each.sha256 == file.sha256 and _is_intact(here.path(each), each):
                shutil.copyfile(here.path(each), path)
                return str(here.path(each))
    own = card.path(file)
    if own.is_file() and not file.url:
        raise ModelError(_describe_other(str(own), card, file, checksum(own)))
    if not file.url and not _is_address(source):
        raise ModelError(f'{card.folder} has no {file.file}, and its {CONFIG_FILE} no "url" to download it from')
    address = file.url or _beside(source, file.file)
    if _is_stranger(source) and urlsplit(address).scheme == "http" != urlsplit(source).scheme:
        raise ModelError(f"{card.folder / CONFIG_FILE}: it says that its weights are on this machine ({address})")
    fetch(address, path, file.bytes or LARGEST_WEIGHTS, size=file.bytes, progress=progress)
    if not _is_intact(path, file):
        raise ModelError(_describe_other(address, card, file, checksum(path)))
    return address


def _describe_other(where: str, card: ModelCard, file: WeightsFile, found: str) -> str:
    return f"{where} is not the weights file of {card.name}: expected SHA-256 {file.sha256}, found {found}"


def _model_at(target: Path, card: ModelCard, overwrite: bool) -> ModelCard | None:
    """The model at the target, None if there is none; UsageError if it must not be replaced."""
    if not holds_model(target):
        return None
    advice = "replace it, or choose another folder"
    try:
        there = read_card(target)
    except ModelError as error:
        if overwrite:
            return None
        raise UsageError(
            f"{target} holds a model that cannot be used: {advice} ({error})", remedy="overwrite"
        ) from None
    if overwrite:
        return there
    if there.weights_sha256 != card.weights_sha256:
        other = f"SHA-256 {there.weights_sha256}, not {card.weights_sha256}"
        raise UsageError(f"{target} holds another model ({other}): {advice}", remedy="overwrite")
    for file in there.files.values():
        if there.path(file).is_file() and not _is_intact(there.path(file), file):
            raise UsageError(f"{there.path(file)} is damaged: replace it", remedy="overwrite")
    return there


def _require_free_name(card: ModelCard, target: Path) -> None:
    """UsageError if another model has the name of a stranger's; one of the two would hide the other.

    Names that differ in upper and lower case are the same; models whose files are the same are not others.
    """
    cards, broken = scan_models()
    others = [(other.name, other.folder) for other in cards] + [(folder.name, folder) for folder, _ in broken]
    for name, other in [*others, *((entry.name, entry) for entry in bundled_models().glob("*"))]:
        if name.casefold() == card.name.casefold() and other.resolve() != target.resolve() and not _same(other, card):
            raise UsageError(
                f"another model is called {card.name} here already ({other}): choose another folder for this one, or "
                "add it to your models nevertheless",
                remedy="overwrite",
            )


def _same(folder: Path, card: ModelCard) -> bool:
    """Whether a folder is this model, byte for byte; weights are compared by the checksums of their cards."""
    try:
        return _texts(folder) == _texts(card.folder)
    except OSError:
        return False


def _kept(card: ModelCard, source: str, *notes: str) -> Pulled:
    if card.members:
        find_members(card)
    return Pulled(card, source, kept=True, notes=(*notes, *_notes(card)))


def _notes(card: ModelCard) -> tuple[str, ...]:
    notes = []
    if not (card.folder / CARD_FILE).is_file():
        notes.append(f"it has no {CARD_FILE}, a model card that describes its origin and its results")
    if card.members:
        lacking = [member for member in find_members(card) if member.to_pull]
        notes += [f"its member {each.name} has no weights here yet: run `{pull_command(each)}`" for each in lacking]
    first = next((each for each in list_models() if each.name == card.name), card)
    if first.folder != card.folder and card.folder.parent == user_models().absolute():
        notes.append(f"{first.folder} has the same name and goes before it")
    return tuple(notes)


def _is_whole(card: ModelCard) -> bool:
    """Whether all weights files of the card are here, with their checksums."""
    return all(_is_intact(card.path(file), file) for file in card.files.values())


def _is_intact(path: Path, file: WeightsFile) -> bool:
    return path.is_file() and checksum(path) == file.sha256


def _texts(folder: Path) -> list[bytes | None]:
    paths = (folder / CONFIG_FILE, folder / CARD_FILE)
    return [path.read_bytes() if path.is_file() else None for path in paths]


def _is_address(source: str) -> bool:
    return source.lower().startswith(("https://", "http://"))


def _is_stranger(source: str) -> bool:
    return _is_address(source) or source.startswith(HUGGING_FACE)


def _beside(address: str, name: str) -> str:
    """The address of a file in a model folder, from the address of the folder or its config.json."""
    parts = urlsplit(address)
    folder = parts.path.removesuffix(f"/{CONFIG_FILE}").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, f"{folder}/{quote(name)}", parts.query, ""))


@contextmanager
def _errors_about(folder: Path, where: str) -> Iterator[None]:
    """Let errors name the origin of a folder's content, not the temporary folder."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.message.replace(str(folder), where), remedy=error.remedy) from None
