"""Published figures, each with where it was read. What was not seen is not here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One figure of a paper.

    stated: as it stands there, its digits being its precision; source: where, and under what conditions; about: known
    roughly only.
    """

    architecture: str
    dataset: str
    split: str
    metric: str
    stated: str
    source: str
    about: bool = False

    @property
    def value(self) -> float:
        """The figure as a number."""
        return float(self.stated)


_KIND = "KinD (Zhang et al., ACM MM 2019), quoted second-hand; its brightness ratio was taken from the ground truth"
_DIFFLL = "DiffLL (Jiang et al., SIGGRAPH Asia 2023), quoted second-hand"
_LIGHTEN = "LightenDiffusion (Jiang et al., ECCV 2024), quoted second-hand and roughly"
_LLDIFFUSION = "LLDiffusion (Wang et al., Pattern Recognition 2025), table in the authors' repository"
_CORRECTED = f"{_LLDIFFUSION}; whether its GT-mean correction was on is not said"
_VELOL = f"{_CORRECTED}, nor which part of VE-LOL it is"

FIGURES: tuple[Published, ...] = (
    Published("kind", "LOL-v1", "test", "psnr", "20.87", _KIND),
    Published("kind", "LOL-v1", "test", "ssim", "0.80", _KIND),
    Published("lightendiffusion", "LOL-v1", "test", "psnr", "20.3", _LIGHTEN, about=True),
    Published("lightendiffusion", "LOL-v1", "test", "ssim", "0.80", _LIGHTEN, about=True),
    Published("diffll", "LOL-v1", "test", "psnr", "26.34", _DIFFLL),
    Published("diffll", "LOL-v1", "test", "ssim", "0.845", _DIFFLL),
    Published("lldiffusion", "LOL-v1", "test", "psnr", "24.65", _CORRECTED),
    Published("lldiffusion", "LOL-v1", "test", "ssim", "0.843", _CORRECTED),
    Published("lldiffusion", "LOL-v1", "test", "lpips_alex", "0.075", _CORRECTED),
    Published("lldiffusion", "LOL-v2-synthetic", "test", "psnr", "25.99", _CORRECTED),
    Published("lldiffusion", "LOL-v2-synthetic", "test", "ssim", "0.948", _CORRECTED),
    Published("lldiffusion", "LOL-v2-real", "test", "psnr", "23.16", _CORRECTED),
    Published("lldiffusion", "LOL-v2-real", "test", "ssim", "0.842", _CORRECTED),
    Published("lldiffusion", "VE-LOL", "test", "psnr", "31.77", _VELOL),
    Published("lldiffusion", "VE-LOL", "test", "ssim", "0.902", _VELOL),
    Published("lldiffusion", "VE-LOL", "test", "lpips_alex", "0.040", _VELOL),
)
NOT_SEEN = {"anlightendiff": "AnlightenDiff's figures are published as pictures only and were not seen"}


def published(architecture: str, dataset: str, metric: str) -> Published | None:
    """What the paper of an architecture states for a data set's test split, None where nothing was seen."""
    wanted = (architecture, dataset, metric)
    return next((each for each in FIGURES if (each.architecture, each.dataset, each.metric) == wanted), None)
