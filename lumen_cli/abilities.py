"""What some models can do and others cannot, and the range of what a user may ask of them."""

from __future__ import annotations

from lumen_cli.card import ModelCard
from lumen_cli.errors import LumenError, ModelError, UsageError
from lumen_cli.registry import list_models

DIMMEST, BRIGHTEST = 0.1, 10.0
"""Range of the brightness: target over source illumination."""

_REFUSALS: dict[str, tuple[type[LumenError], str]] = {
    "decompose": (ModelError, "cannot decompose pictures"),
    "brightness": (UsageError, "takes no brightness"),
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


def brightness_for(card: ModelCard, asked: float | None) -> float | None:
    """The brightness to run with, None where the model chooses; UsageError out of range or for a model without."""
    if asked is None:
        return None
    if not DIMMEST <= asked <= BRIGHTEST:
        raise UsageError(f"brightness has to be from {DIMMEST:g} to {BRIGHTEST:g}, not {asked:g}")
    require_ability(card, "brightness")
    return asked
