"""Ctrl-C, SIGTERM and a closed terminal: the first signal ends a run cleanly, the second ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from lumen_cli.atomic import TEMPORARY_PREFIX

INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h\n"
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP is not None else []))


@contextmanager
def interrupts_end(*, for_good: bool) -> Iterator[None]:
    """Inside, the first Ctrl-C raises KeyboardInterrupt, and a further one ends the process at once.

    for_good: whether the process ends after this; then one Ctrl-C is enough from there on, because Python takes time to
    end and an exception would show as a traceback. Outside the main thread, where Python delivers no signals, and
    where Ctrl-C is ignored, as in a shell's background job, this does nothing.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
        os._exit(INTERRUPTED)

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, end)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, end if for_good else signal.default_int_handler)


class Interruption:
    """The first signal sets `stop` and the `exit_code` that the command ends with (130 for Ctrl-C)."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.exit_code = 0


@contextmanager
def interruptible(folders: Iterable[Path], locks: Sequence[Path] = ()) -> Iterator[Interruption]:
    """Catch the signals inside. A second one removes this process's temporary files in `folders` and its lock files.

    locks: the lock files that this process holds when the signal comes; the list may change meanwhile. Outside the main
    thread, where Python delivers no signals, this does nothing.
    """
    interruption = Interruption()
    places = list(folders)

    def handle(number: int, frame: FrameType | None) -> None:
        if interruption.stop.is_set():
            _remove_own_temporaries(places)
            for lock in locks:
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
        numbers.remove(_HANGUP)  # under nohup a run continues
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Inside, SIGTERM and a closed terminal act as Ctrl-C does: the command ends at once and cleans up.

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
