"""How good a network is on held-out pairs, and what its pictures look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from lumen_cli.datasets.pairs import Pair
from lumen_cli.diffusion.noise import picture_noise
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.base import LowLightModel
from lumen_cli.training.data import load_bytes


@torch.inference_mode()
def enhance_bytes(model: LowLightModel, low: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 3×H×W → 3×H×W in [0, 1], rounded to 8 bits as a file would be."""
    shape = model.noise_shape(*low.shape[-2:])
    noise = picture_noise(0, low.cpu().numpy().tobytes(), shape)[None].to(device) if shape else None
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        batch = low[None].to(device).float() / 255.0
        enhanced = model(batch.contiguous(memory_format=torch.channels_last), noise=noise)
    return (enhanced[0].float() * 255.0).round() / 255.0


def validate(
    model: LowLightModel, pairs: Sequence[Pair], device: torch.device, dtype: torch.dtype, sheet: Path | None = None
) -> dict[str, float]:
    """Plain PSNR in dB and SSIM, means over the pairs; writes a sheet of the first four when asked to."""
    model.eval()
    scores: list[tuple[float, float]] = []
    rows: list[Tensor] = []
    for pair in pairs:
        low, high = load_bytes(pair.low), load_bytes(pair.high).to(device).float() / 255.0
        enhanced = enhance_bytes(model, low, device, dtype)
        scores.append((psnr(enhanced[None], high[None]), ssim(enhanced[None], high[None])))
        if len(rows) < 4:
            rows.append(torch.cat([low.to(device).float() / 255.0, enhanced, high], dim=2))
    model.train()
    if sheet is not None and rows:
        height, width = rows[0].shape[-2:]
        same = [row for row in rows if row.shape[-2:] == (height, width)]
        picture = (torch.cat(same, dim=1).permute(1, 2, 0).cpu().numpy() * 255.0 + 0.5).astype(np.uint8)
        cv2.imwrite(str(sheet), picture[..., ::-1])
    mean = np.mean(scores, axis=0)
    return {"psnr": float(mean[0]), "ssim": float(mean[1])}
