"""The authors' checkpoints: the names of their tensors, and the hyper-parameters that follow from their shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lumen_cli.diffusion import CosineSchedule
from lumen_cli.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Variant:
    """The network that a checkpoint belongs to."""

    network: dict[str, Any]
    """Its hyper-parameters."""
    release: str
    """The release that has these shapes, as a phrase; empty where none has."""
    name: str
    """The name for the imported model."""
    trained_on: tuple[str, ...] = ()
    """What the authors of this release trained on."""
    precisions: tuple[str, ...] = ("fp32", "bf16")
    """The precisions that its sampler tolerates."""


@dataclass(frozen=True)
class Layout:
    """The checkpoints of one architecture."""

    markers: tuple[str, ...]
    """Prefixes of tensor names that occur in them and tell the architecture."""
    variant: Callable[[Shapes], Variant]
    """Shapes → the network. Without any tensor: the published network."""
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    """Names of older or partial files → names of today."""
    averaged: tuple[str, ...] = ("",)
    """Prefixes of the names whose averages the authors kept up to date."""
    several: bool = False
    """Whether the authors publish the model as several files."""
    check: Callable[[Mapping[str, Tensor]], None] = lambda tensors: None
    """Raises a ModelError for values that do not belong to the architecture."""
    tensorflow_name: Callable[[str], str] | None = None
    """Our name of a tensor → its name in the authors' TensorFlow checkpoint."""


def _axis(shapes: Shapes, name: str, published: int, axis: int = 0) -> int:
    """The length of a tensor's axis; the published length where the tensor is missing, which `match` reports later."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else published


def _multipliers(shapes: Shapes, pattern: str, channels: int, published: tuple[int, ...], first: int = 0) -> list[int]:
    """The widths of the levels in units of `channels`; `pattern` has a {} for the level's number."""
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


DIFFLL = Layout(("high_enhance",), _diffll)


def _lightendiffusion(shapes: Shapes) -> Variant:
    channels = _axis(shapes, "decom.ReconNet.pyramid.convs.0.weight", 64)
    network = _unet(shapes) | {"ctdn_channels": channels, "steps": 20}
    published = {"unet_channels": 64, "unet_multipliers": [1, 2, 3, 4], "ctdn_channels": 64}
    release = "the stage-2 release" if published.items() <= network.items() else ""
    trained_on = ("unpaired dark and well-exposed photographs of the authors' (not released)",)
    return Variant(network, release, "lightendiffusion-official", trained_on)


def _add_decom(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LightenDiffusion's file of stage 1 names the decomposition's tensors without `decom.`."""
    parts = ("ReconNet.", "retinex.")
    return {f"decom.{name}" if name.startswith(parts) else name: tensor for name, tensor in tensors.items()}


LIGHTENDIFFUSION = Layout(
    ("decom.ReconNet.", "decom.retinex.", "ReconNet.", "retinex."),
    _lightendiffusion,
    rename=_add_decom,
    averaged=("Unet.",),
)

# The authors' scripts for pictures without a reference mix the picture in and use 5 as the ratio for all of them.
_KIND_RULES = {"fusion": "arbitrary", "stretch": True, "ratio_limits": [5.0, 5.0]}


def _small_networks(shapes: Shapes) -> dict[str, Any]:
    return {
        "decomposition_channels": _axis(shapes, "decom.g_conv1_1.weight", 32),
        "restoration_channels": _axis(shapes, "restoration.de_conv1_1.weight", 32),
        "adjustment_channels": _axis(shapes, "adjust.en_conv_1.weight", 32),
    }


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


_LEAVES = {
    "weight": "weights",
    "bias": "biases",
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "moving_mean",
    "norm.running_var": "moving_variance",
}
_MODULES = (  # In TensorFlow, KinD++'s attention modules are a flat list of layers.
    (re.compile(r"msia(\d)\.attention"), r"de_conv\1/conv"),
    (re.compile(r"msia(\d)\.fuse"), r"de_conv\1multi_scale_feature"),
    (re.compile(r"msia(\d)\.scale(\d)\.conv"), r"de_conv\1pu\2/pu_conv"),
    (re.compile(r"msia(\d)\.scale(\d)\.norm"), r"de_conv\1pu\2/batch_normalization"),
    (re.compile(r"msia(\d)\.scale(\d)\.up1"), r"de_conv\1pu\2/conv_up_1"),
    (re.compile(r"msia(\d)\.scale(\d)\.up2?"), r"de_conv\1pu\2/conv_up"),
)


def _tensorflow_name(name: str, *, decom: str, restoration: str, adjust: str, adjust_prefix: str = "en_") -> str:
    """Our name of a KinD or KinD++ tensor → the authors', as `DecomNet/g_conv1_1/weights`; scopes by network."""
    network, _, rest = name.partition(".")
    module, _, leaf = rest.rpartition(".")
    leaf = _LEAVES.get(f"norm.{leaf}" if module.endswith("norm") else leaf, leaf)
    for pattern, theirs in _MODULES:
        if pattern.fullmatch(module):
            leaf = "kernel" if module.endswith("attention") else leaf
            module = pattern.sub(theirs, module)
            break
    if network == "adjust":
        module = adjust_prefix + module.removeprefix("en_")
    scope = {"decom": decom, "restoration": restoration, "adjust": adjust}[network]
    return f"{scope}/{module}/{leaf}"


KIND = Layout(
    ("decom.g_", "decom.l_", "restoration.up_", "adjust.en_"),
    _kind,
    several=True,
    tensorflow_name=partial(
        _tensorflow_name, decom="DecomNet", restoration="Restoration_net", adjust="Illumination_adjust_net"
    ),
)
KIND_PLUS = Layout(
    ("decom.g_", "decom.l_", "restoration.msia", "adjust.en_"),
    _kind_plus,
    several=True,
    tensorflow_name=partial(
        _tensorflow_name, decom="DecomNet", restoration="Denoise_Net", adjust="I_enhance_Net", adjust_prefix=""
    ),
)


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
    if _axis(shapes, "model.unet.final_conv.0.block.1.weight_v", dim, axis=1) > dim:
        network["full_resolution_skip"], published = True, False
    release = f"the {'two-step' if two_step else 'from-scratch'} release" if published else ""
    name = f"anlightendiff{'-two-step' if two_step else ''}-official"
    return Variant(network, release, name, ("LOL-v1, LOL-v2 real and VE-LOL (training pairs)",), ("fp32",))


def _keep_second_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AnlightenDiff's two-step file holds the encoder twice; its loader ends up with the second one."""
    second = "histroEncoder.encoder."
    once = {name: tensor for name, tensor in tensors.items() if not name.startswith(second)}
    return once | {f"encoder.{name.removeprefix(second)}": tensors[name] for name in tensors.keys() - once.keys()}


def _require_cosine_schedule(tensors: Mapping[str, Tensor]) -> None:
    """The sampler computes its own schedule; the one in the file must be the same."""
    stored = tensors.get("model.betas")
    if stored is not None and stored.dim() == 1 and len(stored):
        betas = CosineSchedule(len(stored)).betas().float()
        if not torch.allclose(stored.float(), betas, rtol=0, atol=1e-3):
            raise ModelError("it was trained with another noise schedule than AnlightenDiff's cosine")


ANLIGHTENDIFF = Layout(
    ("model.unet.", "encoder.downs.", "encoder.ups.", "encoder.model.", "histroEncoder."),
    _anlightendiff,
    rename=_keep_second_encoder,
    check=_require_cosine_schedule,
)

_FEATURES = (128, 128, 256, 256, 512, 512)
_UP_LEVEL = re.compile(r"(?:diff|deg)_unet\.up\.(\d+)\.")


def _lldiffusion(shapes: Shapes) -> Variant:
    channels = _axis(shapes, "diff_unet.conv_in.weight", 64)
    features: list[int] = []
    while (name := f"encoder.upsample.convs.{len(features)}.2.weight_orig") in shapes:
        features.append(_axis(shapes, name, 0))
    attention = not shapes or any(".cattns." in name for name in shapes)
    network: dict[str, Any] = {
        "unet_channels": channels,
        "unet_multipliers": _multipliers(
            shapes, "diff_unet.down.{}.block.0.conv1.weight", channels, (1, 1, 2, 2, 4, 4)
        ),
        "blocks": sum(f"diff_unet.down.0.block.{block}.conv1.weight" in shapes for block in range(16)) or 2,
        "encoder_channels": _axis(shapes, "encoder.encoder.layer1.0.weight_orig", 16),
        "feature_channels": features[::-1] or list(_FEATURES),
        "features": len(features) or 3,
        "fusion": "cattn" if attention else "cat",
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


def _reverse_levels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LLDiffusion's older files count the levels upwards from the finest: then the first one does not enlarge."""
    last = max((int(found[1]) for name in tensors if (found := _UP_LEVEL.match(name))), default=0)
    enlarging = "diff_unet.up.{}.upsample.conv.weight"
    if enlarging.format(0) in tensors or enlarging.format(last) not in tensors:
        return dict(tensors)

    def reverse(found: re.Match[str]) -> str:
        return f"{found[0].rpartition('up.')[0]}up.{last - int(found[1])}."

    return {_UP_LEVEL.sub(reverse, name): tensor for name, tensor in tensors.items()}


LLDIFFUSION = Layout(
    ("diff_unet.", "deg_unet.", "encoder.encoder.", "encoder.upsample."), _lldiffusion, rename=_reverse_levels
)
