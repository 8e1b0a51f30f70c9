from __future__ import annotations

from pathlib import Path

import pytest

from lumen_cli.compare import distinct_labels, match_paths
from lumen_cli.errors import UsageError
from tests.conftest import write_dark


def fill(folder: Path, *names: str) -> str:
    for name in names:
        write_dark(folder / name)
    return str(folder)


def test_names_match_below_each_folder_whatever_their_endings(tmp_path: Path) -> None:
    before = fill(tmp_path / "before", "a.jpg", "night/b.png", "night/c10.png", "night/c9.png")
    after = fill(tmp_path / "after", "a.png", "night/b.webp", "night/c9.JPG", "night/c10.tif")
    matched = match_paths([before, after])
    assert matched.labels == ("before", "after")
    assert [row.name for row in matched.rows] == ["a", "night/b", "night/c9", "night/c10"]
    assert matched.rows[0].files == (tmp_path / "before/a.jpg", tmp_path / "after/a.png")
    assert (matched.reference, matched.truth, matched.problems) == (0, False, ())


def test_a_missing_partner_is_a_problem_and_the_rest_goes_on(tmp_path: Path) -> None:
    contents = {"x": ["a.png", "b.png"], "y": ["b.png"], "z": ["a.png", "b.png", "c.png"]}
    matched = match_paths([fill(tmp_path / folder, *names) for folder, names in contents.items()])
    assert [row.name for row in matched.rows] == ["b"]
    assert [(problem.name, problem.reason) for problem in matched.problems] == [
        ("a", "missing in y; left out"),
        ("c", "missing in x, y; left out"),
    ]


def test_the_addition_of_pictures_enhanced_alone_is_seen_through(tmp_path: Path) -> None:
    before = fill(tmp_path / "before", "a.jpg", "b-enhanced.jpg", "c.png")
    after = fill(tmp_path / "after", "a-enhanced.jpg", "b-enhanced.png", "c.png")
    matched = match_paths([before, after])
    assert [row.name for row in matched.rows] == ["a", "b-enhanced", "c"]
    assert matched.rows[0].files[1].name == "a-enhanced.jpg"
    assert not matched.problems


def test_pictures_that_differ_in_their_endings_only_keep_them(tmp_path: Path) -> None:
    before = fill(tmp_path / "before", "a.jpg", "a.png", "b.jpg")
    after = fill(tmp_path / "after", "a.jpg", "b.png", "a.png")
    matched = match_paths([before, after])
    assert [row.name for row in matched.rows] == ["a.jpg", "a.png", "b"]
    assert all(row.files[0].suffix == row.files[1].suffix for row in matched.rows[:2])


def test_single_pictures_match_whatever_they_are_called(tmp_path: Path) -> None:
    one, other = write_dark(tmp_path / "night.jpg"), write_dark(tmp_path / "day.png")
    matched = match_paths([str(one), str(other)])
    assert [row.files for row in matched.rows] == [(one, other)]


def test_a_version_inside_another_is_not_a_part_of_it(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "a.png")
    inner = fill(tmp_path / "photos" / "out", "a.png")
    matched = match_paths([photos, inner])
    assert len(matched.rows) == 1
    assert not matched.problems


def test_the_reference_may_be_a_version_or_a_further_one(tmp_path: Path) -> None:
    low, high, out = (fill(tmp_path / name, "a.png") for name in ("low", "high", "out"))
    further = match_paths([low, out], high)
    assert (further.labels, further.reference, further.input) == (("low", "out", "high"), 2, 0)
    among = match_paths([high, low, out], f"{high}/")
    assert (among.labels, among.reference, among.input) == (("high", "low", "out"), 0, 1)
    assert among.truth


def test_labels_take_as_many_parents_as_tell_them_apart() -> None:
    assert distinct_labels([Path("/x/a/high"), Path("/x/b/high")]) == ("a/high", "b/high")
    assert distinct_labels([Path("/x/low"), Path("/y/high")]) == ("low", "high")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one"], "at least two versions"),
        (["one", "one/"], "named twice"),
        (["one", "one/a.png"], "compare folders with folders"),
        (["one", "nowhere"], "no such file or folder"),
        (["one", "empty"], "no pictures found"),
        (["one", "strange"], "same name in all versions: one has a; strange has b"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    fill(tmp_path / "one", "a.png")
    fill(tmp_path / "strange", "b.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        match_paths(arguments)
