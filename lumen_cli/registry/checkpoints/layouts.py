"""What tells the architectures' checkpoints apart, and how hyper-parameters follow from the shapes in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumen_cli.diffusion.schedule import CosineSchedule
from lumen_cli.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Variant:
    """The network a checkpoint is of.

    network: its hyper-parameters; release: which release has these shapes, as a phrase, empty where none has;
    trained_on: what the authors say of that release; precisions: what its sampler stands; name: what to call the model.
    """

    network: dict[str, Any]
    release: str
    name: str
    trained_on: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Layout:
    """An architecture's checkpoints.

    markers: beginnings of names that occur in them; variant: shapes → the network; rename: names of older or partial
    files → today's; averaged: beginnings of the names whose averages were kept up to date; several: whether the
    authors publish the networks in files of their own; check: raises a ModelError for values that do not belong here.
    """

    markers: tuple[str, ...]
    variant: Callable[[Shapes], Variant]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    averaged: tuple[str, ...] = ("",)
    several: bool = False
    check: Callable[[Mapping[str, Tensor]], None] = lambda tensors: None


def likeliest(names: Mapping[str, Any]) -> str | None:
    """The architecture that most of the names are of; None where they are of none."""
    hits = {
        architecture: sum(name.startswith(layout.markers) for name in names) for architecture, layout in LAYOUTS.items()
    }
    best = max(hits, key=lambda architecture: hits[architecture])
    return best if hits[best] else None


def _axis(shapes: Shapes, name: str, published: int, axis: int = 0) -> int:
    """The length of a tensor's axis; the published one where the tensor is missing, which is complained of later."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else published


def _multipliers(shapes: Shapes, pattern: str, channels: int, published: tuple[int, ...], first: int = 0) -> list[int]:
    """Widths of the levels over the first one's; `pattern` has a {} for the level's number."""
    found: list[int] = []
    while (name := pattern.format(first + len(found))) in shapes:
        found.append(max(1, _axis(shapes, name, channels) // max(1, channels)))
    return found or list(published)


def _unet(shapes: Shapes) -> dict[str, Any]:
    channels = _axis(shapes, "Unet.conv_in.weight", 64)
    levels = _multipliers(shapes, "Unet.down.{}.block.0.conv1.weight", channels, (1, 2, 3, 4))
    return {"unet_channels": channels, "unet_multipliers": levels}


def _diffll(shapes: Shapes) -> Variant:
    numbers = {match[1] for name in shapes if (match := re.match(r"high_enhance(\d+)\.", name))}
    network = _unet(shapes) | {
        "detail_channels": _axis(shapes, "high_enhance0.conv_head.point_conv.weight", 64),
        "levels": len(numbers) or 2,
        "steps": 10,
    }
    published = {"unet_channels": 64, "unet_multipliers": [1, 2, 3, 4], "detail_channels": 64, "levels": 2}
    release = "the LOL-v1 release" if published.items() <= network.items() else ""
    return Variant(network, release, "diffll-official", ("LOL-v1 (the training pairs)",))


def _lightendiffusion(shapes: Shapes) -> Variant:
    channels = _axis(shapes, "decom.ReconNet.pyramid.convs.0.weight", 64)
    network = _unet(shapes) | {"ctdn_channels": channels, "steps": 20}
    published = {"unet_channels": 64, "unet_multipliers": [1, 2, 3, 4], "ctdn_channels": 64}
    release = "the stage-2 release" if published.items() <= network.items() else ""
    trained_on = ("unpaired dark and well-exposed photographs of the authors' (not released)",)
    return Variant(network, release, "lightendiffusion-official", trained_on)


def _whole_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LightenDiffusion's file of stage 1 names the decomposition's tensors without `decom.`."""
    parts = ("ReconNet.", "retinex.")
    return {f"decom.{name}" if name.startswith(parts) else name: tensor for name, tensor in tensors.items()}


def _small_networks(shapes: Shapes) -> dict[str, Any]:
    return {
        "decomposition_channels": _axis(shapes, "decom.g_conv1_1.weight", 32),
        "restoration_channels": _axis(shapes, "restoration.de_conv1_1.weight", 32),
        "adjustment_channels": _axis(shapes, "adjust.en_conv_1.weight", 32),
    }


# The authors' scripts for pictures without a reference mix the picture in and take 5 as the ratio for all of them.
_KIND_RULES = {"fusion": "arbitrary", "stretch": True, "ratio_limits": [5.0, 5.0]}


def _kind(shapes: Shapes) -> Variant:
    widths = _small_networks(shapes)
    pattern = "restoration.de_conv{}_1.weight"
    levels = _multipliers(shapes, pattern, widths["restoration_channels"], (1, 2, 4, 8, 16), first=1)[:5]
    network = widths | {"restoration_multipliers": levels} | _KIND_RULES
    published = set(widths.values()) == {32} and levels == [1, 2, 4, 8, 16]
    return Variant(
        network, "the LOL release" if published else "", "kind-official", ("LOL (training pairs, some black ones)",)
    )


def _kind_plus(shapes: Shapes) -> Variant:
    widths = _small_networks(shapes)
    published = set(widths.values()) == {32}
    trained_on = ("LOL (training pairs)", "260 synthetic pairs of the authors'")
    return Variant(widths | _KIND_RULES, "the LOL release" if published else "", "kind-plus-official", trained_on)


def _anlightendiff(shapes: Shapes) -> Variant:
    two_step = any(name.startswith(("encoder.model.", "histroEncoder.")) for name in shapes)
    dim = _axis(shapes, "model.unet.mlp.0.weight", 64, axis=1)
    multipliers = _multipliers(shapes, "model.unet.downs.{}.0.block1.block.1.weight_v", dim, (1, 2, 2, 4, 4, 8))
    timesteps = _axis(shapes, "model.betas", 100)
    network: dict[str, Any] = {
        "dim": dim,
        "multipliers": multipliers,
        "variant": "two-step" if two_step else "from-scratch",
        "steps": timesteps,
    }
    published = (dim, multipliers, timesteps) == (64, [1, 2, 2, 4, 4, 8], 100)
    if timesteps != 100:
        network["schedule"] = {"timesteps": timesteps}
    if "model.unet.mid_attn.fn.g" in shapes:
        network["use_attn"], published = True, False
    if _axis(shapes, "model.unet.final_conv.0.block.1.weight_v", dim, axis=1) > dim:
        network["full_resolution_skip"], published = True, False
    release = f"the {'two-step' if two_step else 'from-scratch'} release" if published else ""
    name = f"anlightendiff{'-two-step' if two_step else ''}-official"
    return Variant(network, release, name, ("LOL-v1, LOL-v2 real and VE-LOL (training pairs)",), ("fp32",))


def _one_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AnlightenDiff's two-step file holds the encoder twice; the second one is what its loader ends up with."""
    second = "histroEncoder.encoder."
    once = {name: tensor for name, tensor in tensors.items() if not name.startswith(second)}
    return once | {f"encoder.{name.removeprefix(second)}": tensors[name] for name in tensors.keys() - once.keys()}


def _cosine_schedule(tensors: Mapping[str, Tensor]) -> None:
    """The sampler makes its own schedule; that of the file has to be the same."""
    stored = tensors.get("model.betas")
    if stored is not None and stored.dim() == 1 and len(stored):
        betas = CosineSchedule(len(stored)).betas().float()
        if not torch.allclose(stored.float(), betas, rtol=0, atol=1e-3):
            raise ModelError("it was trained with another noise schedule than AnlightenDiff's cosine")


_FEATURES = (128, 128, 256, 256, 512, 512)


def _lldiffusion(shapes: Shapes) -> Variant:
    channels = _axis(shapes, "diff_unet.conv_in.weight", 64)
    features: list[int] = []
    while (name := f"encoder.upsample.convs.{len(features)}.2.weight_orig") in shapes:
        features.append(_axis(shapes, name, 0))
    weighed = not shapes or any(".cattns." in name for name in shapes)
    network: dict[str, Any] = {
        "unet_channels": channels,
        "unet_multipliers": _multipliers(
            shapes, "diff_unet.down.{}.block.0.conv1.weight", channels, (1, 1, 2, 2, 4, 4)
        ),
        "blocks": sum(f"diff_unet.down.0.block.{block}.conv1.weight" in shapes for block in range(16)) or 2,
        "encoder_channels": _axis(shapes, "encoder.encoder.layer1.0.weight_orig", 16),
        "feature_channels": features[::-1] or list(_FEATURES),
        "features": len(features) or 3,
        "fusion": "cattn" if weighed else "cat",
        "degradation_network": False,
        "steps": 25,
    }
    if _FEATURES[::-1][: len(features)] == tuple(features):
        network["feature_channels"] = list(_FEATURES)
    common = network["feature_channels"] == list(_FEATURES) and network["unet_multipliers"] == [1, 1, 2, 2, 4, 4]
    width = tuple(network[name] for name in ("unet_channels", "blocks", "encoder_channels", "features", "fusion"))
    if common and width == (64, 2, 16, 3, "cattn"):
        return Variant(network, "the LOL release", "lldiffusion-official", ("LOL-v1",), ("fp32",))
    second = common and width == (128, 4, 16, 6, "cat")
    release = "the LOL-v2 releases, real or synthetic" if second else ""
    trained_on = ("LOL-v2, real or synthetic: the file's name tells",)
    return Variant(network, release, f"lldiffusion{'-v2' if second else ''}-official", trained_on, ("fp32",))


def _rising_levels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LLDiffusion's older files count the levels upwards from the finest: then the first one does not enlarge."""
    last = max((int(found[1]) for name in tensors if (found := _UP_LEVEL.match(name))), default=0)
    enlarging = "diff_unet.up.{}.upsample.conv.weight"
    if enlarging.format(0) in tensors or enlarging.format(last) not in tensors:
        return dict(tensors)

    def turned(found: re.Match[str]) -> str:
        return f"{found[0].rpartition('up.')[0]}up.{last - int(found[1])}."

    return {_UP_LEVEL.sub(turned, name): tensor for name, tensor in tensors.items()}


_UP_LEVEL = re.compile(r"(?:diff|deg)_unet\.up\.(\d+)\.")

LAYOUTS: dict[str, Layout] = {
    "kind-plus": Layout(("restoration.msia",), _kind_plus, several=True),
    "kind": Layout(("decom.g_", "decom.l_", "restoration.up_", "adjust.en_"), _kind, several=True),
    "diffll": Layout(("high_enhance",), _diffll),
    "lightendiffusion": Layout(
        ("decom.ReconNet.", "decom.retinex.", "ReconNet.", "retinex."),
        _lightendiffusion,
        rename=_whole_model,
        averaged=("Unet.",),
    ),
    "anlightendiff": Layout(
        ("model.unet.", "encoder.downs.", "encoder.ups.", "encoder.model.", "histroEncoder."),
        _anlightendiff,
        rename=_one_encoder,
        check=_cosine_schedule,
    ),
    "lldiffusion": Layout(
        ("diff_unet.", "deg_unet.", "encoder.encoder.", "encoder.upsample."),
        _lldiffusion,
        rename=_rising_levels,
    ),
}
"""Architecture id → its checkpoints."""
