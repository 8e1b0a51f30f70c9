"""The process around a command: standard streams that close or fill, the log, the line for a wrong command line."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import typer

from lumen_cli.errors import LumenError, UsageError


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
