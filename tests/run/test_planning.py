"""Planning many pictures: little memory for each, no PyTorch, and the order that it had."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen_cli.files import Source, in_order, natural_key
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.run.existing import IfExists
from lumen_cli.run.plan import make_plan
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark

Lumen = Callable[..., Finished]
DRY = """
import sys
from lumen_cli.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules)
"""


@pytest.mark.parametrize("command", [["enhance"], ["enhance", "--shard", "1/2"], ["decompose", "--model", "kind"]])
def test_a_dry_run_does_without_pytorch(command: list[str], tmp_path: Path) -> None:
    write_dark(tmp_path / "in" / "a.png", seed=1)
    asked = [*command, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--dry-run", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", DRY, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "dry run: " in done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_status_does_without_pytorch(tmp_path: Path) -> None:
    (tmp_path / ".lumen-manifest.jsonl").write_text('{"output":"a.png","source":"a.png","failure":"damaged"}\n')
    done = subprocess.run(
        [sys.executable, "-c", DRY, "status", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "False"


def test_the_device_is_the_same_whether_pytorch_is_imported_or_not() -> None:
    code = "from lumen_cli.engine.device import choose_device as c; a = c(); import torch; assert a == c(), (a, c())"
    subprocess.run([sys.executable, "-c", code], check=True)


def many(number: int, folders: int = 10) -> list[Source]:
    """Sources that no file system knows."""
    root = Path("/lumen-test/in")
    below = [Path(f"night{i}") for i in range(folders)]
    places = [root / each for each in below]
    return [Source.within(places[i % folders], f"img_{i}.jpg", root, below[i % folders]) for i in range(number)]


def test_a_plan_takes_less_than_half_a_kilobyte_a_picture() -> None:
    number = 20_000
    make_plan(plan_outputs(many(10), "/lumen-test/out/", None), "1", IfExists.RESUME)  # what is imported stays
    tracemalloc.start()
    try:
        plan = make_plan(plan_outputs(in_order(many(number)), "/lumen-test/out/", None), "1", IfExists.RESUME)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(plan.todo) == number
    assert held / number < 500


def reference_key(path: Path) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Numbers by value before letters, without case, folder by folder."""
    parts = []
    for part in path.parts:
        text = unicodedata.normalize("NFC", part).casefold()
        tokens: list[tuple[int, int, str]] = []
        for letter in text:
            number = letter in "0123456789"
            if tokens and number and tokens[-1][0] == 0:
                tokens[-1] = (0, tokens[-1][1] * 10 + int(letter), "")
            elif tokens and not number and tokens[-1][0] == 1:
                tokens[-1] = (1, 0, tokens[-1][2] + letter)
            else:
                tokens.append((0, int(letter), "") if number else (1, 0, letter))
        parts.append(tuple(tokens))
    return tuple(parts)


letters = st.sampled_from(
    ["a", "b", "B", "0", "1", "9", "01", "10", "é", "e\u0301", "\x01", "\x02", "ß", "\udcff", ".", "-"]
)
names = st.lists(letters, min_size=1, max_size=5).map("".join).filter(lambda name: name.strip("."))
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: Path(*parts))


@given(paths, paths)
def test_natural_order_is_by_numbers_then_letters_folder_by_folder(one: Path, other: Path) -> None:
    assert (natural_key(one) < natural_key(other)) == (reference_key(one) < reference_key(other))
    assert (natural_key(one) == natural_key(other)) == (reference_key(one) == reference_key(other))


def in_pieces(monkeypatch: pytest.MonkeyPatch, first: int, others: int) -> None:
    from lumen_cli.run import plan

    monkeypatch.setattr(plan, "FIRST_PIECE", first)
    monkeypatch.setattr(plan, "PIECE", others)


@pytest.mark.parametrize("options", [(), ("--shard", "1/2"), ("--format", "png")])
def test_pieces_give_what_one_plan_gives(
    options: tuple[str, ...], tmp_path: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("tiny")
    for number, name in enumerate(("a.jpg", "a.png", "b1.png", "b10.png", "b2.png", "x/c.png", "x/d.png", "y.png")):
        write_dark(tmp_path / "in" / name, seed=number)
    (tmp_path / "in/a.xmp").write_text("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    assert lumen("enhance", tmp_path / "in/y.png", "-o", tmp_path / "in/z.png", "-m", "tiny").code == 0
    whole = lumen("enhance", tmp_path / "in", "-o", tmp_path / "whole", "-m", "tiny", "--json", *options)
    in_pieces(monkeypatch, 1, 3)
    command = ("enhance", tmp_path / "in", "-o", tmp_path / "pieces", "-m", "tiny", "--json", *options)
    first = lumen(*command)
    assert first.code == whole.code
    assert "that lumen wrote left out: " in first.err or options[:1] == ("--shard",)
    assert folder_bytes(tmp_path / "pieces") == folder_bytes(tmp_path / "whole")
    made = [json.loads(line)["input"] for line in first.out.splitlines()]
    assert sorted(made) == sorted(json.loads(line)["input"] for line in whole.out.splitlines())
    assert first.err.splitlines()[-1].partition(" → ")[0] == whole.err.splitlines()[-1].partition(" → ")[0]
    again = [json.loads(line)["status"] for line in lumen(*command).out.splitlines()]
    assert set(again) <= {"kept", "failed"}
    assert len(again) == len(made)


def test_work_begins_before_later_pictures_are_looked_at(
    tmp_path: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lumen_cli.run.existing import OwnOutputs

    make_model("tiny")
    for number in range(6):
        write_dark(tmp_path / "in" / f"{number}.png", seed=number)
    looked: list[tuple[str, int]] = []

    def wrote(own: OwnOutputs, source: Source) -> bool:
        looked.append((source.name, len(list((tmp_path / "out").glob("*.png")))))
        return False

    monkeypatch.setattr(OwnOutputs, "wrote", wrote)
    in_pieces(monkeypatch, 2, 3)
    assert lumen("enhance", tmp_path / "in", "-o", tmp_path / "out", "-m", "tiny").code == 0
    assert looked == [("0.png", 0), ("1.png", 0), ("2.png", 2), ("3.png", 2), ("4.png", 2), ("5.png", 5)]
