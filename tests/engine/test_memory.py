from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lumen_tiny import Tiny

from lumen_cli.engine import memory
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import BatchSizes, TilePlan, free_memory, return_freed_memory, smaller, tiling_of
from lumen_cli.engine.parts import Shape, bytes_per_pixel
from lumen_cli.errors import PictureError
from lumen_cli.networks.base import Mean
from lumen_cli.networks.kind import KinD
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.run.stages import require_room
from tests.accelerator import accelerator, policy_on

CPU = choose_device("cpu", "fp32")
MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    height: int
    width: int


def test_a_picture_that_fits_runs_whole_and_one_that_does_not_in_tiles_that_do() -> None:
    network = Tiny().eval()
    cost = bytes_per_pixel(network, CPU, "fp32")
    plan = TilePlan("auto", memory=int(1_000_000 * cost))
    assert plan.side_for(network, CPU, Size(100, 100), "fp32") is None
    side = plan.side_for(network, CPU, Size(2000, 2000), "fp32")
    assert side is not None
    assert 512 <= side < 2000
    assert side == 512 or side**2 <= 1_000_000


def test_no_tiles_where_they_were_forbidden_or_the_network_cannot() -> None:
    class Whole(Tiny):
        tiles = False  # type: ignore[assignment]

    assert TilePlan("off", memory=1).side_for(Tiny(), CPU, Size(5000, 5000), "fp32") is None
    assert TilePlan("auto", memory=1).side_for(Whole(), CPU, Size(5000, 5000), "fp32") is None
    assert TilePlan("off").after_failure(Tiny(), Size(5000, 5000)) is None


def test_tiles_shrink_until_they_cannot() -> None:
    side, sides = 3000, []
    while side:
        sides.append(side)
        side = smaller(side)
    assert sides[-1] == 512
    assert sides == sorted(set(sides), reverse=True)


def test_the_command_line_s_words() -> None:
    assert [tiling_of(text) for text in ("auto", "off", "1024")] == ["auto", "off", 1024]


def test_what_a_network_takes_is_known_before_it_runs() -> None:
    """Width sixteen at full size: two maps of it are alive at once at least, and not a hundred."""
    torch.manual_seed(0)
    network = KinD(decomposition_channels=16, restoration_channels=16, adjustment_channels=16).eval()
    network.requires_grad_(False)
    cost = bytes_per_pixel(network, CPU, "fp32")
    assert 2 * 16 * 4 <= cost <= 40 * 16 * 4


def test_free_memory_is_some_of_the_machine_s() -> None:
    import psutil

    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_a_limit_on_the_process_counts(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    import psutil

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + 300 * MIB, before[1]))
    try:
        assert free_memory() <= 301 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_freed_memory_is_returned_to_the_system() -> None:
    if memory._heap_trim() is None:
        pytest.skip("this C library has no malloc_trim")
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    blocks = [torch.ones(20_000) for _ in range(2000)]
    full = process.memory_info().rss
    del blocks[:-1]  # the last one keeps the heap from shrinking by itself
    return_freed_memory()
    assert full - process.memory_info().rss > 100 * MIB


def test_a_c_library_without_malloc_trim_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    memory._heap_trim.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    try:
        return_freed_memory()
    finally:
        memory._heap_trim.cache_clear()


def test_a_picture_beyond_the_memory_is_refused_with_both_numbers() -> None:
    require_room(Path("a.png"), 100 * MIB, 1024 * MIB)
    with pytest.raises(PictureError, match=r"a\.png: needs about 2\.5 GiB of memory to work on, and 1\.0 GiB are free"):
        require_room(Path("a.png"), 1024 * MIB, 1024 * MIB)


def test_the_survey_of_a_mean_costs_what_its_dearest_member_s_does() -> None:
    torch.manual_seed(0)
    narrow, wide = (
        LightenDiffusion(unet_channels=32, unet_multipliers=(1, 1), ctdn_channels=channels).eval()
        for channels in (8, 16)
    )
    cost = bytes_per_pixel(Mean([narrow, wide, Tiny()]), CPU, "fp32", sample_whole=True)
    assert (
        cost
        == bytes_per_pixel(wide, CPU, "fp32", sample_whole=True)
        > bytes_per_pixel(narrow, CPU, "fp32", sample_whole=True)
    )
    plan = TilePlan("auto", memory=int(10_000_000 * cost))
    assert plan.whole_sample_fits(Mean([wide, Tiny()]), CPU, Size(2000, 2000), "fp32")
    assert not plan.whole_sample_fits(Mean([wide, Tiny()]), CPU, Size(4000, 4000), "fp32")


def batch(policy: DevicePolicy, height: int = 400, width: int = 600, *, free: int, network: Tiny | None = None) -> int:
    """The size of a batch on a stand-in with so many free bytes."""
    with accelerator(count=2), patch.object(torch.cuda, "mem_get_info", lambda device: (free, 16 << 30)):
        moved = policy.prepare(network or Tiny().eval())
        return BatchSizes(moved, policy).at(Shape(height, width, policy.precision))


def test_a_batch_is_the_largest_power_of_two_that_fits_into_half_of_the_memory() -> None:
    cost, pixels = bytes_per_pixel(Tiny().eval(), CPU, "fp32"), 400 * 600
    for pictures, expected in ((100, 64), (64, 64), (63, 32), (4, 4), (3, 2), (1, 1), (0.5, 1)):
        memory = int(2 * 1.001 * pictures * pixels * cost)
        policy = replace(policy_on(), memory=memory)
        assert batch(policy, free=16 << 30) == expected
    assert batch(replace(policy_on(), memory=memory), 8, 8, free=16 << 30) > 1


def test_memory_that_something_else_holds_makes_batches_smaller_and_what_is_asked_for_counts() -> None:
    cost = bytes_per_pixel(Tiny().eval(), CPU, "fp32")
    free = int(5 * 400 * 600 * cost / 0.8)
    policy = replace(policy_on(), memory=16 << 30)
    assert batch(policy, free=16 << 30) == 64
    assert batch(policy, free=free) == 4
    assert batch(replace(policy, others=(policy_on("cuda"),)), free=free) == 4
    assert batch(replace(policy, batch_size=3), free=free) == 3
    assert batch(policy_on("mps"), free=free) == 1
    assert BatchSizes(Tiny(), replace(CPU, batch_size=3)).at(Shape(8, 8, "fp32")) == 1


def test_the_network_is_measured_once_and_a_device_too_small_for_that_takes_single_pictures() -> None:
    class Counting(Tiny):
        runs = 0

        def forward(self, low: torch.Tensor, **options: Any) -> torch.Tensor:  # type: ignore[override]
            type(self).runs += 1
            if self.runs > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(low, **options)

    network, policy = Counting().eval(), replace(policy_on(), memory=16 << 30)
    assert [batch(policy, size, size, free=16 << 30, network=network) for size in (64, 512)] == [64, 64]
    assert network.runs == 1
    assert batch(policy, free=16 << 30, network=Counting().eval()) == 1
