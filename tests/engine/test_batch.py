import numpy as np
import pytest
import torch
from lumen_tiny import Tiny
from torch.nn.functional import adaptive_avg_pool2d

from lumen_cli.engine.batch import as_batch, enhance_batch, enhance_scenes, prepare
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import TilePlan
from lumen_cli.engine.parts import NetworkError, in_parts, shape_of
from lumen_cli.engine.scene import scene_of
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import Mean
from lumen_cli.networks.grading import REGIONS, bend, measure
from tests.conftest import dark_pixels
from tests.networks.test_grading import opinionated

CPU = choose_device("cpu", "fp32")


class Batching(DevicePolicy):
    """The CPU taken for a GPU: batches are not taken apart beforehand."""

    @property
    def single(self) -> bool:
        return False


def picture(height: int = 20, width: int = 28, seed: int = 0, depth: int = 8) -> Picture:
    pixels = dark_pixels(height, width, seed, depth).astype(np.float32) / (2**depth - 1)
    return Picture(pixels.astype(np.float32), None, depth, False, "png", None, None)


def run(network: Tiny, *pictures: Picture, **options: object) -> list[np.ndarray]:
    results = enhance_batch(network, pictures, CPU, **options)  # type: ignore[arg-type]
    assert all(isinstance(result, np.ndarray) for result in results)
    return results  # type: ignore[return-value]


def notes(network: Tiny, picture: Picture, policy: DevicePolicy = CPU, **options: object) -> tuple[str, ...]:
    (result,) = enhance_scenes(network, [scene_of(picture, "whole")], policy, **options)  # type: ignore[arg-type]
    return result.notes


@pytest.fixture
def network() -> Tiny:
    tiny = Tiny().eval()
    tiny.requires_grad_(False)
    return tiny


def test_a_picture_gets_brighter_and_keeps_its_size(network: Tiny) -> None:
    dark = picture(21, 37)
    (bright,) = run(network, dark)
    assert bright.shape == (21, 37, 3)
    assert bright.dtype == np.float32
    assert bright.mean() > 1.5 * dark.pixels.mean()
    assert bright.min() >= 0.0
    assert bright.max() <= 1.0


def test_batch_mates_and_their_order_change_nothing(network: Tiny) -> None:
    first, second, third = picture(20, 28, 1), picture(17, 25, 2), picture(24, 32, 3)
    alone = [run(network, each)[0] for each in (first, second, third)]
    together = run(network, first, second, third)
    swapped = run(network, third, first, second)
    for index, other in ((0, 1), (1, 2), (2, 0)):
        assert np.array_equal(alone[index], together[index])
        assert np.array_equal(alone[index], swapped[other])


@pytest.mark.parametrize("averaged", [False, True])
def test_a_grading_does_not_look_at_what_was_padded(averaged: bool) -> None:
    network = Tiny(multiple=64, noisy=False).eval().requires_grad_(False)
    network.grading = opinionated()
    pictures = [picture(70, 100, 1), picture(100, 70, 2), picture(128, 128, 3)]
    together = run(Mean([network, network]) if averaged else network, *pictures)  # type: ignore[arg-type]
    for dark, bright in zip(pictures, together, strict=True):
        low = as_batch([dark], network, CPU)
        made = network.enhance(low)
        seen = [part[..., : dark.height, : dark.width] for part in (low, made)]
        expected = bend(seen[1], network.grading.curves(*seen))
        np.testing.assert_allclose(bright, expected[0].permute(1, 2, 0).numpy(), rtol=0, atol=1e-5)
        padded = network.grade(low, made)[0, :, : dark.height, : dark.width].permute(1, 2, 0).numpy()
        if low.shape[-2:] != (dark.height, dark.width):
            assert np.abs(bright - padded).max() > 1e-3, "the padding would have been seen"


@pytest.mark.parametrize("averaged", [False, True])
def test_the_regions_of_a_reduced_picture_get_the_light_of_the_exposed_input(averaged: bool) -> None:
    member = Tiny(noisy=False).eval().requires_grad_(False)
    member.grading = opinionated(follow="exposed")
    network = Mean([member, member]) if averaged else member
    dark = picture(660, 700)
    aim = member.grading.auto_exposure(measure(torch.from_numpy(dark.pixels).permute(2, 0, 1)[None])).exposed

    def off(detail: str) -> float:
        (result,) = run(network, dark, detail=detail)  # type: ignore[arg-type]
        made = torch.from_numpy(result).permute(2, 0, 1)[None]
        return float((adaptive_avg_pool2d(made, REGIONS) - adaptive_avg_pool2d(aim, REGIONS)).abs().mean())

    assert off("fast") < 0.2 * off("whole")


def test_the_seed_and_the_content_decide_about_the_noise(network: Tiny) -> None:
    (first,) = run(network, picture(), seed=1)
    (again,) = run(network, picture(), seed=1)
    (other,) = run(network, picture(), seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_steps_reach_the_network(network: Tiny) -> None:
    assert not np.array_equal(run(network, picture(), steps=1)[0], run(network, picture(), steps=3)[0])


def test_strength_mixes_from_the_picture_itself_to_the_full_effect(network: Tiny) -> None:
    dark = picture()
    (none,), (half,), (full,) = (run(network, dark, strength=strength) for strength in (0.0, 0.5, 1.0))
    assert np.array_equal(none, dark.pixels)
    assert np.allclose(half, (dark.pixels + full) / 2, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (8, 8), (3, 200)])
def test_any_size_works(network: Tiny, size: tuple[int, int]) -> None:
    assert run(network, picture(*size))[0].shape == (*size, 3)


def test_a_network_without_noise_runs() -> None:
    assert run(Tiny(noisy=False).eval(), picture())[0].mean() > 0


def test_numbers_that_are_not_finite_are_an_error_of_that_picture_alone() -> None:
    fragile = Tiny(fails_above=0.4).eval()
    bright = picture()
    bright.pixels[:] = 0.9
    good, bad = enhance_batch(fragile, [picture(), bright], CPU)
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, NetworkError)
    assert "not finite" in str(bad)


def test_a_batch_too_large_for_the_memory_runs_in_halves() -> None:
    class Small(Tiny):
        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            if len(low) > 1:
                raise MemoryError
            return super().enhance(low, **options)

    pictures = [picture(seed=seed) for seed in range(5)]
    network = Small().eval()
    policy = Batching("cpu", "as if a GPU", "fp32", "fp32", "as asked")
    results = enhance_batch(network, pictures, policy)
    assert len(results) == 5
    for result, each in zip(results, pictures, strict=True):
        assert isinstance(result, np.ndarray)
        assert np.array_equal(result, run(Tiny().eval(), each)[0])


def test_smaller_batches_are_announced_for_the_pictures_they_held() -> None:
    class Small(Tiny):
        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            if len(low) > 1:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return super().enhance(low, **options)

    policy = Batching("cuda:7", "as if a GPU", "fp32", "fp32", "as asked")
    results = in_parts(lambda part, _: run_small(Small().eval(), part), [picture()] * 3, policy, Tiny())
    note = "run in smaller batches: cuda:7 has too little memory for the whole batch"
    assert [result.notes for result in results] == [(note,)] * 3


def run_small(network: Tiny, part: slice) -> list[np.ndarray | NetworkError]:
    network.enhance(torch.zeros(part.stop - part.start, 3, 8, 8))
    return [np.zeros((8, 8, 3), np.float32)] * (part.stop - part.start)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
    ],
)
def test_a_picture_too_large_for_the_memory_runs_in_tiles_and_so_do_later_ones(error: Exception) -> None:
    class Short(Tiny):
        tried = 0

        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            self.tried += low.shape[-2] * low.shape[-1] >= 1600 * 600
            if low.shape[-2] * low.shape[-1] >= 1600 * 600:
                raise error
            return super().enhance(low, **options)

    large, plan, network = picture(600, 1600), TilePlan(), Short().eval()
    network.requires_grad_(False)
    for _ in range(2):
        (result,) = enhance_batch(network, [large], CPU, detail="whole", plan=plan)
        assert isinstance(result, np.ndarray)
        note = "run in tiles of 512 pixels: there is too little memory for the whole picture"
        assert notes(network, large, plan=plan) == (note,)
    assert network.tried == 1
    assert np.allclose(result, run(Tiny().eval(), large, detail="whole")[0], atol=1e-5)


def test_without_tiles_a_picture_too_large_is_said_to_be() -> None:
    class Hungry(Tiny):
        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            raise MemoryError

    (result,) = enhance_batch(Hungry().eval(), [picture(20, 28)], CPU, plan=TilePlan("off"))
    assert isinstance(result, NetworkError)
    assert "too little memory for a picture of 28×20 pixels" in str(result)


def test_tiles_asked_for_are_used_for_larger_pictures_only_and_strength_mixes_them_too() -> None:
    network = Tiny().eval()
    network.requires_grad_(False)
    large = picture(540, 700)
    (half,) = enhance_batch(network, [large], CPU, detail="whole", strength=0.5, plan=TilePlan(512))
    assert notes(network, large, plan=TilePlan(512)) == ("run in tiles of 512 pixels: requested",)
    assert np.allclose(half, run(Tiny().eval(), large, strength=0.5)[0], atol=1e-5)
    assert notes(network, picture(500, 512), plan=TilePlan(512)) == ()


class Overflowing(Tiny):
    """Gives nothing finite in bf16, where its convolution answers in that."""

    def enhance(self, low, **options):  # type: ignore[no-untyped-def]
        result = super().enhance(low, **options)
        return result if self.mix(low).dtype == torch.float32 else result * float("nan")


def test_what_is_not_finite_in_half_precision_is_computed_in_fp32_and_that_is_said() -> None:
    policy = DevicePolicy("cpu", "any", "bf16", "fp32", "as asked")
    (result,) = enhance_batch(Overflowing().eval(), [picture()], policy)
    assert isinstance(result, np.ndarray)
    assert np.array_equal(result, run(Tiny().eval(), picture())[0])
    note = "computed in fp32, because the network's values were not finite in bf16"
    assert notes(Overflowing().eval(), picture(), policy) == (note,)


@pytest.mark.parametrize("depth", [8, 16])
def test_what_was_prepared_ahead_gives_the_same_picture(network: Tiny, depth: int) -> None:
    dark = dark_pixels(41, 57, depth=depth)
    scene = scene_of(Picture(dark, None, depth, False, "png", None, None))
    ready = prepare(scene, network, CPU, 5, scene.picture.digest())
    assert ready.input is not None
    assert ready.noise is not None
    (late,), (early,) = (enhance_scenes(network, [each], CPU, seed=5, brightness=2.0) for each in (scene, ready))
    assert np.array_equal(late.value, early.value)


def test_a_picture_of_the_padded_size_has_the_strides_of_a_batch() -> None:
    class Watching(Tiny):
        strides: tuple[int, ...] = ()

        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            self.strides = low.stride()
            return super().enhance(low, **options)

    network = Watching().eval().requires_grad_(False)
    scene = scene_of(picture(24, 32))
    for each in (scene, prepare(scene, network, CPU, 0, scene.picture.digest())):
        enhance_scenes(network, [each], CPU)
        assert network.strides == (24 * 32 * 3, 1, 32 * 3, 3)


def test_a_picture_too_large_for_the_memory_is_said_to_be() -> None:
    class Hungry(Tiny):
        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            raise MemoryError

    (result,) = enhance_batch(Hungry().eval(), [picture(20, 28)], CPU)
    assert isinstance(result, NetworkError)
    assert "too little memory for a picture of 28×20 pixels" in str(result)


def test_pictures_share_a_batch_when_their_padded_shapes_and_precisions_are_equal(network: Tiny) -> None:
    policy = choose_device("cpu", "auto", precisions=("fp32", "bf16"))
    assert shape_of(picture(17, 25), network, policy) == shape_of(picture(24, 32), network, policy)
    assert shape_of(picture(16, 25), network, policy) != shape_of(picture(24, 32), network, policy)
    if policy.precision != "fp32":
        assert shape_of(picture(depth=16), network, policy) != shape_of(picture(), network, policy)
