"""One run: pictures through a model, from their names to complete files and true manifests."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lumen_cli.atomic import hold_locks, remove_stale_lock, sweep_temporaries
from lumen_cli.engine.memory import LARGEST_BATCH, BatchSizes
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.files.outputs import NameTemplate, check_writable, stays_animated
from lumen_cli.files.places import ObjectPath, StoreError
from lumen_cli.imaging.formats import DEFAULT_TIMEOUT, MAXIMUM_PIXELS, is_clip_name
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.run import Caller, Part, Result, RunEndedError, Task, failure
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import put_in_order
from lumen_cli.run.operation import Enhance, Operation, Output
from lumen_cli.run.plan import Plan, make_plan
from lumen_cli.run.save import Transport, failure_of, transport_of
from lumen_cli.run.sidecars import with_sidecars
from lumen_cli.text import duration

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.files import Job, Source
    from lumen_cli.imaging.picture import Picture
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run.manifest import Record
    from lumen_cli.run.moving import MovingMaker
    from lumen_cli.run.shards import Shard
    from lumen_cli.run.tars import TarMaker

_MOST_JOBS = 16
_log = logging.getLogger("lumen")


@dataclass(frozen=True)
class RunOptions:
    """How a run reads and writes, whatever its operation.

    output: folder or file as in `plan_outputs`; name_template: pattern of output names; if_exists: what happens to
    outputs that exist; among_photographs: whether outputs may lie in a photographer's folders: then a picture named
    alone is recorded in the user's state folder, and sidecar files follow their pictures; jobs: threads that decode,
    and as many that encode (None: the cores, at most 16); preserve_times: whether outputs get their sources' times;
    max_pixels: larger pictures are refused from their headers, 0 for no limit; timeout: seconds that a picture may take
    to decode in a helper, None for no limit; darker_than: pictures with this mean linear light or more are skipped,
    None for none; shard: the part of the pictures that this run makes (None: all); only_failed: whether only pictures
    are made whose last attempt failed; budget: bytes that the decode queue and the encode queue may hold each
    (None: by the machine's memory).
    """

    output: str | None = None
    name_template: NameTemplate | None = None
    if_exists: IfExists = IfExists.REFUSE
    among_photographs: bool = False
    jobs: int | None = None
    preserve_times: bool = False
    max_pixels: int = MAXIMUM_PIXELS
    timeout: float | None = DEFAULT_TIMEOUT
    darker_than: float | None = None
    shard: Shard | None = None
    only_failed: bool = False
    budget: int | None = None


class Run:
    """A model, an operation and options: plans what there is to do, and does it.

    Use it as a context manager where files are written: its end closes exiftool and frees the model.

    Args:
        card: the model; None where `network` is given.
        policy: from `choose_device`, for this model.
        operation: what is done with each picture.
        options: how the run reads and writes.
        network: the model where it is loaded already, on the policy's device; None loads it when pictures need it.
        tags: what copies tags; None makes one with the operation's rules.
    """

    def __init__(
        self,
        card: ModelCard | None,
        policy: DevicePolicy,
        operation: Operation,
        options: RunOptions | None = None,
        *,
        network: LowLightModel | None = None,
        tags: TagWriter | None = None,
    ) -> None:
        self.card, self.policy, self.operation, self.options = card, policy, operation, options or RunOptions()
        self.loading = 0.0
        """Seconds that loading the model took."""
        self.locks: list[Path] = []
        """The lock files that this run holds now."""
        self._network, self._tags = network, tags

    @property
    def tags(self) -> TagWriter:
        """What copies tags.

        Raises:
            UsageError: private tags are asked for and there is no exiftool.
        """
        if self._tags is None:
            self._tags = TagWriter(rules=self.operation.settings.tags)
        return self._tags

    def __enter__(self) -> Run:
        """Raises the UsageError of `tags`, before any work."""
        self._tags = self.tags
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tags is not None:
            self._tags.close()
        self._network = None  # two models one after the other need the memory of one

    def plan(self, sources: Sequence[Source], looked: Callable[[], None] = lambda: None) -> Plan:
        """Name the outputs and decide about each picture. looked: called after each.

        Raises:
            UsageError: two pictures would get one name, an input would be overwritten, outputs exist that the options
                refuse, or a store does not say what exists.
        """
        try:
            return self.decide(*self.name(sources), looked)
        except StoreError as error:
            raise UsageError(str(error)) from error

    def name(self, sources: Sequence[Source]) -> tuple[list[Job], list[tuple[Part, ...]] | None]:
        """The jobs of this part of the pictures; names depend on each other, so all pictures get them first."""
        options = self.options
        jobs, parts = self.operation.name(sources, options.output, options.name_template)
        if options.shard is not None:
            mine = [options.shard.holds(job.source.relative) for job in jobs]
            jobs = list(compress(jobs, mine))
            parts = None if parts is None else list(compress(parts, mine))
        return jobs, parts

    def decide(
        self,
        jobs: Sequence[Job],
        parts: Sequence[tuple[Part, ...]] | None,
        looked: Callable[[], None] = lambda: None,
    ) -> Plan:
        """The plan for jobs from `name`, or for some of them."""
        options = self.options
        plan = make_plan(
            jobs,
            self.operation.settings.fingerprint(),
            options.if_exists,
            parts,
            looked,
            in_state=options.among_photographs,
            stamp=self.operation.settings.tags.stamp,
            shard=options.shard,
        )
        plan = plan.failed_before() if options.only_failed else plan
        return self._with_sidecars(plan)

    def _with_sidecars(self, plan: Plan) -> Plan:
        return with_sidecars(plan) if self.options.among_photographs else plan

    def compute(self, pictures: Sequence[Picture]) -> list[Output]:
        """Work on pictures in memory; those of one padded shape share batches.

        Raises:
            NetworkError: the network gave no usable result for one of them.
        """
        from lumen_cli.engine.parts import NetworkError, Shape, shape_of

        network, operation, policy = self.network(), self.operation, self.policy
        scenes, sizes = [operation.scene(picture) for picture in pictures], BatchSizes(network, policy)
        groups: dict[Shape, list[int]] = {}
        for index, scene in enumerate(scenes):
            groups.setdefault(shape_of(scene.seen, network, policy), []).append(index)
        made: dict[int, Output] = {}
        for shape, group in groups.items():
            size = sizes.at(shape)
            for part in (group[start : start + size] for start in range(0, len(group), size)):
                digests = [pictures[index].digest() for index in part]
                outcomes = operation.run(network, [scenes[index] for index in part], policy, digests)
                for index, outcome in zip(part, outcomes, strict=True):
                    if isinstance(outcome, NetworkError):
                        raise outcome
                    made[index] = outcome
        return [made[index] for index in range(len(pictures))]

    def results(
        self,
        plan: Plan,
        stop: threading.Event | None = None,
        *,
        now: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
        share: Callable[[float], None] = lambda part: None,
    ) -> Generator[Result, None, None]:
        """Carry a plan out: first a result for each picture that is left or kept, then one for each that is made.

        Where another run writes into the same folders, this one waits and then decides again. Closing the generator
        early ends the threads and leaves complete files only.

        plan: from `plan`; the other arguments: see `Caller`.

        Raises:
            UsageError: an output folder cannot be made or written to.
            RunEndedError: the disk is full, or a thread ended by a fault of lumen; after the results until then.
        """
        caller = Caller(stop or threading.Event(), now, warn, share)
        if plan.writes:
            for folder in plan.folders:
                check_writable(folder)
            for root in plan.roots if plan.todo else ():
                if isinstance(root, ObjectPath):
                    plan.manifests[root].begin()
            plan = plan.recordable(warn)
        else:
            for place in plan.places.values():
                remove_stale_lock(place)
        places = [place for place in plan.places.values() if not isinstance(place, ObjectPath)]
        places = places if plan.writes and plan.recorded else []

        def waiting(place: Path) -> None:
            warn(f"waiting for another run of lumen that writes {place}")

        with hold_locks(places, waiting, self.locks, caller.stop):
            if caller.stop.is_set():
                return
            if places and plan.outdated:
                plan = self._with_sidecars(plan.again())
            sweep_temporaries(plan.folders)
            plan.confirm()
            yield from (Result(task, "left", task.why, remedy=task.remedy) for task in plan.left)
            yield from (Result(task, "kept") for task in plan.kept)
            missing = len(plan.todo)
            failed: list[Result] = []
            try:
                for result in self.make(plan, caller) if plan.todo else ():
                    missing -= not result.member
                    failed += [result] if result.status == "failed" and not result.member else []
                    yield result
            finally:
                _record_failures(plan, failed)
            if plan.recorded and not missing:
                put_in_order(plan.manifests[root] for root in plan.roots)

    def make(self, plan: Plan, caller: Caller) -> Iterator[Result]:
        """The plan's pictures, its clips and animations, its tar files; `results` does what comes before and after."""
        tars = [task for task in plan.todo if task.is_tar and isinstance(self.operation, Enhance)]
        clips = [task for task in plan.todo if self._moves(task)]
        others = {task.job.source.path for task in (*clips, *tars)}
        pictures = plan.only(lambda source: source.path not in others) if others else plan
        if pictures.todo:
            with transport_of(pictures.todo) as transport:
                yield from self._stream(transport, pictures, caller)
        if clips and not caller.stop.is_set():
            yield from self._make_clips(plan, clips, caller)
        if tars and not caller.stop.is_set():
            from lumen_cli.run.tars import TarMaker

            yield from self._make_one_by_one(TarMaker(self, caller), plan, tars)

    def _make_clips(self, plan: Plan, clips: Sequence[Task], caller: Caller) -> Iterator[Result]:
        try:
            if any(is_clip_name(task.job.source.path.name) for task in clips):
                self.operation.check_clips()
        except UsageError as error:
            refused = [task for task in clips if is_clip_name(task.job.source.path.name)]
            clips = [task for task in clips if task not in refused]
            yield from (failure(task, error) for task in refused)
        if not clips:
            return
        from lumen_cli.run.moving import MovingMaker  # runs with pictures only do without it

        assert isinstance(self.operation, Enhance)
        yield from self._make_one_by_one(MovingMaker(self, self.operation, caller), plan, clips)

    @staticmethod
    def _make_one_by_one(maker: MovingMaker | TarMaker, plan: Plan, tasks: Sequence[Task]) -> Iterator[Result]:
        manifests = {root: plan.manifests[root].reread() for root in {task.root for task in tasks}}
        for manifest in manifests.values() if plan.recorded else ():
            manifest.begin()
        with transport_of(tasks) as transport:
            yield from maker.results(transport, manifests if plan.recorded else {})
        if maker.storage.trouble:
            raise RunEndedError(maker.storage.trouble)

    def _moves(self, task: Task) -> bool:
        """Whether it is a clip, or an animation that stays one."""
        source, target = task.job.source.path, task.job.target
        if is_clip_name(source.name):
            return True
        return (
            isinstance(self.operation, Enhance)
            and self.operation.settings.detail != "whole"
            and stays_animated(source, target)
        )

    def _stream(self, transport: Transport, plan: Plan, caller: Caller) -> Iterator[Result]:
        from lumen_cli.run.stages import Budget, Decoder, Encoder, Inbox, default_bytes  # planning does without PyTorch
        from lumen_cli.run.stream import Stream

        options = self.options
        jobs = options.jobs or min(_MOST_JOBS, os.cpu_count() or 1)
        room = options.budget or default_bytes()
        roots = {task.root for task in plan.todo} if plan.recorded else set()
        manifests = {root: plan.manifests[root].reread() for root in roots}
        for manifest in manifests.values():
            manifest.begin()
        inbox: Inbox = queue.SimpleQueue()
        waiting = max(jobs, transport.senders, 1 if self.policy.single else LARGEST_BATCH)
        quality, encoding = self.operation.settings.quality, Budget(2 * waiting, room)
        encoder = Encoder(manifests, self.tags, quality, options, transport, jobs, encoding, inbox)
        decoder = Decoder(plan.todo, self.operation, options, transport, jobs, Budget(2 * jobs, room), inbox)
        try:
            caller.now(f"reading {plan.todo[0].job.source.path.name}")
            network = self.network(caller.now)
            decoder.ahead = lambda scene, digest: self.operation.prepare(scene, network, self.policy, digest)
            yield from Stream(network, self.policy, self.operation, decoder, encoder, inbox, caller).results()
            if encoder.storage.trouble:
                raise RunEndedError(encoder.storage.trouble)
        finally:
            decoder.end()
            decoder.join()
            encoder.join()

    def network(self, now: Callable[[str], None] = lambda line: None) -> LowLightModel:
        """The model on the policy's device, loaded once. now: called before loading it."""
        if self._network is None:
            assert self.card is not None
            started = time.perf_counter()
            now(f"loading {self.card.name}")
            self._network = self._place(self.operation.settings.load(self.card))
            self.loading = time.perf_counter() - started
            _log.info("model %s from %s loaded in %s", self.card.name, self.card.folder, duration(self.loading))
        return self._network

    def _place(self, network: LowLightModel) -> LowLightModel:
        return self.policy.prepare(network)


def _record_failures(plan: Plan, failed: Sequence[Result]) -> None:
    """Name failures in the manifests, all at once: a request each would slow down a run into a store."""
    by_root: dict[Path, list[Record]] = {}
    for result in failed if plan.recorded else ():
        by_root.setdefault(result.task.root, []).append(failure_of(result))
    for root, records in by_root.items():
        with suppress(LumenError):  # the results tell of the failures in any case
            plan.manifests[root].add(*records)
