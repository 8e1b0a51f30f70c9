"""A module per model with its recipes: `COMPACT`, lumen's own for small hardware, and `PAPER`, as published."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.errors import UsageError
from lumen_cli.networks import gain_to
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.unet import ResBlock
from lumen_cli.registry.architectures import ARCHITECTURES, import_object, network_class


@dataclass(frozen=True)
class Stage:
    """One part of a training."""

    name: str
    steps: int
    """Length, unless the user names another."""
    batch: int
    """Pictures per step."""
    crop: int
    """Side of the crops in pixels."""
    rate: float
    """Peak learning rate of Adam."""
    rates: Literal["cosine", "constant", "staircase"] = "cosine"
    """How the rate changes. "cosine" rises quickly, then falls to a fiftieth, with weight decay and a bound on the
    gradient's norm. "constant" and "staircase" (times 0.8 after every tenth of the stage) are the papers' ways, without
    either."""


class Recipe(Protocol):
    """How one architecture is trained."""

    @property
    def architecture(self) -> str:
        """The id of the architecture."""

    @property
    def network(self) -> Any:
        """The hyper-parameters of the network to train, a dataclass or a mapping."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The parts of a training, in order."""

    def build(self) -> LowLightModel:
        """A new network, initialised by torch's global generator."""

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json."""

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """The parameters that this stage changes."""

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Weighted terms by name. A step minimises their sum."""


@dataclass(frozen=True)
class CompactRecipe:
    """A part of lumen's own recipes: the network of the hyper-parameters `network`, all of it trained."""

    architecture: str
    network: Mapping[str, Any]
    weights: Mapping[str, float]
    """Of the loss terms, by name."""

    def build(self, **more: Any) -> LowLightModel:
        """See `Recipe`; more: hyper-parameters that only training needs."""
        model = network_class(self.architecture)(**self.network_config() | more)
        self.initialise(model)
        return model

    def initialise(self, model: Any) -> None:
        """Set the values that a training starts from, where PyTorch's own do not serve."""

    def network_config(self) -> dict[str, object]:
        """See `Recipe`."""
        return _with_lists(self.network)

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """See `Recipe`: every parameter."""
        return model.parameters()


@dataclass(frozen=True)
class PaperRecipe:
    """A model as published: the paper's losses, batches, crops, rates and lengths, on LOL-v1's 485 pairs.

    Where a release leaves something out, or needs something that lumen lacks, the module of the model says what
    replaces it.
    """

    architecture: str
    network: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the published network."""
    stages: tuple[Stage, ...] = ()

    parts: ClassVar[Mapping[str, str]] = {}
    """Stage → the submodule that it trains. Other stages train the whole network."""

    def build(self) -> LowLightModel:
        """See `Recipe`; PyTorch's own initialisation."""
        return network_class(self.architecture)(**self.network)

    def network_config(self) -> dict[str, object]:
        """See `Recipe`: only what differs from the published network."""
        return _with_lists(self.network)

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """See `Recipe`: the stage's part."""
        return model.get_submodule(self.parts.get(stage.name, "")).parameters()

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `Recipe`: the paper's terms of this stage, from `LowLightModel.losses`."""
        terms = model.losses(batch, generator)
        prefix = f"{stage.name}/"
        chosen = {name.removeprefix(prefix): term for name, term in terms.items() if name.startswith(prefix)}
        return chosen or {name: term for name, term in terms.items() if name != "total"}


def _with_lists(values: Mapping[str, Any]) -> dict[str, object]:
    """Values as JSON gives them back: lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def structure(output: Tensor, target: Tensor, window: int = 7, stride: int = 2) -> Tensor:
    """1 - SSIM with a uniform window (Wang et al., 2004, with C1 = 0.01², C2 = 0.03²); a scalar in [0, 2]."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=stride)

    mx, my = mean(output), mean(target)
    vx = mean(output * output) - mx * mx
    vy = mean(target * target) - my * my
    covariance = mean(output * target) - mx * my
    similarity = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4)
    return 1.0 - (similarity / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))).mean()


def fidelity(output: Tensor, target: Tensor, structure_weight: float = 0.2) -> Tensor:
    """L1 plus weighted structural dissimilarity of an unbounded output and a target in [0, 1], B×3×H×W; a scalar."""
    output = output.float()
    return F.l1_loss(output, target) + structure_weight * structure(output, target)


def smoothness(illumination: Tensor, guide: Tensor, sharpness: float = 10.0) -> Tensor:
    """Σ |∇L| · exp(-k |∇guide|): the illumination may change only where the guide does (Wei et al., 2018, eq. 5).

    `illumination` B×1×h×w, `guide` B×C×h×w of the same size; a scalar.
    """
    guide = guide.mean(dim=1, keepdim=True)
    loss = illumination.new_zeros(())
    for axis in (-1, -2):
        change, edge = illumination.diff(dim=axis).abs(), guide.diff(dim=axis).abs()
        loss = loss + (change * (-sharpness * edge).exp()).mean()
    return loss


def retinex_anchor(picture: Tensor, reflectance: Tensor, illumination: Tensor, darkest: float = 0.0) -> Tensor:
    """The distance of Retinex maps from the usual first guess, L_0 = max over channels, R_0 = I / L_0; a scalar.

    A weak pull away from trivial decompositions such as R = 1, L = I, which explain every picture and separate nothing.
    `darkest` bounds the divisor.
    """
    brightest = picture.amax(dim=1, keepdim=True)
    estimate = (picture / brightest.clamp_min(darkest)).clamp(0.02, 0.98)
    # Compared before the sigmoid: after it, a reflectance that has reached 1 no longer gets a gradient.
    return F.l1_loss(illumination, brightest) + 0.1 * F.smooth_l1_loss(
        torch.logit(reflectance, 1e-6), torch.logit(estimate)
    )


def misexposed_gain(whole: Tensor, exposure: float, stops: float, generator: torch.Generator) -> Tensor:
    """`gain_to` of the whole pictures that crops are cut from, wrong by up to `stops` either way, never below 1."""
    off = stops * (2.0 * torch.rand(len(whole), 1, 1, 1, generator=generator, device=whole.device) - 1.0)
    return (gain_to(whole, exposure) * torch.exp2(off)).clamp_min(1.0)


def zero_residuals(network: nn.Module) -> None:
    """Make the residual blocks of a network's U-Nets pass their input on, as a start for training."""
    for module in network.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)


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
    fields = set(recipe.network)
    if preset == "paper":  # what the recipe decides itself cannot be changed
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
        changed: Recipe = dataclasses.replace(recipe, network={**recipe.network, **values}, **changes)
        changed.build()
    except (TypeError, ValueError) as error:
        raise UsageError(f"such a network cannot be built: {error}") from None
    return changed
