from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lumen_cli.benchmark.paper_baseline import Baseline, paper_network
from lumen_cli.benchmark.worker import count_operations
from lumen_cli.engine.device import choose_device
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lightendiffusion import LightenDiffusion
from lumen_cli.networks.lldiffusion import LLDiffusion
from lumen_cli.registry.architectures import ARCHITECTURES, network_class

CPU = choose_device("cpu", "fp32")
STEPS = 2


def built(name: str, **changes: Any) -> LowLightModel:
    torch.manual_seed(0)
    known = ARCHITECTURES[name]
    return CPU.prepare(network_class(name)(**{**known.tiny, **changes}).requires_grad_(False).eval())


def example(network: LowLightModel, height: int = 48, width: int = 64) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    shape = network.noise_shape(height, width)
    low = 0.3 * torch.rand(1, 3, height, width, generator=generator)
    return low, None if shape is None else torch.randn(1, *shape, generator=generator)


def calls_of(module: nn.Module) -> list[None]:
    """Grows by one with each call of the module."""
    seen: list[None] = []
    module.register_forward_hook(lambda *_: seen.append(None))
    return seen


def test_the_two_step_variant_gives_the_same_picture_as_the_papers_way() -> None:
    network = built("anlightendiff", variant="two-step")
    low, noise = example(network)
    with CPU.running("fp32"):
        ours = network.enhance(low.contiguous(memory_format=torch.channels_last), noise=noise, steps=STEPS)
        theirs = paper_network(network, "anlightendiff").enhance(low, noise, STEPS)
    assert float((theirs - ours).abs().max()) < 1e-3
    assert float(ours.std()) > 0.01


def test_lightendiffusion_encodes_three_times_and_takes_apart_twice() -> None:
    network = built("lightendiffusion")
    plain = paper_network(network, "lightendiffusion")
    assert isinstance(plain.network, LightenDiffusion)
    encoder, retinex = calls_of(plain.network.decom.ReconNet.pyramid), calls_of(plain.network.decom.retinex)
    estimator = calls_of(plain.network.Unet)
    plain.enhance(*example(network), STEPS)
    assert (len(encoder), len(retinex), len(estimator)) == (3, 2, STEPS)
    assert plain.baseline.redundant


def test_lldiffusion_encodes_in_every_step() -> None:
    network = built("lldiffusion")
    plain = paper_network(network, "lldiffusion")
    assert isinstance(plain.network, LLDiffusion)
    encoder = calls_of(plain.network.encoder)
    plain.enhance(*example(network), 4)
    assert len(encoder) == 4


def test_anlightendiff_convolves_the_encoders_maps_in_every_step() -> None:
    network = built("anlightendiff")
    plain = paper_network(network, "anlightendiff")
    low, noise = example(network)

    def operations(steps: int) -> tuple[int, int]:
        with CPU.running("fp32"):
            _, ours = count_operations(lambda: network.enhance(low, noise=noise, steps=steps))
            _, theirs = count_operations(lambda: plain.enhance(low, noise, steps))
        return ours, theirs

    (ours_once, theirs_once), (ours_twice, theirs_twice) = operations(1), operations(2)
    assert theirs_twice - theirs_once > 1.1 * (ours_twice - ours_once)


@pytest.mark.parametrize("name", ["diffll", "lightendiffusion"])
def test_attention_is_the_whole_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = built(name)
    plain = paper_network(network, name)
    fused: list[None] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def noted(*arguments: Tensor) -> Tensor:
        fused.append(None)
        return real(*arguments)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    low, noise = example(network)
    plain.enhance(low, noise, STEPS)
    assert not fused
    network.enhance(low, noise=noise, steps=STEPS)
    assert fused


def test_the_papers_code_takes_one_picture() -> None:
    network = built("kind")
    with pytest.raises(ValueError, match="one picture"):
        paper_network(network, "kind").enhance(torch.rand(2, 3, 16, 16), None, None)


def test_an_architecture_from_elsewhere_is_run_as_it_is() -> None:
    from lumen_tiny import Tiny

    network = Tiny().requires_grad_(False).eval()
    low, noise = example(network)
    plain = paper_network(network, "tiny")
    assert torch.equal(plain.enhance(low, noise, 2), network.enhance(low, noise=noise, steps=2))
    assert plain.baseline == Baseline()
