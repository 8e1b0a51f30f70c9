"""Tar files of a run, one after the other: members become files, a run of their own makes these, and a tar file takes
the results.

So a member gets the bytes that the same file would get alone. Finished members lie in a folder beside the outputs,
with a manifest, until the tar file is complete: an interrupted run continues there. That manifest stays. Where the tar
file changes later, or some of its pictures failed, the next run takes finished members from the earlier output.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lumen_cli.errors import LumenError
from lumen_cli.files import Job, Source, in_order
from lumen_cli.files.contents import Arrived, hash_bytes, local_file, user_folder
from lumen_cli.files.find import PICTURE_SUFFIXES
from lumen_cli.files.places import ObjectPath
from lumen_cli.files.tars import TarContents, pack, unpack
from lumen_cli.run import Caller, Result, RunEndedError, Task, Timings, failure
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import LARGEST_MANIFEST, MANIFEST_NAME, Manifest, Record
from lumen_cli.run.save import Publisher, StorageWatch, Transport, record_files, record_of, save_files
from lumen_cli.text import count, join_first

if TYPE_CHECKING:
    from lumen_cli.run.run import Run

FOLDER = ".lumen-tars"
"""In the folder of outputs: members of the current tar file, and the manifests of the members of finished ones."""
_UNPACKED = (*PICTURE_SUFFIXES, ".xmp")
"""Endings of the members that become files: pictures and their sidecars."""


@dataclass(frozen=True)
class TarMaker:
    """Makes the tar files of a run."""

    run: Run
    caller: Caller
    storage: StorageWatch = field(default_factory=StorageWatch)

    def results(self, transport: Transport, manifests: Mapping[Path, Manifest]) -> Generator[Result, None, None]:
        """For each tar file the results of its pictures, then its own, until the run ends or there is no room.

        manifests: by the folder of outputs; those that record.
        """
        with closing(transport.arrivals()) as arrivals:
            for task, arrived in arrivals:
                if self.caller.stop.is_set():
                    return
                try:
                    publisher = transport.publisher(task, arrived, self.run.tags.rules.metadata == "keep")
                    yield from self._make(task, manifests.get(task.root), arrived, publisher)
                except RunEndedError:
                    raise
                except (LumenError, OSError, tarfile.TarError) as error:
                    self.storage.failed(error, task.job.folder)
                    yield failure(task, error)
                if self.caller.stop.is_set() or self.storage.trouble:
                    return

    def _make(
        self, task: Task, manifest: Manifest | None, arrived: Arrived, publisher: Publisher
    ) -> Generator[Result, None, None]:
        if arrived.error is not None:
            raise arrived.error
        self.caller.now(f"unpacking {task.job.source.name}")
        started = time.perf_counter()
        original = arrived.original()
        work = _Work(task, manifest)
        if self.run.options.if_exists is IfExists.OVERWRITE:
            work.remove()
        contents = unpack(arrived.path, work.members, _UNPACKED)
        work.take_over()
        read = time.perf_counter() - started
        replaced: dict[int, tuple[str, Path] | None] = dict.fromkeys(contents.refused)
        failed = [contents.members[number].name for number in contents.refused]
        for name, reason in zip(failed, contents.refused.values(), strict=True):
            yield Result(_shown(task, name), "failed", reason, member=True)
        pictures = {
            place.as_posix(): number
            for number, place in contents.unpacked.items()
            if place.suffix.lower() in PICTURE_SUFFIXES
        }
        made = 0
        for result in self._pictures(work, contents, pictures.values()):
            name = result.task.source_name
            if result.status in ("done", "kept"):
                replaced[pictures[name]] = result.task.output, result.task.job.target
            elif result.status != "skipped":  # a picture that is bright enough stays as it is
                replaced[pictures[name]] = None
                failed.append(name)
            made += 1
            self.caller.share(made / len(pictures))
            yield replace(result, task=_shown(task, name, result.task), sidecars=(), member=True)
        if made < len(pictures):
            return
        for number, place in contents.unpacked.items():
            if place.as_posix() not in pictures and (work.results / place).is_file():  # a sidecar of a result
                replaced[number] = place.as_posix(), work.results / place
        for number, result_file in replaced.items():
            if result_file is not None and contents.members[number].name.startswith("./"):
                replaced[number] = f"./{result_file[0]}", result_file[1]
        self.caller.now(f"writing {task.job.name}")
        begun = time.perf_counter()
        record = record_of(task, original, original.content, self.run.operation.settings.fingerprint())
        saved = save_files(
            [(task.job.target, partial(pack, arrived.path, contents, replaced))],
            arrived.path,
            self.run.tags,
            times=arrived.times() if self.run.options.preserve_times else None,
            recording=partial(record_files, task, record, original, manifest),
            publisher=publisher,
        )
        self.storage.written()
        if manifest is not None:
            if failed:
                what = f"{len(failed)} of {count(len(pictures) + len(contents.refused), 'picture')} failed"
                manifest.add(Record(task.output, task.source_name, failure=f"{what}: {join_first(failed)}"))
            work.keep_manifest()
        work.remove()
        others = len(contents.members) - len(pictures) - len(contents.refused)
        yield Result(
            task,
            "failed" if contents.damage else "done",
            f"{contents.damage}; its output has what comes before" if contents.damage else None,
            size=saved.size,
            timings=Timings(read=read, write=time.perf_counter() - begun),
            notices=(f"{count(len(pictures), 'picture')} and {count(others, 'other member')}",),
        )

    def _pictures(self, work: _Work, contents: TarContents, numbers: Iterable[int]) -> Iterator[Result]:
        """A run over the members that are pictures."""
        from lumen_cli.run.run import Run

        sources = in_order(work.source(contents.unpacked[number]) for number in numbers)
        if not sources:
            return
        run = self.run
        options = replace(
            run.options,
            output=f"{work.results}{os.sep}",
            name_template=None,
            if_exists=IfExists.RESUME,
            shard=None,
            only_failed=False,
        )
        plan = Run(run.card, run.policy, run.operation, options, tags=run.tags).plan(sources)
        network = run.network(self.caller.now) if plan.todo else None
        inner = Run(run.card, run.policy, run.operation, options, network=network, tags=run.tags)
        inner.locks = run.locks
        yield from inner.results(plan, self.caller.stop, now=self.caller.now)


class _Work:
    """The local folders of a tar file under way."""

    def __init__(self, task: Task, manifest: Manifest | None) -> None:
        """LumenError: a link stands for the folder in which they lie. manifest: that records the tar file."""
        self._task = task
        if isinstance(task.root, ObjectPath):
            self._top = user_folder("cache") / "tars"
            self._folder = self._top / hash_bytes(os.fsencode(task.job.target))
        else:
            self._top = task.root / FOLDER
            self._folder = self._top / task.output
            if self._top.is_symlink():
                raise LumenError(f"{self._top}: a link, which lumen does not follow; remove it")
        self.members, self.results = self._folder / "in", self._folder / "out"
        self._kept: Path | None = None
        """The manifest of the members, beside that of the tar files."""
        if manifest is not None:
            place, beside = manifest.path, manifest.path.is_relative_to(task.root)
            folder = task.root / FOLDER if beside else place.with_name(f"{place.stem}-tars")
            self._kept = folder / f"{task.output}.jsonl"

    def source(self, place: PurePosixPath) -> Source:
        """A member that is a file now."""
        return Source(self.members / place, self.members, Path(place))

    def take_over(self) -> None:
        """The results: of a run that was ended, else those in the output, where a manifest of its members was kept."""
        if self.results.is_dir():
            return
        self.results.mkdir(parents=True)
        try:
            lines = self._read_kept()
            with local_file(self._task.job.target) as earlier:
                unpack(earlier, self.results, _UNPACKED)
        except (OSError, LumenError):
            return  # there is none, or it is damaged: everything is made
        (self.results / MANIFEST_NAME).write_bytes(lines)
        manifest = Manifest(self.results)
        for path in [path for path in self.results.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]:
            if not manifest.history(path.relative_to(self.results).as_posix()):
                path.unlink()  # copied as it was

    def _read_kept(self) -> bytes:
        if self._kept is None:
            raise FileNotFoundError
        if isinstance(self._kept, ObjectPath):
            return self._kept.store.read(self._kept, LARGEST_MANIFEST)[0]
        return self._kept.read_bytes()

    def keep_manifest(self) -> None:
        """Keep the record of the results."""
        lines = self.results / MANIFEST_NAME
        if self._kept is None or not lines.is_file():
            return
        with suppress(OSError, LumenError):  # it only saves work
            if isinstance(self._kept, ObjectPath):
                self._kept.store.write(self._kept, lines.read_bytes())
            else:
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(lines, self._kept)

    def remove(self) -> None:
        """Remove them, and the folders above that are empty then."""
        shutil.rmtree(self._folder, ignore_errors=True)
        folder = self._folder.parent
        with suppress(OSError):
            while folder.is_relative_to(self._top):
                folder.rmdir()
                folder = folder.parent


def _shown(task: Task, name: str, inner: Task | None = None) -> Task:
    """The task of a member as messages show it: below the tar file, as if that were a folder. name: of the member."""
    source = Source(task.job.source.path / name.lstrip("/"), None, Path(name))
    output = inner.output if inner is not None else name.lstrip("/")
    why = inner.why if inner is not None else "new"
    return Task(Job(source, task.job.target / output), task.root, f"{task.output}/{output}", why)
