from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lumen_cli.networks.base import pad_to_multiple, padded_size


def test_long_sides_are_reflected_as_in_the_papers_code():
    picture = torch.rand(1, 3, 70, 90)
    assert torch.equal(pad_to_multiple(picture, 64), F.pad(picture, (0, 38, 0, 58), mode="reflect"))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 32), (1, 300), (64, 128)])
def test_every_size_grows_to_the_next_multiple_and_keeps_the_picture(size):
    picture = torch.rand(2, 3, *size)
    padded = pad_to_multiple(picture, 64)
    assert padded.shape[-2:] == padded_size(*size, 64)
    assert torch.equal(padded[..., : size[0], : size[1]], picture)


def test_a_multiple_is_left_alone():
    picture = torch.rand(1, 3, 64, 128)
    assert pad_to_multiple(picture, 64) is picture


def test_short_sides_are_reflected_again_and_again():
    row = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    assert pad_to_multiple(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
