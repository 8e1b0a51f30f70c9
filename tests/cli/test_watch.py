"""`--watch`: what comes in later is made once it is whole."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lumen_cli.cli.inputs import Settling
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ended by a signal")
Lumen = Callable[..., Finished]
PATIENCE = 120.0
"""Seconds until a test gives up."""


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def watched(make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Finished]]:
    """Watch, while a thread does what happens meanwhile and then presses Ctrl-C."""
    make_model("tiny")
    monkeypatch.setattr("lumen_cli.cli.inputs._PAUSE", 0.05)
    # Should Ctrl-C come while nobody watches any more, the tests go on.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)

    def run(*arguments: str | Path, meanwhile: Callable[[], object]) -> Finished:
        def happen() -> None:
            try:
                meanwhile()
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=happen, daemon=True)
        thread.start()
        finished = lumen("enhance", *arguments, "-m", "tiny", "--watch")
        thread.join()
        return finished

    yield run
    signal.signal(signal.SIGINT, before)


def test_what_comes_and_changes_later_is_made_when_it_is_whole(
    photos: Path, watched: Callable[..., Finished], lumen: Lumen
) -> None:
    twin = photos.with_name("photos-enhanced")
    slow = photos / "slow.png"

    def meanwhile() -> None:
        until(lambda: (twin / "night" / "e.tif").exists())
        whole = write_dark(photos.parent / "elsewhere.png", seed=8).read_bytes()
        with slow.open("wb") as file:
            for index in range(0, len(whole), len(whole) // 4):
                file.write(whole[index : index + len(whole) // 4])
                file.flush()
                time.sleep(0.3)
        until(lambda: (twin / "slow.png").exists())
        before = (twin / "a.png").read_bytes()
        write_dark(photos / "a.png", seed=9)
        until(lambda: (twin / "a.png").read_bytes() != before)

    finished = watched(photos, "--json", meanwhile=meanwhile)
    assert finished.code == 0, finished.err
    told = [json.loads(line) for line in finished.out.splitlines()]
    assert {line["status"] for line in told} == {"done"}
    assert sorted(Path(line["input"]).name for line in told) == sorted(
        ["a.png", "a.png", "b.jpg", "c.webp", "d.png", "e.tif", "slow.png"]
    )
    assert "watching for new and changed pictures" in finished.err
    assert "7 pictures: 7 enhanced" in finished.err
    watched_bytes = folder_bytes(twin)
    assert lumen("enhance", photos, "-m", "tiny", "-o", photos.parent / "at-once").code == 0
    assert watched_bytes == folder_bytes(photos.parent / "at-once")


def test_watching_begins_with_an_empty_folder_and_what_fails_is_said_once(
    tmp_path: Path, watched: Callable[..., Finished]
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()

    def meanwhile() -> None:
        (inbox / "bad.png").write_text("no picture")
        write_dark(inbox / "good.png")
        until(lambda: (tmp_path / "out" / "good.png").exists())
        time.sleep(1.0)

    finished = watched(inbox, "-o", tmp_path / "out", "--json", meanwhile=meanwhile)
    assert finished.code == 1
    statuses = [json.loads(line)["status"] for line in finished.out.splitlines()]
    assert sorted(statuses) == ["done", "failed"]
    assert "2 pictures: 1 enhanced, 1 failed" in finished.err


def test_a_watched_folder_that_is_away_is_waited_for(tmp_path: Path, watched: Callable[..., Finished]) -> None:
    inbox = tmp_path / "inbox"
    write_dark(inbox / "a.png")

    def meanwhile() -> None:
        until(lambda: (tmp_path / "out" / "a.png").exists())
        inbox.rename(tmp_path / "away")
        time.sleep(3.0)
        write_dark(tmp_path / "away" / "b.png")
        (tmp_path / "away").rename(inbox)
        until(lambda: (tmp_path / "out" / "b.png").exists())

    finished = watched(inbox, "-o", tmp_path / "out", meanwhile=meanwhile)
    assert finished.code == 0
    assert finished.err.count("waiting until this changes") == 1
    assert "2 pictures: 2 enhanced" in finished.err


def test_a_file_is_whole_when_it_stayed_as_it_is(tmp_path: Path) -> None:
    settling = Settling(seconds=0.5)
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    assert settling.ready([path]) == set()
    path.write_bytes(b"12")
    assert settling.ready([path]) == set()
    until(lambda: bool(settling.ready([path])))
    settling.take([path])
    assert settling.ready([path]) == set()
    path.write_bytes(b"123")
    until(lambda: bool(settling.ready([path])))
    assert settling.ready([path, tmp_path / "gone.png"]) == {path}


def test_a_time_of_the_future_does_not_keep_a_file_waiting_forever(tmp_path: Path) -> None:
    settling = Settling(seconds=0.2)
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    os.utime(path, (4e9, 4e9))
    until(lambda: bool(settling.ready([path])))
    assert settling.ready([path]) == {path}
