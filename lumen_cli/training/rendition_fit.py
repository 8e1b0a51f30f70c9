"""Fits a `Rendition` to examples: small networks, each on batches of its own.

The loss is on whole pictures at a fraction of their size, so that a step costs some hundredths of a second on one core.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lumen_cli.errors import LumenError
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.rendition import THUMBNAIL, Head, Rendition, bend
from lumen_cli.training import checkpoint
from lumen_cli.training.checkpoint import Average, Progress
from lumen_cli.training.curves import draw_curves
from lumen_cli.training.loop import Report
from lumen_cli.training.rendition_examples import Example, keyed_generator, values

SHARES = {"pair": 0.4, "relit": 0.1, "dark": 0.35, "exposed": 0.15}
"""Of the kinds of examples in a batch; a kind that is missing leaves its share to the rest. What a darkened photograph
looked like is hardly to be known: with few of them heads learn the pairs faster, but bend photographs as if they were
pairs."""
GRID = 96
"""Examples of any shape are brought to so many rows and columns, so that every batch is one tensor."""
RATE, FINAL_RATE, WARMUP, WEIGHT_DECAY, AVERAGE = 1e-3, 1e-5, 50, 0.05, 0.998
REPORT_EVERY = 100
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Fitting:
    """How long and how a rendition is fitted.

    Attributes:
        heads, channels: of the `Rendition`.
        steps, minutes: length for each head; `minutes`, where given, wins over `steps`.
        batch: examples in a step.
        seed: of the parameters and the batches.
        device: where it is fitted, always in float32.
        save_every: minutes between checkpoints.
    """

    heads: int = 3
    channels: int = 24
    steps: int = 4000
    minutes: float | None = None
    batch: int = 32
    seed: int = 0
    device: torch.device = CPU
    save_every: float = 3.0


def fit(
    examples: Sequence[Example],
    fitting: Fitting = Fitting(),
    folder: Path | None = None,
    held_out: Sequence[Example] = (),
    watch: Callable[[Report], None] = lambda report: None,
) -> Rendition:
    """Fit head after head to examples, each on batches of its own.

    Args:
        examples: of the training pictures; of any sizes, from `load_examples` or made by hand.
        fitting: widths, length, device.
        folder: where each head's state is kept, `head1.pt` …, from which an ended fitting goes on; None keeps nothing.
        held_out: examples at full size, scored before and after every head.
        watch: takes the reports.

    Returns:
        The rendition on the CPU, in eval mode and without gradients.
    """
    bank = _Bank(examples, fitting.device)
    cuda = [fitting.device] if fitting.device.type == "cuda" else []
    if held_out:
        watch(Report("raw", 0, 0.0, 0.0, 0.0, {}, score(held_out, None)))
    with torch.random.fork_rng(devices=cuda):  # dropout and initial values come from the global generator
        torch.manual_seed(fitting.seed)
        rendition = Rendition(fitting.channels, fitting.heads)
        for number, head in enumerate(rendition.heads, start=1):
            assert isinstance(head, Head)
            progress = _fit_head(head.to(fitting.device), f"head{number}", bank, fitting, folder, watch)
            head.cpu().eval().requires_grad_(False)
            if held_out:
                so_far = Rendition(fitting.channels, number)
                so_far.heads = rendition.heads[:number]
                scores = score(held_out, so_far.eval())
                watch(Report(progress.stage, progress.step, 1.0, progress.seconds, 0.0, {}, scores))
    return rendition.eval()


@torch.inference_mode()
def score(held_out: Sequence[Example], rendition: Rendition | None) -> dict[str, float]:
    """Plain PSNR in dB and SSIM of whole pictures, with the rendition or as the model made them; means over them."""
    scores: list[tuple[float, float]] = []
    for example in held_out:
        made, bright = values(example.made)[None], values(example.bright)[None]
        if rendition is not None:
            made = bend(made, rendition.curves_of(example.light[None], F.adaptive_avg_pool2d(made, THUMBNAIL)))
        made = (made * 255.0).round() / 255.0
        scores.append((psnr(made, bright), ssim(made, bright)))
    means = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
    return dict(zip(("psnr", "ssim"), means, strict=True))


class _Bank:
    """All examples as tensors N×3×GRID×GRID on one device, and the batches of them."""

    def __init__(self, examples: Sequence[Example], device: torch.device) -> None:
        if not examples:
            raise ValueError("there are no examples to fit a rendition to")
        if unknown := {example.kind for example in examples} - SHARES.keys():
            raise ValueError(f"examples to fit to are of the kinds {', '.join(SHARES)}, not {', '.join(unknown)}")
        sizes = Counter(example.kind for example in examples)
        self.weights = torch.tensor([SHARES[example.kind] / sizes[example.kind] for example in examples])
        self.light = torch.stack([example.light for example in examples]).to(device)
        self.made, self.bright = (
            torch.cat([_on_grid(getattr(example, side)) for example in examples]).to(device)
            for side in ("made", "bright")
        )

    def draw(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Light B×1 and thumbnails as `look` gives them, results and bright pictures B×3×h×w.

        All of them are seen through one window of 0.6…1 of each side, and flipped alike; the light is off by
        0.3 stops, and half of the results are tinted, so that a head does not learn the examples by heart.
        """
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator).to(self.light.device)
        share, place = torch.rand(2, 2, generator=generator)
        sides = (GRID * (0.6 + 0.4 * share)).long()
        starts = ((GRID - sides + 1) * place).long()
        rows, columns = (slice(int(start), int(start + side)) for start, side in zip(starts, sides, strict=True))
        flips = [axis for axis, flip in zip((2, 3), torch.rand(2, generator=generator) < 0.5, strict=True) if flip]
        error = 0.3 * torch.randn(count, 1, generator=generator)
        tint = 0.1 * (2.0 * torch.rand(count, 3, generator=generator) - 1.0)
        tinted = torch.rand(count, 1, generator=generator) < 0.5
        gains = (1.0 + tint * tinted)[..., None, None].to(self.light)
        made, bright = (side[chosen, :, rows, columns].float().flip(flips) for side in (self.made, self.bright))
        made = (made * gains).clamp(0.0, 1.0)
        return self.light[chosen] + error.to(self.light), F.adaptive_avg_pool2d(made, THUMBNAIL), made, bright


def _on_grid(picture: Tensor) -> Tensor:
    grid = F.interpolate(values(picture)[None], (GRID, GRID), mode="bilinear", antialias=True, align_corners=False)
    return grid.half()


def _fit_head(
    head: Head, name: str, bank: _Bank, fitting: Fitting, folder: Path | None, watch: Callable[[Report], None]
) -> Progress:
    """Fit one head, from its checkpoint where there is one; it ends with the averaged parameters."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    average, progress = Average(head, AVERAGE), Progress(name)
    path = None if folder is None else folder / f"{name}.pt"
    if path is not None and path.is_file():
        state = checkpoint.load(path, fitting.device)
        head.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        progress = Progress(**state["progress"])

    def fraction() -> float:
        if fitting.minutes is not None:
            return progress.seconds / (60.0 * fitting.minutes)
        return progress.step / fitting.steps

    head.train()
    started, spent = time.monotonic(), progress.seconds
    saved = reported = started
    total, counted = torch.zeros((), device=fitting.device), 0
    while fraction() < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress.step, fraction())
        generator = keyed_generator(fitting.seed, name, progress.step)
        light, thumbnail, made, bright = bank.draw(generator, fitting.batch)
        torch.manual_seed(generator.initial_seed())
        loss = rendition_loss(bend(made, head(light, thumbnail)), bright)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.step += 1
        average.update(head, progress.step)
        total, counted = total + loss.detach(), counted + 1

        now = time.monotonic()
        progress.seconds = spent + now - started
        progress.done = fraction() >= 1.0
        if progress.step % REPORT_EVERY == 0 or progress.done:
            mean = float(total) / counted
            if not math.isfinite(mean):
                raise LumenError(f"{name}, step {progress.step}: the loss is not finite; try examples of fp32")
            progress.history.append({"step": float(progress.step), "error": mean})
            speed = counted * fitting.batch / max(now - reported, 1e-6)
            watch(Report(name, progress.step, min(fraction(), 1.0), progress.seconds, speed, {"error": mean}))
            total, counted, reported = torch.zeros_like(total), 0, now
        if path is not None and (progress.done or now - saved > 60.0 * fitting.save_every):
            checkpoint.save(path, head, average, optimizer, progress)
            draw_curves(progress.history, path.with_suffix(".png"))
            saved = time.monotonic()
    head.load_state_dict(average.values)
    return progress


def rendition_loss(finished: Tensor, bright: Tensor) -> Tensor:
    """Mean over the pictures of the root of the mean square error, so that those far off do not outweigh the others."""
    return (F.mse_loss(finished, bright, reduction="none").mean(dim=(1, 2, 3)) + 1e-4).sqrt().mean()


def learning_rate(step: int, fraction: float) -> float:
    """Rises over the first `WARMUP` steps, falls linearly to `FINAL_RATE` at fraction 1."""
    return RATE * min(1.0, step / WARMUP) * max(0.0, 1.0 - fraction) + FINAL_RATE
