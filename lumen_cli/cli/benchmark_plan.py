"""What `lumen benchmark` was asked for, as the pictures, metrics and rows it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError
from lumen_cli.limits import Detail

if TYPE_CHECKING:
    from lumen_cli.benchmark.entrants import Entrant
    from lumen_cli.benchmark.samples import Samples
    from lumen_cli.metrics.registry import Metric


@dataclass(frozen=True)
class QualityOptions:
    """The command line's options about pictures, as they came."""

    dataset: str | None
    data_root: Path | None
    split: str | None
    low: Path | None
    high: Path | None
    darken: float | None
    check_leak: Path | None
    models: tuple[str, ...]
    baselines: tuple[str, ...]
    metrics: tuple[str, ...]
    steps: int | None
    seed: int
    device: str
    precision: str
    batch: str | None
    outputs: tuple[Path, ...]
    save_images: Path | None
    overwrite: bool
    detail: Detail = "auto"
    size: str | None = None


def samples_for(options: QualityOptions) -> Samples:
    """The pictures; UsageError where they are not there, with where to get them."""
    from lumen_cli.benchmark.samples import NAME, builtin_samples, photograph_samples, samples_of
    from lumen_cli.datasets.layouts import FOLDER, find_dataset, find_folders, find_layout

    name = options.dataset
    if options.darken is not None:
        if options.data_root is None or any((name, options.split, options.low, options.high)):
            raise UsageError("--darken goes with --data-root DIR, a folder of well-exposed photographs, and no other")
        return photograph_samples(options.data_root.expanduser(), options.darken, _pixels(options.size))
    if options.size is not None:
        raise UsageError("--size goes with --darken or --speed")
    if options.low is not None or options.high is not None:
        if options.low is None or options.high is None:
            raise UsageError("--low and --high go together: the dark pictures and their references")
        if options.data_root is not None or options.split is not None or (name or FOLDER) != FOLDER:
            raise UsageError("--low and --high name the pictures: leave --data-root, --split and another --dataset out")
        return samples_of(find_folders(options.low, options.high))
    if options.data_root is not None:
        if name == NAME:
            raise UsageError("the built-in set takes no --data-root")
        return samples_of(find_dataset(name or FOLDER, options.data_root.expanduser(), options.split))
    if name is None or name == NAME:
        if options.split is not None:
            raise UsageError("--split needs --data-root: the built-in set has none")
        return builtin_samples()
    if name == FOLDER:
        raise UsageError("--dataset folder needs --data-root DIR, or --low DIR and --high DIR")
    layout = find_layout(name)
    raise UsageError(
        f"{layout.name} needs --data-root DIR, the folder with {layout.expected}; its authors publish it at "
        f"{layout.page}; without --dataset the built-in set is measured"
    )


def _pixels(size: str | None) -> int | None:
    from lumen_cli.benchmark.speed_request import parse_megapixels

    pixels = None if size is None else parse_megapixels(size)
    if size is not None and pixels is None:
        raise UsageError(f"--size {size}: with --darken a number of megapixels is expected, such as 2mp")
    return pixels


def metrics_for(options: QualityOptions, samples: Samples) -> list[Metric]:
    """Those asked for, or the default ones that the set allows; UsageError for one that wants a missing reference."""
    from lumen_cli.metrics.registry import DEFAULT_METRICS, all_metrics, find_metrics

    every = "all" in options.metrics
    metrics = find_metrics(all_metrics() if every else options.metrics or DEFAULT_METRICS)
    lacking = [metric for metric in metrics if metric.lacks(reference=samples.paired, input=True)]
    if lacking and options.metrics and not every:
        names = ", ".join(metric.name for metric in lacking)
        raise UsageError(f"{names}: compared with a reference, and {samples.title} has none")
    metrics = [metric for metric in metrics if metric not in lacking]
    if not metrics:
        raise UsageError(f"{samples.title} has no references: name metrics that need none with --metric")
    return metrics


def entrants_for(options: QualityOptions) -> list[Entrant]:
    """The rows: the input, the baselines, the models. Errors as of `model_entrant` and `find_model`."""
    from lumen_cli.benchmark.entrants import baseline_entrant, input_entrant, model_entrant
    from lumen_cli.registry.catalog import find_model, list_models

    if not options.models or "all" in options.models:
        cards = [card for card in list_models() if "enhance" in card.abilities and not card.to_pull]
    else:
        cards = list({card.folder.resolve(): card for card in map(find_model, options.models)}.values())
    if not cards:
        raise UsageError("there are no models to measure (see `lumen models`)")
    batch = None
    if options.batch is not None:
        if not options.batch.isdecimal() or int(options.batch) < 1:
            raise UsageError(f"--batch: expected one whole number from 1 up, found {options.batch}")
        batch = int(options.batch)
    names = [card.name for card in cards]
    models = [
        model_entrant(
            card,
            # Folders of one name, such as two trainings of a model, are told apart by their place on the command line.
            name=card.name if names.count(card.name) == 1 else f"{card.name}-{names[: index + 1].count(card.name)}",
            # Steps are asked of those that sample; the others run in one pass whatever is asked.
            steps=None if card.steps_range is None and len(cards) > 1 else options.steps,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            batch_size=batch,
            detail=options.detail,
        )
        for index, card in enumerate(cards)
    ]
    return [input_entrant(), *map(baseline_entrant, options.baselines), *models]
