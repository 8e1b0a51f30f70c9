"""Parts of a run: which pictures belong to which, manifests side by side, and what they tell."""

from __future__ import annotations

import itertools
import json
from pathlib import Path, PurePath

import pytest
from lumen_tiny import Tiny

from lumen_cli.engine.device import choose_device
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import MANIFEST_NAME, PARTS, Manifest, Record
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.run import Run, RunOptions
from lumen_cli.run.shards import Shard, find_states, parse_shard
from tests.conftest import folder_bytes, write_dark

CPU = choose_device("cpu", "fp32")


def run(folder: Path, shard: Shard | None = None, **options: object) -> dict[str, str]:
    """Enhance folder/in into folder/out; the status of each picture."""
    operation = Enhance(Settings("tiny", {}, "0" * 64, steps=1, **options))
    chosen = RunOptions(f"{folder / 'out'}/", if_exists=IfExists.RESUME, shard=shard)
    with Run(None, CPU, operation, chosen, network=Tiny().eval()) as going:
        results = going.results(going.plan(find_pictures([folder / "in"])))
        return {result.task.output: result.status for result in results}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(12):
        write_dark(tmp_path / "in" / f"{index % 3}" / f"{index}.png", seed=index)
    return tmp_path


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in folder_bytes(folder / "out").items() if name.endswith(".png")}


def test_every_picture_belongs_to_one_part_whatever_the_others_are() -> None:
    keys = [PurePath(f"a/{number}.jpg") for number in range(2000)]
    for count in (1, 3, 8):
        parts = [[key for key in keys if Shard(number, count).holds(key)] for number in range(1, count + 1)]
        assert sorted(itertools.chain(*parts)) == sorted(keys)
        assert all(0.7 * len(keys) / count < len(part) < 1.3 * len(keys) / count for part in parts)


def test_parts_together_make_what_one_run_makes(folder: Path) -> None:
    made: dict[str, str] = {}
    for number in (1, 2, 3):
        part = run(folder, Shard(number, 3))
        assert not made.keys() & part.keys()
        made |= part
    assert set(made.values()) == {"done"}
    assert sorted(path.name for path in (folder / "out" / PARTS).iterdir()) == [f"{n}-of-3.jsonl" for n in (1, 2, 3)]
    together = outputs(folder)
    assert len(together) == 12
    (folder / "out").rename(folder / "parts")
    run(folder)
    assert outputs(folder) == together


def test_another_number_of_parts_makes_nothing_again_and_a_whole_run_takes_the_manifests_over(folder: Path) -> None:
    for number in (1, 2):
        run(folder, Shard(number, 2))
    for number in (1, 2, 3, 4, 5):
        assert set(run(folder, Shard(number, 5)).values()) <= {"kept"}
    assert set(run(folder).values()) == {"kept"}
    assert not (folder / "out" / PARTS).exists()
    lines = [json.loads(line) for line in (folder / "out" / MANIFEST_NAME).read_text().splitlines()]
    assert [line["output"] for line in lines] == sorted(outputs(folder))
    assert set(run(folder).values()) == {"kept"}


def test_a_whole_run_leaves_the_manifest_of_a_part_that_is_running(folder: Path) -> None:
    from filelock import FileLock

    run(folder, Shard(1, 2))
    run(folder, Shard(2, 2))
    busy = folder / "out" / PARTS / "1-of-2.jsonl"
    before = busy.read_bytes()
    with FileLock(busy.with_name(busy.name + ".lock")):
        assert set(run(folder).values()) == {"kept"}
        assert busy.read_bytes() == before
        assert not busy.with_name("2-of-2.jsonl").exists()
    assert set(run(folder).values()) == {"kept"}
    assert not busy.exists()


def test_names_do_not_depend_on_the_part(tmp_path: Path) -> None:
    for ending in ("png", "bmp"):
        write_dark(tmp_path / "in" / f"a.{ending}")
    for number in range(1, 5):
        run(tmp_path, Shard(number, 4), format=".png")
    assert set(outputs(tmp_path)) == {"a.png", "a_bmp.png"}


def test_failures_are_recorded_until_the_picture_is_made(folder: Path) -> None:
    bad = folder / "in" / "0" / "0.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:60])
    statuses = run(folder)
    assert statuses["0/0.png"] == "failed"
    (failed,) = (state for state in find_states(folder / "out") if state.state != "done")
    assert (failed.state, failed.source, failed.output) == ("failed", "0/0.png", "0/0.png")
    assert failed.reason
    recorded = (folder / "out" / MANIFEST_NAME).read_bytes()
    assert run(folder)["0/0.png"] == "failed"
    assert (folder / "out" / MANIFEST_NAME).read_bytes() == recorded, "the same failure is the same line"
    bad.write_bytes(good)
    assert run(folder)["0/0.png"] == "done"
    assert {state.state for state in find_states(folder / "out")} == {"done"}
    assert b"failure" not in (folder / "out" / MANIFEST_NAME).read_bytes()


def test_an_output_stays_known_when_a_later_attempt_fails(folder: Path) -> None:
    run(folder)
    source = folder / "in" / "1" / "1.png"
    good = source.read_bytes()
    source.write_bytes(good[:60])
    assert run(folder)["1/1.png"] == "failed"
    source.write_bytes(good)
    assert run(folder)["1/1.png"] == "kept", "its content is what the output was made from"


def test_only_failed_pictures_are_tried_again(folder: Path) -> None:
    bad = folder / "in" / "0" / "0.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:60])
    run(folder)
    bad.write_bytes(good)
    (folder / "out" / "1" / "1.png").unlink()
    operation = Enhance(Settings("tiny", {}, "0" * 64, steps=1))
    options = RunOptions(f"{folder / 'out'}/", if_exists=IfExists.RESUME, only_failed=True)
    with Run(None, CPU, operation, options, network=Tiny().eval()) as going:
        results = list(going.results(going.plan(find_pictures([folder / "in"]))))
    assert [(result.task.output, result.status) for result in results] == [("0/0.png", "done")]


def test_states_of_outputs_and_inputs(folder: Path) -> None:
    run(folder, Shard(1, 2))
    run(folder, Shard(2, 2))
    (folder / "out" / "0" / "0.png").unlink()
    with (folder / "out" / "1" / "1.png").open("ab") as file:
        file.write(b"x")
    write_dark(folder / "in" / "2" / "2.png", height=30, seed=5)
    write_dark(folder / "in" / "new.png")
    (folder / "in" / "0" / "3.png").touch()
    states = {state.output or state.source: state.state for state in find_states(folder / "out")}
    assert states.pop("0/0.png") == "missing"
    assert states.pop("1/1.png") == "changed"
    assert set(states.values()) == {"done"}
    with_inputs = find_states(folder / "out", find_pictures([folder / "in"]))
    states = {state.output or state.source: state.state for state in with_inputs}
    assert {name: state for name, state in states.items() if state != "done"} == {
        "0/0.png": "missing",
        "1/1.png": "changed",
        "2/2.png": "stale",
        "new.png": "new",
    }


def test_a_folder_without_manifest_and_a_linked_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lumen recorded no outputs here"):
        find_states(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Manifest(elsewhere, elsewhere / "1-of-1.jsonl").add(Record("a.png", "a.png", output_size=1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / PARTS).symlink_to(elsewhere)
    assert Manifest(tmp_path / "out").get("a.png") is None, "a stranger's link does not lead lumen elsewhere"


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/8", {}, Shard(3, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(5, 8)),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}
            | {"SLURM_ARRAY_TASK_COUNT": "4"},
            Shard(4, 4),
        ),
        ("auto/4", {"JOB_COMPLETION_INDEX": "3"}, Shard(4, 4)),
    ],
)
def test_spellings(text: str, environment: dict[str, str], expected: Shard) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/8", {}, "between 1 and 8"),
        ("9/8", {}, "between 1 and 8"),
        ("1/0", {}, "between 1 and 1"),
        ("half", {}, "expected NUMBER/COUNT"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "name it, such as auto/8"),
        ("auto/x", {"JOB_COMPLETION_INDEX": "0"}, "expected auto, or auto/COUNT"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "between 1 and 2"),
    ],
)
def test_spellings_that_cannot_be(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, environment)
