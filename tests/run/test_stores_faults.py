"""Runs with pictures in stores that end early, and what a user or the store can do wrong: one line each."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.files import stores
from lumen_cli.files.places import parse_address
from lumen_cli.run import stores as run_stores
from lumen_cli.run.manifest import Manifest, Record, open_manifest
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark
from tests.store import MANIFEST, Bucket, Request, outputs

Lumen = Callable[..., Finished]
KILLS = 1


def start(bucket: Bucket, *more: str) -> subprocess.Popen[bytes]:
    command = ["enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "lumen_cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_whole_objects_that_its_manifest_names(
    bucket: Bucket, tmp_path: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("LUMEN_KILL_SEED", random.randrange(10**6)))
    print(f"kill test, LUMEN_KILL_SEED={seed}")
    moments = random.Random(seed)
    make_model("tiny", network={"seconds": 0.05})
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for index in range(16):
        write_dark(tmp_path / "in" / f"{index:02}.png", 30 + index, 40, seed=index)
    assert lumen("enhance", tmp_path / "in", "-o", tmp_path / "local", "--model", "tiny", "--no-stamp").code == 0
    expected = outputs(folder_bytes(tmp_path / "local"))
    bucket.put_folder(tmp_path / "in", "in")
    bucket.proxy.latency = 0.02
    for number in (*[signal.SIGKILL] * KILLS, signal.SIGINT):
        process = start(bucket, "--no-stamp")
        assert process.stdout is not None
        for _ in range(moments.randrange(1, 5)):
            process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.15))
        process.send_signal(number)
        process.communicate()
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        found = outputs(bucket.contents("out"))
        assert found == {name: expected[name] for name in found}

    process = start(bucket, "--no-stamp")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["status"] for line in lines} <= {"done", "kept"}, lines  # no output is a stranger's
    assert outputs(bucket.contents("out")) == expected
    assert set(bucket.contents("out")) == {*expected, MANIFEST}
    assert not bucket.uploads()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_two_runs_into_one_folder_leave_one_manifest_of_all(bucket: Bucket) -> None:
    def write(run: Manifest, *names: str) -> None:
        run.add(*(Record(name, name, output_size=3, output_hash="0") for name in names))
        for name in names:
            bucket.put(f"out/{name}", b"abc")

    root = parse_address(bucket.url("out"))
    one, other = open_manifest(root), open_manifest(root)
    one.begin()
    other.begin()
    write(one, "a", "b")
    write(other, "c")
    one.finish()
    write(other, "d")
    third = open_manifest(root)
    assert [third.get(name) is not None for name in "abcde"] == [True] * 4 + [False]
    other.finish()
    found = bucket.contents("out")
    assert set(found) == {*"abcd", MANIFEST}
    assert [json.loads(line)["output"] for line in found[MANIFEST].splitlines()] == list("abcd")


def test_many_lines_are_few_objects(bucket: Bucket) -> None:
    manifest = open_manifest(parse_address(bucket.url("out")))
    manifest.begin()
    for index in range(250):
        manifest.add(Record(f"{index:03}", "a", output_size=3, output_hash="0"))
    assert len(bucket.contents("out")) <= 101
    again = open_manifest(parse_address(bucket.url("out")))  # as after a kill
    assert all(again.get(f"{index:03}") for index in range(250))
    assert again.unordered


def refusal(finished: Finished, code: int) -> str:
    """The one line that a command ends with."""
    lines = [line for line in finished.err.splitlines() if line.strip()]
    assert (finished.code, len(lines)) == (code, 1), finished.err
    return lines[0]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("s3://no-such-bucket-here/in", "there is no such bucket"),
        ("s3://no-such-bucket-here/in/a.png", "there is no such bucket"),
        ("{bucket}/nothing", "no such object or folder"),
        ("{bucket}/nothing.png", "no such object or folder"),
        ("{bucket}/in//a.png", "has an empty part"),
        ("{bucket}/../a.png", "has a part . or .."),
        ("s3://someone:password@bucket/in", "has no user, password or account"),
        ("s3:///in", "names no bucket"),
        ("s3://*/in", "the name of a bucket cannot be a pattern"),
        ("https://example.com/a.png", "lumen knows no such store"),
    ],
)
def test_wrong_addresses(address: str, reason: str, bucket: Bucket, make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny")
    line = refusal(lumen("enhance", address.format(bucket=bucket.url()), "-o", "out", "--model", "tiny"), 2)
    assert reason in line
    assert "password@" not in line


def test_a_bucket_that_is_not_there_or_not_writable_is_found_before_any_work(
    bucket: Bucket, photos: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    command = ("enhance", photos, "--model", "tiny", "-o")
    assert "there is no such bucket" in refusal(lumen(*command, "s3://no-such-bucket-here/out"), 2)
    bucket.proxy.fault = lambda request: "deny" if request.method == "PUT" else None
    assert "no permission to write it" in refusal(lumen(*command, bucket.url("out")), 2)


def test_no_permission_to_list_or_read(bucket: Bucket, photos: Path, make_model: MakeModel, lumen: Lumen) -> None:
    make_model("tiny")
    bucket.put_folder(photos, "in")
    command = ("enhance", bucket.url("in"), "-o", "memory://denied/out", "--model", "tiny")
    refusals = {
        "deny": "no permission to list it",
        "reject": "the store does not accept the credentials",
        "elsewhere": "the bucket is in another region",
        "throttle": "the store asks for fewer requests at a time",
    }
    for fault, reason in refusals.items():
        bucket.proxy.fault = lambda request, fault=fault: fault if not request.key and request.method == "GET" else None  # type: ignore[misc]
        assert reason in refusal(lumen(*command), 2)
    bucket.proxy.fault = lambda request: "deny" if request.key.endswith("a.png") else None
    finished = lumen(*command, "--json")
    failed = [json.loads(line) for line in finished.out.splitlines() if json.loads(line)["status"] == "failed"]
    assert finished.code == 1
    assert [(line["input"], line["reason"]) for line in failed] == [
        (bucket.url("in/a.png"), "no permission to read it")
    ]


def test_a_store_without_credentials_package_or_answer(
    bucket: Bucket, tmp_path: Path, make_model: MakeModel, lumen: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("tiny")
    command = ("enhance", bucket.url("in"), "-o", tmp_path / "out", "--model", "tiny")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "s3fs", None)
        stores.store_of.cache_clear()
        assert "needs the package s3fs: pip install 'lumen-cli[s3]'" in refusal(lumen(*command), 2)
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        stores.store_of.cache_clear()
        assert "there are no credentials for this store" in refusal(lumen(*command), 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        stores.store_of.cache_clear()
        assert "the store does not answer" in refusal(lumen(*command), 2)
        silent.listen()
        monkeypatch.setattr(stores, "_READ_SECONDS", 0.2)
        stores.store_of.cache_clear()
        assert "the store does not answer" in refusal(lumen(*command), 2)


def test_keys_that_are_no_paths_are_reported_and_the_others_made(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    bucket.put("in//x.png", photos / "a.png")
    long = "/".join(["f" * 200] * 5)[: 1024 - len("out/.png")] + ".png"
    bucket.put(f"in/{long}", photos / "a.png")
    finished = lumen("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json")
    lines = [json.loads(line) for line in finished.out.splitlines()]
    failed = [line["reason"] for line in lines if line["status"] == "failed"]
    assert finished.code == 1
    assert failed == ["the key '/x.png' has an empty part, which no path can have"]
    assert outputs(bucket.contents("out")) == {**expected, long: expected["a.png"]}

    store = parse_address("memory://odd").store
    store.write(parse_address("memory://odd/in/new\nline.png"), (photos / "a.png").read_bytes())
    odd = lumen("enhance", "memory://odd/in", "-o", "memory://odd/out", "--model", "tiny", "--json")
    assert odd.code == 0, odd.err
    assert store.read(parse_address("memory://odd/out/new\nline.png"), 1 << 20)[0] == expected["a.png"]


def test_a_key_that_is_also_a_folder(
    bucket: Bucket, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put("in/a.png", photos / "a.png")
    bucket.put("in/a.png/b.png", photos / "a.png")
    line = refusal(lumen("enhance", bucket.url("in"), "-o", tmp_path / "out", "--model", "tiny"), 2)
    assert "would have to be both a picture and a folder" in line


def result_of(bucket: Bucket, lumen: Lumen) -> dict[str, Any]:
    finished = lumen("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json")
    (line,) = finished.out.splitlines()
    return dict(json.loads(line))


def before(method: str, key: str, times: int, act: Callable[[], None]) -> Callable[[Request], None]:
    """A hook of the proxy that acts before the first requests of a method for a key reach the store."""
    left = [times]

    def hook(request: Request) -> None:
        if (request.method, request.key) == (method, key) and left[0]:
            left[0] -= 1
            act()

    return hook


def test_an_object_that_changes_or_vanishes_while_it_is_read(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], make_model: MakeModel, lumen: Lumen
) -> None:
    other = write_dark(photos / "other.png", 40, 40, seed=7).read_bytes()
    versions = [other, (photos / "a.png").read_bytes()]

    def change() -> None:
        bucket.put("in/a.png", versions[0])
        versions.reverse()

    bucket.put("in/a.png", photos / "a.png")
    bucket.proxy.fault = before("GET", "in/a.png", 100, change)
    assert "changed while lumen read it" in result_of(bucket, lumen)["reason"]
    assert "a.png" not in outputs(bucket.contents("out"))

    bucket.put("in/a.png", other)
    bucket.proxy.fault = before("GET", "in/a.png", 1, lambda: bucket.put("in/a.png", photos / "a.png"))
    assert result_of(bucket, lumen)["status"] == "done"  # read again, and it is the new version
    assert bucket.get("out/a.png") == expected["a.png"]

    bucket.client.delete_object(Bucket=bucket.name, Key="out/a.png")
    asked = [0]

    def vanish() -> None:
        asked[0] += 1
        if asked[0] == 2:  # the first question is that of reading
            bucket.client.delete_object(Bucket=bucket.name, Key="in/a.png")

    bucket.proxy.fault = before("HEAD", "in/a.png", 100, vanish)
    assert result_of(bucket, lumen)["reason"] == "vanished while lumen worked on it"
    assert "a.png" not in outputs(bucket.contents("out"))

    bucket.put("in/a.png", photos / "a.png")
    bucket.proxy.fault = before(
        "GET", "in/a.png", 100, lambda: bucket.client.delete_object(Bucket=bucket.name, Key="in/a.png")
    )
    assert result_of(bucket, lumen)["reason"] == "is no longer there"


def test_an_output_that_somebody_else_writes_meanwhile_stays(
    bucket: Bucket, photos: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put("in/a.png", photos / "a.png")
    bucket.proxy.fault = before("PUT", "out/a.png", 1, lambda: bucket.put("out/a.png", b"somebody else's"))
    assert "somebody else wrote it meanwhile" in result_of(bucket, lumen)["reason"]
    assert bucket.get("out/a.png") == b"somebody else's"


def test_a_server_that_cannot_check_for_new_objects_takes_them_too(
    bucket: Bucket, photos: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put("in/a.png", photos / "a.png")
    bucket.proxy.fault = lambda request: (
        "unknown"
        if (request.method, request.key, bucket.proxy.count("PUT", "a.png")) == ("PUT", "out/a.png", 1)
        else None
    )
    assert result_of(bucket, lumen)["status"] == "done"
    assert bucket.proxy.count("PUT", "a.png") == 2


@pytest.mark.parametrize("network", [{}, {"fails_above": 0.0}])
def test_nothing_of_a_run_stays_in_the_temporary_folder(
    network: dict[str, float],
    bucket: Bucket,
    photos: Path,
    tmp_path: Path,
    make_model: MakeModel,
    lumen: Lumen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The copies of pictures that are done, left out, broken or that the network fails on are removed."""
    make_model("tiny", network=network)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(run_stores, "_AHEAD", 4)
    monkeypatch.setattr(run_stores.StoreTransport, "senders", 4)
    seen = set[int]()
    bucket.put_folder(photos, "in")
    for index in range(60):
        write_dark(tmp_path / "bright.png", 24, 32, seed=index)
        bucket.put(f"in/more/{index}.png", tmp_path / "bright.png")
    bucket.put("in/broken.jpg", b"\xff\xd8\xff no picture")

    def count(request: Request) -> None:
        seen.add(sum(path.is_file() for path in place.rglob("*")))

    bucket.proxy.fault = count
    finished = lumen(
        *(
            "enhance",
            bucket.url("in"),
            "-o",
            bucket.url("out"),
            "--model",
            "tiny",
            "--dark-threshold",
            "0.015",
            "--json",
        )
    )
    statuses = {json.loads(line)["status"] for line in finished.out.splitlines()}
    assert statuses == {"failed", "skipped"} | (set() if network else {"done"})
    assert 0 < max(seen) < 45  # not all copies are there at a time
    assert list(place.iterdir()) == []
