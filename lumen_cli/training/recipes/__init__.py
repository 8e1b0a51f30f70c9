"""A module per model with its recipes: `COMPACT`, lumen's own for small hardware, and `PAPER`, as published."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Sequence
from typing import Any

from lumen_cli.errors import UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, import_object, network_class
from lumen_cli.training.recipes.base import Recipe


def make_recipe(name: str, network: Sequence[str] = (), preset: str = "compact", **settings: Any) -> Recipe:
    """The recipe of an architecture.

    Args:
        name: the id of an architecture with recipes.
        network: changes to its network as "field=value", the value in JSON ("unet_channels=64").
        preset: "compact" or "paper".
        settings: changes to the recipe itself; None keeps the recipe's own value.

    Raises:
        UsageError: no such recipe, field or value.
    """
    recipes = {each.id: each.recipes for each in ARCHITECTURES.values() if each.recipes}
    if name not in recipes:
        raise UsageError(f"there is no training recipe for {name}; known: {', '.join(sorted(recipes))}")
    recipe: Any = import_object(f"{recipes[name]}:{preset.upper()}")
    if dataclasses.is_dataclass(recipe.network):
        fields = {each.name for each in dataclasses.fields(recipe.network)}
    else:  # what the recipe decides itself cannot be changed
        fields = set(inspect.signature(network_class(name)).parameters) - set(recipe.network_config())
    changes = {key: value for key, value in settings.items() if value is not None}
    if foreign := sorted(changes.keys() - {each.name for each in dataclasses.fields(recipe)}):
        raise UsageError(f"{name} has no {foreign[0]} to choose")
    values = {}
    for change in network:
        key, equals, text = change.partition("=")
        if key not in fields or not equals:
            expected = f"expected FIELD=VALUE with one of {', '.join(sorted(fields))}"
            raise UsageError(f"{change!r} does not change the network: {expected}", remedy="network")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        if dataclasses.is_dataclass(recipe.network):
            values = dataclasses.replace(recipe.network, **values)  # type: ignore[type-var, assignment]
        changed: Recipe = dataclasses.replace(recipe, network=values, **changes)
        changed.build()
    except (TypeError, ValueError) as error:
        raise UsageError(f"such a network cannot be built: {error}") from None
    return changed
