"""AnlightenDiff against the numbers of the papers' own code: both variants, at full and at reduced width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F

from lumen_cli.diffusion import CosineSchedule
from lumen_cli.networks.anlightendiff import AnlightenDiff, diffuse, features, to_picture, to_residual
from lumen_cli.networks.unet import timestep_embedding
from tests.reference import Figures, fill_by_formula

VARIANTS = {"fs": "from-scratch", "ts": "two-step"}
CONFIGS = {f"{variant}.{width}": (variant, dim) for variant in VARIANTS for width, dim in (("half", 32), ("full", 64))}


class AnlightenFigures(Figures):
    """Of large maps every `rows`-th row is stored. The mean difference has a bound of its own, the sharper one."""

    def check(self, name: str, value: torch.Tensor) -> None:
        entry = self.entries[name]
        stored = value[..., :: entry.get("rows", 1), :] if value.dim() == 4 else value
        if stored.dim() == 0:
            stored = stored[None]
        super().check(name, stored)
        difference = float((stored.detach().double() - self[name].double()).abs().mean())
        assert difference <= entry["mean_atol"], f"{name}: off by {difference:.3g} on average"


FIGURES = AnlightenFigures("anlightendiff")


def check(name: str, value: torch.Tensor) -> None:
    """Check a figure where there is one of that name for this configuration."""
    if name in FIGURES.entries:
        FIGURES.check(name, value)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(config: str) -> AnlightenDiff:
    variant, dim = CONFIGS[config]
    network = AnlightenDiff(dim=dim, variant=VARIANTS[variant])
    fill_by_formula(network)
    return network.eval()


def bank() -> Iterator[torch.Tensor]:
    """The noise of the figures: three tensors, over and over."""
    return cycle(FIGURES["in/noise_bank"].split(1))


def test_parameters_of_the_two_step_variant_have_the_official_names_and_shapes():
    with torch.device("meta"):
        state = AnlightenDiff(variant="two-step").state_dict()
    assert [[name, list(value.shape)] for name, value in state.items()] == FIGURES.keys["anlightendiff two-step"]


def test_features():
    FIGURES.check("common/features_3to12", features(FIGURES["in/lr"])[:, 3:])


def test_centre_and_its_parts(network, config):
    """With gradients the modules run as they are, without them in frames: both meet the figures."""
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            center, _ = network.center(FIGURES["in/lr"])
        check(f"{config}/center", center)
    if config == "ts.full":
        outputs: list[torch.Tensor] = []
        parts = network.encoder["model"], network.histroEncoder["model"]
        hooks = [part.register_forward_hook(lambda _, __, output: outputs.append(output)) for part in parts]
        with torch.no_grad():
            network.center(FIGURES["in/lr"])
        for hook in hooks:
            hook.remove()
        FIGURES.check("ts.full/img_c", torch.sigmoid(outputs[0]))
        equalised = features(FIGURES["in/lr"])[:, 3:6]
        FIGURES.check("ts.full/zeta", (outputs[1] + equalised).clamp(0, 1))


def test_maps_on_the_way(network, config):
    if config != "fs.full":
        pytest.skip("figures of the full from-scratch network")
    low, maps, hooks = FIGURES["in/lr"], {}, []
    for owner, prefix in ((network.encoder, "encoder"), (network.model.unet, "unet")):
        for name in [*(f"downs.{i}.1" for i in range(6)), "mid_block2"]:
            part, key = owner.get_submodule(name), f"{prefix}.{name}"
            hooks.append(part.register_forward_hook(lambda _, __, output, key=key: maps.update({key: output.detach()})))
    with torch.enable_grad():
        _, rests = network.center(low)
        noisy = torch.cat([FIGURES["in/noise_bank"][:1], low], dim=1)
        network.model.unet(noisy, torch.tensor([37.0]), rests)
    for hook in hooks:
        hook.remove()
    for name in [name for name in FIGURES.outputs() if name.startswith("fs.full/feats")]:
        level, count = name.removeprefix("fs.full/feats").removesuffix("ch").split("_first")
        FIGURES.check(name, maps[f"encoder.downs.{level}.1"][:, : int(count)])
    FIGURES.check("fs.full/down5_t37", maps["unet.downs.5.1"])
    FIGURES.check("fs.full/mid_t37", maps["unet.mid_block2"])
    FIGURES.check("fs.full/posemb_t37", timestep_embedding(torch.tensor([37.0]), 64))
    FIGURES.check("fs.full/temb_t37", network.model.unet.embed(torch.tensor([37.0])))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("timestep", [37, 99])
def test_noise_estimate(network, config, timestep, gradients):
    if f"{config}/eps_t{timestep}" not in FIGURES.entries:
        pytest.skip("no such figure")
    low = FIGURES["in/lr"]
    with torch.set_grad_enabled(gradients):
        _, rests = network.center(low)
        noisy = torch.cat([FIGURES["in/noise_bank"][:1], low], dim=1)
        found = network.model.unet(noisy, torch.tensor([float(timestep)]), rests)
    FIGURES.check(f"{config}/eps_t{timestep}", found)


@pytest.mark.parametrize("timesteps", [4, 100])
@torch.inference_mode()
def test_whole_inference(network, config, timesteps, monkeypatch):
    if f"{config}/T{timesteps}_out" not in FIGURES.entries:
        pytest.skip("no such figure")
    monkeypatch.setattr(network, "schedule", CosineSchedule(timesteps=timesteps))
    low, seen = FIGURES["in/lr"], {}
    hook = network.model.unet.register_forward_pre_hook(lambda _, args: seen.update({int(args[1]): args[0][:, :3]}))
    residual = network.predict(low, bank(), timesteps)
    hook.remove()
    FIGURES.check(f"{config}/T{timesteps}_out", to_picture(residual, low))
    assert sorted(seen) == list(range(timesteps))
    if timesteps == 100:
        check(f"{config}/T100_x_after_t50", seen[49])


@torch.inference_mode()
def test_a_picture_that_has_to_be_padded(network, config, monkeypatch):
    name = f"{config}.odd/T1_out"
    if name not in FIGURES.entries:
        pytest.skip("no such figure")
    monkeypatch.setattr(network, "schedule", CosineSchedule(timesteps=1))
    low = FIGURES["in/odd_lr"]
    if config.startswith("ts"):  # the papers' code crops to 64×96 here; lumen pads instead
        top, left = (round((side - wanted) / 2) for side, wanted in zip(low.shape[-2:], (64, 96), strict=True))
        low = low[..., top : top + 64, left : left + 96]
    noise = torch.zeros(1, *network.noise_shape(*low.shape[-2:]))
    FIGURES.check(name, network.enhance(low, noise=noise, steps=1))


def training_batch(bright: bool) -> dict[str, torch.Tensor]:
    return {
        "low": FIGURES["in/train_lr"],
        "high": FIGURES["in/train_hr"],
        "timesteps": FIGURES["in/train_t"].long(),
        "noise": FIGURES["in/train_noise"],
        "bright_center": torch.tensor(bright),
    }


@pytest.mark.parametrize("case", ["fs.full.train/ref", "fs.full.train/pred", "ts.full.train"])
def test_training_losses_and_gradients(network, config, case):
    if not case.startswith(config):
        pytest.skip("figures of the full networks")
    network.train()
    batch = training_batch(bright=case.endswith("ref"))
    outputs: list[torch.Tensor] = []
    hook = network.model.unet.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    image = "loss_dfpl" if config == "fs.full" else "loss_lpips"
    kinds = {"loss_l1": "l1", "loss_l2": "l2", f"{image}_l1": F.l1_loss, f"{image}_mse": F.mse_loss}
    for name, kind in kinds.items():
        gradients = {entry for entry in FIGURES.outputs() if entry.startswith(f"{case}/{name}/")}
        with torch.set_grad_enabled(bool(gradients)):
            losses = network.losses(batch, loss=kind)
        FIGURES.check(f"{case}/{name}", losses["total"])
        if gradients:
            network.zero_grad()
            losses["total"].backward()
            check_gradients(network, f"{case}/{name}")
    hook.remove()
    check(f"{case}/noise_pred", outputs[0])
    check(f"{case}/noise_pred_first", outputs[0][:1])

    with torch.no_grad():
        center = batch["high"] if case.endswith("ref") else network.center(batch["low"])[0]
        clean = to_residual(batch["high"], batch["low"])
        at = diffuse(clean, center, batch["noise"], batch["timesteps"], network.schedule)
    check("fs.full.train/x_start_first", clean[:1])
    check(f"{case}/target_first", at.shifted[:1])
    check(f"{case}/x_t_first", at.noisy[:1])
    check(f"{case}/dfpl_img_pred_first", at.picture(outputs[0], batch["low"])[:1])
    check(f"{case}/dfpl_img_true_first", at.picture(at.shifted, batch["low"])[:1])
    network.zero_grad()
    network.eval()


def check_gradients(network: AnlightenDiff, prefix: str) -> None:
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert gradients
    assert all(name.startswith("model.unet.") for name in gradients), "the encoder is not trained"
    FIGURES.check(f"{prefix}/gradnorm_unet", torch.stack([g.norm() for g in gradients.values()]).norm())
    named = [name for name in FIGURES.outputs() if name.startswith(f"{prefix}/grad/")]
    assert len(named) == 4
    for name in named:
        FIGURES.check(name, gradients[name.removeprefix(f"{prefix}/grad/")])


@pytest.mark.slow
def test_every_figure_was_checked(request: pytest.FixtureRequest):
    if len(request.session.items) < 5 or request.config.option.keyword:
        pytest.skip("only meaningful when the whole file runs")
    assert FIGURES.outputs() - FIGURES.checked == set()
