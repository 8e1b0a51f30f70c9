"""Where the authors of each architecture keep their weights, and under what terms. Loads nothing heavy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lumen_cli.errors import UsageError


@dataclass(frozen=True)
class Official:
    """One architecture's release.

    repository: where code and links are; files: which files hold the weights, as the authors name them; where: how to
    come by them; terms: the licence as far as it is stated; example: what stands for CHECKPOINT in a command;
    averaged: whether the authors' evaluation uses the averaged parameters.
    """

    architecture: str
    paper_title: str
    paper_url: str
    repository: str
    files: tuple[str, ...]
    where: str
    terms: str
    example: str
    averaged: bool = False

    @property
    def command(self) -> str:
        """The command that makes a model folder of the downloaded files."""
        return f"lumen models import {self.architecture} {self.example}"


_KIND_FILES = (
    "decom_net_train/model.ckpt.*",
    "illumination_adjust_net_train/model.ckpt.*",
    "Restoration_net_train/model.ckpt.*",
)
_KIND_WHERE = (
    "two of the three networks lie in the repository's folder checkpoint/; the restoration network is linked in the "
    "README (cloud drives) and belongs beside them"
)

PUBLISHED: dict[str, Official] = {
    official.architecture: official
    for official in (
        Official(
            architecture="anlightendiff",
            paper_title="AnlightenDiff: Anchoring Diffusion Probabilistic Model on Low Light Image Enhancement "
            "(IEEE TIP 2024)",
            paper_url="https://doi.org/10.1109/TIP.2024.3486610",
            repository="github.com/allanchan339/AnlightenDiff",
            files=("FS_final.ckpt (from scratch)", "twostep_final.ckpt (two-step)"),
            where="linked in the repository's README",
            terms="not known to lumen: see the repository",
            example="FS_final.ckpt",
        ),
        Official(
            architecture="diffll",
            paper_title="Low-Light Image Enhancement with Wavelet-based Diffusion Models (SIGGRAPH Asia 2023)",
            paper_url="https://arxiv.org/abs/2306.00306",
            repository="github.com/JianghaiSCU/Diffusion-Low-Light",
            files=("ckpt/model.pth.tar",),
            where="linked in the repository's README",
            terms="the repository is under the MIT licence",
            example="model.pth.tar",
            averaged=True,
        ),
        Official(
            architecture="kind",
            paper_title="Kindling the Darkness: A Practical Low-light Image Enhancer (ACM MM 2019)",
            paper_url="https://arxiv.org/abs/1905.04161",
            repository="github.com/zhangyhuaee/KinD",
            files=_KIND_FILES,
            where=_KIND_WHERE,
            terms="no licence stated",
            example="KinD/checkpoint/",
        ),
        Official(
            architecture="kind-plus",
            paper_title="Beyond Brightening Low-light Images (IJCV 2021)",
            paper_url="https://doi.org/10.1007/s11263-020-01407-x",
            repository="github.com/zhangyhuaee/KinD_plus",
            files=_KIND_FILES,
            where=_KIND_WHERE,
            terms="no licence stated",
            example="KinD_plus/checkpoint/",
        ),
        Official(
            architecture="lightendiffusion",
            paper_title="LightenDiffusion: Unsupervised Low-Light Image Enhancement with Latent-Retinex Diffusion "
            "Models (ECCV 2024)",
            paper_url="https://arxiv.org/abs/2407.08939",
            repository="github.com/JianghaiSCU/LightenDiffusion",
            files=("ckpt/stage2/stage2_weight.pth.tar",),
            where="linked in the repository's README (personal cloud drives); the file of stage 1 is not needed",
            terms="no licence stated",
            example="stage2_weight.pth.tar",
        ),
        Official(
            architecture="lldiffusion",
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
    )
}
"""Architecture id → its release."""


def official_source(architecture: str) -> Official:
    """The release of an architecture; UsageError with the nearest name and the list where there is none."""
    if architecture in PUBLISHED:
        return PUBLISHED[architecture]
    nearest = difflib.get_close_matches(architecture.lower(), PUBLISHED, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise UsageError(f"lumen knows no checkpoints of {architecture}.{hint} Known: {', '.join(PUBLISHED)}")
