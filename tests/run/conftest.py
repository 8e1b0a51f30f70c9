"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel, folder_bytes
from tests.store import outputs


@pytest.fixture
def expected(tmp_path: Path, photos: Path, make_model: MakeModel, lumen: Callable[..., Finished]) -> dict[str, bytes]:
    """The outputs of a local run."""
    make_model("tiny")
    assert lumen("enhance", photos, "-o", tmp_path / "local", "--model", "tiny").code == 0
    return outputs(folder_bytes(tmp_path / "local"))
