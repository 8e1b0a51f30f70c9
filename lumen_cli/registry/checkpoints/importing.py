"""From the authors' checkpoint to a model folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry.atomic_folder import holds_model, placing
from lumen_cli.registry.card import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, ImportedFile, ModelCard, read_card
from lumen_cli.registry.card_fields import NAME
from lumen_cli.registry.catalog import require_usable_name, user_models
from lumen_cli.registry.checkpoints.building import build_empty
from lumen_cli.registry.checkpoints.layouts import LAYOUTS, Layout, Variant, likeliest
from lumen_cli.registry.checkpoints.matching import Match, check_finite, first, match, plain_names, with_averages
from lumen_cli.registry.checkpoints.reading import Source, find_checkpoints
from lumen_cli.registry.checkpoints.reading_process import read_apart
from lumen_cli.registry.checkpoints.sources import Official, official_source
from lumen_cli.registry.load import checksum, save_weights

_README = """# {name}

{parameters:,} parameters, float32, made by `lumen models import {official.architecture}` from

{files}

by name and shape; {which} parameters, not changed.

* Paper: {official.paper_title}, {official.paper_url}
* Release: {official.repository} ({official.where})

## Licence

The weights are not lumen's. Terms: {terms}.
"""


def write_folder(
    folder: Path,
    name: str,
    official: Official,
    variant: Variant,
    network: LowLightModel,
    tensors: Mapping[str, Tensor],
    files: Sequence[ImportedFile],
    *,
    averaged: bool,
) -> None:
    """Write the three files into an existing folder, config.json last.

    Args:
        folder: where to.
        name: of the model.
        official: the release.
        variant: the network's hyper-parameters and what is known of the release with these widths.
        network: the network; its values are not read.
        tensors: its state, float32.
        files: what the tensors come from.
        averaged: whether they are the averaged parameters.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    steps = variant.network.get("steps")
    terms = f"the authors': {official.terms}" if variant.release else "not known: the widths are of no known release"
    shapes = f"same shapes as {variant.release}" if variant.release else "shapes of no known release"
    config = {
        "name": name,
        "architecture": official.architecture,
        "summary": f"{official.architecture}, imported: {shapes}" + (", averaged parameters" if averaged else ""),
        "network": variant.network,
        "defaults": {"steps": steps, "precision": "fp32"},
        "steps_range": network.steps_range(),
        "size_multiple": network.size_multiple,
        "precisions": list(variant.precisions),
        "tiling": False,
        "abilities": network.abilities(),
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": save_weights(tensors, folder / WEIGHTS_FILE),
            "bytes": (folder / WEIGHTS_FILE).stat().st_size,
            "parameters": parameters,
        },
        "trained_on": list(variant.trained_on) if variant.release else [],
        "licence": terms,
        "paper": {"title": official.paper_title, "url": official.paper_url},
        "official_checkpoint": f"{official.repository} ({official.where})",
        "imported_from": [asdict(file) for file in files],
    }
    readme = _README.format(
        name=name,
        parameters=parameters,
        official=official,
        which="averaged" if averaged else "the last",
        terms=terms,
        files="\n".join(f"* `{file.file}`, SHA-256 `{file.sha256}`" for file in files),
    )
    (folder / CARD_FILE).write_text(readme, encoding="utf-8")
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Imported:
    """An import that succeeded.

    averaged: whether the averaged parameters were taken; match: what became of the checkpoint's tensors; size: of the
    weights file in bytes.
    """

    card: ModelCard
    variant: Variant
    averaged: bool
    match: Match
    size: int


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
    """Make a model folder of a checkpoint as the authors publish it; float32 weights, nothing lost.

    The folder appears whole or not at all.

    Args:
        architecture: a key of `sources.PUBLISHED`.
        paths: the checkpoint; several files, or a folder that holds them, where a model is published in parts.
        folder: where to, None for the user's own models, under the model's name.
        name: what to call the model, None for the folder's name or, without one, "ARCHITECTURE-official".
        averaged: take the averaged parameters (True), the last ones (False), or what the authors evaluate (None).
        ignore: beginnings of names that may be left over.
        overwrite: whether an existing model folder is replaced.

    Raises:
        UsageError: no such architecture, no usable name, or the folder exists.
        ModelError: the checkpoint cannot be read, was refused, is of another architecture or does not fit.
    """
    official = official_source(architecture)
    layout = LAYOUTS[architecture]
    if name is None and folder is not None and NAME.fullmatch(folder.name):
        name = folder.name
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"a model cannot be called {name}: expected letters, digits and ._- without spaces")
    if name is not None:
        require_usable_name(name)
        _check_target(folder or user_models() / name, overwrite)
    sources = find_checkpoints(paths, several=layout.several)
    where = ", ".join(str(source.path) for source in sources[:3])
    tensors, took_averages = _gathered(sources, layout, averaged, official.averaged)
    _check_architecture(architecture, tensors, where, paths)
    variant = layout.variant({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    try:
        layout.check(tensors)
        network = build_empty(architecture, variant.network)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    matched = match(network, tensors, ignore)
    if matched.problems:
        raise ModelError(f"{where}: this does not fit {architecture}: {matched.problems}{_advice(matched, layout)}")
    check_finite(matched.taken, where)
    name = name or variant.name
    target = (folder or user_models() / name).absolute()
    _check_target(target, overwrite)
    files = tuple(ImportedFile(_label(source.file), checksum(source.file)) for source in sources)
    with placing(target) as temporary:
        write_folder(temporary, name, official, variant, network, matched.taken, files, averaged=took_averages)
        read_card(temporary)
    card = read_card(target)
    return Imported(card, variant, took_averages, matched, card.weights_path.stat().st_size)


def _gathered(
    sources: Sequence[Source], layout: Layout, averaged: bool | None, published_averaged: bool
) -> tuple[dict[str, Tensor], bool]:
    """All tensors of all files by the network's names, and whether averages are among them."""
    together: dict[str, Tensor] = {}
    origin: dict[str, Source] = {}
    took = False
    for source in sources:
        checkpoint = read_apart(source)
        tensors = plain_names(checkpoint.tensors)
        averages = plain_names(checkpoint.averages)
        if averages and (averaged if averaged is not None else published_averaged):
            tensors, took = with_averages(tensors, averages, layout.averaged), True
        tensors = layout.rename(tensors)
        for name in tensors:
            if name in origin:
                files = f"{origin[name].file} and {source.file}"
                raise ModelError(f"{files} both hold {name}: name the files to import")
        together |= tensors
        origin |= dict.fromkeys(tensors, source)
    if averaged and not took:
        files = ", ".join(str(source.path) for source in sources[:3])
        raise ModelError(f"{files}: there are no averaged parameters in it; leave out --ema")
    return together, took


def _check_architecture(architecture: str, tensors: Mapping[str, Tensor], where: str, paths: Sequence[Path]) -> None:
    likely = likeliest(tensors)
    if likely is None:
        raise ModelError(
            f"{where}: this is no checkpoint of {architecture} (its first tensors: {first(list(tensors))})"
        )
    # KinD and KinD++ have all but the restoration in common.
    related = {likely, architecture} <= {"kind", "kind-plus"}
    if likely != architecture and not (related and not any(name.startswith("restoration.") for name in tensors)):
        command = f"lumen models import {likely} {shlex.join(map(str, paths))}"
        raise ModelError(f"{where}: this looks like a checkpoint of {likely}, not of {architecture}: {command}")


def _advice(matched: Match, layout: Layout) -> str:
    if matched.missing and layout.several:
        return ". The three networks are published in files of their own: name all, or a folder that holds them"
    if matched.left_over and not matched.missing and not matched.misshapen:
        return ". If the model does without, leave them aside with --ignore BEGINNING"
    return ""


def _check_target(target: Path, overwrite: bool) -> None:
    if holds_model(target) and not overwrite:
        raise UsageError(f"{target} exists: --overwrite replaces it, --name or -o makes another")


def _label(file: Path) -> str:
    """A file's name, with its folder's where the name is that of every TensorFlow checkpoint."""
    return f"{file.parent.name}/{file.name}" if ".data-" in file.name else file.name
