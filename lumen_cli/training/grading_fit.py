"""Fits a `Grading` to examples: small networks, each on batches of its own.

The loss is on whole pictures at a fraction of their size, so that a step costs some hundredths of a second on one core.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks.grading import EXPERTS, GRID, THUMBNAIL, Grading, bend, mean_stops
from lumen_cli.training.checkpoint import Checkpoint, Progress
from lumen_cli.training.grading_examples import Example, keyed_generator, on_grid, values
from lumen_cli.training.loop import Report, descend, run_steps

SHARES = {
    "head": {"pair": 0.4, "relit": 0.1, "dark": 0.25, "shaded": 0.1, "exposed": 0.15},
    "gate": {"pair": 0.4, "relit": 0.1, "dark": 0.1, "shaded": 0.05, "unseen": 0.2, "exposed": 0.15},
    "auto_exposure": {"dark": 0.28, "unseen": 0.72},
}
"""Of the kinds of examples in a part's batches; a kind that is missing leaves its share to the rest.
With few darkened photographs heads learn the pairs faster, but bend photographs as if they were pairs. The auto
exposure sees no bright pictures: without them it gains half a decibel on photographs darkened by 2 EV, and a bright
picture has its own expert, the input."""
EXPERT_OF = {
    "pair": "heads",
    "relit": "heads",
    "shaded": "heads",
    "dark": "exposed",
    "unseen": "exposed",
    "exposed": "input",
}
"""Which of `EXPERTS` is right for a kind. The white point says little about scenes that contain lamps or are dark by
nature, as those of pairs are."""
DECISION, FAVOUR = 3.0, math.exp(3.0)
"""After its training the gate's logits are multiplied by the former, because a mix of two curves fits neither kind of
picture. The odds of the exposed input are multiplied by the latter: a photograph bent like a pair loses more than a
pair bent like a photograph. Together they gain half a decibel on held-out darkened photographs and cost held-out pairs
nothing."""
LENGTHS = {"auto_exposure": 0.25, "gate": 0.5, "head": 1.0}
"""Of the parts, in terms of a head's."""
RATE, FINAL_RATE, WARMUP, WEIGHT_DECAY, AVERAGE = 1e-3, 1e-5, 50, 0.05, 0.998
REPORT_EVERY = 100
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Fitting:
    """Length, widths and device of a fit.

    Attributes:
        heads, channels: of the `Grading`.
        steps, minutes: length for each head; `minutes`, where given, wins over `steps`. See `LENGTHS` for the others.
        batch: examples in a step.
        seed: of the parameters and the batches.
        device: of the fit, which is always in float32.
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

    @property
    def parts(self) -> float:
        """Length of the whole fit, in terms of a head's."""
        return self.heads * LENGTHS["head"] + LENGTHS["auto_exposure"] + LENGTHS["gate"]


def fit(
    examples: Sequence[Example],
    fitting: Fitting = Fitting(),
    folder: Path | None = None,
    held_out: Sequence[Example] = (),
    watch: Callable[[Report], None] = lambda report: None,
) -> Grading:
    """Fit the auto exposure, the gate, then the heads one by one, each on its own batches.

    Args:
        examples: of the training pictures; of any sizes, from `load_examples` or made by hand.
        fitting: widths, length, device.
        folder: for each part's checkpoint, `auto_exposure.pt`, `gate.pt`, `head1.pt` …, from which an interrupted
            fit resumes; None for no checkpoints.
        held_out: examples at full size, scored before and after every head.
        watch: receives the reports.

    Returns:
        The grading on the CPU, in eval mode and without gradients.
    """
    bank = _Bank(examples, fitting.device)
    cuda = [fitting.device] if fitting.device.type == "cuda" else []
    if held_out:
        watch(Report("raw", 0, 0.0, 0.0, 0.0, {}, score(held_out, None)))
    with torch.random.fork_rng(devices=cuda):  # dropout and initial values come from the global generator
        torch.manual_seed(fitting.seed)
        grading = Grading(fitting.channels, fitting.heads).to(fitting.device)
        parts: list[tuple[str, str, nn.Module]] = [
            ("auto_exposure", "auto_exposure", grading.auto_exposure),
            ("gate", "gate", grading.gate),
            *(("head", f"head{number}", head) for number, head in enumerate(grading.heads, start=1)),
        ]
        fitted = 0
        for role, name, part in parts:
            weights = bank.weights(role)
            if weights is not None:
                loss = _loss(role, bank, weights, grading, part)
                progress = _fit_part(part, name, LENGTHS[role], loss, fitting, folder, watch)
            part.eval().requires_grad_(False)
            if role == "gate":
                grading.gate.choice.weight.mul_(DECISION)
                grading.gate.choice.bias.mul_(DECISION)
                grading.gate.choice.bias[EXPERTS.index("exposed")] += math.log(FAVOUR)
            fitted += role == "head"
            if held_out and role == "head":
                so_far = copy.deepcopy(grading).cpu().eval()
                so_far.heads = so_far.heads[:fitted]
                watch(Report(name, progress.step, 1.0, progress.seconds, 0.0, {}, score(held_out, so_far)))
    return grading.cpu().eval()


@torch.inference_mode()
def score(held_out: Sequence[Example], grading: Grading | None) -> dict[str, float]:
    """Plain PSNR in dB and SSIM of whole pictures, graded or as the model made them; means over the pictures."""
    scores: list[tuple[float, float]] = []
    for example in held_out:
        made, bright = values(example.made)[None], values(example.bright)[None]
        if grading is not None:
            made = bend(made, grading.curves_of(example.light[None].float(), F.adaptive_avg_pool2d(made, THUMBNAIL)))
        made = (made * 255.0).round() / 255.0
        scores.append((psnr(made, bright), ssim(made, bright)))
    means = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
    return dict(zip(("psnr", "ssim"), means, strict=True))


class Drawn(NamedTuple):
    """A batch: the dark pictures' light, results and bright pictures B×3×h×w; the right experts, B."""

    light: Tensor
    made: Tensor
    bright: Tensor
    expert: Tensor


class _Bank:
    """All examples as tensors N×3×GRID×GRID on one device, and the batches of them."""

    def __init__(self, examples: Sequence[Example], device: torch.device) -> None:
        if not examples:
            raise ValueError("there are no examples to fit a grading to")
        if unknown := {example.kind for example in examples} - EXPERT_OF.keys():
            raise ValueError(f"examples to fit to are of the kinds {', '.join(EXPERT_OF)}, not {', '.join(unknown)}")
        self.kinds = [example.kind for example in examples]
        self.expert = torch.tensor([EXPERTS.index(EXPERT_OF[kind]) for kind in self.kinds])
        self.light = torch.stack([example.light for example in examples]).to(device)
        self.made, self.bright = (
            torch.stack([on_grid(values(getattr(example, side))).half() for example in examples]).to(device)
            for side in ("made", "bright")
        )

    def weights(self, part: str) -> Tensor | None:
        """Of every example in the batches of a part, one of `SHARES`; None where there are none for it."""
        counts = Counter(self.kinds)
        weights = torch.tensor([SHARES[part].get(kind, 0.0) / counts[kind] for kind in self.kinds])
        return weights if bool(weights.any()) else None

    def draw(self, generator: torch.Generator, count: int, weights: Tensor) -> Drawn:
        """Examples by their weights, all seen through one window of 0.6…1 of each side, and flipped alike.

        Half of the results are tinted, so that a head does not learn the examples by heart.
        """
        device = self.light.device
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        share, place = torch.rand(2, 2, generator=generator)
        sides = (GRID * (0.6 + 0.4 * share)).long()
        starts = ((GRID - sides + 1) * place).long()
        rows, columns = (slice(int(start), int(start + side)) for start, side in zip(starts, sides, strict=True))
        flips = [axis for axis, flip in zip((2, 3), torch.rand(2, generator=generator) < 0.5, strict=True) if flip]
        tint = 0.1 * (2.0 * torch.rand(count, 3, generator=generator) - 1.0)
        tinted = torch.rand(count, 1, generator=generator) < 0.5
        light, made, bright = (
            side[chosen.to(device), :, rows, columns].float().flip(flips)
            for side in (self.light, self.made, self.bright)
        )
        gains = (1.0 + tint * tinted)[..., None, None].to(device)
        return Drawn(light, (made * gains).clamp(0.0, 1.0), bright, self.expert[chosen].to(device))


Loss = Callable[[torch.Generator, int], Tensor]
"""Of the generator and the number of examples of a step."""


def _loss(role: str, bank: _Bank, weights: Tensor, grading: Grading, part: nn.Module) -> Loss:
    """The loss of one part: the error of exposed or graded pictures, or of the gate's choice.

    The gate learns from the kinds alone: trained on the pictures' error it would settle halfway, because the heads
    memorise the examples. Heads and gate get the light with an error of 0.3 stops, so that they do not memorise it.
    """

    def loss(generator: torch.Generator, count: int) -> Tensor:
        drawn = bank.draw(generator, count, weights)
        error = 0.3 * torch.randn(count, 1, generator=generator).to(drawn.light.device)
        torch.manual_seed(generator.initial_seed())
        if role == "head":
            curves = part(mean_stops(drawn.light) + error, F.adaptive_avg_pool2d(drawn.made, THUMBNAIL))
            return grading_loss(bend(drawn.made, curves), drawn.bright)
        light = (drawn.light * torch.exp2(error)[..., None, None]).clamp(0.0, 1.0)
        exposure = grading.auto_exposure(light)
        if role == "gate":
            return F.cross_entropy(part(exposure), drawn.expert)
        return grading_loss(exposure.exposed, F.adaptive_avg_pool2d(drawn.bright, THUMBNAIL))

    return loss


def _fit_part(
    part: nn.Module,
    name: str,
    length: float,
    loss_of: Loss,
    fitting: Fitting,
    folder: Path | None,
    watch: Callable[[Report], None],
) -> Progress:
    """Fit one part, from its checkpoint if there is one; at the end it has the averaged parameters."""
    optimizer = torch.optim.AdamW(part.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    path = None if folder is None else folder / f"{name}.pt"
    state = Checkpoint(path, name, part, optimizer, AVERAGE, fitting.device)

    def step(number: int, fraction: float) -> dict[str, float] | None:
        loss = loss_of(keyed_generator(fitting.seed, name, number), fitting.batch)
        return descend(optimizer, {"error": loss}, learning_rate(number, fraction))

    part.train()
    run_steps(
        state,
        step,
        steps=max(1, round(length * fitting.steps)),
        minutes=None if fitting.minutes is None else length * fitting.minutes,
        batch=fitting.batch,
        watch=watch,
        report_every=REPORT_EVERY,
        save_every=fitting.save_every,
    )
    return state.progress


def grading_loss(finished: Tensor, bright: Tensor) -> Tensor:
    """Mean over the pictures of the root of the mean square error, so that those far off do not outweigh the others."""
    return (F.mse_loss(finished, bright, reduction="none").mean(dim=(1, 2, 3)) + 1e-4).sqrt().mean()


def learning_rate(step: int, fraction: float) -> float:
    """Rises over the first `WARMUP` steps, falls linearly to `FINAL_RATE` at fraction 1."""
    return RATE * min(1.0, step / WARMUP) * max(0.0, 1.0 - fraction) + FINAL_RATE
