"""Options that several commands share, each declared once; what a shell completes; where a run computes.

Imports neither PyTorch nor NumPy.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumen_cli.cli import log
from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.cluster import Cluster
    from lumen_cli.run.operation import Operation
    from lumen_cli.run.run import Run, RunOptions


_NVIDIA = Path("/proc/driver/nvidia/gpus")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+(,\d+)*)?")


Completions = list[tuple[str, str]]
"""Values and what they are; the shell shows those that begin as the word does."""


def complete_model(incomplete: str) -> Completions:
    """Names of models for one option: auto, and those of `lumen models`. Folders are the shell's to complete."""
    return [("auto", "the best model for the task"), *_models()]


def complete_named_model(incomplete: str) -> Completions:
    """Names of models."""
    return list(_models())


def complete_models(incomplete: str) -> Completions:
    """Names of models, separated by commas."""
    return _after_comma(incomplete, list(_models()))


def complete_own_model(incomplete: str) -> Completions:
    """Names of the user's own models."""
    from lumen_cli.registry import user_models

    return [(card.name, card.best_for or card.summary) for card in _cards() if card.folder.parent == user_models()]


def complete_missing_model(incomplete: str) -> Completions:
    """Names of models whose weights are not here."""
    return [(card.name, card.best_for or card.summary) for card in _cards() if card.to_pull]


def complete_trainable(incomplete: str) -> Completions:
    """Architectures with a recipe, and what can be trained beside them."""
    from lumen_cli.registry.architectures import ARCHITECTURES

    others = [("grading", "light and colour of a model's pictures"), ("lol-grading", "the one that knows LOL")]
    others.append(("refiner", "denoiser for large pictures"))
    return [(id, "") for id, each in ARCHITECTURES.items() if each.recipes] + others


def complete_importable(incomplete: str) -> Completions:
    """Architectures whose authors publish weights."""
    from lumen_cli.registry.architectures import ARCHITECTURES

    return [(id, each.release.paper_title) for id, each in ARCHITECTURES.items() if each.release]


def complete_metrics(incomplete: str) -> Completions:
    """Names of metrics, those of plug-ins too, separated by commas."""
    from lumen_cli.metrics import all_metrics

    metrics = all_metrics().values()
    return _after_comma(incomplete, [(metric.name, metric.title) for metric in metrics])


def complete_dataset(incomplete: str) -> Completions:
    """Names of data sets."""
    from lumen_cli.datasets.layouts import LAYOUTS

    return [*((layout.name, layout.about) for layout in LAYOUTS), ("folder", "any folder of pictures")]


def complete_device(incomplete: str) -> Completions:
    """Devices; the CUDA devices that the driver lists by number."""
    kinds = [("auto", "the fastest device"), ("cpu", "the processor"), ("cuda", "NVIDIA"), ("mps", "Apple")]
    count = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return [*kinds, *((f"cuda:{number}", f"device {number}") for number in range(count))]


def _after_comma(incomplete: str, values: Sequence[tuple[str, str]]) -> Completions:
    """Values behind those of the list that are complete; none twice."""
    before, comma, _ = incomplete.rpartition(",")
    given = before.split(",")
    return [(f"{before}{comma}{value}", help) for value, help in values if value not in given]


def _models() -> Iterator[tuple[str, str]]:
    return ((card.name, card.best_for or card.summary) for card in _cards())


def _cards() -> Sequence[ModelCard]:
    from lumen_cli.registry import list_models

    return list_models()


class Precision(str, enum.Enum):
    """The values of --precision."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DetailChoice(str, enum.Enum):
    """How large pictures reach their size."""

    auto = "auto"
    fast = "fast"
    whole = "whole"


class GradingChoice(str, enum.Enum):
    """Which grading decides about a result's light and colour."""

    photo = "photo"
    lol = "lol"


class RuntimeChoice(str, enum.Enum):
    """What runs the network."""

    torch = "torch"
    openvino = "openvino"


class Metadata(enum.Enum):
    """Which of an original's tags are kept."""

    keep = "keep"
    private = "private"
    strip = "strip"


def _known_device(value: str) -> str:
    if _DEVICE.fullmatch(value) is None:
        raise typer.BadParameter(f"'{value}' is not one of auto, cpu, cuda, cuda:N, cuda:N,N, mps.")
    return value


WHICH = "Which pictures"
LOOK = "Model and look"
MACHINE = "Machine"
FILES = "Files"
LOGGING = "Output and logging"

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=FILES, help="Overwrite existing outputs.")
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=LOOK,
        help="Sampling steps, within the model's range (default: the model's).",
    ),
]
SeedOption = Annotated[
    int, typer.Option(metavar="N", rich_help_panel=LOOK, help="Seed of the noise; the same seed gives the same pixels.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        callback=_known_device,
        autocompletion=complete_device,
        rich_help_panel=MACHINE,
        help="auto, cpu, cuda, cuda:N or mps. For enhance and decompose cuda is all CUDA devices of one kind, and "
        "cuda:0,2 some.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        metavar="PRECISION",
        rich_help_panel=MACHINE,
        help="auto, fp32, bf16 or fp16. auto: the chip's own bf16, else fp16; 16-bit pictures stay in fp32.",
    ),
]
RuntimeOption = Annotated[
    RuntimeChoice,
    typer.Option(
        "--runtime",
        metavar="torch|openvino",
        rich_help_panel=MACHINE,
        help="What runs the network. openvino (an extra; CPU, fp32): results within 1/255 of torch's; it starts later.",
    ),
]
DetailOption = Annotated[
    DetailChoice,
    typer.Option(
        "--detail",
        metavar="auto|fast|whole",
        rich_help_panel=LOOK,
        help="For pictures above 0.4 megapixels. auto: run the network on the reduced picture, carry its result to "
        "full size and refine it where noise is strong; fast: the same without refining; whole: run it at full "
        "size, which takes minutes and gigabytes.",
    ),
]
GradingOption = Annotated[
    GradingChoice,
    typer.Option(
        "--grading",
        metavar="photo|lol",
        rich_help_panel=LOOK,
        help="Final light and colour. photo: the model's own, for any photograph; lol: fitted to LOL's training pairs, "
        "as the published models are, for tables of LOL.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=LOGGING, help="Print one JSON object per line.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=LOGGING, help="Only print errors.")]


class EngineChoice(str, enum.Enum):
    """Where a run computes."""

    local = "local"
    ray = "ray"


EngineOption = Annotated[
    EngineChoice,
    typer.Option(
        metavar="local|ray",
        rich_help_panel=MACHINE,
        help="local: this process; ray: the nodes of a Ray cluster, which all reach the pictures: in a store or in "
        "folders that they share.",
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto",
        rich_help_panel=MACHINE,
        help="The Ray cluster; auto: the one of this machine (default: that of RAY_ADDRESS, else a new one here).",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=MACHINE,
        help="Workers of --engine ray, each with the model (default: as many as fit).",
    ),
]
GpusPerWorkerOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        rich_help_panel=MACHINE,
        help="GPUs of each worker, 0.5 for two workers on one (default: 1 where the cluster has any, else 0).",
    ),
]


@dataclass(frozen=True)
class EngineOptions:
    """Where a command computes. gpus: of each worker."""

    engine: EngineChoice
    address: str | None
    workers: int | None
    gpus: float | None
    device: str
    quiet: bool

    def check(self) -> None:
        """UsageError where options of Ray are given without it."""
        if self.engine is EngineChoice.local and (self.address, self.workers, self.gpus) != (None, None, None):
            raise UsageError("--ray-address, --workers and --gpus-per-worker need --engine ray")


class Engine:
    """Where a run computes: this process, or a cluster."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster

    def choose_device(self, device: str, precision: str, *, several: bool = True, **arguments: Any) -> DevicePolicy:
        """See `engine.device.choose_device`; several: whether all CUDA devices of this machine may be chosen."""
        if self.cluster is not None:
            return self.cluster.choose_device(precision, **arguments)
        from lumen_cli.engine.device import choose_device

        return choose_device(device, precision, several=several, **arguments)

    def run(self, card: ModelCard, policy: DevicePolicy, operation: Operation, options: RunOptions) -> Run:
        """A run that computes there."""
        if self.cluster is not None:
            from lumen_cli.run.cluster.driver import ClusterRun

            return ClusterRun(card, policy, operation, options, cluster=self.cluster)
        from lumen_cli.run.run import Run

        return Run(card, policy, operation, options)


@contextmanager
def open_engine(options: EngineOptions) -> Iterator[Engine]:
    """The engine that the options name; inside, this process is part of its cluster."""
    if options.engine is EngineChoice.local:
        yield Engine()
        return
    from lumen_cli.run.cluster import connect

    with connect(options.address, options.workers, options.gpus, options.device) as cluster:
        for note in cluster.notes:
            log.warning(note)
            if not options.quiet:
                typer.echo(f"lumen: {note}", err=True)
        yield Engine(cluster)
