"""The recipe of DiffLL on made-up pictures: it learns, resumes and ends in a usable model folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumen_cli.networks.diffll import DiffLL
from lumen_cli.training.diffll import DiffLLRecipe, Network
from lumen_cli.training.export import export_model
from lumen_cli.training.loop import Options, run_stage
from lumen_cli.training.recipe import Stage

CPU = torch.device("cpu")
TINY = DiffLLRecipe(
    network=Network(unet_multipliers=(1, 2), detail_channels=8),
    stages=(
        Stage("joint", steps=6, batch=2, crop=32, rate=2e-3),
        Stage("refine", steps=3, batch=2, crop=48, rate=1e-3),
    ),
)
OPTIONS = Options(CPU, torch.float32, save_every=0.0)


def test_our_own_network_is_small_and_starts_from_noise():
    recipe = DiffLLRecipe()
    model = recipe.build()
    assert sum(parameter.numel() for parameter in model.parameters()) < 6_000_000
    for steps in {*recipe.unrolled, recipe.network.steps}:
        first = model.schedule.respaced(steps)[0]
        assert model.schedule.alpha_bar(first) < 0.01, "what the sampler starts from must hardly hold a picture"


@torch.inference_mode()
def test_an_untrained_network_hands_the_details_through():
    model = TINY.build().eval()
    low = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    _, details = model.decompose_bands(low)
    *_, restored = model.predict(low, torch.zeros(1, *model.noise_shape(32, 32)))
    for level, wanted in zip(restored, details, strict=True):
        torch.testing.assert_close(level, wanted)


def test_every_parameter_is_trained(batches):
    torch.manual_seed(0)
    model, source = TINY.build(), batches
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        generator = source.generator("joint", step)
        terms = TINY.losses(model, TINY.stages[0], source.draw(generator, 2, 32), step, generator)
        assert set(terms) == {"noise", "coarse", "details", "picture"}
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A bias of the keys moves all scores of a query alike, which the softmax ignores; nothing else may lie idle.
    assert not [name for name in without if not name.endswith(".k.bias")]


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


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, batches):
    def run(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = TINY.build()

        def watch(report) -> None:
            if report.step == stop_at:
                raise KeyboardInterrupt

        run_stage(TINY, model, TINY.stages[0], batches, folder, OPTIONS, watch=watch, report_every=1)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=4)
    for name, value in run(tmp_path / "broken").items():
        assert torch.equal(value, whole[name]), name


def test_the_folder_builds_the_same_network(tmp_path):
    model = TINY.build().eval()
    config = json.loads((export_model(model, TINY, ["pairs"], tmp_path / "model") / "config.json").read_text())
    assert config["architecture"] == "diffll"
    again = DiffLL(**config["network"])
    assert again.size_multiple == config["size_multiple"]
    assert again.schedule == model.schedule
    assert again.sampler == model.sampler
    assert list(again.state_dict()) == list(model.state_dict())
