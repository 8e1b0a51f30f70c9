"""The model of large runs in docs/scale.py, and the page that shows its results."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
scale = pytest.importorskip("scale")
sys.path.remove(str(DOCS))


def test_the_page_shows_what_the_model_says() -> None:
    done = subprocess.run([sys.executable, DOCS / "scale.py"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in (DOCS / "scale.md").read_text(encoding="utf-8"), "paste the output of docs/scale.py"
    lines = subprocess.run([sys.executable, DOCS / "scale.py", "--json"], capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in lines.stdout.splitlines()]) == 16


def test_without_spread_deaths_and_start_the_time_is_the_work_divided() -> None:
    ideal = scale.Site(spread=0.0, start=0.0, planning=0.0, latency=0.0, failures=0.0, deaths=0.0, most_requests=1e12)
    alone = scale.simulate(10_000, 1, ideal)
    assert alone.hours == pytest.approx(10_000 * ideal.compute / 3600)
    assert alone.binds == "computing"
    pieces = scale.simulate(10_000, 10, ideal, piece=1000)
    assert pieces.hours == pytest.approx(alone.hours / 10)


def test_what_binds_is_found() -> None:
    site = scale.Site(deaths=0.0)
    assert scale.simulate(10**6, 10, replace(site, latency=10.0)).binds == "transfers"
    assert scale.simulate(10**9, 10_000, site).binds == "listing"
    assert scale.simulate(10**6, 100, replace(site, most_requests=1.0)).binds == "requests a second"
    assert scale.simulate(1000, 100, replace(site, start=1000.0)).binds == "start"
    assert scale.simulate(100_000, 16, site, piece=50_000).binds == "the slowest worker"
