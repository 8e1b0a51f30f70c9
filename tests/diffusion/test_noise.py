from __future__ import annotations

import torch

from lumen_cli.diffusion import fresh_noise, picture_noise


def test_the_same_picture_and_seed_give_the_same_noise():
    assert torch.equal(picture_noise(7, b"night", (3, 5, 9)), picture_noise(7, b"night", (3, 5, 9)))


def test_seed_and_picture_both_matter():
    noise = picture_noise(7, b"night", (3, 5, 9))
    assert not torch.equal(noise, picture_noise(8, b"night", (3, 5, 9)))
    assert not torch.equal(noise, picture_noise(7, b"day", (3, 5, 9)))


def test_noise_is_standard_normal_and_the_same_on_every_machine():
    noise = picture_noise(0, b"", (3, 100, 100))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert noise.dtype == torch.float32
    torch.testing.assert_close(noise[0, 0, :3], torch.tensor(EXPECTED), rtol=0, atol=1e-6)


def test_a_handful_of_values_can_be_drawn():
    assert picture_noise(0, b"", (3, 1, 1)).shape == (3, 1, 1)


def test_fresh_noise_belongs_to_each_picture_whatever_its_batch_mates():
    batch = torch.stack([picture_noise(0, name, (3, 8, 8)) for name in (b"a", b"b")])
    together, alone = fresh_noise(batch), fresh_noise(batch[1:])
    for _ in range(3):
        drawn = next(together)
        assert torch.equal(drawn[1:], next(alone))
        assert not torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn, batch)


def test_fresh_noise_is_standard_normal_and_new_every_time():
    source = fresh_noise(picture_noise(0, b"", (3, 64, 64))[None])
    first, second = next(source), next(source)
    assert abs(float(torch.stack([first, second]).std()) - 1) < 0.02
    assert abs(float((first * second).mean())) < 0.03


EXPECTED = [-0.742813, -0.8842111, 0.2879662]
