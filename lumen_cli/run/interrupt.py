"""Ctrl-C, SIGTERM and a terminal that goes: the first ends a run cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from lumen_cli.atomic import TEMPORARY_PREFIX

_SHOW_CURSOR = b"\x1b[?25h\n"
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP is not None else []))


class Interruption:
    """`stop` is set by the first signal; `exit_code` is what the command ends with then (130 for Ctrl-C)."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.exit_code = 0


@contextmanager
def interruptible(folders: Iterable[Path], locks: Iterable[Path] = ()) -> Iterator[Interruption]:
    """Catch the signals inside. A second one removes this process's temporary files in `folders` and exits.

    locks: lock files that this process holds, which go with them. Outside the main thread, where Python delivers no
    signals, this does nothing.
    """
    interruption = Interruption()
    places, held = list(folders), list(locks)

    def handle(number: int, frame: FrameType | None) -> None:
        if interruption.stop.is_set():
            _remove_own_temporaries(places)
            for lock in held:
                with suppress(OSError):
                    lock.unlink()
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)
        interruption.exit_code = 128 + number
        interruption.stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = list(_SIGNALS)
    if _HANGUP is not None and signal.getsignal(_HANGUP) is signal.SIG_IGN:
        numbers.remove(_HANGUP)  # under nohup a run goes on
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and a terminal that goes end what is inside as Ctrl-C does: at once, but tidied up.

    Outside the main thread, where Python delivers no signals, this does nothing.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [each for each in _SIGNALS if signal.getsignal(each) is signal.SIG_DFL]  # not Ctrl-C, nor under nohup
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _remove_own_temporaries(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            for entry in folder.iterdir():
                if entry.name.startswith(f"{TEMPORARY_PREFIX}{os.getpid()}-"):
                    entry.unlink(missing_ok=True)
        except OSError:
            continue
