"""Tags from the original to the result: spliced where the format stays, by exiftool elsewhere; without it EXIF only.

One exiftool process for each caller at a time, started when it is first needed, replaced when it fails.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Literal

from exiftool import ExifTool
from exiftool.exceptions import ExifToolException

from lumen_cli.errors import UsageError
from lumen_cli.imaging.formats import recognise
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.exif import has_thumbnail, join_software, read_software
from lumen_cli.imaging.tags.pieces import SPLICED, NotSplicedError
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.imaging.tags.splice import embed_exif, make_thumbnail, splice_tags

_SAFE = (12, 38)
"""In older versions a name that ends with "|" (CVE-2022-23935) or a picture (CVE-2021-22204) can run commands."""


class UnusableExifToolError(Exception):
    """exiftool cannot be started or gave no answer; the text says why. Its process is stopped."""


class PatientExifTool(ExifTool):
    """pyexiftool's process with a time limit: two threads read the answers.

    The library's own `execute` waits forever when exiftool hangs, and loops forever when it has died.
    """

    def __init__(self, seconds: float, executable: str | None = None) -> None:
        # An empty config file: a user's own ~/.ExifTool_config must not change what is written.
        super().__init__(executable=executable, config_file="", common_args=[], encoding="utf-8")
        self.seconds = seconds
        self._answers: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._read_process: subprocess.Popen[bytes] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. It may have died on its own: a Ctrl-C at the terminal reaches it too."""
        return self._process is not None and self._process.poll() is None

    def execute(self, *params: str | bytes, raw_bytes: bool = False) -> str | bytes:
        """Run one command: returns its standard output, sets `last_stderr` and `last_status`.

        Raises:
            UnusableExifToolError: no answer within `seconds`, or the process is gone.
        """
        process = self._process
        if process is None or not self.is_alive:
            self._flag_running_false()  # otherwise the library warns on stderr
            raise UnusableExifToolError("exiftool is not running")
        if self._read_process is not process:
            self._start_reading(process)
        mark = secrets.token_hex(4)
        ready, done = b"{ready%d}" % int(mark, 16), b"=${status}=post" + mark.encode()
        lines = [p if isinstance(p, bytes) else p.encode(self._encoding) for p in params]
        lines += [b"-echo4", done, b"-execute%d" % int(mark, 16), b""]
        try:
            process.stdin.write(b"\n".join(lines))
            process.stdin.flush()
        except (OSError, ValueError):
            self.stop()
            raise UnusableExifToolError("exiftool has ended") from None
        out, errors = self._wait(ready, b"post" + mark.encode())
        text, _, status = errors.rstrip().removesuffix(b"=post" + mark.encode()).rpartition(b"=")
        self._last_status = int(status) if status.isdigit() else 1
        self._last_stderr = text.decode(self._encoding, "replace")
        self._last_stdout = out.rstrip().removesuffix(ready).decode(self._encoding, "replace")
        return self._last_stdout

    def stop(self) -> None:
        """End the process now, whatever it is doing.

        The library's `terminate` waits without limit for the end of the output, which a child process can hold open.
        """
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait(timeout=5)
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        self._flag_running_false()

    def _start_reading(self, process: subprocess.Popen[bytes]) -> None:
        self._answers, self._read_process = queue.SimpleQueue(), process
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            arguments = (name, stream, self._answers)
            threading.Thread(target=_read_stream, args=arguments, daemon=True, name=f"exiftool-{name}").start()

    def _wait(self, ready: bytes, done: bytes) -> tuple[bytes, bytes]:
        text = {"out": b"", "err": b""}
        deadline = time.monotonic() + self.seconds
        while not (text["out"].rstrip().endswith(ready) and text["err"].rstrip().endswith(done)):
            try:
                name, piece = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.stop()
                raise UnusableExifToolError(f"exiftool gave no answer for {self.seconds:g} s") from None
            if not piece:
                self.stop()
                raise UnusableExifToolError("exiftool has ended unexpectedly")
            text[name] += piece
        return text["out"], text["err"]


def _read_stream(name: str, stream: IO[bytes], answers: queue.SimpleQueue[tuple[str, bytes]]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while piece := stream.read1(65536):  # type: ignore[attr-defined]
            answers.put((name, piece))
    answers.put((name, b""))
    stream.close()


class ExifToolPool:
    """Thread-safe: a caller has its process to itself, so every worker that writes has one."""

    def __init__(self, seconds: float, executable: str | None = None) -> None:
        """Start nothing yet.

        Args:
            seconds: how long one command may take before its process counts as hung.
            executable: exiftool's path; None searches PATH.
        """
        self._seconds, self._executable = seconds, executable
        self._lock = threading.Lock()
        self._idle: list[PatientExifTool] = []
        self._is_closed = False
        # On Linux, a process of the library ends with the thread that started it. This thread lives as long as the
        # pool, so the end of a worker does not take a process away from the others.
        self._starter = ThreadPoolExecutor(1, "lumen-exiftool")

    def version(self) -> str:
        """The version, from a process that is kept for later.

        Raises:
            UnusableExifToolError: exiftool is missing, too old for the library or cannot be started.
        """
        with self.process() as tool:
            return str(tool.version)

    @contextlib.contextmanager
    def process(self) -> Iterator[PatientExifTool]:
        """A process for this caller alone; unless it fails, it is kept for the next.

        Raises:
            UnusableExifToolError: none can be started, or this one dies or hangs.
        """
        tool = self._take_idle() or self._start()
        failed = True
        try:
            yield tool
            failed = False
        finally:
            with self._lock:
                is_kept = not failed and not self._is_closed
                if is_kept:
                    self._idle.append(tool)
            if not is_kept:
                tool.stop()

    def close(self) -> None:
        """End all processes; those in use end when their callers are done."""
        with self._lock:
            self._is_closed, idle, self._idle = True, self._idle, []
        for tool in idle:
            tool.stop()

    def _take_idle(self) -> PatientExifTool | None:
        """The process used last, so that no more live than are needed; dead ones are dropped."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                tool = self._idle.pop()
            if tool.is_alive:
                return tool
            tool.stop()

    def _start(self) -> PatientExifTool:
        executable = self._executable or shutil.which("exiftool")
        if executable is None:
            raise UnusableExifToolError("exiftool is not installed")
        try:
            tool = PatientExifTool(self._seconds, executable)
            self._starter.submit(tool.run).result()
        except (OSError, ValueError, RuntimeError, ExifToolException, UnusableExifToolError) as error:
            raise UnusableExifToolError(f"exiftool cannot be started ({' '.join(str(error).split())})") from None
        return tool


def is_unsafe(version: str) -> bool:
    """Whether this version ("12.57") has faults by which a picture can run commands."""
    try:
        return tuple(int(part) for part in version.split(".")) < _SAFE
    except ValueError:
        return False


INSTALL = (
    "install it with your system's packages (Debian: libimage-exiftool-perl, Homebrew: exiftool), "
    "or without root: unpack Image-ExifTool from exiftool.org and put its folder on PATH"
)
_FALLBACK = (
    "all tags are copied where a JPEG, PNG or WebP keeps its format; elsewhere only EXIF and colour profiles are, "
    "not XMP, IPTC, PNG texts and, in TIFF, maker notes"
)
UNSAFE = "has faults by which a picture can make it run commands; update it to 12.38 or newer"


class TagWriter:
    """Copies tags from originals to results. Thread-safe: each caller has its own exiftool. A context manager."""

    engine: str
    """"exiftool 12.57" or "pillow": what copies the tags."""
    notice: str | None
    """One line for people: what is lost without exiftool and how to install it, or why to update it."""

    def __init__(
        self,
        use: Literal["auto", "exiftool", "pillow"] = "auto",
        *,
        rules: TagRules = KEEP_ALL,
        seconds: float = 60.0,
        executable: str | None = None,
    ) -> None:
        """Start exiftool where it is wanted and installed.

        Args:
            use: "auto" takes exiftool where it is installed, else Pillow.
            rules: which tags a result gets, and lumen's stamp.
            seconds: how long one command for one picture may take.
            executable: exiftool's path; None searches PATH.

        Raises:
            UsageError: exiftool is missing or too old, and it is asked for or `private`, which needs it.
        """
        self.rules = rules
        self.engine, self.notice = "pillow", None
        self._pool = ExifToolPool(seconds, executable)
        try:
            reason, version = "tags are copied by Pillow", None if use == "pillow" else self._pool.version()
        except UnusableExifToolError as error:
            reason, version = str(error), None
        if version is not None:
            self.engine = f"exiftool {version}"
            self.notice = f"{self.engine} {UNSAFE}" if is_unsafe(version) else None
        elif use == "exiftool":
            raise UsageError(f"{reason}; {INSTALL}")
        elif rules.metadata == "private":
            raise UsageError(
                f"only exiftool can tell private tags from others, and {reason}; "
                f"choose strip (no tags at all), or {INSTALL}",
                remedy="metadata",
            )
        elif rules.metadata == "keep":
            self.notice = f"{reason}: {_FALLBACK}" + ("" if use == "pillow" else f"; {INSTALL}")

    def __enter__(self) -> TagWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the exiftool processes."""
        self._pool.close()

    def copy(self, source: Path, target: Path, picture: Picture) -> list[str]:
        """Copy the tags of `source` that hold for the result and that the rules keep into `target`, in place.

        `rules.CHANGES` lists every difference that remains, and why. `write_picture` wrote the profile already. The
        stamp is appended to EXIF's ProcessingSoftware (not with `strip`: no tags means no stamp).

        Args:
            source: the original file.
            target: the finished result, or the temporary file that becomes it.
            picture: the content of `target`; its pixels (for a thumbnail), size and `exif` are used.

        Returns:
            Warnings, exiftool's own among them; tags that cannot be copied never fail a picture.

        Raises:
            PictureError: exiftool hung or died twice on this picture, or `target` cannot be written.
        """
        with target.open("rb") as file:
            found = recognise(file)
        format = "" if found is None else found.name
        if self.rules.metadata == "strip":
            return []
        if found is not None and not found.tags:
            return [f"{found.title} holds no tags"] if picture.exif else []
        if self.rules.metadata == "keep" and format == picture.format and format in SPLICED:
            with contextlib.suppress(NotSplicedError, OSError):
                return splice_tags(source, target, format, picture, self.rules.stamp)
        small = make_thumbnail(picture) if format != "tiff" and has_thumbnail(picture.exif) else None
        software = self._software(picture)
        if self.engine == "pillow":
            return embed_exif(target, format, picture, software, small)
        from lumen_cli.imaging.tags.transfer import Transfer  # most pictures keep their format

        return Transfer(self._pool, self.rules, source, target, format, picture, software, small).run()

    def _software(self, picture: Picture) -> str | None:
        """The result's ProcessingSoftware; None without a stamp. `private` keeps nothing of the original's."""
        earlier = None if self.rules.metadata == "private" else read_software(picture.exif)
        return self.rules.stamp and join_software(earlier, self.rules.stamp)
