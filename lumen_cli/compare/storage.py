"""Where the pictures of a page are kept: in the page itself, or in a folder beside it."""

from __future__ import annotations

import shutil
import urllib.parse
from contextlib import suppress
from pathlib import Path

from lumen_cli.atomic import temporary_beside
from lumen_cli.compare.drawing import Shown
from lumen_cli.errors import LumenError, UsageError
from lumen_cli.files.find import PAGE_FOLDER, PAGE_MARK

_ABOUT = "The pictures of {page}, made by lumen: copies for the browser. lumen takes none of them as an input.\n"


def pictures_folder(page: Path) -> Path:
    """The folder of a page's pictures: a/compare.html → a/compare-pictures."""
    return page.with_name(page.stem + PAGE_FOLDER)


def require_free(page: Path) -> None:
    """UsageError where something that is not lumen's has the name of the folder of the page's pictures."""
    folder = pictures_folder(page)
    if (folder.exists() or folder.is_symlink()) and not (folder / PAGE_MARK).is_file():
        raise UsageError(f"{folder} exists and does not hold the pictures of a page; choose another name for the page")


class InPage:
    """Pictures become part of the page."""

    def keep(self, name: str, shown: Shown) -> str:
        """The picture as a data URI."""
        return shown.data

    def open(self) -> None:
        """Nothing to prepare."""

    def commit(self) -> int:
        """Bytes beside the page: none."""
        return 0

    def close(self) -> None:
        """Nothing to remove."""


class Beside:
    """Pictures become files of a folder beside the page."""

    def __init__(self, page: Path) -> None:
        self.page, self.folder = page, pictures_folder(page)
        self._temporary = temporary_beside(self.folder)
        self._bytes = 0

    def open(self) -> None:
        """Make the temporary folder.

        Raises:
            LumenError: it cannot be written.
        """
        try:
            self._temporary.mkdir()
            (self._temporary / PAGE_MARK).write_text(_ABOUT.format(page=self.page.name), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from None

    def keep(self, name: str, shown: Shown) -> str:
        """Write the picture; its address, relative to the page.

        Raises:
            LumenError: it cannot be written.
        """
        try:
            (self._temporary / f"{name}.webp").write_bytes(shown.content)
        except OSError as error:
            raise self._unwritable(error) from None
        self._bytes += len(shown.content)
        return f"{urllib.parse.quote(self.folder.name)}/{name}.webp"

    def commit(self) -> int:
        """Give the folder its name, in place of an earlier one; its size in bytes.

        Raises:
            LumenError: that fails; the earlier one is still there.
        """
        earlier = temporary_beside(self.folder)
        try:
            if self.folder.exists():
                self.folder.rename(earlier)
            try:
                self._temporary.rename(self.folder)
            except OSError:
                with suppress(OSError):
                    earlier.rename(self.folder)
                raise
        except OSError as error:
            raise self._unwritable(error) from None
        shutil.rmtree(earlier, ignore_errors=True)
        return self._bytes

    def close(self) -> None:
        """Remove what was not given its name."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _unwritable(self, error: OSError) -> LumenError:
        return LumenError(f"{self.folder}: cannot be written ({error.strerror or error})")
