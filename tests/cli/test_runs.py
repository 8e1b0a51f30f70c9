"""Runs over what people really have: lists, pipes, links, files that change, outputs of doubtful origin."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished, MakeModel, folder_bytes, read_pixels, write_dark

Lumen = Callable[..., Finished]
MANIFEST = ".lumen-manifest.jsonl"
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few people make links")


@pytest.fixture
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


@pytest.fixture
def enhance(tiny: Path, lumen: Lumen) -> Lumen:
    return lambda *arguments: lumen("enhance", *arguments, "-m", "tiny")


def lines(finished: Finished) -> dict[str, dict[str, Any]]:
    """The JSON lines by the name of their input."""
    return {Path(line["input"]).name: line for line in map(json.loads, finished.out.splitlines())}


@dataclass(frozen=True)
class Piped:
    """What a command left behind on its streams."""

    code: int
    out: bytes
    err: str


Pipe = Callable[..., Piped]


@pytest.fixture
def piped(tiny: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Pipe:
    """Run `lumen enhance` in this process, with something on standard input."""

    def run(*arguments: str | Path, given: bytes = b"") -> Piped:
        from lumen_cli.__main__ import main

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["enhance", *map(str, arguments), "-m", "tiny"])
        captured = capfdbinary.readouterr()
        return Piped(ended.value.code or 0, captured.out, captured.err.decode())  # type: ignore[arg-type]

    return run


# Outputs of doubtful origin


def test_an_output_that_lumen_did_not_write_is_left_and_the_rest_goes_on(photos: Path, enhance: Lumen) -> None:
    twin = photos.with_name("photos-enhanced")
    twin.mkdir()
    (twin / "a.png").write_bytes(b"somebody's")
    finished = enhance(photos, "--json")
    assert finished.code == 1
    told = lines(finished)
    assert told["a.png"]["status"] == "left"
    assert "was not created by lumen" in told["a.png"]["reason"]
    assert all(way in told["a.png"]["reason"] for way in ("--overwrite", "--skip-existing"))
    assert {name for name, line in told.items() if line["status"] == "done"} == {"b.jpg", "c.webp", "d.png", "e.tif"}
    assert "5 pictures: 4 enhanced, 1 left untouched" in finished.err
    assert (twin / "a.png").read_bytes() == b"somebody's"

    finished = enhance(photos, "--skip-existing")
    assert finished.code == 0
    assert "5 kept" in finished.err
    assert (twin / "a.png").read_bytes() == b"somebody's"
    assert enhance(photos, "--overwrite").code == 0
    assert read_pixels(twin / "a.png").shape == read_pixels(photos / "a.png").shape


def test_many_outputs_of_unknown_origin_are_a_few_lines(tmp_path: Path, enhance: Lumen) -> None:
    for index in range(30):
        write_dark(tmp_path / "in" / f"{index}.png")
    shutil.copytree(tmp_path / "in", tmp_path / "in-enhanced")
    finished = enhance(tmp_path / "in")
    assert finished.code == 1
    assert finished.err.count("was not created by lumen") == 10
    assert "and 20 pictures more" in finished.err
    assert "30 pictures: 0 enhanced, 30 left untouched" in finished.err


def test_a_picture_that_somebody_retouched_is_kept_and_never_replaced(photos: Path, enhance: Lumen) -> None:
    enhance(photos)
    twin = photos.with_name("photos-enhanced")
    write_dark(twin / "a.png", 50, 60, seed=77)
    retouched = (twin / "a.png").read_bytes()
    finished = enhance(photos)
    assert finished.code == 0
    assert "5 kept (1 of them changed since lumen wrote it)" in finished.err
    finished = enhance(photos, "--strength", "0.5", "--json")
    assert finished.code == 1
    assert "4 × settings changed" in finished.err
    assert "settings changed, but" in lines(finished)["a.png"]["reason"]
    assert (twin / "a.png").read_bytes() == retouched


def test_a_retouched_sidecar_is_left_as_it_is(photos: Path, enhance: Lumen) -> None:
    for name in ("a", "b"):
        (photos / f"{name}.xmp").write_text(f"of {name}")
    enhance(photos)
    twin = photos.with_name("photos-enhanced")
    (twin / "a.xmp").write_text("five stars")
    (photos / "b.xmp").write_text("of b, changed")
    finished = enhance(photos, "--strength", "0.5")
    assert finished.code == 0
    assert (twin / "a.xmp").read_text() == "five stars"
    assert (twin / "b.xmp").read_text() == "of b, changed"
    assert "another file of that name exists" in finished.err


def test_without_anything_to_do_nothing_is_written(photos: Path, enhance: Lumen) -> None:
    enhance(photos)
    twin = photos.with_name("photos-enhanced")
    times = {path: path.stat().st_mtime_ns for path in (twin, *twin.rglob("*"))}
    assert "5 kept" in enhance(photos).err
    assert {path: path.stat().st_mtime_ns for path in (twin, *twin.rglob("*"))} == times


def test_touched_pictures_stay_and_are_not_read_a_second_time(photos: Path, enhance: Lumen) -> None:
    enhance(photos)
    for path in photos.rglob("*.*"):
        os.utime(path)
    twin = photos.with_name("photos-enhanced")
    before = {name: content for name, content in folder_bytes(twin).items() if name != MANIFEST}
    assert "5 kept" in enhance(photos).err
    assert {name: content for name, content in folder_bytes(twin).items() if name != MANIFEST} == before
    recorded = (twin / MANIFEST).read_text()
    assert all(str(path.stat().st_mtime_ns) in recorded for path in photos.rglob("*.*"))


def test_a_copy_of_pictures_and_outputs_goes_on_elsewhere(photos: Path, tmp_path: Path, enhance: Lumen) -> None:
    """Another disk: other times of change, perhaps other times altogether, the same content."""
    enhance(photos)
    for name in ("photos", "photos-enhanced"):
        shutil.copytree(tmp_path / name, tmp_path / "disk" / name, copy_function=shutil.copyfile)
    assert "5 kept" in enhance(tmp_path / "disk" / "photos").err


# Lists


def test_a_list_names_pictures_a_line_each(photos: Path, tmp_path: Path, enhance: Lumen) -> None:
    odd = write_dark(photos / " two words .png")
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbf" + f"{photos / 'a.png'}\r\n\n{odd}\n{photos / 'a.png'}\n{photos / 'night'}".encode()
    )
    finished = enhance("--from-file", tmp_path / "list.txt", "-o", tmp_path / "out", "--json")
    assert finished.code == 0, finished.err
    assert set(lines(finished)) == {"a.png", odd.name, "d.png", "e.tif"}
    assert {name for name in folder_bytes(tmp_path / "out") if name != MANIFEST} == {
        "a.png",
        odd.name,
        "d.png",
        "e.tif",
    }


def test_what_a_list_names_in_vain_is_a_line_and_the_rest_goes_on(photos: Path, tmp_path: Path, enhance: Lumen) -> None:
    (tmp_path / "list.txt").write_text(f"{photos / 'a.png'}\n{photos / 'gone.png'}\n{photos / '*.jpg'}\n")
    finished = enhance("--from-file", tmp_path / "list.txt", "-o", tmp_path / "out", "--json")
    assert finished.code == 1
    told = lines(finished)
    assert {name: line["status"] for name, line in told.items()} == {
        "a.png": "done",
        "gone.png": "failed",
        "*.jpg": "failed",
    }
    assert "no such file" in told["gone.png"]["reason"]
    assert set(told["gone.png"]) == set(told["a.png"])
    assert "3 pictures: 1 enhanced, 2 failed" in finished.err


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"a.png\0b.png\0"], ids=["missing", "empty", "blank", "null"])
def test_a_list_that_is_none_ends_with_2(content: bytes | None, tmp_path: Path, enhance: Lumen) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    finished = enhance("--from-file", tmp_path / "list.txt")
    assert finished.code == 2
    assert finished.err.startswith("lumen: list of files")
    assert len(finished.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only here are names any bytes")
def test_a_list_from_find_holds_any_name(tmp_path: Path, piped: Pipe) -> None:
    names = [b"new\nline.png", b"latin-\xe9.png", b"-o.png", b" .png"]
    for name in names:
        write_dark(tmp_path / "in" / os.fsdecode(name))
    found = b"".join(os.fsencode(tmp_path / "in") + b"/" + name + b"\0" for name in names)
    finished = piped("--from-file", "-", "-0", "-o", f"{tmp_path / 'out'}/", given=found)
    assert finished.code == 0, finished.err
    assert {os.fsencode(path.name) for path in (tmp_path / "out").iterdir()} == {*names, MANIFEST.encode()}


# Standard input and output


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "night/e.tif"])
def test_a_picture_goes_through_a_pipe_with_its_tags(name: str, photos: Path, piped: Pipe) -> None:
    from PIL import Image

    with Image.open(photos / name) as picture:
        exif = Image.Exif()
        exif[0x010F] = "A camera"
        picture.save(photos / name, exif=exif)
    finished = piped("-", "-o", "-", "--no-stamp", given=(photos / name).read_bytes())
    assert finished.code == 0, finished.err
    assert "standard output" in finished.err
    result = photos.parent / "result"
    result.write_bytes(finished.out)
    piped(photos / name, "-o", photos.parent / Path(name).name, "--no-stamp")
    assert finished.out == (photos.parent / Path(name).name).read_bytes()
    with Image.open(result) as picture:
        assert picture.getexif()[0x010F] == "A camera"


def test_a_pipe_needs_no_output_option_and_takes_a_format(photos: Path, piped: Pipe) -> None:
    finished = piped("-", "--format", "png", "-q", given=(photos / "b.jpg").read_bytes())
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(b"\x89PNG")
    finished = piped(photos / "b.jpg", "-o", "-")
    assert finished.out.startswith(b"\xff\xd8")
    assert not (photos / "b-enhanced.jpg").exists()


def test_what_comes_through_a_pipe_can_go_to_a_file(photos: Path, piped: Pipe) -> None:
    finished = piped("-", "-o", photos / "bright.png", "--json", given=(photos / "a.png").read_bytes())
    assert finished.code == 0, finished.err
    (line,) = map(json.loads, finished.out.splitlines())
    assert (line["input"], line["output"]) == ("-", str(photos / "bright.png"))
    assert read_pixels(photos / "bright.png").mean() > 1.3 * read_pixels(photos / "a.png").mean()


@pytest.mark.parametrize("given", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut"], ids=["nothing", "text", "cut"])
def test_what_is_no_picture_in_a_pipe_leaves_standard_output_empty(given: bytes, piped: Pipe) -> None:
    finished = piped("-", given=given)
    assert (finished.code, finished.out) == (1, b"")
    assert "standard input" in finished.err
    assert "Traceback" not in finished.err
    assert "/tmp" not in finished.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "a.png"],
        ["-", "--watch"],
        ["-", "--from-file", "list.txt"],
        ["a.png", "b.jpg", "-o", "-"],
        [".", "-o", "-"],
        ["a.png", "-o", "-", "--json"],
        ["a.png", "-o", "-", "--dry-run"],
        ["a.png", "--null"],
        ["--overwrite"],
        [".", "--watch", "--dry-run"],
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_ends_with_2(
    arguments: list[str], photos: Path, enhance: Lumen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    finished = enhance(*arguments)
    assert finished.code == 2
    assert finished.out == ""
    assert len(finished.err.splitlines()) == 1, finished.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("arguments", [["-"], ["a.png", "-o", "-"]], ids=" ".join)
def test_a_terminal_is_no_place_for_a_picture(arguments: list[str], tiny: Path, photos: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lumen_cli", "enhance", *arguments, "-m", "tiny"]
    finished = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, cwd=photos, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert finished.returncode == 2
    assert b"is a terminal" in finished.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(tiny: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos / "a.png"), "-m", "tiny", "-q", "-o", "-"]
    with Path("/dev/full").open("wb") as full:
        finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert finished.returncode == 1
    (line,) = finished.stderr.decode().splitlines()
    assert line.startswith("lumen: standard output cannot be written")


# Names


def test_outputs_are_named_by_a_template(photos: Path, enhance: Lumen) -> None:
    finished = enhance(photos, "--format", "png", "--name-template", "{parent}-{stem}-{model}{suffix}")
    assert finished.code == 0, finished.err
    names = {name for name in folder_bytes(photos.with_name("photos-enhanced")) if name != MANIFEST}
    assert names == {
        *(f"photos-{stem}-tiny.png" for stem in "abc"),
        *(f"night/night-{stem}-tiny.png" for stem in "de"),
    }
    assert "5 kept" in enhance(photos, "--format", "png", "--name-template", "{parent}-{stem}-{model}{suffix}").err


@pytest.mark.parametrize(
    "template",
    [
        *("", "{stem}", "../{stem}{suffix}", "{stem}/x{suffix}", "..{suffix}/", "{stem.__class__}{suffix}"),
        *("{nothing}{suffix}", "{0}{suffix}", "{stem!r}{suffix}", "{stem:>99}{suffix}", "{stem{suffix}", "{suffix}"),
        *("same{suffix}", "{model}{suffix}", ".lumen-{stem}{suffix}"),
    ],
)
def test_a_template_that_would_not_do_is_refused_before_any_work(template: str, photos: Path, enhance: Lumen) -> None:
    before = folder_bytes(photos.parent)
    finished = enhance(photos, "--format", "png", "--name-template", template)
    assert finished.code == 2
    assert finished.err.startswith("lumen: name template")
    assert len(finished.err.splitlines()) == 1
    assert folder_bytes(photos.parent) == before


def test_a_template_does_not_lead_onto_an_input(photos: Path, enhance: Lumen) -> None:
    finished = enhance(photos / "a.png", "--overwrite", "--name-template", "{stem}{suffix}")
    assert finished.code == 2
    assert "would overwrite the input" in finished.err


# Links, special files, permissions


@needs_links
def test_links_out_of_the_folder_are_followed_only_when_asked(photos: Path, tmp_path: Path, enhance: Lumen) -> None:
    outside = tmp_path / "outside"
    write_dark(outside / "x.png")
    (photos / "link.png").symlink_to(outside / "x.png")
    (photos / "folder").symlink_to(outside)
    (photos / "inside.png").symlink_to("night/d.png")
    (photos / "loop").symlink_to(".")
    finished = enhance(photos, "--json")
    assert finished.code == 0
    assert set(lines(finished)) == {"a.png", "b.jpg", "c.webp", "d.png", "e.tif"}
    assert "2 links out of the input folders not followed" in finished.err
    assert "--follow-links" in finished.err
    finished = enhance(photos, "--follow-links", "--json")
    assert len(lines(finished)) == 6
    named = enhance(photos / "link.png", "-o", tmp_path / "named.png")
    assert named.code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_special_files_are_refused_and_the_rest_goes_on(photos: Path, enhance: Lumen) -> None:
    os.mkfifo(photos / "pipe.png")
    (photos / "null.png").symlink_to("/dev/null")
    finished = enhance(photos, "--follow-links", "--json")
    assert finished.code == 1
    told = lines(finished)
    assert {name for name, line in told.items() if line["status"] == "failed"} == {"pipe.png", "null.png"}
    assert "not a file" in told["pipe.png"]["reason"]
    assert enhance(photos / "pipe.png").code == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")
def test_folders_that_may_not_be_opened_are_said_and_the_rest_goes_on(photos: Path, enhance: Lumen) -> None:
    (photos / "night").chmod(0)
    try:
        finished = enhance(photos, "--json")
    finally:
        (photos / "night").chmod(0o755)
    assert finished.code == 1
    assert lines(finished)["night"]["status"] == "failed"


def test_a_write_protected_output_is_left_whatever_is_asked(photos: Path, enhance: Lumen) -> None:
    enhance(photos)
    twin = photos.with_name("photos-enhanced")
    (twin / "a.png").chmod(0o444)
    before = (twin / "a.png").read_bytes()
    finished = enhance(photos, "--overwrite", "--strength", "0", "--json")
    assert finished.code == 1
    assert "write-protected" in lines(finished)["a.png"]["reason"]
    assert (twin / "a.png").read_bytes() == before


def test_read_only_inputs_are_no_obstacle(photos: Path, enhance: Lumen) -> None:
    for path in (*photos.rglob("*.*"), photos / "night", photos):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert enhance(photos).code == 0
    finally:
        for path in (photos, photos / "night"):
            path.chmod(0o755)


# Files that change meanwhile


@pytest.fixture
def meanwhile(enhance: Lumen, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Enhance a folder with a network that, before its first picture, lets the world change."""

    def run(photos: Path, change: Callable[[], object]) -> Finished:
        import lumen_tiny

        original = lumen_tiny.Tiny.enhance
        changes = [change]

        def changing(*arguments: Any, **keywords: Any) -> Any:
            if changes:
                changes.pop()()
            return original(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(lumen_tiny.Tiny, "enhance", changing)
            return enhance(photos, "--json", "--jobs", "1")

    return run


@pytest.mark.parametrize("what", ["edited", "same size and time", "removed"])
def test_a_picture_that_changes_while_it_is_worked_on_is_noticed(
    what: str, photos: Path, enhance: Lumen, meanwhile: Callable[..., Finished]
) -> None:
    source = photos / "a.png"
    before = source.stat()

    def change() -> None:
        if what == "removed":
            source.unlink()
        elif what == "edited":
            write_dark(source, seed=5)
        else:
            content = bytearray(source.read_bytes())
            content[60] ^= 1
            source.write_bytes(content)
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

    finished = meanwhile(photos, change)
    assert finished.code == 1
    told = lines(finished)
    assert [name for name, line in told.items() if line["status"] == "failed"] == ["a.png"]
    assert "while lumen worked on it" in told["a.png"]["reason"]
    twin = photos.with_name("photos-enhanced")
    assert set(folder_bytes(twin)) == {"b.jpg", "c.webp", "night/d.png", "night/e.tif", MANIFEST}
    if what == "edited":
        again = {name: line["status"] for name, line in lines(enhance(photos, "--json")).items()}
        assert again == {"a.png": "done", **dict.fromkeys(("b.jpg", "c.webp", "d.png", "e.tif"), "kept")}


def test_a_picture_that_is_only_touched_meanwhile_is_made(photos: Path, meanwhile: Callable[..., Finished]) -> None:
    finished = meanwhile(photos, lambda: os.utime(photos / "a.png"))
    assert finished.code == 0
    assert lines(finished)["a.png"]["status"] == "done"
