"""How fast models are: every case in a process of its own, one after the other."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.benchmark.speed_request import PUBLISHED, SpeedCase, SpeedRequest, SpeedResult
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.registry.architectures import ARCHITECTURES, architectures
from lumen_cli.registry.card import ModelCard
from lumen_cli.registry.catalog import find_model, list_models

WORKER = "lumen_cli.benchmark.worker"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class _Subject:
    """A model to time: its name in the table, its architecture, and its card where it is no published network."""

    name: str
    architecture: str
    card: ModelCard | None


def run_speed(
    request: SpeedRequest,
    *,
    begun: Callable[[SpeedCase], None] | None = None,
    done: Callable[[SpeedResult], None] | None = None,
) -> list[SpeedResult]:
    """Time everything asked for.

    What goes wrong with one case (a precision the model does not support, memory, a crash) is the `error` of its row,
    and the rest goes on. Where the process dies with the papers' way, it is measured again without it.

    Args:
        request: what to time.
        begun: called before a case is started.
        done: called with each row.

    Raises:
        ModelError: no such model. UsageError: no such device, or nothing to time. Both before anything is started.
    """
    cases = speed_cases(request)
    _check_device(request.device)
    results = []
    for case in cases:
        if begun is not None:
            begun(case)
        result = _row(case, request.timeout)
        if done is not None:
            done(result)
        results.append(result)
    return results


def speed_cases(request: SpeedRequest) -> list[SpeedCase]:
    """The rows that `run_speed` will make, in their order; raises as it does."""
    return [
        SpeedCase(
            model=subject.name,
            architecture=subject.architecture,
            folder=None if subject.card is None else str(subject.card.folder.absolute()),
            width=width,
            height=height,
            precision=precision,
            batch=batch,
            device=request.device,
            repeat=request.repeat,
            warmup=request.warmup,
            threads=request.threads,
            steps=request.steps,
            plain=request.plain,
            pipeline=request.pipeline,
            pictures=request.pictures,
            detail=request.detail,
        )
        for subject in _subjects(request)
        for width, height in request.sizes
        for precision in request.precisions
        for batch in request.batches
    ]


def _subjects(request: SpeedRequest) -> list[_Subject]:
    found: dict[str, _Subject] = {}
    for name in request.models:
        for subject in _named(name, request.published):
            found.setdefault(subject.name, subject)
    if not found:
        raise UsageError("there is no model to time")
    return list(found.values())


def _named(name: str, published: bool) -> Iterator[_Subject]:
    """What a name stands for. "all" is every model, or every architecture of ours at its published size."""
    if name == "all":
        names = sorted(ARCHITECTURES) if published else [card.name for card in list_models() if not card.to_pull]
        for each in names:
            yield from _named(PUBLISHED + each if published else each, published)
    elif name.startswith(PUBLISHED) or (published and name in ARCHITECTURES):
        yield _published(name.removeprefix(PUBLISHED))
    elif published:
        yield _published(find_model(name).architecture)
    else:
        card = find_model(name)
        yield _Subject(card.name, card.architecture, card)


def _published(architecture: str) -> _Subject:
    known = architectures()
    if architecture not in known:
        raise UsageError(f"there is no architecture {architecture}; known: {', '.join(sorted(known))}")
    return _Subject(PUBLISHED + architecture, architecture, None)


def _check_device(device: str) -> None:
    """UsageError where there is none of that name."""
    if device in ("auto", "cpu"):
        return
    from lumen_cli.engine.device import choose_device

    choose_device(device, "fp32")


def _row(case: SpeedCase, timeout: float | None) -> SpeedResult:
    refused = _refusal(case)
    if refused is not None:
        return case.failed(refused)
    try:
        return _in_a_process(case, timeout)
    except _DiedError as death:
        if not case.plain:
            return case.failed(str(death))
        why = str(death)
    alone = _row(dataclasses.replace(case, plain=False), timeout)
    return alone if alone.error is not None else dataclasses.replace(alone, plain_error=why)


def _refusal(case: SpeedCase) -> str | None:
    """Why the model cannot run this case, as far as its card says."""
    if case.folder is None:
        return None
    card = find_model(case.folder)
    if case.precision not in ("auto", *card.precisions):
        return f"{card.name} does not run in {case.precision}; it supports {', '.join(card.precisions)}"
    if card.steps_range is not None:
        try:
            card.steps_for(case.steps)
        except LumenError as error:
            return str(error)
    return None


class _DiedError(Exception):
    """A process ended without an answer; why."""


def _in_a_process(case: SpeedCase, timeout: float | None) -> SpeedResult:
    environment = dict(os.environ)
    if case.threads is not None:
        # Before torch is imported, so that no library makes more threads than are used.
        environment |= {"OMP_NUM_THREADS": str(case.threads), "MKL_NUM_THREADS": str(case.threads)}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", WORKER],
            input=json.dumps(dataclasses.asdict(case)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=_PACKAGE_PARENT,  # -m looks for modules where it is started, and there may be anything there
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _DiedError(f"took longer than {timeout:g} s") from None
    lines = ended.stdout.splitlines()
    if ended.returncode == 0 and lines:
        return SpeedResult.of(json.loads(lines[-1]))
    raise _DiedError(_death(ended.returncode, ended.stderr))


def _death(code: int, said: str) -> str:
    """Why a process ended without an answer: its signal, or the last line it wrote."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; too little memory?" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    return f"the process ended with exit code {code}" + (f": {last[:200]}" if last else "")
