import dataclasses
import json

import pytest
from rich.console import Console

from lumen_cli.benchmark.speed_request import Pipeline, Plain, SpeedResult, Spread
from lumen_cli.reports.speed import speed_line, speed_tables

ROW = SpeedResult(
    model="published:lightendiffusion",
    architecture="lightendiffusion",
    published=True,
    width=3840,
    height=2160,
    precision="fp32",
    batch=1,
    steps=20,
    device="cpu",
    device_name="Some Processor",
    threads=2,
    torch="2.13.0",
    repeat=5,
    warmup=1,
    seconds=Spread(2.0, 1.9, 2.2, 1.8, 2.5),
    host_memory=3 << 29,
    parameters=27_800_000,
    gflops=1234.5,
    plain=Plain(Spread(5.0, 4.9, 5.2, 4.8, 5.5), 2345.6, 2.5e-6, ("encoder 3 times",)),
    pipeline=Pipeline(20, 44.0, 0.93, 0.91),
)
BARE = dataclasses.replace(ROW, model="kind", architecture="kind", published=False, plain=None, pipeline=None)
FAILED = SpeedResult("diffll", "diffll", False, 600, 400, "fp16", 4, error="diffll does not run in [fp16]")


def printed(*results: SpeedResult, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        for table in speed_tables(results):
            console.print(table)
    return capture.get()


def test_the_tables_say_what_was_measured_and_how() -> None:
    text = printed(ROW, BARE)
    for said in ("2.00 s", "1.90 – 2.20 s", "0.50", "4.15", "2.50×", "27.8 M", "1.5 GiB", "93%", "91%"):
        assert said in text, said
    flowing = " ".join(text.split())
    assert "ran on cpu (Some Processor), threads: 2, torch 2.13.0" in flowing
    assert "5 times after 1 to warm up" in flowing
    assert "encoder 3 times" in flowing


@pytest.mark.parametrize("width", [80, 200])
def test_nothing_is_cut_off_in_a_terminal_of_80_columns(width: int) -> None:
    text = printed(ROW, dataclasses.replace(BARE, batch=8, device="cuda:0", device_memory=5 << 30), FAILED, width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_what_was_not_asked_for_takes_no_room() -> None:
    text = printed(BARE)
    assert "plain" not in text
    assert "busy" not in text
    assert "batch" not in text
    assert "on device" not in text
    assert "batch" in printed(dataclasses.replace(BARE, batch=4))


def test_a_failed_row_says_which_and_why() -> None:
    without_plain = dataclasses.replace(BARE, plain_error="killed")
    text = printed(without_plain, FAILED)
    assert "✗ diffll 600×400 fp16 batch 4\n  diffll does not run in [fp16]" in text
    assert "✗ kind 3840×2160 fp32, reference implementation\n  killed" in text
    assert printed(FAILED).count("diffll") == 2, "no empty tables"


def test_a_line_of_json_holds_every_figure() -> None:
    row = json.loads(speed_line(ROW))
    assert row["seconds"] == {"median": 2.0, "lower": 1.9, "upper": 2.2, "least": 1.8, "most": 2.5}
    assert row["ratio"] == 2.5
    assert row["images_per_second"] == 0.5
    assert row["pipeline"]["images_per_second"] == pytest.approx(20 / 44)
    assert row["plain"]["redundant"] == ["encoder 3 times"]
    assert json.loads(speed_line(FAILED)).keys() == json.loads(speed_line(ROW)).keys(), "the same fields in every row"
    assert json.loads(speed_line(FAILED))["seconds"] is None
