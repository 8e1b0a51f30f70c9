"""The recipes by name, and how a user changes their network."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

from lumen_cli.errors import UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, import_object, network_class
from lumen_cli.training.recipes.base import Recipe

RECIPES = {each.id: each.recipe for each in ARCHITECTURES.values() if each.recipe}
"""Architecture → "module:Class" of its recipe, a frozen dataclass with a `network` dataclass in it."""


def make_recipe(name: str, network: Sequence[str] = (), preset: str = "compact", **settings: Any) -> Recipe:
    """The recipe of an architecture.

    Args:
        name: a key of `RECIPES`.
        network: changes to its network as "field=value", the value in JSON ("unet_channels=64").
        preset: "compact", lumen's own recipe for small hardware, or "paper", as published.
        settings: changes to the recipe itself; None leaves the recipe's own.

    Raises:
        UsageError: no such recipe, field or value.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no training recipe for {name}; known: {', '.join(sorted(RECIPES))}")
    recipe: Any
    if preset == "paper":
        recipe = importlib.import_module("lumen_cli.training.recipes.paper").PaperRecipe(name)
        fields = _published_network(name)
    else:
        recipe = import_object(RECIPES[name])()
        fields = {each.name for each in dataclasses.fields(recipe.network)}
    known = {each.name for each in dataclasses.fields(recipe)}
    changes = {key: value for key, value in settings.items() if value is not None}
    if foreign := sorted(changes.keys() - known):
        raise UsageError(f"{name} has no {foreign[0]} to choose")
    values = {}
    for change in network:
        key, equals, text = change.partition("=")
        if key not in fields or not equals:
            raise UsageError(f"--network {change}: expected FIELD=VALUE with one of {', '.join(sorted(fields))}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        changed_network = values if preset == "paper" else dataclasses.replace(recipe.network, **values)
        changed: Recipe = dataclasses.replace(recipe, network=changed_network, **changes)
        changed.build()
    except (TypeError, ValueError) as error:
        raise UsageError(f"such a network cannot be built: {error}") from None
    return changed


def _published_network(name: str) -> set[str]:
    """The fields that a published network takes in config.json."""
    return set(inspect.signature(network_class(name).__init__).parameters) - {"self", "degradation_network"}
