"""`lumen enhance --runtime openvino`: the same pictures within a level, named where results are told apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lumen_tiny import Tiny

from lumen_cli.engine import acceleration as runtime
from lumen_cli.engine.device import choose_device
from lumen_cli.networks.base import Mean, pad_to_multiple
from lumen_cli.registry import bundled_models, export, find_model
from lumen_cli.registry.load import load
from tests.conftest import Finished, MakeModel, read_pixels

pytest.importorskip("openvino")
pytest.importorskip("onnx")
Lumen = Callable[..., Finished]


def test_pictures_differ_by_a_level_at_most_and_count_as_others(
    make_model: MakeModel, lumen: Lumen, photos: Path, tmp_path: Path
) -> None:
    make_model("night")
    options = ("--model", "night", "--device", "cpu", "--format", "png", "--json")
    torchs = [
        json.loads(line) for line in lumen("enhance", photos, "-o", tmp_path / "torch", *options).out.splitlines()
    ]
    ours = (
        "enhance",
        photos,
        "-o",
        tmp_path / "out",
        *options,
        "--runtime",
        "openvino",
        "--log-file",
        tmp_path / "log",
    )
    finished = lumen(*ours)
    assert finished.code == 0, finished.err
    lines = [json.loads(line) for line in finished.out.splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 5
    for line in torchs:
        path = Path(line["output"])
        other = tmp_path / "out" / path.relative_to(tmp_path / "torch")
        difference = read_pixels(path).astype(int) - read_pixels(other)
        assert np.abs(difference).max() <= 1
    assert {line["settings"]["runtime"] for line in lines} == {"openvino"}
    assert "compiled for OpenVINO in" in (tmp_path / "log").read_text(encoding="utf-8")
    assert b"runtime openvino" in (tmp_path / "out" / "a.png").read_bytes()
    assert all(json.loads(line)["status"] == "kept" for line in lumen(*ours).out.splitlines())
    again = lumen("enhance", photos, "-o", tmp_path / "out", *options)
    assert [json.loads(line)["why"] for line in again.out.splitlines()] == ["settings changed"] * 5


@pytest.mark.slow
def test_a_shipped_model_in_a_batch_of_its_own_size() -> None:
    """As a run calls it: padded, with the picture's size for the grading."""
    card = find_model(bundled_models() / "lightendiffusion")
    network = load(card)
    fast = runtime.accelerate(network, card.defaults.steps, card.name)
    sides = export.noise_sides(network)
    inputs = export.make_inputs(70, 100, sides)
    low = pad_to_multiple(inputs["picture"], network.size_multiple)
    with torch.inference_mode():
        wanted, made = (
            each(low, noise=inputs["noise"], sizes=[(70, 100)], steps=card.defaults.steps)[..., :70, :100]
            for each in (network, fast)
        )
    assert float((made - wanted).abs().max()) <= 1 / 255
    assert not fast.tiles


def test_a_mean_runs_its_members_so() -> None:
    torch.manual_seed(0)
    mean = Mean([Tiny(gain=2.0), Tiny(gain=3.0, multiple=16)], [1.0, 3.0], [1, 2]).eval().requires_grad_(False)
    fast = runtime.accelerate(mean, None, "both")
    assert [type(member.network) for member in fast.members] == [runtime.Accelerated] * 2
    picture = export.make_inputs(48, 64, None)["picture"]
    noise = torch.randn(1, *(mean.noise_shape(48, 64) or ()))
    with torch.inference_mode():
        difference = fast(picture, noise=noise) - mean(picture, noise=noise)
    assert float(difference.abs().max()) <= 1 / 255


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tile", "512"), "--runtime openvino and --tile cannot be combined"),
        (("--detail", "whole"), "--runtime openvino and --detail whole cannot be combined"),
        (("--illumination-ratio", "2"), "--runtime openvino and --illumination-ratio cannot be combined"),
        (("--engine", "ray"), "--runtime openvino and --engine ray cannot be combined"),
        (("--precision", "bf16"), "OpenVINO runs in fp32 here, not in bf16"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(
    make_model: MakeModel, lumen: Lumen, photos: Path, arguments: tuple[str, ...], said: str
) -> None:
    make_model("night")
    refused = lumen("enhance", photos, "--model", "night", "--device", "cpu", "--runtime", "openvino", *arguments)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert said in refused.err


def test_other_devices_and_missing_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from lumen_cli.errors import UsageError

    policy = choose_device("cpu", "fp32")
    runtime.check_runtime(policy)
    for device in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"OpenVINO runs on the CPU here, not on {device}"):
            runtime.check_runtime(replace(policy, device=device))
    monkeypatch.setitem(export.PACKAGES, "openvino", ("package_that_is_not_here",))
    with pytest.raises(UsageError, match=r"pip install 'lumen-cli\[openvino\]'"):
        runtime.check_runtime(policy)


def test_a_model_without_a_graph_names_the_other_runtime(
    make_model: MakeModel, lumen: Lumen, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("night")
    monkeypatch.setattr(Tiny, "obstacle_to_export", "it asks the weather")
    refused = lumen("enhance", photos, "--model", "night", "--device", "cpu", "--runtime", "openvino", "--quiet")
    assert refused.code == 2
    assert "night does not run in OpenVINO: it asks the weather (see --runtime torch)" in refused.err
