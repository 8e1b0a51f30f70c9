"""Which pictures lumen wrote: by a manifest and their content, or by the stamp in their EXIF. They are no inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lumen_cli.errors import LumenError
from lumen_cli.files.contents import FileState, content_hash, state_of
from lumen_cli.files.find import Found, Source
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest, state_manifest
from lumen_cli.run.stamp import stamp_in


class OwnOutputs:
    """Tells lumen's outputs from other pictures; a file is looked at once while its state stays the same."""

    def __init__(self) -> None:
        self._looked: dict[Path, tuple[FileState, bool]] = {}
        self._manifests: dict[Path, Manifest | None] = {}

    def without(self, found: Found) -> tuple[Found, tuple[Path, ...]]:
        """What was found without lumen's outputs, and those."""
        self._manifests.clear()  # they grow while a folder is watched
        sources: list[Source] = []
        own: list[Path] = []
        for source in found.sources:
            if self._wrote(source.path):
                own.append(source.path)
            else:
                sources.append(source)
        return replace(found, sources=tuple(sources)), tuple(own)

    def _wrote(self, path: Path) -> bool:
        try:
            state = state_of(path)
            known = self._looked.get(path)
            if known is None or known[0] != state:
                known = state, stamp_in(path) is not None or self._is_recorded(path, state.size)
                self._looked[path] = known
            return known[1]
        except OSError:  # reading it will say why
            return False

    def _is_recorded(self, path: Path, size: int) -> bool:
        """Whether a manifest of a folder above names a file of this content."""
        content: str | None = None
        for folder in path.parents:
            manifest = self._manifest(folder)
            for record in manifest.history(path.relative_to(folder).as_posix()) if manifest else ():
                if record.output_size == size and record.output_hash:
                    content = content or content_hash(path)
                    if content == record.output_hash:
                        return True
        return False

    def _manifest(self, folder: Path) -> Manifest | None:
        if folder not in self._manifests:
            there = (folder / MANIFEST_NAME).is_file() or state_manifest(folder).is_file()
            try:
                self._manifests[folder] = Manifest(folder) if there else None
            except LumenError:  # a prepared one; planning reports it where it matters
                self._manifests[folder] = None
        return self._manifests[folder]


def describe(own: Sequence[Path]) -> str:
    """The names of the first few, for a message."""
    from lumen_cli.text import short_path

    return ", ".join(map(short_path, own[:3])) + (", …" if len(own) > 3 else "")
