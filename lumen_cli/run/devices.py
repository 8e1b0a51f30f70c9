"""The devices of a run, a thread for each: all take groups of pictures from one queue and run the network on them.

A group and its order are decided before, so it gives the same pictures on each of several chips of one kind. What one
device cannot do, the others do.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from lumen_cli.engine.parts import NetworkError, TooLargeError
from lumen_cli.run.operation import Operation, Output
from lumen_cli.run.stages import ClosedError, Decoded, Encoder, Freed, Inbox, Notice, report_faults
from lumen_cli.run.task import RunEndedError, failure

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel


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
