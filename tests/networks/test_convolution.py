from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumen_cli.networks import compose, upsampled_convolution


@pytest.mark.parametrize("size", [(40, 31), (12, 12), (12, 50), (7, 9), (1, 1)])
def test_two_convolutions_as_one_give_the_same_picture_and_gradients(size):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 5, padding=2).double()
    second = nn.Conv2d(8, 6, 5, padding=2).double()
    x = torch.rand(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = [x, first.weight, first.bias, second.weight, second.bias]
    plain, composed = second(first(x)), compose(x, first, second)
    # The kernels are folded in float32, whatever the layers' precision.
    torch.testing.assert_close(composed, plain, rtol=0, atol=1e-6)
    upstream = torch.rand_like(plain)
    wanted = torch.autograd.grad(plain, weights, upstream)
    got = torch.autograd.grad(composed, weights, upstream)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.inference_mode()
def test_a_convolution_of_repeated_pixels_without_repeating_them(size, layout):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, padding=1).double().to(memory_format=layout)
    x = torch.rand(2, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    wanted = layer(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(upsampled_convolution(x, layer), wanted, rtol=0, atol=1e-12)
