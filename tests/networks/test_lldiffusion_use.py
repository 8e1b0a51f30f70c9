"""LLDiffusion as a model to use and to train: sizes, patches, what is computed once, losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lumen_cli.networks import gain_to, lldiffusion, tone_map
from lumen_cli.networks.base import pad_to_multiple
from lumen_cli.networks.lldiffusion import LLDiffusion, places, starts
from lumen_cli.networks.lldiffusion.blocks import SpectralConv2d
from lumen_cli.networks.unet import AttentionBlock
from tests.reference import fill_by_formula

SMALL: dict[str, Any] = {
    "unet_channels": 32,
    "unet_multipliers": (1, 1, 1, 1, 2, 2),
    "blocks": 1,
    "encoder_channels": 2,
    "feature_channels": (32,) * 6,
    "prediction": "x0",
}
PATCHES: dict[str, Any] = {"sampling": "patches", "patch_size": 64, "stride": 32}


def small(**settings: Any) -> LLDiffusion:
    network = LLDiffusion(**(SMALL | settings))
    fill_by_formula(network)
    # The formula's spectral-norm vectors are no singular vectors; training finds those.
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            for _ in range(5):
                module.kernel()
    return network.eval()


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def noise_for(network: LLDiffusion, size: tuple[int, int], count: int = 1) -> Tensor:
    return torch.randn(count, *network.noise_shape(*size), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 64), (150, 3)])
@pytest.mark.parametrize("settings", [PATCHES, {"features": 6, "fusion": "cat", "prediction": "v"}])
@torch.inference_mode()
def test_any_size_gives_a_picture_of_that_size(size, settings):
    network, low = small(**settings), picture(1, 3, *size)
    noise = noise_for(network, size)
    enhanced = network.enhance(low, noise=noise, steps=2)
    assert enhanced.shape == low.shape
    assert torch.isfinite(enhanced).all()
    assert 0 <= enhanced.min() <= enhanced.max() <= 1
    # The pipeline pads to the size multiple beforehand.
    height, width = size
    padded = pad_to_multiple(low, network.size_multiple)
    assert network.noise_shape(*padded.shape[-2:]) == network.noise_shape(*size)
    assert torch.equal(network.enhance(padded, noise=noise, steps=2)[..., :height, :width], enhanced)


def test_the_canvas_is_that_of_the_paper_code_and_never_too_small():
    whole, patches = small(), small(**PATCHES)
    assert whole.noise_shape(400, 600) == (3, 416, 640)
    assert whole.noise_shape(64, 64) == (3, 96, 96), "multiples of 32 are padded, too"
    assert whole.noise_shape(1, 1) == (3, 64, 64)
    assert patches.noise_shape(400, 600) == (3, 400, 608)
    assert patches.noise_shape(10, 1030) == (3, 64, 1040)


def test_patches_reach_the_far_edge_whatever_the_stride():
    assert starts(400, 128, 16)[-1] == 400 - 128
    assert starts(100, 64, 24) == [0, 24, 36]
    assert starts(64, 64, 24) == [0]
    assert len(places(torch.Size((1, 3, 400, 608)), 128, 16)) == 558


@torch.inference_mode()
def test_a_map_as_large_as_a_patch_is_estimated_as_a_whole():
    network, low = small(**PATCHES), 2.0 * picture(1, 3, 64, 64) - 1.0
    x, t = noise_for(network, (64, 64)), torch.tensor([500.0])
    by_patches = network.denoiser(low)(x, t)
    torch.testing.assert_close(by_patches, network.estimate(x, t, network.condition(low)), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_estimates_are_averaged_where_patches_overlap():
    network, low = small(**PATCHES), 2.0 * picture(1, 3, 64, 96) - 1.0
    x, t = noise_for(network, (64, 96)), torch.tensor([500.0])
    left, right = (network.estimate(x[..., s], t, network.condition(low[..., s])) for s in (slice(64), slice(32, 96)))
    wanted = torch.cat([left[..., :32], (left[..., 32:] + right[..., :32]) / 2.0, right[..., 32:]], dim=-1)
    torch.testing.assert_close(network.denoiser(low)(x, t), wanted, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_how_patches_are_batched_and_remembered_changes_nothing(monkeypatch):
    size, low = (80, 100), picture(2, 3, 80, 100)
    noise = noise_for(small(**PATCHES), size, 2)
    one = small(**PATCHES, patch_batch=1).enhance(low, noise=noise, steps=2)
    three = small(**PATCHES, patch_batch=3).enhance(low, noise=noise, steps=2)
    torch.testing.assert_close(three, one, rtol=0, atol=1e-5)
    monkeypatch.setattr(lldiffusion, "FEATURE_BYTES", 0)
    forgetful = small(**PATCHES, patch_batch=3)
    seen = encoded_by(forgetful)
    assert torch.equal(forgetful.enhance(low, noise=noise, steps=2), three)
    assert sum(seen) == 24, "two pictures of six patches, at two steps"


def encoded_by(network: LLDiffusion) -> list[int]:
    """Filled with the size of every batch that goes through the encoder."""
    seen: list[int] = []
    network.encoder.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    return seen


@torch.inference_mode()
def test_every_picture_and_every_patch_is_encoded_once():
    whole, patches = small(), small(**PATCHES, patch_batch=4)
    low = picture(1, 3, 64, 96)
    seen = encoded_by(whole)
    whole.enhance(low, noise=noise_for(whole, (64, 96)), steps=5)
    assert seen == [1]
    seen = encoded_by(patches)
    patches.enhance(low, noise=noise_for(patches, (64, 96)), steps=5)
    assert seen == [2]


@torch.inference_mode()
def test_the_clip_bounds_the_sampled_picture():
    network = small(clip=1.0)
    low = network.canvas(picture(1, 3, 48, 48))
    found = network.predict(low, 50.0 * noise_for(network, (48, 48)), steps=2)
    assert float(found.abs().max()) <= 1.0 + 1e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.inference_mode()
def test_attention_never_holds_the_whole_matrix_of_scores(layout):
    block, x = AttentionBlock(32), picture(1, 32, 64, 64).contiguous(memory_format=layout)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        block(x)
    largest = max(abs(event.cpu_memory_usage) for event in watched.events())
    assert x.nbytes <= largest < 64**4 * 4 / 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 6}, "features"),
        ({"features": 0}, "features"),
        ({"unet_multipliers": (1, 2, 3)}, "6 levels"),
        ({"sampling": "tiles"}, "sampling"),
        ({"fusion": "add"}, "fusion"),
        ({"patch_size": 100}, "patch_size"),
        ({"stride": 0}, "stride"),
        ({"unet_channels": 40}, "divisible"),
        ({"attention_level": 6}, "attention_level"),
        ({"exposure": 0.5, "prediction": "epsilon"}, "exposure"),
        ({"exposure": 0.5} | PATCHES, "exposure"),
        ({"fade_above": 0.6}, "fade_above"),
        ({"fade_above": 1.0, "exposure": 0.5}, "fade_above"),
        ({"fade_colour_above": 0.0}, "fade_colour_above"),
        ({"fade_colour_above": -0.1, "exposure": 0.5}, "fade_colour_above"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LLDiffusion(**(SMALL | settings))


@torch.inference_mode()
def test_enhancing_needs_no_degradation_network():
    network, without = small(), small(degradation_network=False)
    assert not any(name.startswith("deg_unet") for name in without.state_dict())
    low, noise = picture(1, 3, 64, 64), noise_for(network, (64, 64))
    assert torch.equal(network.enhance(low, noise=noise, steps=2), without.enhance(low, noise=noise, steps=2))


def pair() -> dict[str, Tensor]:
    return {"low": picture(2, 3, 64, 64) / 8.0, "high": picture(2, 3, 64, 64)}


def test_with_an_exposure_the_network_corrects_the_brightened_picture():
    network, batch = small(exposure=0.5), pair()
    torch.nn.init.zeros_(network.diff_unet.conv_out.weight)
    torch.nn.init.zeros_(network.diff_unet.conv_out.bias)
    brightened = tone_map(batch["low"], gain_to(batch["low"], 0.5))
    wanted = F.mse_loss(2.0 * brightened, 2.0 * batch["high"])
    torch.testing.assert_close(network.losses(batch)["noise"].detach(), wanted)
    with torch.inference_mode():
        canvas = network.canvas(batch["low"])
        found = network.enhance(batch["low"], noise=noise_for(network, (64, 64), 2), steps=2)
    unit = (canvas + 1.0) / 2.0
    torch.testing.assert_close(found, tone_map(unit, gain_to(unit, 0.5))[..., :64, :64], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_what_is_nearly_white_is_not_corrected():
    network, plain = (small(exposure=0.5, fade_above=above) for above in (0.6, None))
    plain.load_state_dict(network.state_dict())
    room = torch.full((1, 3, 64, 64), 0.02)
    room[..., 16:32, 16:32] = 1.0
    noise = noise_for(network, (64, 64))
    faded, everywhere = (each.enhance(room, noise=noise, steps=2) for each in (network, plain))
    lamp = room == 1.0
    torch.testing.assert_close(faded[lamp], room[lamp], rtol=0, atol=1e-4)
    assert float((everywhere[lamp] - 1.0).abs().max()) > 1e-2
    assert float((faded - tone_map(room, gain_to(room, 0.5)))[~lamp].abs().max()) > 1e-2


@torch.inference_mode()
def test_colour_of_what_is_bright_is_corrected_less_than_its_brightness():
    network, plain = (small(exposure=0.5, fade_colour_above=above) for above in (0.0, None))
    plain.load_state_dict(network.state_dict())
    low = 2.0 * picture(1, 3, 64, 64) / 8.0 - 1.0
    condition, x, t = network.condition(low), torch.randn(1, 3, 64, 64), torch.tensor([500])
    corrected, everywhere = (each.estimate(x, t, condition) - condition.base for each in (network, plain))
    torch.testing.assert_close(corrected.mean(dim=1), everywhere.mean(dim=1))
    shares = corrected.std(dim=1) / everywhere.std(dim=1)
    torch.testing.assert_close(shares, 1.0 - ((condition.base + 1.0) / 2.0).amax(dim=1), rtol=1e-3, atol=1e-3)


def test_losses_are_repeatable_and_add_up():
    network = small(perceptual_weight=0.1)
    losses, again = (network.losses(pair(), torch.Generator().manual_seed(0)) for _ in range(2))
    assert set(losses) == {"noise", "image", "perceptual", "total"}
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    torch.testing.assert_close(losses["total"], losses["noise"] + losses["image"] + losses["perceptual"])


def test_the_perceptual_term_compares_the_darkened_picture_by_the_encoder():
    network, batch = small(perceptual_weight=0.5), pair()
    found = network.losses(batch)["perceptual"].detach()
    low = 2.0 * batch["low"] - 1.0
    features, latents = network.encoder(low)
    _, darkened = network.encoder(network.deg_unet(2.0 * batch["high"] - 1.0, features))
    wanted = sum(float((a - b).detach().abs().mean()) for a, b in zip(latents, darkened, strict=True)) / 4
    assert float(found) == pytest.approx(0.5 * wanted, rel=1e-5)


def test_late_training_leaves_the_degradation_network_alone():
    network = small().train()
    losses = network.losses(pair() | {"degradation": torch.tensor(False)})
    assert set(losses) == {"noise", "total"}
    losses["total"].backward()
    assert all(p.grad is None for p in network.deg_unet.parameters())
    assert set(small(degradation_network=False).losses(pair())) == {"noise", "total"}


def test_in_training_the_kernel_follows_its_largest_singular_value():
    torch.manual_seed(0)
    layer = SpectralConv2d(8, 16)
    with torch.no_grad():
        layer.weight_orig.mul_(7.0)
        for _ in range(50):
            layer.train().kernel()
    largest = torch.linalg.svdvals(layer.eval().kernel().detach().flatten(1))[0]
    assert float(largest) == pytest.approx(1.0, abs=1e-3)
    assert layer.kernel().requires_grad


@torch.no_grad()
def test_the_kept_kernel_is_forgotten_when_weights_change():
    layer, other = SpectralConv2d(4, 4).eval(), SpectralConv2d(4, 4).eval()
    assert layer.kernel() is layer.kernel(), "computed once"
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.kernel(), other.kernel())
    layer.train().weight_orig.mul_(torch.linspace(0.5, 2.0, 4)[:, None, None, None])
    layer.kernel()
    sigma = torch.dot(layer.weight_u, layer.weight_orig.flatten(1) @ layer.weight_v)
    torch.testing.assert_close(layer.eval().kernel(), layer.weight_orig / sigma)
    assert layer.double().kernel().dtype == torch.float64


def test_gradients_flow_through_sigma():
    layer, x = SpectralConv2d(3, 4).eval(), picture(1, 3, 8, 8)
    F.conv2d(x, layer.kernel()).square().sum().backward()
    # The kernel's scale has no influence, so the gradient is at right angles to the weights.
    assert layer.weight_orig.grad is not None
    assert float((layer.weight_orig * layer.weight_orig.grad).sum()) == pytest.approx(0.0, abs=1e-3)
