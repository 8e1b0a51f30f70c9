"""LightenDiffusion against the numbers of the papers' own code, at full and at reduced width."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from lumen_cli.diffusion import antithetic_timesteps
from lumen_cli.networks.lightendiffusion import LightenDiffusion, to_latent
from lumen_cli.networks.unet import timestep_embedding
from tests.reference import Figures, fill_by_formula

FIGURES = Figures("lightendiffusion")
WIDTHS = {"ch32": 32, "ch64": 64}
GRADIENTS = (
    "Unet.conv_in.weight",
    "Unet.down.2.attn.0.q.weight",
    "Unet.mid.block_2.conv1.weight",
    "Unet.temb.dense.1.weight",
)


def build(config: str, *, quiet: bool = False) -> LightenDiffusion:
    width = WIDTHS[config]
    network = LightenDiffusion(unet_channels=width, ctdn_channels=width)
    fill_by_formula(network)
    if quiet:
        with torch.no_grad():
            network.Unet.conv_out.weight.mul_(0.01)
            network.Unet.conv_out.bias.mul_(0.01)
    return network.eval()


@pytest.fixture(scope="module", params=WIDTHS)
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(config: str) -> LightenDiffusion:
    return build(config)


def has(name: str) -> bool:
    return name in FIGURES.entries


def check(name: str, value: torch.Tensor) -> None:
    if has(name):
        FIGURES.check(name, value)


def test_schedule_and_time_embedding():
    schedule = LightenDiffusion(unet_channels=32, ctdn_channels=8).schedule
    FIGURES.check("schedule/betas", schedule.betas())
    FIGURES.check("schedule/alphas_cumprod", schedule.alphas_cumprod())
    FIGURES.check("temb/sinusoidal_64", timestep_embedding(FIGURES["temb/t"], 64))


@torch.no_grad()
def test_single_blocks():
    network = build("ch64")
    recon, retinex = network.decom.ReconNet, network.decom.retinex
    FIGURES.check("blocks_ch64/unet_norm", network.Unet.down[0].block[0].norm1(FIGURES["unet/norm_in"]))
    FIGURES.check("blocks_ch64/ReconNet.pyramid.block1", recon.pyramid.block1(FIGURES["blocks/x64"]))
    FIGURES.check("blocks_ch64/ReconNet.up_sampling1", recon.up_sampling1(FIGURES["blocks/x128"]))
    query, context = FIGURES["attn/query_in"], FIGURES["attn/ctx_in"]
    FIGURES.check("blocks_ch64/retinex.cross_attention", retinex.cross_attention(query, context))
    FIGURES.check("blocks_ch64/retinex.self_attention", retinex.self_attention(query))


@torch.no_grad()
def test_encoder_and_decoder(config, network):
    latent, levels = network.encode(FIGURES["in/img_small"])
    for i, level in enumerate(levels):
        check(f"recon_{config}/pyramid_level{i}", level)
    check(f"recon_{config}/latent", latent)
    given = FIGURES["recon/pred_fea"]
    check(f"recon_{config}/channel_up", network.decom.ReconNet.channel_up(given))
    check(f"recon_{config}/decode_pred_fea", network.decode(given, levels))
    check(f"recon_{config}/autoencode", network.decode(latent, levels))


@torch.no_grad()
def test_retinex_maps(config, network):
    reflectance, illumination = network.retinex(FIGURES["retinex/latent"])
    check(f"retinex_{config}/R", reflectance)
    check(f"retinex_{config}/L", illumination.expand(-1, 3, -1, -1))
    for side in ("low", "high"):
        latent, _ = network.encode(FIGURES[f"in/{side}"])
        reflectance, illumination = network.retinex(latent)
        check(f"ctdn_{config}/{side}_fea", latent)
        check(f"ctdn_{config}/{side}_R", reflectance)
        check(f"ctdn_{config}/{side}_L", illumination.expand(-1, 3, -1, -1))


@torch.no_grad()
def test_unet(config, network):
    check(f"unet_{config}/out", network.Unet(FIGURES["unet/x"], FIGURES["unet/t"]))


@pytest.mark.parametrize(("steps", "variant"), itertools.product((4, 20), ("plain", "quiet")))
@torch.no_grad()
def test_sampler_and_whole_inference(config, steps, variant):
    network = build(config, quiet=variant == "quiet")
    latent, levels = network.encode(FIGURES["in/low"])
    noise = FIGURES["infer/noise_T" if variant == "plain" else "infer/noise_T_quiet"]
    sampled = network.predict_latent(latent, noise, steps)
    check(f"infer_{config}/S{steps}/{variant}/sampler_out", sampled)
    check(f"infer_{config}/S{steps}/{variant}/pred_x", network.decode(to_latent(sampled), levels))


@torch.no_grad()
def test_a_picture_of_any_size_is_padded_as_in_the_papers_code():
    network = build("ch64")
    low, noise = FIGURES["in/low_unpadded"], FIGURES["infer/noise_T_padded"]
    assert noise.shape[1:] == network.noise_shape(*low.shape[-2:])
    enhanced = network.enhance(low, noise=noise, steps=20)
    wanted = FIGURES["infer_ch64/padded_S20/pred_x"]
    assert enhanced.min() >= 0
    assert (wanted < 0).any(), "the figure should show that the papers' code does not clamp"
    # `enhance` clamps; undo the clamp where it bit by taking the figure's own value.
    FIGURES.check("infer_ch64/padded_S20/pred_x", torch.where(wanted.clamp(0, 1) == wanted, enhanced, wanted))
    assert torch.all(enhanced[wanted < -1e-3] == 0)


def training_batch(noise: str = "train/noise_T") -> dict[str, torch.Tensor]:
    return {
        "low": FIGURES["in/train_low"],
        "high": FIGURES["in/train_high"],
        "timesteps": FIGURES["train/t"].long(),
        "noise": FIGURES["train/e"],
        "start": FIGURES[noise],
    }


def gradient_figures(network: LightenDiffusion, prefix: str) -> None:
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert all(name.startswith("Unet.") for name in gradients)
    total = torch.stack([g.norm() for g in gradients.values()]).norm()
    check(f"{prefix}/total_norm", total)
    for name in GRADIENTS:
        check(f"{prefix}/norm/{name}", gradients[name].norm())
    check(f"{prefix}/Unet.conv_out.weight", gradients["Unet.conv_out.weight"])


def freeze_decomposition(network: LightenDiffusion) -> LightenDiffusion:
    network.decom.requires_grad_(False)
    return network.train()


def test_training_losses_and_gradients(config):
    network = freeze_decomposition(build(config))
    batch = training_batch()
    losses = network.losses(batch)
    prefix = f"train_{config}"
    check(f"{prefix}/loss/noise_loss", losses["noise"])
    check(f"{prefix}/loss/scc_loss_weighted", losses["consistency"])
    check(f"{prefix}/loss/total", losses["total"])
    losses["noise"].backward(retain_graph=True)
    gradient_figures(network, f"{prefix}/grad_noise")
    network.zero_grad()
    losses["total"].backward()
    gradient_figures(network, f"{prefix}/grad_total")

    with torch.no_grad():
        latent, _ = network.encode(batch["low"])
        reflectance, illumination = network.retinex(latent)
        _, bright = network.retinex(network.encode(batch["high"])[0])
        reference = reflectance * illumination**0.2
        predicted = to_latent(network.predict_latent(latent, batch["start"]))
        noisy = network.schedule.diffuse(2 * reflectance * bright - 1, batch["noise"], batch["timesteps"])
        estimate = network.Unet(torch.cat([2 * latent - 1, noisy], 1), batch["timesteps"].float())
    check(f"{prefix}/noise_output", estimate)
    check(f"{prefix}/reference_fea", reference)
    check(f"{prefix}/pred_fea", predicted)
    check(f"{prefix}/loss/scc_l1_raw", F.l1_loss(predicted, reference))


def test_training_with_a_quiet_sampler(config):
    network = freeze_decomposition(build(config, quiet=True))
    batch = training_batch("train/noise_T_quiet")
    losses = network.losses(batch)
    check(f"train_{config}/quiet/loss/noise_loss", losses["noise"])
    check(f"train_{config}/quiet/loss/scc_loss_weighted", losses["consistency"])
    losses["consistency"].backward()
    gradient_figures(network, f"train_{config}/grad_quiet_scc")
    with torch.no_grad():
        latent, _ = network.encode(batch["low"])
        check(f"train_{config}/quiet/pred_fea", to_latent(network.predict_latent(latent, batch["start"])))


def test_three_steps_of_adam():
    network = freeze_decomposition(build("ch32"))
    optimizer = torch.optim.Adam(network.Unet.parameters(), lr=2e-5)
    rows = []
    for _ in range(3):
        losses = network.losses(training_batch())
        rows.append(torch.stack([losses["noise"], losses["consistency"]]).detach())
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    with torch.no_grad():
        losses = network.losses(training_batch())
    rows.append(torch.stack([losses["noise"], losses["consistency"]]))
    FIGURES.check("train_ch32/three_steps/losses", torch.stack(rows))
    FIGURES.check("train_ch32/three_steps/param/Unet.conv_out.bias", network.Unet.conv_out.bias)


def test_every_figure_was_checked(request: pytest.FixtureRequest):
    if len(request.session.items) < 5 or request.config.option.keyword:
        pytest.skip("only meaningful when the whole file runs")
    assert FIGURES.outputs() - FIGURES.checked == set()


def test_timesteps_come_in_pairs():
    drawn = antithetic_timesteps(5, 1000, torch.Generator().manual_seed(0))
    assert drawn.shape == (5,)
    assert torch.equal(drawn[:3] + torch.cat([drawn[3:], drawn[2:3].mul(-1).add(999)]), torch.full((3,), 999))


@torch.inference_mode()
def test_the_retinex_block_has_no_say_in_the_enhanced_picture():
    network = fill_by_formula(LightenDiffusion(unet_channels=32, ctdn_channels=8)).eval()
    low = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    before = network.enhance(low, noise=noise, steps=2)
    for parameter in network.decom.retinex.parameters():
        parameter.mul_(0.5)
    assert torch.equal(network.enhance(low, noise=noise, steps=2), before)


@pytest.mark.parametrize("widths", [{"unet_channels": 40}, {"ctdn_channels": 12}])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ValueError, match="multiple"):
        LightenDiffusion(**widths)
