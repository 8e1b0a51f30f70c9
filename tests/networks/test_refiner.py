"""The refiner's network: what it sees, and where it changes nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lumen_cli.networks.refiner import FAINT, LEVELS, SQUARE, Refiner, see, share_of


def inputs(rows: int = 8, columns: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    fine = torch.rand(2, 3, SQUARE * rows, SQUARE * columns), torch.randn(2, 3, SQUARE * rows, SQUARE * columns)
    return *fine, torch.rand(2, 3 * LEVELS, rows, columns), 1.0 + 2.0 * torch.rand(2, 1, rows, columns)


def test_it_is_small_and_changes_nothing_before_training() -> None:
    network, given = Refiner(), inputs()
    assert sum(parameter.numel() for parameter in network.parameters()) <= 300_000
    assert not network(see(*given, torch.float32), share_of(*given[2:])).any()


def test_without_a_gain_or_without_noise_nothing_changes() -> None:
    network, (shrunk, removed, deviation, stops) = Refiner(), inputs()
    torch.nn.init.normal_(network.last.weight)
    stops[:, :, :, :4] = FAINT
    deviation[:, :, :, 4:6] = 0.0
    change = network(see(shrunk, removed, deviation, stops, torch.float32), share_of(deviation, stops))
    assert not change[..., : 6 * SQUARE].any()
    assert change[..., 6 * SQUARE :].abs().min() > 0


def test_squares_of_pixels_become_channels_in_both_precisions() -> None:
    given = inputs()
    planes = torch.cat([2.0 * given[0], 8.0 * given[1]], dim=1)
    for dtype in (torch.float32, torch.bfloat16):
        seen = see(*given, dtype)
        expected = F.pixel_unshuffle(planes.to(dtype), SQUARE)
        assert torch.equal(seen[:, : expected.shape[1]], expected)
        assert seen.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(seen[:, -1], torch.ones_like(seen[:, -1]))


def test_a_value_depends_on_its_margin_alone() -> None:
    network, given = Refiner(), inputs(48, 40)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.05)
    network = network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole = network(see(*given, torch.float32), share_of(*given[2:]))
        margin = network.margin // SQUARE
        fine, coarse = slice(0, SQUARE * (24 + margin)), slice(0, 24 + margin)
        part = [each[:, :, fine if index < 2 else coarse] for index, each in enumerate(given)]
        cut = network(see(*part, torch.float32), share_of(*part[2:]))
    inner = SQUARE * 24
    torch.testing.assert_close(cut[:, :, :inner], whole[:, :, :inner], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(cut[:, :, inner:], whole[:, :, inner : cut.shape[2]], rtol=1e-3, atol=1e-4)
