"""Training: a recipe per architecture, one loop. Here is what `lumen train` trains, checked before any work: a network,
the grading of a model or the refiner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from lumen_cli.datasets import TrainingFiles, find_pairs, find_training_files
from lumen_cli.engine.device import DevicePolicy, choose_device, dtype_of
from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import check_writable
from lumen_cli.registry import bundled_models, find_model, list_models
from lumen_cli.training import grading, lol_grading, refiner
from lumen_cli.training.data import Mix
from lumen_cli.training.grading import GradingRun, train_grading
from lumen_cli.training.loop import FitSettings, Watch, join_workers
from lumen_cli.training.recipes import make_recipe
from lumen_cli.training.run import Options, Run, train

_Fitting = TypeVar("_Fitting", bound=FitSettings)
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Request:
    """The request for a training.

    Attributes:
        data: folders of pairs or of bright pictures.
        out: folder for checkpoints and, at the end, the result.
        validation: folder of held-out pairs.
        minutes: length of the whole training; wins over `steps`.
        steps: the same in steps; None for both: the recipe's own length.
        seed: of parameters and batches.
        device: as `choose_device` takes it.
        precision: as `choose_device` takes it.
    """

    data: Sequence[Path]
    out: Path
    validation: Path | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    @property
    def folders(self) -> tuple[str, ...]:
        """The data folders as typed."""
        return tuple(map(str, self.data))


@dataclass(frozen=True)
class Training:
    """A training that is ready. about: its data and device, on one line; leads: whether this process reports."""

    about: str
    run: Callable[[Watch], Path]
    leads: bool = True


def plan_network(
    request: Request,
    name: str,
    *,
    init: str | None = None,
    teacher: str | None = None,
    stages: Sequence[str] = (),
    preset: str = "compact",
    reference: str | None = None,
    pairs_share: float | None = None,
    network: Sequence[str] = (),
    compiled: bool | None = None,
) -> Training:
    """Plan the training of an architecture by its recipe.

    Args:
        request: data, length, device.
        name: the architecture's id.
        init: a model to start from.
        teacher: a model whose results replace the bright side of batches.
        stages: the stages to train; none named: all.
        preset: "compact" or "paper".
        reference: of LightenDiffusion's recipe.
        pairs_share: share of real pairs in a batch; None for the preset's.
        network: changes to the network, "field=value" each.
        compiled: whether to compile the network first; None: on CUDA.

    Raises:
        UsageError: the recipe, a stage, the data or the device does not exist.
    """
    recipe = make_recipe(name, network, preset, reference=reference)
    known = [each.name for each in recipe.stages]
    if unknown := [each for each in stages if each not in known]:
        raise UsageError(f"there is no stage {unknown[0]}; {name} has {', '.join(known)}")
    workers = join_workers(request.device)
    if workers.leads:
        check_writable(request.out)
    device = request.device if workers.device is None else str(workers.device)
    policy = choose_device(device, request.precision, precisions=PRECISIONS, model=name)
    mix = Mix(pairs=1.0, relit_low=0.0, tinted=0.0) if preset == "paper" else Mix()
    options = Options(
        torch.device(policy.device),
        dtype_of(policy.precision),
        steps=request.steps,
        minutes=request.minutes,
        workers=workers,
        compiled=policy.device.startswith("cuda") if compiled is None else compiled,
    )
    run = Run(
        recipe=recipe,
        data=request.folders,
        files=find_training_files(request.data),
        validation=find_pairs(request.validation) if request.validation else (),
        mix=mix if pairs_share is None else replace(mix, pairs=pairs_share),
        seed=request.seed,
        options=options,
        init=None if init is None else find_model(init),
        teacher=None if teacher is None else find_model(teacher),
    )
    together = f" on each of {workers.count} devices" if workers.count > 1 else ""
    about = _describe(run.files, policy, together=together)
    return Training(about, lambda watch: train(run, request.out, stages or known, watch), workers.leads)


def plan_grading(request: Request, init: str) -> Training:
    """Plan the training of the grading of the model `init`; errors as of `plan_network`."""
    _refuse_workers(request, "a grading")
    card = find_model(init)
    check_writable(request.out)
    asked = card.precision_for(request.precision)
    policy = choose_device(request.device, asked, precisions=card.precisions, model=card.name)
    fitting = grading.Fitting(seed=request.seed, device=torch.device(policy.device))
    if request.minutes is not None:
        fitting = replace(fitting, minutes=request.minutes / fitting.parts)
    elif request.steps is not None:
        fitting = replace(fitting, steps=max(1, round(request.steps / fitting.parts)))
    files = find_training_files(request.data)
    validation = find_pairs(request.validation) if request.validation else ()
    run = GradingRun(card, request.folders, files, validation, fitting, dtype_of(policy.precision))
    about = _describe(files, policy, f", enhanced by {card.name}")
    return Training(about, lambda watch: train_grading(run, request.out, watch))


def plan_refiner(request: Request) -> Training:
    """Plan the training of the refiner; errors as of `plan_network`."""
    _refuse_workers(request, "the refiner")
    check_writable(request.out)
    policy = choose_device(request.device, request.precision, precisions=PRECISIONS, model="refiner")
    fitting = _fitting(refiner.Fitting, request, policy)
    files = find_training_files(request.data)
    held_out = find_training_files([request.validation]) if request.validation else None
    run = refiner.RefinerRun(request.folders, files, held_out, fitting)
    return Training(_describe(files, policy), lambda watch: refiner.train_refiner(run, request.out, watch))


def plan_lol_grading(request: Request) -> Training:
    """Plan the training of the grading that knows LOL, for all of lumen's models; errors as of `plan_network`."""
    _refuse_workers(request, "a grading")
    check_writable(request.out)
    policy = choose_device(request.device, request.precision, precisions=PRECISIONS, model=lol_grading.NAME)
    fitting = _fitting(lol_grading.Fitting, request, policy)
    files = find_training_files(request.data)
    if not files.pairs:
        raise UsageError("the lol grading is trained on pairs: name a folder with low/ and high/", remedy="data")
    validation = find_pairs(request.validation) if request.validation else ()
    cards = [card for card in list_models() if card.folder.parent == bundled_models() and "enhance" in card.abilities]
    run = lol_grading.LolGradingRun(tuple(cards), request.folders, files, validation, fitting)
    about = _describe(files, policy, f", enhanced by {', '.join(card.name for card in cards)}")
    return Training(about, lambda watch: lol_grading.train_lol_grading(run, request.out, watch))


def _fitting(kind: type[_Fitting], request: Request, policy: DevicePolicy) -> _Fitting:
    """The settings of a fit as requested."""
    fitting = kind(torch.device(policy.device), dtype_of(policy.precision), seed=request.seed, minutes=request.minutes)
    return fitting if request.steps is None else replace(fitting, steps=request.steps)


def _refuse_workers(request: Request, what: str) -> None:
    if join_workers(request.device).count > 1:
        raise UsageError(f"{what} is trained by one process; start it without a launcher")


def _describe(files: TrainingFiles, policy: DevicePolicy, enhanced: str = "", together: str = "") -> str:
    pictures = f"{len(files.pairs)} pairs and {len(files.bright)} bright pictures{enhanced}"
    return f"{pictures}; {policy.device} in {policy.precision}{together}: {policy.why}"
