"""The manifest: what lumen wrote, from one run to the next."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen_cli.atomic import sweep_temporaries
from lumen_cli.errors import LumenError
from lumen_cli.files.find import find_pictures
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest, Record
from tests.conftest import write_dark
from tests.registry.test_model_folders import json_values


def finished(name: str, size: int = 5) -> Record:
    return Record(name, name, 10, 1_700_000_000_123_456_789, "c0ffee", "5e77", size)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")


def test_what_is_added_is_known_to_the_next_run(tmp_path: Path) -> None:
    first = Manifest(tmp_path)
    first.begin()
    assert (tmp_path / MANIFEST_NAME).read_bytes() == b""
    first.add(finished("a.png"))
    assert Manifest(tmp_path).get("a.png") == finished("a.png")


def test_all_that_lumen_wrote_under_a_name_is_known_until_a_run_ends(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    manifest = Manifest(tmp_path)
    manifest.add(finished("a.png", 7), finished("a.png", 5))
    assert manifest.history("a.png") == Manifest(tmp_path).history("a.png") == (finished("a.png", 7), finished("a.png"))
    assert manifest.get("a.png") == finished("a.png", 5)
    manifest.finish()
    assert Manifest(tmp_path).history("a.png") == (finished("a.png", 5),)


def test_an_output_is_recorded_before_it_gets_its_name(tmp_path: Path) -> None:
    with Manifest(tmp_path).writing(finished("a.png")):
        assert Manifest(tmp_path).get("a.png") == finished("a.png")


def test_where_renaming_fails_the_record_before_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(finished("a.png", 5))
    with pytest.raises(OSError, match="disk"), manifest.writing(finished("a.png", 7), finished("b.png")):
        raise OSError("disk")
    assert Manifest(tmp_path).get("a.png") == finished("a.png", 5)


def test_an_older_lumens_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(
        '{"output":"a.png","source":"a.jpg","source_size":10,"source_mtime_ns":20,"content":"c","settings":"s",'
        '"output_size":5}\n{"output":"b.png","source":"b.jpg"}\n'
    )
    manifest = Manifest(tmp_path)
    assert manifest.get("a.png") == Record("a.png", "a.jpg", 10, 20, "c", "s", 5)
    announced = manifest.get("b.png")
    assert announced is not None
    assert not announced.finished


@pytest.mark.parametrize("cut", range(1, 200, 13))
def test_wherever_a_line_is_cut_the_others_stay_and_further_ones_are_read(tmp_path: Path, cut: int) -> None:
    manifest = Manifest(tmp_path)
    manifest.add(finished("a.png"), finished("b.png"))
    path = tmp_path / MANIFEST_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: -min(cut, len(whole) // 2)])
    manifest.add(finished("c.png"))
    again = Manifest(tmp_path)
    assert (again.get("a.png"), again.get("c.png")) == (finished("a.png"), finished("c.png"))


def test_a_line_cut_short_by_a_kill_loses_that_line_only(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin()
    manifest.add(finished("a.png"))
    manifest.add(finished("b.png"))
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(path.read_bytes()[:-20])
    reopened = Manifest(tmp_path)
    assert reopened.get("a.png") == finished("a.png")
    assert reopened.get("b.png") is None
    reopened.begin()
    reopened.add(finished("c.png"))
    assert Manifest(tmp_path).get("c.png") == finished("c.png")


def test_garbage_is_no_record(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(
        b"\xff\xfe\n[]\n" + b"[" * 100_000 + b'\n{"output": 3}\n{"output":"a"}\n\n{"output":"b","source":"b"}\n'
    )
    assert Manifest(tmp_path).get("a") is None
    assert Manifest(tmp_path).get("b") == Record("b", "b")


def test_the_end_result_does_not_depend_on_the_order_of_work(tmp_path: Path) -> None:
    contents = []
    for order in (["a.png", "sub/b.png", "c.png"], ["c.png", "sub/b.png", "a.png"]):
        make(tmp_path, *order)
        (tmp_path / MANIFEST_NAME).unlink(missing_ok=True)
        manifest = Manifest(tmp_path)
        manifest.begin()
        for name in order:
            manifest.add(finished(name))
        manifest.finish()
        contents.append((tmp_path / MANIFEST_NAME).read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].count(b"\n") == 3


def test_outputs_that_do_not_exist_leave_the_manifest_at_the_end(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    manifest = Manifest(tmp_path)
    manifest.add(finished("gone.png"), finished("a.png"))
    manifest.finish()
    assert Manifest(tmp_path).get("gone.png") is None
    assert Manifest(tmp_path).get("a.png") == finished("a.png")


def test_what_another_run_recorded_meanwhile_stays(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    one, other = Manifest(tmp_path), Manifest(tmp_path)
    one.begin()
    other.begin()
    other.add(finished("b.png"))
    one.add(finished("a.png"))
    one.finish()
    assert Manifest(tmp_path).get("b.png") == finished("b.png")


def test_a_manifest_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LumenError, match="the manifest cannot be written"):
        Manifest(tmp_path / "gone").begin()


def test_names_of_any_kind_survive(tmp_path: Path) -> None:
    for name in (
        "snö/ñandú 夜.png",
        'quote".png',
        "line\nbreak.png",
        b"latin-\xe9.png".decode("utf-8", "surrogateescape"),
    ):
        manifest = Manifest(tmp_path)
        manifest.begin()
        manifest.add(finished(name))
        assert Manifest(tmp_path).get(name) == finished(name)


def test_the_manifest_is_no_picture_and_no_temporary_file(tmp_path: Path) -> None:
    write_dark(tmp_path / "a.png")
    Manifest(tmp_path).begin()
    assert [source.path.name for source in find_pictures([str(tmp_path)])] == ["a.png"]
    sweep_temporaries([tmp_path])
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST_NAME, "a.png"]


manifest_lines = st.one_of(
    st.binary(max_size=40),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["output", "source", "output_size", "settings"]), json_values, max_size=4).map(
        lambda value: json.dumps(value).encode()
    ),
    st.text(string.printable, max_size=30).map(
        lambda name: json.dumps({"output": name, "source": name, "output_size": 1}).encode()
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(manifest_lines, max_size=8))
def test_a_manifest_of_anything_is_read_and_tidied(tmp_path: Path, content: list[bytes]) -> None:
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    (folder / "there.png").touch()
    known = json.dumps({"output": "there.png", "source": "a.png", "output_size": 0}).encode()
    (folder / MANIFEST_NAME).write_bytes(b"\n".join([*content, known, b""]))
    manifest = Manifest(folder)
    assert manifest.get("there.png") is not None
    manifest.begin()
    manifest.finish()
    again = [json.loads(line) for line in (folder / MANIFEST_NAME).read_bytes().splitlines()]
    assert "there.png" in [record["output"] for record in again]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_NAME, "there.png"]
