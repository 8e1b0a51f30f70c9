"""The grading that knows LOL's scenes: where it starts, what it depends on, and how it is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lumen_cli
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks.grading import bend
from lumen_cli.networks.lol_grading import LolGrading, thumbnail
from lumen_cli.registry import find_model
from lumen_cli.registry import load as loading
from lumen_cli.registry.load import load, load_lol_grading


def pictures(count: int = 2, height: int = 50, width: int = 71) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 0.1 * torch.rand(count, 3, height, width, generator=generator), torch.rand(
        count, 3, height, width, generator=generator
    )


def test_it_is_small_and_changes_nothing_before_training() -> None:
    network, (low, result) = LolGrading().eval(), pictures()
    assert sum(parameter.numel() for parameter in network.parameters()) <= 1_700_000
    assert torch.allclose(network(low, result), result)


def test_padding_and_batch_mates_change_nothing() -> None:
    network = load_lol_grading().eval()
    low, result = pictures()
    sizes = [(50, 71), (33, 64)]
    low[1, :, 33:], result[1, :, 33:] = 0.5, 0.5
    graded = network(low, result, sizes)
    for index, (height, width) in enumerate(sizes):
        alone = network(*(each[index : index + 1, :, :height, :width] for each in (low, result)))
        assert torch.equal(graded[index : index + 1, :, :height, :width], alone)


def test_a_tiny_picture_and_one_of_one_colour_have_finite_results() -> None:
    network = load_lol_grading().eval()
    for size in ((1, 1), (1, 300), (7, 5)):
        assert torch.isfinite(network(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))).all()


def test_curves_come_from_the_whole_scene_and_then_each_pixel_changes() -> None:
    network = load_lol_grading().eval()
    low, result = pictures(1, 64, 96)
    curves = network.curves(thumbnail(low), thumbnail(result))
    changed = network(low, result) - bend(result, curves).clamp(0, 1)
    assert 0.0 < float(changed.abs().mean()) < 0.2


def test_every_model_takes_it_in_place_of_its_own_and_a_mean_grades_once() -> None:
    kind = load(find_model("kind"), "lol")
    assert isinstance(kind.grading, LolGrading)
    mean = load(find_model("lumen"), "lol")
    assert isinstance(mean.grading, LolGrading)
    assert all(member.network.grading is None for member in mean.members)
    assert load(find_model("kind"), "none").grading is None
    assert isinstance(load(find_model("lumen")).members[0].network.grading, lumen_cli.networks.grading.Grading)


def test_python_and_the_command_line_give_the_same_pixels(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lumen_cli.cli.app import app

    source = tmp_path / "night.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 40, (48, 64, 3), dtype=np.uint8)).save(source)
    arguments = ["enhance", str(source), "-o", str(tmp_path / "out.png"), "-m", "kind", "--grading", "lol", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert '"grading": "lol"' in done.output
    bright = lumen_cli.enhance(source, "kind", grading="lol")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), bright)
    assert not np.array_equal(lumen_cli.enhance(source, "kind"), bright)
    with Image.open(tmp_path / "out.png") as out:
        assert "grading lol" in out.getexif()[11]


def test_outputs_of_one_grading_are_outdated_for_the_other(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lumen_cli.cli.app import app

    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((24, 32, 3), 20, np.uint8)).save(tmp_path / "in/a.png")
    run = ["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-m", "kind", "--json"]
    status = []
    for extra in ([], ["--grading", "lol"], ["--grading", "lol"], ["--grading", "photo"]):
        done = CliRunner().invoke(app, [*run, *extra])
        status.append("kept" if '"status": "kept"' in done.output else "made")
    assert status == ["made", "made", "kept", "made"]


def test_a_ratio_of_the_papers_and_an_unknown_grading_are_refused() -> None:
    dark = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="ratio"):
        lumen_cli.enhance(dark, "kind", illumination_ratio=2.0, grading="lol")
    with pytest.raises(UsageError, match="photo and lol"):
        lumen_cli.enhance(dark, "kind", grading="LOL")  # type: ignore[arg-type]


def test_damaged_weights_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "bundled_models", lambda: tmp_path)
    with pytest.raises(ModelError, match=r"lol-grading.*missing"):
        load_lol_grading()
