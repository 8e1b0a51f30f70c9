"""LightenDiffusion: the decomposition network first, then the diffusion, then both together.

The official release holds the second stage only. The first is our own: it asks of the latents what the paper
asks of Retinex maps, and of the decoder what the finished model asks of it: to turn a bright latent into a
clean picture with nothing but the dark picture's finer maps at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.datasets.darken import expose
from lumen_cli.diffusion.noise import normal
from lumen_cli.diffusion.sampler import target_of
from lumen_cli.diffusion.schedule import antithetic_timesteps
from lumen_cli.networks.base import LowLightModel
from lumen_cli.networks.lightendiffusion.network import LATENT_SCALE, LightenDiffusion, to_latent
from lumen_cli.networks.unet import ResBlock
from lumen_cli.training.recipes.base import Stage, fidelity, smoothness


@dataclass(frozen=True)
class Network:
    """Widths and sampler of the network to train; the fields of `LightenDiffusion`."""

    unet_channels: int = 32
    unet_multipliers: tuple[int, ...] = (1, 2, 3, 3)
    ctdn_channels: int = 32
    steps: int = 4
    prediction: str = "v"
    clip: float | None = 1.0


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms; see `LightenDiffusionRecipe.losses` for what each is."""

    transfer: float = 1.0
    reconstruction: float = 0.5
    thumbnail: float = 1.0
    product: float = 1.0
    reflectance: float = 0.5
    smooth: float = 0.3
    anchor: float = 0.1
    consistency: float = 0.001
    latent: float = 0.5
    picture: float = 1.0


@dataclass(frozen=True)
class LightenDiffusionRecipe:
    """Stages, losses and sizes.

    Attributes:
        reference: "paired" takes the illumination to aim at from the bright picture of the same scene, "unpaired"
            (the paper) from another scene's.
        consistency_every: the sampler is unrolled for the self-constrained term in one step of so many.
        draws: timesteps and noises drawn for every encoded picture of the second stage; encoding costs most there.
        relit: share of the first stage's pictures whose bright side is exposed anew, so that the decoder must
            take the brightness from the latent and cannot guess it from the finer maps.
    """

    architecture: str = "lightendiffusion"
    network: Network = Network()
    weights: Weights = Weights()
    reference: str = "paired"
    consistency_every: int = 4
    draws: int = 4
    relit: float = 0.5
    stages: tuple[Stage, ...] = field(
        default=(
            Stage("decomposition", steps=8000, batch=8, crop=128, rate=8e-4),
            Stage("diffusion", steps=4000, batch=8, crop=256, rate=8e-4),
            Stage("joint", steps=6000, batch=6, crop=256, rate=4e-4),
        )
    )

    def build(self) -> LightenDiffusion:
        """A fresh network of the recipe's widths, initialised for training (torch's global generator)."""
        model = LightenDiffusion(**self.network_config())  # type: ignore[arg-type]
        _initialise(model)
        return model

    def network_config(self) -> dict[str, object]:
        """The `network` entry of config.json."""
        return {**asdict(self.network), "unet_multipliers": list(self.network.unet_multipliers)}

    def trainable(self, model: LowLightModel, stage: Stage) -> Iterable[nn.Parameter]:
        """Stage one: the decomposition network. Stage two: the U-Net (as in the paper). Joint: U-Net and decoder.

        The encoder stays as stage one left it, for the Retinex block was trained on its latents.
        """
        model = cast(LightenDiffusion, model)
        if stage.name == "decomposition":
            return model.decom.parameters()
        if stage.name == "diffusion":
            return model.Unet.parameters()
        encoder = ("pyramid.", "channel_down.")
        decoder = [p for name, p in model.decom.ReconNet.named_parameters() if not name.startswith(encoder)]
        return [*model.Unet.parameters(), *decoder]

    def losses(
        self, model: LowLightModel, stage: Stage, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The stage's weighted terms; their sum is minimised."""
        model = cast(LightenDiffusion, model)
        if stage.name == "decomposition":
            return self._decomposition(model, batch, step, generator)
        if stage.name == "diffusion":
            return self._diffusion(model, batch, step, generator)
        return self._joint(model, batch, generator)

    def _decomposition(
        self, model: LightenDiffusion, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        low, high = batch["low"], _relight(batch["high"], self.relit, generator)
        both, levels = model.encode(torch.cat([low, high]))
        # Cut off from the encoder: else it makes the latents grey and flat, which is the easiest way to R ∘ L = F.
        reflectance, illumination = model.retinex(both.detach())
        (f_low, f_high), (r_low, r_high), (l_low, l_high) = both.chunk(2), reflectance.chunk(2), illumination.chunk(2)
        dark_maps = tuple(level.chunk(2)[0] for level in levels)

        # One decoder pass for the transfer, one for a reconstruction that alternates between dark and bright.
        rebuilt, maps = (f_low, dark_maps) if step % 2 else (f_high, tuple(level.chunk(2)[1] for level in levels))
        decoded = model.decode(
            torch.cat([r_low * l_high, rebuilt]),
            tuple(torch.cat([a, b]) for a, b in zip(dark_maps, maps, strict=True)),  # type: ignore[arg-type]
        )
        transferred, reconstructed = decoded.chunk(2)
        w = self.weights
        product = F.l1_loss(r_low * l_low, f_low.detach()) + F.l1_loss(r_high * l_high, f_high.detach())
        return {
            "transfer": w.transfer * fidelity(transferred, high),
            "reconstruction": w.reconstruction * fidelity(reconstructed, low if step % 2 else high),
            "thumbnail": w.thumbnail * (F.l1_loss(f_low, _thumbnail(low)) + F.l1_loss(f_high, _thumbnail(high))),
            "product": w.product * product,
            "reflectance": w.reflectance * F.l1_loss(r_low, r_high),
            "anchor": w.anchor * (_retinex_anchor(f_low, r_low, l_low) + _retinex_anchor(f_high, r_high, l_high)),
            "smooth": w.smooth * (smoothness(l_low, r_low.detach()) + smoothness(l_high, r_high.detach())),
        }

    def _diffusion(
        self, model: LightenDiffusion, batch: dict[str, Tensor], step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        high = batch["high"] if self.reference == "paired" else batch["high"].roll(1, dims=0)
        consistency = torch.tensor(step % self.consistency_every == 0)
        drawn = high.repeat(self.draws, 1, 1, 1)
        draw = {
            "timesteps": antithetic_timesteps(len(drawn), model.schedule.timesteps, generator),
            "noise": _normal(model, drawn, generator),
            "start": _normal(model, high, generator),
        }
        terms = model.losses({"low": batch["low"], "high": high, "consistency": consistency, **draw})
        del terms["total"]
        if "consistency" in terms:
            terms["consistency"] = terms["consistency"] * (self.weights.consistency / 0.001)
        return terms

    def _joint(
        self, model: LightenDiffusion, batch: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        low, high = batch["low"], batch["high"]
        with torch.no_grad():
            f_low, levels = model.encode(low)
            r_low, _ = model.retinex(f_low)
            _, l_high = model.retinex(model.encode(high)[0])
        target = 2.0 * r_low * l_high - 1.0
        noise = normal(target.shape, target, generator)
        timesteps = antithetic_timesteps(len(high), model.schedule.timesteps, generator)
        signal, spread = model.schedule.coefficients(timesteps, target)
        noisy = signal * target + spread * noise
        output = model.Unet(torch.cat([2.0 * f_low - 1.0, noisy], dim=1), timesteps.float()).float()
        wanted = target_of(target, noise, signal, spread, model.sampler.prediction)
        latent = to_latent(model.predict_latent(f_low, normal(f_low.shape, f_low, generator)))
        w = self.weights
        return {
            "noise": F.mse_loss(output, wanted),
            "latent": w.latent * F.l1_loss(latent, (target + 1.0) / 2.0),
            "picture": w.picture * fidelity(model.decode(latent, levels), high),
        }


def _normal(model: LightenDiffusion, pictures: Tensor, generator: torch.Generator) -> Tensor:
    shape = (len(pictures), *model.noise_shape(*pictures.shape[-2:]))
    return normal(shape, pictures, generator)


@torch.no_grad()
def _initialise(model: LightenDiffusion) -> None:
    """Keep the variance of signals through the decomposition network, which has no norms (He et al., 2015).

    With torch's default every convolution loses a third of its signal's variance and the biases soon drown it.
    """
    for name, layer in model.decom.named_modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        taps = layer.weight[0, 0].numel()
        transposed = isinstance(layer, nn.ConvTranspose2d)
        fan_in = layer.in_channels // layer.groups * (taps / 4 if transposed else taps)
        # model.2 and conv are summed: half the variance each. The others that precede a LeakyReLU lose half in it.
        activated = transposed or name.endswith(("model.0", "conv0", "conv1")) or name == "ReconNet.conv2"
        gain = 0.5 if name.endswith(("model.2", ".conv")) and not transposed else 2.0 if activated else 1.0
        nn.init.normal_(layer.weight, std=(gain / fan_in) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for module in model.Unet.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)
    nn.init.zeros_(model.Unet.conv_out.weight)


def _thumbnail(picture: Tensor) -> Tensor:
    """What a latent should look like: the picture at an eighth of its size, with the darks spread by a square root.

    Without an anchor the latents collapse: product and equal reflectance are met best by constants, and the decoder
    then works from the finer maps alone.
    """
    return F.avg_pool2d(picture, LATENT_SCALE).sqrt()


def _retinex_anchor(latent: Tensor, reflectance: Tensor, illumination: Tensor) -> Tensor:
    """How far R and L are from the estimate the Retinex block starts from, L_0 = max over channels, R_0 = F / L_0.

    A weak pull away from R = 1, L = F, which explains every latent and separates nothing.
    """
    latent = latent.detach()
    brightest = latent.amax(dim=1, keepdim=True)
    estimate = (latent / brightest).clamp(0.02, 0.98)
    # Compared before the sigmoid: after it, a reflectance that has once run into 1 gets no gradient any more.
    return F.l1_loss(illumination, brightest) + 0.1 * F.smooth_l1_loss(
        torch.logit(reflectance, 1e-6), torch.logit(estimate)
    )


def _relight(picture: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Expose a share of the pictures anew by -1.5 … +0.5 EV; B×3×H×W in [0, 1]."""
    count = len(picture)
    ev = torch.rand(count, generator=generator, device=picture.device) * 2.0 - 1.5
    chosen = torch.rand(count, generator=generator, device=picture.device) < share
    return torch.where(chosen.view(-1, 1, 1, 1), expose(picture, ev * chosen), picture)
