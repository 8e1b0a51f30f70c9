"""The Haar transform against the papers' code and against pytorch_wavelets."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lumen_cli.networks.diffll import DiffLL, analyse, library_analyse, library_synthesise, synthesise
from tests.reference import Figures

FIGURES = Figures("diffll")


@pytest.mark.parametrize(("forward", "backward"), [(analyse, synthesise), (library_analyse, library_synthesise)])
def test_bands_are_those_of_the_papers_code(forward, backward):
    average, details = forward(FIGURES["wavelet/x"])
    FIGURES.check("wavelet/dwt", torch.cat([average, details]))
    average, *details = FIGURES["wavelet/coeffs"].chunk(4)
    FIGURES.check("wavelet/iwt", backward(average, torch.cat(details)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (2, 3, 6, 10), (1, 3, 64, 38)])
def test_the_sums_equal_the_library(shape, layout):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    average, details = analyse(x)
    library_average, library_details = library_analyse(x)
    torch.testing.assert_close(average, library_average, rtol=0, atol=1e-6)
    torch.testing.assert_close(details, library_details, rtol=0, atol=1e-6)
    torch.testing.assert_close(synthesise(average, details), x, rtol=0, atol=1e-6)
    torch.testing.assert_close(synthesise(average, details), library_synthesise(average, details), rtol=0, atol=1e-6)


def test_what_each_band_reacts_to():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1::2] = 1.0
    average, details = analyse(x)
    assert torch.equal(average, torch.full((1, 1, 2, 2), 1.0))
    hl, lh, hh = details
    assert torch.all(hl == 1.0), "brighter columns on the right: a horizontal change"
    assert not lh.any()
    assert not hh.any()


def test_energy_is_kept_and_gradients_agree_with_the_library():
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    bands = torch.cat(analyse(x))
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    (gradient,) = torch.autograd.grad((bands * weights).sum(), x)
    (wanted,) = torch.autograd.grad((torch.cat(library_analyse(x)) * weights).sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-6)


def test_odd_sides_are_refused():
    with pytest.raises(ValueError, match="even sides, not 3×4"):
        analyse(torch.zeros(1, 3, 3, 4))


def test_the_library_is_loaded_late_and_without_a_warning():
    code = (
        "import sys, torch, lumen_cli.networks.diffll as w; assert 'pytorch_wavelets' not in sys.modules; "
        "w.library_analyse(torch.zeros(1, 1, 2, 2))"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "pkg_resources" not in done.stderr


TINY = {"unet_channels": 32, "unet_multipliers": (1, 1, 1), "detail_channels": 8, "steps": 2}


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
def test_a_network_works_with_any_wavelet(wavelet):
    torch.manual_seed(0)
    model = DiffLL(**TINY, wavelet=wavelet).eval()
    picture = torch.rand(1, 3, 32, 64)
    average, details = model.decompose_bands(picture)
    assert average.shape == (1, 3, 8, 16)
    assert [level.shape for level in details] == [(3, 3, 16, 32), (3, 3, 8, 16)]
    torch.testing.assert_close(model.compose_bands(average, details)[0], picture, rtol=0, atol=1e-6)
    grey, _ = model.decompose_bands(torch.full((1, 3, 32, 32), 0.75))
    torch.testing.assert_close(grey, torch.full_like(grey, 2.0), rtol=0, atol=1e-5)
    noise = torch.randn(1, *model.noise_shape(37, 50))
    with torch.inference_mode():
        bright = model.enhance(torch.rand(1, 3, 37, 50), noise=noise)
        sampled = model.sample_whole(torch.rand(1, 3, 37, 50), noise)
    assert bright.shape == (1, 3, 37, 50)
    assert sampled.shape == noise.shape
    terms = model.losses({"low": picture, "high": picture}, torch.Generator().manual_seed(0))
    terms["total"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_smooth_pictures_have_smaller_details_with_longer_wavelets():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, -1).expand(1, 3, 64, 64)
    sizes = {}
    for wavelet in ("haar", "db2"):
        (fine, _) = DiffLL(**TINY, wavelet=wavelet).decompose_bands(ramp)[1]
        sizes[wavelet] = float(fine[..., 2:-2, 2:-2].abs().max())
    assert sizes["db2"] < 0.01 * sizes["haar"]


@pytest.mark.parametrize(
    ("wavelet", "message"),
    [("db99", "not 'db99'; did you mean db9?"), ("mexh", "not 'mexh'"), ("db8", "db8 has 16 taps; .* has 8 pixels")],
)
def test_wavelets_that_cannot_be_are_refused(wavelet, message):
    with pytest.raises(ValueError, match=message):
        DiffLL(**TINY, wavelet=wavelet)
