"""Find model folders by name."""

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
"""The architecture of models that average others and have no network of their own."""
AUTO = "auto"
"""Instead of a model's name: the first of `PREFERRED` for the task that is installed, with its members."""
PREFERRED = {"enhance": ("lumen", "lightendiffusion"), "decompose": ("kind", "lightendiffusion")}
RESERVED = frozenset((AUTO, "default", "none"))
"""Names that no model may have, in upper or lower case: they have another meaning instead of a model's name."""
DEFAULT_MODEL = AUTO


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
    import platformdirs

    return platformdirs.user_data_path("lumen") / "models"


def scan_models() -> tuple[list[ModelCard], list[tuple[Path, ModelError]]]:
    """All usable models by name, and the folders with an unusable config.json and its error.

    Of two folders with the same name and checksum, one with weights goes before one without.
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


def check_light(card: ModelCard, brightness: float | None, illumination_ratio: float | None) -> None:
    """UsageError for a value out of range, for both values together, or for a ratio that the model does not take."""
    if brightness is not None and illumination_ratio is not None:
        raise UsageError("brightness and illumination ratio cannot be combined: both set the light")
    for name, value in (("brightness", brightness), ("illumination ratio", illumination_ratio)):
        if value is not None and not DIMMEST <= value <= BRIGHTEST:
            raise UsageError(f"{name} must be from {DIMMEST:g} to {BRIGHTEST:g}, not {value:g}")
    if illumination_ratio is not None:
        require_ability(card, "illumination-ratio")
