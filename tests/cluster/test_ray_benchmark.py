"""`lumen benchmark --engine ray`: the figures of a benchmark on one machine, whatever ends meanwhile."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.conftest import Nodes, meanwhile, wait_for
from tests.conftest import Finished, MakeModel, dark_pixels, folder_bytes

pytestmark = pytest.mark.ray
Lumen = Callable[..., Finished]
NUMBER = 12


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Dark pictures and their references."""
    for side in ("low", "high"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
    for index in range(NUMBER):
        dark = dark_pixels(24 + index, 40, seed=index)
        Image.fromarray(dark).save(tmp_path / f"pairs/low/{index:02}.png")
        Image.fromarray(np.clip(dark.astype(int) * 2 + 3, 0, 255).astype(np.uint8)).save(
            tmp_path / f"pairs/high/{index:02}.png"
        )
    return tmp_path / "pairs"


def command(pairs: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return "benchmark", "--data-root", pairs, "-m", "tiny", "--baseline", "gamma", "--metric", "psnr", "--json", *more


def by_ray(nodes: Nodes) -> tuple[str, ...]:
    return "--engine", "ray", "--ray-address", nodes.address


def figures(finished: Finished) -> list[dict[str, object]]:
    """Every row without its times and notes."""
    rows = [json.loads(line) for line in finished.out.splitlines()]
    for row in rows:
        row.pop("notes", None)
        row.pop("seconds", None)
        for picture in row.get("pictures", ()):
            picture.pop("seconds", None)
    return rows


def test_a_cluster_whose_workers_are_killed_measures_the_figures_of_one_machine(
    nodes: Nodes, pairs: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    nodes.resize(2)
    make_model(network={"seconds": 0.5})
    local = lumen(*command(pairs, "--save-images", tmp_path / "local"))
    assert local.code == 0, local.err

    def kill() -> None:
        wait_for(lambda: list((tmp_path / "ray").rglob("tiny/*.png")))
        wait_for(lambda: nodes.signal_workers(signal.SIGKILL))  # between two parts a worker has another name

    with meanwhile(kill):
        finished = lumen(*command(pairs, "--save-images", tmp_path / "ray"), *by_ray(nodes))
    assert finished.code == 0, finished.err
    assert figures(finished) == figures(local)
    assert [row["model"] for row in figures(finished)] == ["input", "gamma", "tiny"]
    assert folder_bytes(tmp_path / "ray") == folder_bytes(tmp_path / "local")
    assert "2 workers on 2 nodes" in finished.err


def test_a_picture_that_ends_its_workers_fails_alone(
    nodes: Nodes, pairs: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    nodes.resize(1)
    Image.new("RGB", (30, 30), "white").save(pairs / "low/03.png")
    Image.new("RGB", (30, 30), "white").save(pairs / "high/03.png")
    (pairs / "low/05.png").write_bytes(b"\x89PNG\r\n\x1a\n of no use")
    make_model(network={"deadly_above": 0.9})
    finished = lumen(*command(pairs), *by_ray(nodes))
    assert finished.code == 1
    row = figures(finished)[-1]
    failed = {picture["name"]: picture["reason"] for picture in row["pictures"] if picture["reason"]}  # type: ignore[attr-defined]
    assert set(failed) == {"03", "05"}
    assert "its worker ended each time" in failed["03"]
    assert row["n"] == NUMBER - 2


def refusal(finished: Finished) -> str:
    assert finished.code == 2, finished.err
    assert len(finished.err.splitlines()) == 1, finished.err
    return finished.err


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--speed",), "--engine cannot be combined with --speed"),
        (("--check-leak", "."), "--check-leak without --model measures nothing"),
        (("--data-root", "s3://bucket/LOL"), "needs data sets in a folder that the nodes share, not in a store"),
        (("--model", "nothing"), "nothing"),
    ],
)
def test_what_does_not_fit_with_ray(more: tuple[str, ...], expected: str, models_root: Path, lumen: Lumen) -> None:
    assert expected in refusal(lumen("benchmark", "--engine", "ray", *more))


def test_workers_need_ray(models_root: Path, lumen: Lumen) -> None:
    line = refusal(lumen("benchmark", "--workers", "2"))
    assert "--ray-address, --workers and --gpus-per-worker need --engine ray" in line
