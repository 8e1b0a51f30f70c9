"""What a user can cause and can mend. Every other exception is a fault of lumen and keeps its traceback."""

from __future__ import annotations

from pathlib import Path


class LumenError(Exception):
    """One clear line: what is wrong, where, what to do. Ends a command with `exit_code`."""

    exit_code = 1


class UsageError(LumenError):
    """The command line asks for something that cannot be done; nothing was started (exit code 2)."""

    exit_code = 2


class ModelError(LumenError):
    """A model folder, its config.json or its weights cannot be used (exit code 2: nothing was started)."""

    exit_code = 2


class PictureError(LumenError):
    """One picture cannot be read, enhanced or written; the rest of the batch goes on."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
