"""Every recipe, so small that a stage of it fits into a test."""

from __future__ import annotations

import dataclasses
import json

from lumen_cli.registry.architectures import ARCHITECTURES
from lumen_cli.training.recipes import Recipe, make_recipe


def tiny_recipe(name: str, preset: str = "compact", *changes: str, crop: int = 32) -> Recipe:
    """The recipe of an architecture for its tiny network, with stages of three steps on crops of `crop` pixels."""
    sizes = [f"{field}={json.dumps(value)}" for field, value in ARCHITECTURES[name].tiny.items()]
    recipe = make_recipe(name, [*sizes, *changes], preset)
    stages = [dataclasses.replace(stage, steps=3, batch=2, crop=crop, rate=2e-3) for stage in recipe.stages]
    return dataclasses.replace(recipe, stages=tuple(stages))  # type: ignore[type-var]


TINY: dict[str, Recipe] = {
    name: tiny_recipe(name, crop=64 if name == "lldiffusion" else 32)
    for name, architecture in ARCHITECTURES.items()
    if architecture.recipes
}
