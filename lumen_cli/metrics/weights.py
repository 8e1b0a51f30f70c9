"""Weights that metrics need and lumen cannot ship: where they are searched, and what to do where they are missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lumen_cli.errors import UsageError

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
_OPENCV = "https://github.com/opencv/opencv_contrib/tree/4.x/modules/quality/samples"

NEEDED = {
    "lpips_alex": Needed(*_ALEXNET, "lpips_models/alex.pth", "1.4"),
    "lpips_vgg": Needed(*_VGG16, "lpips_models/vgg.pth", "1.4"),
    "dists": Needed(*_VGG16, "dists_models/weights.pt", "1.8"),
    "niqe_original": Needed("the authors' model", ("niqe_pris_params.npz",), _BASICSR),
    "brisque": Needed("OpenCV's model", ("brisque_model_live.yml", "brisque_range_live.yml"), _OPENCV),
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
    import platformdirs

    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    torch_home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
    return [*_named_folders(), platformdirs.user_data_path("lumen") / "metrics", torch_home / "hub" / "checkpoints"]


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
