"""Decoders that hang or crash, for real: helper processes find a stand-in for tifffile that does so."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lumen_cli.errors import PictureError
from lumen_cli.imaging import helper as helper_module
from lumen_cli.imaging.helper import AbandonedError, HelperReader
from lumen_cli.imaging.picture import read_picture
from tests.conftest import write_dark

HANGS = "import time\nwhile True:\n    time.sleep(0.05)\n"
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
PRINTS = "import os\nos.write(1, b'a library says something')\nraise OSError('no such thing')\n"


@pytest.fixture
def fresh_helpers() -> Iterator[None]:
    helper_module._end_all()
    yield
    helper_module._end_all()


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_helpers: None):  # type: ignore[no-untyped-def]
    """What a helper finds under the name of the library that reads TIFF files."""

    def put(source: str) -> None:
        (tmp_path / "library").mkdir()
        (tmp_path / "library" / "tifffile.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "library"), *sys.path])

    return put


def test_a_helper_reads_what_this_process_reads(tmp_path: Path) -> None:
    path = write_dark(tmp_path / "a.tif", 40, 30)
    there, here = HelperReader().read(path, max_pixels=0), read_picture(path)
    assert np.array_equal(there.pixels, here.pixels)
    assert there.digest() == here.digest()
    assert there.format == here.format


def test_a_helper_is_used_again(tmp_path: Path, fresh_helpers: None) -> None:
    path, reader = write_dark(tmp_path / "a.tif"), HelperReader()
    reader.read(path, max_pixels=0)
    (helper,) = helper_module._idle
    HelperReader().read(path, max_pixels=0)
    assert helper_module._idle == [helper]


def test_what_is_wrong_with_a_file_is_said_in_the_same_words(tmp_path: Path) -> None:
    path = write_dark(tmp_path / "a.tif", 200, 300)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PictureError) as there:
        HelperReader().read(path, max_pixels=0)
    with pytest.raises(PictureError) as here:
        read_picture(path, max_pixels=0)
    assert str(there.value) == str(here.value)


def test_only_formats_known_for_it_are_read_in_a_helper(tmp_path: Path) -> None:
    wanted = {name: HelperReader.wants(write_dark(tmp_path / name)) for name in ("a.jpg", "a.png", "a.tif", "a.webp")}
    assert wanted == {"a.jpg": False, "a.png": False, "a.tif": True, "a.webp": False}
    assert not HelperReader.wants(tmp_path)
    assert not HelperReader.wants(tmp_path / "gone.tif")


def test_a_decoder_that_hangs_costs_one_picture_and_its_process_is_gone(tmp_path: Path, broken) -> None:  # type: ignore[no-untyped-def]
    broken(HANGS)
    with pytest.raises(PictureError, match=r"took more than 1 seconds to decode \(argument timeout\)"):
        HelperReader(timeout=1.0).read(write_dark(tmp_path / "a.tif"), max_pixels=0)
    assert not helper_module._idle


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_decoder_that_crashes_costs_one_picture(tmp_path: Path, broken) -> None:  # type: ignore[no-untyped-def]
    broken(CRASHES)
    path = write_dark(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=r"its decoder crashed \(SIGSEGV\)"):
        HelperReader().read(path, max_pixels=0)
    (tmp_path / "library" / "tifffile.py").unlink()
    (tmp_path / "library").rmdir()
    assert HelperReader().read(path, max_pixels=0).width == 32


def test_what_a_library_prints_does_not_get_between(tmp_path: Path, broken) -> None:  # type: ignore[no-untyped-def]
    broken(PRINTS)
    with pytest.raises((PictureError, RuntimeError), match="no such thing"):
        HelperReader().read(write_dark(tmp_path / "a.tif"), max_pixels=0)


def test_a_run_that_ends_waits_for_no_decoder(tmp_path: Path, broken) -> None:  # type: ignore[no-untyped-def]
    broken(HANGS)
    path, reader, ends = write_dark(tmp_path / "a.tif"), HelperReader(), []

    def read() -> None:
        try:
            reader.read(path, max_pixels=0)
        except AbandonedError as error:
            ends.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    while not reader._busy:
        time.sleep(0.01)
    reader.abandon()
    thread.join(30)
    assert len(ends) == 1
    with pytest.raises(AbandonedError):
        reader.read(path, max_pixels=0)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_helper_ends_with_the_process_it_works_for(tmp_path: Path, broken) -> None:  # type: ignore[no-untyped-def]
    import subprocess

    broken(HANGS)
    write_dark(tmp_path / "a.tif")
    code = (
        "import sys, threading, time; from pathlib import Path; from lumen_cli.imaging import helper as d;"
        "r = d.HelperReader();"
        "threading.Thread(target=r.read, args=(Path(sys.argv[1]),), kwargs={'max_pixels': 0}, daemon=True).start()\n"
        "while not r._busy: time.sleep(0.01)\n"
        "print(next(iter(r._busy))._process.pid, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    helper = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 30
    while _lives(helper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(helper)


def _lives(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
