"""Every recipe, so small that a stage of it fits into a test."""

from __future__ import annotations

from lumen_cli.training.recipes import anlightendiff, diffll, kind, lightendiffusion, lldiffusion
from lumen_cli.training.recipes.base import Recipe, Stage


def stages(*names: str, crop: int = 32) -> tuple[Stage, ...]:
    return tuple(Stage(name, steps=3, batch=2, crop=crop, rate=2e-3) for name in names)


TINY: dict[str, Recipe] = {
    "anlightendiff": anlightendiff.AnlightenDiffRecipe(
        network=anlightendiff.Network(dim=4, multipliers=(1, 1, 2)), stages=stages("joint", "refine")
    ),
    "diffll": diffll.DiffLLRecipe(
        network=diffll.Network(unet_multipliers=(1, 2), detail_channels=8), stages=stages("joint", "refine")
    ),
    "kind": kind.KinDRecipe(
        network=kind.Network(16, 4, (1, 1, 2, 2, 2), 8),
        stages=stages("decomposition", "adjustment", "restoration", "joint", "refine"),
    ),
    "lightendiffusion": lightendiffusion.LightenDiffusionRecipe(
        network=lightendiffusion.Network(unet_multipliers=(1, 1), ctdn_channels=8, steps=2),
        stages=stages("decomposition", "diffusion", "joint"),
    ),
    "lldiffusion": lldiffusion.LLDiffusionRecipe(
        network=lldiffusion.Network(
            unet_multipliers=(1, 1, 1, 1, 1, 1), encoder_channels=1, feature_channels=(32, 32, 32, 32, 32, 32)
        ),
        stages=stages("joint", "refine", crop=64),
    ),
}
