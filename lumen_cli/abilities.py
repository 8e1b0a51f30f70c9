"""What some models can do and others cannot, and the range of what a user may ask of them."""

from __future__ import annotations

from lumen_cli.card import ModelCard
from lumen_cli.errors import LumenError, ModelError, UsageError
from lumen_cli.registry import list_models

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
