"""Decode threads → batches of equal padded shape → network → encode threads, with bounded queues between them.

Pictures reach the network in the plan's order, and that order alone forms the batches, never the speed of a thread:
the same folder gives the same batches. Memory depends on the budgets, not on the number of pictures.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lumen_cli.engine.batch import NetworkError, Shape, shape_of
from lumen_cli.networks.base import LowLightModel
from lumen_cli.run.operation import Operation
from lumen_cli.run.stages import Broken, Decoded, Decoder, Encoder, Inbox, Undecoded
from lumen_cli.run.task import Result, RunEndedError, failure

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy

_POLL = 0.1
"""Seconds between looks at the stop signal while nothing arrives."""
_WAITING_BATCHES = 4
_WAITING_BYTES = 512 << 20
"""Decoded pictures that may wait for others of their shape. Fixed, so that batches are the same on every machine."""


def _broken(error: BaseException) -> RunEndedError:
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return RunEndedError(f"fault of lumen, please report it: a worker has ended ({cause}); what is finished is kept")


def _lost(device: str, error: BaseException) -> RunEndedError:
    cause = next(iter(str(error).splitlines()), type(error).__name__)
    return RunEndedError(
        f"{device} no longer computes ({cause}); what is finished is kept: run the command again to go on"
    )


class Stream:
    """The caller's thread: puts what arrives in order, runs the network on full groups, yields results.

    Args:
        network: on the policy's device.
        policy: from `choose_device`.
        operation: what is done with each group.
        decoder: puts pictures into the inbox.
        encoder: takes the network's results.
        inbox: of both.
        stop: once set, no picture is begun, those whose pixels are ready are written, and the results end.
        now: called with a line about what is going on.
    """

    def __init__(
        self,
        network: LowLightModel,
        policy: DevicePolicy,
        operation: Operation,
        decoder: Decoder,
        encoder: Encoder,
        inbox: Inbox,
        stop: threading.Event,
        now: Callable[[str], None],
    ) -> None:
        self.network, self.policy, self.operation, self.now = network, policy, operation, now
        self.decoder, self.encoder, self.inbox, self.stop = decoder, encoder, inbox, stop
        self.waiting: dict[Shape, list[Decoded]] = {}

    def results(self) -> Iterator[Result]:
        """A result for each picture, as soon as it is complete on the disk or has failed.

        Raises:
            RunEndedError: a thread ended by a fault of lumen, or the device no longer works.
        """
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
        """Put the plan's next picture into its group, and full groups through the network."""
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
            self.now(f"{self.operation.doing} {decoded.task.job.source.path.name}")
        started = time.perf_counter()
        scenes = [decoded.scene for decoded in group]
        digests = [bytes.fromhex(decoded.record.content or "") for decoded in group]
        try:
            outcomes = self.operation.run(self.network, scenes, self.policy, digests)
        except Exception as error:  # a fault in the network must not end a run of many hours
            lost = not self.policy.works()
            for decoded in group:
                decoded.arrived.discard()
                if not lost:
                    yield failure(decoded.task, error)
            if lost:
                raise _lost(self.policy.device, error) from error
            return
        seconds = (time.perf_counter() - started) / len(group)
        for decoded, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, NetworkError):
                decoded.arrived.discard()
                yield failure(decoded.task, outcome)
            else:
                precision = self.policy.precision_for(decoded.scene.picture.bit_depth)
                self.encoder.submit(decoded, outcome, seconds, precision)
