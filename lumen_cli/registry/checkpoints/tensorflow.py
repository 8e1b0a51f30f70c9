"""Read TensorFlow's checkpoint bundles without TensorFlow.

A bundle `model.ckpt` is two files: `model.ckpt.data-00000-of-00001` holds the tensors' bytes one after the other,
`model.ckpt.index` is a sorted string table (LevelDB's format, not compressed) from each tensor's name to a protocol
buffer with its type, shape and place.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lumen_cli.errors import ModelError

_PART = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_LARGEST_INDEX = 16 << 20
_MOST_ENTRIES, _LONGEST_KEY = 10_000, 1000
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


@dataclass(frozen=True)
class Entry:
    """The place of a tensor in a bundle's data file: numpy's name of its dtype, shape, offset and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def bundle_prefix(path: Path) -> Path | None:
    """The prefix of the bundle that a path names by prefix, index or data file; None where there is none."""
    if path.is_file():
        return path.with_name(_PART.sub("", path.name)) if _PART.search(path.name) else None
    return path if not path.exists() and _parts(path) else None


def data_file(prefix: Path) -> Path:
    """The one data file of a bundle; ModelError where it is missing or split."""
    parts = sorted(part for part in _parts(prefix) if ".data-" in part.name[len(prefix.name) :])
    if not parts:
        raise ModelError(f"{prefix}.data-00000-of-00001 is missing: it holds the weights, the index alone does not")
    if len(parts) > 1 or not parts[0].name.endswith("-of-00001"):
        raise ModelError(f"{prefix} is a TensorFlow checkpoint in several parts; lumen reads those of one part")
    return parts[0]


def read_index(path: Path) -> dict[str, Entry]:
    """A bundle's index as name → entry; ModelError where it is no index or describes tensors that lumen cannot read."""
    if not path.is_file() or path.stat().st_size > _LARGEST_INDEX:
        raise ModelError(f"{path} is no index of a TensorFlow checkpoint: no regular file, or too large")
    content = path.read_bytes()
    try:
        if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
            raise ValueError("no string table")
        footer = content[-_FOOTER:]
        _, at = _handle(footer, 0)
        (start, size), _ = _handle(footer, at)
        entries: dict[str, Entry] = {}
        for _, value in _block(content, start, size):
            for key, entry in _block(content, *_handle(value, 0)[0]):
                if len(entries) > _MOST_ENTRIES or len(key) > _LONGEST_KEY:
                    raise ValueError("it names more tensors, or longer ones, than any network has")
                if key:  # the empty name is the header
                    entries[key.decode()] = _entry(entry)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(f"{path} is no index of a TensorFlow checkpoint, or is damaged: {error}") from None
    return entries


def _parts(prefix: Path) -> list[Path]:
    try:
        return [entry for entry in prefix.parent.iterdir() if _PART.sub("", entry.name) == prefix.name != entry.name]
    except OSError:
        return []


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block. A key shares its first bytes with the key before it and stores only the rest."""
    if start + size >= len(content):
        raise ValueError("a block lies beyond its end")
    if content[start + size] != 0:
        raise ValueError("it is compressed")
    block = content[start : start + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        else:
            raise ValueError(f"unknown wire type {wire}")


def _entry(message: bytes) -> Entry:
    numbers: dict[int, int] = {}
    shape: Sequence[int] = ()
    for number, value in _fields(message):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            shape = [_dimension(size) for field, size in _fields(value) if field == 2 and isinstance(size, bytes)]
        elif number == 7:
            raise ValueError("a tensor is stored in slices")
    dtype = _TYPES.get(numbers.get(1, 0))
    if dtype is None:
        raise ValueError(f"a tensor is of TensorFlow's type {numbers.get(1, 0)}, not of numbers lumen reads")
    return Entry(dtype, tuple(shape), numbers.get(4, 0), numbers.get(5, 0))


def _dimension(message: bytes) -> int:
    return next((value for number, value in _fields(message) if number == 1 and isinstance(value, int)), 0)


Networks = Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]
"""Published networks by a name for messages: the authors' tensor names → our name and PyTorch's shape."""


def read_bundle(prefix: Path, networks: Networks) -> dict[str, np.ndarray]:
    """The tensors of a bundle by lumen's names and in PyTorch's layout.

    Without an index, the size of the data file tells the network: the tensors lie in the order of their names, and the
    file holds nothing else.

    Args:
        prefix: the bundle, without the suffixes of its files.
        networks: the networks that a bundle can hold. Tensors of other names keep their names.
    """
    data, index = data_file(prefix), prefix.with_name(f"{prefix.name}.index")
    if not data.is_file():
        raise ModelError(f"{data} is no regular file")
    content = np.fromfile(data, dtype=np.uint8)
    entries = read_index(index) if index.is_file() else _entries_by_size(data, content.size, networks)
    ours = {theirs: name for network in networks.values() for theirs, (name, _) in network.items()}
    total = 0
    tensors = {}
    for name, entry in entries.items():
        if entry.offset + entry.size > content.size:
            raise ModelError(f"{data} is damaged or was not downloaded completely: {name} lies beyond its end")
        total += entry.size
        if total > content.size:
            raise ModelError(f"{index}: its tensors have more bytes than {data} holds, so they repeat parts of it")
        count = math.prod(entry.shape)
        if entry.size != count * np.dtype(entry.dtype).itemsize:
            raise ModelError(f"{index}: {name} has {entry.size} bytes, which does not fit its shape {entry.shape}")
        values = content[entry.offset : entry.offset + entry.size].view(entry.dtype).reshape(entry.shape)
        tensors[ours.get(name, name)] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
    return tensors


def _entries_by_size(data: Path, size: int, networks: Networks) -> dict[str, Entry]:
    """The places of the tensors of the first network that has exactly this many bytes."""
    sizes = []
    for label, network in networks.items():
        entries, offset = {}, 0
        for name in sorted(network, key=str.encode):
            _, shape = network[name]
            shape = tuple(shape[axis] for axis in (2, 3, 1, 0)) if len(shape) == 4 else shape
            entries[name] = Entry("<f4", shape, offset, 4 * math.prod(shape))
            offset += entries[name].size
        if offset == size:
            return entries
        sizes.append(f"{label} {offset:,}")
    raise ModelError(
        f"{data} has {size:,} bytes, which is none of the published networks ({'; '.join(sizes)}), and the .index "
        "beside it that would tell what it holds is missing"
    )
