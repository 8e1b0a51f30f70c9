"""Errors name arguments to Python callers and options to users of the command line."""

from __future__ import annotations

from pathlib import Path

from lumen_cli.errors import LumenError, PictureError
from lumen_cli.text import with_options


def test_python_names_the_argument_and_the_command_line_the_option() -> None:
    error = PictureError(Path("a.jpg"), "500 megapixels are above the limit of 250", remedy="max_pixels")
    assert str(error) == "a.jpg: 500 megapixels are above the limit of 250 (argument max_pixels)"
    assert with_options(error.reason, error.remedy) == "500 megapixels are above the limit of 250 (see --max-pixels)"


def test_several_remedies_and_values() -> None:
    assert with_options("no GPU", "device=cpu, batch_size") == "no GPU (see --device cpu, --batch-size)"
    assert with_options("no GPU", "") == str(LumenError("no GPU")) == "no GPU"
