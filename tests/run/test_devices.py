"""A run on several devices, as far as a machine without them can tell; see `tests.accelerator`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lumen_tiny import Tiny
from torch import Tensor

from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.parts import NetworkError
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.run import Result, RunEndedError
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import Plan, make_plan
from lumen_cli.run.run import Run, RunOptions
from lumen_cli.run.stages import Freed, Inbox
from lumen_cli.run.stream import Devices
from tests.accelerator import accelerator, policy_on
from tests.conftest import folder_bytes, write_dark

SETTINGS = Settings("tiny", {}, "0" * 64, steps=1)
MET = threading.local()


class Watched(Tiny):
    """Keeps device and size of each batch. A device's first batch waits until `devices` have one, so none is left out;
    then `first` is called with the device.
    """

    batches: list[tuple[str, int]]
    meeting: threading.Barrier
    first: Callable[[str], None]

    def enhance(self, low: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
        if getattr(MET, "meeting", None) is not self.meeting:
            MET.meeting = self.meeting
            self.meeting.wait(timeout=60)
            type(self).first(str(low.device))
        self.batches.append((str(low.device), len(low)))
        return super().enhance(low, **options)


def watched(devices: int, first: Callable[[str], None] = lambda device: None) -> Watched:
    shared = {"batches": [], "meeting": threading.Barrier(devices), "first": staticmethod(first)}
    return type("Watched", (Watched,), shared)().eval().requires_grad_(False)


@pytest.fixture
def plan_for(tmp_path: Path) -> Callable[[str], Plan]:
    """Twenty pictures of two shapes into a folder of a name."""
    for number in range(20):
        write_dark(tmp_path / "in" / f"{number:02}.png", 24 if number % 3 else 40, 32, seed=number)

    def plan(name: str) -> Plan:
        jobs = plan_outputs(find_pictures([str(tmp_path / "in")]), f"{tmp_path / name}/", None)
        return make_plan(jobs, SETTINGS.fingerprint(), IfExists.REFUSE)

    return plan


def carry_out(plan: Plan, policy: DevicePolicy, network: Tiny, results: list[Result]) -> list[str]:
    """Fills `results`; the lines that the user gets."""
    lines: list[str] = []
    with TagWriter("pillow") as tags:
        run = Run(None, policy, Enhance(SETTINGS), RunOptions(jobs=2), network=policy.prepare(network), tags=tags)
        results.extend(run.results(plan, warn=lines.append))
    return lines


def several(count: int, device: str = "cuda") -> DevicePolicy:
    policy = choose_device(device, "fp32", batch_size=2, several=True)
    assert len(policy.each) == count
    return policy


def test_devices_are_chosen_by_kind_and_number() -> None:
    with accelerator(count=4):
        names = ["big", "small", "big", "big"]
        with patch.object(torch.cuda, "get_device_name", lambda device: names[torch.device(device).index]):
            policy = choose_device("cuda", several=True)
            assert (policy.device, policy.label, policy.chips) == ("cuda:0", "cuda:0,2,3", "3 × big")
            assert choose_device("auto", several=True) == policy
            assert [each.device for each in policy.each] == ["cuda:0", "cuda:2", "cuda:3"]
            assert choose_device("cuda:1", several=True).label == "cuda:1"
            assert choose_device("cuda:2,1,2", several=True).chips == "big, small"
            assert choose_device("cuda").label == "cuda:0"
            with pytest.raises(UsageError, match="no device cuda:4 here; this machine has cuda:0, cuda:1, "):
                choose_device("cuda:0,4", several=True)
            with pytest.raises(UsageError, match="one device is used here, not cuda:0,2"):
                choose_device("cuda:0,2")


def test_several_devices_share_a_folder_and_give_the_bytes_of_one(tmp_path: Path, plan_for: Any) -> None:
    made: dict[str, list[tuple[str, int]]] = {}
    for name, device, count in (("one", "cuda:1", 1), ("three", "cuda", 3)):
        results: list[Result] = []
        network = watched(count)
        with accelerator(count=3) as stand_in:
            assert carry_out(plan_for(name), several(count, device), network, results) == []
        assert {result.status for result in results} == {"done"}
        assert not stand_in.machine.unrecorded
        assert not stand_in.machine.synchronized
        made[name] = network.batches
    assert {device for device, _ in made["one"]} == {"cuda:1"}
    assert {device for device, _ in made["three"]} == {"cuda:0", "cuda:1", "cuda:2"}
    assert sorted(size for _, size in made["one"]) == sorted(size for _, size in made["three"])
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "three")


def test_the_others_go_on_where_a_device_is_lost(tmp_path: Path, plan_for: Any) -> None:
    with accelerator(count=3) as stand_in:
        results: list[Result] = []
        carry_out(plan_for("one"), several(1, "cuda:0"), watched(1), results)

        def lose(device: str) -> None:
            stand_in.machine.lost |= {device} & {"cuda:1"}

        network = watched(3, lose)
        (line,) = carry_out(plan_for("three"), several(3), network, results)
    assert line == (
        "cuda:1 no longer computes (CUDA error: an illegal memory access was encountered); "
        "cuda:0, cuda:2 go on with its pictures"
    )
    assert {result.status for result in results} == {"done"}
    assert [device for device, _ in network.batches].count("cuda:1") == 1
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "three")


def test_a_run_ends_with_its_last_device(plan_for: Any) -> None:
    results: list[Result] = []
    with accelerator(count=2) as stand_in:
        network = watched(2, stand_in.machine.lost.add)
        with pytest.raises(RunEndedError, match=r"^cuda:\d no longer computes \(.*\); what is finished is kept: .*$"):
            carry_out(plan_for("out"), several(2), network, results)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lumen-")]


def test_a_device_whose_memory_is_taken_leaves_its_pictures_to_the_others(tmp_path: Path, plan_for: Any) -> None:
    with accelerator(count=2) as stand_in:
        results: list[Result] = []
        carry_out(plan_for("one"), several(1, "cuda:0"), watched(1), results)
        stand_in.machine.full.add("cuda:1")
        network = watched(2)
        (line,) = carry_out(plan_for("two"), several(2), network, results)
    assert line == "cuda:1 has too little memory for pictures that fit on cuda:0, and gets no more"
    assert {result.status for result in results} == {"done"}
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_pictures_that_fit_on_no_device_fail_and_no_device_is_given_up(plan_for: Any) -> None:
    results: list[Result] = []
    with accelerator(count=2) as stand_in:
        stand_in.machine.full |= {"cuda:0", "cuda:1"}
        assert carry_out(plan_for("out"), several(2), watched(2), results) == []
    assert {result.status for result in results} == {"failed"}
    assert len(results) == 20
    assert all("too little memory for a picture of 32×" in (result.reason or "") for result in results)


def test_a_fault_of_the_network_costs_its_pictures_only(plan_for: Any) -> None:
    class Faulty(Tiny):
        def enhance(self, low: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
            if low.shape[-2] > 32:
                raise RuntimeError("sizes of tensors must match")
            return super().enhance(low, **options)

    results: list[Result] = []
    with accelerator(count=2):
        assert carry_out(plan_for("out"), several(2), Faulty().eval().requires_grad_(False), results) == []
    failed = sorted(result.task.output for result in results if result.status == "failed")
    assert failed == [f"{number:02}.png" for number in range(0, 20, 3)]
    assert len(results) == 20


def test_a_batch_is_launched_before_the_one_before_is_fetched() -> None:
    log: list[str] = []
    handed = threading.Event()

    class Logged:
        def launch(self, network: Any, scenes: Any, policy: Any, digests: Any) -> Callable[[], list[NetworkError]]:
            handed.wait(timeout=60)
            log.append(f"launch {scenes[0]}")

            def wait() -> list[NetworkError]:
                log.append(f"wait {scenes[0]}")
                return [NetworkError("nothing is made here")]

            return wait

    def decoded(number: int) -> Any:
        job = SimpleNamespace(source=SimpleNamespace(path=Path(f"{number}.png")))
        arrived = SimpleNamespace(discard=lambda: None)
        record = SimpleNamespace(content="")
        return SimpleNamespace(scene=number, task=SimpleNamespace(job=job), arrived=arrived, record=record)

    for kind, expected in (
        ("cuda", "launch 0, launch 1, wait 0, launch 2, wait 1, wait 2"),
        ("mps", "launch 0, wait 0, launch 1, wait 1, launch 2, wait 2"),
    ):
        log.clear()
        handed.clear()
        inbox: Inbox = queue.SimpleQueue()
        with accelerator(kind):
            devices = Devices(policy_on(kind), Tiny(), Logged(), None, inbox)  # type: ignore[arg-type]
            for number in range(3):
                devices.hand([decoded(number)])
            assert devices.have_room is False
            handed.set()
            assert [isinstance(inbox.get(timeout=60), Result | Freed) for _ in range(6)] == [True] * 6
            devices.end()
        assert ", ".join(log) == expected


def test_the_stand_in_keeps_the_order_of_streams() -> None:
    with accelerator() as stand_in:
        side = torch.cuda.Stream("cuda:0")
        with torch.cuda.stream(side):
            moved = torch.ones(3).to("cuda:0", non_blocking=True)
        with pytest.raises(RuntimeError, match="has not waited"):
            moved + 1
        torch.cuda.current_stream("cuda:0").wait_stream(side)
        assert (moved + 1).cpu().sum() == 6
        assert len(stand_in.machine.unrecorded) == 1
        moved.record_stream(torch.cuda.current_stream("cuda:0"))
        assert not stand_in.machine.unrecorded
        policy = policy_on()
        wait = policy.fetch([moved])
        assert wait()[0].sum() == 3
        host, copied = torch.zeros(3), torch.cuda.Event(blocking=True)
        host.copy_(moved, non_blocking=True)
        copied.record(torch.cuda.current_stream("cuda:0"))
        assert host.isnan().all()
        copied.synchronize()
        assert host.sum() == 3
