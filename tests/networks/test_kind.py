"""KinD against the numbers of the papers' own code."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lumen_cli.networks import similarity
from lumen_cli.networks.kind import KinD, normalised_gradients
from lumen_cli.networks.kind.blocks import blur, darkness_weight, grey, stretch
from tests.reference import Figures, fill_by_formula


def pair_ratio(target: Tensor, source: Tensor) -> Tensor:
    """The release's ratio [B] for the pairs of LOL: mean of target over source illumination, both B×1×H×W."""
    return (target / (source + 1e-4)).mean(dim=(1, 2, 3))


class KindFigures(Figures):
    """Figures that may also be stored as 16 bits with an offset, or 20 where their tolerance needs them."""

    def __getitem__(self, name: str) -> Tensor:
        values, entry = self.stored[name], self.entries[name]
        if "span" in entry:
            return torch.from_numpy(values.astype(np.float32) / np.float32(entry["span"]))
        if "offset" not in entry:
            return super().__getitem__(name)
        whole = values.astype(np.float64)
        if entry.get("fine"):
            packed = self.stored[f"{name}#fine"]
            fine = np.stack([packed >> 4, packed & 15], axis=1).ravel()[: values.size]
            whole = whole * 16 + fine.reshape(values.shape)
        return torch.from_numpy((whole * entry["step"] + entry["offset"]).astype(np.float32))

    def outputs(self) -> set[str]:
        return super().outputs() | {name for name, entry in self.entries.items() if "rtol" in entry}

    def check_relative(self, name: str, value: Tensor) -> None:
        """Assert that every element of `value` meets the figure within its relative tolerance."""
        wanted, tolerance = self[name], self.entries[name]["rtol"]
        assert value.shape == wanted.shape
        worst = float(((value.double() - wanted.double()).abs() / wanted.double().abs()).max())
        assert worst <= tolerance, f"{name}: off by {worst:.3g} of its value"
        self.checked.add(name)


FIGURES = KindFigures("kind")
CONTRASTED = ("decom.g_conv10.weight", "decom.l_conv1_4.weight", "restoration.de_conv10.weight")
REFERENCE = os.environ.get("LUMEN_REFERENCE")


@torch.no_grad()
def contrasted(network: KinD) -> KinD:
    """The figures' second set of weights, whose maps vary widely."""
    for name, parameter in network.named_parameters():
        if name in CONTRASTED:
            parameter.mul_(8.0)
    network.decom.g_conv10.bias.sub_(2.5)
    return network


def build(*, contrast: bool = False, **settings) -> KinD:
    network = KinD(**settings)
    fill_by_formula(network)
    return (contrasted(network) if contrast else network).eval()


@pytest.fixture(scope="module")
def network() -> KinD:
    return build()


@pytest.fixture(scope="module")
def varied() -> KinD:
    return build(contrast=True)


def unit(name: str) -> Tensor:
    """An 8-bit figure as a picture in [0, 1]."""
    return FIGURES[name].float() / 255.0


@contextmanager
def layer_outputs(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What each layer of `network` gave, by name, after the activation that is applied to it in place."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    handles = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    yield seen
    for handle in handles:
        handle.remove()


def test_the_loader_stretches_the_whole_picture():
    for name in ("low", "flat"):
        FIGURES.check(f"load_images/{name}", stretch(unit(f"load_images/{name}_u8")))


@pytest.mark.parametrize("case", ["even", "odd", "tiny", "size1x1", "size2x3", "size5x1"])
@torch.no_grad()
def test_networks(network, case):
    reflectance, illumination = network.decom(FIGURES[f"{case}/x"])
    FIGURES.check(f"{case}/decom.R", reflectance)
    FIGURES.check(f"{case}/decom.L", illumination)
    FIGURES.check(f"{case}/restoration.out", network.restoration(reflectance, illumination))
    if f"{case}/alpha" in FIGURES.entries:
        FIGURES.check(f"{case}/adjust.out", network.adjust(illumination, FIGURES[f"{case}/alpha"]))


@torch.no_grad()
def test_layers(network):
    with layer_outputs(network) as seen:
        reflectance, illumination = network.decom(FIGURES["tiny/x"])
        network.restoration(reflectance, illumination)
        FIGURES.check("tiny/adjust.out", network.adjust(illumination, torch.tensor(3.0)))
    seen["decom.R_logit"], seen["decom.L_logit"] = seen["decom.g_conv10"], seen["decom.l_conv1_4"]
    seen["restoration.logit"] = seen["restoration.de_conv10"]
    for pooled, source in (("decom.pool1", "decom.g_conv1_1"), ("decom.pool2", "decom.g_conv2_1")):
        seen[pooled] = nn.functional.max_pool2d(seen[source], 2, ceil_mode=True)
    for level in range(1, 5):
        pooled = nn.functional.max_pool2d(seen[f"restoration.de_conv{level}_2"], 2, ceil_mode=True)
        seen[f"restoration.pool{level}"] = pooled
    for name in sorted(FIGURES.outputs() - FIGURES.checked):
        if not name.startswith("tiny/") or name.removeprefix("tiny/") not in seen:
            continue
        height, width = FIGURES[name].shape[-2:]
        output = seen[name.removeprefix("tiny/")][..., :height, :width]
        every = output.shape[1] // FIGURES[name].shape[1]
        FIGURES.check(name, output[:, ::every])


@torch.no_grad()
def test_an_arbitrary_picture(varied):
    picture = varied.prepare(unit("evaluate/low_u8"))
    FIGURES.check("evaluate/x", picture)
    maps = varied.decompose(unit("evaluate/low_u8"))
    FIGURES.check("evaluate/R", maps.reflectance)
    FIGURES.check("evaluate/L", maps.illumination)
    FIGURES.check("evaluate/restored", varied.restoration(maps.reflectance, maps.illumination))
    FIGURES.check("evaluate/gray", grey(maps.reflectance))
    FIGURES.check("evaluate/gray_blurred", blur(grey(maps.reflectance)))
    FIGURES.check("evaluate/weight", darkness_weight(maps.reflectance))
    for ratio in (5.0, 2.0):
        FIGURES.check(f"evaluate/alpha{ratio}/L_adjusted", varied.adjust(maps.illumination, torch.tensor(ratio)))
        result = varied.enhance(unit("evaluate/low_u8"), illumination_ratio=ratio)
        FIGURES.check(f"evaluate/alpha{ratio}/result", result)
        FIGURES.check(f"evaluate/alpha{ratio}/result_u8", (result * 255).to(torch.uint8).float())


def test_the_weight_against_dark_reflectance():
    reflectance = FIGURES["weight/R"]
    FIGURES.check("weight/gray", grey(reflectance))
    FIGURES.check("weight/gray_blurred", blur(grey(reflectance)))
    FIGURES.check("weight/weight", darkness_weight(reflectance))


@torch.no_grad()
def test_a_pair_of_lol():
    network = build(contrast=True, fusion="pairs")
    low, high = (network.decompose(unit(f"lol/{side}_u8")).illumination for side in ("low", "high"))
    FIGURES.check("lol/L_low", low)
    FIGURES.check("lol/L_high", high)
    ratio = pair_ratio(high, low)
    FIGURES.check("lol/alpha", ratio)
    FIGURES.check("lol/L_adjusted", network.adjust(low, ratio.view(-1, 1, 1, 1)))
    result = network.enhance(unit("lol/low_u8"), illumination_ratio=ratio)
    FIGURES.check("lol/result", result)
    FIGURES.check("lol/result_u8", (result * 255).to(torch.uint8).float())


@torch.no_grad()
def test_gradients_and_similarity(varied):
    _, illumination = varied.decom(FIGURES["train/low"])
    across, down = normalised_gradients(illumination)
    FIGURES.check("train/gradient/x", across)
    FIGURES.check("train/gradient/y", down)
    FIGURES.check("ssim/value", similarity(FIGURES["ssim/a"], FIGURES["ssim/b"]).view(1))


def training_batch() -> dict[str, Tensor]:
    """The figures' batch; the first picture's light is adjusted from dark to bright, the second's back."""
    return {"low": FIGURES["train/low"], "high": FIGURES["train/high"], "brighten": torch.tensor([True, False])}


def part_total(losses: dict[str, Tensor], part: str) -> Tensor:
    return torch.stack([term for name, term in losses.items() if name.startswith(f"{part}/")]).sum()


def gradient_norms(network: nn.Module) -> Tensor:
    return torch.stack([parameter.grad.norm() for parameter in network.parameters()])


class Untouched(nn.Module):
    """In the place of a restoration that the figure at hand does not depend on."""

    def forward(self, reflectance: Tensor, _illumination: Tensor) -> Tensor:
        return reflectance


def losses_over_steps(network: KinD, part: str, parameters: list[nn.Parameter]) -> Tensor:
    """The loss before each of five steps of Adam, as TensorFlow takes them, and after the last."""
    batch = training_batch()
    if part != "restoration":
        network.restoration = Untouched()
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    losses = []
    for step in range(1, 7):
        loss = part_total(network.losses(batch), part)
        losses.append(loss.detach())
        rate = 1e-4 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for p, gradient, mean, square in zip(
            parameters, torch.autograd.grad(loss, parameters), means, squares, strict=True
        ):
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient * gradient, 0.001)
            p.data.sub_(rate * mean / (square.sqrt() + 1e-8))
    return torch.stack(losses)


def shared_losses(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The terms that KinD and KinD++ share, by their names in the figures."""
    return {
        "decom/total": part_total(losses, "decomposition"),
        "adjust/loss_square": losses["adjustment/square"],
        "adjust/loss_grad": losses["adjustment/gradient"],
        "adjust/total": part_total(losses, "adjustment"),
        "restoration/loss_square": losses["restoration/square"],
        "restoration/loss_ssim": losses["restoration/structure"],
        "restoration/total": part_total(losses, "restoration"),
    }


def test_training_losses_and_gradients():
    network = build(contrast=True, stretch=False).train()
    losses = network.losses(training_batch())
    raw = shared_losses(losses) | {
        "decom/recon_loss_low": losses["decomposition/reconstruction_low"],
        "decom/recon_loss_high": losses["decomposition/reconstruction_high"],
        "decom/equal_R_loss": losses["decomposition/reflectance"] / 0.01,
        "decom/i_mutual_loss": losses["decomposition/mutual"] / 0.2,
        "decom/i_input_mutual_loss_low": losses["decomposition/smooth_low"] / 0.15,
        "decom/i_input_mutual_loss_high": losses["decomposition/smooth_high"] / 0.15,
        "restoration/loss_grad": losses["restoration/gradient"],
    }
    for name, value in raw.items():
        FIGURES.check(f"train/{name}", value.view(1))
    # The sum of all: each network's gradient is that of its own terms.
    losses["total"].backward()
    for part in ("decom", "adjust", "restoration"):
        FIGURES.check_relative(f"train/{part}/grad_norm", gradient_norms(network.get_submodule(part)))


@pytest.mark.parametrize(
    ("part", "terms"), [("decom", "decomposition"), ("adjust", "adjustment"), ("restoration", "restoration")]
)
def test_five_steps_of_adam(part, terms):
    network = build(contrast=True, stretch=False).train()
    losses = losses_over_steps(network, terms, list(network.get_submodule(part).parameters()))
    FIGURES.check(f"train/{part}/loss_over_steps", losses)


def test_every_figure_was_checked(request: pytest.FixtureRequest):
    if len(request.session.items) < 5 or request.config.option.keyword:
        pytest.skip("only meaningful when the whole file runs")
    elsewhere = ("plus/", "augment/")
    assert {n for n in FIGURES.outputs() - FIGURES.checked if not n.startswith(elsewhere)} == set()


@pytest.mark.skipif(not REFERENCE, reason="LUMEN_REFERENCE does not name the folder with the official weights")
@pytest.mark.parametrize(("photo", "kind"), [("photo1", "kind"), ("photo2", "kind"), ("photo2", "plus")])
@torch.no_grad()
def test_the_official_weights_on_photographs(photo, kind):
    folder = Path(REFERENCE or "") / "kind"
    figures = load_file(folder / "figures_official.safetensors")
    prefix = "official_plus" if kind == "plus" else "official"
    network = KinD()
    for part in ("decom", "adjust"):
        weights = load_file(folder / f"{prefix}_{part}.safetensors")
        network.get_submodule(part).load_state_dict({k.removeprefix(f"{part}."): v for k, v in weights.items()})
    low = figures[f"real/{photo}/u8"] / 255.0
    maps = network.decompose(low)

    def check(name: str, value: Tensor) -> None:
        torch.testing.assert_close(value, figures[f"real/{photo}/{kind}.{name}"], rtol=0, atol=2e-5)

    check("R", maps.reflectance)
    check("L", maps.illumination)
    for ratio in (1.0, 5.0):
        if f"real/{photo}/{kind}.adjust_alpha{ratio}" in figures:
            check(f"adjust_alpha{ratio}", network.adjust(maps.illumination, torch.tensor(ratio)))
    rebuilt = maps.reflectance * maps.illumination
    assert (rebuilt - network.prepare(low)).abs().mean() < 0.02


def small(**settings) -> KinD:
    widths = {"decomposition_channels": 8, "restoration_channels": 8, "adjustment_channels": 8}
    return fill_by_formula(KinD(**widths, **settings)).eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (33, 47), (64, 64), (2, 3)])
@torch.inference_mode()
def test_any_size_gives_a_picture_of_that_size_by_the_rule_of_pairs_too(size):
    low = 0.2 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    network = small(fusion="pairs")
    assert network.noise_shape(*size) is None
    for ratio in (None, 0.0, 3.0):
        enhanced = network.enhance(low, illumination_ratio=ratio)
        assert enhanced.shape == low.shape
        assert torch.isfinite(enhanced).all()
        assert 0 <= enhanced.min() <= enhanced.max() <= 1


@torch.inference_mode()
def test_a_picture_of_one_colour_is_left_as_it_is_before_the_networks():
    network = small()
    for level in (0.0, 0.4, 1.0):
        flat = torch.full((1, 3, 9, 7), level)
        assert torch.equal(network.prepare(flat), flat)
        assert torch.isfinite(network.enhance(flat)).all()


def test_sixteen_bits_survive_the_stretch():
    levels = torch.arange(3 * 40 * 50).view(1, 3, 40, 50) / 65535.0
    prepared = KinD(restoration_channels=1).prepare(levels)
    assert prepared.unique().numel() == levels.numel()
    assert (prepared.min(), prepared.max()) == (0.0, 1.0)


@torch.inference_mode()
def test_a_part_is_stretched_with_the_limits_of_the_whole():
    network = small()
    whole = 0.3 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    limits = torch.stack([whole.amin(), whole.amax()]).view(1, 2)
    part = network.prepare(whole[..., 8:24, 8:24], limits)
    assert torch.equal(part, network.prepare(whole)[..., 8:24, 8:24])


def test_the_automatic_ratio_aims_at_a_mean_whatever_the_size():
    network = small(target_light=0.4, ratio_limits=(1.0, 5.0))
    light = torch.tensor([0.2, 0.4, 0.8, 0.01]).view(4, 1, 1, 1)
    for size in ((1, 1), (6, 9), (60, 90)):
        ratio = network.automatic_ratio(light.expand(4, 1, *size))
        torch.testing.assert_close(ratio, torch.tensor([2.0, 1.0, 1.0, 5.0]))


@torch.inference_mode()
def test_no_ratio_means_the_automatic_one():
    network = small()
    low = 0.2 * torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(5))
    ratio = network.automatic_ratio(network.decompose(low).illumination)
    assert torch.equal(network.enhance(low), network.enhance(low, illumination_ratio=float(ratio)))
    assert not torch.equal(network.enhance(low), network.enhance(low, illumination_ratio=float(ratio) + 1))


@torch.inference_mode()
def test_bfloat16_stays_close(varied):
    low = unit("evaluate/low_u8")
    exact = varied.enhance(low)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quick = varied.enhance(low)
    assert quick.dtype == torch.float32
    assert (quick - exact).abs().mean() < 1 / 255


@pytest.mark.parametrize("ratio", [-1.0, float("nan"), float("inf")])
def test_an_impossible_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match="illumination_ratio"):
        small().enhance(torch.rand(1, 3, 8, 8), illumination_ratio=ratio)


@pytest.mark.parametrize(
    "settings",
    [{"fusion": "A"}, {"target_light": 0.0}, {"ratio_limits": (3.0, 1.0)}, {"restoration_multipliers": (1, 2)}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"fusion|target_light|ratio_limits|levels"):
        KinD(**settings)


def test_the_way_to_adjust_is_drawn_on_the_generators_device():
    """A generator of an accelerator draws nothing on the CPU, where `torch.rand` draws unless it names a device."""

    class Accelerator(TorchFunctionMode):
        devices: ClassVar[list[str]] = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.rand and (kwargs or {}).get("generator") is not None:
                self.devices.append(str((kwargs or {}).get("device")))
            return func(*args, **(kwargs or {}))

    network = KinD(decomposition_channels=8, restoration_channels=8)
    batch = {"low": torch.rand(2, 3, 32, 32), "high": torch.rand(2, 3, 32, 32)}
    with Accelerator() as seen:
        network.losses(batch, torch.Generator())
    assert seen.devices == ["cpu"]
