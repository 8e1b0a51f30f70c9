"""Decode threads → batches of equal padded shape → network → encode threads, with bounded queues between them.

Pictures reach the network in the plan's order, and batches are cut by that order alone, never by who was faster: the
same folder gives the same batches. What is held in memory depends on the budgets, not on the number of pictures.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from lumen_cli.engine.batch import NetworkError, Shape, shape_of
from lumen_cli.errors import LumenError
from lumen_cli.imaging.formats import MAXIMUM_PIXELS
from lumen_cli.limits import DEFAULT_TIMEOUT
from lumen_cli.networks.base import LowLightModel
from lumen_cli.run.budget import Budget, default_bytes
from lumen_cli.run.manifest import Manifest, put_in_order
from lumen_cli.run.operation import Enhancement, Work
from lumen_cli.run.plan import Plan, Settings, Task
from lumen_cli.run.stages import Broken, Decoded, Decoder, Encoder, Inbox, Result, Undecoded, failure

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.imaging.tags.writer import TagWriter

_POLL = 0.1
"""Seconds between looks at the stop signal while nothing arrives."""
_WAITING_BATCHES = 4
_WAITING_BYTES = 512 << 20
"""Decoded pictures that may wait for others of their shape. Fixed, so that batches are the same on every machine."""


class RunEndedError(LumenError):
    """The run cannot go on; what is finished is whole and recorded."""


def _broken(error: BaseException) -> RunEndedError:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return RunEndedError(f"fault of lumen, please report it: a worker has ended ({said}); what is finished is kept")


def enhance_stream(
    plan: Plan,
    network: LowLightModel,
    policy: DevicePolicy,
    settings: Settings,
    tags: TagWriter,
    *,
    jobs: int = 2,
    stop: threading.Event | None = None,
    budget: int | None = None,
) -> Generator[Result, None, None]:
    """Brighten every picture of `plan.todo` under `settings`; the rest as in `run_stream`."""
    return run_stream(plan, network, policy, Enhancement(settings), tags, jobs=jobs, stop=stop, budget=budget)


def run_stream(
    plan: Plan,
    network: LowLightModel | Callable[[], LowLightModel],
    policy: DevicePolicy,
    work: Work,
    tags: TagWriter,
    *,
    jobs: int = 2,
    stop: threading.Event | None = None,
    budget: int | None = None,
    preserve_times: bool = False,
    max_pixels: int = MAXIMUM_PIXELS,
    timeout: float | None = DEFAULT_TIMEOUT,
    working: Callable[[Task], None] = lambda task: None,
) -> Generator[Result, None, None]:
    """Make every picture of `plan.todo`; yields a result as each is complete on the disk or has failed.

    Closing the generator early ends the threads and leaves whole files only.

    Args:
        plan: from `make_plan`; its folders exist.
        network: on the policy's device, or what loads it while the first pictures are decoded.
        policy: from `choose_device`.
        work: what is done with each picture; the plan was made with its fingerprint.
        tags: an open TagWriter.
        jobs: threads that decode, and as many that encode.
        stop: once set, no picture is begun, those whose pixels are ready are written, and the iterator ends.
        budget: bytes that the decode queue and the encode queue may hold each; None goes by the machine's memory.
        preserve_times: whether outputs get their sources' times.
        max_pixels: larger pictures are refused from their headers; 0 for no limit.
        timeout: seconds that a picture may take to decode, where its format is decoded in a helper; None for no limit.
        working: called with each picture that the network is about to work on.

    Raises:
        RunEndedError: the disk takes no more, or a thread ended by a fault of lumen; after the results until then.
    """
    stop = stop or threading.Event()
    room = budget or default_bytes()
    written = {task.root for task in plan.todo} if plan.recorded else set()
    manifests = {root: Manifest(root, plan.places.get(root)) for root in written}
    for manifest in manifests.values():
        manifest.begin()
    inbox: Inbox = queue.SimpleQueue()
    encoder = Encoder(manifests, tags, work.quality, jobs, Budget(2 * jobs, room), inbox, preserve_times)
    decoder = Decoder(plan.todo, work, jobs, Budget(2 * jobs, room), inbox, max_pixels=max_pixels, timeout=timeout)
    try:
        if not isinstance(network, LowLightModel):
            network = network()
        yield from _Stream(network, policy, work, decoder, encoder, inbox, stop, working).results()
        if encoder.storage.trouble:
            raise RunEndedError(encoder.storage.trouble)
        if plan.recorded and not stop.is_set():
            put_in_order(plan.places)
    finally:
        decoder.end()
        decoder.join()
        encoder.join()


class _Stream:
    """The caller's thread: puts what arrives in order, runs the network on full groups, hands out results."""

    def __init__(
        self,
        network: LowLightModel,
        policy: DevicePolicy,
        work: Work,
        decoder: Decoder,
        encoder: Encoder,
        inbox: Inbox,
        stop: threading.Event,
        working: Callable[[Task], None],
    ) -> None:
        self.working = working
        self.network, self.policy, self.work = network, policy, work
        self.decoder, self.encoder, self.inbox, self.stop = decoder, encoder, inbox, stop
        self.waiting: dict[Shape, list[Decoded]] = {}

    def results(self) -> Iterator[Result]:
        early: dict[int, Decoded | Undecoded] = {}
        taken = 0
        while self.decoder.feeding or taken < self.decoder.begun or self.encoder.under_way:
            if self._ending:
                self.decoder.end()
                self.waiting.clear()
            message = self._next_message()
            if isinstance(message, Result):
                self.encoder.under_way -= 1
                yield message
            elif isinstance(message, Broken):
                raise _broken(message.error) from message.error
            elif message is not None:
                early[message.index] = message
            while taken in early:
                yield from self._take(early.pop(taken))
                taken += 1
            if not self.decoder.feeding and taken == self.decoder.begun:
                while self.waiting and not self._ending:
                    yield from self._run(next(iter(self.waiting)))

    @property
    def _ending(self) -> bool:
        return self.stop.is_set() or self.encoder.storage.trouble is not None

    def _next_message(self) -> Decoded | Undecoded | Result | Broken | None:
        try:
            return self.inbox.get(timeout=_POLL)
        except queue.Empty:
            return None

    def _take(self, arrived: Decoded | Undecoded) -> Iterator[Result]:
        """The next picture of the plan: into its group, and the groups that are due through the network."""
        self.decoder.release(arrived.held)
        if isinstance(arrived, Undecoded):
            if arrived.result is not None:
                yield arrived.result
            return
        shape = shape_of(arrived.scene.seen, self.network, self.policy)
        self.waiting.setdefault(shape, []).append(arrived)
        while not self._ending and (due := self._due(shape)) is not None:
            yield from self._run(due)

    def _due(self, latest: Shape) -> Shape | None:
        """The group to run now: the latest if it is full, the largest if too much is waiting, or none."""
        batch = self.policy.batch_for(latest.height, latest.width)
        if len(self.waiting.get(latest, ())) >= batch:
            return latest
        waiting = [decoded for group in self.waiting.values() for decoded in group]
        held = sum(decoded.scene.picture.nbytes for decoded in waiting)
        if len(waiting) > _WAITING_BATCHES * batch or held > _WAITING_BYTES:
            return max(self.waiting, key=lambda shape: len(self.waiting[shape]))
        return None

    def _run(self, shape: Shape) -> Iterator[Result]:
        group = self.waiting.pop(shape)
        for decoded in group:
            self.working(decoded.task)
        started = time.perf_counter()
        scenes = [decoded.scene for decoded in group]
        digests = [bytes.fromhex(decoded.record.content or "") for decoded in group]
        try:
            outcomes = self.work.run(self.network, scenes, self.policy, digests)
        except Exception as error:  # a fault in the network must not end a night's run
            yield from (failure(decoded.task, error) for decoded in group)
            return
        seconds = (time.perf_counter() - started) / len(group)
        for decoded, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, NetworkError):
                yield failure(decoded.task, outcome)
            else:
                self.encoder.submit(decoded, outcome, seconds)
