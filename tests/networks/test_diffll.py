"""DiffLL against the numbers of the papers' own code, at full and at reduced width."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lumen_cli.diffusion import Sampler, sample
from lumen_cli.networks import gain_to, similarity, tone_map
from lumen_cli.networks.diffll import DiffLL, analyse, content_loss, synthesise, total_variation
from lumen_cli.networks.unet import timestep_embedding
from tests.reference import Figures, fill_by_formula

FIGURES = Figures("diffll")
WIDTHS = {"ch32": 32, "ch64": 64}


def build(config: str) -> DiffLL:
    network = DiffLL(unet_channels=WIDTHS[config])
    fill_by_formula(network)
    return network.eval()


def check(name: str, value: torch.Tensor) -> None:
    """Check a figure where there is one of that name for this width."""
    if name in FIGURES.entries:
        FIGURES.check(name, value)


@pytest.fixture(scope="module", params=WIDTHS)
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(config: str) -> DiffLL:
    return build(config)


def test_wavelet():
    average, details = analyse(FIGURES["wavelet/x"])
    FIGURES.check("wavelet/dwt", torch.cat([average, details]))
    average, *details = FIGURES["wavelet/coeffs"].chunk(4)
    FIGURES.check("wavelet/iwt", synthesise(average, torch.cat(details)))


@torch.no_grad()
def test_schedule_and_time_embedding(network, config):
    FIGURES.check("schedule/betas", network.schedule.betas())
    FIGURES.check("schedule/alphas_cumprod", network.schedule.alphas_cumprod())
    FIGURES.check("temb/sinusoidal_64", timestep_embedding(FIGURES["temb/t"], 64))
    if config == "ch64":
        FIGURES.check("temb/mlp_64", network.Unet.temb(FIGURES["temb/t"]))


@torch.no_grad()
def test_detail_restoration(network):
    first = network.high_enhance0
    attended = first.cross_attention0(FIGURES["hfrm/attn_query_in"], FIGURES["hfrm/attn_ctx_in"])
    FIGURES.check("hfrm/high_enhance0.cross_attention0", attended)
    for band in ("HL", "HH"):
        block = first.get_submodule(f"dilated_block_{band}")
        FIGURES.check(f"hfrm/high_enhance0.dilated_block_{band}", block(FIGURES["hfrm/res_in"]))
    FIGURES.check("hfrm/high_enhance0", first(FIGURES["hfrm/in"]))
    FIGURES.check("hfrm/high_enhance1", network.high_enhance1(FIGURES["hfrm/in"]))


@torch.no_grad()
def test_unet_and_its_blocks(network, config):
    check(f"unet_{config}/out", network.Unet(FIGURES["unet/x"], FIGURES["unet/t"]))
    if config == "ch64":
        FIGURES.check("unet_ch64/norm_tiny", network.Unet.down[0].block[0].norm1(FIGURES["unet/norm_in"]))
    prefix = f"unet_{config}/small/"
    hooks = [
        network.Unet.get_submodule(name.removeprefix(prefix)).register_forward_hook(
            lambda _, __, output, name=name: FIGURES.check(name, output)
        )
        for name in FIGURES.outputs()
        if name.startswith(prefix)
    ]
    assert hooks
    check(f"unet_{config}/out_small", network.Unet(FIGURES["unet/x_small"], FIGURES["unet/t_small"]))
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("steps", "label"), [(4, "S4"), (7, "S7_is_8_steps"), (10, "S10")])
@torch.inference_mode()
def test_sampler_and_whole_inference(network, config, steps, label, layout):
    low = FIGURES["in/low"].contiguous(memory_format=layout)
    picture, _, coarsest, details = network.predict(low, FIGURES["infer/noise_T"], steps)
    check(f"infer_{config}/{label}/denoise_LL_LL", coarsest)
    check(f"infer_{config}/{label}/pred_x_unclamped", 2.0 * picture - 1.0)
    for number, level in enumerate(details):
        check(f"infer_{config}/high{number}", level)
    enhanced = network.enhance(low, noise=FIGURES["infer/noise_T"], steps=steps)
    check(f"infer_{config}/{label}/pred_x", enhanced)
    assert torch.equal(enhanced, picture.clamp(0.0, 1.0))


@torch.inference_mode()
def test_a_picture_of_any_size_is_padded_as_in_the_papers_code():
    network = build("ch64")
    low, noise = FIGURES["in/low_unpadded"], FIGURES["infer/noise_T_padded"]
    assert noise.shape[1:] == network.noise_shape(*low.shape[-2:])
    assert FIGURES["infer/pad_shape"].tolist() == [4 * side for side in noise.shape[2:]]
    FIGURES.check("infer_ch64/padded_S10/pred_x", network.enhance(low, noise=noise))


@pytest.mark.parametrize(("eta", "label"), [(0.0, "S4_eta0"), (0.5, "S4_eta0.5")])
def test_sampler_alone_with_and_without_fresh_noise(eta, label):
    network, condition = build("ch32"), FIGURES["sampler/cond"]
    with torch.inference_mode():
        found = sample(
            lambda x, t: network.Unet(torch.cat([condition, x], dim=1), t),
            FIGURES["infer/noise_T"],
            network.schedule,
            4,
            Sampler(eta=eta),
            fresh=iter(FIGURES["sampler/eta_noises"]),
        )
    FIGURES.check(f"sampler_ch32/{label}", found)


def training_batch() -> dict[str, torch.Tensor]:
    return {
        "low": FIGURES["in/train_low"],
        "high": FIGURES["in/train_high"],
        "timesteps": FIGURES["train/t"].long(),
        "noise": FIGURES["train/e"],
        "start": FIGURES["train/noise_T"],
    }


def test_training_losses_and_gradients(config):
    network = build(config).train()
    losses = network.losses(training_batch())
    prefix = f"train_{config}"
    for name in ("noise", "photo", "frequency"):
        FIGURES.check(f"{prefix}/loss/{name}_loss", losses[name])
    FIGURES.check(f"{prefix}/loss/total", losses["total"])
    losses["total"].backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    FIGURES.check(f"{prefix}/grad/total_norm", torch.stack([g.norm() for g in gradients.values()]).norm())
    wanted = [name for name in FIGURES.outputs() if name.startswith(f"{prefix}/grad/") and "total_norm" not in name]
    assert len(wanted) > 5
    for name in wanted:
        kind, _, parameter = name.removeprefix(f"{prefix}/grad/").rpartition("norm/")
        FIGURES.check(name, gradients[parameter].norm() if kind or "norm/" in name else gradients[parameter])


def test_what_the_training_terms_are_made_of(network, config):
    prefix, batch = f"train_{config}", training_batch()
    with torch.no_grad():
        target, target_details = network.decompose_bands(batch["high"])
        _, target_finest = network.compose_bands(target, target_details)
        noisy = network.schedule.diffuse(target, batch["noise"], batch["timesteps"])
        condition, _ = network.decompose_bands(batch["low"])
        check(f"{prefix}/noise_output", network.Unet(torch.cat([condition, noisy], dim=1), batch["timesteps"].float()))
        picture, finest, _, details = network.predict(batch["low"], batch["start"])
        picture = picture.clamp(0.0, 1.0)
    check(f"{prefix}/pred_LL", finest)
    check(f"{prefix}/pred_x", picture)
    check(f"{prefix}/loss/photo.l1", F.l1_loss(picture, batch["high"]))
    check(f"{prefix}/loss/photo.one_minus_ssim", 1.0 - similarity(picture, batch["high"]))
    for number, (level, wanted) in enumerate(zip(details, target_details, strict=True)):
        check(f"{prefix}/loss/freq.mse_high{number}", F.mse_loss(level, wanted))
        check(f"{prefix}/loss/freq.tv_input_high{number}", total_variation(level))
    check(f"{prefix}/loss/freq.mse_pred_LL", F.mse_loss(finest, target_finest))
    check(f"{prefix}/loss/freq.tv_pred_LL", total_variation(finest))


def test_three_steps_of_adam():
    network = build("ch32").train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    rows = []
    for step in range(4):
        losses = network.losses(training_batch())
        rows.append(torch.stack([losses["noise"], losses["photo"], losses["frequency"]]).detach())
        if step < 3:
            optimizer.zero_grad()
            losses["total"].backward()
            optimizer.step()
    FIGURES.check("train_ch32/three_steps/losses", torch.stack(rows))
    parameters = dict(network.named_parameters())
    for name in [name for name in FIGURES.outputs() if name.startswith("train_ch32/three_steps/param/")]:
        FIGURES.check(name, parameters[name.removeprefix("train_ch32/three_steps/param/")])


def test_every_figure_was_checked(request: pytest.FixtureRequest):
    if len(request.session.items) < 5 or request.config.option.keyword:
        pytest.skip("only meaningful when the whole file runs")
    assert FIGURES.outputs() - FIGURES.checked == set()


def tiny(**settings):
    return DiffLL(unet_channels=32, unet_multipliers=(1, 1), detail_channels=8, **settings)


def test_the_estimator_can_be_shown_dark_tones_spread_apart():
    tones = torch.tensor([0.0, 0.02, 0.04, 1.0])
    picture = tones.view(1, 1, 1, 4).expand(1, 3, 4, 4).repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    plain, spread = tiny().observe(picture), tiny(condition_power=0.4).observe(picture)
    torch.testing.assert_close(plain.condition[0, 0, 0], 4.0 * (2.0 * tones - 1.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(spread.condition[0, 0, 0], 2.0 * tones**0.4 - 1.0, rtol=0, atol=1e-4)
    assert plain.base is None
    for power in (0.0, 1.5):
        with pytest.raises(ValueError, match="condition_power"):
            tiny(condition_power=power)


def test_a_network_that_adds_nothing_returns_the_picture_at_its_exposure():
    network = tiny(prediction="x0", exposure=0.4).requires_grad_(False).eval()
    torch.nn.init.zeros_(network.Unet.conv_out.weight)
    torch.nn.init.zeros_(network.Unet.conv_out.bias)
    for number in range(2):
        tail = network.get_submodule(f"high_enhance{number}.conv_tail.point_conv")
        torch.nn.init.zeros_(tail.weight)
        torch.nn.init.zeros_(tail.bias)
    dark = 0.1 * torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    dark[:, 0] *= 2.0  # a red picture stays red
    noise = torch.randn(2, *network.noise_shape(32, 48))
    bright = network.enhance(dark, noise=noise)
    assert 0.25 < float(bright.mean()) < 0.4
    torch.testing.assert_close(bright, tone_map(dark, gain_to(dark, 0.4)), rtol=0, atol=1e-5)
    # What is bright already is left alone.
    well = 0.5 + 0.5 * dark
    torch.testing.assert_close(network.enhance(well, noise=noise), well, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_what_is_nearly_white_is_not_corrected():
    """A lamp in a dark room, a patch of white larger than a value of the coarsest average."""
    torch.manual_seed(0)
    network, plain = (tiny(prediction="x0", exposure=0.4, fade_above=above).eval() for above in (0.6, None))
    plain.load_state_dict(network.state_dict())
    room = torch.full((1, 3, 32, 32), 0.02)
    room[..., 8:16, 8:16] = 1.0
    observed, noise = network.observe(room), torch.randn(1, *network.noise_shape(32, 32))
    corrected, everywhere = (each.predict_average(observed, noise) - observed.base for each in (network, plain))
    lamp = observed.base[0, 0] > 0.99 * 2.0**network.levels
    assert int(lamp.sum()) == 4
    assert float(corrected[..., lamp].abs().max()) < 1e-4
    assert float(everywhere[..., lamp].abs().max()) > 1e-2
    assert float(corrected[..., ~lamp].abs().max()) > 1e-2


@torch.inference_mode()
def test_colour_of_what_is_bright_is_corrected_less_than_its_brightness():
    torch.manual_seed(0)
    network, plain = (tiny(prediction="x0", exposure=0.4, fade_colour_above=above).eval() for above in (0.0, None))
    plain.load_state_dict(network.state_dict())
    room = torch.rand(1, 3, 32, 32) * 0.1
    observed, x, t = network.observe(room), torch.randn(1, *network.noise_shape(32, 32)), torch.tensor([500])
    corrected, everywhere = (each.estimate(observed, x, t) - observed.base for each in (network, plain))
    torch.testing.assert_close(corrected.mean(dim=1), everywhere.mean(dim=1))
    shares = corrected.std(dim=1) / everywhere.std(dim=1)
    torch.testing.assert_close(shares, 1.0 - network._unit(observed.base).amax(dim=1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"exposure": 0.5},
        {"exposure": 1.5, "prediction": "x0"},
        {"fade_above": 0.6},
        {"fade_above": 1.0, "exposure": 0.5, "prediction": "x0"},
        {"fade_colour_above": 0.0},
        {"fade_colour_above": -0.1, "exposure": 0.5, "prediction": "x0"},
    ],
)
def test_an_exposure_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match="exposure"):
        tiny(**settings)


def test_similarity_is_that_of_scikit_image():
    from skimage.metrics import structural_similarity

    x, y = torch.rand(2, 1, 3, 24, 31, generator=torch.Generator().manual_seed(0))
    y = 0.7 * x + 0.3 * y
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wanted = structural_similarity(x[0].numpy(), y[0].numpy(), channel_axis=0, **settings)
    assert float(similarity(x, y)) == pytest.approx(wanted, abs=1e-5)
    assert float(content_loss(x, x)) == pytest.approx(0.0, abs=1e-6)


SMALL = {"unet_channels": 32, "unet_multipliers": (1, 2), "detail_channels": 8}


def small(**settings: object) -> DiffLL:
    network = DiffLL(**(SMALL | settings))  # type: ignore[arg-type]
    fill_by_formula(network)
    return network.eval()


def noise_for(network: DiffLL, size: tuple[int, int], count: int = 1) -> torch.Tensor:
    return torch.randn(count, *network.noise_shape(*size), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_number_of_wavelet_levels(levels):
    network = small(levels=levels)
    assert network.size_multiple == 2 ** (levels + 1)
    assert network.noise_shape(33, 47) == (3, *(-(-side // network.size_multiple) * 2 for side in (33, 47)))
    picture = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    average, details = network.decompose_bands(picture)
    assert average.shape == (2, 3, 32 >> levels, 48 >> levels)
    assert float(average.abs().max()) <= 2**levels
    rebuilt, _ = network.compose_bands(average, details)
    torch.testing.assert_close(rebuilt, picture, rtol=0, atol=1e-6)
    losses = network.losses({"low": picture / 8, "high": picture}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses["total"], losses["noise"] + losses["photo"] + losses["frequency"])


@torch.inference_mode()
def test_the_clip_bounds_the_average():
    network = small(clip=4.0)
    low = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    *_, coarsest, _ = network.predict(low, 50.0 * noise_for(network, (32, 32)))
    assert float(coarsest.abs().max()) <= 4.0 + 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"unet_channels": 40}, "multiple"), ({"detail_channels": 12}, "multiple"), ({"levels": 0}, "at least one")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffLL(**settings)


@torch.no_grad()
def test_a_gain_from_the_cpu_is_used_on_the_pictures_device():
    network = DiffLL(32, (1, 2), 8, exposure=0.3, prediction="x0").eval()
    low = torch.rand(1, 3, 64, 64)
    gain = network.global_context(low)["gain"]
    assert gain.device.type == "cpu"
    observed = network.observe(low.to("meta"), gain)
    assert observed.base is not None
    assert observed.base.device.type == "meta"
