from __future__ import annotations

import math

import pytest
import torch

from lumen_cli.diffusion import (
    DDIM,
    CosineSchedule,
    LinearSchedule,
    Sampler,
    fresh_noise,
    sample,
    split_prediction,
    target_of,
)

SCHEDULE = LinearSchedule()


@pytest.mark.parametrize(
    ("steps", "first", "count"), [(20, 950, 20), (7, 994, 8), (30, 990, 31), (1, 0, 1), (1000, 999, 1000)]
)
def test_respacing_visits_the_timesteps_of_the_papers_code(steps, first, count):
    visited = SCHEDULE.respaced(steps)
    assert (visited[0], visited[-1], len(visited)) == (first, 0, count)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match="1 … 1000"):
        SCHEDULE.respaced(steps)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_a_perfect_network_finds_the_clean_picture_whatever_it_predicts(prediction):
    clean = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1
    noise = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def oracle(x, t):
        signal, spread = (c.double() for c in SCHEDULE.coefficients(t.long(), x))
        return target_of(clean, (x - signal * clean) / spread, signal, spread, prediction)

    for steps in (1, 4, 20):
        torch.testing.assert_close(
            sample(oracle, noise, SCHEDULE, steps, Sampler(prediction=prediction)), clean, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_a_prediction_splits_into_what_the_noisy_picture_was_made_of(prediction):
    clean, noise = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    signal, spread = SCHEDULE.coefficients(torch.tensor([10, 700]), clean)
    output = target_of(clean, noise, signal, spread, prediction)
    got = split_prediction(output, SCHEDULE.diffuse(clean, noise, torch.tensor([10, 700])), signal, spread, prediction)
    torch.testing.assert_close(got[0], clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(got[1], noise, rtol=0, atol=1e-3)


def test_ddpm_keeps_the_variance_of_the_forward_process():
    # For data that are standard normal, the best estimate of the noise is sqrt(1 - ᾱ_t) x_t, and the chain stays
    # standard normal at every step.
    def best(x, t):
        return math.sqrt(1 - SCHEDULE.alpha_bar(int(t[0]))) * x

    noise = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sampled = sample(best, noise, SCHEDULE, 200, Sampler(eta=1.0))
    assert abs(float(sampled.std()) - 1) < 0.03
    assert torch.equal(sampled, sample(best, noise, SCHEDULE, 200, Sampler(eta=1.0)))
    assert not torch.equal(sampled, sample(best, noise, SCHEDULE, 200, Sampler(eta=1.0), fresh=fresh_noise(-noise)))


def test_ddim_is_deterministic_and_clipping_bounds_the_result():
    def wild(x, t):
        return 3.0 * x

    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(wild, noise, SCHEDULE, 5, DDIM), sample(wild, noise, SCHEDULE, 5, DDIM))
    assert sample(wild, noise, SCHEDULE, 5, DDIM).abs().max() > 1
    assert sample(wild, noise, SCHEDULE, 5, Sampler(clip=1.0)).abs().max() <= 1


def test_temperature_scales_the_starting_noise_and_at_0_nothing_is_random():
    def wild(x, t):
        return 0.9 * x.cos()

    one, other = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cold, half = Sampler(temperature=0.0), Sampler(temperature=0.5)
    assert torch.equal(sample(wild, one, SCHEDULE, 3, cold), sample(wild, other, SCHEDULE, 3, cold))
    assert torch.equal(sample(wild, one, SCHEDULE, 3, half), sample(wild, 0.5 * one, SCHEDULE, 3))
    assert not torch.equal(sample(wild, one, SCHEDULE, 3, half), sample(wild, other, SCHEDULE, 3, half))


@pytest.mark.parametrize("temperature", [-0.1, 1.1, math.nan])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        Sampler(temperature=temperature)


COSINE = CosineSchedule()


def test_the_cosine_schedule_ends_in_almost_pure_noise():
    assert COSINE.alpha_bar(0) == pytest.approx(0.999369, abs=1e-6)
    assert COSINE.alpha_bar(50) == pytest.approx(0.478265, abs=1e-6)
    assert COSINE.alpha_bar(99) == pytest.approx(2.42857e-07, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3, 4, 7, 100])
def test_the_cosine_schedule_is_respaced_from_its_last_timestep_down(steps):
    visited = COSINE.respaced(steps)
    assert visited[0] == 99
    assert len(visited) == steps
    gaps = {a - b for a, b in zip(visited, [*visited[1:], -1], strict=True)}
    assert gaps <= {100 // steps, -(-100 // steps)}


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 100])
def test_around_a_center_a_perfect_network_finds_the_clean_picture_too(steps, eta):
    clean, center = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64).unbind()

    def oracle(x, t):
        signal, spread = math.sqrt(COSINE.alpha_bar(int(t[0]))), math.sqrt(1 - COSINE.alpha_bar(int(t[0])))
        return (x - signal * clean) / spread

    got = sample(oracle, center, COSINE, steps, Sampler(eta=eta, clip=1.0), center=center)
    torch.testing.assert_close(got, clean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 5, 100])
def test_a_step_around_a_center_is_the_papers_posterior(steps):
    """AnlightenDiff's README: the centre's coefficient [1 - ᾱ + sqrt(ᾱ')(α - 1) + sqrt(α)(ᾱ' - 1)] / (1 - ᾱ)."""
    center, start = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    met, fresh = [], [torch.randn(1, 3, 4, 4, dtype=torch.float64) for _ in range(steps)]

    def network(x, t):
        met.append((int(t[0]), x))
        return 0.3 * x

    sample(network, start, COSINE, steps, Sampler(eta=1.0), center=center, fresh=iter(fresh))
    for (now, x), (following, y), noise in zip(met, met[1:], fresh, strict=False):
        product, following_product = COSINE.alpha_bar(now), COSINE.alpha_bar(following)
        alpha = product / following_product
        clean = (x - math.sqrt(1 - product) * 0.3 * x) / math.sqrt(product)
        spread = 1 - product
        mean = (1 - alpha) * math.sqrt(following_product) / spread * clean
        mean = mean + (1 - following_product) * math.sqrt(alpha) / spread * x
        shift = 1 - product + math.sqrt(following_product) * (alpha - 1) + math.sqrt(alpha) * (following_product - 1)
        variance = (1 - alpha) * (1 - following_product) / spread
        expected = mean + shift / spread * center + math.sqrt(variance) * noise
        torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-6)


def test_a_center_of_zero_is_no_center():
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with_center = sample(lambda x, t: 0.5 * x, noise, COSINE, 7, Sampler(eta=1.0), center=torch.zeros_like(noise))
    assert torch.equal(with_center, sample(lambda x, t: 0.5 * x, noise, COSINE, 7, Sampler(eta=1.0)))
