"""Tar files of pictures: the bytes that files get, the other members as they are, resumed by member."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lumen_cli.errors import UsageError
from lumen_cli.files.tars import split_tars
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark
from tests.store import Bucket

Lumen = Callable[..., Finished]
LABELS = {"night/a.json": b'{"label": 1}', "night/a.txt": b"a street", "b.cls": b"7", "__meta__": b"x", "noending": b""}


def write_tar(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), 1_700_000_000, 0o640
            tar.addfile(info, io.BytesIO(content))
    return path


def read_tar(source: Path | bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Pictures, and what lumen makes of them as files."""
    make_model("tiny")
    for number, name in enumerate(("night/a.png", "b.jpg", "c.PNG")):
        write_dark(tmp_path / "files" / name, seed=number)
    files = folder_bytes(tmp_path / "files")
    assert lumen("enhance", tmp_path / "files", "-o", tmp_path / "made", "-m", "tiny").code == 0
    return files, {name: made for name, made in folder_bytes(tmp_path / "made").items() if name in files}


def lines_of(finished: Finished) -> list[dict[str, object]]:
    return [json.loads(line) for line in finished.out.splitlines()]


def test_members_get_the_bytes_of_files_and_all_others_stay(
    pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen
) -> None:
    files, made = pictures
    members = {**LABELS, **files}
    for number in range(3):
        write_tar(tmp_path / f"shards/{number:02}.tar", {f"{number}/{name}": file for name, file in members.items()})
    write_tar(tmp_path / "shards/empty.tar", {})
    names = (tmp_path / "shards/{00..02}.tar", tmp_path / "shards/empty.tar")
    finished = lumen("enhance", *names, "-o", tmp_path / "out", "-m", "tiny", "--json")
    assert finished.code == 0, finished.err
    assert "9 pictures: 9 enhanced, 4 tar files written" in finished.err
    for number in range(3):
        written = tmp_path / f"out/{number:02}.tar"
        wanted = {f"{number}/{name}": made.get(name, content) for name, content in members.items()}
        assert list(read_tar(written).items()) == list(wanted.items())
        with tarfile.open(written) as tar:
            assert {(info.mtime, info.mode) for info in tar} == {(1_700_000_000, 0o640)}
    assert read_tar(tmp_path / "out/empty.tar") == {}
    lines = lines_of(finished)
    assert str(tmp_path / "out/01.tar/1/b.jpg") in [line["output"] for line in lines]
    assert [line["input"] for line in lines if str(line["input"]).endswith(".tar")] == [
        str(tmp_path / f"shards/{name}.tar") for name in ("00", "01", "02", "empty")
    ]
    again = lumen("enhance", *names, "-o", tmp_path / "out", "-m", "tiny", "--json")
    assert (again.code, {line["status"] for line in lines_of(again)}) == (0, {"kept"})
    assert lumen("status", tmp_path / "out").code == 0
    kept = {
        path.relative_to(tmp_path / "out/.lumen-tars").as_posix() for path in (tmp_path / "out").rglob("*.tar.jsonl")
    }
    assert kept == {"00.tar.jsonl", "01.tar.jsonl", "02.tar.jsonl"}


def test_webdataset_reads_what_lumen_writes(
    pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen
) -> None:
    webdataset = pytest.importorskip("webdataset")
    files, made = pictures
    with webdataset.TarWriter(str(tmp_path / "in.tar"), mtime=1.0) as writer:
        for key, name in (("x/1", "b.jpg"), ("x/2", "b.jpg")):
            writer.write({"__key__": key, "jpg": files[name], "json": {"key": key}})
    assert lumen("enhance", tmp_path / "in.tar", "-o", tmp_path / "out.tar", "-m", "tiny").code == 0
    samples = list(webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False))
    assert [(sample["__key__"], sample["jpg"], json.loads(sample["json"])["key"]) for sample in samples] == [
        ("x/1", made["b.jpg"], "x/1"),
        ("x/2", made["b.jpg"], "x/2"),
    ]


def test_a_run_that_was_ended_goes_on_in_the_middle_of_a_tar_file(
    pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lumen_cli.run import tars

    files, made = pictures
    shard = write_tar(tmp_path / "in/0.tar", files)
    command = ("enhance", shard, "-o", tmp_path / "out", "-m", "tiny", "--json")

    def killed(*anything: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tars, "pack", killed)
        lumen(*command)
    assert not (tmp_path / "out/0.tar").exists()
    again = lumen(*command)
    assert again.code == 0, again.err
    assert [line["status"] for line in lines_of(again)] == ["kept", "kept", "kept", "done"]
    assert read_tar(tmp_path / "out/0.tar") == made
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"0.tar"}


def test_what_is_damaged_is_reported_and_the_rest_is_made(
    pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen
) -> None:
    files, made = pictures
    damaged = write_tar(tmp_path / "in/0.tar", {**files, "d.jpg": b"\xff\xd8\xff\xe0 no picture", "d.txt": b"d"})
    whole = write_tar(tmp_path / "in/1.tar", {**files, "last.txt": bytes(5000)}).read_bytes()
    (tmp_path / "in/1.tar").write_bytes(whole[: whole.index(b"last.txt") + 1000])
    (tmp_path / "in/2.tar").write_bytes(b"no tar file" * 100)
    command = ("enhance", tmp_path / "in/*.tar", "-o", tmp_path / "out", "-m", "tiny", "--json")
    first = lumen(*command)
    assert first.code == 1
    reasons = {str(line["input"]): line["reason"] for line in lines_of(first) if line["status"] == "failed"}
    assert set(reasons) == {str(tmp_path / "in" / name) for name in ("0.tar/d.jpg", "1.tar", "2.tar")}
    assert reasons[str(tmp_path / "in/1.tar")] == "cut short in 'last.txt'; its output has what comes before"
    assert reasons[str(tmp_path / "in/2.tar")] == "not a plain tar file, or damaged at its beginning"
    assert read_tar(tmp_path / "out/0.tar") == {**made, "d.txt": b"d"}
    assert read_tar(tmp_path / "out/1.tar") == made
    assert not (tmp_path / "out/2.tar").exists()
    told = lumen("status", tmp_path / "out")
    assert told.code == 1
    assert "1 of 4 pictures failed: d.jpg" in told.out

    write_tar(damaged, {**files, "d.jpg": files["b.jpg"], "d.txt": b"d"})
    again = lumen(*command, "--retry-failed")
    done = [line["input"] for line in lines_of(again) if line["status"] == "done"]
    assert done == [str(damaged / "d.jpg"), str(damaged)]
    assert read_tar(tmp_path / "out/0.tar") == {**made, "d.jpg": made["b.jpg"], "d.txt": b"d"}


def test_names_that_are_no_paths_and_second_members_are_reported(
    pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen
) -> None:
    files, made = pictures
    picture = files["b.jpg"]
    names = ["../out.jpg", "/etc/a.jpg", "a//b.jpg", f"{'l' * 300}.jpg", "b.jpg", "b.jpg", "b.jpg/c.jpg", "./e.jpg"]
    shard = write_tar(tmp_path / "in/0.tar", [(name, picture) for name in names])
    finished = lumen("enhance", shard, "-o", tmp_path / "out", "-m", "tiny", "--json")
    assert finished.code == 1
    assert sum(line["status"] == "failed" for line in lines_of(finished)) == 6
    assert read_tar(tmp_path / "out/0.tar") == {"b.jpg": made["b.jpg"], "./e.jpg": made["b.jpg"]}
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "out", "files", "made", "models", "cache", "state-home"}


def test_each_part_takes_whole_tar_files_and_stores_take_them_too(
    bucket: Bucket, pictures: tuple[dict[str, bytes], dict[str, bytes]], tmp_path: Path, lumen: Lumen
) -> None:
    files, made = pictures
    for number in range(4):
        bucket.put(f"in/{number}.tar", write_tar(tmp_path / f"{number}.tar", {**files, "x.txt": b"x"}))
    asked = ("enhance", f"{bucket.url('in')}/{{0..3}}.tar", "-o", bucket.url("out"), "-m", "tiny")
    for part in ("1/2", "2/2"):
        finished = lumen(*asked, "--shard", part)
        assert finished.code == 0, finished.err
    found = bucket.contents("out")
    assert {name for name in found if name.endswith(".tar")} == {"0.tar", "1.tar", "2.tar", "3.tar"}
    assert all(read_tar(found[f"{number}.tar"]) == {**made, "x.txt": b"x"} for number in range(4))
    assert not bucket.uploads()
    assert not list((tmp_path / "cache").rglob("*.jpg"))


@pytest.mark.parametrize("options", [("--watch",), ("--page",), ("-o", "-"), ("--engine", "ray")])
def test_what_does_not_go_together_is_refused(options: tuple[str, ...], tmp_path: Path, lumen: Lumen) -> None:
    shard = write_tar(tmp_path / "a.tar", {})
    finished = lumen("enhance", shard, *options)
    assert finished.code == 2
    assert "tar file" in finished.err


def test_two_tar_files_for_one_output_are_refused(tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny")
    shards = [write_tar(tmp_path / folder / "0.tar", {}) for folder in ("x", "y")]
    finished = lumen("enhance", *shards, "-o", tmp_path / "out", "-m", "tiny")
    assert finished.code == 2
    assert "would both be written to" in finished.err


def test_braces_are_expanded_and_compressed_tar_files_refused(tmp_path: Path) -> None:
    pytest.importorskip("braceexpand")
    names = ["s/{08..10}.tar", "p", "s3://b/{a,b}.tar"]
    assert split_tars(names) == (["p"], ["s/08.tar", "s/09.tar", "s/10.tar", "s3://b/a.tar", "s3://b/b.tar"])
    odd = write_tar(tmp_path / "{0..9}.tar", {})
    assert split_tars([str(odd)]) == ([], [str(odd)])
    with pytest.raises(UsageError, match="compressed"):
        split_tars(["a.tar.gz"])
