"""From a checked card to its network: built, compared with its weights, filled."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from lumen_cli.atomic import temporary_beside
from lumen_cli.errors import ModelError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.grading import Grading
from lumen_cli.networks.mean import Mean
from lumen_cli.registry.architectures import ARCHITECTURES, network_class
from lumen_cli.registry.card import CONFIG_FILE, ModelCard
from lumen_cli.registry.catalog import MEAN, bundled_models, find_model, is_model, pull_command

_NAMED_IN_ERRORS = 3


def load_weights(path: Path, sha256: str | None = None, *, model: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file on the CPU; floating point tensors come back as float32 whatever they are stored in.

    Args:
        path: the file.
        sha256: the checksum the file must have, 64 hexadecimal digits; None skips the check.
        model: the model's name, for errors.

    Raises:
        ModelError: the file is missing, is not safetensors, or has another checksum (both are named).
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

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
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def save_weights(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> str:
    """Write tensors as safetensors and return the file's SHA-256.

    The file appears whole or not at all. `dtype` (bfloat16, float16) stores floating point tensors smaller;
    None keeps each as it is.
    """
    from safetensors.torch import save

    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous().clone()
        for name, tensor in sorted(tensors.items())
    }
    content = save(stored, metadata={"format": "pt"})
    temporary = temporary_beside(path)  # no one can know its name before it is there
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def checksum(path: Path) -> str:
    """A file's SHA-256, 64 hexadecimal digits; read in pieces, however large it is."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_shapes(path: Path, *, model: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file without their values, on PyTorch's device "meta": only its header is read.

    Raises:
        ModelError: it is no safetensors file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        whose = f"model {model}: " if model else ""
        raise ModelError(f"{whose}{path} is not a safetensors file: {error}") from None
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def apply_weights(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """Put tensors into a network; ModelError lists the first names that are missing, left over or of another shape."""
    require_fit(network, tensors, path, model=model)
    network.load_state_dict(dict(tensors))


def require_fit(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, model: str | None = None) -> None:
    """ModelError as in `apply_weights`; the network may be one without memory, on PyTorch's device "meta"."""
    expected = network.state_dict()
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} (expected {_shape(expected[name])}, found {_shape(tensors[name])})"
            for name in expected
            if name in tensors and expected[name].shape != tensors[name].shape
        ],
    }
    said = [f"{len(names)} {kind}: {_first(names)}" for kind, names in problems.items() if names]
    if said:
        whose = f"model {model}: " if model else ""
        raise ModelError(f"{whose}the weights in {path} do not fit the network of config.json: {'; '.join(said)}")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_NAMED_IN_ERRORS]) + (", …" if len(names) > _NAMED_IN_ERRORS else "")


def load(card: ModelCard) -> LowLightModel:
    """The card's network with its weights: on the CPU, in float32, in eval mode, without gradients.

    Raises:
        ModelError: the weights are missing, damaged (the message has both checksums), or have other names or shapes;
            the architecture is unknown; or it does not take these hyper-parameters.
    """
    if card.to_pull:
        where = card.weights_path
        raise ModelError(f"model {card.name}: its weights are not here yet ({where}): run `{pull_command(card)}`")
    if _is_mean(card):
        return _load_mean(card)
    tensors = _rename(load_weights(card.weights_path, card.weights_sha256, model=card.name))
    if card.architecture in ARCHITECTURES and card.folder.parent != bundled_models():
        # Without memory first: of a stranger's numbers only those that fit the weights are built for real.
        require_fit(_build(card, meta=True), tensors, card.weights_path, model=card.name)
    network = _build(card)
    apply_weights(network, tensors, card.weights_path, model=card.name)
    return network.requires_grad_(False).eval().float()


def require_loadable(card: ModelCard) -> None:
    """Do nothing if `load` will take the card and its weights; values and checksum are not looked at.

    Only the header of the weights file is read, and an architecture of ours is built without memory.

    Raises:
        ModelError: as `load` does.
    """
    network: nn.Module
    if _is_mean(card):
        _require_multiple(math.lcm(*(found.size_multiple for found in find_members(card))), card)
        if card.grading is None:
            return
        network = _own_grading(card)
    else:
        network = _build(card, meta=card.architecture in ARCHITECTURES)
    require_fit(network, _rename(read_shapes(card.weights_path, model=card.name)), card.weights_path, model=card.name)


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


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Current names for the tensors of a grading in a file that an earlier version of lumen wrote."""
    former = {"rendition.development.": "grading.auto_exposure.", "rendition.judge.": "grading.gate."}
    former["rendition."] = "grading."
    renamed = {}
    for name, tensor in tensors.items():
        start = next((start for start in former if name.startswith(start)), "")
        renamed[former.get(start, "") + name.removeprefix(start)] = tensor
    return renamed


def _is_mean(card: ModelCard) -> bool:
    return bool(card.members) or card.architecture == MEAN


def _load_mean(card: ModelCard) -> LowLightModel:
    """A model that averages others.

    Each member grades its own pictures; a grading of the model itself then grades the mean.
    """
    cards = find_members(card)
    network = Mean(
        [load(found) for found in cards],
        [each.share for each in card.members],
        [found.default_steps for found in cards],
    )
    _require_multiple(network.size_multiple, card)
    if card.grading is not None:
        tensors = _rename(load_weights(card.weights_path, card.file_sha256, model=card.name))
        own = _own_grading(card)
        apply_weights(own, tensors, card.weights_path, model=card.name)
        network.grading = cast(Grading, own["grading"])
    return network.requires_grad_(False).eval().float()


def _own_grading(card: ModelCard) -> nn.ModuleDict:
    """The grading of a model that averages others, in a module by itself: its members have their own files."""
    try:
        return nn.ModuleDict({"grading": Grading(**(card.grading or {}))})
    except ValueError as error:
        raise ModelError(f'{card.folder / CONFIG_FILE}: "grading": {error}') from None


def _build(card: ModelCard, *, meta: bool = False) -> LowLightModel:
    """The network of a card's hyper-parameters; `meta`: without memory for its values."""
    try:
        build = network_class(card.architecture)
    except ModelError as error:
        raise ModelError(f"{card.folder / CONFIG_FILE}: {error}") from error
    try:
        with torch.device("meta") if meta else nullcontext():
            network = build(**card.network)
            if card.grading is not None:
                network.grading = Grading(**card.grading)
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        reason = f'"network" does not fit the architecture {card.architecture}: {error}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}") from error
    _require_multiple(network.size_multiple, card)
    return network


def _require_multiple(expected: int, card: ModelCard) -> None:
    if expected != card.size_multiple:
        reason = f'"size_multiple": expected {expected} (the network\'s), found {card.size_multiple}'
        raise ModelError(f"{card.folder / CONFIG_FILE}: {reason}")
