"""Where results go: mirrored, never two on one file, never over an input."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lumen_cli.errors import UsageError
from lumen_cli.files import Source
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import FIELDS, check_writable, parse_template, plan_outputs
from tests.files.test_find import plan_in_any_order, sources_below, tree


def targets(base: Path, inputs: list[str], output: str | None = None, suffix: str | None = None) -> dict[str, str]:
    """Source → target, both relative to `base`."""
    sources = find_pictures([str(base / name) for name in inputs])
    out = None if output is None else os.path.join(base, output)  # noqa: PTH118  (keeps a final separator)
    return {
        job.source.path.relative_to(base).as_posix(): job.target.relative_to(base).as_posix()
        for job in plan_outputs(sources, out, suffix)
    }


def test_a_folder_is_mirrored_beside_itself(tmp_path: Path) -> None:
    tree(tmp_path, "photos/a.JPG", "photos/s/b.png")
    assert targets(tmp_path, ["photos"]) == {
        "photos/a.JPG": "photos-enhanced/a.JPG",
        "photos/s/b.png": "photos-enhanced/s/b.png",
    }


def test_one_file_goes_beside_itself_or_to_the_named_place(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg")
    (tmp_path / "there").mkdir()
    assert targets(tmp_path, ["a.jpg"]) == {"a.jpg": "a-enhanced.jpg"}
    assert targets(tmp_path, ["a.jpg"], suffix=".png") == {"a.jpg": "a-enhanced.png"}
    assert targets(tmp_path, ["a.jpg"], "bright.png") == {"a.jpg": "bright.png"}
    assert targets(tmp_path, ["a.jpg"], "there") == {"a.jpg": "there/a.jpg"}
    assert targets(tmp_path, ["a.jpg"], "new") == {"a.jpg": "new/a.jpg"}
    assert targets(tmp_path, ["a.jpg"], "new.jpg/") == {"a.jpg": "new.jpg/a.jpg"}


def test_a_format_changes_the_ending_only_where_needed(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpeg", "p/b.PNG", "p/c.JPG")
    assert targets(tmp_path, ["p"], "out", ".jpg") == {
        "p/a.jpeg": "out/a.jpeg",
        "p/b.PNG": "out/b.jpg",
        "p/c.JPG": "out/c.JPG",
    }


def test_several_folders_keep_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "x/p/a.jpg", "y/p/a.jpg", "q/a.jpg", "lone.jpg")
    assert targets(tmp_path, ["x/p", "y/p", "q", "lone.jpg"], "out") == {
        "x/p/a.jpg": "out/x/p/a.jpg",
        "y/p/a.jpg": "out/y/p/a.jpg",
        "q/a.jpg": "out/q/a.jpg",
        "lone.jpg": "out/lone.jpg",
    }


@pytest.mark.parametrize(
    "names",
    [
        {"a.jpg": "a_jpg.png", "a.png": "a.png", "a.webp": "a_webp.png", "b.jpg": "b.png"},
        {"a.jpg": "a_jpg_3.png", "a.png": "a.png", "a_jpg.png": "a_jpg.png", "a_jpg_2.png": "a_jpg_2.png"},
    ],
    ids=["the old ending", "a number where that is taken"],
)
def test_a_name_belongs_to_the_picture_that_bears_it_and_others_get_more(tmp_path: Path, names: dict[str, str]) -> None:
    tree(tmp_path, *(f"p/{name}" for name in names))
    assert targets(tmp_path, ["p"], "out", ".png") == {f"p/{name}": f"out/{names[name]}" for name in names}


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist only where case and spelling count")
def test_names_that_differ_only_in_case_or_spelling_get_numbers(tmp_path: Path) -> None:
    spelled = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    tree(tmp_path, "p/A.jpg", "p/a.jpg", *(f"p/{name}" for name in spelled))
    planned = targets(tmp_path, ["p"], "out")
    assert planned["p/A.jpg"] == "out/A.jpg"
    assert planned["p/a.jpg"] == "out/a_2.jpg"
    folded = {unicodedata.normalize("NFC", target).casefold() for target in planned.values()}
    assert len(folded) == 4


def test_two_files_for_one_output_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "x/a.jpg", "y/a.jpg")
    with pytest.raises(UsageError, match=r"x/a\.jpg and .*y/a\.jpg.*name_template="):
        targets(tmp_path, ["x/a.jpg", "y/a.jpg"], "out")


@pytest.mark.parametrize("output", ["p", "p/out", "p/sub/out", "link", "link/out", "x/../p"])
def test_an_output_in_an_input_folder_is_refused(tmp_path: Path, output: str) -> None:
    tree(tmp_path, "p/a.jpg", "x/y")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    with pytest.raises(UsageError, match="input folder"):
        targets(tmp_path, ["p"], output)


def test_no_input_is_overwritten_even_through_links(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b.jpg", "out/x")
    with pytest.raises(UsageError, match="overwrite the input"):
        targets(tmp_path, ["a.jpg"], "a.jpg")
    with pytest.raises(UsageError, match="overwrite the input"):
        targets(tmp_path, ["a.jpg", "b.jpg"], ".")
    (tmp_path / "soft.jpg").symlink_to("a.jpg")
    with pytest.raises(UsageError, match="overwrite the input"):
        targets(tmp_path, ["a.jpg"], "soft.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "hard.jpg")
    with pytest.raises(UsageError, match="overwrite the input"):
        targets(tmp_path, ["a.jpg"], "hard.jpg")
    tree(tmp_path, "a-enhanced.jpg")
    with pytest.raises(UsageError, match="overwrite the input"):
        targets(tmp_path, ["a.jpg", "a-enhanced.jpg"])


def test_impossible_outputs_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "p/a.jpg", "p/b.jpg", "c.jpg")
    with pytest.raises(UsageError, match="one file cannot take"):
        targets(tmp_path, ["p"], "out.jpg")
    with pytest.raises(UsageError, match="do not agree"):
        targets(tmp_path, ["c.jpg"], "out.png", ".jpg")
    with pytest.raises(UsageError, match="empty"):
        plan_outputs(find_pictures([str(tmp_path / "c.jpg")]), "", None)
    with pytest.raises(UsageError, match=r"not a format lumen writes .*for a folder of that name, .*out\.xyz/"):
        targets(tmp_path, ["c.jpg"], "out.xyz")


@pytest.mark.parametrize("output", ["out.xyz/", "2024.06", "v1.0", "photos.of.may.2024"])
def test_folders_may_have_dots(tmp_path: Path, output: str) -> None:
    tree(tmp_path, "c.jpg")
    assert targets(tmp_path, ["c.jpg"], output) == {"c.jpg": f"{output.rstrip('/')}/c.jpg"}


def test_a_folder_that_exists_may_end_like_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "c.jpg", "out.xyz/x")
    assert targets(tmp_path, ["c.jpg"], "out.xyz") == {"c.jpg": "out.xyz/c.jpg"}


def test_a_writable_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


def test_the_error_says_what_is_in_the_way_of_an_output_folder(tmp_path: Path) -> None:
    tree(tmp_path, "file")
    with pytest.raises(UsageError, match="file of this name is in the way"):
        check_writable(tmp_path / "file")
    with pytest.raises(UsageError, match="file is a file"):
        check_writable(tmp_path / "file" / "out")
    if sys.platform == "linux":
        with pytest.raises(UsageError, match="cannot be"):
            check_writable(Path("/proc/lumen-out"))


part = st.sampled_from(["a", "A", "b", "a_jpg", "a_png", "a_2", "\u00e9", "e\u0301"])
ending = st.sampled_from([".jpg", ".JPG", ".png", ".webp", ".tif", ""])
file_name = st.builds(str.__add__, part, ending)
relative = st.lists(part, max_size=2).flatmap(lambda folders: file_name.map(lambda name: "/".join([*folders, name])))
roots = st.sampled_from(["/lumen-test/in", "/lumen-test/In", "/lumen-test/x/in", ""])


@given(
    st.lists(st.tuples(roots, relative), min_size=1, max_size=8, unique=True),
    st.sampled_from([None, "/lumen-test/out", "/lumen-test"]),
    st.sampled_from([None, ".png", ".jpg"]),
    st.sampled_from([None, "{stem}{suffix}", "{parent}{stem}{suffix}", "{stem}_{model}{suffix}"]),
    st.randoms(),
)
@settings(max_examples=400, deadline=None)
def test_outputs_are_distinct_and_independent_of_the_order_of_sources(
    named: list[tuple[str, str]], output: str | None, suffix: str | None, text: str | None, random: Random
) -> None:
    template = None if text is None else parse_template(text, model="png")
    sources = sources_below(named)

    def planned(order: list[Source]) -> dict[Path, Path] | None:
        try:
            return {job.source.path: job.target for job in plan_outputs(order, output, suffix, template)}
        except UsageError:
            return None

    plan = plan_in_any_order(planned, sources, random)
    if plan is None:
        return
    folded = [unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(t)).casefold()) for t in plan.values()]
    assert len(set(folded)) == len(sources)
    assert not set(plan.values()) & set(plan)
    assert not any(parent in set(plan.values()) for target in plan.values() for parent in target.parents)
    if suffix is None:
        assert all(target.suffix == source.suffix for source, target in plan.items())


def test_fields_are_filled_in() -> None:
    template = parse_template("{parent} {stem}-{model}-{seed}{suffix}", model="kind", seed="3")
    assert template.name(stem="a.b", suffix=".JPG", parent="night") == "night a.b-kind-3.JPG"
    assert parse_template("{{{stem}}}{suffix}").name(stem="a", suffix="", parent="") == "{a}"


def test_odd_names_stay_as_they_are() -> None:
    for stem in ("new\nline", "sp ace ", "-o", "夜", b"\xff".decode("utf-8", "surrogateescape"), "[1]", "%d"):
        assert parse_template("{stem}-x{suffix}").name(stem=stem, suffix=".png", parent="p") == f"{stem}-x.png"


def test_a_models_name_cannot_lead_elsewhere() -> None:
    template = parse_template("{stem}-{model}{suffix}", model="../../hf/evil\0")
    assert template.name(stem="a", suffix=".png", parent="p") == "a-.._.._hf_evil_.png"


def test_unknown_fields_are_refused_with_the_known_ones() -> None:
    assert all(FIELDS.values())
    with pytest.raises(UsageError, match=r"no field \{date\}; fields: \{stem\} \{suffix\} \{parent\} \{model\}$"):
        parse_template("{date}{suffix}", model="kind")


pieces = st.one_of(
    st.sampled_from(
        ["{stem}", "{suffix}", "{parent}", "{model}", "{part}", "{", "}", "{{", "}}", "..", "/", "\\", "."]
    ),
    st.text(max_size=4),
)
plain = st.text(st.characters(exclude_characters="/\\\0"), max_size=6)


@given(st.lists(pieces, max_size=6).map("".join), st.booleans(), plain, st.text(max_size=6), plain)
@example("{stem}", True, "..", "", "")
@example("", True, "..", "..", "..")
@settings(max_examples=500, deadline=None)
def test_a_template_gives_a_plain_name_or_one_line(text: str, ending: bool, stem: str, model: str, parent: str) -> None:
    try:
        name = parse_template(text + "{suffix}" * ending, model=model).name(stem=stem, suffix=".png", parent=parent)
    except UsageError as error:
        assert str(error).startswith("name template ")  # noqa: PT017
        return
    assert Path("/out").joinpath(name).parent == Path("/out")
    assert name.endswith(".png")
    assert name not in ("", ".", "..")
    assert not name.startswith(".lumen-")
