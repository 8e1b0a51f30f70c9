"""The examples in docstrings run and print what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "lumen_cli.api",
    "lumen_cli.diffusion",
    "lumen_cli.diffusion",
    "lumen_cli.metrics",
    "lumen_cli.metrics.fidelity",
    "lumen_cli.metrics.fidelity",
    "lumen_cli.metrics",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried, "no example found"
    assert not failed, "see the output above"
