"""From a checked card to its network: built, compared with its weights, filled."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import cast

import torch
from torch import nn

from lumen_cli.card import CONFIG_FILE, ModelCard
from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.mean import Mean
from lumen_cli.networks.rendition import Rendition
from lumen_cli.registry import ARCHITECTURES, MEAN, bundled_models, find_model, is_model, network_class, pull_command
from lumen_cli.weights import apply_weights, load_weights, read_shapes, require_fit


def load_network(card: ModelCard) -> LowLightModel:
    """The card's network with its weights, on the CPU in float32; errors as of `registry.load`."""
    if card.to_pull:
        where = card.weights_path
        raise ModelError(f"model {card.name}: its weights are not here yet ({where}): run `{pull_command(card)}`")
    if _is_mean(card):
        return _load_mean(card)
    tensors = load_weights(card.weights_path, card.weights_sha256, model=card.name)
    if card.architecture in ARCHITECTURES and card.folder.parent != bundled_models():
        # Without memory first: of a stranger's numbers only those that fit the weights are built for real.
        require_fit(_build(card, meta=True), tensors, card.weights_path, model=card.name)
    network = _build(card)
    apply_weights(network, tensors, card.weights_path, model=card.name)
    return network.requires_grad_(False).eval()


def require_loadable(card: ModelCard) -> None:
    """Do nothing if `load_network` will take the card and its weights; values and checksum are not looked at.

    Only the header of the weights file is read, and an architecture of ours is built without memory.

    Raises:
        ModelError: as of `registry.load`.
    """
    network: nn.Module
    if _is_mean(card):
        _require_multiple(math.lcm(*(found.size_multiple for found in find_members(card))), card)
        if card.rendition is None:
            return
        network = _own_rendition(card)
    else:
        network = _build(card, meta=card.architecture in ARCHITECTURES)
    require_fit(network, read_shapes(card.weights_path, model=card.name), card.weights_path, model=card.name)


def find_members(card: ModelCard) -> list[ModelCard]:
    """The models that a model averages, found by name: they have to be those it was measured with.

    Raises:
        ModelError: some of them are not here (all of these are named), have other weights, or have members themselves.
    """
    where = card.folder / CONFIG_FILE
    if card.architecture != MEAN or not card.members:
        raise ModelError(f'{where}: "members" go with the architecture {MEAN}, and the other way round')
    missing = [each.name for each in card.members if not is_model(each.name)]
    if missing:
        raise ModelError(f"{where}: there is no model {' and no model '.join(missing)} here, which it averages")
    cards = [find_model(each.name) for each in card.members]
    for each, found in zip(card.members, cards, strict=True):
        if found.members:
            raise ModelError(f"{where}: its member {each.name} has members itself")
        if found.weights_sha256 != each.sha256:
            raise ModelError(
                f"{where}: its member {each.name} has other weights here ({found.folder}): expected SHA-256 "
                f"{each.sha256}, found {found.weights_sha256}"
            )
    return cards


def _is_mean(card: ModelCard) -> bool:
    return bool(card.members) or card.architecture == MEAN


def _load_mean(card: ModelCard) -> LowLightModel:
    """A model that averages others.

    Its members finish their pictures with the renditions that they have; a rendition of its own bends the mean.
    """
    cards = find_members(card)
    network = Mean(
        [load_network(found) for found in cards],
        [each.share for each in card.members],
        [found.default_steps for found in cards],
    )
    _require_multiple(network.size_multiple, card)
    if card.rendition is not None:
        tensors = load_weights(card.weights_path, card.file_sha256, model=card.name)
        own = _own_rendition(card)
        apply_weights(own, tensors, card.weights_path, model=card.name)
        network.rendition = cast(Rendition, own["rendition"])
    return network.requires_grad_(False).eval()


def _own_rendition(card: ModelCard) -> nn.ModuleDict:
    """The rendition of a model that averages others, in a module of its own: its members have files of their own."""
    try:
        return nn.ModuleDict({"rendition": Rendition(**(card.rendition or {}))})
    except ValueError as error:
        raise ModelError(f'{card.folder / CONFIG_FILE}: "rendition": {error}') from None


def _build(card: ModelCard, *, meta: bool = False) -> LowLightModel:
    """The network of a card's hyper-parameters; `meta`: without memory for its values."""
    try:
        build = network_class(card.architecture)
    except ModelError as error:
        raise ModelError(f"{card.folder / CONFIG_FILE}: {error}") from error
    try:
        with torch.device("meta") if meta else nullcontext():
            network = build(**card.network)
            if card.rendition is not None:
                network.rendition = Rendition(**card.rendition)
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        reason = f'"network" does not fit the architecture {card.architecture}: {error}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}") from error
    _require_multiple(network.size_multiple, card)
    return network


def _require_multiple(expected: int, card: ModelCard) -> None:
    if expected != card.size_multiple:
        reason = f'"size_multiple": expected {expected} (the network\'s), found {card.size_multiple}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}")
