"""The field's metrics by name: what each needs, which direction is better, and which well-kept library computes it.

All take B×3×H×W in [0, 1]. Cheap to import. Weights that metrics need and lumen cannot ship: where they are searched,
and what to do where they are missing.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lumen_cli.errors import UsageError
from lumen_cli.files.contents import user_folder
from lumen_cli.text import did_you_mean, nearest

if TYPE_CHECKING:
    from torch import Tensor


ENTRY_POINTS = "lumen.metrics"
"""Entry point group by which an installed package adds metrics: name → "module:VALUE", the value a `Metric`."""

Need = Literal["reference", "input"]


@dataclass(frozen=True)
class Metric:
    """A figure of one picture.

    name: as users type it; title: a column's heading; unit: "dB" or ""; better: "higher", "lower" or "" for neither;
    digits: after the point in a table; needs: of "reference" and "input"; source: "module:function", a function of the
    output and, by name, of its `needs`, each 3×H×W float32 in [0, 1], that returns a float; library: that computes it;
    bounds: of its values; check: "" or "module:function", which takes the name and returns why the metric is not
    available here, on one line, or None; problem: of a plug-in, else "".
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    digits: int
    needs: frozenset[Need]
    source: str
    library: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    check: str = ""
    problem: str = ""

    def unavailable(self) -> str | None:
        """Why it cannot be computed here and what to do, on one line; None where it can. Loads no weights."""
        if self.problem:
            return f"{self.name} cannot be computed: {self.problem}"
        try:
            if self.check:
                reason: str | None = _import(self.check)(self.name)
                return reason
            if not self.source.startswith(_HOUSE):
                _import(self.source)
        except (ImportError, AttributeError) as error:
            return f"{self.name} cannot be computed: {' '.join(str(error).split())}"
        return None

    def lacks(self, *, reference: bool, input: bool) -> list[Need]:
        """Its needs that are not given."""
        given: dict[Need, bool] = {"reference": reference, "input": input}
        return [need for need, there in given.items() if need in self.needs and not there]


_REFERENCE: frozenset[Need] = frozenset({"reference"})
_INPUT: frozenset[Need] = frozenset({"input"})
_ALONE: frozenset[Need] = frozenset()
_HOUSE = "lumen_cli.metrics"
_INF = math.inf
_OWN = "lumen"
_TORCHMETRICS = "torchmetrics"
_OPENCV = "OpenCV"
_WEIGHTS = f"{_HOUSE}:missing"
_DB = (0.0, _INF)
_SIMILARITY = (-1.0, 1.0)

_BUILT_IN = (
    Metric("psnr", "PSNR", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr", _OWN, _DB),
    Metric("ssim", "SSIM", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim", _TORCHMETRICS, _SIMILARITY),
    Metric("psnr_y", "PSNR-Y", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr_y", _OWN, _DB),
    Metric("ssim_y", "SSIM-Y", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim_y", _TORCHMETRICS, _SIMILARITY),
    Metric("psnr_gt_mean", "GT-mean PSNR", "dB", "higher", 2, _REFERENCE, f"{_HOUSE}.fidelity:psnr_gt_mean", _OWN, _DB),
    Metric(
        "ssim_gt_mean", "GT-mean SSIM", "", "higher", 4, _REFERENCE, f"{_HOUSE}.fidelity:ssim_gt_mean", _TORCHMETRICS,
        _SIMILARITY,
    ),
    Metric(
        "lpips_alex", "LPIPS (Alex)", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:lpips_alex", _TORCHMETRICS,
        (0.0, _INF), _WEIGHTS,
    ),
    Metric(
        "lpips_vgg", "LPIPS (VGG)", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:lpips_vgg", _TORCHMETRICS,
        (0.0, _INF), _WEIGHTS,
    ),
    Metric(
        "dists", "DISTS", "", "lower", 4, _REFERENCE, f"{_HOUSE}.perceptual:dists", _TORCHMETRICS, (0.0, _INF), _WEIGHTS
    ),
    Metric("delta_e", "ΔE2000", "", "lower", 2, _REFERENCE, f"{_HOUSE}.fidelity:delta_e", _OWN, (0.0, _INF)),
    Metric("niqe", "NIQE (own fit)", "", "lower", 3, _ALONE, f"{_HOUSE}.niqe:niqe", _OWN, (0.0, _INF)),
    Metric(
        "niqe_original", "NIQE", "", "lower", 3, _ALONE, f"{_HOUSE}.niqe:niqe_original", _OWN, (0.0, _INF),
        _WEIGHTS,
    ),
    Metric(
        "brisque", "BRISQUE", "", "lower", 2, _ALONE, f"{_HOUSE}.niqe:brisque", _OPENCV, (0.0, 100.0),
        _WEIGHTS,
    ),
    Metric("loe", "LOE", "", "lower", 1, _INPUT, f"{_HOUSE}.fidelity:loe", _OWN, (0.0, _INF)),
    Metric("loe_100", "LOE (100×100)", "", "lower", 1, _INPUT, f"{_HOUSE}.fidelity:loe_100", _OWN, (0.0, 10000.0)),
    Metric("brightness", "Brightness", "", "", 3, _ALONE, f"{_HOUSE}.fidelity:brightness", _OWN, (0.0, 1.0)),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _BUILT_IN}
"""The metrics that come with lumen, in the order of a table's columns."""

DEFAULT_METRICS = ("psnr", "ssim", "psnr_gt_mean", "ssim_gt_mean", "niqe", "loe")
"""The default metrics: those that can be computed on any machine."""


def all_metrics() -> dict[str, Metric]:
    """`METRICS` and those of installed packages (entry points "lumen.metrics"); lumen's own take precedence.

    An entry point that cannot be imported becomes a metric whose `unavailable()` states the reason.
    """
    from importlib.metadata import entry_points

    found = dict(METRICS)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in found:
            found[point.name] = _load_plugin(point.name, point.value)
    return found


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics with these names, in this order, each once.

    >>> [metric.title for metric in find_metrics(["PSNR", "psnr-y", "psnr"])]
    ['PSNR', 'PSNR-Y']

    Raises:
        UsageError: a name is unknown; the message has the nearest name and the list.
    """
    known = all_metrics()
    found: dict[str, Metric] = {}
    for name in names:
        wanted = name.strip().lower().replace("-", "_")
        if wanted not in known:
            hint = did_you_mean(nearest(wanted, known))
            raise UsageError(f"unknown metric {name!r}.{hint} Known metrics: {', '.join(known)}")
        found[wanted] = known[wanted]
    return list(found.values())


def measure(
    metric: Metric, output: Tensor, reference: Tensor | None = None, input: Tensor | None = None
) -> list[float]:
    """One value per picture, computed picture by picture on the tensors' device.

    Args:
        metric: from `find_metrics` or `METRICS`.
        output: B×3×H×W float32 in [0, 1], the pictures to judge.
        reference: their references, for metrics that need them.
        input: the dark pictures they were made from, for metrics that need them.

    Returns:
        NaN where a metric is undefined (a picture smaller than its window, values that are not finite).

    Raises:
        UsageError: a reference or input is missing or has another size, or the metric is not available.

    >>> import torch
    >>> measure(METRICS["brightness"], torch.full((2, 3, 8, 8), 0.25))
    [0.25, 0.25]
    """
    import torch

    given = {"reference": reference, "input": input}
    _check(metric, output, given)
    function = _import(metric.source)
    values = []
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:  # TF32 keeps 10 bits: too few for the difference of squares in SSIM
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        with torch.inference_mode():
            for index in range(len(output)):
                pictures = [output[index].float()]
                others = {need: other[index].float() for need, other in given.items() if other is not None}
                others = {need: other for need, other in others.items() if need in metric.needs}
                finite = all(math.isfinite(float(picture.sum())) for picture in (*pictures, *others.values()))
                values.append(float(function(*pictures, **others)) if finite else math.nan)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    return values


def _check(metric: Metric, output: Tensor, given: dict[str, Tensor | None]) -> None:
    if output.ndim != 4 or output.shape[1] != 3:
        raise ValueError(f"expected B×3×H×W, found {'×'.join(map(str, output.shape))}")
    for need in sorted(metric.needs):
        other = given[need]
        if other is None:
            article = "an" if need == "input" else "a"
            raise UsageError(f"{metric.name} needs {article} {need} picture")
        if other.shape != output.shape:
            sizes = [f"{tensor.shape[-1]}×{tensor.shape[-2]}" for tensor in (output, other)]
            raise UsageError(f"{metric.name}: the output is {sizes[0]}, the {need} {sizes[1]} pixels")
    reason = metric.unavailable()
    if reason is not None:
        raise UsageError(reason)


def _load_plugin(name: str, value: str) -> Metric:
    """The metric of an installed package; a faulty one becomes a metric that is not available."""
    try:
        metric = _import(value)
    except Exception as error:  # a third party's module may raise anything
        problem = f"{value} cannot be imported: {' '.join(str(error).split())}"
    else:
        if isinstance(metric, Metric) and metric.name == name:
            return metric
        problem = f"{value} is not a Metric of that name"
    return Metric(name, name, "", "", 3, _ALONE, value, value, problem=problem)


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


WEIGHTS_VARIABLE = "LUMEN_METRIC_WEIGHTS"
"""Environment variable with folders of weights (separated as in PATH), which are searched first."""


@dataclass(frozen=True)
class Needed:
    """The weights of a metric.

    what: description; files: names; address: where to download them; trained, version: a file in torchmetrics and the
    version that added it, where the metric's own weights come from there.
    """

    what: str
    files: tuple[str, ...]
    address: str
    trained: str = ""
    version: str = ""


_PYTORCH = "https://download.pytorch.org/models/"
_ALEXNET = "the weights of AlexNet", ("alexnet-owt-7be5be79.pth",), f"{_PYTORCH}alexnet-owt-7be5be79.pth"
_VGG16 = "the weights of VGG16", ("vgg16-397923af.pth",), f"{_PYTORCH}vgg16-397923af.pth"
_BASICSR = "https://github.com/XPixelGroup/BasicSR/tree/master/basicsr/metrics"
_OPENCV_QUALITY = "https://github.com/opencv/opencv_contrib/tree/4.x/modules/quality/samples"

NEEDED = {
    "lpips_alex": Needed(*_ALEXNET, "lpips_models/alex.pth", "1.4"),
    "lpips_vgg": Needed(*_VGG16, "lpips_models/vgg.pth", "1.4"),
    "dists": Needed(*_VGG16, "dists_models/weights.pt", "1.8"),
    "niqe_original": Needed("the authors' model", ("niqe_pris_params.npz",), _BASICSR),
    "brisque": Needed("OpenCV's model", ("brisque_model_live.yml", "brisque_range_live.yml"), _OPENCV_QUALITY),
}


def missing(metric: str) -> str | None:
    """Why a metric cannot be computed here and which file to put where, on one line; None where it can."""
    needed = NEEDED[metric]
    if needed.trained and not torchmetrics_file(needed.trained).is_file():
        return f"{metric} needs torchmetrics {needed.version} or newer, which has its trained weights"
    name = next((name for name in needed.files if _find(name) is None), None)
    if name is None:
        return None
    named = _named_folders()
    also = "" if named else f" (or a folder that {WEIGHTS_VARIABLE} names)"
    return f"{metric} needs {needed.what}: put {name} into {weight_folders()[0]}{also}; from {needed.address}"


def weight_files(metric: str) -> list[Path]:
    """The files of a metric, in the order of `Needed.files`.

    Raises:
        UsageError: one is missing.
    """
    found = [_find(name) for name in NEEDED[metric].files]
    if any(path is None for path in found):
        raise UsageError(str(missing(metric)))
    return [path for path in found if path is not None]


def weight_folders() -> list[Path]:
    """Where weights are searched: LUMEN_METRIC_WEIGHTS, the user's data folder, torchvision's downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    torch_home = Path(os.path.expanduser(os.environ.get("TORCH_HOME") or f"{cache}/torch"))  # noqa: PTH111  (there may be no home)
    return [*_named_folders(), user_folder("data") / "metrics", torch_home / "hub" / "checkpoints"]


def torchmetrics_file(name: str) -> Path:
    """A file of weights in torchmetrics' wheel."""
    from importlib.util import find_spec

    spec = find_spec("torchmetrics")
    package = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    return package / "functional" / "image" / name


def _named_folders() -> list[Path]:
    return [Path(entry).expanduser() for entry in os.environ.get(WEIGHTS_VARIABLE, "").split(os.pathsep) if entry]


def _find(name: str) -> Path | None:
    return next((folder / name for folder in weight_folders() if (folder / name).is_file()), None)


def psnr(enhanced: Tensor, reference: Tensor) -> float:
    """Mean over the batch of the peak signal-to-noise ratio over RGB in dB; infinite for equal pictures.

    >>> import torch
    >>> reference = torch.full((1, 3, 16, 16), 0.5)
    >>> round(psnr(reference + 0.1, reference), 2)
    20.0
    >>> psnr(reference, reference)
    inf
    """
    return _mean("psnr", enhanced, reference)


def ssim(enhanced: Tensor, reference: Tensor) -> float:
    """Mean over the batch of the structural similarity (Wang et al., 2004): Gaussian window 11, σ 1.5, RGB, peak 1.

    >>> import torch
    >>> picture = torch.rand(1, 3, 16, 16)
    >>> round(ssim(picture, picture), 4)
    1.0
    """
    return _mean("ssim", enhanced, reference)


def _mean(name: str, enhanced: Tensor, reference: Tensor) -> float:
    values = measure(METRICS[name], enhanced, reference)
    return sum(values) / len(values)
