import threading
from pathlib import Path

import pytest

from lumen_cli.run.stages import Budget, ClosedError, decoded_bytes, default_bytes
from tests.conftest import write_dark


def waits(budget: Budget, size: int) -> tuple[threading.Thread, threading.Event]:
    """A thread that asks for room, and an event that says it got some."""
    got = threading.Event()

    def ask() -> None:
        try:
            budget.acquire(size)
        except ClosedError:
            return
        got.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, got


def test_the_bound_on_pictures_holds() -> None:
    budget = Budget(2, 1000)
    budget.acquire(1)
    budget.acquire(1)
    thread, got = waits(budget, 1)
    assert not got.wait(0.1)
    budget.release(1)
    thread.join(10)
    assert got.is_set()


def test_the_bound_on_bytes_holds() -> None:
    budget = Budget(100, 1000)
    budget.acquire(600)
    thread, got = waits(budget, 600)
    assert not got.wait(0.1)
    budget.release(600)
    thread.join(10)
    assert got.is_set()


def test_a_picture_larger_than_the_bound_gets_in_alone() -> None:
    budget = Budget(100, 1000)
    budget.acquire(10**12)
    _, got = waits(budget, 1)
    assert not got.wait(0.1)
    budget.close()


def test_closing_wakes_who_waits_and_lets_nobody_in() -> None:
    budget = Budget(1, 10)
    budget.acquire(1)
    thread, got = waits(budget, 1)
    budget.close()
    thread.join(10)
    assert not thread.is_alive()
    assert not got.is_set()
    with pytest.raises(ClosedError):
        budget.acquire(1)


def test_the_room_a_picture_needs_is_known_from_its_header(tmp_path: Path) -> None:
    path = write_dark(tmp_path / "a.png", 100, 200)
    assert decoded_bytes(path, 28) == 100 * 200 * 28
    path.write_bytes(path.read_bytes()[:60])  # the header is all that is left
    assert decoded_bytes(path, 12) == 100 * 200 * 12


def test_a_file_that_is_no_picture_needs_no_room(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("nothing")
    assert decoded_bytes(tmp_path / "a.png", 28) == decoded_bytes(tmp_path / "gone.png", 28) == 0


def test_the_default_is_within_its_bounds() -> None:
    assert 256 << 20 <= default_bytes() <= 8192 << 20
