"""Exported files against PyTorch, by ONNX Runtime and OpenVINO, at sizes that they were not traced at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lumen_tiny import Tiny
from torch import Tensor

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry import bundled_models, export, find_model
from lumen_cli.registry.architectures import ARCHITECTURES
from lumen_cli.registry.load import load
from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels, write_dark

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
Lumen = Callable[..., Finished]
SHIPPED = sorted(path.parent.name for path in bundled_models().glob("*/config.json"))
SAMPLES = Path(__file__).parents[2] / "sample_images"
SIZES = [(64, 96), (131, 192)]
"""Neither is the size of the trace, nor one that the export itself is checked at."""


def within_a_level(network: LowLightModel, run: export.Runner, sides: export.NoiseSides | None) -> None:
    for height, width in SIZES:
        inputs = export.make_inputs(height, width, sides, seed=height)
        noise = inputs.get("noise")
        wanted = network.noise_shape(height, width)
        if noise is None and wanted is not None:
            noise = torch.zeros(1, *wanted)
        with torch.no_grad():
            expected = network(inputs["picture"], noise=noise)
        result = run(inputs)
        assert result.shape == (1, 3, height, width)
        assert float((result - expected).abs().max()) <= 1 / 255
        assert float((expected - inputs["picture"]).abs().max()) > 20 / 255, "it does something"


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], export.Exported]:
    """Export a shipped model, once for all tests."""
    made: dict[str, export.Exported] = {}

    def get(name: str) -> export.Exported:
        if name not in made:
            made[name] = export.export_model(
                find_model(bundled_models() / name), tmp_path_factory.mktemp("exports") / name, "onnx"
            )
        return made[name]

    return get


def sides_of(exported: export.Exported) -> export.NoiseSides | None:
    """The rule for the noise's sides, from export.json."""
    facts = json.loads((exported.folder / export.FACTS_FILE).read_text(encoding="utf-8"))
    ports = {port["name"]: port for port in facts["inputs"]}
    if "noise" not in ports:
        return None
    return export.NoiseSides(channels=ports["noise"]["shape"][1], **ports["noise"]["side"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_gives_the_same_by_onnx_runtime_and_openvino(
    shipped: Callable[[str], export.Exported], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    exported = shipped(name)
    network, sides = load(exported.card), sides_of(exported)
    within_a_level(network, export.onnx_runner(exported.folder / "model.onnx"), sides)
    export.convert(exported.folder / "model.onnx", tmp_path / "model.xml")
    within_a_level(network, export.openvino_runner(tmp_path / "model.xml"), sides)


@pytest.mark.slow
def test_noise_is_an_input_where_it_matters(shipped: Callable[[str], export.Exported]) -> None:
    assert [name for name in SHIPPED if sides_of(shipped(name))] == ["lightendiffusion", "lumen"]
    other = export.make_inputs(64, 96, sides_of(shipped("lightendiffusion")), seed=1)
    run = export.onnx_runner(shipped("lightendiffusion").folder / "model.onnx")
    one, two = run(other), run(other | {"noise": -other["noise"]})
    assert float((one - two).abs().max()) > 1 / 255


@pytest.mark.slow
def test_the_example_runs_without_lumen_and_torch(shipped: Callable[[str], export.Exported], tmp_path: Path) -> None:
    """On the model whose noise is an input: the example draws it by the rule in export.json."""
    folder = tmp_path / "export"
    folder.mkdir()
    for path in shipped("lightendiffusion").folder.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "example.py").unlink()
    (folder / "example.py").write_text((shipped("lightendiffusion").folder / "example.py").read_text())
    for name in ("torch", "lumen_cli"):
        (folder / f"{name}.py").write_text("raise ImportError('the example is to run without this')\n")
    dark, bright = write_dark(tmp_path / "dark.png", 50, 70), tmp_path / "bright.png"
    subprocess.run([sys.executable, folder / "example.py", dark, bright], check=True, env={}, cwd=tmp_path)
    before, after = (read_pixels(path) for path in (dark, bright))
    assert after.shape == before.shape
    assert after.mean() > 2 * before.mean()


TINY = [id for id, each in ARCHITECTURES.items() if each.tiny]


@pytest.mark.parametrize("architecture", TINY)
def test_every_architecture_with_the_papers_defaults_has_a_graph(architecture: str, tmp_path: Path) -> None:
    """Without our own fields: noise that matters, no exposure. What cannot be exported says so itself."""
    from lumen_cli.registry.architectures import network_class

    torch.manual_seed(0)
    network = network_class(architecture)(**ARCHITECTURES[architecture].tiny).eval().requires_grad_(False)
    if network.obstacle_to_export:
        assert architecture == "anlightendiff"
        return
    sides = export.noise_sides(network)
    graph = export.Graph(network, None if sides is None else 2, None).eval()
    export.write_onnx(graph, tmp_path / "model.onnx", sides, {})
    export.check(graph, export.onnx_runner(tmp_path / "model.onnx"), sides)


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_plug_in_becomes_a_complete_folder(
    make_model: MakeModel, lumen: Lumen, tmp_path: Path, format: export.ExportFormat
) -> None:
    pytest.importorskip(format)
    make_model("night")
    target = tmp_path / "made" / "night"
    line = json.loads(lumen("models", "export", "night", "-o", target, "--format", format, "--steps", 3, "--json").out)
    assert line["folder"] == str(target)
    files = {*export.MODEL_FILES[format], "README.md", "export.json", "example.py"}
    assert {path.name for path in target.iterdir()} == files
    assert line["facts"] == json.loads((target / "export.json").read_text(encoding="utf-8"))
    card = find_model("night")
    assert line["facts"]["weights_sha256"] == card.weights_sha256
    assert line["facts"]["steps"] == 3
    readme = (target / "README.md").read_text(encoding="utf-8")
    assert "rounded up to a multiple of 8, divided by 8" in readme
    assert card.weights_sha256 in readme
    run = export.RUNNERS[format](target / export.MODEL_FILES[format][0])
    inputs = export.make_inputs(64, 97, export.NoiseSides(3, 0, 8, 8, 1))
    with torch.no_grad():
        expected = load(card)(inputs["picture"], noise=inputs["noise"], steps=3)
    assert float((run(inputs) - expected).abs().max()) <= 1 / 255


def test_a_file_may_have_noise_of_its_own(make_model: MakeModel, lumen: Lumen, tmp_path: Path) -> None:
    make_model("night")
    made = lumen("models", "export", "night", "-o", tmp_path / "made", "--noise", "fixed", "--json")
    assert json.loads(made.out)["facts"]["noise"] == "fixed"
    run = export.onnx_runner(tmp_path / "made" / "model.onnx")
    noise = torch.randn(1, 3, export.PATTERN, export.PATTERN, generator=torch.Generator().manual_seed(0))
    for height, width in ((40, 70), (16, 8 * export.PATTERN + 9)):
        inputs = export.make_inputs(height, width, None)
        repeated = noise.repeat(1, 1, 1, 2)[..., : -(-height // 8), : -(-width // 8)]
        with torch.no_grad():
            expected = load(find_model("night"))(inputs["picture"], noise=repeated, steps=2)
        assert float((run(inputs) - expected).abs().max()) <= 1e-4


def test_fixed_noise_is_as_good_as_any_other() -> None:
    """Zero noise is not: LightenDiffusion's pictures with it are darker, and 20 to 27 dB away."""
    network = load(find_model(bundled_models() / "lightendiffusion"))
    sides = export.noise_sides(network)
    assert sides is not None
    photograph = torch.from_numpy(read_pixels(SAMPLES / "palace.jpg").copy()).permute(2, 0, 1)[None] / 255
    dark = torch.nn.functional.interpolate(photograph, scale_factor=0.5, mode="area")
    noise = torch.randn(sides.shape(*dark.shape[-2:]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        other = export.Graph(network, None, None)(dark, noise)
        fixed, zero = (export.Graph(network, None, sides, drawn=each)(dark) for each in (True, False))
    near, far = (float((each - other).square().mean()) for each in (fixed, zero))
    assert near < 2e-4, "37 dB"
    assert far > 10 * near


def test_an_export_is_replaced_only_when_asked(make_model: MakeModel, lumen: Lumen, tmp_path: Path) -> None:
    make_model("night")
    target = tmp_path / "made"
    assert lumen("models", "export", "night", "-o", target).code == 0
    before = folder_bytes(target)
    refused = lumen("models", "export", "night", "-o", target, "--steps", 4)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--overwrite" in refused.err
    assert folder_bytes(target) == before
    assert lumen("models", "export", "night", "-o", target, "--steps", 4, "--overwrite").code == 0
    assert json.loads((target / "export.json").read_text(encoding="utf-8"))["steps"] == 4
    (target / "mine.txt").write_text("mine")
    foreign = lumen("models", "export", "night", "-o", target, "--overwrite")
    assert foreign.code == 2
    assert "mine.txt" in foreign.err


def by_size(self: Tiny, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
    return (low * (3.0 if low.shape[-1] > 210 else 2.0)).clamp(0.0, 1.0)


def by_content(self: Tiny, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
    return low * float(low.numpy().mean())


def by_rare_operation(self: Tiny, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
    return low + torch.linalg.svdvals(low)[..., :1, None]


@pytest.mark.parametrize(
    ("way", "reason"),
    [(by_size, "decides by size or content"), (by_rare_operation, "svd"), (by_content, "decides by size or content")],
)
def test_what_has_no_graph_is_refused_in_one_line(
    make_model: MakeModel,
    lumen: Lumen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[..., Tensor],
    reason: str,
) -> None:
    make_model("night")
    monkeypatch.setattr(Tiny, "enhance", way)
    refused = lumen("models", "export", "night", "-o", tmp_path / "made", "--noise", "fixed")
    assert refused.code == 2
    assert refused.err.count("\n") == 1, refused.err
    assert refused.out == ""
    assert "night cannot be exported: " in refused.err
    assert reason in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["models"], "nothing is left of it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steps", "11"), "from 1 to 10 steps, not 11"),
        (("--steps", "0"), "greater than or equal to 1"),
        (("--format", "coreml"), "coreml"),
        (("--noise", "none"), "none"),
    ],
)
def test_a_wrong_choice_is_named(
    make_model: MakeModel, lumen: Lumen, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    make_model("night")
    refused = lumen("models", "export", "night", "-o", tmp_path / "made", *arguments)
    assert refused.code == 2
    assert said in refused.err


def test_a_missing_package_is_named_with_its_command(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(export.PACKAGES, "onnx", ("onnx", "package_that_is_not_here"))
    with pytest.raises(UsageError, match=r"onnx needs package_that_is_not_here: pip install 'lumen-cli\[onnx\]'"):
        export.export_model(find_model(make_model("night")), Path("unused"), "onnx")


def test_a_folder_that_cannot_be_written_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file/below cannot be written"):
        export.export_model(find_model(make_model("night")), tmp_path / "file" / "below", "onnx")
    with pytest.raises(UsageError, match="exists and is not a folder"):
        export.export_model(find_model(make_model("night-2")), tmp_path / "file", "onnx", overwrite=True)


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [({"eta": 1.0}, "fresh noise"), ({"eta": 0.0}, "")],
)
def test_anlightendiff_with_noise_in_every_step_says_so(settings: dict[str, float], obstacle: str) -> None:
    network = ARCHITECTURES["anlightendiff"]
    from lumen_cli.registry.architectures import network_class

    assert obstacle in network_class("anlightendiff")(**network.tiny, **settings).obstacle_to_export


def test_the_rule_of_the_noise_is_the_networks() -> None:
    from lumen_cli.registry.architectures import network_class

    network = network_class("lldiffusion")(**ARCHITECTURES["lldiffusion"].tiny)
    sides = export.noise_sides(network)
    assert sides == export.NoiseSides(channels=3, add=16, multiple=32, divide=1, least=64)
