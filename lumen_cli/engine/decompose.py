"""Decomposes pictures of equal padded shape into reflectance and illumination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.engine.batch import as_batch, cropped
from lumen_cli.engine.parts import Computed, NetworkError, in_parts

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.imaging.picture import Picture
    from lumen_cli.networks.base import LowLightModel, Retinex


@dataclass(frozen=True)
class Fidelity:
    """The error of R ∘ L against the decomposed picture, on values in [0, 1].

    mae: mean absolute error; psnr: peak signal-to-noise ratio in dB, None without any error.
    """

    mae: float
    psnr: float | None


@dataclass(frozen=True, eq=False)
class Maps:
    """One decomposed picture; all maps are float32 in [0, 1], of the picture's size H×W.

    reflectance: H×W×3; illumination: H×W; latents: the maps of a model that decomposes a latent, each C×h×w with
    h, w smaller than H, W, of which the two pictures are renderings (see the model's `decompose`); reconstruction:
    R ∘ L, H×W×3, and prepared, the picture that the model decomposed; both only where requested.
    """

    reflectance: np.ndarray
    illumination: np.ndarray
    latents: Mapping[str, np.ndarray] | None = None
    reconstruction: np.ndarray | None = None
    prepared: np.ndarray | None = None

    def fidelity(self) -> Fidelity | None:
        """The error of `reconstruction` against `prepared`; None where they were not requested."""
        if self.reconstruction is None or self.prepared is None:
            return None
        difference = self.reconstruction - self.prepared
        square = float(np.square(difference, dtype=np.float64).mean())
        mae = float(np.abs(difference, out=difference).mean(dtype=np.float64))
        return Fidelity(mae, -10.0 * math.log10(square) if square > 0.0 else None)


def decompose_batch(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    reconstruct: bool = False,
) -> list[Computed[Maps]]:
    """Decompose pictures of one `shape_of`.

    Args:
        network: on the policy's device; one that decomposes.
        pictures: H×W×3 float32 in [0, 1] each; sizes may differ within the padded shape.
        policy: from `choose_device`.
        reconstruct: whether to compute R ∘ L too.

    Returns:
        For each picture its maps, or the error of a picture whose maps have NaN or infinity.
    """

    def run(part: slice, precision: str) -> list[Maps | NetworkError]:
        group = pictures[part]
        with policy.running(precision):
            low = as_batch(group, network, policy)
            retinex = network.decompose(low)
            planes = {"reflectance": retinex.reflectance, "illumination": retinex.illumination}
            if reconstruct:
                planes |= {"reconstruction": retinex.reconstruction, "prepared": network.prepare(low)}
            return [_maps(planes, retinex, index, picture, low) for index, picture in enumerate(group)]

    return in_parts(run, pictures, policy, network)


def _maps(
    planes: Mapping[str, Tensor], retinex: Retinex, index: int, picture: Picture, low: Tensor
) -> Maps | NetworkError:
    arrays: dict[str, np.ndarray] = {}
    for name, plane in planes.items():
        array = cropped(plane[index].float(), picture)
        if isinstance(array, NetworkError):
            return array
        arrays[name] = array
    arrays["illumination"] = arrays["illumination"][:, :, 0]
    latents = None
    if retinex.latents is not None:
        height, width = low.shape[-2:]
        latents = {}
        for name, latent in retinex.latents.items():
            # The part that shows the picture; the rest is padding.
            rows = -(-picture.height * latent.shape[-2] // height)
            columns = -(-picture.width * latent.shape[-1] // width)
            latents[name] = latent[index, :, :rows, :columns].float().contiguous().cpu().numpy()
    return Maps(**arrays, latents=latents)
