"""What SECURITY.md promises: nothing that comes from elsewhere is run, followed or allowed to steer."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import stat
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lumen_cli.errors import LumenError, ModelError
from lumen_cli.registry import find_model
from lumen_cli.registry.card import ModelCard, read_card
from lumen_cli.registry.load import load
from lumen_cli.reports import benchmark_files
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest
from tests.conftest import Finished, MakeModel, folder_bytes, write_dark

PACKAGE = Path(__file__).parents[1] / "lumen_cli"
posix = pytest.mark.skipif(os.name == "nt", reason="needs links and pipes in the file system")
RUNNING = {"eval", "exec", "compile", "__import__"}
UNPICKLING = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml"}
ALLOWED = {
    # Only to name the error that PyTorch's own guarded reader raises.
    "registry/checkpoints/__init__.py": {"pickle"},
    # Between two processes of lumen's own; what it may make is a short list.
    "imaging/helper.py": {"pickle"},
    # Tasks from the driver of a Ray run. Ray itself unpickles all that processes of a cluster send each other.
    "run/cluster/worker.py": {"pickle"},
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def sources() -> list[tuple[str, ast.AST]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))) for path in files]


def test_nothing_in_the_code_runs_or_unpickles_what_it_reads() -> None:
    found = []
    for name, tree in sources():
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            bad = {module.split(".")[0] for module in modules} & UNPICKLING
            found += [f"{name} imports {module}" for module in bad - ALLOWED.get(name, set())]
        for called, node in calls(tree):
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called in RUNNING or called in ("os.system", "os.popen") or called.startswith("os.exec"):
                found.append(f"{name} calls {called}")
            if options.get("shell", "False") != "False":
                found.append(f"{name} starts a shell")
            if called == "torch.load" and options.get("weights_only") != "True":
                found.append(f"{name} unpickles with torch.load")
            if called in ("np.load", "np.save") and options.get("allow_pickle") != "False":
                found.append(f"{name} may pickle with {called}")
    assert found == []


def test_that_search_would_find_it() -> None:
    tree = ast.parse("import os\nos.system('x')\nsubprocess.run('x', shell=True)\ntorch.load('x')")
    assert {called for called, _ in calls(tree)} == {"os.system", "subprocess.run", "torch.load"}
    assert len(sources()) > 100


def test_a_helper_process_can_send_pictures_and_nothing_that_runs(tmp_path: Path) -> None:
    import pickle

    from lumen_cli.imaging.helper import receive, send
    from lumen_cli.imaging.picture import read_picture
    from tests.imaging import fuzzing

    class Runs:
        def __init__(self, *call: Any) -> None:
            self.call = call

        def __reduce__(self) -> Any:
            return self.call[0], self.call[1:]

    def passed(message: Any) -> Any:
        pipe = io.BytesIO()
        send(pipe, message)
        pipe.seek(0)
        return receive(pipe)

    marker = tmp_path / "ran"
    for call in ((os.system, f"touch {marker}"), (open, str(marker), "w"), (eval, "1"), (read_picture, marker)):
        message = ("picture", Runs(*call))
        with pytest.raises(EOFError, match="not part of a picture"):
            passed(message)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Runs(open, str(marker), "w")))  # what would have happened
    assert marker.exists()
    (tmp_path / "seeds").mkdir()
    fuzzing.write_seeds(tmp_path / "seeds")
    for path in (tmp_path / "seeds").iterdir():
        kind, picture = passed(("picture", read_picture(path)))
        assert (kind, picture.digest()) == ("picture", read_picture(path).digest())


# --- model folders of strangers


@pytest.fixture
def stranger(make_model: MakeModel) -> Callable[..., Path]:
    """A model folder of the architecture that comes with lumen and is built fastest, with changes to its config."""

    def make(**changes: Any) -> Path:
        folder = make_model("stranger")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return make


def test_code_that_lies_in_a_model_folder_is_not_run(stranger: Callable[..., Path], tmp_path: Path) -> None:
    folder = stranger(auto_map={"AutoModel": "modeling.Model"}, custom_code="modeling.py", trust_remote_code=True)
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name in ("modeling.py", "__init__.py", "conftest.py", "sitecustomize.py", "setup.py", "tiny.py"):
        (folder / name).write_text(code)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.")
    done = subprocess.run(
        [sys.executable, "-m", "lumen_cli", "models", "info", str(folder)], capture_output=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    assert load(find_model(folder)).size_multiple
    assert not (tmp_path / "ran").exists()
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ["os:system", "modeling:Model", "lumen_cli.networks.kind:KinD", "../x", "tiny\x1b[2J"])
def test_an_architecture_is_a_name_in_a_table_and_no_path_to_code(stranger: Callable[..., Path], name: str) -> None:
    with pytest.raises(ModelError, match="architecture"):
        load(find_model(stranger(architecture=name)))


@pytest.mark.parametrize(
    "file",
    ["../outside.safetensors", "/etc/passwd", "..\\x.safetensors", "C:x.safetensors", "a\0.safetensors", "x.bin"],
)
def test_weights_lie_in_the_model_folder(stranger: Callable[..., Path], file: str) -> None:
    weights = {"file": file, "sha256": "0" * 64}
    folder = stranger(weights={"network": weights})
    with pytest.raises(ModelError, match=r"weights\.network\.file"):
        find_model(folder)
    (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()) | {"weights": weights})
    )
    with pytest.raises(ModelError, match=r"weights\.file"):  # the layout of earlier versions
        find_model(folder)


@posix
def test_pipes_and_devices_in_place_of_files_are_refused_at_once(stranger: Callable[..., Path]) -> None:
    folder = stranger()
    card = read_card(folder)
    for name in ("network.safetensors", "config.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    with pytest.raises(ModelError, match="no ordinary file"):
        load(card)
    with pytest.raises(ModelError, match="no ordinary file"):
        read_card(folder)
    (folder / "network.safetensors").unlink()
    (folder / "network.safetensors").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="no ordinary file"):
        load(card)


def headers() -> dict[str, bytes]:
    """Safetensors files whose header claims what the file does not hold."""

    def packed(head: Any, body: bytes = b"") -> bytes:
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        return struct.pack("<Q", len(text)) + text + body

    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "length beyond the file": struct.pack("<Q", 1 << 62) + b"{}",
        "length of 99 MB": struct.pack("<Q", 99_000_000) + b"{",
        "huge shape": packed({"x": {**tensor, "shape": [1 << 62, 1 << 62]}}, bytes(8)),
        "overflowing shape": packed({"x": {**tensor, "shape": [1 << 32, 1 << 32, 4]}}, bytes(8)),
        "offsets beyond": packed({"x": {**tensor, "data_offsets": [0, 1 << 40]}}, bytes(8)),
        "offsets backwards": packed({"x": {**tensor, "data_offsets": [8, 0]}}, bytes(8)),
        "two on one place": packed({"x": tensor, "y": tensor}, bytes(8)),
        "unknown kind": packed({"x": {**tensor, "dtype": "PICKLE"}}, bytes(8)),
        "nested": packed(b"[" * 50_000, b""),
        "a pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0cos\nsystem\n(S'x'\ntR.",
        "nothing": b"",
    }


@pytest.mark.parametrize("kind", headers())
def test_weights_that_lie_about_themselves_are_one_line(stranger: Callable[..., Path], kind: str) -> None:
    import hashlib

    content = headers()[kind]
    weights = {"file": "network.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    folder = stranger(weights={"network": weights})
    (folder / "network.safetensors").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(read_card(folder))
    assert "\n" not in str(caught.value)


ODD: list[Any] = [
    0,
    -1,
    10**12,
    2.5,
    1e308,
    float("inf"),
    "",
    "x",
    [],
    [0],
    [10**6],
    [[1]] * 3,
    {},
    {"a": 1},
    True,
    None,
]


@pytest.mark.parametrize(
    "field", ["decomposition_channels", "restoration_multipliers", "ratio_limits", "__class__", "fusion"]
)
def test_hyper_parameters_of_any_kind_and_size_end_in_a_network_or_one_error(
    make_model: MakeModel, field: str, shipped_kind: ModelCard
) -> None:
    folder = make_model("stranger")
    for file in shipped_kind.files.values():
        (folder / file.file).write_bytes(shipped_kind.path(file).read_bytes())
    config = json.loads((shipped_kind.folder / "config.json").read_text())
    for value in ODD:
        changed = config | {"name": "stranger", "network": config["network"] | {field: value}}
        (folder / "config.json").write_text(json.dumps(changed))
        with contextlib.suppress(ModelError):
            load(read_card(folder))


@pytest.fixture(scope="module")
def shipped_kind() -> ModelCard:
    return find_model("kind")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "[1e99999]", "\ufeff{}", '"x"', "{", "\0", "9" * 5000]
)
def test_a_config_that_is_no_object_is_one_line(make_model: MakeModel, text: str) -> None:
    folder = make_model("stranger")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        read_card(folder)
    assert "\n" not in str(caught.value)


def test_a_config_of_gigabytes_is_not_read(make_model: MakeModel) -> None:
    folder = make_model("stranger")
    with (folder / "config.json").open("r+b") as file:
        file.truncate(8 << 30)  # a hole, no bytes on the disk
    with pytest.raises(ModelError, match="larger than"):
        read_card(folder)


@pytest.mark.parametrize(
    "address", ["hf://../..", "hf://a/..", "hf://-x/y --force", "hf://a/b@../../../x", "hf:///etc/passwd"]
)
def test_an_address_is_no_way_out_of_the_cache(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError):
        find_model(address)
    assert sorted(tmp_path.rglob("*")) == before


# --- manifests


def test_a_manifest_cannot_reach_out_of_its_folder(
    tmp_path: Path, make_model: MakeModel, lumen: Callable[..., Finished]
) -> None:
    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    outside = write_dark(tmp_path / "outside.png")
    out = tmp_path / "out"
    out.mkdir()
    names = ["../outside.png", str(outside), "a/../../outside.png", "x" * 5000, "\0", "\ud800", "", ".", "a.png/b"]
    lines = [json.dumps({"output": name, "source": name, "output_size": 1, "settings": "x"}) for name in names]
    lines += ["[" * 100_000, "9" * 5000, "{}", "null", '{"output": 1, "source": []}', "\ufeff", '{"output": "a.png"']
    (out / MANIFEST_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = outside.read_bytes()
    finished = lumen("enhance", tmp_path / "in", "-o", out, "-m", "tiny", "--resume")
    assert finished.code == 0, finished.err
    assert outside.read_bytes() == before
    assert {*folder_bytes(tmp_path)} >= {"outside.png", "out/a.png", f"out/{MANIFEST_NAME}", "in/a.png"}
    assert Manifest(out).get("a.png") is not None


@posix
@pytest.mark.parametrize("name", [MANIFEST_NAME, "a.png"])
def test_a_manifest_or_output_that_is_a_link_is_not_written_through(
    tmp_path: Path, make_model: MakeModel, lumen: Callable[..., Finished], name: str
) -> None:
    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    (tmp_path / "precious").write_text("mine\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    lumen("enhance", tmp_path / "in", "-o", tmp_path / "out", "-m", "tiny", "--overwrite")
    assert (tmp_path / "precious").read_text() == "mine\n"


@posix
@pytest.mark.parametrize("what", ["folder", "picture"])
def test_a_link_out_of_the_input_folder_is_not_followed_unless_asked(
    tmp_path: Path, make_model: MakeModel, lumen: Callable[..., Finished], what: str
) -> None:
    make_model("tiny")
    write_dark(tmp_path / "in" / "a.png")
    secret = write_dark(tmp_path / "elsewhere" / "secret.png")
    (tmp_path / "in" / "link.png").symlink_to(secret if what == "picture" else secret.parent)
    out = tmp_path / "out"
    assert lumen("enhance", tmp_path / "in", "-o", out, "-m", "tiny").code == 0
    assert [name for name in folder_bytes(out) if not name.startswith(".")] == ["a.png"]
    assert lumen("enhance", tmp_path / "in", "-o", out, "-m", "tiny", "--follow-links", "--resume").code == 0
    assert len([name for name in folder_bytes(out) if not name.startswith(".")]) == 2


# --- reports

HOSTILE = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", " =1", "\t=1", "\uff1d1+1", "\uff20SUM(1)", "\u3000\uff0b1"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_spreadsheet_takes_no_name_for_a_formula(name: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([benchmark_files._field(name)])
    (cell,) = next(csv.reader(io.StringIO(buffer.getvalue())))
    assert unicodedata.normalize("NFKC", cell).lstrip()[0] not in "=+-@"
    assert benchmark_files._field("night-1.png") == "night-1.png"


def test_markdown_and_latex_take_no_name_for_markup() -> None:
    name = "![x](http://example.com/x.png) `a` <img src=x> \\input{/etc/passwd} $x$ %\n| b | \x1b[2J_\udcff"
    for text in (benchmark_files._md(name), benchmark_files._tex(name)):
        assert "\n" not in text
        assert "\x1b" not in text
        text.encode("utf-8")
    shown = benchmark_files._md(name)
    assert all(mark not in shown for mark in ("![x](", "`a`", "<img")) or "\\[x\\]" in shown
    assert "<" not in shown
    assert r"\[x\]" in shown
    assert r"\`a\`" in shown
    tex = benchmark_files._tex(name)
    assert r"\input" not in tex
    assert r"\$x\$ \%" in tex


def test_json_holds_every_name_and_steers_no_terminal() -> None:
    name = "a\x1b[2J\x9b2J\u202egnp.\udcff\n"
    text = benchmark_files.dumps({"name": name})
    assert json.loads(text) == {"name": name}
    text.encode("utf-8")
    assert all(character.isprintable() for character in text)


def test_warnings_of_other_programs_cannot_steer_the_terminal() -> None:
    from rich.console import Console

    from lumen_cli.reports.summary import Summary

    summary = Summary(total=1)
    summary.warnings.update(["exiftool says \x1b]0;title\x07 [red]x[/red]"])
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=False, width=200)
    for table in summary.tables(1.0, 1.0, {"model": "a\x1b[2J"}):
        console.print(table)
    assert "\x1b" not in buffer.getvalue()
    assert "\x07" not in buffer.getvalue()
    assert "[red]x[/red]" in buffer.getvalue()


# --- the exiftool of old


@posix
def test_an_exiftool_with_known_holes_is_named(tmp_path: Path) -> None:
    from lumen_cli.imaging.tags import TagWriter, is_unsafe

    assert [is_unsafe(version) for version in ("12.16", "12.37", "12.38", "13.02", "12.57", "odd")] == [
        *(True, True),
        *(False,) * 4,
    ]
    script = tmp_path / "exiftool"
    script.write_text(
        "#!/bin/sh\n"
        "while IFS= read -r line; do\n"
        '  case "$before" in -echo4) printf "%s\\n" "$line" | sed "s/[$]{status}/0/" >&2;; esac\n'
        '  case "$line" in -execute*) printf "12.30\\n{ready%s}\\n" "${line#-execute}";; esac\n'
        '  before="$line"\n'
        "done\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with TagWriter("exiftool", seconds=5, executable=str(script)) as writer:
        assert writer.notice is not None
        assert "12.38" in writer.notice


def test_errors_end_in_one_line_that_cannot_steer_the_terminal(lumen: Callable[..., Finished], tmp_path: Path) -> None:
    finished = lumen("enhance", tmp_path / "a\x1b[31m\nb.jpg")
    assert finished.code == 2
    assert len(finished.err.splitlines()) == 1
    assert "\x1b" not in finished.err
    assert issubclass(ModelError, LumenError)
