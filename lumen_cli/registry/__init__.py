"""The models that this machine has: bundled and the user's own, their folders and files by name, config.json read
within bounds (it may be a stranger's), and folders that appear whole or not at all.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lumen_cli.atomic import sweep_temporaries, temporary_beside
from lumen_cli.errors import LumenError, ModelError, UsageError
from lumen_cli.files.contents import user_folder
from lumen_cli.registry.architectures import ARCHITECTURES
from lumen_cli.text import did_you_mean, nearest

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
"""The model card for people: origin, training, figures, licence."""
NETWORK_FILE, GRADING_FILE = "network.safetensors", "grading.safetensors"
"""The weights files of folders that lumen writes; a config.json may name others."""
HUGGING_FACE = "hf://"
LARGEST_TEXT = 1 << 20
"""Bytes that a config.json or a README.md may have."""
_LONGEST_TEXT, _DEEPEST, _MOST_VALUES = 4000, 16, 10_000
_LARGEST_COUNT = 1 << 50
"""Bytes or parameters; no other whole number of a config.json is as large."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read `folder/config.json`; ModelError if it is missing, no object, or beyond all bounds."""
    path = folder / CONFIG_FILE
    try:
        if not path.is_file() and path.exists():
            raise ModelError(f"{path} is no ordinary file")
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise ModelError(f"{path} is larger than a {CONFIG_FILE} can be ({LARGEST_TEXT >> 20} MiB)")
        config = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG_FILE}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if excess := _find_excess(config):
        raise ModelError(f"{path}: it holds {excess}, which no {CONFIG_FILE} needs")
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object with fields, found {show(config)}")
    return config


def _find_excess(config: Any) -> str:
    """What is deeper, longer or larger than any model needs, or is no text; empty if nothing is.

    After this check all other code may recurse, print and compare.
    """
    level, values = [config], 0
    for _ in range(_DEEPEST):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                deeper += value
            elif isinstance(value, str):
                if len(value) > _LONGEST_TEXT:
                    return f"a text of {len(value):,} characters (at most {_LONGEST_TEXT:,})"
                if any("\ud800" <= character <= "\udfff" for character in value):
                    return "a text with half a character (a lone surrogate)"
            elif isinstance(value, int) and abs(value) > _LARGEST_COUNT:
                return "a whole number of more than 15 digits"
        values += len(level)
        if values + len(deeper) > _MOST_VALUES:
            return f"more than {_MOST_VALUES:,} values"
        if not deeper:
            return ""
        level = deeper
    return f"lists or objects more than {_DEEPEST} deep"


def show(value: Any) -> str:
    """A value as an error shows it, cut off if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


MEAN = "mean"
"""The architecture of models that average others and have no network of their own."""
AUTO = "auto"
"""Instead of a model's name: the first of `PREFERRED` for the task that is installed, with its members."""
PREFERRED = {"enhance": ("lumen", "lightendiffusion"), "decompose": ("kind", "lightendiffusion")}
RESERVED = frozenset((AUTO, "default", "none"))
"""Names that no model may have, in upper or lower case: they have another meaning instead of a model's name."""
DEFAULT_MODEL = AUTO
GradingName = Literal["photo", "lol"]
GRADINGS: tuple[GradingName, ...] = ("photo", "lol")
"""What decides about the light and colour of results: the model's own grading, or the one that knows LOL's scenes."""
LOL_GRADING_FILE = "lol-grading/lol-grading.safetensors"
LOL_GRADING_SHA256 = "fdaa6ba214f8d3245cdc31b5b25fa558d666da022c9ce05ae708f5d519e21e8d"


def model_roots() -> list[Path]:
    """The folders of model folders. If two have a model of the same name, the first one wins.

    LUMEN_MODELS (several folders are separated as in PATH), then the user's data folder, then lumen's own models.
    """
    extra = [Path(entry) for entry in os.environ.get("LUMEN_MODELS", "").split(os.pathsep) if entry]
    return [*extra, user_models(), bundled_models()]


def bundled_models() -> Path:
    """The folder of the models that come with lumen."""
    package = Path(__file__).parents[1]
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def user_models() -> Path:
    """The folder of the user's own models, in the user's data folder; it may not exist."""
    return user_folder("data") / "models"


def scan_models() -> tuple[list[ModelCard], list[tuple[Path, ModelError]]]:
    """All usable models by name, and the folders with an unusable config.json and its error.

    Of two folders with the same name and checksum, one with weights wins over one without.
    """
    from lumen_cli.registry.card import read_card  # pydantic; `lumen --help` does without it

    cards: dict[str, ModelCard] = {}
    broken: list[tuple[Path, ModelError]] = []
    for root in model_roots():
        for folder in _model_folders(root):
            try:
                card = read_card(folder)
            except ModelError as error:
                broken.append((folder, error))
            else:
                first = cards.setdefault(card.name, card)
                if first.to_pull and not card.to_pull and first.weights_sha256 == card.weights_sha256:
                    cards[card.name] = card
    return sorted(cards.values(), key=lambda card: card.name), broken


def list_models() -> list[ModelCard]:
    """The usable models, sorted by name."""
    return scan_models()[0]


def find_model(name_or_folder: str | os.PathLike[str], ability: str = "enhance") -> ModelCard:
    """The card for a model's name, "auto", a model folder or `hf://org/name[@revision]`.

    `ability`: what the model for "auto" must be able to do; other names are not checked.

    Raises:
        ModelError: there is no such model (the message has the list and the nearest name), or its config.json is not
            usable.
    """
    from lumen_cli.registry.card import read_card

    wanted = os.fspath(name_or_folder)
    if wanted.startswith(HUGGING_FACE):
        from lumen_cli.registry.fetch import download_model

        return read_card(download_model(wanted))
    cards, broken = scan_models()
    if wanted == AUTO:
        return _best(cards, ability)
    for card in cards:
        if card.name == wanted:
            return card
    for broken_folder, error in broken:
        if broken_folder.name == wanted:
            raise error
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return read_card(folder.absolute())
    if os.sep in wanted or (os.altsep and os.altsep in wanted):
        raise ModelError(f"there is no model folder {wanted}")
    names = [card.name for card in cards]
    hint = did_you_mean(nearest(wanted.lower(), names))
    if wanted in ARCHITECTURES and ARCHITECTURES[wanted].release:
        hint = f" Its authors' weights can be imported: see `lumen models info {wanted}`."
    raise ModelError(f"unknown model {wanted!r}.{hint} Known models: {', '.join(names) or 'none'}")


def _best(cards: list[ModelCard], ability: str) -> ModelCard:
    here = {card.name: card.weights_sha256 for card in cards if not card.to_pull}
    able = {
        card.name: card
        for card in cards
        if card.name in here and ability in card.abilities and all(here.get(m.model) == m.sha256 for m in card.members)
    }
    for name in (*PREFERRED.get(ability, ()), *sorted(able)):
        if name in able:
            return able[name]
    raise ModelError(f"no installed model can {ability}; `lumen models` lists them")


def default_model(cards: list[ModelCard]) -> str:
    """The name of the model that enhances by default; empty if none of them can."""
    try:
        return _best(cards, "enhance").name
    except ModelError:
        return ""


def is_model(name_or_folder: str) -> bool:
    """Whether a model folder of that name or path exists, usable or not."""
    cards, broken = scan_models()
    names = {card.name for card in cards} | {folder.name for folder, _ in broken}
    return name_or_folder in names or (Path(name_or_folder).expanduser() / CONFIG_FILE).is_file()


def own_model_folder(name: str) -> Path:
    """The folder of one of the user's own models, usable or not, by its name.

    Raises:
        ModelError: there is none; the message names where the model is instead, if it is anywhere.
    """
    root = user_models()
    cards, _ = scan_models()
    folders = {card.folder.name: card.name for card in cards if card.folder.parent == root}
    for folder in _model_folders(root):
        if name in (folder.name, folders.get(folder.name)):
            if folder.is_symlink():
                raise ModelError(f"{folder} is a link; remove it yourself")
            return folder
    elsewhere = next((card.folder for card in cards if card.name == name), None)
    if elsewhere is not None:
        whose = "ships with lumen" if elsewhere.parent == bundled_models() else f"lies in {elsewhere}"
        raise ModelError(f"{name} {whose}; only your own models in {root} can be removed")
    raise ModelError(f"you have no model {name!r} in {root}.{did_you_mean(nearest(name, folders.values()))}")


def remove_model(folder: Path) -> None:
    """Remove a model folder; it disappears from the list at once. ModelError where that fails."""
    try:
        gone = folder.with_name(f".{folder.name}.removed-{os.getpid()}")
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise ModelError(f"{folder} cannot be removed ({error.strerror or error})") from None


def require_usable_name(name: str) -> None:
    """UsageError for a name that has another meaning instead of a model's name."""
    if name.casefold() in RESERVED:
        raise UsageError(f"a model cannot be called {name}: that name is reserved")


def pull_command(card: ModelCard) -> str:
    """The command that fetches a model's weights."""
    named = card.folder.parent in model_roots()
    return f"lumen models pull {card.name if named else shlex.quote(str(card.folder))}"


def _model_folders(root: Path) -> Iterator[Path]:
    try:
        # Hidden folders are incomplete.
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
        yield from sorted(entry for entry in entries if (entry / CONFIG_FILE).is_file())
    except OSError:
        return


DIMMEST, BRIGHTEST = 0.1, 10.0
"""Range of a brightness and of an illumination ratio."""

_REFUSALS: dict[str, tuple[type[LumenError], str]] = {
    "decompose": (ModelError, "cannot decompose pictures"),
    "illumination-ratio": (UsageError, "takes no illumination ratio"),
}


def require_ability(card: ModelCard, ability: str) -> None:
    """Do nothing if the model has the ability.

    Raises:
        ModelError, UsageError: it has not; the message names models that have.
    """
    if ability in card.abilities:
        return
    kind, refusal = _REFUSALS[ability]
    others = ", ".join(other.name for other in list_models() if ability in other.abilities)
    raise kind(f"{card.name} {refusal}; models that can: {others or 'none is installed'}")


def check_light(
    card: ModelCard, brightness: float | None, illumination_ratio: float | None, grading: GradingName = "photo"
) -> None:
    """UsageError for a value out of range, for values that exclude each other, or for a ratio that the model lacks."""
    if grading not in GRADINGS:
        raise UsageError(f"there is no grading {grading!r}; there are {' and '.join(GRADINGS)}")
    if illumination_ratio is not None and grading != "photo":
        raise UsageError("an illumination ratio leaves the light to the network: it cannot have a grading")
    if brightness is not None and illumination_ratio is not None:
        raise UsageError("brightness and illumination ratio cannot be combined: both set the light")
    for name, value in (("brightness", brightness), ("illumination ratio", illumination_ratio)):
        if value is not None and not DIMMEST <= value <= BRIGHTEST:
            raise UsageError(f"{name} must be from {DIMMEST:g} to {BRIGHTEST:g}, not {value:g}")
    if illumination_ratio is not None:
        require_ability(card, "illumination-ratio")


def holds_model(target: Path) -> bool:
    """Whether the target is a model folder that may be replaced; False if it does not exist or is an empty folder.

    Raises:
        UsageError: the target is something else, or a folder that holds more than a model.
    """
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_dir():
        raise UsageError(f"{target} exists and is not a folder")
    present = {entry.name for entry in target.iterdir()}
    if not present:
        return False
    foreign = sorted(present - _own_files(target))
    if CONFIG_FILE not in present or foreign:
        held = f" (it holds {foreign[0]})" if foreign else ""
        raise UsageError(f"{target} exists and is not a model folder and nothing else{held}: choose another")
    return True


def _own_files(folder: Path) -> set[str]:
    """The files that lumen may have written into a model folder."""
    from lumen_cli.registry.card import read_card

    try:
        weights = {file.file for file in read_card(folder).files.values()}
    except ModelError:
        weights = set()
    return {CONFIG_FILE, CARD_FILE, NETWORK_FILE, GRADING_FILE, "model.safetensors", *weights}


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; at the end it replaces the target, after an error it is removed.

    Raises:
        ModelError: the target cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        sweep_temporaries([target.parent], whole_folders=True)
        temporary.mkdir(parents=True)
        yield temporary
        _put_in_place(temporary, target)
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename; an earlier folder is moved away first, and back if the rename fails."""
    if not target.is_dir():
        temporary.rename(target)
        return
    former = temporary_beside(target)
    try:
        target.rename(former)
        temporary.rename(target)
    finally:  # Ctrl-C between the two included
        if former.exists() and not target.exists():
            former.rename(target)
    if former.is_symlink():
        former.unlink()
    else:
        shutil.rmtree(former, ignore_errors=True)
