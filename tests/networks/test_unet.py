"""The U-Net's attention: one result, whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from lumen_cli.networks import unet
from lumen_cli.networks.unet import AttentionBlock


@pytest.fixture
def block() -> AttentionBlock:
    torch.manual_seed(0)
    block = AttentionBlock(64).eval().requires_grad_(False)
    for layer in (block.q, block.k):
        layer.weight.mul_(6.0)  # scores that tell positions apart
    return block


def test_attention_in_bfloat16_is_that_in_float32(block, monkeypatch):
    x = torch.randn(2, 64, 12, 17)
    exact = block(x) - x
    with torch.autocast("cpu", torch.bfloat16):
        whole = block(x) - x
        monkeypatch.setattr(unet, "WHOLE_SCORES", 0)
        by_parts = block(x) - x
    assert not torch.equal(whole, by_parts), "two ways"
    for result in (whole, by_parts):
        assert float((result - exact).abs().mean()) < 0.02 * float(exact.abs().mean())


def test_attention_looks_at_every_position(block):
    x = torch.zeros(1, 64, 4, 6)
    x[..., 0, 0] = torch.randn(64)
    with torch.autocast("cpu", torch.bfloat16):
        near, far = block(x), block(x.flip(2, 3))
    torch.testing.assert_close(near.flip(2, 3), far, rtol=0.02, atol=0.02)
    assert float((near - x)[..., -1, -1].abs().max()) > 0.0


class Watched(TorchFunctionMode):
    """Counts calls of torch's attention, which tiles replace by one over the whole picture."""

    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += function is F.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


def test_who_watches_torchs_functions_sees_the_attention(block):
    with torch.autocast("cpu", torch.bfloat16), Watched() as watched:
        block(torch.randn(1, 64, 4, 6))
    assert watched.calls == 1


def test_attention_over_large_maps_looks_at_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = unet.AttentionBlock(32).eval()
    x = F.interpolate(torch.randn(1, 32, 6, 9), size=(60, 90), mode="bilinear")
    with torch.inference_mode():
        exact = block(x)
        monkeypatch.setattr(unet, "MOST_POSITIONS", 60 * 90 - 1)
        monkeypatch.setattr(unet, "POOLED_POSITIONS", 60 * 90 // 4)
        pooled = block(x)
        monkeypatch.setattr(unet, "POOLED_POSITIONS", 60 * 90)
        single = block(x)
    change = (exact - x).std()
    assert (single - exact).abs().max() < 1e-5 * change + 1e-6, "areas of one position are the positions"
    assert 0 < (pooled - exact).std() < 0.1 * change
