"""Read and write weights, and load the network of a checked card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lumen_cli.atomic import atomic_file
from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel, Mean
from lumen_cli.networks.grading import Grading
from lumen_cli.registry import (
    CONFIG_FILE,
    LOL_GRADING_FILE,
    LOL_GRADING_SHA256,
    MEAN,
    GradingName,
    bundled_models,
    find_model,
    is_model,
    pull_command,
)
from lumen_cli.registry.architectures import ARCHITECTURES, network_class
from lumen_cli.registry.card import ModelCard, WeightsFile
from lumen_cli.text import join_first

if TYPE_CHECKING:
    from lumen_cli.networks.lol_grading import LolGrading


def load_weights(path: Path, sha256: str | None = None, *, model: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file on the CPU; floating point tensors come back as float32 whatever they are stored in.

    Args:
        path: the file.
        sha256: the checksum the file must have, 64 hexadecimal digits; None skips the check.
        model: the model's name, for errors.

    Raises:
        ModelError: the file is missing, is not safetensors, or has another checksum (the message has both).
    """
    whose = f"model {model}: " if model else ""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{whose}the weights file {path} is no ordinary file")
        content = path.read_bytes()  # hashed and parsed from the same bytes: nothing can change in between
    except FileNotFoundError:
        raise ModelError(f"{whose}the weights file {path} is missing") from None
    except OSError as error:
        raise ModelError(f"{whose}the weights file {path} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise ModelError(f"{whose}the weights file {path} does not fit into memory") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        hint = " (a Git LFS pointer: run `git lfs pull`)" if content.startswith(b"version https://git-lfs") else ""
        raise ModelError(f"{whose}the weights file {path} is damaged{hint}: expected SHA-256 {sha256}, found {found}")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_weights(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Write tensors as safetensors and return the file's entry in config.json: name, SHA-256, size.

    The file appears whole or not at all. `dtype` (bfloat16, float16) stores floating point tensors smaller;
    None keeps each as it is.
    """
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous().clone()
        for name, tensor in sorted(tensors.items())
    }
    content = safetensors.torch.save(stored, metadata={"format": "pt"})
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def read_shapes(path: Path, *, model: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values, on PyTorch's device "meta": only its header is read.

    Raises:
        ModelError: it is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        whose = f"model {model}: " if model else ""
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def apply_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """Put tensors into a module; ModelError lists the first names that are missing, unknown or of another shape."""
    require_fit(module, tensors, path, model=model)
    module.load_state_dict(dict(tensors))


def require_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """ModelError as in `apply_weights`; the module may be one without memory, on PyTorch's device "meta"."""
    expected = module.state_dict()
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} (expected {_shape(expected[name])}, found {_shape(tensors[name])})"
            for name in expected
            if name in tensors and expected[name].shape != tensors[name].shape
        ],
    }
    found = [f"{len(names)} {kind}: {join_first(names)}" for kind, names in problems.items() if names]
    if found:
        whose = f"model {model}: " if model else ""
        what = "grading" if isinstance(module, Grading) else "network"
        raise ModelError(f"{whose}the weights in {path} do not fit the {what} of config.json: {'; '.join(found)}")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def load(card: ModelCard, grading: GradingName | Literal["none"] = "photo") -> LowLightModel:
    """The card's network with its weights: on the CPU, in float32, in eval mode, without gradients.

    grading: "photo" is the model's own, "lol" the one of all models that knows LOL's scenes (`LolGrading`); "none"
        leaves the network's results as they are.

    Raises:
        ModelError: weights are missing, damaged (the message has both checksums), or have other names or shapes;
            the architecture is unknown; or it does not take these hyper-parameters.
    """
    if card.to_pull:
        missing = next(path for path in map(card.path, card.files.values()) if not path.exists())
        raise ModelError(f"model {card.name}: its weights are not here yet ({missing}): run `{pull_command(card)}`")
    weights = _read(card, lambda file: load_weights(card.path(file), file.sha256, model=card.name))
    if card.architecture in ARCHITECTURES and card.folder.parent != bundled_models():
        # Without memory first: of a stranger's numbers only those that fit the weights are built for real.
        _require_fit(card, weights)
    if _is_mean(card):
        network = _load_mean(card, graded=grading == "photo")
    else:
        network = _build(card)
        apply_weights(network, *weights["network"], model=card.name)
    if grading == "lol":
        network.grading = load_lol_grading()
    elif grading == "photo" and card.grading is not None:
        network.grading = _build_grading(card)
        apply_weights(network.grading, *weights["grading"], model=card.name)
    return network.requires_grad_(False).eval().float()


def require_loadable(card: ModelCard) -> None:
    """Do nothing if `load` accepts the card and its weights; values and checksums are not checked.

    This reads only the headers of the weights files, and builds an architecture of ours without memory.

    Raises:
        ModelError: as `load` does.
    """
    _require_fit(card, _read(card, lambda file: read_shapes(card.path(file), model=card.name)))


def find_members(card: ModelCard) -> list[ModelCard]:
    """The models that a model averages, found by name.

    Raises:
        ModelError: some are not here (the message names all of these), have other weights, or have members themselves.
    """
    where = card.folder / CONFIG_FILE
    if card.architecture != MEAN or not card.members:
        raise ModelError(f'{where}: "members" go with the architecture {MEAN}, and the other way round')
    missing = [each.model for each in card.members if not is_model(each.model)]
    if missing:
        raise ModelError(f"{where}: there is no model {' and no model '.join(missing)} here, which it averages")
    cards = [find_model(each.model) for each in card.members]
    for each, found in zip(card.members, cards, strict=True):
        if found.members:
            raise ModelError(f"{where}: its member {each.model} has members itself")
        if found.weights_sha256 != each.sha256:
            raise ModelError(
                f"{where}: its member {each.model} has other weights here ({found.folder}): expected SHA-256 "
                f"{each.sha256}, found {found.weights_sha256}"
            )
    return cards


def load_lol_grading() -> LolGrading:
    """The bundled grading that knows LOL's scenes; ModelError where its file is missing or damaged."""
    from lumen_cli.networks.lol_grading import LolGrading  # few runs ask for it

    path = bundled_models() / LOL_GRADING_FILE
    grading = LolGrading()
    apply_weights(grading, load_weights(path, LOL_GRADING_SHA256, model="lol-grading"), path, model="lol-grading")
    return grading


Weights = dict[str, tuple[dict[str, Tensor], Path]]
"""Tensors by part, "network" and "grading", and the file they come from."""
_FORMER = {"rendition.development.": "auto_exposure.", "rendition.judge.": "gate.", "rendition.": ""}
"""Names of a grading's tensors in the single file of earlier versions, and what they became."""


def _read(card: ModelCard, read: Callable[[WeightsFile], dict[str, Tensor]]) -> Weights:
    weights: Weights = {part: ({}, card.path(file)) for part, file in card.files.items()}
    if card.grading is not None and "grading" not in weights:
        weights["grading"] = {}, weights["network"][1]
    for part, file in card.files.items():
        for name, tensor in read(file).items():
            start = next((start for start in _FORMER if name.startswith(start)), "") if card.grading else ""
            weights["grading" if start else part][0][_FORMER.get(start, "") + name.removeprefix(start)] = tensor
    return weights


def _require_fit(card: ModelCard, weights: Weights) -> None:
    if _is_mean(card):
        _require_multiple(math.lcm(*(found.size_multiple for found in find_members(card))), card)
    else:
        require_fit(_build(card, meta=card.architecture in ARCHITECTURES), *weights["network"], model=card.name)
    if card.grading is not None:
        require_fit(_build_grading(card, meta=True), *weights["grading"], model=card.name)


def _is_mean(card: ModelCard) -> bool:
    return bool(card.members) or card.architecture == MEAN


def _load_mean(card: ModelCard, *, graded: bool) -> LowLightModel:
    """A model that averages others. `graded`: members grade their own results. Its own grading grades the mean."""
    cards = find_members(card)
    steps = [found.defaults.steps for found in cards]
    members = [load(found, "photo" if graded else "none") for found in cards]
    network = Mean(members, [each.share for each in card.members], steps)
    _require_multiple(network.size_multiple, card)
    return network


def _build(card: ModelCard, *, meta: bool = False) -> LowLightModel:
    """The network of a card's hyper-parameters; `meta`: without memory for its values."""
    try:
        build = network_class(card.architecture)
    except ModelError as error:
        raise ModelError(f"{card.folder / CONFIG_FILE}: {error}") from error
    try:
        with torch.device("meta") if meta else nullcontext():
            network = build(**card.network)
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        reason = f'"network" does not fit the architecture {card.architecture}: {error}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}") from error
    _require_multiple(network.size_multiple, card)
    return network


def _build_grading(card: ModelCard, *, meta: bool = False) -> Grading:
    assert card.grading is not None
    try:
        with torch.device("meta") if meta else nullcontext():
            return Grading(card.grading.channels, card.grading.heads)
    except ValueError as error:
        raise ModelError(f'{card.folder / CONFIG_FILE}: "grading": {error}') from None


def _require_multiple(expected: int, card: ModelCard) -> None:
    if expected != card.size_multiple:
        reason = f'"size_multiple": expected {expected} (the network\'s), found {card.size_multiple}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}")
