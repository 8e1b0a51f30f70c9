"""AnlightenDiff: what a user and the paper expect of it, beyond the figures of the papers' code."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from lumen_cli.diffusion import CosineSchedule, Sampler, sample, target_of
from lumen_cli.networks.anlightendiff import (
    AnlightenDiff,
    color_map,
    diffuse,
    equalise,
    features,
    gradient_map,
    to_picture,
    to_residual,
)
from lumen_cli.networks.anlightendiff.blocks import WeightNormConv
from lumen_cli.networks.anlightendiff.unet import mish_, tables
from tests.reference import fill_by_formula

SCHEDULE = CosineSchedule()


def small(**settings: object) -> AnlightenDiff:
    network = AnlightenDiff(**({"dim": 8, "steps": 2} | settings))  # type: ignore[arg-type]
    fill_by_formula(network)
    return network.eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dark(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(1)) / 4


def noise_for(network: AnlightenDiff, low: torch.Tensor) -> torch.Tensor:
    return torch.randn(len(low), *network.noise_shape(*low.shape[-2:]), generator=seeded(2))


VARIANTS = ["from-scratch", "two-step"]
SETTINGS = [
    {},
    {"variant": "two-step"},
    {"full_resolution_skip": True},
    {"prediction": "x0", "from_center": True, "eta": 0.0, "multipliers": (2, 1, 3)},
]


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (200, 16), (64, 64), (1, 90)])
@pytest.mark.parametrize("settings", SETTINGS)
@torch.inference_mode()
def test_any_size_gives_a_picture_of_that_size_and_no_pixel_darker(size, settings):
    network, low = small(**settings), dark(*size)
    noise = None if network.noise_shape(*size) is None else noise_for(network, low)
    enhanced = network.enhance(low, noise=noise)
    assert enhanced.shape == low.shape
    assert torch.isfinite(enhanced).all()
    assert (enhanced >= low).all()
    assert enhanced.max() <= 1


@pytest.mark.parametrize("settings", SETTINGS)
def test_framed_layers_compute_what_the_modules_do(settings):
    network, low = small(**settings), dark(96, 64)
    x = torch.cat([torch.randn(1, 3, 96, 64, generator=seeded(3)), low], dim=1)
    found = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            center, rests = network.center(low)
            found.append((center, network.model.unet(x, torch.tensor([40.0]), rests)))
    for plain, framed in zip(*found, strict=True):
        assert plain.requires_grad
        torch.testing.assert_close(framed, plain.detach(), rtol=0, atol=1e-4)


def test_bands_of_a_large_map_are_joined_without_seams(monkeypatch):
    network, low = small(), dark(128, 96)
    with torch.no_grad():
        whole, _ = network.center(low)
        for size in (1, 50_000):
            monkeypatch.setattr("lumen_cli.networks.anlightendiff.unet.BAND_BYTES", size)
            torch.testing.assert_close(network.center(low)[0], whole, rtol=0, atol=1e-4)


def test_mish_is_that_of_torch():
    x = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([-1e4, 1e4, 0.0])])
    torch.testing.assert_close(mish_(x.clone()), F.mish(x.double()).float(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_batch_mates_change_no_bit(variant):
    network, low = small(variant=variant, steps=3), dark(40, 64, 2)
    noise = noise_for(network, low)
    together = network.enhance(low, noise=noise)
    alone = [network.enhance(low[i : i + 1], noise=noise[i : i + 1]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together, network.enhance(low, noise=noise.flip(0)))


def test_noise_is_asked_for_only_where_some_is_added():
    with pytest.raises(ValueError, match="noise"):
        small().enhance(dark(64, 64))
    still = small(eta=0.0)
    assert still.noise_shape(100, 100) is None
    with torch.inference_mode():
        assert torch.equal(still.enhance(dark(64, 64)), still.enhance(dark(64, 64)))


@pytest.mark.parametrize("steps", [1, 3])
@torch.inference_mode()
def test_from_the_centre_an_estimate_of_nothing_is_the_centre(steps):
    network, low = small(prediction="x0", from_center=True, eta=0.0), dark(64, 64)
    last = network.model.unet.final_conv[1]
    last.weight_g.zero_()
    last.bias.zero_()
    center, _ = network.center(low)
    torch.testing.assert_close(network.enhance(low, steps=steps), torch.maximum(center.clamp(0, 1), low))


# The sampler


@torch.inference_mode()
def test_all_timesteps_are_the_papers_chain():
    """Section by section as published: the posterior of the tables, with the extra term of the centre."""
    timesteps = 12
    network, low = small(schedule={"timesteps": timesteps}, steps=timesteps), dark(64, 64)
    fresh = torch.randn(timesteps, 1, 3, 64, 64, generator=seeded(4))
    table = tables(network.schedule)
    center, rests = network.center(low)
    x = start = 2 * center - 1
    for number, t in enumerate(reversed(range(timesteps))):
        epsilon = network.model.unet(torch.cat([x, low], dim=1), torch.tensor([float(t)]), rests)
        at = {name: float(values[t]) for name, values in table.items()}
        clean = (at["sqrt_recip_alphas_cumprod"] * x - at["sqrt_recipm1_alphas_cumprod"] * epsilon).clamp(-1, 1)
        mean = at["posterior_mean_coef1"] * clean + at["posterior_mean_coef2"] * x + at["extra_term_coef2"] * start
        x = mean + (t > 0) * math.exp(0.5 * at["posterior_log_variance_clipped"]) * fresh[number]
    torch.testing.assert_close(network.predict(low, iter(fresh)), clean, rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_a_perfect_estimate_is_found_in_any_number_of_steps(steps, eta, prediction):
    clean, center = (torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=seeded(s)) * 2 - 1 for s in (5, 6))

    def oracle(x, t):
        alpha = SCHEDULE.alpha_bar(int(t[0]))
        signal, spread = torch.tensor(alpha).sqrt().double(), torch.tensor(1 - alpha).sqrt().double()
        return target_of(clean, (x - signal * clean) / spread, signal, spread, prediction)

    sampler = Sampler(eta=eta, prediction=prediction, clip=1.0)
    found = sample(oracle, center, SCHEDULE, steps, sampler, center=center)
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_over_many_timesteps_lands_in_the_forward_process(eta):
    """From x_t of DRDA, a step to any earlier s gives x_s of DRDA: its mean between x_0 and the centre, its spread."""
    clean, center, schedule = 0.6, -0.8, CosineSchedule(timesteps=50)
    visited = schedule.respaced(4)
    values = torch.full((1, 1, 400, 500), clean, dtype=torch.float64)
    middle = torch.full_like(values, center)
    seen = []

    def oracle(x, t):
        alpha = schedule.alpha_bar(int(t[0]))
        seen.append((alpha, float(x.mean()), float(x.std())))
        return (x - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)

    alpha = schedule.alpha_bar(visited[0])
    noise = torch.randn(values.shape, generator=seeded(7), dtype=torch.float64)
    start = math.sqrt(alpha) * values + (1 - math.sqrt(alpha)) * middle + math.sqrt(1 - alpha) * noise
    fresh = (torch.randn(values.shape, generator=seeded(s), dtype=torch.float64) for s in range(8, 20))
    sample(oracle, start, schedule, 4, Sampler(eta=eta), center=middle, fresh=fresh)
    assert len(seen) == 4
    for alpha, mean, spread in seen:
        assert mean == pytest.approx(math.sqrt(alpha) * clean + (1 - math.sqrt(alpha)) * center, abs=0.01)
        assert spread == pytest.approx(math.sqrt(1 - alpha), abs=0.01)


def test_without_a_centre_the_chain_is_that_of_ddpm():
    start = torch.randn(1, 3, 8, 8, generator=seeded(8))
    fresh = torch.randn(10, 1, 3, 8, 8, generator=seeded(9))

    def walk(center: torch.Tensor | None) -> torch.Tensor:
        sampler = Sampler(eta=1.0, clip=1.0)
        return sample(lambda x, t: x / 2, start, SCHEDULE, 10, sampler, center=center, fresh=iter(fresh))

    torch.testing.assert_close(walk(torch.zeros_like(start)), walk(None), rtol=0, atol=1e-6)


def test_tables_are_those_of_the_paper():
    table = tables(SCHEDULE)
    published = {  # at t = 0, 50, 99
        "betas": (6.31282e-04, 3.15463e-02, 0.999),
        "alphas_cumprod": (0.999369, 0.478265, 2.42857e-07),
        "alphas_cumprod_prev": (1, 0.493844, 2.42857e-04),
        "sqrt_recipm1_alphas_cumprod": (0.0251333, 1.044458, 2029.198),
        "log_one_minus_alphas_cumprod": (-7.36776, -0.650595, -2.42857e-07),
        "posterior_variance": (0, 0.0306044, 0.998758),
        "posterior_log_variance_clipped": (-46.0517, -3.486613, -1.24314e-03),
        "posterior_mean_coef1": (1, 0.0424907, 0.0155683),
        "posterior_mean_coef2": (0, 0.954715, 0.0316151),
        "extra_term_coef1": (0.0125646, 0.427008, 0.999507),
        "extra_term_coef2": (0, 0.00279404, 0.952817),
    }
    for name, values in published.items():
        assert [float(table[name][t]) for t in (0, 50, 99)] == pytest.approx(values, rel=1e-5, abs=1e-9), name
    # The three weights of a step's mean sum to one: where x, x_0 and the centre agree, nothing moves.
    total = table["posterior_mean_coef1"] + table["posterior_mean_coef2"] + table["extra_term_coef2"]
    torch.testing.assert_close(total, torch.ones(100, dtype=torch.float64))


def test_tables_in_a_file_are_not_believed():
    network = small()
    state = {name: torch.zeros(7) if name.count(".") == 1 else value for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    assert float(network.model.alphas_cumprod[50]) == pytest.approx(0.478265, abs=1e-6)


# Features


def test_equalisation_is_that_of_pillow():
    generator = np.random.default_rng(0)
    planes = [
        generator.integers(0, 256, (40, 50)),
        (generator.gamma(1.0, 9.0, (40, 50))).clip(0, 255),
        np.full((40, 50), 7),
        generator.choice([3, 200], (40, 50), p=[0.01, 0.99]),
    ]
    pixels = np.stack([np.stack([plane] * 3, -1) for plane in planes]).astype(np.uint8)
    pixels[..., 1] //= 2
    found = equalise(torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2))
    wanted = np.stack([np.asarray(ImageOps.equalize(Image.fromarray(picture))) for picture in pixels])
    np.testing.assert_array_equal(np.rint(found.permute(0, 2, 3, 1).numpy() * 255), wanted)


def test_colours_and_their_gradient():
    picture = torch.zeros(1, 3, 2, 3)
    picture[0, :, 0, 0] = torch.tensor([0.1, 0.2, 0.1])
    colours = color_map(picture)
    assert colours[0, :, 0, 0].tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert colours[0, :, 1:].abs().max() == 0, "black has no colour"
    torch.testing.assert_close(gradient_map(colours)[0, 1], torch.tensor([[0.5, 0, 0], [0, 0, 0]]))
    assert torch.isfinite(features(torch.zeros(1, 3, 8, 8))).all()


# Weight norm


def test_a_kept_kernel_follows_its_parameters():
    conv, x = WeightNormConv(3, 4, 3), torch.rand(1, 3, 8, 8)

    def fresh() -> torch.Tensor:
        v = conv.weight_v
        return F.conv2d(x, conv.weight_g * v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1), conv.bias)

    def same() -> None:
        with torch.no_grad():
            torch.testing.assert_close(conv(x), fresh(), rtol=0, atol=1e-6)
            assert conv.kernel() is conv.kernel(), "computed once"

    same()
    torch.testing.assert_close(conv.kernel(), conv.weight_v, msg="the start is torch's own initialisation")
    with torch.no_grad():
        conv.weight_g.mul_(3.0)
    same()
    conv.load_state_dict({name: torch.randn_like(value) for name, value in conv.state_dict().items()})
    same()
    conv.train()
    conv(x).sum().backward()
    assert conv.weight_v.grad is not None
    torch.optim.SGD(conv.parameters(), lr=0.1).step()
    conv.eval()
    same()
    conv.weight_v = torch.nn.Parameter(torch.randn_like(conv.weight_v))
    same()
    copied = copy.deepcopy(conv)
    with torch.no_grad():
        copied.weight_g.mul_(2.0)
        torch.testing.assert_close(copied.kernel(), 2 * conv.kernel())
    with torch.no_grad():
        assert conv.double()(x.double()).dtype == torch.float64


# Training


def pair(count: int = 2) -> dict[str, torch.Tensor]:
    low = dark(64, 64, count)
    return {"low": low, "high": (low * 3).clamp(0, 1)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("trained", [False, True])
def test_the_encoder_learns_only_where_that_is_wanted(variant, trained):
    network = small(variant=variant, encoder_trained=trained).train()
    batch = pair() | {"bright_center": torch.tensor(False)}
    network.losses(batch, seeded(0), loss="l2")["total"].backward()
    learning = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    encoders = {"encoder"} if variant == "from-scratch" else {"encoder", "histroEncoder"}
    assert learning == {"model"} | (encoders if trained else set())
    conditioned = network.model.unet.downs[0][1].block1.conv.weight_v.grad
    assert (conditioned.abs().amax(dim=(0, 2, 3)) > 0).all(), "the estimator learns from all the channels it sees"


def test_training_repeats_with_its_generator():
    network = small()
    losses = [network.losses(pair(), seeded(seed))["total"].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("variant", "used"), [("from-scratch", True), ("two-step", False)])
@torch.no_grad()
def test_the_bright_picture_is_the_centre_half_of_the_time(variant, used):
    network, batch = small(variant=variant), pair()
    drawn = {"timesteps": torch.tensor([10, 60]), "noise": torch.randn(2, 3, 64, 64, generator=seeded(0))}

    def loss(seed: int, **given: torch.Tensor) -> float:
        return float(network.losses(batch | drawn | given, seeded(seed), loss="l2")["total"])

    either = {coin: loss(0, bright_center=torch.tensor(coin)) for coin in (True, False)}
    tossed = [loss(seed) for seed in range(12)]
    assert set(tossed) == (set(either.values()) if used else {either[False]})


def test_the_image_loss_is_handed_pictures_and_its_gradient_counts():
    network, batch, seen = small().train(), pair(), []

    def image_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append((prediction, target))
        return F.mse_loss(prediction, target)

    losses = network.losses(batch, seeded(0), loss=image_loss)
    assert set(losses) == {"image", "total"}
    (prediction, target), *_ = seen
    assert prediction.shape == target.shape == batch["low"].shape
    assert (target >= batch["low"]).all()
    assert prediction.requires_grad
    assert not target.requires_grad
    losses["total"].backward()
    assert network.model.unet.final_conv[1].bias.grad.abs().max() > 0


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("loss", ["l1", "l2", F.l1_loss])
@torch.no_grad()
def test_a_perfect_estimate_has_no_loss(prediction, loss, monkeypatch):
    network, batch = small(prediction=prediction), pair()
    batch |= {
        "timesteps": torch.tensor([3, 90]),
        "noise": torch.randn(2, 3, 64, 64, generator=seeded(0)),
        "bright_center": torch.tensor(True),
    }
    at = diffuse(to_residual(batch["high"], batch["low"]), batch["high"], batch["noise"], batch["timesteps"], SCHEDULE)
    right = target_of(at.clean, at.shifted, at.signal, at.spread, prediction)
    monkeypatch.setattr(network.model.unet, "forward", lambda *_: right)
    assert float(network.losses(batch, loss=loss)["total"]) < 1e-6


def test_a_residual_is_a_picture_again_where_nothing_got_darker():
    batch = pair()
    torch.testing.assert_close(to_picture(to_residual(batch["high"], batch["low"]), batch["low"]), batch["high"])
    darker = to_picture(to_residual(batch["low"] / 2, batch["low"]), batch["low"])
    torch.testing.assert_close(darker, batch["low"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "both"}, "from-scratch, two-step"),
        ({"dim": 7}, "even"),
        ({"multipliers": (1,)}, "two levels"),
        ({"from_center": True}, "x0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AnlightenDiff(**settings)
