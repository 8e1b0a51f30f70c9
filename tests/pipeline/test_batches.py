import numpy as np
import pytest
from lumen_tiny import Tiny

from lumen_cli.imaging.codec import Picture
from lumen_cli.pipeline.batches import NetworkError, enhance_batch, shape_of
from lumen_cli.pipeline.device import DevicePolicy, choose_device
from tests.conftest import dark_pixels

CPU = choose_device("cpu", "fp32")


class Batching(DevicePolicy):
    """The CPU taken for a GPU: batches are not taken apart beforehand."""

    @property
    def single(self) -> bool:
        return False


def picture(height: int = 20, width: int = 28, seed: int = 0, depth: int = 8) -> Picture:
    pixels = dark_pixels(height, width, seed, depth).astype(np.float32) / (2**depth - 1)
    return Picture(pixels.astype(np.float32), None, depth, False, "png", None, None)


def run(network: Tiny, *pictures: Picture, **options: float) -> list[np.ndarray]:
    results = enhance_batch(network, pictures, CPU, **options)  # type: ignore[arg-type]
    assert all(isinstance(result, np.ndarray) for result in results)
    return results  # type: ignore[return-value]


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
