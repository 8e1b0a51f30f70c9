"""Train the grading of a model: collect its results on training pictures, fit small networks to them, write a folder.

The loss is on whole pictures at a fraction of their size, so that a step costs some hundredths of a second on one core.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lumen_cli.datasets import Pair, TrainingFiles
from lumen_cli.metrics import psnr, ssim
from lumen_cli.networks import average_to
from lumen_cli.networks.grading import EXPERTS, GRID, THUMBNAIL, Grading, bend, mean_stops
from lumen_cli.registry import CARD_FILE, CONFIG_FILE, GRADING_FILE, NETWORK_FILE
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.load import load, save_weights
from lumen_cli.training.checkpoint import Checkpoint, Progress
from lumen_cli.training.grading_examples import (
    UNSEEN,
    VARIANTS,
    Example,
    Sources,
    collect,
    keyed_generator,
    load_pair,
    make_example,
    on_grid,
    unseen_examples,
    values,
)
from lumen_cli.training.loop import Report, descend, run_steps
from lumen_cli.training.run import record

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
            made = bend(made, grading.curves_of(example.light[None].float(), average_to(made, THUMBNAIL)))
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
            curves = part(mean_stops(drawn.light) + error, average_to(drawn.made, THUMBNAIL))
            return grading_loss(bend(drawn.made, curves), drawn.bright)
        light = (drawn.light * torch.exp2(error)[..., None, None]).clamp(0.0, 1.0)
        exposure = grading.auto_exposure(light)
        if role == "gate":
            return F.cross_entropy(part(exposure), drawn.expert)
        return grading_loss(exposure.exposed, average_to(drawn.bright, THUMBNAIL))

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


@dataclass(frozen=True)
class GradingRun:
    """Which model's grading is trained on which pictures.

    Attributes:
        card: the model; the training replaces a grading that it has.
        data: the folders, as the user typed them.
        files: the files in these folders.
        validation: held-out pairs, possibly none.
        fitting: length, widths, device and seed; device and seed apply to the examples too.
        dtype: the precision in which the model makes the examples.
    """

    card: ModelCard
    data: tuple[str, ...]
    files: TrainingFiles
    validation: Sequence[Pair]
    fitting: Fitting
    dtype: torch.dtype


def train_grading(run: GradingRun, out: Path, watch: Callable[[Report], None]) -> Path:
    """Collect the examples, fit the grading and write the model folder `out/model`.

    Resumes an interrupted training in `out`; UsageError if that training has other settings.
    """
    sources = Sources(run.files, run.fitting.seed)
    fitting = run.fitting
    record(
        out,
        fitting.device,
        run.data,
        run.files,
        run.dtype,
        grading={"channels": fitting.channels, "heads": fitting.heads},
        model=run.card.name,
        sha256=run.card.weights_sha256,
        validation=len(run.validation),
        variants=VARIANTS,
        unseen=UNSEEN,
        batch=fitting.batch,
        steps=fitting.steps if fitting.minutes is None else None,
        minutes=fitting.minutes,
        seed=fitting.seed,
    )
    model = load(run.card).to(run.fitting.device)
    model.grading = None
    if run.fitting.device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def example(number: int) -> Example:
        return make_example(model, *sources.draw(number), run.fitting.device, run.dtype)

    def held_out(number: int) -> Example:
        low, high = load_pair(run.validation[number])
        return make_example(model, "held-out", low, values(high), run.fitting.device, run.dtype)

    examples = collect(out / "examples.pt", len(sources), example, watch)
    validation = collect(out / "held-out.pt", len(run.validation), held_out, watch)
    examples += unseen_examples(run.files, run.fitting.seed, watch)
    grading = fit(examples, run.fitting, out, validation, watch)
    return export_grading(run.card, grading, out / "model")


def export_grading(card: ModelCard, grading: Grading, folder: Path) -> Path:
    """Write a copy of the model's folder with this grading, in float16; returns the folder.

    The network's file is copied; a model that averages others has none. The single file of an earlier version is split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = json.loads((card.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    model = load(card)
    model.grading = grading
    weights: dict[str, Any] = {}
    if not card.members:
        weights["network"] = _copy_network(card, folder)
    weights["grading"] = save_weights(grading.state_dict(), folder / GRADING_FILE, torch.float16)
    config["weights"] = {**weights, "parameters": sum(parameter.numel() for parameter in model.parameters())}
    config.pop("rendition", None)
    channels = grading.heads[0].levels[0][0].out_channels  # type: ignore[index, union-attr]
    config["grading"] = {"channels": channels, "heads": len(grading.heads)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (card.folder / CARD_FILE).is_file():
        shutil.copyfile(card.folder / CARD_FILE, folder / CARD_FILE)
    return folder


def _copy_network(card: ModelCard, folder: Path) -> dict[str, Any]:
    """Copy the network's weights as they are stored; returns the file's entry in config.json."""
    file = card.files["network"]
    if card.grading is None or "grading" in card.files:
        shutil.copyfile(card.path(file), folder / file.file)
        return file.model_dump(exclude_none=True)
    tensors = {name: tensor for name, tensor in load_file(card.path(file)).items() if not name.startswith("rendition.")}
    return save_weights(tensors, folder / NETWORK_FILE)
