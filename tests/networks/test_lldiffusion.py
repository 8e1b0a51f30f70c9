"""LLDiffusion against the numbers of the paper's own code, at full and at reduced width."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.diffusion import sample, split_prediction
from lumen_cli.networks.lldiffusion import LLDiffusion, colour_map
from lumen_cli.networks.unet import timestep_embedding
from tests.reference import Figures, fill_by_formula


class ThinnedFigures(Figures):
    """Figures of which only every so many channels, rows and columns (`every`) are stored."""

    def check(self, name: str, value: Tensor) -> None:
        every = self.entries[name].get("every", [])
        super().check(name, value[(..., *(slice(None, None, step) for step in every))])


FIGURES = ThinnedFigures("lldiffusion")
NARROW = {"unet_channels": 32, "feature_channels": [64, 64, 128, 128, 256, 256], "blocks": 1}
JOINED = {"features": 6, "fusion": "cat", "image_weight": 1.0}
CONFIGURATIONS: dict[str, dict[str, Any]] = {"full": {}, "small": NARROW, "smallv2": NARROW | JOINED}
PUBLISHED = {
    "lldiffusion LOL-v2": JOINED | {"unet_channels": 128, "blocks": 4, "degradation_channels": 128},
    "lldiffusion small": NARROW,
    "lldiffusion small LOL-v2": NARROW | JOINED,
}


def build(config: str) -> LLDiffusion:
    """The network with formula weights; those of the spectral norm are stored, as the formula's mean nothing.

    Of the stored pairs u, v of singular vectors only u is packed: v = Wᵀu / |Wᵀu|.
    """
    network = LLDiffusion(**CONFIGURATIONS[config])
    fill_by_formula(network)
    state = network.state_dict()
    for name in [name for name in state if name.endswith("weight_u")]:
        stored = f"{config}.state.{name}"
        u = FIGURES[stored if stored in FIGURES.stored else f"full.state.{name}"]
        state[name].copy_(u)
        matrix = state[name.replace("weight_u", "weight_orig")].flatten(1)
        state[name.replace("weight_u", "weight_v")].copy_(F.normalize(matrix.T @ u, dim=0))
    return network.eval()


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(config: str) -> LLDiffusion:
    return build(config)


@pytest.fixture(scope="module")
def full() -> LLDiffusion:
    return build("full")


def in_domain(name: str, count: int = 1) -> Tensor:
    return 2.0 * FIGURES[name][:count] - 1.0


def check(name: str, value: Tensor) -> None:
    """Check a figure where there is one of that name for this configuration."""
    if name in FIGURES.entries:
        FIGURES.check(name, value)


@pytest.mark.parametrize("published", PUBLISHED)
def test_parameters_bear_the_official_names_and_shapes(published):
    with torch.device("meta"):
        state = LLDiffusion(**PUBLISHED[published]).state_dict()
    found = [[name, list(value.shape)] for name, value in state.items()]
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest() == FIGURES.keys[published]


def test_schedule_and_time_embedding(full):
    wanted = FIGURES["schedule.alpha_bar_index"].long().tolist()
    FIGURES.check("schedule.alpha_bar", torch.tensor([full.schedule.alpha_bar(t) for t in wanted]))
    FIGURES.check("full.time.sinusoid", timestep_embedding(FIGURES["full.time.t"], 64))
    FIGURES.check("full.time.temb", full.diff_unet.temb(FIGURES["full.time.t"]))
    assert full.schedule.respaced(25) == list(range(960, -1, -40))
    assert full.schedule.respaced(3) == [999, 666, 333, 0]


def test_colour_map():
    FIGURES.check("full.color_map", colour_map(in_domain("in.low")))
    assert torch.equal(colour_map(-torch.ones(1, 3, 2, 2)), -torch.ones(1, 3, 2, 2))


@torch.no_grad()
def test_encoder(network, config):
    low = in_domain("in.low")
    encoded, latents = network.encoder.encoder(low)
    check(f"{config}.encoder.mu", encoded)
    for number, latent in enumerate(latents, start=1):
        check(f"{config}.encoder.latent{number}", latent)
    features, _ = network.encoder(low)
    for number, feature in enumerate(features):
        FIGURES.check(f"{config}.encoder.f{number}", feature)


@torch.no_grad()
def test_spectral_norm_with_vectors_that_are_no_singular_vectors():
    network = LLDiffusion()
    fill_by_formula(network)
    low = in_domain("in.low")
    FIGURES.check("full.rawuv.encoder.mu", network.eval().encoder.encoder(low)[0])
    FIGURES.check("full.rawuv.train.encoder.mu", network.train().encoder.encoder(low)[0])
    state = network.state_dict()
    prefix = "full.rawuv.train.after_forward."
    for name in [name for name in FIGURES.outputs() if name.startswith(prefix)]:
        FIGURES.check(name, state[name.removeprefix(prefix)])


def watch(config: str, unet: str, network: LLDiffusion) -> list[Any]:
    """Hooks that check every figure of an activation when the network comes by it."""

    def activation(name: str) -> Any:
        return lambda _module, _inputs, output: check(name, output)

    prefix = f"{config}.{unet}"
    part = network.get_submodule(unet)
    hooks = [
        part.get_submodule(name).register_forward_hook(activation(f"{prefix}.{name}"))
        for name in ("conv_in", "mid", "mid.block_1", "mid.attn_1")
    ]
    for path in ("down", "up"):
        for i in range(6):
            level = part.get_submodule(f"{path}.{i}")
            last = level.attn[-1] if len(level.attn) else level.block[-1]
            hooks.append(last.register_forward_hook(activation(f"{prefix}.{path}{i}")))
            if path == "up" and len(level.block) > 1:
                hooks.append(level.block[0].register_forward_hook(activation(f"{prefix}.up{i}.block0")))
            leave = "downsample" if path == "down" else "upsample"
            if hasattr(level, leave):
                hooks.append(
                    level.get_submodule(leave).register_forward_hook(activation(f"{prefix}.{path}{i}.{leave}"))
                )

    def joined(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        check(f"{prefix}.fuse_after_index{inputs[0]}", output)

    return [*hooks, part.get_submodule("up.fuse").register_forward_hook(joined)]


@torch.no_grad()
def test_both_unets_and_their_blocks(network, config):
    condition = network.condition(in_domain("in.low"))
    x, t = FIGURES["in.x_t"], FIGURES["in.t"].float()
    hooks = watch(config, "diff_unet", network) + watch(config, "deg_unet", network)
    check(f"{config}.pred_noise", network.estimate(x[:1], t[:1], condition))
    check(f"{config}.pred_low", network.deg_unet(in_domain("in.high"), condition.features))
    for hook in hooks:
        hook.remove()
    wanted = {name for name in FIGURES.outputs() if name.startswith((f"{config}.diff_unet", f"{config}.deg_unet"))}
    assert wanted
    assert wanted <= FIGURES.checked


@torch.no_grad()
def test_batches_and_a_timestep_for_all(full):
    condition = full.condition(in_domain("in.low", 2))
    x, t = FIGURES["in.x_t"], FIGURES["in.t"].float()
    FIGURES.check("full.pred_noise_batch2", full.estimate(x, t, condition))
    FIGURES.check("full.pred_noise_t_broadcast", full.estimate(x, t[:1], condition)[1:])


def by(full: LLDiffusion, sampling: str) -> LLDiffusion:
    """The same network, with another way of sampling."""
    other = copy.copy(full)
    other.sampling, other.patch_size = sampling, 64  # type: ignore[assignment]
    return other


def picture() -> Tensor:
    return FIGURES["in.image_low_uint8"][None]


def test_padding_is_that_of_the_data_set(full):
    FIGURES.check("full.padded_low", (by(full, "patches").canvas(picture())[0] + 1.0) / 2.0)
    assert by(full, "patches").noise_shape(72, 90) == FIGURES["in.noise_patch"].shape[1:]
    assert by(full, "whole").noise_shape(72, 90) == FIGURES["in.noise_whole"].shape[1:]


@pytest.mark.parametrize("sampling", ["whole", "patch"])
@torch.inference_mode()
def test_four_steps(full, sampling):
    network = by(full, "whole" if sampling == "whole" else "patches")
    denoise, seen = network.denoiser(network.canvas(picture())), []

    def recorded(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, denoise(x, t), int(t)))
        return seen[-1][1]

    final = sample(recorded, FIGURES[f"in.noise_{sampling}"], network.schedule, 4, network.sampler)
    x, output, timestep = seen[0]
    signal, spread = (float(c) for c in network.schedule.coefficients(torch.tensor([timestep]), x))
    prefix = f"full.sample.{sampling}.steps4"
    FIGURES.check(f"{prefix}.x0_step1", split_prediction(output, x, signal, spread, "epsilon")[0])
    FIGURES.check(f"{prefix}.x_after_step1", seen[1][0])
    FIGURES.check(f"{prefix}.x_final", final)
    assert [timestep for _, _, timestep in seen] == [750, 500, 250, 0]


@torch.inference_mode()
def test_whole_inference(full):
    restored = full.enhance(picture(), noise=FIGURES["in.noise_whole"], steps=4)[0]
    FIGURES.check("full.sample.whole.steps4.restored", restored)
    FIGURES.check("full.sample.whole.steps4.restored_uint8", (restored * 255.999).floor())


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["whole", "patch"])
@torch.inference_mode()
def test_all_steps(full, sampling):
    network = by(full, "whole" if sampling == "whole" else "patches")
    found = network.predict(network.canvas(picture()), FIGURES[f"in.noise_{sampling}"])
    FIGURES.check(f"full.sample.{sampling}.steps25.x_final", found)


def test_training_terms_gradients_and_a_step_of_adam(config):
    network = build(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batch = {"low": FIGURES["in.low"], "high": FIGURES["in.high"], "noise": FIGURES["in.e"]}
    batch["timesteps"] = FIGURES["in.t"].long()
    outputs: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(unet).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output[1:])
        )
        for unet, name in (("diff_unet", "pred_noise"), ("deg_unet", "pred_low"))
    ]
    prefix = f"{config}.train"
    for step in range(2):
        losses = network.losses(batch)
        FIGURES.check(f"{prefix}.step{step}.noise_loss", losses["noise"][None])
        FIGURES.check(f"{prefix}.step{step}.image_loss", losses["image"][None] / network.image_weight)
        FIGURES.check(f"{prefix}.step{step}.loss", losses["total"][None])
        if step == 0:
            for hook in hooks:
                hook.remove()
            losses["total"].backward()
            optimizer.step()
    for name, output in outputs.items():
        FIGURES.check(f"{prefix}.{name}", output)
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    for part in ("encoder", "deg_unet", "diff_unet"):
        norms = [gradient.norm() for name, gradient in gradients.items() if name.startswith(part)]
        FIGURES.check(f"{prefix}.gradnorm.{part}", torch.stack(norms).norm()[None])
    wanted = [name for name in FIGURES.outputs() if name.startswith(f"{prefix}.grad.")]
    assert len(wanted) > 5
    for name in wanted:
        FIGURES.check(name, gradients[name.removeprefix(f"{prefix}.grad.")])


def test_every_figure_was_checked(request: pytest.FixtureRequest):
    if len(request.session.items) < 5 or request.config.option.keyword or request.config.option.markexpr:
        pytest.skip("only meaningful when the whole file runs")
    assert FIGURES.outputs() - FIGURES.checked == set()
