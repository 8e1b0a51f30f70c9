"""What a user can cause and can fix. Every other exception is a fault of lumen and keeps its traceback."""

from __future__ import annotations

from pathlib import Path

EXIT_CODES = {
    0: "all done",
    1: "something failed or was left untouched; the rest is done",
    2: "wrong usage, model or configuration; nothing was started",
    129: "the terminal was closed",
    130: "interrupted (Ctrl-C)",
    141: "standard output was closed by its reader",
    143: "terminated",
}
"""What the exit codes of all commands mean."""
MORE_CODES = "Codes may be added: take an unknown one as a failure."


class LumenError(Exception):
    """One clear line: what is wrong, where, what to do. Ends a command with `exit_code`.

    Args:
        message: the line. It names no option of the command line.
        remedy: the arguments that would help, separated by ", ": "max_pixels", or "device=cpu" with a value.
            `str` adds them as arguments, and the command line spells them as options.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} (argument {self.remedy})" if self.remedy else self.message


class UsageError(LumenError):
    """Something is asked for that cannot be done; nothing was started (exit code 2)."""

    exit_code = 2


class ModelError(LumenError):
    """A model folder, its config.json or its weights cannot be used (exit code 2: nothing was started)."""

    exit_code = 2


class PictureError(LumenError):
    """One picture cannot be read, enhanced or written; the rest of the batch goes on."""

    def __init__(self, path: Path, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{path}: {reason}", remedy=remedy)
        self.path = path
        self.reason = reason


def explain(error: Exception) -> str:
    """Why something failed, on one line. Anything but a LumenError or missing memory is a fault of lumen."""
    if isinstance(error, PictureError):
        text = error.reason
    elif isinstance(error, LumenError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "too little memory for this picture"
    else:
        text = f"fault of lumen, please report it: {type(error).__name__}: {error}"
    return " ".join(text.split())
