"""Tar files of pictures (the shards of webdataset): which names stand for them, and what they hold.

They are read and written by Python's `tarfile`, in pieces: webdataset's own reader and writer hold each member in
memory, lower the case of endings and drop members without one. Its rule for braces in names is used.
"""

from __future__ import annotations

import copy
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from lumen_cli.errors import PictureError, UsageError
from lumen_cli.files import is_tar_name
from lumen_cli.files.places import explain_name

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_NAMES = 1_000_000
_LONGEST_NAME = 255
_PIECE = 1 << 20


def split_tars(given: Iterable[str], braces: bool = True) -> tuple[list[str], list[str]]:
    """Names of inputs without those of tar files, and those of tar files, with braces expanded (`{000..099}.tar`).

    Raises:
        UsageError: a tar file is compressed, braces do not match, or the package that expands them is missing.
    """
    others: list[str] = []
    tars: list[str] = []
    for name in given:
        if name.lower().endswith(_COMPRESSED) and not Path(name).is_dir():
            raise UsageError(f"{name}: a compressed tar file; lumen takes plain ones: unpack it first")
        if not is_tar_name(name) or Path(name).is_dir():
            others.append(name)
        elif braces and "{" in name and not os.path.lexists(name):
            tars += _expand_braces(name)
        else:
            tars.append(name)
    return others, tars


def _expand_braces(name: str) -> list[str]:
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise UsageError(
            f"{name}: braces in names of tar files need webdataset: pip install 'lumen-cli[webdataset]'"
        ) from None
    try:
        names = list(islice(braceexpand(name), _MOST_NAMES + 1))
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if len(names) > _MOST_NAMES:
        raise UsageError(f"{name}: stands for more than {_MOST_NAMES:,} tar files")
    return names


@dataclass(frozen=True)
class TarContents:
    """What a tar file holds.

    members: in their order; unpacked: the files that were written, and refused: why a picture was not, by the member's
    place in that order; damage: why the tar file could not be read to its end, "" where it could.
    """

    members: Sequence[tarfile.TarInfo]
    unpacked: Mapping[int, PurePosixPath]
    refused: Mapping[int, str]
    damage: str


def unpack(path: Path, folder: Path, endings: Iterable[str]) -> TarContents:
    """Write members into a folder, which is emptied first.

    Args:
        path: the tar file, plain.
        folder: gets the members under their names.
        endings: of the names of the members to write, in lower case, each with its dot.

    Raises:
        PictureError: it is no tar file.
        OSError: it cannot be read, or there is no room.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    members: list[tarfile.TarInfo] = []
    unpacked: dict[int, PurePosixPath] = {}
    refused: dict[int, str] = {}
    damage, wanted, size = "", tuple(endings), path.stat().st_size
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115
    except tarfile.TarError:
        raise PictureError(path, "not a plain tar file, or damaged at its beginning") from None
    with tar:
        try:
            for member in _walk(tar):
                if member.isreg() and member.offset_data + member.size > size and not member.issparse():
                    damage = f"cut short in {member.name!r}"
                    break
                number = len(members)
                members.append(member)
                if not member.isreg() or not member.name.lower().endswith(wanted):
                    continue
                place = PurePosixPath(member.name.removeprefix("./"))
                reason = _why_refused(member.name) or _write(tar, member, folder / place)
                if reason:
                    refused[number] = reason
                else:
                    unpacked[number] = place
        except tarfile.TarError as error:
            damage = f"damaged after {len(members)} members ({error})"
    return TarContents(members, unpacked, refused, damage)


def _walk(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members; ReadError where what follows the last one is not the mark at a tar file's end."""
    while (member := tar.next()) is not None:
        yield member
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError("what follows is no member" if any(block) else "the mark at its end is missing")


def _why_refused(name: str) -> str:
    """Why a member cannot be a file below a folder; "" where it can."""
    name = name.removeprefix("./")
    if reason := explain_name(name):
        return reason.removeprefix("the key ")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in name.split("/")):
        return f"a part of its name has more than {_LONGEST_NAME} bytes"
    return ""


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    """Unpack a member; why it cannot be, "" where it was."""
    content = tar.extractfile(member)
    assert content is not None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("xb") as file:
            shutil.copyfileobj(content, file, _PIECE)
    except (FileExistsError, NotADirectoryError):
        return "another member of the tar file has its name, or is a folder of this name"
    os.utime(target, (member.mtime, member.mtime))
    return ""


def pack(path: Path, contents: TarContents, replaced: Mapping[int, tuple[str, Path] | None], target: Path) -> None:
    """Write a tar file like another one.

    Args:
        path: the other one.
        contents: of it.
        replaced: by a member's place the new name and the file that takes its place; None leaves the member out. All
            others are copied as they are.
        target: the file to write.
    """
    with tarfile.open(path, "r:") as old, tarfile.open(target, "w") as new:
        for number, member in enumerate(contents.members):
            if number not in replaced:
                with old.extractfile(member) or io.BytesIO() if member.isreg() else io.BytesIO() as content:
                    new.addfile(_plain(member) if member.issparse() else member, content)
            elif (result := replaced[number]) is not None:
                info = _plain(member)
                info.name, info.size = result[0], result[1].stat().st_size
                with result[1].open("rb") as file:
                    new.addfile(info, file)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member's times, owner and mode for other content, as an ordinary file."""
    info = copy.copy(member)
    info.type = tarfile.REGTYPE
    names = (name for name in member.pax_headers if name not in ("path", "size") and not name.startswith("GNU.sparse"))
    info.pax_headers = {name: member.pax_headers[name] for name in names}
    return info
