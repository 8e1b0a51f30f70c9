"""The speed of models: each case in its own process, one after the other."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from lumen_cli.benchmark.speed_request import PUBLISHED, SpeedCase, SpeedRequest, SpeedResult
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.registry import find_model, list_models
from lumen_cli.registry.architectures import ARCHITECTURES, architectures

WORKER = "lumen_cli.benchmark.worker"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def run_speed(
    request: SpeedRequest,
    *,
    begun: Callable[[SpeedCase], None] | None = None,
    done: Callable[[SpeedResult], None] | None = None,
) -> list[SpeedResult]:
    """Time all cases of a request.

    A failure of one case (an unsupported precision, memory, a crash) is the `error` of its row, and the others run.
    Where the process dies in the reference implementation, the case is timed again without it.

    Args:
        request: what to time.
        begun: called before each case.
        done: called with each row.

    Raises:
        ModelError, UsageError: before the start: no such model or device, or nothing to time.
    """
    cases = speed_cases(request)
    if request.device not in ("auto", "cpu"):
        from lumen_cli.engine.device import choose_device

        choose_device(request.device, "fp32")
    results = []
    for case in cases:
        if begun is not None:
            begun(case)
        results.append(_row(case))
        if done is not None:
            done(results[-1])
    return results


def speed_cases(request: SpeedRequest) -> list[SpeedCase]:
    """The rows of `run_speed`, in their order; raises as it does."""
    subjects = {subject[0]: subject for name in request.models for subject in _find(name, request.published)}
    if not subjects:
        raise UsageError("there is no model to time")
    return [
        SpeedCase(*subject, width, height, precision, batch, request)
        for subject in subjects.values()
        for width, height in request.sizes
        for precision in request.precisions
        for batch in request.batches
    ]


def _find(name: str, published: bool) -> Iterator[tuple[str, str, str | None]]:
    """Name in the table, architecture and folder (None: the published network) of the models behind a name.

    "all" stands for every model, or for every architecture of lumen at its published size.
    """
    if name == "all":
        names = sorted(ARCHITECTURES) if published else [card.name for card in list_models() if not card.to_pull]
        for each in names:
            yield from _find(PUBLISHED + each if published else each, published)
        return
    architecture = name.removeprefix(PUBLISHED)
    if published or architecture != name:
        if architecture == name and name not in ARCHITECTURES:
            architecture = find_model(name).architecture
        known = architectures()
        if architecture not in known:
            raise UsageError(f"unknown architecture {architecture!r}. Known: {', '.join(sorted(known))}")
        yield PUBLISHED + architecture, architecture, None
    else:
        card = find_model(name)
        yield card.name, card.architecture, str(card.folder.absolute())


def _row(case: SpeedCase) -> SpeedResult:
    refused = _refusal(case)
    if refused is not None:
        return case.failed(refused)
    try:
        return _run_process(case)
    except _DiedError as death:
        if not case.request.plain:
            return case.failed(str(death))
        why = str(death)
    alone = _row(dataclasses.replace(case, request=dataclasses.replace(case.request, plain=False)))
    return alone if alone.error is not None else dataclasses.replace(alone, plain_error=why)


def _refusal(case: SpeedCase) -> str | None:
    """Why the model cannot run this case, as far as its card tells."""
    if case.folder is None:
        return None
    card = find_model(case.folder)
    if case.precision not in ("auto", *card.precisions):
        return f"{card.name} does not run in {case.precision}; it supports {', '.join(card.precisions)}"
    try:
        if card.steps_range is not None:
            card.steps_for(case.request.steps)
    except LumenError as error:
        return str(error)
    return None


class _DiedError(Exception):
    """A process ended without a result; why."""


def _run_process(case: SpeedCase) -> SpeedResult:
    environment, threads, timeout = dict(os.environ), case.request.threads, case.request.timeout
    if threads is not None:
        # Before torch is imported, so that no library starts more threads.
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", WORKER],
            input=json.dumps(dataclasses.asdict(case)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=_PACKAGE_PARENT,  # -m also searches the working folder, which may hold anything
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _DiedError(f"took longer than {timeout:g} s") from None
    lines = ended.stdout.splitlines()
    if ended.returncode == 0 and lines:
        return SpeedResult.of(json.loads(lines[-1]))
    raise _DiedError(_death(ended.returncode, ended.stderr))


def _death(code: int, errors: str) -> str:
    """Why a process ended without a result: its signal, or the last line it wrote."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; too little memory?" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
    return f"the process ended with exit code {code}" + (f": {last[:200]}" if last else "")
