from __future__ import annotations

import math

import pytest
import torch

from lumen_cli.diffusion.sampler import DDIM, Sampler, sample, split_prediction, target_of
from lumen_cli.diffusion.schedule import LinearSchedule

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
    sampled = sample(best, noise, SCHEDULE, 200, Sampler(eta=1.0), torch.Generator().manual_seed(1))
    assert abs(float(sampled.std()) - 1) < 0.03
    assert not torch.equal(sampled, sample(best, noise, SCHEDULE, 200, Sampler(eta=1.0)))


def test_ddim_is_deterministic_and_clipping_bounds_the_result():
    def wild(x, t):
        return 3.0 * x

    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(wild, noise, SCHEDULE, 5, DDIM), sample(wild, noise, SCHEDULE, 5, DDIM))
    assert sample(wild, noise, SCHEDULE, 5, DDIM).abs().max() > 1
    assert sample(wild, noise, SCHEDULE, 5, Sampler(clip=1.0)).abs().max() <= 1
