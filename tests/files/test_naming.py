"""Templates for outputs' names: plain names come out, or a line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import FIELDS, name_template


def test_fields_are_filled_in() -> None:
    template = name_template("{parent} {stem}-{model}-{seed}{suffix}", model="kind", seed="3")
    assert template.name(stem="a.b", suffix=".JPG", parent="night") == "night a.b-kind-3.JPG"
    assert name_template("{{{stem}}}{suffix}").name(stem="a", suffix="", parent="") == "{a}"


def test_names_that_the_system_knows_come_through_as_they_are() -> None:
    for stem in ("new\nline", "sp ace ", "-o", "夜", b"\xff".decode("utf-8", "surrogateescape"), "[1]", "%d"):
        assert name_template("{stem}-x{suffix}").name(stem=stem, suffix=".png", parent="p") == f"{stem}-x.png"


def test_a_models_name_cannot_lead_elsewhere() -> None:
    template = name_template("{stem}-{model}{suffix}", model="../../hf/evil\0")
    assert template.name(stem="a", suffix=".png", parent="p") == "a-.._.._hf_evil_.png"


def test_every_field_is_explained_and_unknown_ones_are_refused_with_the_known() -> None:
    assert all(FIELDS.values())
    with pytest.raises(UsageError, match=r"no field \{date\}; fields: \{stem\} \{suffix\} \{parent\} \{model\}$"):
        name_template("{date}{suffix}", model="kind")


pieces = st.one_of(
    st.sampled_from(
        ["{stem}", "{suffix}", "{parent}", "{model}", "{part}", "{", "}", "{{", "}}", "..", "/", "\\", "."]
    ),
    st.text(max_size=4),
)
names = st.text(st.characters(exclude_characters="/\\\0"), max_size=6)


@given(st.lists(pieces, max_size=6).map("".join), st.booleans(), names, st.text(max_size=6), names)
@example("{stem}", True, "..", "", "")
@example("", True, "..", "..", "..")
@settings(max_examples=500, deadline=None)
def test_whatever_is_asked_a_plain_name_comes_out_or_one_line(
    text: str, ending: bool, stem: str, model: str, parent: str
) -> None:
    try:
        name = name_template(text + "{suffix}" * ending, model=model).name(stem=stem, suffix=".png", parent=parent)
    except UsageError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.startswith("name template ")
        return
    assert Path("/out").joinpath(name).parent == Path("/out")
    assert name.endswith(".png")
    assert name not in ("", ".", "..")
    assert not name.startswith(".lumen-")
