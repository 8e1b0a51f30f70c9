"""What files, folders and patterns stand for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from lumen_cli.errors import UsageError
from lumen_cli.files import Source
from lumen_cli.files.find import find_pictures, search

T = TypeVar("T")


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def sources_below(places: Iterable[tuple[str, str]]) -> list[Source]:
    """Sources that no file system knows, by their root ("" for a file named directly) and what is below it."""
    return [
        Source(Path(root) / below, Path(root), Path(below))
        if root
        else Source(Path("/lumen-test/named") / below, None, Path(Path(below).name))
        for root, below in places
    ]


def plan_in_any_order(plan: Callable[[list[Source]], T], sources: list[Source], random: Random) -> T:
    """A plan of sources, which does not depend on their order."""
    planned = plan(sources)
    assert plan(random.sample(sources, len(sources))) == planned
    return planned


def found(*inputs: object) -> list[str]:
    return [source.relative.as_posix() for source in find_pictures([str(i) for i in inputs])]


def test_a_folder_is_searched_to_the_bottom_in_natural_order(tmp_path: Path) -> None:
    tree(
        tmp_path, "img10.JPG", "img2.jpg", "sub/deeper/a.TIF", "sub/b.webp", "notes.txt", "movie.mp4", "c.jpeg", "d.bmp"
    )
    assert found(tmp_path) == ["c.jpeg", "d.bmp", "img2.jpg", "img10.JPG", "sub/b.webp", "sub/deeper/a.TIF"]


def test_hidden_files_and_temporary_files_do_not_count(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", ".hidden.jpg", ".thumbnails/b.jpg", ".lumen-1-abc-a.jpg", "._a.jpg")
    assert found(tmp_path) == ["a.jpg"]


def test_a_file_named_directly_counts_whatever_its_name(tmp_path: Path) -> None:
    tree(tmp_path, "picture", "b.dat")
    sources = find_pictures([str(tmp_path / "picture"), str(tmp_path / "b.dat")])
    assert [(s.relative.name, s.root) for s in sources] == [("b.dat", None), ("picture", None)]
    assert all(s.path.is_absolute() for s in sources)


@pytest.mark.parametrize("name", ["a b.jpg", "-a.jpg", "new\nline.jpg", "ünï.jpg", "[1].jpg", "100%d.jpg", "*.jpg"])
def test_odd_names_are_found_and_can_be_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, name)
    assert found(tmp_path) == [name]
    monkeypatch.chdir(tmp_path)
    assert found(name) == [name]


@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    tree(tmp_path, name)
    assert found(tmp_path) == found(tmp_path / name) == [name]


def test_patterns_that_the_shell_did_not_expand(tmp_path: Path) -> None:
    tree(tmp_path, "p/a1.jpg", "p/a2.png", "p/b1.jpg", "p/s/a3.jpg", "p/a.txt", "p/.a9.jpg")
    assert found(tmp_path / "p" / "a*") == ["a1.jpg", "a2.png"]
    assert found(tmp_path / "*") == ["a1.jpg", "a2.png", "b1.jpg", "s/a3.jpg"]
    assert found(tmp_path / "p" / "**" / "a*.jpg") == ["a1.jpg", "s/a3.jpg"]
    assert found(tmp_path / "p" / "**") == ["a1.jpg", "a2.png", "b1.jpg", "s/a3.jpg"]
    recursive = find_pictures([str(tmp_path / "p" / "**" / "*.png")])
    assert recursive[0].root == tmp_path / "p"


def test_each_real_file_is_found_once(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpg", "p/sub/b.jpg")
    (tmp_path / "p" / "aa-link.jpg").symlink_to("sub/b.jpg")
    named_twice = find_pictures([str(tmp_path / "p" / "a.jpg"), str(tmp_path / "p" / "sub"), str(tmp_path / "p")])
    assert [(s.relative.as_posix(), s.root) for s in named_twice] == [
        ("a.jpg", tmp_path / "p"),
        ("sub/b.jpg", tmp_path / "p"),
    ]


def test_the_order_of_the_inputs_does_not_matter(tmp_path: Path) -> None:
    tree(tmp_path, "p/x/a.jpg", "p/b.jpg", "q/a.jpg", "c.jpg")
    inputs = [str(tmp_path / "p"), str(tmp_path / "q"), str(tmp_path / "c.jpg"), str(tmp_path / "p" / "x")]
    assert find_pictures(inputs) == find_pictures(inputs[::-1])


def test_loops_of_links_end(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpg", "p/sub/b.jpg")
    (tmp_path / "p" / "sub" / "up").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "self").symlink_to(".")
    assert found(tmp_path / "p") == ["a.jpg", "sub/b.jpg"]
    assert found(tmp_path / "p" / "**" / "*.jpg") == ["a.jpg", "sub/b.jpg"]


def test_a_linked_folder_is_followed_and_a_broken_link_is_kept(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/a.jpg", "p/b.jpg")
    (tmp_path / "p" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert found(tmp_path / "p") == ["b.jpg", "gone.jpg", "link/a.jpg"]


def test_a_missing_input_is_named_with_the_nearest_name(tmp_path: Path) -> None:
    tree(tmp_path, "photos/night.jpg")
    with pytest.raises(UsageError, match=r"nihgt\.jpg: no such file.*night\.jpg\?"):
        find_pictures([str(tmp_path / "photos" / "nihgt.jpg")])
    with pytest.raises(UsageError, match=r"does not exist.*photos\?"):
        find_pictures([str(tmp_path / "photo" / "night.jpg")])
    with pytest.raises(UsageError, match="empty name"):
        find_pictures([""])
    with pytest.raises(UsageError, match=r"cannot be opened|no such file"):
        find_pictures(["x" * 5000])


def test_without_pictures_the_error_says_what_was_looked_for(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.txt", "p/b.MOV", "p/c.mov")
    with pytest.raises(UsageError) as caught:
        find_pictures([str(tmp_path / "p")])
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(tmp_path / "p") in text
    assert "JPEG, PNG" in text
    assert "2 × .mov" in text
    with pytest.raises(UsageError, match="no input"):
        find_pictures([])
    with pytest.raises(UsageError, match="no pictures found"):
        find_pictures([str(tmp_path / "p" / "*.jpg")])


def test_a_folder_named_by_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "photos/sub/a.jpg")
    monkeypatch.chdir(tmp_path / "photos" / "sub")
    assert find_pictures(["."])[0].root == tmp_path / "photos" / "sub"
    assert find_pictures([".."])[0].root == tmp_path / "photos"


def test_hard_links_are_pictures_of_their_own(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpg")
    os.link(tmp_path / "p" / "a.jpg", tmp_path / "p" / "b.jpg")
    assert found(tmp_path / "p") == ["a.jpg", "b.jpg"]


def test_links_inside_count_once_and_links_out_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/a.jpg", "p/b.jpg", "p/sub/c.jpg")
    for name, leads in (
        ("folder", "../elsewhere"),
        ("file.jpg", "../elsewhere/a.jpg"),
        ("again.jpg", "sub/c.jpg"),
        ("up", ".."),
        ("loop", "sub"),
        ("gone.jpg", "../nowhere.jpg"),
    ):
        (tmp_path / "p" / name).symlink_to(leads)
    looked = search([tmp_path / "p"])
    assert [source.relative.as_posix() for source in looked.sources] == ["b.jpg", "gone.jpg", "sub/c.jpg"]
    assert [path.name for path in looked.outside] == ["file.jpg", "folder", "up"]
    assert looked.troubles == ()


def test_an_input_may_be_a_link(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/a.jpg")
    (tmp_path / "p").symlink_to("elsewhere")
    looked = search([tmp_path / "p"])
    assert [source.path for source in looked.sources] == [tmp_path / "p" / "a.jpg"]
    assert looked.outside == ()


def test_paths_from_a_list_are_not_expanded(tmp_path: Path) -> None:
    tree(tmp_path, "[1].jpg", "1.jpg")
    looked = search([], [str(tmp_path / "[1].jpg"), str(tmp_path / "*.jpg"), str(tmp_path / "2.jpg")])
    assert [source.relative.name for source in looked.sources] == ["[1].jpg"]
    assert [trouble.path.name for trouble in looked.troubles] == ["*.jpg", "2.jpg"]
    assert all("no such file" in trouble.reason for trouble in looked.troubles)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_pipes_and_devices_are_troubles(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpg")
    os.mkfifo(tmp_path / "p" / "b.jpg")
    looked = search([tmp_path / "p"])
    assert [source.relative.name for source in looked.sources] == ["a.jpg"]
    assert [trouble.path.name for trouble in looked.troubles] == ["b.jpg"]
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        search([tmp_path / "p" / "b.jpg"])
