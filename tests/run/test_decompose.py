"""Batches taken apart, with the tiny network and with the models' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lumen_tiny import Tiny

from lumen_cli.engine.batch import Maps, decompose_batch
from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.parts import NetworkError
from lumen_cli.imaging.picture import Picture
from lumen_cli.networks.base import LowLightModel
from lumen_cli.run.decompose import Decompose, MapSettings
from tests.conftest import dark_pixels

CPU = choose_device("cpu", "fp32")
SETTINGS = MapSettings("tiny", {}, "0" * 64)


class Batching(DevicePolicy):
    """The CPU taken for a GPU: batches are not taken apart beforehand."""

    @property
    def single(self) -> bool:
        return False


def picture(height: int = 20, width: int = 28, seed: int = 0) -> Picture:
    pixels = dark_pixels(height, width, seed).astype(np.float32) / np.float32(255)
    return Picture(pixels, None, 8, False, "png", None, None)


def decomposed(network: LowLightModel, *pictures: Picture, **options: bool) -> list[Maps]:
    results = decompose_batch(network.eval().requires_grad_(False), pictures, CPU, **options)
    maps = [result.value for result in results]
    assert all(isinstance(each, Maps) for each in maps)
    return maps  # type: ignore[return-value]


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 47)])
def test_any_size_gives_maps_of_that_size(size: tuple[int, int]) -> None:
    (maps,) = decomposed(Tiny(), picture(*size), reconstruct=True)
    assert maps.reflectance.shape == (*size, 3)
    assert maps.illumination.shape == size
    assert maps.reconstruction is not None
    assert np.abs(maps.reconstruction - picture(*size).pixels).max() < 1e-6
    assert maps.latents is None


def test_a_batch_gives_each_picture_its_own_maps() -> None:
    policy = Batching("cpu", "as if a GPU", "fp32", "fp32", "as asked")
    pictures = [picture(20, 28, 1), picture(17, 25, 2), picture(24, 32, 3)]
    for result, each in zip(decompose_batch(Tiny(latent=8).eval(), pictures, policy), pictures, strict=True):
        together = result.value
        assert isinstance(together, Maps)
        (alone,) = decomposed(Tiny(latent=8), each)
        assert np.array_equal(together.reflectance, alone.reflectance)
        assert np.array_equal(together.illumination, alone.illumination)
        assert together.latents is not None
        assert alone.latents is not None
        for name, latent in together.latents.items():
            assert np.array_equal(latent, alone.latents[name])
            assert latent.shape[1:] == (-(-each.height // 8), -(-each.width // 8))


def test_a_picture_too_large_for_the_memory_is_said_to_be() -> None:
    class Hungry(Tiny):
        def decompose(self, low):  # type: ignore[no-untyped-def]
            raise MemoryError

    (result,) = decompose_batch(Hungry().eval(), [picture(20, 28)], CPU)
    assert isinstance(result.value, NetworkError)
    assert "28×20" in str(result.value)


def test_a_picture_rebuilt_without_any_error_has_no_finite_psnr() -> None:
    half = np.full((4, 5, 3), 0.5, np.float32)
    exact = Maps(half, half[:, :, 0], reconstruction=half, prepared=half.copy()).fidelity()
    assert exact is not None
    assert (exact.mae, exact.psnr) == (0.0, None)
    off = Maps(half, half[:, :, 0], reconstruction=half + np.float32(0.1), prepared=half).fidelity()
    assert off is not None
    assert off.mae == pytest.approx(0.1)
    assert off.psnr == pytest.approx(20.0, abs=1e-4)
    assert Maps(half, half[:, :, 0]).fidelity() is None


def test_what_decides_about_the_bytes_is_in_the_fingerprint_and_further_files_are_not() -> None:
    import dataclasses

    known = {SETTINGS.fingerprint()}
    for change in (
        {"weights": "1" * 64},
        {"format": "npz"},
        {"depth": 16},
        {"precision": "bf16"},
        {"network": {"a": 1}},
    ):
        fingerprint = dataclasses.replace(SETTINGS, **change).fingerprint()  # type: ignore[arg-type]
        assert fingerprint not in known
        known.add(fingerprint)
    assert Decompose(SETTINGS, side_by_side=True, reconstruct=True).settings.fingerprint() in known


def test_kind_is_measured_against_the_picture_it_stretched() -> None:
    from lumen_cli.networks.kind import KinD

    network = KinD(decomposition_channels=8, restoration_channels=4, adjustment_channels=4)
    dark = picture(33, 47)
    (maps,) = decomposed(network, dark, reconstruct=True)
    assert maps.reflectance.shape == (33, 47, 3)
    assert maps.illumination.shape == (33, 47)
    assert maps.prepared is not None
    spread = (dark.pixels - dark.pixels.min()) / (dark.pixels.max() - dark.pixels.min())
    assert np.abs(maps.prepared - spread).max() < 1e-6
    assert np.array_equal(maps.reconstruction, maps.reflectance * maps.illumination[:, :, None])
    fidelity = maps.fidelity()
    assert fidelity is not None
    assert fidelity.mae == pytest.approx(np.abs(maps.reconstruction - spread).mean(), abs=1e-6)


def test_lightendiffusion_gives_latents_and_renderings_of_the_unpadded_picture() -> None:
    from lumen_cli.networks.lightendiffusion import LightenDiffusion

    torch.manual_seed(0)
    network = LightenDiffusion(unet_channels=32, ctdn_channels=8)
    (maps,) = decomposed(network, picture(33, 47), reconstruct=True)
    assert maps.reflectance.shape == (33, 47, 3)
    assert maps.latents is not None
    assert {name: latent.shape for name, latent in maps.latents.items()} == {
        "reflectance": (3, 5, 6),
        "illumination": (1, 5, 6),
        "latent": (3, 5, 6),
    }
    enlarged = maps.latents["illumination"][0].repeat(8, axis=0).repeat(8, axis=1)
    assert np.array_equal(maps.illumination, enlarged[:33, :47])
