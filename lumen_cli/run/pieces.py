"""Very many pictures are planned in pieces, so that work begins after seconds, whatever their number.

All pictures are listed and get names first: names depend on each other. What takes time and memory, looking at files
and at earlier outputs, happens for one piece when the one before is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import UsageError
from lumen_cli.files.find import Found
from lumen_cli.files.places import StoreError
from lumen_cli.files.source import Source, stem_of
from lumen_cli.run import plan

if TYPE_CHECKING:
    from lumen_cli.run.existing import OwnOutputs
    from lumen_cli.run.plan import Plan
    from lumen_cli.run.run import Run


def plan_pieces(run: Run, sources: Sequence[Source], own: OwnOutputs) -> Iterator[tuple[Plan, tuple[Path, ...]]]:
    """Plans, and the lumen's outputs that they leave out; ask for the next one when the one before is made.

    Args:
        run: names and decides.
        sources: in order, with lumen's outputs.
        own: tells which are lumen's outputs.

    Raises:
        UsageError: as `Run.plan`.
    """
    try:
        jobs, parts = run.name(sources)
        if any(stem_of(job.name) != stem_of(job.source.relative_name) for job in jobs):
            # Where names are changed, perhaps because two met, lumen's outputs must not take part.
            found, ours = own.without(Found(tuple(sources)))
            yield run.decide(*run.name(found.sources)), ours
            return
        start, size = 0, plan.FIRST_PIECE
        while start < len(jobs):
            end = start + size
            while end < len(jobs) and stem_of(jobs[end].name) == stem_of(jobs[end - 1].name):
                end += 1  # their sidecars may meet
            piece = jobs[start:end]
            wanted = [not own.wrote(job.source) for job in piece]
            ours = tuple(job.source.path for job, taken in zip(piece, wanted, strict=True) if not taken)
            files = None if parts is None else list(compress(parts[start:end], wanted))
            yield run.decide(list(compress(piece, wanted)), files), ours
            start, size = end, plan.PIECE
    except StoreError as error:
        raise UsageError(str(error)) from error
