import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumen_cli.benchmark.worker import count_operations


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_a_convolution_counts_its_multiplications_and_additions(mode: type) -> None:
    layer = nn.Conv2d(4, 6, 3, padding=1, groups=2).requires_grad_(False)
    with mode():
        returned, operations = count_operations(lambda: layer(torch.ones(2, 4, 8, 10)))
    assert returned.shape == (2, 6, 8, 10)
    assert operations == 2 * (2 * 8 * 10) * 6 * (4 // 2) * 9


@pytest.mark.parametrize("backend", ["FLASH_ATTENTION", "MATH"])
def test_attention_counts_the_same_fused_or_not(backend: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    query, key = torch.rand(2, 1, 40, 16), torch.rand(2, 1, 24, 16)
    with torch.inference_mode(), sdpa_kernel(getattr(SDPBackend, backend)):
        _, operations = count_operations(lambda: F.scaled_dot_product_attention(query, key, key))
    assert operations == 2 * 2 * 40 * 24 * (16 + 16)


def test_the_published_kind_counts_what_its_authors_graph_does() -> None:
    """Its three networks: 14.5, 44.5 and 4.6 · 10⁹ multiplications with additions at 600×400, each two operations."""
    from lumen_cli.benchmark.worker import published_network

    network = published_network("kind")
    low = torch.rand(1, 3, 48, 64)
    with torch.inference_mode():
        _, operations = count_operations(lambda: network.enhance(low))
    assert operations * (600 * 400) / (64 * 48) == pytest.approx(2 * (14.5 + 44.5 + 4.6) * 1e9, rel=2e-3)


@pytest.mark.slow
def test_the_published_lldiffusion_counts_what_its_authors_code_does() -> None:
    """41.5 · 10⁹ operations a step of a patch of 128×128, its encoder's 6.0 in every step."""
    from lumen_cli.benchmark.paper_baseline import paper_network
    from lumen_cli.networks.lldiffusion import LLDiffusion

    network = LLDiffusion(degradation_network=False).requires_grad_(False).eval()
    low = torch.rand(1, 3, 112, 112)  # which the network pads to 128×128
    noise = torch.rand(1, *network.noise_shape(112, 112))
    _, plain = count_operations(lambda: paper_network(network, "lldiffusion").enhance(low, noise, 2))
    with torch.inference_mode():
        _, ours = count_operations(lambda: network.enhance(low, noise=noise, steps=2))
        _, encoder = count_operations(lambda: network.encoder(torch.rand(1, 3, 128, 128)))
    assert plain == pytest.approx(2 * 41.5e9, rel=2e-3)
    assert encoder == pytest.approx(6.0e9, rel=1e-2)
    assert plain - ours >= encoder, "once in two steps"
