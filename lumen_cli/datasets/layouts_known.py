"""The field's data sets: names, layouts on disk, and where their authors publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lumen_cli.datasets.pairs import Rule, same_stem, side_word

Place = str | tuple[str, str]
"""A folder with a dark and a bright sub-folder, or these two folders themselves."""


@dataclass(frozen=True)
class Layout:
    """One data set.

    name: as usually written; about: paper; page: where its authors publish it; homes: names of its folder; splits: for
    each split its possible layouts below that folder, of which the first existing one counts, each a list of parts;
    rule: how partners are named; expected: the layout in words; sequences: a folder of exposures for each scene. A set
    without splits has no references: any folder of pictures.
    """

    name: str
    about: str
    page: str
    homes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[Place, ...], ...]] = field(default_factory=dict)
    rule: Rule = same_stem
    expected: str = "a folder of pictures"
    sequences: bool = False

    @property
    def paired(self) -> bool:
        """Whether there is a reference for every picture."""
        return bool(self.splits)


def _ways(*places: Place) -> tuple[tuple[Place, ...], ...]:
    """Each place by itself is the whole split."""
    return tuple((place,) for place in places)


def _lsrw(*cameras: str) -> Mapping[str, tuple[tuple[Place, ...], ...]]:
    return {
        "test": (tuple(f"Eval/{camera}" for camera in cameras), tuple(f"test/{camera}" for camera in cameras)),
        "train": (
            tuple(f"Training data/{camera}" for camera in cameras),
            tuple(f"train/{camera}" for camera in cameras),
        ),
    }


def _velol(folder: str, part: str) -> Mapping[str, tuple[tuple[Place, ...], ...]]:
    def ways(split: str) -> tuple[tuple[Place, ...], ...]:
        low, high = f"{part}-Low_{split}", f"{part}-Normal_{split}"
        return _ways((f"{folder}/{low}", f"{folder}/{high}"), (low, high), f"{folder}/{split}", split)

    return {split: ways(split) for split in ("test", "train")}


_LSRW = "Hai et al., R2RNet, JVCIR 2023 (arXiv 2106.14501)"
_LSRW_PAGE = "https://github.com/JianghaiSCU/R2RNet"
_LSRW_BOTH = "Eval/Huawei/low and high, Eval/Nikon/low and high"
_VELOL = "Liu et al., Benchmarking Low-Light Image Enhancement and Beyond, IJCV 2021"
_VELOL_PAGE = "https://flyywh.github.io/IJCV2021LowLight_VELOL/"
_LOLV2 = "Yang et al., Sparse Gradient Regularized Deep Retinex Network, TIP 2021"
_LOLV2_PAGE = "https://github.com/flyywh/CVPR-2020-Semi-Low-Light"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "LOL-v1",
        "Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018",
        "https://daooshee.github.io/BMVC2018website/",
        ("LOL", "LOLv1", "LOLdataset", "LOLv1dataset"),
        {"test": _ways("eval15", "test", "eval"), "train": _ways("our485", "train")},
        same_stem,
        "eval15/low and eval15/high (or test/, Test/ with low or input and high, normal, gt or target), same names",
    ),
    Layout(
        "LOL-v2-real",
        _LOLV2,
        _LOLV2_PAGE,
        ("LOLv2", "LOLv2real", "LOLv2Realcaptured"),
        {"test": _ways("Real_captured/Test", "Test"), "train": _ways("Real_captured/Train", "Train")},
        side_word,
        "Real_captured/Test/Low/low00690.png and Real_captured/Test/Normal/normal00690.png",
    ),
    Layout(
        "LOL-v2-synthetic",
        _LOLV2,
        _LOLV2_PAGE,
        ("LOLv2", "LOLv2synthetic", "LOLv2syn"),
        {"test": _ways("Synthetic/Test", "Test"), "train": _ways("Synthetic/Train", "Train")},
        side_word,
        "Synthetic/Test/Low and Synthetic/Test/Normal, same names",
    ),
    Layout(
        "VE-LOL",
        _VELOL,
        _VELOL_PAGE,
        ("VELOL", "VELOLL", "VELOLLCapFull", "VELOLLCap"),
        _velol("VE-LOL-L-Cap-Full", "VE-LOL-L-Cap"),
        side_word,
        "VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Low_test and VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Normal_test",
    ),
    Layout(
        "VE-LOL-synthetic",
        _VELOL,
        _VELOL_PAGE,
        ("VELOL", "VELOLL", "VELOLsyn", "VELOLLSyn"),
        _velol("VE-LOL-L-Syn", "VE-LOL-L-Syn"),
        side_word,
        "VE-LOL-L-Syn/VE-LOL-L-Syn-Low_test and VE-LOL-L-Syn/VE-LOL-L-Syn-Normal_test",
    ),
    Layout("LSRW", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Huawei", "Nikon"), same_stem, _LSRW_BOTH),
    Layout("LSRW-Huawei", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Huawei"), same_stem, "Eval/Huawei/low and high"),
    Layout("LSRW-Nikon", _LSRW, _LSRW_PAGE, ("LSRW",), _lsrw("Nikon"), same_stem, "Eval/Nikon/low and high"),
    Layout(
        "SICE",
        "Cai et al., Learning a Deep Single Image Contrast Enhancer from Multi-Exposure Images, TIP 2018",
        "https://github.com/csjcai/SICE",
        ("SICE", "SICEdataset"),
        {"test": _ways("Dataset_Part2", "Part2"), "train": _ways("Dataset_Part1", "Part1")},
        same_stem,
        "Dataset_Part2/1/1.JPG … (exposures, darkest first) and Dataset_Part2/Label/1.JPG",
        sequences=True,
    ),
    Layout("DICM", "Lee et al., TIP 2013", "http://mcl.korea.ac.kr/projects/LDR/", ("DICM", "LDR_TEST_IMAGES_DICM")),
    Layout("LIME", "Guo et al., LIME, TIP 2017", "https://sites.google.com/view/xjguo/lime", ("LIME",)),
    Layout("MEF", "Ma et al., TIP 2015", "https://ece.uwaterloo.ca/~k29ma/", ("MEF",)),
    Layout(
        "NPE",
        "Wang et al., Naturalness Preserved Enhancement Algorithm for Non-Uniform Illumination Images, TIP 2013",
        "https://shuhangwang.wordpress.com/2015/12/14/"
        "naturalness-preserved-enhancement-algorithm-for-non-uniform-illumination-images/",
        ("NPE",),
    ),
    Layout("VV", "Vonikakis, busting image enhancement", "https://sites.google.com/site/vonikakis/datasets", ("VV",)),
)  # fmt: skip

OTHER_NAMES = {
    "lol": "LOL-v1",
    "loldataset": "LOL-v1",
    "lolv2realcaptured": "LOL-v2-real",
    "lolv2syn": "LOL-v2-synthetic",
    "velolcap": "VE-LOL",
    "velollcap": "VE-LOL",
    "velolsyn": "VE-LOL-synthetic",
    "velollsyn": "VE-LOL-synthetic",
}
"""Other names, reduced to letters and digits in lower case."""
