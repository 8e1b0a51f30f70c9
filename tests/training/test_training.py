"""Training on a handful of made-up pictures: it learns, repeats, resumes and ends in a usable model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from lumen_cli.datasets import find_pairs, find_training_files
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.networks.base import LowLightModel, Mean
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from lumen_cli.training.data import Batches, Mix, PictureBank, Teacher
from lumen_cli.training.loop import learning_rate
from lumen_cli.training.recipes import Stage
from lumen_cli.training.recipes.lightendiffusion import COMPACT, NETWORK, LightenDiffusionRecipe
from lumen_cli.training.run import Options, Run, run_stage, train

CPU = torch.device("cpu")
TINY = replace(
    COMPACT,
    network=NETWORK | {"unet_multipliers": (1, 1), "ctdn_channels": 8, "steps": 2},
    stages=(
        Stage("decomposition", steps=4, batch=2, crop=32, rate=2e-3),
        Stage("diffusion", steps=3, batch=2, crop=32, rate=1e-3),
        Stage("joint", steps=3, batch=2, crop=32, rate=1e-3),
    ),
)
OPTIONS = Options(CPU, torch.float32, save_every=0.0)


def test_folders_are_told_apart(data):
    files = find_training_files([data / "pairs", data / "bright"])
    assert (len(files.pairs), len(files.bright)) == (4, 4)
    assert all(pair.low.stem == pair.high.stem for pair in files.pairs)


def test_a_picture_without_partner_is_named(data, tmp_path):
    for side in ("low", "high"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "1.png").write_bytes((data / "bright/b0.png").read_bytes())
    (tmp_path / "low/lonely.png").write_bytes((data / "bright/b0.png").read_bytes())
    with pytest.raises(UsageError, match="lonely"):
        find_pairs(tmp_path)


def test_a_batch_belongs_to_its_step(batches):
    def draw(stage: str, step: int) -> torch.Tensor:
        return batches.draw(batches.generator(stage, step), 4, 32)["low"]

    assert torch.equal(draw("a", 1), draw("a", 1))
    assert not torch.equal(draw("a", 1), draw("a", 2))
    assert not torch.equal(draw("a", 1), draw("b", 1))


def test_a_batch_holds_what_the_mix_says(batches):
    batches.mix = Mix(pairs=0.5, exposed=0.0, relit_low=0.0, tinted=0.0)
    batch = batches.draw(batches.generator("a", 0), 8, 32)
    assert batch["paired"].tolist() == [True] * 4 + [False] * 4
    assert batch["low"].shape == batch["high"].shape == (8, 3, 32, 32)
    real = batch["high"][:4] * 255 // 8 / 255
    torch.testing.assert_close(batch["low"][:4], real, rtol=0, atol=1.01 / 255)
    assert torch.all(batch["low"].mean((1, 2, 3)) < batch["high"].mean((1, 2, 3)))
    batches.mix = replace(batches.mix, pairs=0.0, exposed=1.0)
    batch = batches.draw(batches.generator("a", 0), 4, 64)
    assert torch.equal(batch["low"], batch["high"]), "well-exposed crops must be their own target"


def test_reduced_scenes_are_darkened_at_full_size(tmp_path):
    """Their noise is averaged as in a large photograph that lumen reduces for a network."""
    for number, side in enumerate((128, 40)):
        Image.new("RGB", (side, side), (150, 150, 150)).save(tmp_path / f"{number}.png")
    batches = Batches(find_training_files([tmp_path]), torch.device("cpu"), Mix(), seed=0)
    noise = {}
    for share in (0.0, 1.0):
        batches.mix = Mix(exposed=0.0, uneven=0.0, tinted=0.0, reduced=share)
        batch = batches.draw(batches.generator("a", 0), 24, 64)
        assert batch["low"].shape == (24, 3, 64, 64)
        noise[share] = float((batch["low"].std((1, 2, 3)) / batch["low"].mean((1, 2, 3))).median())
    assert noise[1.0] < 0.85 * noise[0.0]
    batches.mix = Mix(exposed=1.0, tinted=0.0, reduced=1.0)
    assert torch.equal(*(batches.draw(batches.generator("a", 0), 4, 64)[name] for name in ("low", "high")))
    # No picture is large enough: its crops stay as they are.
    assert batches.draw(batches.generator("a", 0), 4, 100)["low"].shape == (4, 3, 100, 100)


def test_the_first_stage_learns(data, tmp_path, batches):
    recipe = replace(TINY, relit=0.0)
    torch.manual_seed(0)
    stage = replace(TINY.stages[0], steps=120, rate=4e-3)
    losses: list[float] = []
    run_stage(
        recipe,
        recipe.build(),
        stage,
        batches,
        tmp_path,
        replace(OPTIONS, save_every=9.0),
        watch=lambda report: losses.append(report.losses["transfer"]) if report.losses else None,
        report_every=10,
    )
    assert losses[-1] < 0.7 * losses[0]


def test_each_stage_changes_its_own_part(batches, tmp_path):
    model = TINY.build()
    changed = {}
    for stage in TINY.stages:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        run_stage(TINY, model, stage, batches, tmp_path, OPTIONS)
        changed[stage.name] = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert all(name.startswith("decom.") for name in changed["decomposition"])
    assert all(name.startswith("Unet.") for name in changed["diffusion"])
    assert any(name.startswith("decom.ReconNet.block_up") for name in changed["joint"])
    assert not any("pyramid" in name or "retinex" in name for name in changed["joint"])


def test_training_ends_in_a_model_folder_that_enhances(data, tmp_path):
    files = find_training_files([data / "pairs", data / "bright"])
    run = Run(TINY, ("pairs", "bright"), files, find_pairs(data / "pairs"), Mix(), 0, replace(OPTIONS, steps=6))
    reports = []
    folder = train(run, tmp_path / "out", [stage.name for stage in TINY.stages], reports.append)
    assert [r.stage for r in reports if r.validation] == ["decomposition", "diffusion", "joint"]
    assert list((tmp_path / "out/samples").glob("joint-*.png"))
    model = load(read_card(folder))
    assert isinstance(model, LightenDiffusion)
    with torch.inference_mode():
        low = torch.rand(1, 3, 40, 48)
        noise = torch.randn(1, *model.noise_shape(40, 48))
        assert model.enhance(low, noise=noise).shape == low.shape

    record = json.loads((tmp_path / "out/train.json").read_text())
    assert record["settings"]["recipe"]["network"]["ctdn_channels"] == 8
    with pytest.raises(UsageError, match="seed"):
        train(replace(run, seed=1), tmp_path / "out", ["joint"], reports.append)


class Gain(LowLightModel):
    """Multiplies by the whole picture's gain, and by a ramp that tells a picture from its mirror image."""

    def global_context(self, low, **options):
        return {"gain": 0.5 / low.mean(dim=(1, 2, 3), keepdim=True)}

    def enhance(self, low, *, noise=None, steps=None, gain=None):
        assert noise is None
        return low * gain * torch.linspace(0.5, 1.0, low.shape[-1])


class Noise(LowLightModel):
    """Returns its noise, scaled by its steps."""

    def noise_shape(self, height, width):
        return 3, height, width

    def enhance(self, low, *, noise=None, steps=None):
        return noise * steps


def test_a_teacher_takes_the_place_of_the_bright_pictures(batches):
    batch = batches.draw(batches.generator("joint", 0), 2, 32)
    taught = Teacher(Gain()).teach(batch, torch.Generator())
    assert all(torch.equal(taught[name], batch[name]) for name in ("low", "whole", "paired"))
    assert not torch.allclose(taught["high"], batch["high"], atol=0.05)
    gains = 0.5 / batch["whole"].mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(taught["high"], batch["low"] * gains * 0.75)  # the ramp and its mirror image

    mean = Teacher(Mean([Gain(), Noise()], shares=[3, 1], steps=[None, 7]))
    mixed = mean.teach(batch, torch.Generator().manual_seed(5))["high"]
    again = mean.teach(batch, torch.Generator().manual_seed(5))["high"]
    assert torch.equal(mixed, again), "the generator alone decides about the noise"
    noise = (mixed - 0.75 * taught["high"]) / (0.25 * 7)
    assert noise.std().item() == pytest.approx(2**-0.5, rel=0.05)  # the mean of two draws


def test_the_teacher_is_a_setting_of_a_training(data, tmp_path):
    files = find_training_files([data / "pairs", data / "bright"])
    run = Run(TINY, ("pairs", "bright"), files, (), Mix(), 0, replace(OPTIONS, steps=6))
    teacher = read_card(train(run, tmp_path / "teacher", ["joint"], lambda report: None))
    taught = replace(run, teacher=teacher)
    train(taught, tmp_path / "student", ["joint"], lambda report: None)
    settings = json.loads((tmp_path / "student/train.json").read_text())["settings"]
    assert settings["teacher"] == teacher.weights_sha256
    with pytest.raises(UsageError, match="teacher"):
        train(run, tmp_path / "student", ["joint"], lambda report: None)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_reason(batches, tmp_path):
    model = TINY.build()
    with torch.no_grad():
        model.decom.ReconNet.conv3.bias.fill_(float("nan"))
    with pytest.raises(LumenError, match="not finite"):
        run_stage(TINY, model, replace(TINY.stages[0], steps=20), batches, tmp_path, OPTIONS)


def test_a_step_whose_loss_is_not_finite_changes_nothing(batches, tmp_path):
    @dataclass(frozen=True)
    class Unlucky(LightenDiffusionRecipe):
        def losses(self, model, stage, batch, step, generator):
            terms = super().losses(model, stage, batch, step, generator)
            return {name: term * float("nan") for name, term in terms.items()} if step == 1 else terms

    seen = {}
    for recipe in (TINY, Unlucky(**{field.name: getattr(TINY, field.name) for field in fields(TINY)})):
        torch.manual_seed(0)
        model = recipe.build()
        folder = tmp_path / type(recipe).__name__
        folder.mkdir()
        run_stage(recipe, model, replace(TINY.stages[0], steps=2), batches, folder, replace(OPTIONS, decay=0.0))
        seen[type(recipe)] = model.state_dict()["decom.ReconNet.conv3.weight"]
    torch.manual_seed(0)
    started = TINY.build().state_dict()["decom.ReconNet.conv3.weight"]
    assert bool(torch.isfinite(seen[Unlucky]).all())
    assert not torch.equal(seen[Unlucky], started), "the good step counts"
    assert not torch.equal(seen[Unlucky], seen[type(TINY)]), "the bad one does not"


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(i / 200) for i in range(201)]
    peak = rates.index(max(rates))
    assert 1 <= peak <= 10
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.03


def test_the_whole_picture_comes_with_its_crop(batches):
    """Its light is that of the dark picture, so that a crop is brightened as its picture would be."""
    batches.mix = Mix(pairs=1.0, exposed=0.0, relit_low=0.0, tinted=0.0)
    lights = batches.low.reduced.mean(dim=(1, 2, 3))
    whole = batches.draw(batches.generator("a", 0), 6, 16)["whole"]
    assert whole.shape == (6, 3, 64, 64)
    for light in whole.mean((1, 2, 3)):
        assert float((lights - light).abs().min()) < 1e-4
    batches.mix = replace(batches.mix, pairs=0.0)
    batch = batches.draw(batches.generator("a", 0), 6, 100)
    brightness = torch.stack([batch["low"].mean((1, 2, 3)), batch["whole"].mean((1, 2, 3))])
    assert float((brightness[0] / brightness[1]).log2().abs().max()) < 1.0, "the same camera took both"
    batches.mix = replace(batches.mix, exposed=1.0)
    batch = batches.draw(batches.generator("a", 1), 4, 100)
    assert float(batch["whole"].mean()) == pytest.approx(float(batch["high"].mean()), abs=0.1)


def test_crops_are_cut_turned_and_continued(tmp_path):
    generator = np.random.default_rng(1)
    pictures = [generator.integers(0, 256, (*sides, 3), dtype=np.uint8) for sides in ((40, 56), (20, 90), (64, 24))]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    bank = PictureBank([tmp_path / f"{number}.png" for number in range(3)], torch.device("cpu"))
    chosen = torch.from_numpy(generator.integers(0, 3, 40))
    places = torch.from_numpy(generator.integers(0, 1 << 30, (40, 5)))
    for crop, number, (top, left, down, right, turned) in zip(
        bank.crops(chosen, places, 32), chosen.tolist(), places.tolist(), strict=True
    ):
        whole = pictures[number]
        whole = np.pad(whole, [(0, max(32 - side, 0)) for side in whole.shape[:2]] + [(0, 0)], mode="edge")
        top, left = top % (whole.shape[0] - 31), left % (whole.shape[1] - 31)
        part = whole[top : top + 32, left : left + 32]
        part = part[::-1] if down % 2 else part
        part = part[:, ::-1] if right % 2 else part
        part = part.transpose(1, 0, 2) if turned % 2 else part
        assert torch.equal((crop * 255).round(), torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1))
