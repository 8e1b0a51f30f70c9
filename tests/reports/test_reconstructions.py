"""The errors of reconstructions, in the table and for programs."""

import dataclasses
import json
import threading
from pathlib import Path

from rich.console import Console

from lumen_cli.engine.batch import Fidelity
from lumen_cli.files import Job, Source
from lumen_cli.reports import progress_line
from lumen_cli.reports.jsonlines import RunFacts
from lumen_cli.reports.picture_lines import picture_line, planned_line
from lumen_cli.reports.summary import Summary
from lumen_cli.run import Part, Result, Task

FACTS = RunFacts(model="kind", weights="0123456789ab", seed=None, device="cpu", settings={})


def result(name: str, mae: float, psnr: float | None) -> Result:
    parts = tuple(Part(part, Path("/out") / f"{name}-{part}.png") for part in ("reflectance", "illumination"))
    job = Job(Source(Path("/in") / f"{name}.png", Path("/in"), Path(f"{name}.png")), parts[0].path)
    task = Task(job, Path("/out"), f"{name}-reflectance.png", "new", parts)
    return Result(task, "done", None, 600, 400, 1000, fidelity=Fidelity(mae, psnr))


def shown(summary: Summary) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in summary.tables(1.0, 1.0, {}):
        console.print(table)
    return console.export_text()


def test_every_picture_has_a_row_and_the_mean_one_of_its_own() -> None:
    summary = Summary(total=3, word="decomposed")
    for each in (result("b", 0.02, 30.0), result("a", 0.01, 40.0), result("[c]", 0.0, None)):
        summary.add(each)
    rows = [line.split() for line in shown(summary).splitlines() if "/in/" in line or "mean of" in line]
    assert rows == [
        ["/in/[c].png", "0.0000", "exact"],
        ["/in/a.png", "0.0100", "40.00", "dB"],
        ["/in/b.png", "0.0200", "30.00", "dB"],
        ["mean", "of", "3", "pictures", "0.0100", "35.00", "dB"],
    ]
    assert str(summary.headline("out/")) == "3 pictures: 3 decomposed → out/"


def test_of_many_pictures_the_worst_are_shown_and_the_mean_is_over_all() -> None:
    summary = Summary(total=100)
    for index in range(100):
        summary.add(result(f"{index:02}", index / 1000, 50.0))
    text = shown(summary)
    assert "/in/99.png" in text
    assert "/in/59.png" not in text
    assert "… and 60 pictures with smaller errors" in text
    assert "0.0495" in next(line for line in text.splitlines() if "mean of 100 pictures" in line)


def test_programs_get_every_file_by_what_it_holds() -> None:
    whole = result("a", 0.01, None)
    line = json.loads(picture_line(whole, FACTS))
    outputs = {"reflectance": "/out/a-reflectance.png", "illumination": "/out/a-illumination.png"}
    assert line["outputs"] == outputs
    assert line["output"] is None
    assert line["reconstruction"] == {"mae": 0.01, "psnr": None}
    assert json.loads(picture_line(dataclasses.replace(whole, fidelity=None), FACTS))["reconstruction"] is None
    assert json.loads(planned_line(whole.task, "planned", FACTS))["outputs"] == outputs


def test_progress_says_what_is_going_on() -> None:
    console = Console(width=80, force_terminal=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with progress_line(console, 1, threading.Event()) as line:
        line.now("decomposing a.png")
        line.advance(result("a", 0.0, None))
    assert "decomposing" in console.export_text()
