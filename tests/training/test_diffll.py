"""The recipe of DiffLL on made-up pictures: it learns, resumes and ends in a usable model folder."""

from __future__ import annotations

from dataclasses import replace

import torch

from lumen_cli.training.recipes import Stage
from lumen_cli.training.recipes.diffll import COMPACT, NETWORK
from lumen_cli.training.run import Options, run_stage

CPU = torch.device("cpu")
TINY = replace(
    COMPACT,
    network=NETWORK | {"unet_multipliers": (1, 2), "detail_channels": 8},
    stages=(
        Stage("joint", steps=6, batch=2, crop=32, rate=2e-3),
        Stage("refine", steps=3, batch=2, crop=48, rate=1e-3),
    ),
)
OPTIONS = Options(CPU, torch.float32, save_every=0.0)


@torch.inference_mode()
def test_an_untrained_network_hands_the_details_through():
    model = TINY.build().eval()
    low = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    details = model.observe(low).details
    *_, restored = model.predict(low, torch.zeros(1, *model.noise_shape(32, 32)))
    for level, wanted in zip(restored, details, strict=True):
        torch.testing.assert_close(level, wanted)


def test_what_is_supervised_is_the_sampler_from_pure_noise(batches):
    """At the start the network sees noise alone, so the sampled average cannot come from the bright picture."""
    torch.manual_seed(0)
    model, source = TINY.build(), batches
    seen: list[torch.Tensor] = []
    model.Unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    generator = source.generator("joint", 0)
    batch = source.draw(generator, 2, 32)
    state = generator.get_state()
    TINY.losses(model, TINY.stages[0], batch, 0, generator)
    assert len(seen) == 1 + TINY.unrolled[0]
    started = seen[1][:, 3:].clone()
    seen.clear()
    generator.set_state(state)
    TINY.losses(model, TINY.stages[0], batch | {"high": 1.0 - batch["high"]}, 0, generator)
    assert torch.equal(seen[1][:, 3:], started)


def test_it_learns(tmp_path, batches):
    torch.manual_seed(0)
    losses: list[float] = []
    run_stage(
        TINY,
        TINY.build(),
        replace(TINY.stages[0], steps=50),
        batches,
        tmp_path,
        replace(OPTIONS, save_every=9.0),
        watch=lambda report: losses.append(report.losses["picture"]) if report.losses else None,
        report_every=10,
    )
    assert losses[-1] < 0.75 * losses[0]
