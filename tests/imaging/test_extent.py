"""Files far larger than their picture: trailers, padding and holes are not read into memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumen_cli.imaging.extent import find_jpeg_end
from lumen_cli.imaging.formats import load_format
from lumen_cli.imaging.picture import read_picture
from lumen_cli.imaging.tags.containers import contains

MEGABYTE = 1 << 20
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for a process's peak memory")


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise().save(buffer, kind, **options)
    return buffer.getvalue()


JPEGS = {
    "baseline": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "restarts": encoded("JPEG", restart_marker_blocks=2),
    "with an embedded JPEG": encoded("JPEG", exif=b"Exif\0\0II*\0" + encoded("JPEG", quality=20)),
}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("trailer", [b"", b"\0" * 9000, b"\xff" * 5000, JPEGS["baseline"], b"\xff\xd9" * 3])
def test_a_jpeg_ends_at_its_own_end_marker(name: str, trailer: bytes) -> None:
    assert find_jpeg_end(io.BytesIO(JPEGS[name] + trailer)) == len(JPEGS[name])


def test_a_marker_across_two_pieces_is_found() -> None:
    data = JPEGS["baseline"]
    for padding in range(4090, 4100):  # the first piece is of 4096 bytes
        comment = b"\xff\xfe" + (60000).to_bytes(2, "big") + b"\0" * 59998
        filled = data[:2] + comment + b"\xff" * padding + data[2:]
        assert find_jpeg_end(io.BytesIO(filled + b"\0" * 100)) == len(filled)


def test_a_jpeg_without_an_end_marker_ends_with_the_file() -> None:
    assert find_jpeg_end(io.BytesIO(JPEGS["baseline"][:-2])) == len(JPEGS["baseline"]) - 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_other_formats_tell_where_they_end(kind: str) -> None:
    data, find_end = encoded(kind), load_format(kind.lower()).find_end
    assert find_end(io.BytesIO(data + b"\0" * 5000)) == len(data)
    assert find_end(io.BytesIO(data)) == len(data)


def test_boxes_without_a_picture_are_left_out_at_the_end_only() -> None:
    data, find_end = encoded("AVIF"), load_format("avif").find_end
    video = (5008).to_bytes(4, "big") + b"mpvd" + b"\1" * 5000
    assert find_end(io.BytesIO(data + video)) == len(data)
    assert find_end(io.BytesIO(data[:32] + video + data[32:])) >= len(data)


def test_bytes_are_found_across_pieces_and_not_behind_the_end() -> None:
    file = io.BytesIO(b"\0" * (MEGABYTE - 2) + b"sought" + b"\0" * 10)
    assert contains(file, b"sought", MEGABYTE + 10)
    assert not contains(file, b"sought", MEGABYTE + 3)


def padded(path: Path, data: bytes, size: int = 600 * MEGABYTE) -> Path:
    """The file with a hole behind it."""
    path.write_bytes(data)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@linux
def test_a_hole_of_600_megabytes_changes_neither_picture_nor_memory(kind: str, tmp_path: Path) -> None:
    data = encoded(kind)
    path, plain = tmp_path / f"large.{kind.lower()}", tmp_path / f"plain.{kind.lower()}"
    plain.write_bytes(data)
    read = read_picture(padded(path, data))
    assert np.array_equal(read.pixels, read_picture(plain).pixels)
    assert read.notices == read_picture(plain).notices
    assert peak_of_reading(path) < peak_of_reading(plain) + 30 * MEGABYTE


@linux
def test_a_jpeg_without_an_end_marker_and_a_hole_is_read_within_bounds(tmp_path: Path) -> None:
    data = JPEGS["baseline"][:-2]
    path = padded(tmp_path / "large.jpg", data, 2048 * MEGABYTE)
    assert np.array_equal(
        read_picture(path).pixels, np.asarray(Image.open(io.BytesIO(JPEGS["baseline"]))) / np.float32(255)
    )
    assert peak_of_reading(path) < 400 * MEGABYTE


def peak_of_reading(path: Path) -> int:
    """Bytes a process holds at most that reads this picture and looks for its tags."""
    program = (
        "import sys; from pathlib import Path; from lumen_cli.imaging.picture import read_picture;"
        "from lumen_cli.imaging.tags.arguments import whole_blocks;"
        "from lumen_cli.imaging.tags.containers import find_unsupported, may_hold_tags;"
        "path = Path(sys.argv[1]); picture = read_picture(path);"
        "may_hold_tags(path), find_unsupported(path, 'webp'), whole_blocks(path, picture, 'jpeg');"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024
