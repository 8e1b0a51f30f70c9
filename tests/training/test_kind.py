"""KinD's recipe on a handful of made-up pictures: each stage learns its own part, and the whole ends in a picture."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from PIL import Image

from lumen_cli.training.data import PictureBank
from lumen_cli.training.recipes import Stage
from lumen_cli.training.recipes.kind import COMPACT, NETWORK, _limits
from lumen_cli.training.run import Options, run_stage
from tests.networks.test_kind import FIGURES

CPU = torch.device("cpu")
NAMES = ("decomposition", "adjustment", "restoration", "joint")
TINY = replace(
    COMPACT,
    network=NETWORK
    | {
        "decomposition_channels": 16,
        "restoration_channels": 4,
        "restoration_multipliers": (1, 1, 2, 2, 2),
        "adjustment_channels": 8,
    },
    stages=tuple(Stage(name, steps=3, batch=2, crop=32, rate=2e-3) for name in NAMES),
)
OPTIONS = Options(CPU, torch.float32, save_every=9.0)


def test_each_stage_changes_its_own_part(batches, tmp_path):
    torch.manual_seed(0)
    model = TINY.build()
    changed = {}
    for stage in TINY.stages:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        run_stage(TINY, model, stage, batches, tmp_path, OPTIONS)
        changed[stage.name] = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {
        "decomposition": {"decom"},
        "adjustment": {"adjust"},
        "restoration": {"restoration"},
        "joint": {"adjust", "restoration"},
    }


@pytest.mark.parametrize(
    ("name", "steps", "terms"),
    [
        ("decomposition", 450, ("reconstruction_low", "reconstruction_high")),
        ("restoration", 75, ("square", "structure")),
    ],
)
def test_a_stage_learns(batches, tmp_path, name, steps, terms):
    torch.manual_seed(0)
    stage = Stage(name, steps=steps, batch=4, crop=32, rate=3e-3)
    losses: list[float] = []
    run_stage(
        TINY,
        TINY.build(),
        stage,
        batches,
        tmp_path,
        OPTIONS,
        watch=lambda report: losses.append(sum(report.losses[term] for term in terms)),
        report_every=25,
    )
    assert losses[-1] < 0.8 * losses[0]


def test_the_last_stage_asks_for_the_picture_that_enhance_gives(batches):
    torch.manual_seed(0)
    recipe = replace(TINY, network=TINY.network | {"stretch": False})
    model, stage = recipe.build(), recipe.stages[-1]
    batch = batches.draw(batches.generator("joint", 0), 4, 32)
    batch["whole"] = batch["low"]
    with torch.no_grad():
        batch["high"] = model.enhance(batch["low"])
        terms = recipe.losses(model, stage, batch, 0, torch.Generator().manual_seed(0))
    assert float(terms["picture"]) < 1e-5


@torch.no_grad()
def test_a_fresh_network_keeps_signals_alive():
    torch.manual_seed(0)
    model = COMPACT.build()
    dark = model.prepare(0.05 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    spread = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _m, _i, output, name=name: spread.update({name: float(output.std())}))
    enhanced = model.render(dark)
    assert all(0.02 < value < 10 for value in spread.values()), spread
    assert 0.02 < float(enhanced.mean()) < 0.98
    _, light = model.decom(torch.zeros(1, 3, 16, 16))
    assert float(light.max()) < 0.2, "the dark must be explained by little light, not by a dark reflectance"


def test_crops_are_stretched_as_parts_of_larger_pictures():
    crops = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.2 + 0.1
    limits = _limits(crops, torch.Generator().manual_seed(3))
    least, greatest = crops.flatten(1).aminmax(dim=1)
    assert torch.all((limits[:, 0] >= 0) & (limits[:, 0] <= least))
    assert torch.all((limits[:, 1] >= greatest) & (limits[:, 1] <= 1))
    assert 16 <= int((limits[:, 1] == greatest).sum()) <= 48


def test_crops_are_turned_in_the_eight_ways_of_the_paper(tmp_path):
    picture = FIGURES["augment/input"][0].to(torch.uint8)
    Image.fromarray(picture[0].numpy()).save(tmp_path / "picture.png")
    places = torch.tensor([[0, 0, *bits] for bits in itertools.product((0, 1), repeat=3)])
    # The crop is square: rows repeated below complete it; the figure is then a part of one of the eight views.
    crops = PictureBank([tmp_path / "picture.png"], CPU).crops(torch.zeros(8, dtype=torch.int64), places, 6)
    views = (crops[:, :1] * 255.0).round().to(torch.uint8)

    def parts(view: torch.Tensor, height: int, width: int) -> list[torch.Tensor]:
        return [view[:, i : i + height, j : j + width] for i in range(7 - height) for j in range(7 - width)]

    matched = []
    for mode in range(8):
        wanted = FIGURES[f"augment/mode{mode}"][0].to(torch.uint8)
        matched += [
            index
            for index, view in enumerate(views)
            if any(torch.equal(p, wanted) for p in parts(view, *wanted.shape[1:]))
        ]
    assert sorted(matched) == list(range(8))
