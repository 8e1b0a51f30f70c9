"""The Haar transform against the papers' code and against pytorch_wavelets."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lumen_cli.networks.diffll import analyse, library_analyse, library_synthesise, synthesise
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
