"""Convert the authors' checkpoint to a model folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.files.contents import checksum
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry import (
    CARD_FILE,
    CONFIG_FILE,
    NETWORK_FILE,
    atomic_folder,
    holds_model,
    require_usable_name,
    user_models,
)
from lumen_cli.registry.architectures import ARCHITECTURES, Architecture, Release, import_object
from lumen_cli.registry.card import NAME, ImportedFile, ModelCard, read_card
from lumen_cli.registry.checkpoints import Source, find_checkpoints
from lumen_cli.registry.checkpoints.layouts import Layout, Variant
from lumen_cli.registry.checkpoints.reading_process import (
    Match,
    build_empty,
    check_finite,
    match,
    normalise_names,
    read_apart,
)
from lumen_cli.registry.load import save_weights
from lumen_cli.text import did_you_mean, join_first, nearest

_README = """# {name}

{parameters:,} parameters, float32, made by `lumen models import {architecture}` from

{files}

by name and shape; {which} parameters, not changed.

* Paper: {release.paper_title}, {release.paper_url}
* Release: {release.repository} ({release.where})

## Licence

The weights are not lumen's. Terms: {terms}.
"""


@dataclass(frozen=True)
class Imported:
    """An import that succeeded."""

    card: ModelCard
    variant: Variant
    averaged: bool
    """Whether the averaged parameters were taken."""
    match: Match
    size: int
    """Bytes of the weights file."""


def import_checkpoint(
    architecture: str,
    paths: Sequence[Path],
    folder: Path | None = None,
    *,
    name: str | None = None,
    averaged: bool | None = None,
    ignore: Sequence[str] = (),
    overwrite: bool = False,
) -> Imported:
    """Make a model folder of a checkpoint as the authors publish it. Weights stay float32; nothing is lost.

    The folder appears whole or not at all.

    Args:
        architecture: the id of an architecture with a release.
        paths: the checkpoint. For a model that is published in parts: several files, or a folder that holds them.
        folder: the folder to make. None: the user's own models, under the model's name.
        name: the name of the model. None: the folder's name or, without a folder, "ARCHITECTURE-official".
        averaged: take the averaged parameters (True), the last ones (False), or those that the authors evaluate (None).
        ignore: prefixes of names that may be left over.
        overwrite: whether an existing model folder is replaced.

    Raises:
        UsageError: no such architecture, no usable name, or the folder exists.
        ModelError: the checkpoint cannot be read, was refused, is of another architecture or does not fit.
    """
    known, release, layout = _find_release(architecture)
    if name is None and folder is not None and NAME.fullmatch(folder.name):
        name = folder.name
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"a model cannot be called {name}: expected letters, digits and ._- without spaces")
    if name is not None:
        require_usable_name(name)
        _check_target(folder or user_models() / name, overwrite)
    sources = find_checkpoints(paths, several=layout.several)
    where = ", ".join(str(source.path) for source in sources[:3])
    tensors, took_averages = _gather(sources, layout, averaged, release.averaged)
    _check_architecture(architecture, tensors, where, paths)
    variant = layout.variant({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    try:
        layout.check(tensors)
        network = build_empty(architecture, variant.network)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    matched = match(network, tensors, ignore)
    if matched.problems:
        advice, remedy = _advice(matched, layout)
        raise ModelError(f"{where}: it does not fit {architecture}: {matched.problems}{advice}", remedy=remedy)
    check_finite(matched.taken, where)
    name = name or variant.name
    target = (folder or user_models() / name).absolute()
    _check_target(target, overwrite)
    files = tuple(ImportedFile(file=_label(source.file), sha256=checksum(source.file)) for source in sources)
    with atomic_folder(target) as temporary:
        _write_folder(temporary, name, known, release, variant, network, matched.taken, files, averaged=took_averages)
        read_card(temporary)
    card = read_card(target)
    return Imported(card, variant, took_averages, matched, card.path(card.files["network"]).stat().st_size)


def likeliest(names: Mapping[str, Tensor], asked: str = "") -> str | None:
    """The architecture that most of the names belong to; of several such, the one asked for. None where none fits."""
    layouts = {each.id: import_object(each.layout) for each in ARCHITECTURES.values() if each.layout}
    hits = {id: sum(name.startswith(layout.markers) for name in names) for id, layout in layouts.items()}
    best = max(hits, key=lambda id: (hits[id], id == asked))
    return best if hits[best] else None


def _find_release(architecture: str) -> tuple[Architecture, Release, Layout]:
    """UsageError with the nearest name and the list, where no checkpoints of an architecture are known."""
    released = {each.id: each for each in ARCHITECTURES.values() if each.layout and each.release}
    known = released.get(architecture)
    if known is not None and known.release is not None:
        return known, known.release, import_object(known.layout)
    hint = did_you_mean(nearest(architecture.lower(), released))
    raise UsageError(f"lumen knows no checkpoints of {architecture}.{hint} Known: {', '.join(released)}")


def _gather(
    sources: Sequence[Source], layout: Layout, averaged: bool | None, published_averaged: bool
) -> tuple[dict[str, Tensor], bool]:
    """All tensors of all files by the network's names, and whether averages are among them."""
    together: dict[str, Tensor] = {}
    origin: dict[str, Source] = {}
    took = False
    for source in sources:
        checkpoint = read_apart(source)
        tensors = normalise_names(checkpoint.tensors)
        averages = normalise_names(checkpoint.averages)
        if averages and (averaged if averaged is not None else published_averaged):
            took = True
            tensors |= {name: value for name, value in averages.items() if name.startswith(layout.averaged)}
        tensors = layout.rename(tensors)
        for name in tensors:
            if name in origin:
                files = f"{origin[name].file} and {source.file}"
                raise ModelError(f"{files} both hold {name}: name the files to import")
        together |= tensors
        origin |= dict.fromkeys(tensors, source)
    if averaged and not took:
        files = ", ".join(str(source.path) for source in sources[:3])
        raise ModelError(f"{files}: it holds no averaged parameters, only the last ones")
    return together, took


def _check_architecture(architecture: str, tensors: Mapping[str, Tensor], where: str, paths: Sequence[Path]) -> None:
    likely = likeliest(tensors, architecture)
    if likely is None:
        first = join_first(list(tensors))
        raise ModelError(f"{where}: not a checkpoint of {architecture} (its first tensors: {first})")
    if likely != architecture:
        command = f"lumen models import {likely} {shlex.join(map(str, paths))}"
        raise ModelError(f"{where}: a checkpoint of {likely}, not of {architecture}; import it with `{command}`")


def _advice(matched: Match, layout: Layout) -> tuple[str, str]:
    """The end of a message about a misfit, and the argument that would help."""
    if matched.missing and layout.several:
        return ". The authors publish several files: name all of them, or a folder that holds them", ""
    if matched.left_over and not matched.missing and not matched.misshapen:
        return ". If the model does not need these tensors, ignore them by their prefix", "ignore"
    return "", ""


def _check_target(target: Path, overwrite: bool) -> None:
    if holds_model(target) and not overwrite:
        raise UsageError(f"{target} already exists", remedy="overwrite, name")


def _label(file: Path) -> str:
    """A file's name, with its folder's name where every TensorFlow checkpoint has the same."""
    return f"{file.parent.name}/{file.name}" if ".data-" in file.name else file.name


def _write_folder(
    folder: Path,
    name: str,
    architecture: Architecture,
    release: Release,
    variant: Variant,
    network: LowLightModel,
    tensors: Mapping[str, Tensor],
    files: Sequence[ImportedFile],
    *,
    averaged: bool,
) -> None:
    """Write the model folder's three files, config.json last; `network` needs no values."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    steps = variant.network.get("steps")
    terms = f"the authors': {release.terms}" if variant.release else "not known: the widths are of no known release"
    shapes = f"same shapes as {variant.release}" if variant.release else "shapes of no known release"
    config = {
        "name": name,
        "architecture": architecture.id,
        "summary": f"{architecture.id}, imported: {shapes}" + (", averaged parameters" if averaged else ""),
        "network": variant.network,
        "defaults": {"steps": steps, "precision": "fp32"},
        "steps_range": network.steps_range(),
        "size_multiple": network.size_multiple,
        "precisions": list(variant.precisions),
        "tiling": False,
        "abilities": network.abilities(),
        "weights": {"network": save_weights(tensors, folder / NETWORK_FILE), "parameters": parameters},
        "trained_on": list(variant.trained_on) if variant.release else [],
        "licence": terms,
        "paper": {"title": release.paper_title, "url": release.paper_url},
        "official_checkpoint": f"{release.repository} ({release.where})",
        "imported_from": [file.model_dump() for file in files],
    }
    readme = _README.format(
        name=name,
        architecture=architecture.id,
        parameters=parameters,
        release=release,
        which="averaged" if averaged else "the last",
        terms=terms,
        files="\n".join(f"* `{file.file}`, SHA-256 `{file.sha256}`" for file in files),
    )
    (folder / CARD_FILE).write_text(readme, encoding="utf-8")
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
