"""Find and read foreign checkpoint files. No pickle is ever loaded without PyTorch's guard."""

from __future__ import annotations

import argparse
import collections
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumen_cli.errors import ModelError
from lumen_cli.registry.checkpoints.tensorflow import bundle_prefix, data_file

ALLOWED: tuple[type, ...] = (argparse.Namespace, collections.Counter)
"""Types beside tensors and plain values that a checkpoint may hold: the options of the authors' scripts and the
milestones of a learning-rate schedule. Building them runs no code that the file chooses."""

_WEIGHTS = ("state_dict", "model", "model_state_dict", "params", "net")
_AVERAGES = ("ema_helper", "ema", "ema_state_dict", "params_ema", "model_ema", "average")
_ARCHIVES = {b"\x1f\x8b": "gzip", b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip"}
_REFUSED = re.compile(r"(?:GLOBAL|class|function|type)\s+`?([A-Za-z_][\w.]*\.[\w.]+)`?")
_MOST_TENSORS = 100_000
_LONGEST_NAME = 1000
_LARGEST_PICKLE = 64 << 20
_DAMAGED = "is damaged or was not downloaded completely"


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file by name, and their averages over the training, if it holds some."""

    tensors: Mapping[str, Tensor]
    averages: Mapping[str, Tensor] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a PyTorch (.ckpt, .pth, .pth.tar, .pt) or safetensors file, recognised by content; tensors on the CPU.

    The weights are the dictionary under a usual name ("state_dict", "model", "params", …), or the whole file.

    Raises:
        ModelError: the file is missing, empty, damaged, no checkpoint or without tensors; or it was refused because
            it would run code or holds objects other than tensors and plain values.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    if not head:
        raise ModelError(f"{path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise ModelError(f"{path} is a web page, not a checkpoint: the download saved the page of the drive")
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        return Checkpoint(_read_safetensors(path))
    _refuse_other_containers(path, head)
    checkpoint = _select_tensors(path, _load(path, zipped=head.startswith(b"PK")))
    _require_bounded(path, [*checkpoint.tensors.items(), *checkpoint.averages.items()])
    return checkpoint


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path} {_DAMAGED}: {error}") from None


def _refuse_other_containers(path: Path, head: bytes) -> None:
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            raise ModelError(f"{path} is a {kind} archive: unpack it and import the file inside")
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise ModelError(f"{path} {_DAMAGED}") from None
        names = [entry.filename for entry in entries]
        if any("/code/" in name for name in names):
            raise ModelError(f"{path} was refused: it is a TorchScript archive, which holds code")
        if not any(name.endswith("data.pkl") for name in names):
            raise ModelError(f"{path} is a ZIP archive of other files: unpack it and import the file inside")
        _refuse_bombs(path, entries)
    elif tarfile.is_tarfile(path):
        # PyTorch's tar format of before 2017 is refused too: its loader once ran code in spite of the guard.
        raise ModelError(f"{path} is a tar archive: unpack it and import the file inside")
    elif not head.startswith(b"\x80"):
        raise ModelError(f"{path} is no checkpoint: neither a PyTorch file nor safetensors")


def _refuse_bombs(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """PyTorch writes entries uncompressed; compressed or overlapping entries can grow to any size."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(f"{path} was refused: it is compressed, which PyTorch never does; pack it without compression")
    if sum(entry.file_size for entry in entries) > path.stat().st_size or len(entries) > _MOST_TENSORS:
        raise ModelError(f"{path} was refused: its parts are more or larger than the file can hold")
    if any(entry.file_size > _LARGEST_PICKLE for entry in entries if entry.filename.endswith("data.pkl")):
        raise ModelError(
            f"{path} was refused: the description of its tensors is larger than {_LARGEST_PICKLE >> 20} MiB"
        )


def _require_bounded(path: Path, named: Sequence[tuple[str, Tensor]]) -> None:
    """ModelError where tensors take more memory than the file, as repeating views do, or names are too many or long."""
    if len(named) > _MOST_TENSORS or any(len(name) > _LONGEST_NAME for name, _ in named):
        raise ModelError(f"{path} was refused: it holds more tensors, or longer names, than any network has")
    total = 0
    for name, tensor in named:
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise ModelError(f"{path} was refused: {name} is no dense tensor of real numbers")
        size = tensor.numel() * tensor.element_size()
        total += size
        if size > tensor.untyped_storage().nbytes() or total > 4 * path.stat().st_size:
            raise ModelError(f"{path} was refused: {name} repeats parts of the file, which has fewer bytes")


def _load(path: Path, zipped: bool) -> Any:
    import pickle
    import warnings

    try:
        with _allow(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of suspicious pickles and then refuses them
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        text = str(error)
        found = _REFUSED.search(text)
        if found:
            what = f"it holds code or objects other than tensors and plain values ({found[1]})"
        elif "Unsupported" in text:
            what = "it is no checkpoint of PyTorch's, but another pickle or damaged"
        else:
            raise ModelError(f"{path} {_DAMAGED}, or is no PyTorch file") from None
        raise ModelError(f"{path} was refused: {what}; lumen never runs code from a checkpoint") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        # A damaged file can raise any of these in PyTorch's reader; this call runs no code of lumen's.
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path} {_DAMAGED}, or is no PyTorch file: {reason or type(error).__name__}") from None


@contextmanager
def _allow(types: tuple[type, ...]) -> Iterator[None]:
    """`torch.serialization.safe_globals`, which PyTorch 2.4 lacks."""
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    before = list(get_safe_globals())
    add_safe_globals(list(types))
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


def _select_tensors(path: Path, content: Any) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds no dictionary of tensors, but an object of type {type(content).__name__}")
    weights = next((found for name in _WEIGHTS if (found := _tensors(content.get(name)))), {})
    averages = next((found for name in _AVERAGES if (found := _tensors(content.get(name)))), {})
    weights = weights or _tensors(content) or averages
    if not weights:
        fields = ", ".join(list(map(str, content))[:3])
        raise ModelError(f"{path} holds no dictionary of tensors{f' (found {fields})' if fields else ''}")
    return Checkpoint(weights, averages)


def _tensors(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        return {}
    return {
        name: tensor.detach() for name, tensor in value.items() if isinstance(name, str) and torch.is_tensor(tensor)
    }


_ENDINGS = (".ckpt", ".pth", ".pt", ".pth.tar", ".safetensors")
_DEEPEST = 4
_LARGEST_NOTE = 1 << 20
_LATEST = re.compile(r'^model_checkpoint_path:\s*"(.+)"', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One checkpoint: its file, or the prefix of a TensorFlow bundle."""

    path: Path
    bundle: bool = False

    @property
    def file(self) -> Path:
        """The file that holds the weights."""
        return data_file(self.path) if self.bundle else self.path


def find_checkpoints(paths: Sequence[Path], *, several: bool) -> list[Source]:
    """The checkpoints behind files, TensorFlow prefixes and folders, in their order.

    A folder is searched four levels deep. For a model that is published in parts (`several`) it may hold several
    checkpoints; of those in one subfolder, TensorFlow's note names the latest. For other models it must hold one.

    Raises:
        ModelError: a path does not exist, or a folder holds none or too many.
    """
    found: dict[Source, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(_in_folder(path, several))
        elif (prefix := bundle_prefix(path)) is not None:
            found[Source(prefix, bundle=True)] = None
        elif path.is_file():
            found[Source(path)] = None
        elif path.exists():
            raise ModelError(f"{path} is no regular file")
        else:
            raise ModelError(f"there is no file {path}")
    return list(found)


def _in_folder(folder: Path, several: bool) -> list[Source]:
    found: list[Source] = []
    for files in _folders(folder):
        plain = [Source(file) for file in files if file.name.endswith(_ENDINGS) and file.is_file()]
        prefixes = dict.fromkeys(prefix for file in files if (prefix := bundle_prefix(file)) is not None)
        bundles = [Source(prefix, bundle=True) for prefix in prefixes]
        found += plain + (_latest(bundles) if several else bundles)
    if not found:
        raise ModelError(f"{folder} holds no checkpoint (a file that ends in {', '.join(_ENDINGS)} or .index)")
    if len(found) > 1 and not several:
        names = ", ".join(str(source.path.relative_to(folder)) for source in found[:4])
        raise ModelError(f"{folder} holds {len(found)} checkpoints ({names}): name the one to import")
    return found


def _folders(folder: Path) -> Iterator[list[Path]]:
    """The sorted files of a folder and of each folder below it, without hidden ones."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        deep = len(here.relative_to(folder).parts) >= _DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield [here / name for name in sorted(files) if not name.startswith(".")]


def _latest(bundles: list[Source]) -> list[Source]:
    if len(bundles) < 2:
        return bundles
    folder = bundles[0].path.parent
    try:
        note = folder / "checkpoint"
        small = note.is_file() and note.stat().st_size <= _LARGEST_NOTE
        noted = _LATEST.search(note.read_text(encoding="utf-8")) if small else None
    except (OSError, UnicodeDecodeError):
        noted = None
    latest = [source for source in bundles if noted and source.path.name == re.split(r"[\\/]", noted[1])[-1]]
    if not latest:
        names = ", ".join(source.path.name for source in bundles[:4])
        raise ModelError(f"{folder} holds {len(bundles)} checkpoints ({names}): name the one to import")
    return latest
