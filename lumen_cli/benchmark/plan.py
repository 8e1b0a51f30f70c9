"""What a quality benchmark measures and where it writes, and its report: figures, published ones, settings, notes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lumen_cli import __version__
from lumen_cli.atomic import atomic_file
from lumen_cli.benchmark.entrants import Entrant, baseline_entrant, input_entrant, model_entrant
from lumen_cli.benchmark.quality import CONFIDENCE, RESAMPLES, Row, Save, Score
from lumen_cli.benchmark.samples import Samples
from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import check_writable
from lumen_cli.imaging.picture import Picture, write_picture
from lumen_cli.metrics import DEFAULT_METRICS, Metric, all_metrics, find_metrics
from lumen_cli.registry import GRADINGS, GradingName, bundled_models, find_model, list_models
from lumen_cli.registry.architectures import ARCHITECTURES, Figure
from lumen_cli.registry.card import ModelCard

LOL = "LOL-v1"
LOL_LEAK = (
    "rows named -lol: graded by a network that is fitted to all of LOL's training pairs (val20 too); 14 of the 15 test "
    "pictures have a near-duplicate there. Published figures come from networks trained on these pairs too"
)


def gradings_for(card: ModelCard, samples: Samples, chosen: GradingName | None) -> tuple[GradingName, ...]:
    """The gradings of a model's rows: the chosen one; by default both for lumen's own models on LOL-v1, as the lol
    grading is fitted to their results, else the photographs' one.
    """
    own = card.folder.parent == bundled_models()
    return (chosen,) if chosen else GRADINGS if own and samples.dataset == LOL else ("photo",)


def grading_notes(samples: Samples, rows: Sequence[Row]) -> tuple[str, ...]:
    """What readers of a table of LOL-v1 have to know about its rows."""
    known = any(row.entrant.settings.get("grading") == "lol" for row in rows)
    return (LOL_LEAK,) if known and samples.dataset == LOL else ()


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
    models: Sequence[str],
    baselines: Sequence[str],
    *,
    steps: int | None,
    gradings: Callable[[ModelCard], Sequence[GradingName]] = lambda card: ("photo",),
    **options: Any,
) -> list[Entrant]:
    """The rows of the table: the input, the baselines, the models (none named: all whose weights are here).

    Args:
        models: names or folders; "all" stands for every installed model.
        baselines: names of baselines.
        steps: for models that sample; with several models the others ignore it.
        gradings: of a model: a row for each, whose name says which, unless it is "photo".
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
    rows = []
    for index, card in enumerate(cards):
        # Folders of the same name, such as two trainings of a model, are numbered in the given order.
        name = card.name if names.count(card.name) == 1 else f"{card.name}-{names[: index + 1].count(card.name)}"
        chosen = None if card.steps_range is None and len(cards) > 1 else steps
        for grading in gradings(card):
            row = name if grading == "photo" else f"{name}-{grading}"
            rows.append(model_entrant(card, name=row, steps=chosen, grading=grading, **options))
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


@dataclass(frozen=True)
class QualityReport:
    """The result of a quality benchmark.

    metrics: of the columns; those in `unavailable` have empty cells; machine: versions and threads by name; notes:
    lines that a reader needs.
    """

    samples: Samples
    metrics: tuple[Metric, ...]
    unavailable: dict[str, str]
    rows: tuple[Row, ...]
    machine: dict[str, str]
    notes: tuple[str, ...] = ()

    def best(self, metric: Metric) -> set[str]:
        """The rows with the best mean of a column, among those with figures for the most pictures.

        The input takes no part: compared with itself it is perfect (LOE).
        """
        if not metric.better or metric.name in self.unavailable:
            return set()
        means = {row.entrant.name: row.means[metric.name] for row in self.rows if row.entrant.kind != "input"}
        most = max((mean.count for mean in means.values()), default=0)
        values = {name: mean.value for name, mean in means.items() if mean.count == most and not math.isnan(mean.value)}
        if len(values) < 2:
            return set()
        leading = max(values.values()) if metric.better == "higher" else min(values.values())
        return {name for name, value in values.items() if value == leading}

    def published(self, row: Row, metric: Metric) -> Figure | None:
        """The figure that the paper of a row's model states for this data set."""
        return published_figure(row, self.samples, metric)

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of the published figures in the table, each once, in the order of their numbers."""
        found = (self.published(row, metric) for row in self.rows for metric in self.metrics)
        return tuple(dict.fromkeys(each.source for each in found if each is not None))

    @property
    def failures(self) -> tuple[tuple[str, Score], ...]:
        """Pictures without figures, each with the name of its row.

        A failure of a picture in every row is listed once, without a row; so is a failure of all pictures of a row.
        """
        found: list[tuple[str, Score]] = []
        for row in self.rows:
            reasons = {score.reason for score in row.scores}
            if len(reasons) == 1 and len(row.scores) > 1 and row.scores[0].reason is not None:
                found.append((row.entrant.name, dataclasses.replace(row.scores[0], name="all pictures")))
                continue
            for score in row.scores:
                if score.reason is None:
                    continue
                everywhere = all(_reason(other, score.name) == score.reason for other in self.rows)
                entry = ("" if everywhere and len(self.rows) > 1 else row.entrant.name, score)
                if not any((name, other.name) == (entry[0], score.name) for name, other in found):
                    found.append(entry)
        return tuple(found)


def published_figure(row: Row, samples: Samples, metric: Metric) -> Figure | None:
    """The figure that the paper of a row's model states for the test split of this data set."""
    architecture = ARCHITECTURES.get(row.entrant.architecture)
    return architecture.figure(samples.dataset, metric.name) if architecture else None


def standard_notes(samples: Samples, metrics: Sequence[Metric], rows: Sequence[Row]) -> tuple[str, ...]:
    """Notes that a reader of the table needs."""
    notes = [f"in brackets: {CONFIDENCE:.0%} bootstrap interval of the mean ({RESAMPLES:,} resamples, seeded)"]
    if samples.synthetic:
        notes.append(
            "synthetic: these dark pictures were computed from bright ones; name a data set to measure real ones"
        )
    if any(metric.name.endswith("_gt_mean") for metric in metrics):
        notes.append("GT-mean: the result is first scaled to the reference's mean; not comparable with other columns")
    figures = [row for row in rows if any(published_figure(row, samples, metric) for metric in metrics)]
    if figures and samples.split.lower() not in ("test", "eval15"):
        notes.append(f"published figures are for the test split of {samples.dataset}, not for these pictures")
    if figures:
        notes.append("published figures are the authors' weights at full width; measured are the models named here")
    known = (ARCHITECTURES.get(row.entrant.architecture) for row in rows)
    notes += (each.figures_note for each in known if each is not None and each.figures_note)
    return tuple(dict.fromkeys(notes))


def make_report(
    samples: Samples, metrics: Sequence[Metric], rows: Sequence[Row], notes: Sequence[str] = ()
) -> QualityReport:
    """The report of finished rows, with the standard notes before `notes` and the versions of lumen and torch."""
    reasons = {metric.name: reason for metric in metrics if (reason := metric.unavailable()) is not None}
    computed = [metric for metric in metrics if metric.name not in reasons]
    machine = {"lumen": __version__, "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    notes = (*standard_notes(samples, computed, rows), *notes)
    return QualityReport(samples, tuple(metrics), reasons, tuple(rows), machine, notes)


def _reason(row: Row, name: str) -> str | None:
    return next((score.reason for score in row.scores if score.name == name), None)
