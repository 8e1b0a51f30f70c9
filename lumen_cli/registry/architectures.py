"""Every model that lumen knows, as one value each. Its parts are named here and imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lumen_cli.errors import ModelError

if TYPE_CHECKING:
    from lumen_cli.networks.base import LowLightModel


@dataclass(frozen=True)
class Release:
    """The authors' release of their weights."""

    paper_title: str
    paper_url: str
    repository: str
    """The repository with code and links."""
    files: tuple[str, ...]
    """The files that hold the weights, as the authors name them."""
    where: str
    """Where the files are."""
    terms: str
    """The licence, as far as the authors state one."""
    example: str
    """An example of CHECKPOINT for `lumen models import`."""
    averaged: bool = False
    """Whether the authors evaluate the averaged parameters."""


@dataclass(frozen=True)
class Figure:
    """A figure that the paper states for a test split."""

    dataset: str
    metric: str
    stated: str
    """The figure as printed: its digits are its precision."""
    source: str
    """Where it was read, and under which conditions it holds."""
    about: bool = False
    """Whether the figure is known only roughly."""

    @property
    def value(self) -> float:
        """The figure as a number."""
        return float(self.stated)


@dataclass(frozen=True)
class Architecture:
    """A model. Parts are named as "module:name"; an empty name means that there is no such part."""

    id: str
    network: str
    """The `LowLightModel`. Its defaults are the published network."""
    recipes: str = ""
    """The module with the training recipes `COMPACT` and `PAPER`."""
    layout: str = ""
    """The `Layout` of the authors' checkpoints."""
    release: Release | None = None
    paper_baseline: str = ""
    """The `Baseline`: how the paper's own code computes. Without one, the network itself is the baseline."""
    figures: tuple[Figure, ...] = ()
    """Published figures. Only figures that were seen are listed."""
    figures_note: str = ""
    """Why figures are missing."""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of a network that is small enough for tests."""

    @property
    def import_command(self) -> str:
        """The command that converts the authors' files to a model folder."""
        return f"lumen models import {self.id} {self.release.example if self.release else 'CHECKPOINT'}"

    def figure(self, dataset: str, metric: str) -> Figure | None:
        """The published figure for a data set's test split, None where none is known."""
        return next((each for each in self.figures if (each.dataset, each.metric) == (dataset, metric)), None)


_DIFFLL = "DiffLL (Jiang et al., SIGGRAPH Asia 2023), quoted second-hand"
_KIND = "KinD (Zhang et al., ACM MM 2019), quoted second-hand; its brightness ratio was taken from the ground truth"
_LIGHTEN = "LightenDiffusion (Jiang et al., ECCV 2024), quoted second-hand and roughly"
_LLDIFFUSION = (
    "LLDiffusion (Wang et al., Pattern Recognition 2025), table in the authors' repository; whether its GT-mean "
    "correction was on is not stated"
)
_VELOL = f"{_LLDIFFUSION}, nor which part of VE-LOL it is"
_KIND_FILES = (
    "decom_net_train/model.ckpt.*",
    "illumination_adjust_net_train/model.ckpt.*",
    "Restoration_net_train/model.ckpt.*",
)
_KIND_WHERE = (
    "two of the three networks lie in the repository's folder checkpoint/; the restoration network is linked in the "
    "README (cloud drives) and belongs beside them"
)

ARCHITECTURES: dict[str, Architecture] = {
    architecture.id: architecture
    for architecture in (
        Architecture(
            id="anlightendiff",
            network="lumen_cli.networks.anlightendiff:AnlightenDiff",
            recipes="lumen_cli.training.recipes.anlightendiff",
            layout="lumen_cli.registry.checkpoints.layouts:ANLIGHTENDIFF",
            release=Release(
                paper_title="AnlightenDiff: Anchoring Diffusion Probabilistic Model on Low Light Image Enhancement "
                "(IEEE TIP 2024)",
                paper_url="https://doi.org/10.1109/TIP.2024.3486610",
                repository="github.com/allanchan339/AnlightenDiff",
                files=("FS_final.ckpt (from scratch)", "twostep_final.ckpt (two-step)"),
                where="linked in the repository's README",
                terms="not known to lumen: see the repository",
                example="FS_final.ckpt",
            ),
            paper_baseline="lumen_cli.benchmark.paper_baseline:ANLIGHTENDIFF",
            figures_note="AnlightenDiff's figures are published as pictures only and were not seen",
            tiny={"dim": 4, "multipliers": [1, 1, 2]},
        ),
        Architecture(
            id="diffll",
            network="lumen_cli.networks.diffll:DiffLL",
            recipes="lumen_cli.training.recipes.diffll",
            layout="lumen_cli.registry.checkpoints.layouts:DIFFLL",
            release=Release(
                paper_title="Low-Light Image Enhancement with Wavelet-based Diffusion Models (SIGGRAPH Asia 2023)",
                paper_url="https://arxiv.org/abs/2306.00306",
                repository="github.com/JianghaiSCU/Diffusion-Low-Light",
                files=("ckpt/model.pth.tar",),
                where="linked in the repository's README",
                terms="the repository is under the MIT licence",
                example="model.pth.tar",
                averaged=True,
            ),
            paper_baseline="lumen_cli.benchmark.paper_baseline:DIFFLL",
            figures=(Figure("LOL-v1", "psnr", "26.34", _DIFFLL), Figure("LOL-v1", "ssim", "0.845", _DIFFLL)),
            tiny={"unet_channels": 32, "unet_multipliers": [2, 2], "detail_channels": 8},
        ),
        Architecture(
            id="kind",
            network="lumen_cli.networks.kind:KinD",
            recipes="lumen_cli.training.recipes.kind",
            layout="lumen_cli.registry.checkpoints.layouts:KIND",
            release=Release(
                paper_title="Kindling the Darkness: A Practical Low-light Image Enhancer (ACM MM 2019)",
                paper_url="https://arxiv.org/abs/1905.04161",
                repository="github.com/zhangyhuaee/KinD",
                files=_KIND_FILES,
                where=_KIND_WHERE,
                terms="no licence stated",
                example="KinD/checkpoint/",
            ),
            figures=(Figure("LOL-v1", "psnr", "20.87", _KIND), Figure("LOL-v1", "ssim", "0.80", _KIND)),
            tiny={
                "decomposition_channels": 16,
                "restoration_channels": 4,
                "restoration_multipliers": [1, 1, 2, 2, 2],
                "adjustment_channels": 8,
            },
        ),
        Architecture(
            id="kind-plus",
            network="lumen_cli.networks.kind:KinDPlus",
            layout="lumen_cli.registry.checkpoints.layouts:KIND_PLUS",
            release=Release(
                paper_title="Beyond Brightening Low-light Images (IJCV 2021)",
                paper_url="https://doi.org/10.1007/s11263-020-01407-x",
                repository="github.com/zhangyhuaee/KinD_plus",
                files=_KIND_FILES,
                where=_KIND_WHERE,
                terms="no licence stated",
                example="KinD_plus/checkpoint/",
            ),
            tiny={"decomposition_channels": 8, "restoration_channels": 2, "adjustment_channels": 8},
        ),
        Architecture(
            id="lightendiffusion",
            network="lumen_cli.networks.lightendiffusion:LightenDiffusion",
            recipes="lumen_cli.training.recipes.lightendiffusion",
            layout="lumen_cli.registry.checkpoints.layouts:LIGHTENDIFFUSION",
            release=Release(
                paper_title="LightenDiffusion: Unsupervised Low-Light Image Enhancement with Latent-Retinex Diffusion "
                "Models (ECCV 2024)",
                paper_url="https://arxiv.org/abs/2407.08939",
                repository="github.com/JianghaiSCU/LightenDiffusion",
                files=("ckpt/stage2/stage2_weight.pth.tar",),
                where="linked in the repository's README (personal cloud drives); the file of stage 1 is not needed",
                terms="no licence stated",
                example="stage2_weight.pth.tar",
            ),
            paper_baseline="lumen_cli.benchmark.paper_baseline:LIGHTENDIFFUSION",
            figures=(
                Figure("LOL-v1", "psnr", "20.3", _LIGHTEN, about=True),
                Figure("LOL-v1", "ssim", "0.80", _LIGHTEN, about=True),
            ),
            tiny={"unet_channels": 32, "unet_multipliers": [2, 2], "ctdn_channels": 8},
        ),
        Architecture(
            id="lldiffusion",
            network="lumen_cli.networks.lldiffusion:LLDiffusion",
            recipes="lumen_cli.training.recipes.lldiffusion",
            layout="lumen_cli.registry.checkpoints.layouts:LLDIFFUSION",
            release=Release(
                paper_title="LLDiffusion: Learning Degradation Representations in Diffusion Models for Low-Light Image "
                "Enhancement (Pattern Recognition 166, 2025)",
                paper_url="https://arxiv.org/abs/2307.14659",
                repository="github.com/TaoWangzj/LLDiffusion",
                files=(
                    "best-355-23.32.pth (LOL)",
                    "best-5499-24.10.pth (LOL-v2 real)",
                    "best-3999-25.99.pth (LOL-v2 synthetic)",
                ),
                where="linked in the repository's README (a file-sharing site)",
                terms="no licence stated; the file of the degradation encoder bears a CC BY-NC-SA 4.0 notice (NVIDIA)",
                example="best-355-23.32.pth",
            ),
            paper_baseline="lumen_cli.benchmark.paper_baseline:LLDIFFUSION",
            figures=(
                Figure("LOL-v1", "psnr", "24.65", _LLDIFFUSION),
                Figure("LOL-v1", "ssim", "0.843", _LLDIFFUSION),
                Figure("LOL-v1", "lpips_alex", "0.075", _LLDIFFUSION),
                Figure("LOL-v2-synthetic", "psnr", "25.99", _LLDIFFUSION),
                Figure("LOL-v2-synthetic", "ssim", "0.948", _LLDIFFUSION),
                Figure("LOL-v2-real", "psnr", "23.16", _LLDIFFUSION),
                Figure("LOL-v2-real", "ssim", "0.842", _LLDIFFUSION),
                Figure("VE-LOL", "psnr", "31.77", _VELOL),
                Figure("VE-LOL", "ssim", "0.902", _VELOL),
                Figure("VE-LOL", "lpips_alex", "0.040", _VELOL),
            ),
            tiny={
                "unet_channels": 32,
                "unet_multipliers": [1, 1, 1, 1, 1, 1],
                "blocks": 1,
                "encoder_channels": 1,
                "feature_channels": [32, 32, 32, 32, 32, 32],
            },
        ),
    )
}
"""The models that lumen itself knows, by id."""

ENTRY_POINTS = "lumen.architectures"
"""The entry point group in which an installed package names further networks: id = "module:Class"."""


def architectures() -> dict[str, Architecture]:
    """All models that can be built here by id: those of installed packages, and lumen's own, which win by id."""
    from importlib.metadata import entry_points

    points = entry_points(group=ENTRY_POINTS)
    return {point.name: Architecture(point.name, point.value) for point in points} | ARCHITECTURES


def network_class(architecture: str) -> type[LowLightModel]:
    """The network of an architecture.

    Raises:
        ModelError: there is no such architecture, or its module cannot be imported.
    """
    known = architectures()
    if architecture not in known:
        raise ModelError(f'"architecture": expected one of {", ".join(sorted(known))}, found "{architecture}"')
    where = known[architecture].network
    try:
        found: type[LowLightModel] = import_object(where)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the architecture {architecture} ({where}) cannot be imported: {error}") from error
    return found


def import_object(where: str) -> Any:
    """The object under "module:name".

    >>> import_object("math:floor")(2.5)
    2
    """
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def join_ids(ids: Iterable[str], last: str = "or") -> str:
    """Ids in a sentence.

    >>> join_ids(["diffll", "kind", "lldiffusion"])
    'diffll, kind or lldiffusion'
    """
    *others, end = sorted(ids)
    return f"{', '.join(others)} {last} {end}" if others else end
