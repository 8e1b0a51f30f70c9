"""What a shell completes beside the names of commands and options. It imports neither PyTorch nor NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumen_cli.registry.card import ModelCard

Completions = list[tuple[str, str]]
"""Values and what they are; the shell shows those that begin as the word does."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")


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
    from lumen_cli.registry.catalog import user_models

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
    from lumen_cli.registry.catalog import list_models

    return list_models()
