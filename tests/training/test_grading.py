"""Training a grading: the examples, the fitting, the model folder at the end, and ended trainings that go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lumen_cli.datasets import TrainingFiles, find_pairs, find_training_files
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.imaging.colour.convert import to_linear, to_srgb
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.grading import EXPERTS, GRID, AutoExposure, Grading, bend, measure
from lumen_cli.registry import find_model
from lumen_cli.registry.card import read_card
from lumen_cli.registry.load import load
from lumen_cli.training import grading as grading_fit
from lumen_cli.training import grading_examples
from lumen_cli.training.grading import Fitting, GradingRun, export_grading, fit, learning_rate, score, train_grading
from lumen_cli.training.grading_examples import (
    POOL,
    SIDE,
    UNSEEN,
    Example,
    Sources,
    collect,
    load_examples,
    make_example,
    to_bytes,
    unseen_examples,
    values,
)
from lumen_cli.training.loop import Report
from tests.registry.test_graded_models import add_grading, merge_files

CPU = torch.device("cpu")
QUICK = Fitting(heads=2, channels=8, steps=6, batch=4, save_every=0.0)
MIXED = torch.tensor([[[0.5, 0.2], [0.4, 0.0], [-0.2, 0.3]], [[-0.6, 0.0], [-0.5, 0.1], [0.0, -0.4]]])
"""Two curves that examples are off by, [2, 3, 2]."""


class StopError(Exception):
    """What ends a training here."""


class Gain(LowLightModel):
    """A model that multiplies; counts its pictures."""

    calls = 0

    def enhance(self, low, *, noise=None, steps=None):
        self.calls += 1
        return (4.0 * low).clamp(0.0, 1.0)


def scenes(count: int, height: int = 25, width: int = 38) -> torch.Tensor:
    """Smooth pictures of different colours, count×3×height×width."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 0.8 + 0.1


def bent_examples(count: int, kind: str = "pair", seed: int = 0) -> list[Example]:
    """Examples whose bright pictures are bent versions of the results, by the curve that the light tells."""
    generator = torch.Generator().manual_seed(seed)
    made = scenes(count + seed)[:count]
    which = torch.rand(count, generator=generator) < 0.5
    bright = bend(made, MIXED[which.long()])
    light = torch.where(which, 0.3, 0.02).view(-1, 1, 1, 1).expand(-1, 3, GRID, GRID)
    if kind == "held-out":
        made, bright = to_bytes(made), to_bytes(bright)
    return [Example(kind, *parts) for parts in zip(light, made, bright, strict=True)]


def test_every_picture_gives_its_examples(data):
    files = find_training_files([data / "pairs", data / "bright"])
    sources = Sources(files, seed=0, variants=2)
    drawn = [sources.draw(number) for number in range(len(sources))]
    kinds = [kind for kind, _, _ in drawn]
    assert kinds[:8] == ["pair"] * 4 + ["relit"] * 4
    assert set(kinds[8:16]) == {"dark", "shaded"}
    assert kinds[16:] == ["exposed"] * 4
    for kind, low, bright in drawn:
        assert low.dtype == torch.uint8
        assert low.shape == bright.shape
        assert low.shape == (3, 56, 64) if kind == "pair" else low.shape[1] == low.shape[2]
        if kind == "relit":
            assert low.shape[1] == 56
        elif kind != "pair":
            assert 33 <= low.shape[1] <= 56
        light = float(values(low).mean())
        assert light == pytest.approx(float(bright.mean()), abs=2e-3) if kind == "exposed" else light < bright.mean()
    assert not torch.equal(drawn[8][1], drawn[12][1]), "another camera each time"


def test_an_example_belongs_to_its_number(data):
    files = find_training_files([data / "pairs", data / "bright"])
    first, same, other = (Sources(files, seed=seed) for seed in (0, 0, 1))
    for number in (7, 4, 9):
        assert torch.equal(first.draw(number)[1], same.draw(number)[1])
    assert any(not torch.equal(first.draw(number)[1], other.draw(number)[1]) for number in range(4, 20))


def test_large_pictures_are_reduced_and_the_smallest_are_taken(tmp_path):
    for name, size in (("large", (900, 700)), ("dot", (1, 1)), ("line", (300, 2))):
        Image.fromarray(np.full((*size[::-1], 3), 128, np.uint8)).save(tmp_path / f"{name}.png")
    sources = Sources(TrainingFiles((), tuple(tmp_path / f"{n}.png" for n in ("large", "dot", "line"))), 0, variants=1)
    shapes = [make_example(Gain(), *sources.draw(number), CPU, torch.float32).made.shape for number in range(6)]
    assert shapes[0] == shapes[3] == (3, SIDE // POOL, SIDE // POOL)
    assert shapes[1:3] == shapes[4:] == [(3, 1, 1)] * 2


def test_an_example_keeps_what_the_model_made():
    low = torch.full((3, 8, 12), 32, dtype=torch.uint8)
    example = make_example(Gain(), "pair", low, torch.full((3, 8, 12), 0.75), CPU, torch.float32)
    torch.testing.assert_close(example.light.float(), measure(low[None] / 255.0)[0], rtol=1e-3, atol=0)
    assert (example.made.dtype, example.made.shape) == (torch.float16, (3, 2, 3))
    torch.testing.assert_close(example.made.float(), torch.full((3, 2, 3), 128 / 255), atol=1e-3, rtol=0)
    whole = make_example(Gain(), "held-out", low, torch.full((3, 8, 12), 0.75), CPU, torch.float32)
    assert torch.equal(whole.made, torch.full((3, 8, 12), 128, dtype=torch.uint8))


def test_an_ended_collecting_goes_on_where_it_was(tmp_path):
    made: list[int] = []

    def make(number: int) -> Example:
        if number == 5 and 5 not in made:
            made.append(5)
            raise StopError
        made.append(number)
        return bent_examples(1, seed=number)[0]

    path = tmp_path / "examples.pt"
    with pytest.raises(StopError):
        collect(path, 8, make)
    assert len(load_examples(path)) == 5
    examples = collect(path, 8, make)
    assert made == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    for example, again in zip(examples, load_examples(path), strict=True):
        assert example.kind == again.kind
        assert torch.equal(example.light, again.light)
        assert torch.equal(example.made, again.made)
        assert torch.equal(example.bright, again.bright)


def test_it_learns_the_curves_that_pictures_are_off_by(monkeypatch):
    monkeypatch.setattr(grading_fit, "REPORT_EVERY", 10)
    held_out = bent_examples(12, "held-out", seed=3)
    errors: list[float] = []

    def watch(report: Report) -> None:
        errors.extend(report.losses.values())

    fitting = Fitting(heads=1, channels=8, steps=200, batch=8)
    grading = fit(bent_examples(24), fitting, held_out=held_out, watch=watch)
    assert errors[-1] < 0.7 * errors[0], "with tints and a light that is off, which held-out pictures have not"
    assert score(held_out, grading)["psnr"] > score(held_out, None)["psnr"] + 6.1, "half the error or less"
    assert not grading.training
    assert not any(parameter.requires_grad for parameter in grading.parameters())


def dark_examples(count: int, kind: str, seed: int = 0) -> list[Example]:
    """Scenes that reach white, taken with 1 to 5 stops too little; all that a model makes of them is grey."""
    stops = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 4.0 + 1.0
    bright = scenes(count + seed)[:count]
    bright = bright / bright.amax(dim=(1, 2, 3), keepdim=True)
    made = bend(bright, torch.tensor([-0.8, 0.0]).expand(count, 3, 2))
    lights = measure(to_srgb(to_linear(bright) * torch.exp2(-stops).view(-1, 1, 1, 1)))
    return [Example(kind, *parts) for parts in zip(lights, made, bright, strict=True)]


def test_it_learns_whom_to_follow():
    examples = [*bent_examples(24), *dark_examples(24, "unseen"), *dark_examples(12, "dark", seed=1)]
    grading = fit(examples, Fitting(heads=1, channels=8, steps=200, batch=16))
    for held_out, expert in ((dark_examples(8, "dark", seed=2), "exposed"), (bent_examples(8, seed=2), "heads")):
        logits = grading.gate(grading.auto_exposure(torch.stack([each.light for each in held_out])))
        assert {EXPERTS[number] for number in logits.argmax(dim=1)} == {expert}


def test_the_gate_decides_in_the_end_and_favours_the_exposed_input(monkeypatch):
    examples = [*bent_examples(4), *dark_examples(4, "dark")]
    decided = fit(examples, QUICK).gate.choice
    monkeypatch.setattr(grading_fit, "FAVOUR", 1.0)
    monkeypatch.setattr(grading_fit, "DECISION", 1.0)
    plain = fit(examples, QUICK).gate.choice
    torch.testing.assert_close(decided.bias - 3.0 * plain.bias, torch.tensor([0.0, 0.0, 3.0]))
    assert torch.equal(decided.weight, 3.0 * plain.weight)


def test_auto_exposure_is_fitted_to_photographs():
    examples = [
        replace(each, bright=bend(each.bright[None], torch.full((1, 3, 2), 0.25))[0])
        for each in dark_examples(16, "dark")
    ]
    grading = fit(examples, Fitting(heads=1, channels=8, steps=600, batch=16))
    aim = torch.nn.functional.adaptive_avg_pool2d(torch.stack([each.bright for each in examples]), 64)
    light = torch.stack([each.light for each in examples])

    def error(auto_exposure: AutoExposure) -> float:
        with torch.inference_mode():
            return float((auto_exposure(light).exposed - aim).square().mean().sqrt())

    assert error(grading.auto_exposure) < 0.5 * error(AutoExposure())


def test_unseen_pictures_need_no_model(data, monkeypatch):
    files = find_training_files([data / "bright"])
    examples, again, other = (unseen_examples(files, seed) for seed in (0, 0, 1))
    assert {example.kind for example in examples} == {"unseen"}
    assert len(examples) == 4 * UNSEEN
    assert all(torch.equal(one.light, two.light) for one, two in zip(examples, again, strict=True))
    assert any(not torch.equal(one.light, two.light) for one, two in zip(examples, other, strict=True))
    assert all(to_srgb(example.light.float()).mean() < example.bright.float().mean() for example in examples)
    monkeypatch.setattr(grading_examples, "MOST_UNSEEN", 5)
    assert len(unseen_examples(files, 0)) == 5


def test_the_score_is_reported_before_and_after_every_head():
    reports: list[Report] = []
    examples, held_out = bent_examples(6), bent_examples(3, "held-out")
    grading = fit(examples, QUICK, held_out=held_out, watch=reports.append)
    validated = [report for report in reports if report.validation]
    assert [report.stage for report in validated] == ["raw", "head1", "head2"]
    assert validated[0].validation == score(held_out, None)
    assert validated[-1].validation == score(held_out, grading)


def test_a_fitting_repeats_itself_and_goes_on_where_it_was_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(grading_fit, "REPORT_EVERY", 1)
    examples = [*bent_examples(6), *bent_examples(4, "dark", seed=1), *bent_examples(2, "exposed", seed=2)]
    state = torch.get_rng_state()
    whole = fit(examples, QUICK).state_dict()
    assert torch.equal(torch.get_rng_state(), state), "the caller's own randomness is left alone"
    assert not torch.equal(whole["heads.0.choice.4.weight"], whole["heads.1.choice.4.weight"])

    for stage, step in (("head1", 3), ("head2", 2)):

        def stop(report: Report, at: tuple[str, int] = (stage, step)) -> None:
            if (report.stage, report.step) == at:
                raise StopError

        with pytest.raises(StopError):
            fit(examples, QUICK, tmp_path, watch=stop)
    steps: list[tuple[str, int]] = []
    resumed = fit(examples, QUICK, tmp_path, watch=lambda report: steps.append((report.stage, report.step)))
    assert steps[0] == ("head2", 2), "the first head was done"
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole[name]), name
    assert (tmp_path / "head2.png").is_file()


def test_a_length_in_minutes_ends_the_fitting():
    reports: list[Report] = []
    fit(bent_examples(4), Fitting(heads=1, channels=8, minutes=0.01, batch=2), watch=reports.append)
    assert reports[-1].seconds >= 0.6
    assert reports[-1].fraction == 1.0


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(step, step / 500) for step in range(501)]
    peak = rates.index(max(rates))
    assert peak == 50
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5)


def test_kinds_have_their_shares_however_many_there_are():
    counts = {"pair": 2, "dark": 40, "exposed": 5, "relit": 2, "unseen": 9, "shaded": 3}
    bank = grading_fit._Bank([each for kind, count in counts.items() for each in bent_examples(count, kind)], CPU)
    for part, shares in grading_fit.SHARES.items():
        weights = bank.weights(part)
        assert weights is not None
        found = [float(each.sum()) for each in weights.split(list(counts.values()))]
        assert found == pytest.approx([shares.get(kind, 0.0) for kind in counts])
        assert sum(shares.values()) == pytest.approx(1.0)
    assert grading_fit._Bank(bent_examples(3), CPU).weights("auto_exposure") is None
    with pytest.raises(ValueError, match="no examples"):
        grading_fit._Bank([], CPU)
    with pytest.raises(ValueError, match="not held-out"):
        grading_fit._Bank(bent_examples(2, "held-out"), CPU)


def test_pictures_that_are_not_finite_end_the_fitting_with_a_reason():
    broken = [Example("pair", torch.zeros(3, GRID, GRID), torch.full((3, 8, 8), float("nan")), torch.zeros(3, 8, 8))]
    with pytest.raises(LumenError, match="not finite"):
        fit(broken, QUICK)


@pytest.fixture
def run(data: Path, make_model) -> GradingRun:
    """The tiny model's grading, from four pairs and four bright pictures; the pairs are held out as well."""
    folder = make_model("mine", network={"gain": 4.0})
    (folder / "README.md").write_text("# mine\n")
    files = find_training_files([data / "pairs", data / "bright"])
    return GradingRun(read_card(folder), ("pairs", "bright"), files, find_pairs(data / "pairs"), QUICK, torch.float32)


def low_picture() -> torch.Tensor:
    return 0.2 * scenes(1)


def finished_and_raw(model: LowLightModel) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.zeros(1, *model.noise_shape(25, 38))
    with torch.inference_mode():
        return model(low_picture(), noise=noise), model.enhance(low_picture(), noise=noise)


def test_a_training_ends_in_a_model_folder_with_the_grading(run, tmp_path):
    reports: list[Report] = []
    folder = train_grading(run, tmp_path / "out", reports.append)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["examples", "held-out", "unseen", "raw", "auto_exposure", "gate", "head1", "head2"]
    assert len(load_examples(tmp_path / "out/examples.pt")) == 24
    assert (folder / "README.md").read_text() == "# mine\n"

    before = json.loads((run.card.folder / "config.json").read_text())
    after = json.loads((folder / "config.json").read_text())
    assert after.pop("grading") == {"channels": 8, "heads": 2}
    own = sum(parameter.numel() for parameter in Grading(8, 2).parameters())
    assert after["weights"].pop("parameters") == before["weights"].pop("parameters") + own
    assert after["weights"].pop("grading")["bytes"] == (folder / "grading.safetensors").stat().st_size
    assert after == before
    name = "network.safetensors"
    assert (folder / name).read_bytes() == (run.card.folder / name).read_bytes()
    assert {tensor.dtype for tensor in load_file(folder / "grading.safetensors").values()} == {torch.float16}
    assert read_card(folder).weights_sha256 != run.card.weights_sha256

    model = load(read_card(folder))
    finished, raw = finished_and_raw(model)
    assert torch.equal(raw, finished_and_raw(load(run.card))[0])
    assert not torch.equal(finished, raw)
    with torch.inference_mode():
        assert torch.equal(finished, bend(raw, model.grading.curves(low_picture(), raw)))


def test_the_same_command_does_nothing_twice_and_another_is_refused(run, tmp_path):
    train_grading(run, tmp_path / "out", lambda report: None)
    record = json.loads((tmp_path / "out/train.json").read_text())["settings"]
    assert (record["model"], record["sha256"]) == ("mine", run.card.weights_sha256)
    assert (record["pairs"], record["bright"], record["steps"]) == (4, 4, 6)
    weights = (tmp_path / "out/model/grading.safetensors").read_bytes()
    stages: list[str] = []
    train_grading(run, tmp_path / "out", lambda report: stages.append(report.stage))
    assert "examples" not in stages
    assert (tmp_path / "out/model/grading.safetensors").read_bytes() == weights
    other = replace(run, fitting=replace(QUICK, seed=1), dtype=torch.bfloat16)
    with pytest.raises(UsageError, match=r"other settings \(seed, precision differ"):
        train_grading(other, tmp_path / "out", lambda report: None)


def test_a_grading_that_a_model_has_is_replaced(run, tmp_path):
    first = train_grading(run, tmp_path / "a", lambda report: None)
    again = train_grading(replace(run, card=read_card(first)), tmp_path / "b", lambda report: None)
    assert (again / "grading.safetensors").read_bytes() == (first / "grading.safetensors").read_bytes()
    assert json.loads((again / "config.json").read_text()) == json.loads((first / "config.json").read_text())


def test_the_single_weights_file_of_an_earlier_version_is_split(make_model, tmp_path):
    folder = make_model("mine")
    expected = (folder / "network.safetensors").read_bytes()
    add_grading(folder)
    merge_files(folder)
    export_grading(read_card(folder), Grading(8, 1), tmp_path / "split")
    assert (tmp_path / "split/network.safetensors").read_bytes() == expected
    assert "rendition" not in (tmp_path / "split/config.json").read_text()
    assert load(read_card(tmp_path / "split")).grading is not None


def test_a_mean_gets_a_grading_of_its_own(make_model, models_root, tmp_path):
    cards = [read_card(make_model(name, network={"gain": gain})) for name, gain in (("one", 2.0), ("two", 4.0))]
    config = {
        "name": "both",
        "architecture": "mean",
        "members": [{"model": card.name, "sha256": card.weights_sha256} for card in cards],
        "size_multiple": cards[0].size_multiple,
    }
    (models_root / "both").mkdir()
    (models_root / "both/config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    grading = Grading(8, 1)
    torch.nn.init.constant_(grading.heads[0].choice[-1].bias, 0.5)
    grading.gate.choice.bias.data[0] = 50.0
    folder = export_grading(find_model("both"), grading, tmp_path / "both")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "grading.safetensors"]
    weights = json.loads((folder / "config.json").read_text())["weights"]
    assert weights["parameters"] == 2 * 84 + sum(parameter.numel() for parameter in grading.parameters())
    finished, raw = finished_and_raw(load(read_card(folder)))
    assert torch.equal(raw, finished_and_raw(load(find_model("both")))[0])
    assert float((finished - raw).mean()) > 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name it with --init"),
        (["--init", "mine", "--stage", "joint"], "--stage does not apply"),
        (["--init", "mine", "--preset", "compact"], "--preset does not apply"),
        (["--init", "mine", "--reference", "paired"], "--reference does not apply"),
        (["--init", "mine", "--network", "heads=2"], "--network does not apply"),
        (["--init", "mine", "--pairs-share", "0.5"], "--pairs-share does not apply"),
        (["--init", "mine", "--no-compile"], "--compile does not apply"),
        (["--init", "nosuch"], "unknown model 'nosuch'"),
        (["--init", "mine", "--steps", "5", "--minutes", "1"], "give one of them"),
    ],
)
def test_what_does_not_apply_is_said_before_any_work(lumen, run, data, tmp_path, arguments, said):
    finished = lumen("train", "grading", *arguments, "--data", data / "bright", "--out", tmp_path / "out")
    assert finished.code != 0
    assert said in finished.err
    assert len(finished.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_trains_and_the_model_enhances(lumen, run, data, tmp_path):
    pairs, out = data / "pairs", tmp_path / "out"
    arguments = ["--init", "mine", "--data", pairs, "--val", pairs, "--out", out, "--steps", "15"]
    finished = lumen("train", "rendition", *arguments, "--device", "cpu", "--precision", "fp32")
    assert finished.code == 0, finished.err
    assert "4 pairs and 0 bright pictures, enhanced by mine; cpu in fp32" in finished.err
    assert finished.err.count("validation") == 4
    assert json.loads((out / "train.json").read_text())["settings"]["steps"] == 4, (
        "auto exposure and gate take three quarters of a head"
    )
    finished = lumen("enhance", pairs / "low/0.png", "--model", out / "model", "-o", tmp_path / "x.png")
    assert finished.code == 0, finished.err
