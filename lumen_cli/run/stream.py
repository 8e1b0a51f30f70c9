"""Decode threads → batches of equal padded shape → devices → encode threads, with bounded queues between them.

Pictures reach the network in the plan's order, and that order alone forms the batches, never the speed of a thread:
the same folder gives the same batches. Memory depends on the budgets, not on the number of pictures.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lumen_cli.engine.memory import BatchSizes
from lumen_cli.engine.parts import Shape, shape_of
from lumen_cli.networks.base import LowLightModel
from lumen_cli.run.devices import Devices
from lumen_cli.run.operation import Operation
from lumen_cli.run.stages import Broken, Decoded, Decoder, Encoder, Freed, Inbox, Notice, Undecoded
from lumen_cli.run.task import Caller, Result, RunEndedError

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy

_POLL = 0.1
"""Seconds between looks at the stop signal while nothing arrives."""
_WAITING_BATCHES = 4
_WAITING_BYTES = 512 << 20
"""Decoded pictures that may wait for others of their shape. Fixed, so that batches are the same on every machine."""


def _ended(error: BaseException) -> RunEndedError:
    if isinstance(error, RunEndedError):
        return error
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return RunEndedError(f"fault of lumen, please report it: a worker has ended ({cause}); what is finished is kept")


class Stream:
    """The caller's thread: puts what arrives in order, hands full groups to the devices, yields results.

    Args:
        network: on the policy's first device.
        policy: from `choose_device`.
        operation: what is done with each group.
        decoder: puts pictures into the inbox.
        encoder: takes the network's results.
        inbox: of both.
        caller: stops it, and hears of it.
    """

    def __init__(
        self,
        network: LowLightModel,
        policy: DevicePolicy,
        operation: Operation,
        decoder: Decoder,
        encoder: Encoder,
        inbox: Inbox,
        caller: Caller,
    ) -> None:
        self.network, self.policy, self.operation = network, policy, operation
        self.decoder, self.encoder, self.inbox, self.caller = decoder, encoder, inbox, caller
        self.sizes = BatchSizes(network, policy)
        self.waiting: dict[Shape, list[Decoded]] = {}
        self.handed = 0
        """Pictures that the devices got and whose results have not come yet."""

    def results(self) -> Iterator[Result]:
        """A result for each picture, as soon as it is complete on the disk or has failed.

        Raises:
            RunEndedError: a thread ended by a fault of lumen, or the device no longer works.
        """
        devices = Devices(self.policy, self.network, self.operation, self.encoder, self.inbox)
        early: dict[int, Decoded | Undecoded] = {}
        taken = 0
        try:
            while self.decoder.feeding or taken < self.decoder.begun or self.waiting or self.handed:
                if self._ending:
                    self.decoder.end()
                    self.waiting.clear()
                    self.handed -= devices.drop()
                message = self._next_message()
                if isinstance(message, Result):
                    self.handed -= 1
                    yield message
                elif isinstance(message, Broken):
                    self.encoder.abandon()
                    raise _ended(message.error) from message.error
                elif isinstance(message, Notice):
                    self.caller.warn(message.text)
                elif isinstance(message, Decoded | Undecoded):
                    early[message.index] = message
                while taken in early and (self._ending or devices.have_room):
                    yield from self._take(early.pop(taken), devices)
                    taken += 1
                if not self.decoder.feeding and taken == self.decoder.begun:
                    while self.waiting and devices.have_room and not self._ending:
                        self._hand(next(iter(self.waiting)), devices)
        finally:
            devices.end()

    @property
    def _ending(self) -> bool:
        return self.caller.stop.is_set() or self.encoder.storage.trouble is not None

    def _next_message(self) -> Decoded | Undecoded | Result | Broken | Notice | Freed | None:
        try:
            return self.inbox.get(timeout=_POLL)
        except queue.Empty:
            return None

    def _take(self, arrived: Decoded | Undecoded, devices: Devices) -> Iterator[Result]:
        """Put the plan's next picture into its group, and hand full groups to the devices."""
        self.decoder.release(arrived.held)
        if isinstance(arrived, Undecoded):
            if arrived.result is not None:
                yield arrived.result
            return
        shape = shape_of(arrived.scene.seen, self.network, self.policy)
        self.waiting.setdefault(shape, []).append(arrived)
        while not self._ending and (due := self._due(shape)) is not None:
            self._hand(due, devices)

    def _due(self, latest: Shape) -> Shape | None:
        """The group to run now: the latest if it is full, the largest if too much is waiting, or none."""
        batch = self.sizes.at(latest)
        if len(self.waiting.get(latest, ())) >= batch:
            return latest
        waiting = [decoded for group in self.waiting.values() for decoded in group]
        held = sum(decoded.scene.picture.nbytes for decoded in waiting)
        if len(waiting) > _WAITING_BATCHES * batch or held > _WAITING_BYTES:
            return max(self.waiting, key=lambda shape: len(self.waiting[shape]))
        return None

    def _hand(self, shape: Shape, devices: Devices) -> None:
        group = self.waiting.pop(shape)
        for decoded in group:
            self.caller.now(f"{self.operation.doing} {decoded.task.job.source.path.name}")
        self.handed += len(group)
        devices.hand(group)
