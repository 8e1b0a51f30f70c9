"""What holds for every recipe: it resumes, its folder builds the same network, and its own network is small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumen_cli.errors import UsageError
from lumen_cli.networks.grading import Grading
from lumen_cli.registry.architectures import network_class
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from lumen_cli.training.checkpoint import export_model
from lumen_cli.training.grading import export_grading
from lumen_cli.training.recipes import make_recipe
from lumen_cli.training.run import Options, compile_parts, run_stage, start_from, uncompiled
from tests.training.tiny import TINY

OPTIONS = Options(torch.device("cpu"), torch.float32, save_every=0.0)
STAGES = [(name, stage.name) for name, recipe in TINY.items() for stage in recipe.stages if stage.name != "refine"]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_an_interrupted_stage_goes_on_as_if_nothing_had_happened(batches, tmp_path, name, stage):
    recipe = TINY[name]
    stage = replace(next(each for each in recipe.stages if each.name == stage), steps=5)

    def run(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = recipe.build()

        def watch(report) -> None:
            if report.step == stop_at:
                raise KeyboardInterrupt

        run_stage(recipe, model, stage, batches, folder, OPTIONS, watch=watch, report_every=1)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=3)
    resumed = run(tmp_path / "broken")
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_training_ends_in_a_folder_that_gives_the_same_pictures(tmp_path, name):
    torch.manual_seed(0)
    model = TINY[name].build().eval()
    folder = export_model(model, TINY[name], ["pairs"], tmp_path / "model")
    card = read_card(folder)
    again = load(card)
    assert card.architecture == name
    assert getattr(again, "schedule", None) == getattr(model, "schedule", None)
    assert getattr(again, "sampler", None) == getattr(model, "sampler", None)
    assert not [key for key in again.state_dict() if key.startswith(again.training_only)]
    low = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    shape = model.noise_shape(64, 64)
    noise = None if shape is None else torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(
            again.enhance(low, noise=noise), model.enhance(low, noise=noise), rtol=0, atol=5e-3
        )  # the weights are stored in float16


@pytest.mark.parametrize("name", sorted(TINY))
def test_our_own_network_is_small_and_starts_where_its_sampler_does(name, tmp_path):
    recipe = make_recipe(name)
    torch.manual_seed(0)
    model = recipe.build()
    folder = export_model(model, recipe, ["pairs"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert (folder / "network.safetensors").stat().st_size < 12 * 2**20
    if config["steps_range"] is None:
        return
    least, most = config["steps_range"]
    assert least <= config["defaults"]["steps"] <= most
    for steps in {*getattr(recipe, "unrolled", ()), config["defaults"]["steps"]}:
        first = model.schedule.respaced(steps)[0]
        assert model.schedule.alpha_bar(first) < 0.01, "what the sampler starts from must hardly hold a picture"


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_parameter_of_the_last_stage_is_trained(batches, name):
    recipe = TINY[name]
    torch.manual_seed(0)
    model, stage = recipe.build(), recipe.stages[-1]
    optimizer = torch.optim.SGD(list(recipe.trainable(model, stage)), lr=0.1)
    for step in range(5):
        generator = batches.generator(stage.name, step)
        terms = recipe.losses(model, stage, batches.draw(generator, 2, stage.crop), step, generator)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    chosen = {id(parameter) for parameter in recipe.trainable(model, stage)}
    idle = {
        n for n, p in model.named_parameters() if id(p) in chosen and (p.grad is None or not p.grad.abs().max() > 0)
    }
    # A bias of the keys moves all scores of a query alike, which the softmax ignores.
    idle = {key for key in idle if not key.endswith(".k.bias")}
    assert not {key for key in idle if not any(part in key for part in UNREAD[name])}


UNREAD: dict[str, tuple[str, ...]] = {
    # Parameters that the papers' networks own and nothing reads; see their SPECs in the networks' docstrings.
    "anlightendiff": ("encoder.mlp.", ".mlp."),
    "diffll": (),
    "kind": (),
    "lightendiffusion": (),
    "lldiffusion": ("fuse.cattns.", "mid.block_1.temb_proj", "mid.block_2.temb_proj"),
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_paper_preset_is_the_published_network(name):
    model = network_class(name)(**({"degradation_network": True} if name == "lldiffusion" else {}))
    ours = make_recipe(name, preset="paper").build()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_a_training_starts_from_another_models_weights(tmp_path):
    recipe = TINY["lldiffusion"]
    torch.manual_seed(0)
    card = read_card(export_model(recipe.build(), recipe, ["pairs"], tmp_path / "model"))
    torch.manual_seed(1)
    model = recipe.build()
    start_from(model, card)
    given = load(card).state_dict()
    assert given.keys() < model.state_dict().keys(), "the degradation network is not in a model folder"
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in given.items())
    finished = read_card(export_grading(card, Grading(channels=8, heads=1), tmp_path / "finished"))
    assert any(key.startswith("grading.") for key in load(finished).state_dict())
    start_from(model, finished)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in given.items()), "without its grading"
    with pytest.raises(UsageError, match=r"cannot start from lldiffusion: its network differs .*first at Unet"):
        start_from(TINY["diffll"].build(), card)


@pytest.mark.parametrize("name", TINY)
def test_compiled_parts_lose_nothing(batches, name):
    recipe = TINY[name]
    stage = recipe.stages[-1]
    torch.manual_seed(0)
    model = recipe.build().train()

    def losses() -> dict[str, float]:
        generator = batches.generator(stage.name, 0)
        terms = recipe.losses(model, stage, batches.draw(generator, 2, stage.crop), 0, generator)
        return {name: value.item() for name, value in terms.items()}

    names, before = list(model.state_dict()), losses()
    compile_parts(model, backend="eager")
    torch._dynamo.utils.counters.clear()
    assert losses() == pytest.approx(before, rel=1e-4)
    assert list(model.state_dict()) == names
    counters = torch._dynamo.utils.counters
    # Every part is one graph: what breaks it would be run uncompiled without a word.
    assert counters["stats"]["unique_graphs"] >= len(model.costly) - 1
    assert not counters["graph_break"]
    with uncompiled():
        assert losses() == pytest.approx(before, rel=1e-4)
