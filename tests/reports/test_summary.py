import threading
from pathlib import Path

import pytest
from rich.console import Console

from lumen_cli.files import Job, Source
from lumen_cli.reports import progress_line
from lumen_cli.reports.jsonlines import RunFacts
from lumen_cli.reports.picture_lines import picture_line
from lumen_cli.reports.summary import Summary, peak_memory
from lumen_cli.run import Result, Task, Timings

FACTS = RunFacts(model="kind", weights="0123456789ab", seed=0, device="cpu", settings={})


def result(name: str, status: str = "done", reason: str | None = None, warnings: tuple[str, ...] = ()) -> Result:
    task = Task(
        Job(Source(Path("/in") / name, Path("/in"), Path(name)), Path("/out") / name), Path("/out"), name, "new"
    )
    if status == "failed":
        return Result(task, status, reason)
    return Result(task, status, None, 600, 400, 1000, Timings(0.01, 0.5, 0.02, 0.03), warnings)


def shown(summary: Summary, width: int = 80) -> str:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in summary.tables(1.5, 2.0, {"ran on": "cpu in fp32: as asked", "model": "[bold]night"}):
        console.print(table)
    return console.export_text()


def test_the_timing_table_has_totals_shares_and_rates() -> None:
    summary = Summary(total=4)
    for index in range(4):
        summary.add(result(f"{index}.png"))
    text = shown(summary)
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines() if line.strip()}
    assert "2.00 s" in rows["run the network"]
    assert "500 ms" in rows["run the network"]
    assert "120 ms" in rows["copy tags"]
    assert "2.00 pictures/s" in rows["wall clock"]
    assert "0.48 MP/s" in rows["wall clock"]
    assert "1.50 s" in rows["load the model"]
    assert "cpu in fp32: as asked" in text
    assert "[bold]night" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_headline_counts_everything() -> None:
    summary = Summary(total=6, kept=1)
    summary.add(result("a.png"))
    summary.add(result("b.png"))
    summary.add(result("c.png", "failed", "cut short"))
    assert summary.missing == 2
    assert str(summary.headline("out/")) == "6 pictures: 2 enhanced, 1 kept, 1 failed, 2 remaining → out/"


def test_equal_warnings_are_counted_in_one_row() -> None:
    summary = Summary(total=3)
    for name in ("a.jpg", "b.jpg"):
        summary.add(result(name, warnings=("jpeg cannot hold alpha",)))
    summary.add(result("c.jpg", warnings=("jpeg cannot hold 16 bits",)))
    lines = [line.split() for line in shown(summary).splitlines() if "jpeg cannot hold" in line]
    assert [(line[0], line[-1]) for line in lines] == [("2", "alpha"), ("1", "bits")]


def test_failures_name_the_picture_and_the_reason_literally() -> None:
    summary = Summary(total=2)
    summary.add(result("[red].jpg", "failed", "[bold]odd\nreason"))
    summary.add(result("a.jpg", "failed", "empty"))
    assert str(summary.failed()) == "\n✗ /in/[red].jpg\n  [bold]odd\\nreason\n✗ /in/a.jpg\n  empty"


def test_a_run_in_which_all_failed_has_no_times_to_show() -> None:
    summary = Summary(total=1)
    summary.add(result("a.jpg", "failed", "empty"))
    assert "wall clock" not in shown(summary)


def test_json_lines_are_ascii_and_one_line_whatever_the_name() -> None:
    line = picture_line(result("夜\n.png"), FACTS)
    assert line.isascii()
    assert "\n" not in line


def test_progress_is_silent_where_nobody_watches_and_speaks_in_a_terminal() -> None:
    for terminal in (False, True):
        console = Console(width=80, force_terminal=terminal, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        stop = threading.Event()
        with progress_line(console, 2, stop) as line:
            line.now("enhancing a.png")
            line.advance(result("a.png"))
            stop.set()
            line.advance(result("b.png"))
        text = console.export_text()
        assert ("2/2" in text and "MP/s" in text and "stopping" in text) == terminal


@pytest.mark.parametrize("width", [100, 80, 60])
def test_progress_names_the_picture_and_promises_nothing_after_ctrl_c(width: int) -> None:
    def drawn(stopped: bool, doing: str) -> str:
        console = Console(width=width, force_terminal=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        stop = threading.Event()
        if stopped:
            stop.set()
        with progress_line(console, 4, stop) as line:
            line.now(doing)
            line.advance(result("a.png"))
        return console.export_text()

    assert "loading kind" in drawn(False, "loading kind")
    assert "enhancing night.jpg" in drawn(False, "enhancing night.jpg")
    long = drawn(False, "enhancing a-very-long-name-of-a-photograph-0001.jpg")
    assert "enhancing a-very-lon…001.jpg" in long
    assert "left" in long
    after = drawn(True, "enhancing night.jpg")
    assert "stopping (Ctrl-C: at once)" in after
    assert "1/4" in after
    assert "left" not in after


def test_peak_memory_is_that_of_this_process() -> None:
    block = bytearray(200 << 20)
    number, unit = peak_memory(["cpu"]).split()
    assert float(number) * (1024 if unit == "GiB" else 1) >= len(block) >> 20
