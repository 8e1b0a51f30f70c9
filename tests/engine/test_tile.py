"""Tiles make up what the whole picture gives; how nearly depends on what a network sees of the whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.engine.tile import MARGIN, enhance_tiled, spans, tiles_of
from lumen_cli.networks.base import LowLightModel, padded_size
from lumen_cli.networks.diffll import DiffLL
from lumen_cli.networks.kind import KinD, KinDPlus
from tests.conftest import dark_pixels


def uneven(height: int, width: int) -> np.ndarray:
    """A dark picture whose parts differ: a bright corner, texture in one half."""
    low = dark_pixels(height, width).astype(np.float32) / 255
    low[: height // 3, : width // 3] *= 2.5
    low[:, width // 2 :] *= np.random.default_rng(1).uniform(0.5, 1.0, (height, width - width // 2, 1))
    return low.clip(0.0, 1.0).astype(np.float32)


def noise_for(network: LowLightModel, low: np.ndarray) -> Tensor | None:
    shape = network.noise_shape(*padded_size(*low.shape[:2], network.size_multiple))
    return None if shape is None else torch.randn(shape, generator=torch.Generator().manual_seed(0))


def whole(network: LowLightModel, low: np.ndarray, noise: Tensor | None) -> np.ndarray:
    from lumen_cli.networks.base import pad_to_multiple

    height, width = low.shape[:2]
    padded = pad_to_multiple(torch.from_numpy(low).permute(2, 0, 1)[None], network.size_multiple)
    result = network.enhance(padded, noise=None if noise is None else noise[None])
    return result[0, :, :height, :width].permute(1, 2, 0).float().numpy()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(one - other, dtype=np.float64).mean() + 1e-12))


class Looking(LowLightModel):
    """One layer that looks at the whole map, of a kind."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.size_multiple = 16
        self.layer = layer

    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        return (0.5 + 0.1 * self.layer(F.conv2d(low, torch.eye(3).view(3, 3, 1, 1)))).clamp(0.0, 1.0)


def attend(x: Tensor) -> Tensor:
    """Every position looks at all of a smaller map, as the attentions of U-Nets do: behind a norm."""
    small = F.group_norm(F.avg_pool2d(x, 16), 3)
    positions = small.flatten(2).transpose(1, 2)[:, None]
    seen = F.scaled_dot_product_attention(positions, positions, positions)[:, 0].transpose(1, 2)
    return F.interpolate(seen.reshape(small.shape), scale_factor=16)


LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "group norm": nn.GroupNorm(3, 3),
    "instance norm": nn.InstanceNorm2d(3),
    "squeeze": lambda x: x * F.adaptive_avg_pool2d(x, 1) * 20,
    "attention": attend,
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_sees_of_the_whole_picture_reaches_every_tile(name: str) -> None:
    network, low = Looking(LAYERS[name]).eval(), uneven(544, 800)
    with torch.inference_mode():
        expected = whole(network, low, None)
        tiled = enhance_tiled(network, low, None, 512, passes=2 if name == "attention" else 1)
        alone = whole(network, low[:512, :512], None)
    assert np.abs(tiled - expected).max() < 2e-3
    assert np.abs(alone - expected[:512, :512]).max() > 5e-3  # so it matters


def small(architecture: type[LowLightModel], **options: Any) -> LowLightModel:
    torch.manual_seed(0)
    network = architecture(**options).eval()
    network.requires_grad_(False)
    return network


KIND = {"decomposition_channels": 8, "restoration_channels": 4, "adjustment_channels": 8}


def test_the_shares_of_the_tiles_add_up_to_one_at_every_pixel() -> None:
    for length, side in ((513, 512), (1000, 512), (4001, 1024), (12000, 800)):
        total = np.zeros(length)
        for span in spans(length, side):
            assert span.stop - span.start <= side + 2 * MARGIN
            total[span.start : span.stop] += span.weights(MARGIN)
        assert np.allclose(total, 1.0, atol=1e-6)


def test_own_parts_meet_without_gap_and_begin_where_the_network_halves_evenly() -> None:
    pieces = spans(3001, 640, unit=64)
    assert [piece.first for piece in pieces[1:]] == [piece.last for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (0, 3001)
    assert all(piece.start % 64 == 0 and piece.first % 64 == 0 for piece in pieces)


def test_a_network_that_looks_along_rows_gets_bands_of_the_whole_width() -> None:
    tiles = tiles_of(small(DiffLL, unet_channels=32, detail_channels=8), 1000, 1500, 512)
    assert len(tiles) > 1
    assert {(tile.columns.start, tile.columns.stop) for tile in tiles} == {(0, 1500)}


def test_what_is_not_finite_is_handed_on_as_such() -> None:
    network = Looking(lambda x: x * float("nan")).eval()
    with torch.inference_mode():
        assert not np.isfinite(enhance_tiled(network, uneven(600, 700), None, 512)).all()


def test_parts_of_a_picture_are_given_the_light_that_the_whole_would_get() -> None:
    low = torch.from_numpy(uneven(300, 200)).permute(2, 0, 1)[None]
    network = small(KinD, **KIND)
    assert isinstance(network, KinD)
    told = network.global_context(low)
    expected = network.automatic_ratio(network.decom(network.prepare(low))[1])
    assert torch.allclose(told["illumination_ratio"], expected, atol=1e-4)
    assert network.global_context(low, illumination_ratio=3.0).keys() == {"limits"}  # what was chosen stays
    plus = small(KinDPlus, decomposition_channels=8, restoration_channels=8, adjustment_channels=8)
    assert plus.global_context(low).keys() == {"limits"}  # it adjusts no light unless asked to


def test_without_room_for_a_survey_tiles_are_told_of_the_whole_by_its_statistics() -> None:
    widths = {"unet_channels": 32, "unet_multipliers": (1, 1), "detail_channels": 8}
    network, low = small(DiffLL, **widths, steps=2, prediction="x0", exposure=0.5), uneven(544, 640)
    noise = noise_for(network, low)
    with torch.inference_mode():
        expected = whole(network, low, noise)
        assert psnr(enhance_tiled(network, low, noise, 512, sample_whole=False), expected) > 30.0
