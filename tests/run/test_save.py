import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumen_cli.errors import PictureError
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.run.save import Saved, output_format, save_files
from tests.conftest import write_dark


@pytest.fixture(scope="module")
def tags() -> Iterator[TagWriter]:
    with TagWriter() as writer:
        yield writer


def save(picture: Picture, source: Path, target: Path, tags: TagWriter) -> Saved:
    return save_files([(target, picture)], source, tags)


def test_the_file_is_whole_and_alone_in_its_folder(tmp_path: Path, tags: TagWriter) -> None:
    source = write_dark(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    picture = read_picture(source)
    saved = save(picture, source, tmp_path / "out" / "a.png", tags)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert saved.size == (tmp_path / "out" / "a.png").stat().st_size
    assert read_picture(tmp_path / "out" / "a.png").digest() == picture.digest()


def test_an_earlier_output_is_replaced(tmp_path: Path, tags: TagWriter) -> None:
    source = write_dark(tmp_path / "a.png")
    target = tmp_path / "b.png"
    target.write_bytes(b"old")
    save(read_picture(source), source, target, tags)
    assert read_picture(target).digest() == read_picture(source).digest()


@pytest.mark.parametrize("how", ["missing folder", "folder in the way"])
def test_what_cannot_be_written_is_an_error_that_leaves_nothing(how: str, tmp_path: Path, tags: TagWriter) -> None:
    source = write_dark(tmp_path / "a.png")
    target = tmp_path / "out" / "a.png"
    if how == "folder in the way":
        (target / "full").mkdir(parents=True)
    with pytest.raises(PictureError):
        save(read_picture(source), source, target, tags)
    assert not list(tmp_path.rglob(".lumen-*"))


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_an_error_that_leaves_the_earlier_output(tmp_path: Path, tags: TagWriter) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        target = disk / "a.png"
        target.write_bytes(b"earlier")
        source = write_dark(tmp_path / "a.png", 400, 600)
        with pytest.raises(PictureError):
            save(read_picture(source), source, target, tags)
        assert target.read_bytes() == b"earlier"
        assert [path.name for path in disk.iterdir()] == ["a.png"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_name_decides_about_the_container_and_the_source_where_it_says_nothing(tmp_path: Path) -> None:
    picture = read_picture(write_dark(tmp_path / "a.png"))
    assert output_format(picture, Path("x.jpg")) == "jpeg"
    assert output_format(picture, Path("x.dat")) == "png"


def test_what_the_container_cannot_hold_is_said(tmp_path: Path, tags: TagWriter) -> None:
    source = write_dark(tmp_path / "a.png")
    deep = dataclasses.replace(read_picture(source), bit_depth=16)
    saved = save(deep, source, tmp_path / "a.jpg", tags)
    assert any("jpeg" in warning and "16" in warning for warning in saved.warnings)
