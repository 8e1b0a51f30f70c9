"""The recipe for photo libraries, on folders laid out as those of immich and PhotoPrism."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import MakeModel, folder_bytes, read_pixels, write_dark

SCRIPT = Path(__file__).parents[2] / "contrib" / "photo-libraries" / "brighten.sh"
LAYOUTS = {
    "immich": ("library", "admin/2026/2026-11-29/IMG_1.jpg", "upload-user/2026/2026-11-30/IMG_2.jpg", ".jpg.xmp"),
    "photoprism": ("originals", "2026/11/20261129_200000_A1.jpg", "2026/12/20261201_120000_B2.jpg", ".xmp"),
}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for POSIX shells")


def brighten(originals: Path, bright: Path, *options: str, after: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LUMEN": f"{sys.executable} -m lumen_cli", "AFTER": after}
    command = ["sh", str(SCRIPT), str(originals), str(bright), "--model", "tiny", "--device", "cpu", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", LAYOUTS)
def test_dark_photographs_get_copies_beside_the_library(name: str, tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny")
    folder, dark, light, ending = LAYOUTS[name]
    originals, bright, told = tmp_path / folder, tmp_path / "bright", tmp_path / "told"
    write_dark(originals / dark)
    sidecar = (originals / dark).with_suffix(ending)
    sidecar.write_bytes(XMP)
    (originals / light).parent.mkdir(parents=True)
    Image.fromarray(np.full((24, 32, 3), 200, np.uint8)).save(originals / light)
    before = folder_bytes(originals)
    after = f"echo again >> '{told}'"
    finished = brighten(originals, bright, after=after)
    assert finished.returncode == 0, finished.stderr
    assert folder_bytes(originals) == before
    copies = {path for path in folder_bytes(bright) if not path.startswith(".lumen-manifest")}
    assert copies == {dark, sidecar.relative_to(originals).as_posix()}
    assert read_pixels(bright / dark).mean() > 1.3 * read_pixels(originals / dark).mean()
    assert (bright / dark).stat().st_mtime_ns == (originals / dark).stat().st_mtime_ns
    assert b"Rating" in (bright / sidecar.relative_to(originals)).read_bytes()
    assert told.read_text() == "again\n"
    assert brighten(originals, bright, after=after).returncode == 0
    assert told.read_text() == "again\n"
    write_dark(originals / "new" / "c.jpg", seed=3)
    assert brighten(originals, bright, after=after).returncode == 0
    assert told.read_text() == "again\nagain\n"
    lines = [json.loads(line) for line in (tmp_path / "bright.jsonl").read_text().splitlines()]
    statuses = [(Path(line["input"]).name, line["status"]) for line in lines]
    first, second = Path(dark).name, Path(light).name
    once = sorted([(first, "done"), (second, "skipped")])
    assert sorted(statuses[:2]) == once
    assert sorted(statuses[2:4]) == sorted([(first, "kept"), (second, "skipped")])
    assert sorted(statuses[4:]) == sorted([(first, "kept"), (second, "skipped"), ("c.jpg", "done")])


def test_failures_and_wrong_folders_reach_the_exit_code(tmp_path: Path, make_model: MakeModel) -> None:
    make_model("tiny")
    originals = tmp_path / "originals"
    write_dark(originals / "a.jpg")
    (originals / "b.jpg").write_bytes(b"not a picture")
    before = folder_bytes(originals)
    inside = brighten(originals, originals / "bright")
    assert inside.returncode == 2
    assert "input folder" in inside.stderr
    assert folder_bytes(originals) == before
    finished = brighten(originals, tmp_path / "bright", after="exit 7")
    assert finished.returncode == 7
    finished = brighten(originals, tmp_path / "bright", after="exit 7")
    assert finished.returncode == 1
    assert subprocess.run(["sh", str(SCRIPT)], capture_output=True, check=False).returncode == 2
