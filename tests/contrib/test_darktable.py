"""The darktable script: its syntax and its command line, and darktable-cli itself where that is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeModel, read_pixels, write_dark

SCRIPT = Path(__file__).parents[2] / "contrib" / "darktable" / "lumen.lua"
LUA = shutil.which("lua") or shutil.which("lua5.4") or shutil.which("lua5.3")
DARKTABLE = shutil.which("darktable-cli")
FAKE = f"""
package.preload.darktable = function()
  return {{
    configuration = {{ has_gui = false }},
    preferences = {{ read = function(_, name) return os.getenv("TEST_" .. name) end }},
    register_event = function() end,
    print = print,
    print_error = print,
  }}
end
local lumen = dofile({json.dumps(str(SCRIPT))})
"""
"""What the script asks of darktable when it is loaded, so that its own functions run in any Lua."""


def run_lua(code: str, **settings: str) -> str:
    environment = os.environ | {f"TEST_{name}": value for name, value in settings.items()}
    command = [str(LUA), "-e", FAKE + code]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return finished.stdout


def test_its_options_are_those_of_lumen_enhance() -> None:
    from typer.main import get_command

    from lumen_cli.cli.enhance import app

    known = {name for each in get_command(app).params for name in each.opts}
    text = SCRIPT.read_text(encoding="utf-8")
    (body,) = re.findall(r"^function lumen\.command\(.*?^end$", text, re.MULTILINE | re.DOTALL)
    used = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", body.replace("-- cmd", ""))
    assert used == ["-o", "--json", "--quiet"]
    assert set(used) <= known


@pytest.mark.skipif(LUA is None, reason="needs lua (apt-get install lua5.4)")
def test_names_quotation_marks_and_json_lines() -> None:
    odd = 'it\'s a $(touch x) "night" ü.jpg'
    code = f'io.write(lumen.command({json.dumps(odd, ensure_ascii=False)}, "out", nil))'
    line = run_lua(code, command="/opt/my lumen", options="--model tiny")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    expected = ["/opt/my lumen", "enhance", odd, "-o", "out", "--json", "--quiet", "--model", "tiny"]
    assert words.splitlines() == expected
    said = {"input": 'a \\ "b"\t/ü\U0001f319', "output": None, "reason": "", "settings": {"seed": 0}}
    fields = f"""
    local line = {json.dumps(json.dumps(said))}
    print(lumen.field(line, "input"), lumen.field(line, "output"), lumen.field(line, "reason"))
    """
    assert run_lua(fields) == f"{said['input']}\tnil\t\n"
    names = """
    print(lumen.name({ filename = "a.b.CR2", duplicate_index = 0 }, ".tif"))
    print(lumen.name({ filename = "a.CR2", duplicate_index = 2 }, ".tif"))
    """
    assert run_lua(names).split() == ["a.b_CR2.tif", "a_CR2_02.tif"]


@pytest.fixture
def program(tmp_path: Path, make_model: MakeModel) -> Path:
    """A program that runs this checkout's lumen with a tiny model; in a path that a shell has to quote."""
    make_model("tiny")
    path = tmp_path / "my programs" / "lumen"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lumen_cli "$@"\n')
    path.chmod(0o755)
    return path


def darktable(tmp_path: Path, source: Path, output: Path, program: Path, lua: str) -> str:
    settings = [f"lua/lumen/command={program}", "lua/lumen/options=--model tiny --device cpu"]
    folders = ["--configdir", str(tmp_path / "config"), "--cachedir", str(tmp_path / "cache")]
    settings += ["plugins/imageio/format/tiff/bpp=16"]
    more = [word for each in settings for word in ("--conf", each)]
    library = ["--library", str(tmp_path / "library.db")]
    command = [str(DARKTABLE), str(source), str(output), "--core", *library, *folders, *more, "--luacmd", lua]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return finished.stdout


needs_darktable = pytest.mark.skipif(DARKTABLE is None, reason="needs darktable-cli (apt-get install darktable)")
LOAD = f"local lumen = dofile({json.dumps(str(SCRIPT))})"


@needs_darktable
def test_darktable_cli_exports_through_lumen(tmp_path: Path, program: Path) -> None:
    source = write_dark(tmp_path / "it's dark.png", 48, 64)
    plain, bright, kept = (tmp_path / f"{name}.tif" for name in ("plain", "bright", "kept"))
    assert "lumen" not in darktable(tmp_path, source, plain, program, "")
    assert "lumen: it's dark.png brightened" in darktable(tmp_path, source, bright, program, LOAD)
    import tifffile

    before, after = (tifffile.imread(path) for path in (plain, bright))
    assert before.dtype == after.dtype == "uint16"
    assert before.shape == after.shape
    assert after.mean() > 1.3 * before.mean()
    program.write_text("#!/bin/sh\nexit 1\n")
    assert "it's dark.png NOT brightened" in darktable(tmp_path, source, kept, program, LOAD)
    assert (tifffile.imread(kept) == before).all()
    assert not list(tmp_path.glob(".lumen-*"))


@needs_darktable
def test_darktable_imports_the_result_and_groups_it_with_the_original(tmp_path: Path, program: Path) -> None:
    source = write_dark(tmp_path / "roll" / "a.png", 48, 64)
    grouping = f"""{LOAD}
    lumen.replace = function() return true end
    require("darktable").register_event("test", "intermediate-export-image", function(_, image, path)
      local batch = {{}}
      lumen.add(batch, image, path)
      print("made", lumen.finish(batch))
      for _, each in ipairs(image:get_group_members()) do print("member", each.path .. "/" .. each.filename) end
    end)
    """
    said = darktable(tmp_path, source, tmp_path / "export.jpg", program, grouping)
    result = source.parent / "lumen" / "a_png.jpg"
    assert "made\t1" in said
    assert {line.split("\t")[1] for line in said.splitlines() if line.startswith("member")} == {
        str(source),
        str(result),
    }
    assert read_pixels(result).mean() > 1.3 * read_pixels(source).mean()
