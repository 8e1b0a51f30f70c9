"""What a quality benchmark measures and where it writes: metrics, rows of the table, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lumen_cli.atomic import atomic_file
from lumen_cli.benchmark.entrants import Entrant, baseline_entrant, input_entrant, model_entrant
from lumen_cli.benchmark.quality import Save
from lumen_cli.benchmark.samples import Samples
from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import check_writable
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.write import write_picture
from lumen_cli.metrics.registry import DEFAULT_METRICS, Metric, all_metrics, find_metrics
from lumen_cli.registry.catalog import find_model, list_models


def choose_metrics(names: Sequence[str], samples: Samples) -> list[Metric]:
    """The named metrics ("all": every one), or those of the default ones that the samples allow.

    Raises:
        UsageError: a metric is unknown, or a named one needs references that the samples lack.
    """
    every = "all" in names
    metrics = find_metrics(all_metrics() if every else names or DEFAULT_METRICS)
    lacking = [metric for metric in metrics if metric.lacks(reference=samples.paired, input=True)]
    if lacking and names and not every:
        listed = ", ".join(metric.name for metric in lacking)
        raise UsageError(f"{listed}: needs references, and {samples.title} has none")
    if len(lacking) == len(metrics):
        raise UsageError(f"{samples.title} has no references: name metrics that need none", remedy="metric")
    return [metric for metric in metrics if metric not in lacking]


def choose_entrants(
    models: Sequence[str], baselines: Sequence[str], *, steps: int | None, **options: Any
) -> list[Entrant]:
    """The rows of the table: the input, the baselines, the models (none named: all whose weights are here).

    Args:
        models: names or folders; "all" stands for every installed model.
        baselines: names of baselines.
        steps: for models that sample; with several models the others ignore it.
        options: as `model_entrant` takes them.

    Raises:
        UsageError, ModelError: as `model_entrant` and `find_model`.
    """
    if not models or "all" in models:
        cards = [card for card in list_models() if "enhance" in card.abilities and not card.to_pull]
    else:
        cards = list({card.folder.resolve(): card for card in map(find_model, models)}.values())
    if not cards:
        raise UsageError("there are no models to measure (see `lumen models`)")
    names = [card.name for card in cards]
    rows = [
        model_entrant(
            card,
            # Folders of the same name, such as two trainings of a model, are numbered in the given order.
            name=card.name if names.count(card.name) == 1 else f"{card.name}-{names[: index + 1].count(card.name)}",
            steps=None if card.steps_range is None and len(cards) > 1 else steps,
            **options,
        )
        for index, card in enumerate(cards)
    ]
    return [input_entrant(), *map(baseline_entrant, baselines), *rows]


def image_paths(folder: Path, samples: Samples, entrants: Sequence[Entrant]) -> list[Path]:
    """The files that `save_images` writes for these rows."""
    return [_image_path(folder, entrant.name, sample.name) for entrant in entrants for sample in samples.items]


def save_images(folder: Path) -> Save:
    """A function that writes each result to folder/row/picture.png, atomically."""

    def save(row: str, name: str, picture: Picture) -> None:
        target = _image_path(folder, row, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as temporary:
            write_picture(picture, temporary, format="png")

    return save


def check_targets(targets: Sequence[Path], samples: Samples, overwrite: bool) -> None:
    """Check before any work that every file can be written and none is a measured picture.

    Raises:
        UsageError: names the first file that cannot be written, or that exists and `overwrite` is false.
    """
    sources = {path.resolve() for path in samples.files}
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is one of the pictures measured on; choose another output")
        if target.exists() and not overwrite:
            raise UsageError(f"{target} already exists", remedy="overwrite")
    for folder in dict.fromkeys(target.parent for target in targets):
        check_writable(folder)
    if len({target.resolve() for target in targets}) < len(targets):
        raise UsageError("two results would be written to the same file: two models or two reports share a name")


def _image_path(folder: Path, row: str, name: str) -> Path:
    return folder / row / f"{name}.png"
