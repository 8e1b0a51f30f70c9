"""The command line, and here the process around a command: signals, standard streams that close or fill, the log, and
refused command lines.

Ctrl-C, SIGTERM and a closed terminal: the first signal ends a run cleanly, the second ends it at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import typer

from lumen_cli.atomic import TEMPORARY_PREFIX
from lumen_cli.errors import LumenError, UsageError

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


class OutputError(LumenError):
    """Standard output cannot be written: exit code 141 where its reader has closed it, as for any filter, else 1."""

    def __init__(self, error: OSError | ValueError | None) -> None:
        if isinstance(error, BrokenPipeError) or getattr(error, "errno", None) == errno.EPIPE:
            super().__init__("standard output was closed by its reader before the end; nothing more was written to it")
            self.exit_code = 128 + 13
            return
        reason = "it is closed" if error is None else getattr(error, "strerror", None) or str(error)
        super().__init__(f"standard output cannot be written ({reason})")


class _Wrapped:
    """A stream whose subclass replaces writing; everything else is the stream's. None: it is closed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()


class _Output(_Wrapped):
    """Standard output that raises `OutputError` where it cannot be written."""

    def write(self, text: str) -> int:
        if self._stream is None:
            raise OutputError(None)
        try:
            return 0 if text == "" else self._stream.write(text)  # typer tests streams by writing nothing
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            raise self._ended(error) from None

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as error:
            raise self._ended(error) from None

    def _ended(self, error: OSError | ValueError) -> OutputError:
        # What is still in the stream's buffer must not fail again when Python ends.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)
        return OutputError(error)


class _Messages(_Wrapped):
    """Standard error: where it cannot be written, the work continues and the exit code shows the outcome."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)  # type: ignore[union-attr]
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()  # type: ignore[union-attr]


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside, standard output raises `OutputError` where it cannot be written, and standard error ignores that."""
    for number in (0, 1, 2):  # the next file opened would get a closed one's number, and what is printed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Messages(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


LOGGER = logging.getLogger("lumen")
LOGGER.addHandler(logging.NullHandler())
_SHOWN = "shown"
"""The attribute of records that are on standard error already."""


class _Screen(logging.Handler):
    """Standard error as it is at that moment: a progress line redirects it."""

    def emit(self, record: logging.LogRecord) -> None:
        from lumen_cli.text import printable

        if hasattr(record, _SHOWN):
            return
        lines = [printable(line) for line in self.format(record).splitlines()]
        print("\n".join(lines), file=sys.stderr)


class _Text(logging.Formatter):
    """2026-01-31T12:00:00+0100 INFO message; a traceback in lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return " ".join(super().formatMessage(record).split("\n"))


class _Json(logging.Formatter):
    """One object per line: time, level, message, process, the picture's JSON line and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "process": record.process,
        }
        if hasattr(record, "picture"):
            line["picture"] = record.picture
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Log:
    """The handlers of this process; `end` takes them away."""

    def __init__(self) -> None:
        self._screen: logging.Handler | None = None
        self._file: logging.Handler | None = None
        self._format = "text"

    def show(self) -> None:
        """Log to standard error."""
        if self._screen is None:
            self._screen = _Screen()
            self._screen.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            self._add(self._screen)

    def append_to(self, path: Path) -> None:
        """Log to the end of a file; UsageError where it cannot be opened."""
        if self._file is not None:
            self._remove(self._file)
        try:
            self._file = logging.FileHandler(path.expanduser(), encoding="utf-8", errors="backslashreplace")
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{path}: the log cannot be written ({reason})") from None
        self.set_format(self._format)
        self._add(self._file)

    def set_format(self, format: str) -> None:
        """The format of the file: "text" or "json"."""
        self._format = format
        if self._file is not None:
            self._file.setFormatter(_Json() if format == "json" else _Text())

    def error(self, line: str) -> None:
        """Log a line that standard error shows already."""
        LOGGER.error(line, extra={_SHOWN: True})

    def warning(self, line: str) -> None:
        """Log a warning that standard error shows already."""
        LOGGER.warning(line, extra={_SHOWN: True})

    def fault(self) -> None:
        """Log the exception that ends the process; its traceback is on standard error already."""
        LOGGER.critical("fault of lumen, please report it", exc_info=True, extra={_SHOWN: True})

    def end(self) -> None:
        """Close the file and forget both."""
        for handler in (self._screen, self._file):
            if handler is not None:
                self._remove(handler)
        self._screen = self._file = None
        self._format = "text"
        LOGGER.setLevel(logging.NOTSET)

    def _add(self, handler: logging.Handler) -> None:
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.DEBUG)

    @staticmethod
    def _remove(handler: logging.Handler) -> None:
        LOGGER.removeHandler(handler)
        handler.close()


log = Log()
"""The log of this process."""


_NEAR = 0.7
_MOST_NEAR = 2


def complaint(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code for an error of the parser; None for any other error.

    The line is empty where the parser has shown the help page instead.
    """
    if not any(kind.__name__ == "ClickException" for kind in type(error).__mro__):
        return None
    code = int(getattr(error, "exit_code", 2))
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return "", code
    command = context.command_path if context else "lumen"
    return f"{_what(error, context)} ({command} --help shows all)", code


def _what(error: Any, context: Any) -> str:
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and name:
        known = [option for each in context.command.params for option in (*each.opts, *each.secondary_opts)]
        near = near_names(name, [option for option in known if option.startswith("--")])
        return f"no such option {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    if isinstance(error, typer.BadParameter) and error.message and error.param is not None:
        from lumen_cli.cli.app import place_of

        longest = max(error.param.opts, key=len)
        named = longest if longest.startswith("-") else error.param.metavar or longest
        named = (place_of(context, error.param) if context else "") or named
        return f"{named}: {_sentence(error.message.removeprefix('Value error, '))}"
    return _sentence(error.format_message())


def near_names(wanted: str, known: list[str]) -> list[str]:
    """A few names that `wanted` misspells or begins; options are compared without their dashes."""
    by_bare = {name.lstrip("-"): name for name in known}
    bare = wanted.lstrip("-")
    begun = [name for name in sorted(by_bare) if len(bare) > 1 and name.startswith(bare)]
    near = begun or difflib.get_close_matches(bare, list(by_bare), n=_MOST_NEAR, cutoff=_NEAR)
    return [by_bare[name] for name in near[:_MOST_NEAR]]


def _sentence(text: str) -> str:
    """The parser's text as the rest of a line: no capital, no full stop, no line break."""
    text = " ".join(text.split()).rstrip(".").replace(". Did you", "; did you")
    return text[:1].lower() + text[1:]
