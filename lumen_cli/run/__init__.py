"""One picture of a run: the files it becomes, what is decided about it, its result; and the caller of a run."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.errors import LumenError, PictureError, explain
from lumen_cli.files import Job, is_tar_name

if TYPE_CHECKING:
    from lumen_cli.engine.batch import Fidelity

_log = logging.getLogger("lumen")


class RunEndedError(LumenError):
    """The run cannot continue; what is finished is complete and recorded."""


class Action(enum.Enum):
    """What is done with one picture."""

    MAKE = "make"
    KEEP = "keep"
    LEAVE = "leave"
    """An output exists that lumen did not write. It is left untouched and reported."""


@dataclass(frozen=True)
class Part:
    """One of the several files that a picture becomes. name: what it holds, "reflectance" for example."""

    name: str
    path: Path


@dataclass(frozen=True)
class Sidecar:
    """A file of tags beside an input, and where its copy goes.

    ours: lumen may replace whatever is there now; written: hashes of what lumen wrote there, which it may replace too.
    """

    source: Path
    target: Path
    ours: bool = False
    written: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Task:
    """One picture of a run. root: the folder whose manifest records it; output: its name below that, with "/".

    why: the reason for `action` in a few words, or, for LEAVE, a sentence; parts: the files of a picture that becomes
    several, the first of them `job.target`, else empty; sidecars: what follows it; remedy: as in `LumenError`.
    """

    job: Job
    root: Path
    output: str
    why: str = "new"
    parts: tuple[Part, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
    action: Action = Action.MAKE
    remedy: str = ""

    @property
    def targets(self) -> tuple[Path, ...]:
        """Every file the picture becomes."""
        return tuple(part.path for part in self.parts) or (self.job.target,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of `targets` below `root`, with "/"."""
        if not self.parts:
            return (self.output,)
        return tuple(target.relative_to(self.root).as_posix() for target in self.targets)

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar file of pictures."""
        return is_tar_name(self.job.source.name)

    @property
    def source_name(self) -> str:
        """The source relative to where it was found, with "/"."""
        return self.job.source.relative.as_posix()


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one picture; a batch's run time is divided evenly."""

    read: float = 0.0
    run: float = 0.0
    write: float = 0.0
    tags: float = 0.0


@dataclass(frozen=True)
class Clip:
    """What is special about a clip or an animation. fps: its mean rate, None where that is not known.

    speed: frames per second that were made.
    """

    frames: int
    key_frames: int
    fps: float | None
    speed: float


@dataclass(frozen=True)
class Result:
    """The result of one picture.

    status: "done", "failed", "kept", "left" or "skipped"; reason: why it failed, was left or skipped, in one line;
    remedy: as in `LumenError`; size: bytes of its files; warnings: what could not be kept; fidelity: the error of its
    reconstruction, where there is one; sidecars: copies made; notices: how it was read and computed, where that is
    worth a line; seen: width and height of what the network saw of it; precision: what it was computed in; clip: where
    it moves; member: whether it is a picture in a tar file, whose own result follows.
    """

    task: Task
    status: str
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    size: int | None = None
    timings: Timings = Timings()
    warnings: tuple[str, ...] = ()
    fidelity: Fidelity | None = None
    sidecars: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()
    seen: tuple[int, int] | None = None
    remedy: str = ""
    precision: str | None = None
    clip: Clip | None = None
    member: bool = False


@dataclass(frozen=True)
class Caller:
    """Who asked for a run: how it stops the run, and how it hears of it.

    stop: once set, no picture is begun, those whose pixels are ready are written, and the results end; now: called with
    what is going on; warn: called with what a user should know, one line; share: called with the part of the clip or
    tar file under way that is done, 0 to 1.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    now: Callable[[str], None] = lambda line: None
    warn: Callable[[str], None] = lambda line: None
    share: Callable[[float], None] = lambda part: None


def failure(task: Task, error: Exception, timings: Timings | None = None) -> Result:
    """The result of a picture that failed; the batch goes on whatever the error was."""
    if isinstance(error, FileNotFoundError):
        reason = "is no longer there"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    elif isinstance(error, LumenError) and not isinstance(error, PictureError):
        reason = error.message
    else:
        reason = explain(error)
        _log.debug("while working on %s", task.job.source.path, exc_info=error)
    remedy = error.remedy if isinstance(error, LumenError) else ""
    return Result(task, "failed", " ".join(reason.split()), timings=timings or Timings(), remedy=remedy)
