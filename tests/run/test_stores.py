"""Pictures in object stores: the bytes of a local run, resumed runs, faults of the network, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen_cli.files.places import Details, FileState, parse_address
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark
from tests.store import MANIFEST, Bucket, outputs

Lumen = Callable[..., Finished]


def test_bucket_to_bucket_gives_the_bytes_of_a_local_run_and_resumes(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    command = ("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json")
    first = lumen(*command)
    assert first.code == 0, first.err
    assert outputs(bucket.contents("out")) == expected
    lines = [json.loads(line) for line in first.out.splitlines()]
    assert {line["output"] for line in lines} == {bucket.url(f"out/{name}") for name in expected}
    before = {key: bucket.head(f"out/{key}")["LastModified"] for key in bucket.contents("out")}
    assert set(before) == {*expected, MANIFEST}

    bucket.proxy.seen.clear()
    second = lumen(*command)
    assert second.code == 0, second.err
    assert {json.loads(line)["status"] for line in second.out.splitlines()} == {"kept"}
    assert bucket.proxy.count("PUT") == bucket.proxy.count("DELETE") == 0
    assert not bucket.uploads()


def test_folder_to_bucket_and_back(
    bucket: Bucket, photos: Path, tmp_path: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    sent = lumen("enhance", photos, "-o", bucket.url("out"), "--model", "tiny")
    assert sent.code == 0, sent.err
    assert outputs(bucket.contents("out")) == expected

    bucket.put_folder(photos, "in")
    fetched = lumen("enhance", bucket.url("in"), "-o", tmp_path / "back", "--model", "tiny")
    assert fetched.code == 0, fetched.err
    assert outputs(folder_bytes(tmp_path / "back")) == expected
    assert (tmp_path / "back/a.png").stat().st_mode & 0o777 == (tmp_path / "local/a.png").stat().st_mode & 0o777
    again = lumen("enhance", bucket.url("in"), "-o", tmp_path / "back", "--model", "tiny", "--json")
    assert {json.loads(line)["status"] for line in again.out.splitlines()} == {"kept"}


def test_pictures_of_a_list_get_their_sidecars_metadata_and_content_type(
    bucket: Bucket, photos: Path, tmp_path: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    sidecar = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>"
    bucket.put("in/b.jpg", photos / "b.jpg", Metadata={"shot-by": "me"}, ContentType="image/jpeg")
    bucket.put("in/b.xmp", sidecar)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{photos / 'a.png'}\n{bucket.url('in/b.jpg')}\n{bucket.url('in/gone.jpg')}\n", encoding="utf-8")
    finished = lumen("enhance", "--from-file", listed, "-o", bucket.url("out"), "--model", "tiny", "--json")
    assert finished.code == 1
    failed = [json.loads(line) for line in finished.out.splitlines() if json.loads(line)["status"] == "failed"]
    assert [(line["input"], line["reason"]) for line in failed] == [
        (bucket.url("in/gone.jpg"), "no such object or folder")
    ]
    found = bucket.contents("out")
    assert set(outputs(found)) == {"a.png", "b.jpg", "b.xmp"}
    assert found["a.png"] == expected["a.png"]
    assert found["b.jpg"] == expected["b.jpg"]
    head = bucket.head("out/b.jpg")
    assert (head["Metadata"], head["ContentType"]) == ({"shot-by": "me"}, "image/jpeg")
    assert bucket.head("out/a.png")["ContentType"] == "image/png"

    private = lumen(
        *("enhance", bucket.url("in/b.jpg"), "-o", bucket.url("private"), "--model", "tiny", "--metadata", "private")
    )
    assert private.code == 0, private.err
    assert bucket.head("private/b.jpg")["Metadata"] == {}
    assert "b.xmp" not in bucket.contents("private")


def test_what_changed_is_made_again_and_what_others_wrote_stays(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    bucket.put("out/c.webp", b"somebody else's")
    command = ("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json")
    first = {json.loads(line)["input"]: json.loads(line) for line in lumen(*command).out.splitlines()}
    assert first[bucket.url("in/c.webp")]["status"] == "left"
    assert bucket.get("out/c.webp") == b"somebody else's"

    write_dark(photos / "a.png", 40, 40, seed=9)
    bucket.put("in/a.png", photos / "a.png")
    bucket.client.delete_object(Bucket=bucket.name, Key="out/b.jpg")
    second = [json.loads(line) for line in lumen(*command).out.splitlines()]
    assert {(line["input"].rpartition("/")[2], line["status"], line["why"]) for line in second} >= {
        ("a.png", "done", "source changed"),
        ("b.jpg", "done", "missing"),
        ("d.png", "kept", "finished"),
    }
    assert bucket.get("out/b.jpg") == expected["b.jpg"]
    assert bucket.get("out/a.png") != expected["a.png"]

    skipped = lumen(*command, "--skip-existing")
    assert skipped.code == 0, skipped.err
    assert bucket.get("out/c.webp") == b"somebody else's"
    overwritten = lumen(*command, "--overwrite")
    assert overwritten.code == 0, overwritten.err
    assert bucket.get("out/c.webp") == expected["c.webp"]


def test_metadata_that_s3_does_not_take_is_encoded(bucket: Bucket, photos: Path) -> None:
    details = Details(FileState(1, 0, None), metadata={"place": "Köln"})
    parse_address(bucket.url("a.png")).store.send(photos / "a.png", parse_address(bucket.url("a.png")), details)
    assert bucket.head("a.png")["Metadata"] == {"place": "K%C3%B6ln"}


def test_only_dark_and_memory(photos: Path, make_model: MakeModel, lumen: Lumen, bucket: Bucket) -> None:
    make_model("tiny")
    bucket.put_folder(photos, "in")
    finished = lumen(
        *("enhance", bucket.url("in"), "-o", "memory://m/out", "--model", "tiny", "--dark-threshold", "0.0", "--json")
    )
    assert finished.code == 0, finished.err
    assert {json.loads(line)["status"] for line in finished.out.splitlines()} == {"skipped"}


def test_no_credential_is_shown_or_kept(
    bucket: Bucket, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put_folder(photos, "in")
    log = tmp_path / "log"
    command = ("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json", "--log-file", log)
    finished = lumen(*command, "-v")
    refused = lumen("enhance", "s3://someone:secret-of-the-test@bucket/in", "-o", tmp_path / "x")
    assert (finished.code, refused.code) == (0, 2)
    assert "an address has no user, password or account" in refused.err
    texts = [finished.out, finished.err, refused.err, refused.out, log.read_text(encoding="utf-8")]
    texts += [content.decode("latin-1") for content in bucket.contents("out").values()]
    for text in texts:
        assert "secret-of-the-test" not in text
        assert "key-of-the-test" not in text


def test_globs_and_folders_without_an_output(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    bucket.put("in/.hidden/x.png", photos / "a.png")
    bucket.put("in/notes.txt", b"no picture")
    deep = lumen("enhance", bucket.url("in/**/*.tif"), "-o", bucket.url("deep"), "--model", "tiny")
    assert deep.code == 0, deep.err
    assert set(outputs(bucket.contents("deep"))) == {"night/e.tif"}
    flat = lumen("enhance", bucket.url("in/[ab].*"), "-o", bucket.url("flat"), "--model", "tiny")
    assert flat.code == 0, flat.err
    assert set(outputs(bucket.contents("flat"))) == {"a.png", "b.jpg"}
    beside = lumen("enhance", f"{bucket.url('in')}/", "--model", "tiny")
    assert beside.code == 0, beside.err
    assert outputs(bucket.contents("in-enhanced")) == expected

    whole = lumen("enhance", bucket.url(), "-o", "memory://whole", "--model", "tiny", "--dry-run")
    assert "written by lumen" not in whole.err
    assert f"{len(expected)} pictures to make" in whole.err, whole.err  # none of those that lumen wrote


def test_maps_in_a_bucket_are_those_of_a_local_run(
    bucket: Bucket, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny", abilities=["decompose"])
    bucket.put_folder(photos, "in")
    more = ("--model", "tiny", "--side-by-side")
    assert lumen("decompose", photos, "-o", tmp_path / "local", *more).code == 0
    finished = lumen("decompose", bucket.url("in"), "-o", bucket.url("maps"), *more)
    assert finished.code == 0, finished.err
    assert outputs(bucket.contents("maps")) == outputs(folder_bytes(tmp_path / "local"))
    again = lumen("decompose", bucket.url("in"), "-o", bucket.url("maps"), *more, "--json")
    assert {json.loads(line)["status"] for line in again.out.splitlines()} == {"kept"}


@pytest.mark.parametrize("fault", ["drop", "lose", "throttle", "truncate"])
def test_faults_of_the_network_change_nothing(
    fault: str, bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    bucket.proxy.fault = lambda request: fault if request.number % 4 == 2 else None
    finished = lumen("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--json")
    assert finished.code == 0, finished.err + finished.out
    bucket.proxy.fault = lambda request: None
    assert outputs(bucket.contents("out")) == expected
    assert set(bucket.contents("out")) == {*expected, MANIFEST}
    assert not bucket.uploads()


def test_a_benchmark_of_pictures_in_a_bucket_gives_the_figures_of_a_local_one(
    bucket: Bucket, photos: Path, tmp_path: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put_folder(photos, "photos")
    figures = []
    for place in (photos, bucket.url("photos")):
        finished = lumen(
            *("benchmark", "--data-root", place, "--darken", "2", "-m", "tiny", "--metric", "psnr", "--json", "-q")
        )
        assert finished.code == 0, finished.err
        lines = [json.loads(line) for line in finished.out.splitlines()]
        figures.append([(line["dataset"], [(e["name"], e["psnr"]) for e in line["pictures"]]) for line in lines])
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "{url}", "{url}"),
        ("compare", "before", "after", "-o", "{url}/page.html"),
        ("benchmark", "--output={url}/report.md"),
        ("train", "kind", "--data", "{url}"),
        ("enhance", "{url}", "--watch"),
        ("enhance", "{url}", "-o", "memory://page/out", "--page"),
    ],
)
def test_commands_that_need_files_refuse_addresses(
    command: tuple[str, ...], bucket: Bucket, photos: Path, make_model: MakeModel, lumen: Lumen
) -> None:
    make_model("tiny")
    bucket.put_folder(photos, "in")
    finished = lumen(*(word.format(url=bucket.url("in")) for word in command))
    assert (finished.code, len(finished.err.splitlines())) == (2, 1), finished.err
    assert "store" in finished.err


def test_parts_of_a_run_share_a_bucket_and_status_reads_it(
    bucket: Bucket, photos: Path, expected: dict[str, bytes], lumen: Lumen
) -> None:
    bucket.put_folder(photos, "in")
    bucket.put("in/broken.jpg", b"no picture")
    codes = []
    for part in ("1/2", "2/2"):
        command = ("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "--shard", part)
        codes.append(lumen(*command).code)
    assert sorted(codes) == [0, 1]
    assert outputs(bucket.contents("out")) == expected
    told = lumen("status", bucket.url("out"), "--json")
    assert told.code == 1, told.err
    failed, totals = map(json.loads, told.out.splitlines())
    assert (failed["state"], failed["input"]) == ("failed", "broken.jpg")
    assert totals["states"]["done"] == len(expected)


def test_a_clip_goes_from_bucket_to_bucket(bucket: Bucket, tmp_path: Path, make_model: MakeModel, lumen: Lumen) -> None:
    pytest.importorskip("av", reason="av is not installed")
    from tests.clips import Recipe, dark_frames, write_clip

    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    bucket.put("in/walk.mkv", write_clip(tmp_path / "in" / "walk.mkv", Recipe(dark_frames(8))))
    bucket.put("in/a.png", tmp_path / "in" / "a.png")
    assert lumen("enhance", tmp_path / "in", "-o", tmp_path / "local", "--model", "tiny").code == 0
    finished = lumen("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny")
    assert finished.code == 0, finished.err
    found, expected = outputs(bucket.contents("out")), outputs(folder_bytes(tmp_path / "local"))
    assert found.keys() == expected.keys() == {"a.png", "walk.mkv"}
    assert found["a.png"] == expected["a.png"]
    assert abs(len(found["walk.mkv"]) - len(expected["walk.mkv"])) < 1000
    assert lumen("enhance", bucket.url("in"), "-o", bucket.url("out"), "--model", "tiny", "-q").code == 0
