"""The published checkpoints' names and shapes: recognised as what they are, and nothing missing or left over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lumen_cli.registry.architectures import ARCHITECTURES, import_object
from lumen_cli.registry.checkpoints.importing import likeliest
from lumen_cli.registry.checkpoints.layouts import Layout
from lumen_cli.registry.checkpoints.reading_process import build_empty, match, normalise_names
from tests.reference import published_keys

RELEASES = {
    "diffll": "the LOL-v1 release",
    "lightendiffusion": "the stage-2 release",
    "kind": "the LOL release",
    "kind-plus": "the LOL release",
    "anlightendiff": "the from-scratch release",
    "anlightendiff two-step": "the two-step release",
    "lldiffusion": "the LOL release",
    "lldiffusion LOL-v2": "the LOL-v2 releases, real or synthetic",
}


SECOND: dict[str, Any] = {
    "unet_channels": 128,
    "blocks": 4,
    "degradation_channels": 128,
    "features": 6,
    "fusion": "cat",
}


def layout_of(architecture: str) -> Layout:
    layout: Layout = import_object(ARCHITECTURES[architecture].layout)
    return layout


def published(release: str) -> dict[str, Tensor]:
    """Tensors of the published names and shapes that take no memory."""
    if release == "lldiffusion LOL-v2":  # the tests of the network itself compare its names with the published ones
        shapes = {name: list(t.shape) for name, t in build_empty("lldiffusion", SECOND).state_dict().items()}
    else:
        shapes = dict(published_keys()[release])
    if release == "anlightendiff two-step":
        shapes |= {f"histroEncoder.{name}": shapes[name] for name in shapes if name.startswith("encoder.model.")}
    if release.startswith("anlightendiff"):
        shapes |= {
            "lpips.net.lin0.model.1.weight": [1, 64, 1, 1],
            "loss_fn_alex.net.lin0.model.1.weight": [1, 64, 1, 1],
        }
    return {f"module.{name}": torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("release", RELEASES)
def test_a_published_checkpoint_fits_its_network(release: str) -> None:
    architecture = release.partition(" ")[0]
    layout = layout_of(architecture)
    tensors = layout.rename(normalise_names(published(release)))
    assert likeliest(tensors) == architecture
    variant = layout.variant({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    matched = match(build_empty(architecture, variant.network), tensors)
    assert not matched.problems
    assert variant.release == RELEASES[release]
    assert all(name.endswith("num_batches_tracked") for name in matched.rebuilt)
    assert set(matched.ignored) <= {"for training only", "parts of a loss or metric"}


@pytest.mark.parametrize("architecture", [each.id for each in ARCHITECTURES.values() if each.layout])
def test_without_any_tensor_the_published_network_is_expected(architecture: str) -> None:
    variant = layout_of(architecture).variant({})
    assert variant.release
    assert build_empty(architecture, variant.network).state_dict()


def test_the_newer_names_of_normalised_weights_are_the_older_ones() -> None:
    ones = torch.ones(1)
    newer = torch.nn.Module()
    newer.weighted = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(2, 3, 3))
    newer.spectral = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(2, 3, 3))
    assert set(normalise_names({f"module.{name}": ones for name in newer.state_dict()})) == {
        "weighted.bias",
        "weighted.weight_g",
        "weighted.weight_v",
        "spectral.bias",
        "spectral.weight_orig",
        "spectral.weight_u",
        "spectral.weight_v",
    }
