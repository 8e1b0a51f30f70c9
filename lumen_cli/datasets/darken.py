"""A small camera model: a well-exposed picture as if taken with too little light.

The steps follow Brooks et al., "Unprocessing Images for Learned Raw Denoising" (CVPR 2019): undo tone
curve, gamma and white balance; expose; add shot and read noise; quantise; develop again; compress as
JPEG. Everything is batched, not differentiable, and runs on the device of its input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.imaging.colour.convert import to_linear, to_srgb

# Table K.1 and K.2.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 " + "99 " * 32
)
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg(picture: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress.

    Args:
        picture: B×3×H×W in [0, 1], sRGB, any size.
        quality: [B], 1 … 100 in libjpeg's scale; pictures with more than 100 are returned unchanged.

    Returns:
        B×3×H×W in [0, 1], multiples of 1/255 where the input is 8-bit.
    """
    touched = quality <= 100
    if not bool(touched.any()):
        return picture
    height, width = picture.shape[-2:]
    padded = F.pad(picture[touched], (0, -width % 16, 0, -height % 16), mode="replicate") * 255.0
    forward = torch.tensor(_TO_YCBCR, device=picture.device, dtype=picture.dtype)
    ycbcr = torch.einsum("ij,bjhw->bihw", forward, padded)
    ycbcr[:, 0] -= 128.0
    scale = _table_scale(quality[touched].to(picture))
    luma = _quantise(ycbcr[:, :1], _table(_LUMA).to(picture), scale)
    chroma = _quantise(F.avg_pool2d(ycbcr[:, 1:], 2), _table(_CHROMA).to(picture), scale)
    full = torch.cat([luma + 128.0, F.interpolate(chroma, scale_factor=2.0, mode="bilinear")], dim=1)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(forward), full)[..., :height, :width]
    result = picture.clone()
    result[touched] = rgb.round().clamp(0.0, 255.0) / 255.0
    return result


def _table_scale(quality: Tensor) -> Tensor:
    """Libjpeg's percentage for a quality, as a factor, [B]."""
    quality = quality.clamp(1.0, 100.0)
    return torch.where(quality < 50.0, 50.0 / quality, 2.0 - quality / 50.0)


def _quantise(plane: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    b, c, h, w = plane.shape
    basis = _dct_basis().to(plane)
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = (table * scale.view(-1, 1, 1, 1, 1, 1)).round().clamp(1.0, 255.0)
    coefficients = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ coefficients @ basis).permute(0, 1, 2, 4, 3, 5).reshape(b, c, h, w)


@lru_cache(maxsize=2)
def _table(text: str) -> Tensor:
    return torch.tensor([float(word) for word in text.split()]).view(8, 8)


@lru_cache(maxsize=1)
def _dct_basis() -> Tensor:
    """Orthonormal DCT-II matrix, 8×8."""
    n = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * n[None, :] + 1) * n[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2.0)
    return basis.float()


@dataclass(frozen=True)
class Camera:
    """One camera setting per picture; every field is a float tensor of shape [B].

    Attributes:
        exposure: exposure compensation in EV; -3 takes an eighth of the light.
        shot: shot-noise factor: variance per unit of signal, signal in [0, 1] of full scale.
        read: standard deviation of the read noise, of full scale.
        row: standard deviation of the noise that a whole sensor row shares, of full scale.
        red, blue: white-balance gains of the sensor (green is 1).
        red_error, blue_error: factor by which the automatic white balance misses them.
        black: error of the black level, of full scale.
        smoothing: in-camera noise reduction, 0 (none) … 1 (3×3 mean).
        tone: strength of the tone curve, 0 (none) … 1 (smoothstep).
        bits: bits of the analogue-to-digital converter.
        quality: JPEG quality 1 … 100; above 100 means no compression.
    """

    exposure: Tensor
    shot: Tensor
    read: Tensor
    row: Tensor
    red: Tensor
    blue: Tensor
    red_error: Tensor
    blue_error: Tensor
    black: Tensor
    smoothing: Tensor
    tone: Tensor
    bits: Tensor
    quality: Tensor

    def to(self, device: torch.device) -> Camera:
        """The same settings on another device."""
        return Camera(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def draw_camera(
    count: int,
    generator: torch.Generator | None = None,
    *,
    exposure: tuple[float, float] = (-6.0, -1.0),
    noise: tuple[float, float] = (2e-5, 4e-3),
    uncompressed: float = 0.5,
) -> Camera:
    """Settings for `count` pictures.

    Args:
        count: number of pictures B.
        generator: source of randomness; its device holds the result.
        exposure: range of the exposure compensation in EV.
        noise: range of the shot-noise factor, drawn log-uniformly; read noise follows it as in
            Brooks et al., section 3.1.
        uncompressed: share of pictures that are not compressed as JPEG.
    """
    device = generator.device if generator is not None else torch.device("cpu")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    shot = uniform(math.log(noise[0]), math.log(noise[1])).exp()
    spread = torch.randn(count, generator=generator, device=device)
    read = (2.18 * shot.log() + 1.2 + 0.26 * spread).exp().sqrt()
    return Camera(
        exposure=uniform(*exposure),
        shot=shot,
        read=read,
        row=read * uniform(0.0, 0.3),
        red=uniform(1.6, 2.4),
        blue=uniform(1.4, 2.0),
        red_error=uniform(0.88, 1.12),
        blue_error=uniform(0.85, 1.18),
        black=uniform(-4e-4, 4e-4),
        smoothing=uniform(-0.6, 0.9).clamp_min(0.0),
        tone=uniform(0.0, 1.0),
        bits=uniform(11.5, 14.5).round(),
        quality=torch.where(uniform(0.0, 1.0) < uncompressed, torch.full_like(shot, 101.0), uniform(70.0, 98.0)),
    )


def darken(
    picture: Tensor,
    camera: Camera,
    generator: torch.Generator | None = None,
    *,
    levels: int = 255,
    shade: Tensor | None = None,
) -> Tensor:
    """The dark photograph of a bright one.

    Args:
        picture: B×3×H×W, sRGB values in [0, 1].
        camera: settings of B pictures.
        generator: source of the noise, on the picture's device.
        levels: steps of the resulting file, 255 for 8 bits, 65535 for 16.
        shade: B×1×H×W in [0, 1], the share of the exposure compensation at each pixel: 0 leaves a lit place unchanged.
            None for 1 everywhere.

    Returns:
        B×3×H×W in [0, 1], multiples of 1/levels.
    """
    camera = camera.to(picture.device)

    def each(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    gains = torch.stack([camera.red, torch.ones_like(camera.red), camera.blue], dim=1)[:, :, None, None]
    errors = torch.stack([camera.red_error, torch.ones_like(camera.red), camera.blue_error], dim=1)[:, :, None, None]

    exposure = each(camera.exposure) if shade is None else each(camera.exposure) * shade
    light = to_linear(undo_tone(picture, each(camera.tone))) / gains * torch.exp2(exposure)
    sensor = light + _noise(light, camera, generator) + each(camera.black)
    scale = torch.exp2(each(camera.bits)) - 1.0
    sensor = (sensor * scale).round().clamp_min(0.0) / scale
    developed = apply_tone(to_srgb((sensor * gains * errors).clamp(0.0, 1.0)), each(camera.tone))
    return jpeg((developed.clamp(0.0, 1.0) * levels).round() / levels, camera.quality)


def expose(picture: Tensor, stops: Tensor) -> Tensor:
    """The picture with 2^stops times the light: B×3×H×W, sRGB values in [0, 1], and stops [B] → the same, clipped."""
    light = torch.exp2(stops).view(-1, 1, 1, 1)
    return to_srgb((to_linear(picture) * light).clamp(0.0, 1.0))


def draw_shade(count: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Smooth maps of light and shade for `darken`, as from lamps, windows and backlight.

    Coarse noise, enlarged and passed through a soft threshold, so that most of a map is near 0 or near 1.

    Args:
        count: number of maps B.
        size: their sides in pixels.
        generator: source of randomness; its device holds the result.

    Returns:
        B×1×size×size in [0, 1].
    """
    device = generator.device if generator is not None else torch.device("cpu")
    coarse = torch.randn(count, 1, 4, 4, generator=generator, device=device)
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    threshold, steepness = torch.rand(2, count, 1, 1, 1, generator=generator, device=device)
    return torch.sigmoid((smooth + 1.5 * threshold - 0.4) * (2.0 + 10.0 * steepness))


def _noise(light: Tensor, camera: Camera, generator: torch.Generator | None) -> Tensor:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=light.device, dtype=light.dtype)

    b, c, h, w = light.shape
    variance = camera.shot.view(-1, 1, 1, 1) * light + camera.read.view(-1, 1, 1, 1) ** 2
    noise = normal(b, c, h, w) * variance.sqrt()
    smoothed = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    noise = torch.lerp(noise, smoothed, camera.smoothing.view(-1, 1, 1, 1))
    return noise + normal(b, 1, h, 1) * camera.row.view(-1, 1, 1, 1)


def apply_tone(values: Tensor, strength: Tensor | float) -> Tensor:
    """Blend of the identity and the smoothstep 3x² - 2x³ (Brooks et al., section 3.2); x in [0, 1]."""
    return torch.lerp(values, values * values * (3.0 - 2.0 * values), torch.as_tensor(strength).to(values))


def undo_tone(values: Tensor, strength: Tensor | float) -> Tensor:
    """Inverse of `apply_tone`, by Newton's method from the closed inverse of the pure smoothstep."""
    strength = torch.as_tensor(strength).to(values)
    x = torch.lerp(values, 0.5 - torch.sin(torch.asin((1.0 - 2.0 * values).clamp(-1.0, 1.0)) / 3.0), strength)
    for _ in range(4):
        slope = (1.0 - strength) + strength * 6.0 * x * (1.0 - x)
        x = (x - (apply_tone(x, strength) - values) / slope.clamp_min(0.05)).clamp(0.0, 1.0)
    return x
