"""The table of docs/gpu.md is made from JSON lines of the benchmark."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from lumen_cli.benchmark.speed_request import Pipeline, SpeedResult, Spread
from lumen_cli.reports.speed import speed_line

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_gpu_table", DOCS / "make_gpu_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_holds_the_figures_and_the_reasons_of_failures(maker: ModuleType) -> None:
    facts = ("diffll", "diffll", False, 600, 400, "bf16", 16, 2, "cuda:0", "NVIDIA X")
    row = SpeedResult(
        *facts, torch="2", seconds=Spread.of([0.002]), device_memory=3 << 30, pipeline=Pipeline(200, 0.5, 0.75, 0.8)
    )
    failed = SpeedResult(*facts, error="too little memory")
    lines = maker.make_table([json.loads(speed_line(each)) for each in (row, failed)]).splitlines()
    assert lines[-2] == "| diffll | bf16 | 16 | 2.00 | 500 | 400 | 75% | 3.0 GiB |"
    assert lines[-1] == "| diffll | bf16 | 16 | too little memory |  |  |  |  |"
    assert len({line.count("|") for line in lines[4:]}) == 1


def test_only_what_is_between_the_marks_changes(maker: ModuleType) -> None:
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    once = maker.put_table(page, "| a |\n")
    assert "| a |" in once
    assert maker.put_table(once, "| b |\n") == maker.put_table(page, "| b |\n")
    with pytest.raises(ValueError, match="marks"):
        maker.put_table(page.replace("<!-- end of table -->", ""), "| a |\n")
