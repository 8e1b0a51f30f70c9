"""`lumen enhance --page`: the page of a run, its pictures before and after."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from lumen_cli.files.find import Trouble
    from lumen_cli.run import Result
    from lumen_cli.run.plan import Plan

METRICS = ("loe",)
"""What the page measures: cheap, and without a reference."""
_OURS = b'<meta name="generator" content="lumen '
_HEAD_BYTES = 4096


@dataclass
class RunPage:
    """Collects the results of a run, then compares them with their inputs. single: as one file."""

    single: bool = False
    target: Path | None = None
    results: list[Result] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    def prepare(self, plan: Plan) -> None:
        """Find the page's place before anything is made: beside the folder of outputs, or among them.

        Raises:
            UsageError: a file or folder that is not lumen's is in the way, nothing can be written there, or a picture
                lies in a store.
        """
        from lumen_cli.compare.drawing import require_free
        from lumen_cli.files.outputs import check_writable
        from lumen_cli.files.places import ObjectPath

        if not plan.roots:
            return
        places = (path for task in plan.tasks for path in (task.job.source.path, task.job.target))
        if any(isinstance(path, ObjectPath) for path in places):
            raise UsageError("--page shows files only, and pictures of this run lie in a store; compare copies of them")
        self.target = target = page_of(plan)
        if target.is_dir() or (target.exists() and not _is_ours(target)):
            raise UsageError(f"{target} exists and is not a page that lumen made: move it, or leave out --page")
        check_writable(target.parent)
        if not self.single:
            require_free(target)

    def write(self, console: Console) -> tuple[int, int]:
        """Measure and draw the pictures that were made or kept; the exit code of an interruption or 0, and how many.

        Raises:
            LumenError: the page cannot be written.
        """
        from lumen_cli.atomic import sweep_temporaries
        from lumen_cli.cli import interruptible
        from lumen_cli.compare import Matched, Problem, Row
        from lumen_cli.compare.comparison import Comparison, Wanted
        from lumen_cli.compare.page import BEFORE_AFTER
        from lumen_cli.compare.rows import Looks, chosen_metrics
        from lumen_cli.files import natural_key
        from lumen_cli.imaging.formats import is_clip_name
        from lumen_cli.reports import steps_line
        from lumen_cli.text import memory, short_path

        several = len({result.task.root for result in self.results}) > 1
        rows, problems = [], [Problem(str(trouble.path), trouble.reason) for trouble in self.troubles]
        for result in self.results:
            task = result.task
            name = f"{task.root.name}/{task.source_name}" if several else task.source_name
            if is_clip_name(task.job.target.name):
                continue  # the page shows pictures
            if result.status in ("done", "kept"):
                rows.append(Row(name, (task.job.source.path, task.job.target)))
            elif result.status in ("failed", "left"):
                problems.append(Problem(name, result.reason or result.status))
        rows.sort(key=lambda row: natural_key(Path(row.name)))
        if self.target is None or not rows:
            return 0, 0
        roots = {result.task.job.source.root for result in self.results}
        root = next(iter(roots)) if len(roots) == 1 else None
        labels = (root.name, self.target.stem) if root else BEFORE_AFTER
        matched = Matched(labels, 0, False, tuple(rows), tuple(problems))
        wanted = Wanted(chosen_metrics(METRICS, False)[0], self.target, None, Looks(), single=self.single)
        comparison = Comparison(matched, wanted)
        sweep_temporaries([self.target.parent], whole_folders=True)
        with interruptible([]) as interruption, steps_line(console, len(rows), interruption.stop, "drawing") as line:
            for _ in comparison.rows(interruption.stop):
                line[0]("drawing the page")
        if interruption.exit_code:
            return interruption.exit_code, 0
        size = "" if comparison.size is None else f" ({memory(comparison.size)})"
        console.print(f"page → {short_path(self.target)}{size}", soft_wrap=True, markup=False)
        return 0, len(comparison.measured)


def page_of(plan: Plan) -> Path:
    """The page of a plan: out/ → out.html, night-enhanced.jpg → night-enhanced.html, several folders: enhanced.html."""
    roots = sorted(plan.roots)
    if len(roots) > 1:
        return Path(os.path.commonpath(roots)) / "enhanced.html"
    (root,) = roots
    if len(plan.tasks) == 1:
        target = plan.tasks[0].job.target
        return target.with_name(f"{target.stem}.html")
    in_itself = plan.places[root].parent == root
    return root.with_name(f"{root.name}.html") if in_itself and root.name else root / "enhanced.html"


def _is_ours(page: Path) -> bool:
    try:
        with page.open("rb") as file:
            return _OURS in file.read(_HEAD_BYTES)
    except OSError:
        return False
