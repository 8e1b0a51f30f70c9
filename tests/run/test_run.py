"""A run as a Python caller uses it, and the modules it loads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from lumen_tiny import Tiny

from lumen_cli.atomic import hold_locks
from lumen_cli.engine.device import choose_device
from lumen_cli.errors import UsageError
from lumen_cli.files.find import find_pictures
from lumen_cli.imaging.colour.convert import convert_depth
from lumen_cli.imaging.picture import read_picture
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import MANIFEST_NAME
from lumen_cli.run.operation import Enhance, Enhanced, Settings
from lumen_cli.run.run import Run, RunOptions
from tests.conftest import read_pixels, write_dark

CPU = choose_device("cpu", "fp32")
SAMPLES = Path(__file__).parents[2] / "sample_images"
MOST_MODULES = 66
"""Modules of lumen_cli that one JPEG's way through `enhance` may load, packages included."""


def start(output: Path, if_exists: IfExists = IfExists.RESUME, strength: float = 1.0) -> Run:
    operation = Enhance(Settings("tiny", {}, "0" * 64, steps=1, strength=strength))
    return Run(None, CPU, operation, RunOptions(f"{output}/", if_exists=if_exists), network=Tiny().eval())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        write_dark(tmp_path / "in" / f"{index}.png", seed=index)
    return tmp_path


def test_a_run_gives_a_result_for_every_picture_also_for_those_it_keeps_or_leaves(folder: Path) -> None:
    sources = find_pictures([str(folder / "in")])
    (folder / "out").mkdir()
    (folder / "out" / "1.png").write_text("somebody's own")
    with start(folder / "out") as run:
        first, *others = run.results(run.plan(sources))
    assert (first.task.output, first.status) == ("1.png", "left")
    assert {(r.task.output, r.status) for r in others} == {("0.png", "done"), ("2.png", "done")}
    with start(folder / "out") as run:
        results = list(run.results(run.plan(sources)))
    assert [(r.task.output, r.status) for r in results] == [("1.png", "left"), ("0.png", "kept"), ("2.png", "kept")]
    assert results[0].remedy == "overwrite, skip_existing"
    assert (folder / "out" / "1.png").read_text() == "somebody's own"


def test_refusing_names_the_argument_that_helps(folder: Path) -> None:
    sources = find_pictures([str(folder / "in")])
    with start(folder / "out") as run:
        list(run.results(run.plan(sources)))
    with pytest.raises(UsageError, match=r"3 of 3 outputs already exist in .* \(argument overwrite\)"):
        start(folder / "out", IfExists.REFUSE).plan(sources)


def test_one_picture_in_memory_is_what_a_run_writes(folder: Path) -> None:
    with start(folder / "out") as run:
        (output,) = run.compute([read_picture(folder / "in" / "0.png")])
        list(run.results(run.plan(find_pictures([str(folder / "in")]))))
    assert isinstance(output, Enhanced)
    assert (read_pixels(folder / "out" / "0.png") == convert_depth(output.values(), 8)).all()


def test_a_run_waits_for_another_and_then_decides_again(folder: Path) -> None:
    sources = find_pictures([str(folder / "in")])
    warnings: list[str] = []
    statuses: list[str] = []
    with start(folder / "out") as late, start(folder / "out") as first:
        plan = late.plan(sources)
        assert len(plan.todo) == 3
        holding = first.results(first.plan(sources))
        next(holding)
        thread = threading.Thread(
            target=lambda: statuses.extend(r.status for r in late.results(plan, warn=warnings.append)), daemon=True
        )
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert len(list(holding)) == 2
        thread.join(30.0)
    assert statuses == ["kept"] * 3
    assert warnings == [f"waiting for another run of lumen that writes {folder / 'out' / MANIFEST_NAME}"]


def test_a_stop_after_the_last_picture_still_sorts_the_manifest(folder: Path) -> None:
    sources = find_pictures([str(folder / "in")])
    with start(folder / "out") as run:
        list(run.results(run.plan(sources)))
    with start(folder / "out", strength=0.5) as run:
        for number, _ in enumerate(run.results(run.plan(sources), stop := threading.Event())):
            if number == 2:
                stop.set()
        assert not run.plan(sources).writes
    assert len((folder / "out" / MANIFEST_NAME).read_text().splitlines()) == 3


def test_a_stop_ends_the_wait_for_another_run_and_leaves_its_lock(folder: Path) -> None:
    sources, stop, results = find_pictures([str(folder / "in")]), threading.Event(), []
    held: list[Path] = []
    (folder / "out").mkdir()
    with start(folder / "out") as run:
        plan = run.plan(sources)
        thread = threading.Thread(target=lambda: results.extend(run.results(plan, stop, warn=lambda _: stop.set())))
        with hold_locks([folder / "out" / MANIFEST_NAME], lambda place: None, held, threading.Event()):
            thread.start()
            thread.join(30.0)
            assert stop.is_set()
            assert results == run.locks == []
            assert held[0].exists()
    assert not list((folder / "out").glob("*.png"))


def test_the_way_of_one_jpeg_loads_few_modules(tmp_path: Path) -> None:
    arguments = ["enhance", str(SAMPLES / "astronaut.jpg"), "-o", str(tmp_path / "a.jpg"), "--model", "diffll"]
    code = (
        "import json, sys\n"
        "from lumen_cli.__main__ import main\n"
        f"try: main({[*arguments, '--device', 'cpu']!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'lumen_cli']))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(finished.stdout.splitlines()[-1])
    print(f"{len(modules)} modules of lumen_cli for one JPEG")
    assert (tmp_path / "a.jpg").exists()
    assert len(modules) <= MOST_MODULES, sorted(modules)
