"""A model as one file for ONNX Runtime or OpenVINO: network and grading in one graph, for pictures of any size.

The graph is traced by PyTorch's older exporter. The newer one (`dynamo=True`) gives the same numbers, but reasons about
every size: for LightenDiffusion, whose U-Net runs four times, it takes 230 seconds of a core and the older one 12. What
a trace could get wrong, sizes that became constants, is checked: every file runs at two other sizes before it counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from lumen_cli import __version__
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks import exporting
from lumen_cli.networks.base import LowLightModel
from lumen_cli.registry import CARD_FILE, atomic_folder
from lumen_cli.registry.export_texts import example_text, readme_text
from lumen_cli.registry.load import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lumen_cli.registry.card import ModelCard

ExportFormat = Literal["onnx", "openvino"]
NoiseChoice = Literal["input", "fixed"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
OPSET = 18
FACTS_FILE, EXAMPLE_FILE, MODEL_CARD_FILE = "export.json", "example.py", "MODEL-CARD.md"
MODEL_FILES: dict[ExportFormat, tuple[str, ...]] = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
_OWN = {CARD_FILE, FACTS_FILE, EXAMPLE_FILE, MODEL_CARD_FILE, *(file for each in MODEL_FILES.values() for file in each)}
PACKAGES: dict[ExportFormat, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
"""What writing and checking a format needs; the extra of lumen's dependencies has the format's name."""
TRACED, CHECKED = (160, 224), ((96, 200), (208, 131))
"""Heights and widths, in pixels, that a graph is traced at, and that a file is compared with PyTorch at."""
LIGHTS = 0.1, 0.6
"""Light of the two pictures for the comparison; that of the trace lies between."""
TOLERANCE = 1.0 / 255.0
PATTERN = 128
"""Side of the noise that a file may hold; it repeats in larger pictures."""
_LONGEST = 512
_log = logging.getLogger("lumen")
_Inputs = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class NoiseSides:
    """The sides of the noise for a picture's sides: ⌈(side + add) / multiple⌉ · multiple / divide, at least `least`."""

    channels: int
    add: int
    multiple: int
    divide: int
    least: int

    def side(self, length: int) -> int:
        """Height or width of the noise for a height or width; also while it is traced."""
        whole = (length + (self.add + self.multiple - 1)) // self.multiple * self.multiple // self.divide
        return whole.clamp(min=self.least) if isinstance(whole, Tensor) else max(whole, self.least)

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """1×C×h×w for a picture of height × width."""
        return 1, self.channels, self.side(height), self.side(width)

    def repeat(self, pattern: Tensor, height: int, width: int) -> Tensor:
        """A pattern 1×C×p×p, repeated to the shape for a picture of height × width."""
        rows, columns = (torch.arange(self.side(length)) % PATTERN for length in (height, width))
        return pattern.index_select(2, rows).index_select(3, columns)


def noise_sides(network: LowLightModel) -> NoiseSides | None:
    """The rule behind a network's `noise_shape`; None where it takes no noise. ModelError where it follows no rule."""
    shapes = [network.noise_shape(side, side) for side in range(1, _LONGEST + 1)]
    if shapes[0] is None or any(shape is None for shape in shapes):
        return None
    sides = [shape[1] for shape in shapes if shape is not None]
    steps = [at for at in range(1, _LONGEST) if sides[at] != sides[at - 1]]  # sides up to `at` have less noise
    if len(steps) > 1:
        multiple, least = steps[-1] - steps[-2], sides[0]
        grows = sides[steps[-1]] - sides[steps[-2]]
        if grows > 0 and multiple % grows == 0:
            rule = NoiseSides(shapes[0][0], -steps[-1] % multiple, multiple, multiple // grows, least)
            odd = range(1, _LONGEST, 7)
            if all(rule.shape(h, w)[1:] == network.noise_shape(h, w) for h, w in zip(odd, reversed(odd), strict=True)):
                return rule
    raise ModelError("the size of its noise follows no rule that a file could state")


class Graph(nn.Module):
    """What a file computes: network and grading at fixed steps, 1×3×H×W in [0, 1] → the same.

    sides: of noise that the graph makes; None where the noise is an input or there is none. drawn: whether it is normal
    noise, always the same, or zero, for a network on which it has no effect. graded: whether the grading is part of it.
    """

    def __init__(
        self,
        network: LowLightModel,
        steps: int | None,
        sides: NoiseSides | None,
        *,
        drawn: bool = False,
        graded: bool = True,
    ) -> None:
        super().__init__()
        count = 0 if sides is None else sides.channels
        pattern = torch.randn(1, count, PATTERN, PATTERN, generator=torch.Generator().manual_seed(0))
        self.register_buffer("pattern", pattern if drawn else torch.zeros(1, count, PATTERN, PATTERN))
        self.pattern: Tensor
        self.network, self.steps, self.sides, self.graded = network, steps, sides, graded

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """See the class."""
        if noise is None and self.sides is not None:
            noise = self.sides.repeat(self.pattern, picture.shape[2], picture.shape[3])
        run = self.network if self.graded else self.network.enhance
        result: Tensor = run(picture, noise=noise, steps=self.steps)
        return result.float()


@dataclass(frozen=True)
class Exported:
    """A finished export. facts: the content of export.json; size: bytes of the model's files."""

    card: ModelCard
    folder: Path
    facts: dict[str, Any]
    size: int


def export_model(
    card: ModelCard,
    folder: Path,
    format: ExportFormat,
    *,
    steps: int | None = None,
    noise: NoiseChoice = "input",
    overwrite: bool = False,
) -> Exported:
    """Write a model as a file for other programs, with what they need to know, into a folder that appears whole.

    Args:
        card: the model.
        folder: the folder to make.
        format: "onnx" or "openvino".
        steps: sampling steps, fixed in the file; None for the model's own.
        noise: "input", or "fixed": the file has noise of its own, always the same.
        overwrite: whether an existing export is replaced.

    Raises:
        UsageError: a package is missing, the steps are out of range, or the folder exists.
        ModelError: the model cannot be exported, its file differs from PyTorch, or the folder cannot be written.
    """
    require_packages(format)
    steps = card.steps_for(steps)
    target = folder.absolute()
    _check_target(target, overwrite)
    network = load(card)
    try:
        if obstacle := network.obstacle_to_export:
            raise ModelError(obstacle)
        sides = noise_sides(network)
        as_input = sides if network.is_random and noise == "input" else None
        graph = Graph(network, steps, None if as_input else sides, drawn=network.is_random).eval()
        with atomic_folder(target) as temporary:
            files = [temporary / name for name in MODEL_FILES[format]]
            trace = files[0] if format == "onnx" else temporary / "model.onnx"
            write_onnx(graph, trace, as_input, _describe(card, steps))
            if format == "openvino":
                convert(trace, files[0])
                trace.unlink()
            check(graph, RUNNERS[format](files[0]), as_input)
            facts = _facts(card, format, steps, network.is_random, sides, as_input, files)
            _write_texts(temporary, card, facts)
            size = sum(file.stat().st_size for file in files)
    except ModelError as error:
        if str(target) in str(error):
            raise
        raise ModelError(f"{card.name} cannot be exported: {error}") from error
    return Exported(card, target, facts, size)


def require_packages(format: ExportFormat) -> None:
    """UsageError where a package is missing."""
    if missing := [name for name in PACKAGES[format] if importlib.util.find_spec(name) is None]:
        raise UsageError(f"{format} needs {' and '.join(missing)}: pip install 'lumen-cli[{format}]'")


def write_onnx(graph: Graph, path: Path, sides: NoiseSides | None, about: Mapping[str, str]) -> None:
    """Trace a graph into an ONNX file. sides: of the noise where it is an input; about: for the file's metadata.

    Raises:
        ModelError: the graph cannot be traced; the log has the exporter's own words.
    """
    import onnx

    example = make_inputs(*_scaled(TRACED, graph.network), sides)
    axes = {"picture": {2: "height", 3: "width"}, "result": {2: "height", 3: "width"}}
    with torch.no_grad():
        graph(*example.values())  # fills what networks keep: values of a trace must not stay in them
        with _quiet(), exporting():
            torch.onnx.export(
                graph,
                tuple(example.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(example),
                output_names=["result"],
                dynamic_axes=axes | ({"noise": {2: "noise_height", 3: "noise_width"}} if sides else {}),
            )
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "lumen", __version__
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn whatever the exporter raises into a ModelError of one line; the log gets the rest.

    PyTorch's C++ prints the whole graph of a failure to standard output, which may be read by a program.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with TemporaryFile() as sink, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(sink.fileno(), 1)
            yield
    except Exception as error:
        _log.info("the exporter failed", exc_info=True)
        first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ModelError(first.strip()) from error
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def convert(onnx_file: Path, xml: Path) -> None:
    """ONNX → OpenVINO. Not by `openvino.convert_model`: it reads the file likewise, but sends statistics."""
    import openvino

    with _quiet():
        openvino.save_model(openvino.Core().read_model(onnx_file), xml, compress_to_fp16=False)


Runner = Callable[[_Inputs], "Tensor"]


def onnx_runner(file: Path) -> Runner:
    """A function that runs an ONNX file by ONNX Runtime on the CPU: inputs by name → the result."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(inputs: _Inputs) -> Tensor:
        (result,) = session.run(["result"], {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(result)

    return run


def openvino_runner(file: Path) -> Runner:
    """The same for OpenVINO, in float32, with as many threads as PyTorch."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(file, "CPU", options)

    def run(inputs: _Inputs) -> Tensor:
        found = compiled({name: value.contiguous().numpy() for name, value in inputs.items()})
        return torch.from_numpy(found["result"].copy())

    return run


RUNNERS: dict[ExportFormat, Callable[[Path], Runner]] = {"onnx": onnx_runner, "openvino": openvino_runner}


def check(graph: Graph, run: Runner, sides: NoiseSides | None) -> None:
    """Compare a file with PyTorch at sizes that it was not traced at; ModelError where it fails or differs."""
    for size, light in zip(CHECKED, LIGHTS, strict=True):
        height, width = _scaled(size, graph.network)
        inputs = make_inputs(height, width, sides, light=light)
        with torch.no_grad():
            wanted = graph(*inputs.values())
        with _quiet():
            difference = float((run(inputs) - wanted).abs().max())
        if not difference <= TOLERANCE:
            raise ModelError(
                f"a file differs from PyTorch by {255 * difference:.1f}/255 for a picture of {width}×{height} pixels; "
                f"the model's code decides by size or content, which a graph cannot"
            )


def make_inputs(
    height: int, width: int, sides: NoiseSides | None, seed: int = 0, light: float = 0.25
) -> dict[str, Tensor]:
    """A picture of random structures with values about up to `light`, and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0.0, 1.0)
    grain = torch.rand(1, 3, height, width, generator=generator)
    inputs = {"picture": light * (smooth + 0.2 * grain).clamp(0.0, 1.0)}
    if sides is not None:
        inputs["noise"] = torch.randn(sides.shape(height, width), generator=generator)
    return inputs


def _scaled(size: tuple[int, int], network: LowLightModel) -> tuple[int, int]:
    """A size for a network, larger where its sides are multiples of more than 64."""
    factor = -(-network.size_multiple // 64)
    return factor * size[0], factor * size[1]


def _describe(card: ModelCard, steps: int | None) -> dict[str, str]:
    about = {"model": card.name, "architecture": card.architecture, "weights_sha256": card.weights_sha256}
    return about | {"licence": card.licence, "steps": "" if steps is None else str(steps)}


def _facts(
    card: ModelCard,
    format: ExportFormat,
    steps: int | None,
    is_random: bool,
    sides: NoiseSides | None,
    as_input: NoiseSides | None,
    files: list[Path],
) -> dict[str, Any]:
    """The content of export.json."""
    picture = {"type": "float32", "range": [0.0, 1.0], "values": "sRGB as files have it; red, green, blue"}
    picture["shape"] = [1, 3, "height", "width"]
    inputs: list[dict[str, Any]] = [{"name": "picture", **picture}]
    if as_input is not None:
        shape = [1, as_input.channels, "noise_height", "noise_width"]
        inputs.append({"name": "noise", "type": "float32", "values": "standard normal", "shape": shape})
        inputs[-1]["side"] = {name: value for name, value in asdict(as_input).items() if name != "channels"}
    return {
        "model": card.name,
        "architecture": card.architecture,
        "format": format,
        "opset": OPSET if format == "onnx" else None,
        "lumen": __version__,
        "steps": steps,
        "noise": None if sides is None else "input" if as_input else "fixed" if is_random else "without effect",
        "grading": card.grading is not None or bool(card.members),
        "inputs": inputs,
        "outputs": [{"name": "result", **picture}],
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "weights_sha256": card.weights_sha256,
        "licence": card.licence,
        "paper": card.paper.model_dump(),
        "trained_on": list(card.trained_on),
    }


def _write_texts(folder: Path, card: ModelCard, facts: dict[str, Any]) -> None:
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(readme_text(facts), encoding="utf-8")
    (folder / EXAMPLE_FILE).write_text(example_text(facts), encoding="utf-8")
    if (card.folder / CARD_FILE).is_file():
        shutil.copyfile(card.folder / CARD_FILE, folder / MODEL_CARD_FILE)


def _check_target(target: Path, overwrite: bool) -> None:
    """UsageError where the target exists, unless it is an export that may be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise UsageError(f"{target} exists and is not a folder")
    present = {entry.name for entry in target.iterdir()}
    if foreign := sorted(present - _OWN):
        raise UsageError(f"{target} exists and holds more than an export ({foreign[0]}): choose another folder")
    if present and not overwrite:
        raise UsageError(f"{target} exists", remedy="overwrite")
