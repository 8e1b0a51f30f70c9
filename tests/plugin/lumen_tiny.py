"""A third party's architecture, as small as one can be: what the tests of everything but the networks run.

It comes to lumen as any plug-in does, by the entry point beside this file.
"""

from __future__ import annotations

import os
import signal
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.networks.base import LowLightModel, Retinex, pad_to_multiple


class Tiny(LowLightModel):
    """Brightens by one convolution and adds a little of the noise.

    gain: brightness; multiple: its size multiple; fails_above: pictures brighter than this mean come out as NaN;
    deadly_above: those brighter than this end the process, as a lack of memory does;
    seconds: time a batch takes at least; noisy: whether it takes noise at all; stretch: factor on a picture before it
    is taken apart; latent: pixels a side of one of the latent, where it takes a latent apart, else None.
    """

    def __init__(
        self,
        gain: float = 2.0,
        multiple: int = 8,
        fails_above: float = 2.0,
        seconds: float = 0.0,
        noisy: bool = True,
        stretch: float = 1.0,
        latent: int | None = None,
        deadly_above: float = 2.0,
    ) -> None:
        super().__init__()
        self.gain, self.size_multiple, self.fails_above, self.seconds, self.noisy = (
            gain,
            multiple,
            fails_above,
            seconds,
            noisy,
        )
        self.stretch, self.latent, self.deadly_above = stretch, latent, deadly_above
        self.mix = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            for parameter in self.mix.parameters():
                parameter.copy_(torch.linspace(-0.3, 0.3, parameter.numel()).view_as(parameter))
        self.largest_batch = 0

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        multiple = self.size_multiple
        return (3, -(-height // multiple), -(-width // multiple)) if self.noisy else None

    def enhance(
        self,
        low: Tensor,
        *,
        noise: Tensor | None = None,
        steps: int | None = None,
        illumination_ratio: float | None = None,
    ) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(low))
        time.sleep(self.seconds)
        if low.mean() > self.deadly_above:
            os.kill(os.getpid(), signal.SIGKILL)
        height, width = low.shape[-2:]
        padded = pad_to_multiple(low, self.size_multiple)
        bright = (self.gain if illumination_ratio is None else illumination_ratio) * padded + 0.1 * self.mix(padded)
        for _ in range(steps or 1):
            if noise is not None:
                bright = bright + 0.05 * F.interpolate(noise, size=padded.shape[-2:], mode="nearest")
        bright = bright[..., :height, :width].clamp(0.0, 1.0)
        broken = low.mean(dim=(1, 2, 3), keepdim=True) > self.fails_above
        return torch.where(broken, torch.full_like(bright, float("nan")), bright)

    def prepare(self, low: Tensor) -> Tensor:
        return (self.stretch * low).clamp(0.0, 1.0)

    def decompose(self, low: Tensor) -> Retinex:
        """L is the brightest channel plus 0.1, R what is left; of a latent: of the picture in coarse blocks."""
        time.sleep(self.seconds)
        picture = self.prepare(low)
        broken = low.mean(dim=(1, 2, 3), keepdim=True) > self.fails_above
        picture = torch.where(broken, torch.full_like(picture, float("nan")), picture)
        if self.latent is None:
            return Retinex(*_apart(picture))
        blocks = F.avg_pool2d(picture, self.latent)
        reflectance, illumination = _apart(blocks)

        def rendered(latent: Tensor) -> Tensor:
            return F.interpolate(latent, scale_factor=self.latent, mode="nearest")

        latents = {"reflectance": reflectance, "illumination": illumination, "latent": blocks}
        return Retinex(
            rendered(reflectance), rendered(illumination), latents, lambda: rendered(reflectance * illumination)
        )

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        error = F.l1_loss(self.gain * batch["low"] + 0.1 * self.mix(batch["low"]), batch["high"])
        return {"error": error, "total": error}


def _apart(picture: Tensor) -> tuple[Tensor, Tensor]:
    illumination = (picture.amax(dim=1, keepdim=True) + 0.1).clamp(max=1.0)
    return picture / illumination, illumination
