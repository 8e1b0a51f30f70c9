"""LightenDiffusion's decomposition as `decompose` hands it out: the papers' latents, and pictures of them."""

from __future__ import annotations

import pytest
import torch

from lumen_cli.networks.base import Retinex, pad_to_multiple
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from tests.reference import Figures, fill_by_formula

FIGURES = Figures("lightendiffusion")


@pytest.fixture(scope="module")
def network() -> LightenDiffusion:
    return fill_by_formula(LightenDiffusion(unet_channels=32, ctdn_channels=32)).eval()


@torch.no_grad()
def test_the_latents_are_those_of_the_papers_code(network: LightenDiffusion) -> None:
    latents = network.decompose(FIGURES["in/low"]).latents
    assert latents is not None
    FIGURES.check("ctdn_ch32/low_fea", latents["latent"])
    FIGURES.check("ctdn_ch32/low_R", latents["reflectance"])
    FIGURES.check("ctdn_ch32/low_L", latents["illumination"].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 47), (64, 64)])
@torch.no_grad()
def test_pictures_are_decoded_with_the_dark_pictures_maps_and_cropped(
    network: LightenDiffusion, size: tuple[int, int]
) -> None:
    low = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    retinex = network.decompose(low)
    assert isinstance(retinex, Retinex)
    latent, levels = network.encode(pad_to_multiple(low, network.size_multiple))
    reflectance, illumination = network.retinex(latent)
    height, width = size

    def picture(of: torch.Tensor) -> torch.Tensor:
        return network.decode(of, levels)[..., :height, :width].clamp(0, 1)

    assert torch.equal(retinex.reflectance, picture(reflectance))
    assert torch.equal(retinex.reconstruction, picture(reflectance * illumination))
    assert retinex.illumination.shape == (2, 1, *size)
    assert retinex.latents is not None
    assert retinex.latents["latent"].shape == (2, 3, -(-height // 8), -(-width // 8))
    for row, column in ((0, 0), (height - 1, width - 1)):
        shown = retinex.illumination[..., row, column]
        assert torch.equal(shown, retinex.latents["illumination"][..., row // 8, column // 8])


@torch.no_grad()
def test_the_diffusion_has_no_say_in_it(network: LightenDiffusion) -> None:
    low = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = network.decompose(low)
    other = fill_by_formula(LightenDiffusion(unet_channels=32, ctdn_channels=32)).eval()
    for parameter in other.Unet.parameters():
        parameter.mul_(0.5)
    assert torch.equal(other.decompose(low).reflectance, before.reflectance)
