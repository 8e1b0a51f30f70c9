"""The model folder of an imported checkpoint: config.json, model card, weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from lumen_cli.card import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, ImportedFile
from lumen_cli.networks.base import LowLightModel
from lumen_cli.official.layouts import Variant
from lumen_cli.official.sources import Official
from lumen_cli.weights import save_weights

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
