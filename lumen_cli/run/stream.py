"""Decode threads → batches of equal padded shape → devices → encode threads, with bounded queues between them.

Pictures reach the network in the plan's order, and that order alone forms the batches, never the speed of a thread:
the same folder gives the same batches. Memory depends on the budgets, not on the number of pictures.
Each device has a thread; all take groups of pictures from one queue and run the network on them. A group and its order
are decided before, so it gives the same pictures on each of several chips of one kind. What one device cannot do, the
others do.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from lumen_cli.engine.memory import BatchSizes
from lumen_cli.engine.parts import NetworkError, Shape, TooLargeError, shape_of
from lumen_cli.networks.base import LowLightModel
from lumen_cli.run import Caller, Result, RunEndedError, failure
from lumen_cli.run.operation import Operation, Output
from lumen_cli.run.stages import (
    Broken,
    ClosedError,
    Decoded,
    Decoder,
    Encoder,
    Freed,
    Inbox,
    Notice,
    Undecoded,
    report_faults,
)

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy


@dataclass(eq=False)
class Group:
    """Pictures of one `shape_of` that run together. refused: devices with too little memory for one of them."""

    pictures: Sequence[Decoded]
    refused: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Launch:
    """A group whose work has begun. wait: returns the outcomes, or raises the error."""

    group: Group
    started: float
    wait: Callable[[], Sequence[Output | NetworkError]]


def _throw(error: Exception) -> Sequence[Output | NetworkError]:
    raise error


class Devices:
    """Threads that run the network. For each picture they get, the inbox receives a result in the end.

    Args:
        policy: from `choose_device`, with all devices of the run.
        network: on the policy's first device; the others get copies.
        operation: what is done with each group.
        encoder: takes the network's results.
        inbox: receives failures and what concerns the whole run.
    """

    def __init__(
        self, policy: DevicePolicy, network: LowLightModel, operation: Operation, encoder: Encoder, inbox: Inbox
    ) -> None:
        self._operation, self._encoder, self._inbox = operation, encoder, inbox
        # A GPU computes one group while another waits, and the one before is fetched. A CPU shares its cores and memory
        # with the threads that decode.
        self._each = 3 if policy.overlaps else 1 if policy.single else 2
        self._waiting: deque[Group] = deque()
        self._busy = 0
        self._finished: dict[str, float] = {}
        self._ended = False
        self._working = {each.device for each in policy.each}
        self._changed = threading.Condition()
        networks = [network, *(copy.deepcopy(network) for _ in policy.others)]
        self._threads = [
            threading.Thread(
                target=report_faults, args=(inbox, self._work, *pair), name=f"lumen-{pair[0].device}", daemon=True
            )
            for pair in zip(policy.each, networks, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def have_room(self) -> bool:
        """Whether a group that is handed over now begins soon."""
        with self._changed:
            return len(self._waiting) + self._busy < self._each * len(self._working)

    def hand(self, pictures: Sequence[Decoded]) -> None:
        """Run the network on pictures of one `shape_of`, when a device is free."""
        with self._changed:
            self._waiting.append(Group(pictures))
            self._changed.notify_all()

    def drop(self) -> int:
        """Forget what waits; the number of pictures, which get no result."""
        with self._changed:
            pictures = [decoded for group in self._waiting for decoded in group.pictures]
            self._waiting.clear()
        for decoded in pictures:
            decoded.arrived.discard()
        return len(pictures)

    def end(self) -> None:
        """Begin no further group, and wait until those that were begun are with the encoder."""
        self.drop()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, policy: DevicePolicy, network: LowLightModel) -> None:
        try:
            prepared = policy.prepare(network)
        except Exception as error:
            self._leave(policy, error)
            return
        under_way: Launch | None = None
        with suppress(ClosedError):  # the encoder's threads are broken, and the run ends
            while (group := self._take(policy.device, wait=under_way is None)) or under_way:
                following = None if group is None else self._launch(policy, prepared, group)
                if under_way:
                    self._finish(policy, under_way)
                if following and not policy.overlaps:
                    self._finish(policy, following)
                under_way = following if policy.overlaps else None

    def _take(self, device: str, wait: bool) -> Group | None:
        """The first group that no other device should take instead; None where this one ends, or does not wait."""

        def find() -> Group | None:
            return next(
                (each for each in self._waiting if device not in each.refused or each.refused >= self._working), None
            )

        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._ended or device not in self._working or find() is not None)
            if self._ended or device not in self._working or (group := find()) is None:
                return None
            self._waiting.remove(group)
            self._busy += 1
            return group

    def _launch(self, policy: DevicePolicy, network: LowLightModel, group: Group) -> Launch:
        started = time.perf_counter()
        scenes = [decoded.scene for decoded in group.pictures]
        digests = [bytes.fromhex(decoded.record.content or "") for decoded in group.pictures]
        try:
            return Launch(group, started, self._operation.launch(network, scenes, policy, digests))
        except Exception as error:  # `_finish` sees to it when the group before is finished
            return Launch(group, started, partial(_throw, error))

    def _finish(self, policy: DevicePolicy, launch: Launch) -> None:
        try:
            self._wait(policy, launch)
        finally:
            with self._changed:
                self._busy -= 1
            self._inbox.put(Freed())

    def _wait(self, policy: DevicePolicy, launch: Launch) -> None:
        group = launch.group
        try:
            outcomes = launch.wait()
        except Exception as error:  # a fault in the network must not end a run of many hours
            if not policy.works():
                self._leave(policy, error, group)
                return
            for decoded in group.pictures:
                decoded.arrived.discard()
                self._inbox.put(failure(decoded.task, error))
            return
        if not self._accept(policy.device, group, outcomes):
            return
        now = time.perf_counter()
        seconds = (now - max(launch.started, self._finished.get(policy.device, 0.0))) / len(group.pictures)
        self._finished[policy.device] = now
        for decoded, outcome in zip(group.pictures, outcomes, strict=True):
            if isinstance(outcome, NetworkError):
                decoded.arrived.discard()
                self._inbox.put(failure(decoded.task, outcome))
            else:
                precision = policy.precision_for(decoded.scene.picture.bit_depth)
                self._encoder.submit(decoded, outcome, seconds, precision)

    def _leave(self, policy: DevicePolicy, error: Exception, group: Group | None = None) -> None:
        """A device no longer works: the others go on. RunEndedError where it was the last."""
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        why = f"{policy.device} no longer computes ({cause})"
        with self._changed:
            known = policy.device not in self._working
            self._working.discard(policy.device)
            others = sorted(self._working)
            if group is not None:
                self._waiting.appendleft(group)
            self._changed.notify_all()
        if not others:
            raise RunEndedError(f"{why}; what is finished is kept: run the command again to go on") from error
        if not known:
            self._inbox.put(Notice(f"{why}; {', '.join(others)} {'go' if others[1:] else 'goes'} on with its pictures"))

    def _accept(self, device: str, group: Group, outcomes: Sequence[Output | NetworkError]) -> bool:
        """Whether the outcomes count; not where a picture is too large for this device and another one can try.

        Devices that had too little memory for a group that another one could run get no further pictures: something
        else holds their memory.
        """
        with self._changed:
            if any(isinstance(outcome, TooLargeError) for outcome in outcomes):
                group.refused.add(device)
                if self._working - group.refused:
                    self._waiting.appendleft(group)
                    self._changed.notify_all()
                    return False
                return True
            short = sorted(group.refused & self._working - {device})
            self._working -= set(short)
            self._changed.notify_all()
        for each in short:
            self._inbox.put(Notice(f"{each} has too little memory for pictures that fit on {device}, and gets no more"))
        return True


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
