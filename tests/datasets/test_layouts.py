"""Data sets on disk: each layout found under its names, pairs by each set's rule, and nothing skipped in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from lumen_cli.datasets import same_stem, side_word
from lumen_cli.datasets.layouts import LAYOUTS, Dataset, find_dataset, find_folders, find_layout
from lumen_cli.errors import UsageError

Files = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write small pictures below a folder; returns it."""

    def write(*names: str, size: tuple[int, int] = (6, 4)) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (9, 9, 9)).save(path)
        return tmp_path

    return write


def pairs_of(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Name, dark and bright file below the folder the set was found in."""
    return [
        (name, pair.low.relative_to(dataset.root).as_posix(), pair.high.relative_to(dataset.root).as_posix())
        for name, pair in zip(dataset.names, dataset.pairs, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "split", "low", "high"),
    [
        ("LOL-v1", "test", "LOLdataset/eval15/low/1.png", "LOLdataset/eval15/high/1.png"),
        ("lol", "train", "LOL-v1/our485/low/1.png", "LOL-v1/our485/high/1.png"),
        ("LOL", "test", "test/low/1.png", "test/high/1.png"),
        ("LOLv1", "test", "lol_v1/Test/input/1.png", "lol_v1/Test/target/1.png"),
        ("lol", "train", "LOL/Train/Low/1.png", "LOL/Train/Normal/1.png"),
        ("lol", "val20", "lol-v1/val20/low/1.webp", "lol-v1/val20/high/1.png"),
        (
            "lol-v2-real",
            "test",
            "LOL-v2/Real_captured/Test/Low/low1.png",
            "LOL-v2/Real_captured/Test/Normal/normal1.png",
        ),
        (
            "LOLv2_real",
            "train",
            "LOLv2/Real_captured/Train/Low/low1.png",
            "LOLv2/Real_captured/Train/Normal/normal1.png",
        ),
        ("lol-v2-syn", "test", "LOL-v2/Synthetic/Test/Low/r1e.png", "LOL-v2/Synthetic/Test/Normal/r1e.png"),
        (
            "VE-LOL",
            "test",
            "VE-LOL-L/VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Low_test/low1.png",
            "VE-LOL-L/VE-LOL-L-Cap-Full/VE-LOL-L-Cap-Normal_test/normal1.png",
        ),
        (
            "ve-lol-syn",
            "train",
            "VELOL/VE-LOL-L-Syn/VE-LOL-L-Syn-Low_train/1.png",
            "VELOL/VE-LOL-L-Syn/VE-LOL-L-Syn-Normal_train/1.png",
        ),
        ("LSRW-Huawei", "test", "LSRW/Eval/Huawei/low/1.jpg", "LSRW/Eval/Huawei/high/1.jpg"),
        ("lsrw_nikon", "train", "LSRW/Training data/Nikon/low/1.jpg", "LSRW/Training data/Nikon/high/1.jpg"),
        ("SICE", "train", "SICE/Dataset_Part1/1/1.jpg", "SICE/Dataset_Part1/Label/1.jpg"),
    ],
)  # fmt: skip
def test_a_published_layout_is_found_from_the_folder_around_it_and_from_its_own(
    name: str, split: str, low: str, high: str, files: Files
) -> None:
    root = files(low, high, *(["SICE/Dataset_Part1/1/2.jpg"] if name == "SICE" else []))
    for start in {root, root / low.split("/")[0]} if low.count("/") > 2 else {root}:
        dataset = find_dataset(name, start, split)
        assert [(pair.low, pair.high) for pair in dataset.pairs] == [(root / low, root / high)]
        assert dataset.problems == ()
        assert dataset.paired
        assert dataset.split == split


def test_lsrw_joins_both_cameras_whose_names_may_be_the_same(files: Files) -> None:
    root = files(*(f"LSRW/Eval/{camera}/{side}/7.jpg" for camera in ("Huawei", "Nikon") for side in ("low", "high")))
    dataset = find_dataset("LSRW", root)
    assert dataset.names == ("Huawei/7", "Nikon/7")
    assert [pair.high.parent.parent.name for pair in dataset.pairs] == ["Huawei", "Nikon"]


def test_a_missing_camera_is_a_refused_part(files: Files) -> None:
    root = files("LSRW/Eval/Nikon/low/7.jpg", "LSRW/Eval/Nikon/high/7.jpg")
    dataset = find_dataset("LSRW", root)
    assert dataset.names == ("Nikon/7",)
    (problem,) = dataset.problems
    assert problem.path.name == "Huawei"
    assert "missing" in problem.reason


@pytest.mark.parametrize(("exposures", "dark"), [(7, 3), (9, 4), (3, 1)])
def test_sice_takes_the_darker_half_of_each_scenes_exposures(exposures: int, dark: int, files: Files) -> None:
    names = [f"SICE/Dataset_Part2/12/{number}.JPG" for number in range(1, exposures + 1)]
    dataset = find_dataset("SICE", files(*names, "SICE/Dataset_Part2/Label/12.JPG"))
    assert dataset.names == tuple(f"12/{number}" for number in range(1, dark + 1))
    assert {pair.high.parent.name for pair in dataset.pairs} == {"Label"}


def test_sice_lists_scenes_without_reference_and_references_without_scene(files: Files) -> None:
    part = "SICE/Dataset_Part2"
    root = files(f"{part}/1/1.jpg", f"{part}/1/2.jpg", f"{part}/Label/1.jpg", f"{part}/2/1.jpg", f"{part}/Label/3.jpg")
    dataset = find_dataset("SICE", root)
    assert dataset.names == ("1/1",)
    assert sorted(problem.path.name for problem in dataset.problems) == ["2", "3.jpg"]


@pytest.mark.parametrize("name", ["DICM", "LIME", "MEF", "NPE", "VV"])
def test_unpaired_sets_are_folders_of_pictures(name: str, files: Files) -> None:
    root = files(f"{name}/b.jpg", f"{name}/a10.png", f"{name}/a9.bmp", "other/c.png")
    for start in (root, root / name):
        dataset = find_dataset(name, start)
        assert dataset.names == ("a9", "a10", "b")
        assert not dataset.paired
        assert [path.parent.name for path in dataset.unpaired] == [name] * 3


def test_an_unpaired_set_is_not_made_of_whatever_lies_below_a_folder(files: Files) -> None:
    with pytest.raises(UsageError, match=r"DICM not found.*mcl\.korea"):
        find_dataset("DICM", files("holiday/a.png"))


def test_any_folder_will_do_and_equal_stems_keep_their_endings(files: Files) -> None:
    dataset = find_dataset("folder", files("x/a.png", "x/a.jpg", "b.png"))
    assert dataset.names == ("b", "x/a.jpg", "x/a.png")
    assert not dataset.paired


def test_a_folder_with_a_dark_and_a_bright_side_is_paired(files: Files) -> None:
    root = files("val20/low/1.png", "val20/high/1.png")
    for name, start in (("folder", root / "val20"), ("LOL", root / "val20")):
        dataset = find_dataset(name, start)
        assert pairs_of(dataset) == [("1", "low/1.png", "high/1.png")]
        assert dataset.split == "val20"


def test_a_split_is_a_folder_below_ones_own_and_nothing_of_an_unpaired_set(files: Files) -> None:
    root = files("a/low/1.png", "a/high/1.png", "LIME/x.png")
    assert find_dataset("folder", root, "a").names == ("1",)
    with pytest.raises(UsageError, match="no such folder"):
        find_dataset("folder", root, "b")
    with pytest.raises(UsageError, match="no splits"):
        find_dataset("LIME", root, "test")


def test_partners_are_matched_by_name_never_by_order(files: Files) -> None:
    root = files("eval15/low/2.png", "eval15/low/10.png", "eval15/high/10.png", "eval15/high/2.png")
    assert pairs_of(find_dataset("LOL", root)) == [
        ("2", "eval15/low/2.png", "eval15/high/2.png"),
        ("10", "eval15/low/10.png", "eval15/high/10.png"),
    ]


def test_pictures_without_partner_are_listed_on_both_sides(files: Files) -> None:
    root = files("eval15/low/1.png", "eval15/high/1.png", "eval15/low/2.png", "eval15/high/3.png")
    dataset = find_dataset("LOL", root)
    assert dataset.names == ("1",)
    assert [(problem.path.name, "no partner" in problem.reason) for problem in dataset.problems] == [
        ("2.png", True),
        ("3.png", True),
    ]


def test_a_pair_of_two_sizes_is_refused_with_both(files: Files) -> None:
    files("eval15/low/1.png", "eval15/high/1.png", "eval15/low/2.png")
    root = files("eval15/high/2.png", size=(8, 4))
    dataset = find_dataset("LOL", root)
    assert dataset.names == ("1",)
    (problem,) = dataset.problems
    assert problem.path.name == "2.png"
    assert "6×4" in problem.reason
    assert "8×4" in problem.reason


def test_a_partner_that_lies_on_its_side_has_the_upright_size(files: Files, tmp_path: Path) -> None:
    files("eval15/low/1.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "eval15/high").mkdir()
    Image.new("RGB", (4, 6)).save(tmp_path / "eval15/high/1.jpg", exif=exif)
    assert find_dataset("LOL", tmp_path).names == ("1",)


def test_two_pictures_for_one_name_are_refused(files: Files) -> None:
    root = files("eval15/low/1.png", "eval15/low/1.jpg", "eval15/low/2.png", "eval15/high/1.png", "eval15/high/2.png")
    dataset = find_dataset("LOL", root)
    assert dataset.names == ("2",)
    assert {problem.path.parent.name for problem in dataset.problems} == {"low", "high"}


def test_a_set_of_which_nothing_is_left_is_an_error_with_the_first_reason(files: Files) -> None:
    with pytest.raises(UsageError, match=r"no usable pair of LOL-v1: 2 refused.*no partner"):
        find_dataset("LOL", files("eval15/low/1.png", "eval15/high/2.png"))


def test_lol_v2s_names_do_not_pass_for_lol_v1(files: Files) -> None:
    with pytest.raises(UsageError, match="no usable pair"):
        find_dataset("LOL", files("Test/Low/low1.png", "Test/Normal/normal1.png"))


def test_a_set_that_is_not_there_says_where_it_is_published_and_what_is_expected(files: Files) -> None:
    with pytest.raises(UsageError, match=r"eval15/low.*daooshee\.github\.io.*splits found: val20") as caught:
        find_dataset("LOL", files("val20/low/1.png", "val20/high/1.png"), "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_set_names_its_authors_page(layout: object, tmp_path: Path) -> None:
    name = layout.name  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="http") as caught:
        find_dataset(name, tmp_path)
    assert name in str(caught.value)


def test_a_misspelled_set_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean LSRW"):
        find_layout("LRSW")
    with pytest.raises(UsageError, match="LOL-v2-real and LOL-v2-synthetic"):
        find_layout("LOL-v2")


def test_ones_own_two_folders(files: Files) -> None:
    root = files("dark/a_low.png", "dark/sub/b.jpg", "bright/a_gt.png", "bright/sub/b.png", "dark/c.png")
    dataset = find_folders(root / "dark", root / "bright")
    assert dataset.names == ("a", "sub/b")
    assert [problem.path.name for problem in dataset.problems] == ["c.png"]


@pytest.mark.parametrize("names", [("no-such",), ("empty",)])
def test_a_missing_or_empty_folder_is_an_error(names: Sequence[str], files: Files) -> None:
    root = files("dark/a.png")
    (root / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no such folder|no pictures found"):
        find_folders(root / "dark", root / names[0])


def test_the_rules_of_names() -> None:
    for low, high in (("low00690", "normal00690"), ("7_low", "7_gt"), ("Low-3", "high-3"), ("r00001e", "r00001e")):
        assert side_word(low) == side_word(high)
    assert side_word("lowland") == "lowland"
    assert side_word("flow3") == "flow3"
    assert side_word("low") == "low"
    assert same_stem("A1") == same_stem("a1")
    assert same_stem("low1") != same_stem("normal1")
