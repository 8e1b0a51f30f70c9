"""The training loop: steps, averaging, checkpoints, validation, reports. One for networks, refiner and grading.

It runs in several processes as well, one per device, as `accelerate launch` starts them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lumen_cli.errors import LumenError, UsageError
from lumen_cli.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Workers:
    """The place of this process among others. rank: only rank 0 writes files; device: of this process."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this process validates, saves and reports."""
        return self.rank == 0

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the mean over all processes; a missing gradient counts as zero."""
        if self.count == 1:
            return
        import torch.distributed as distributed

        with_gradients = list(parameters)
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in with_gradients]
        )
        distributed.all_reduce(flat)
        flat /= self.count
        for parameter, part in zip(with_gradients, flat.split([p.numel() for p in with_gradients]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def agree(self, value: float) -> float:
        """The value of the leading process."""
        if self.count == 1:
            return value
        import torch.distributed as distributed

        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)


ALONE = Workers()


def join_workers(device: str) -> Workers:
    """Find the place of this process among those of a launcher; ALONE without a launcher.

    Args:
        device: as `choose_device` takes it; "cpu" keeps the processes off the GPUs.

    Raises:
        UsageError: there are several processes, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ALONE
    try:
        from accelerate import PartialState
    except ImportError:
        raise UsageError("several processes need accelerate: pip install 'lumen-cli[cluster]'") from None
    state = PartialState(cpu=device == "cpu")
    own = torch.device("cpu") if state.device.type == "cpu" else state.device
    return Workers(state.process_index, state.num_processes, own)


WARMUP = 0.02
FINAL_RATE = 0.02
MOST_BROKEN = 5
"""Steps in a row whose gradient is not finite. They change nothing; one more ends the training."""


@dataclass(frozen=True)
class Report:
    """What the loop reports: means since the last report, or the scores of a validation."""

    stage: str
    step: int
    fraction: float
    seconds: float
    pictures_per_second: float
    losses: dict[str, float]
    validation: dict[str, float] | None = None


Watch = Callable[[Report], None]
Step = Callable[[int, float], "dict[str, float] | None"]
"""Number of the step and finished fraction of the stage → loss terms by name, None where it changed nothing."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit to files of examples.

    steps, minutes: its length; minutes, where given, wins; clip: of the gradient's norm; decay: of the averaged
    parameters; save_every, validate_every: minutes.
    """

    device: torch.device
    dtype: torch.dtype
    seed: int = 0
    steps: int = 4000
    minutes: float | None = None
    clip: float = 1.0
    decay: float = 0.999
    save_every: float = 3.0
    validate_every: float = 10.0

    def recipe(self) -> dict[str, Any]:
        """What an interrupted fit must share with the one that resumes it: all but where it computes."""
        return {name: value for name, value in asdict(self).items() if name not in ("device", "dtype")}


def run_steps(
    state: Checkpoint,
    step: Step,
    *,
    steps: int,
    minutes: float | None,
    batch: int,
    watch: Watch,
    report_every: int,
    save_every: float,
    validate: Callable[[], dict[str, float]] | None = None,
    validate_every: float = math.inf,
    workers: Workers = ALONE,
) -> None:
    """Run the steps of a stage from where its checkpoint stands; the network ends with the averaged parameters.

    Args:
        state: of the stage, fresh or loaded.
        step: one optimizer step.
        steps: length of the stage.
        minutes: the same in minutes; where given, it wins over `steps`.
        batch: pictures of a step.
        watch: takes the reports.
        report_every: steps between two reports.
        save_every: minutes between two checkpoints.
        validate: returns scores of the network; it runs with the averaged parameters, also at the end.
        validate_every: minutes between two validations.
        workers: the processes that share the training.

    Raises:
        LumenError: the loss is not finite in several steps in a row.
    """
    progress = state.progress
    begun = progress.step
    started = saved = validated = reported = time.monotonic()
    spent, sums, counted, broken = progress.seconds, dict[str, float](), 0, 0

    def fraction() -> float:
        return progress.step / steps if minutes is None else progress.seconds / (60.0 * minutes)

    def report_scores(validate: Callable[[], dict[str, float]]) -> None:
        with state.averaged():
            scores = validate()
        progress.history.append({"step": float(progress.step), **{f"validation_{k}": v for k, v in scores.items()}})
        watch(Report(progress.stage, progress.step, min(fraction(), 1.0), progress.seconds, 0.0, {}, scores))

    while (finished := workers.agree(fraction())) < 1.0:
        terms = step(progress.step, finished)
        progress.step += 1
        state.average.update(state.model, progress.step)
        broken = 0 if terms is not None else broken + 1
        if broken > MOST_BROKEN:
            message = f"stage {progress.stage}, step {progress.step}: the loss is not finite"
            raise LumenError(message, remedy="precision=fp32")
        for name, value in (terms or {}).items():
            sums[name] = sums.get(name, 0.0) + value
        counted += terms is not None
        now = time.monotonic()
        progress.seconds = spent + now - started
        if not workers.leads:
            continue
        if counted == report_every or (counted and fraction() >= 1.0):
            means = {name: value / counted for name, value in sums.items()}
            speed = counted * batch * workers.count / max(now - reported, 1e-6)
            watch(Report(progress.stage, progress.step, min(fraction(), 1.0), progress.seconds, speed, means))
            progress.history.append({"step": float(progress.step), **means})
            sums, counted, reported = {}, 0, now
        if now - saved > 60.0 * save_every:
            state.save()
            saved = time.monotonic()
        if validate is not None and now - validated > 60.0 * validate_every:
            report_scores(validate)
            validated = reported = time.monotonic()
            sums, counted = {}, 0
    if workers.leads and not (progress.done and progress.step == begun):
        progress.done = True
        state.save()
        if validate is not None:
            report_scores(validate)
            state.save()
    state.use_average()


def descend(
    optimizer: torch.optim.Optimizer,
    terms: Mapping[str, Tensor],
    rate: float,
    clip: float = math.inf,
    workers: Workers = ALONE,
) -> dict[str, float] | None:
    """One optimizer step on the sum of loss terms; None, and no step, where the gradient is not finite.

    clip: bound on the gradient's norm.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    torch.stack([term.float() for term in terms.values()]).sum().backward()
    workers.share_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    # One transfer from the device for all the numbers.
    size, *values = torch.stack([norm, *terms.values()]).tolist()
    if not math.isfinite(size):
        return None
    optimizer.step()
    return dict(zip(terms, values, strict=True))


def learning_rate(fraction: float, rates: str = "cosine") -> float:
    """Factor on the peak rate at a fraction in [0, 1] of the stage; see `Stage.rates`."""
    if rates == "constant":
        return 1.0
    if rates == "staircase":
        return float(0.8 ** int(10.0 * fraction))
    if fraction < WARMUP:
        return max(fraction, 1e-3) / WARMUP
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * (fraction - WARMUP) / (1.0 - WARMUP)))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision with `dtype`; off for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def count_examples(watch: Watch, name: str, count: int, found: int = 0, every: int = 20) -> Callable[[int], None]:
    """A function that takes the number of finished examples and reports every 20th and the last.

    found: how many existed at the start.
    """
    started = time.monotonic()

    def report(done: int) -> None:
        if done % every == 0 or done == count:
            speed = max(done - found, 1) / max(time.monotonic() - started, 1e-6)
            watch(Report(name, done, done / count, done / speed, speed, {}))

    return report
