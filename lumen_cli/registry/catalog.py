"""The models that are here, by name."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import LumenError, ModelError, UsageError
from lumen_cli.registry.architectures import ARCHITECTURES
from lumen_cli.registry.config_file import CONFIG_FILE, HUGGING_FACE
from lumen_cli.text import did_you_mean, nearest

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard

MEAN = "mean"
"""The architecture of models that average others and have no weights of their own."""
AUTO = "auto"
"""In place of a model's name: the first of `PREFERRED` for the task that is here, with its members."""
PREFERRED = {"enhance": ("lumen", "lightendiffusion"), "decompose": ("kind", "lightendiffusion")}
RESERVED = frozenset((AUTO, "default", "none"))
"""Names that no model may have, in any case of letters: they mean something else in place of a model's."""
DEFAULT_MODEL = AUTO


def model_roots() -> list[Path]:
    """Folders that hold model folders, the ones that win by name first.

    LUMEN_MODELS (several separated as in PATH), then the user's data folder, then the models that come with lumen.
    """
    extra = [Path(entry) for entry in os.environ.get("LUMEN_MODELS", "").split(os.pathsep) if entry]
    return [*extra, user_models(), bundled_models()]


def bundled_models() -> Path:
    """The folder of the models that come with lumen."""
    package = Path(__file__).parents[1]
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def user_models() -> Path:
    """The folder of the user's own models, in the user's data folder; it need not exist."""
    import platformdirs

    return platformdirs.user_data_path("lumen") / "models"


def scan_models() -> tuple[list[ModelCard], list[tuple[Path, ModelError]]]:
    """All usable models by name, and the folders whose config.json is not usable with what is wrong.

    A folder whose weights are not here yet gives way to a later one of the same name that has them.
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
    """The models that can be named, sorted by name; folders with a bad config.json are left out."""
    return scan_models()[0]


def find_model(name_or_folder: str | os.PathLike[str], ability: str = "enhance") -> ModelCard:
    """The card for a model's name, "auto", a model folder or `hf://org/name[@revision]`.

    `ability`: what "auto" has to be able to do; of a model that is named nothing is asked here.

    Raises:
        ModelError: nothing of that name (with the list and the nearest name), or its config.json is not usable.
    """
    from lumen_cli.registry.card import read_card

    wanted = os.fspath(name_or_folder)
    if wanted.startswith(HUGGING_FACE):
        from lumen_cli.registry.hub import download_model

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
    raise ModelError(f"none of the models here can {ability}; `lumen models` lists them")


def default_model(cards: list[ModelCard]) -> str:
    """The name of the model that enhances where none is named; empty where none of them can."""
    try:
        return _best(cards, "enhance").name
    except ModelError:
        return ""


def is_model(name_or_folder: str) -> bool:
    """Whether there is a folder under that name or path, usable or not."""
    cards, broken = scan_models()
    names = {card.name for card in cards} | {folder.name for folder, _ in broken}
    return name_or_folder in names or (Path(name_or_folder).expanduser() / CONFIG_FILE).is_file()


def require_usable_name(name: str) -> None:
    """UsageError where a model of that name could never be named, as the name means something else."""
    if name.casefold() in RESERVED:
        raise UsageError(f"a model cannot be called {name}: in place of a model's name this means something else")


def pull_command(card: ModelCard) -> str:
    """The command that fetches a model's weights."""
    named = card.folder.parent in model_roots()
    return f"lumen models pull {card.name if named else shlex.quote(str(card.folder))}"


def _model_folders(root: Path) -> Iterator[Path]:
    try:
        # Hidden ones are in the making.
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
    """Do nothing if the model can do it.

    Raises:
        ModelError, UsageError: it cannot; names those that can.
    """
    if ability in card.abilities:
        return
    kind, refusal = _REFUSALS[ability]
    others = ", ".join(other.name for other in list_models() if ability in other.abilities)
    raise kind(f"{card.name} {refusal}; models that can: {others or 'none here'}")


def check_light(card: ModelCard, brightness: float | None, illumination_ratio: float | None) -> None:
    """UsageError for a value out of range, for both together, and for a ratio where the model takes none."""
    if brightness is not None and illumination_ratio is not None:
        raise UsageError("brightness and illumination ratio cannot be combined: both decide about the light")
    for name, value in (("brightness", brightness), ("illumination ratio", illumination_ratio)):
        if value is not None and not DIMMEST <= value <= BRIGHTEST:
            raise UsageError(f"{name} has to be from {DIMMEST:g} to {BRIGHTEST:g}, not {value:g}")
    if illumination_ratio is not None:
        require_ability(card, "illumination-ratio")
