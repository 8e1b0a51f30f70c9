"""The command's outputs stay the same bytes: outputs, manifests, exit codes and JSON lines beside those of golden.json.

Pixels depend on the processor and on libraries, so hashes are recorded for each kind of machine; exit codes, JSON lines
and fingerprints of settings hold everywhere. After a deliberate change, or on a new kind of machine, record:

    LUMEN_RECORD_GOLDEN=1 python -m pytest tests/test_golden.py
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden_pictures import write_extras, write_inputs

FIGURES = Path(__file__).parent / "figures"
GOLDEN = FIGURES / "golden.json"
RECORD = os.environ.get("LUMEN_RECORD_GOLDEN") == "1"
MANIFEST = ".lumen-manifest.jsonl"
EXTRAS = all(importlib.util.find_spec(module) for module in ("pillow_heif", "pyjpegxl"))
MODELS = ("anlightendiff", "diffll", "kind", "lightendiffusion", "lldiffusion", "lumen")
LIBRARIES = ("torch", "numpy", "opencv-python", "pillow", "tifffile", "pillow_heif", "pyjpegxl", "pytorch-wavelets")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")

GROUPS: dict[str, dict[str, str]] = {
    # name of the output folder: arguments; outputs are not stamped, as a stamp holds lumen's version
    "samples": {"samples": "enhance samples"},
    "models": {name: f"enhance night -m {name}" for name in MODELS},
    "decompose": {
        "kind": "decompose samples/astronaut.jpg night/a.png -m kind --side-by-side --reconstruct",
        "kind-npy": "decompose night -m kind --format npy",
        "kind-16": "decompose night -m kind --depth 16",
        "lightendiffusion": "decompose night -m lightendiffusion --format npz",
        "bf16": "decompose night/a.png -m kind --precision bf16",
    },
    "options": {
        "strength": "enhance night -m lumen --strength 0.4",
        "unchanged": "enhance mixed -m lumen --strength 0",
        "brightness": "enhance night -m lumen --brightness 3",
        "brightness-kind": "enhance night -m kind --brightness 0.5",
        "ratio": "enhance night -m kind --illumination-ratio 2",
        "steps": "enhance night -m diffll --steps 3",
        "seed": "enhance night -m lldiffusion --seed 7",
        "fp32": "enhance night -m lumen --precision fp32",
        "bf16": "enhance night -m diffll --precision bf16",
        "tile": "enhance samples/camera-grey.png -m lightendiffusion --tile 256",
        "tile-kind": "enhance samples/palace.jpg -m kind --tile 256",
        "template": "enhance night -m kind --name-template {stem}-{model}-{seed}{suffix}",
    },
    "detail": {
        "auto": "enhance large -m diffll --detail auto",
        "fast": "enhance large -m lumen --detail fast",
        "whole": "enhance large -m kind --detail whole",
    },
    "formats": {"formats": "enhance formats -m kind"},
    "conversions": {
        "png": "enhance mixed -m kind --format png",
        "jpg": "enhance mixed -m kind --format jpg --quality 80",
        "tiff": "enhance mixed -m kind --format tiff",
        "webp": "enhance mixed -m kind --format webp",
        "avif": "enhance mixed -m kind --format avif",
    },
    "extras": {
        "extras": "enhance extras -m kind",
        "heic": "enhance mixed -m kind --format heic",
        "jxl": "enhance mixed -m kind --format jxl --quality 90",
    },
    "tags": {
        "private": "enhance tagged -m kind --metadata private",
        "credits": "enhance tagged -m kind --metadata private --keep-credits",
        "strip": "enhance tagged -m kind --metadata strip",
        "tiff": "enhance tagged -m kind --format tiff",
        "png": "enhance tagged -m kind --format png",
    },
}

DRIVER = """
import json, os, sys
from pathlib import Path

from lumen_cli.__main__ import main

codes = {}
for name, arguments in json.load(sys.stdin).items():
    with open(f"{name}.out", "w") as out:
        os.dup2(out.fileno(), 1)
    try:
        main(arguments)
    except SystemExit as end:
        codes[name] = end.code or 0
    sys.stdout.flush()
Path("codes.json").write_text(json.dumps(codes))
"""
"""Runs commands one after the other: torch is imported once."""


def machine() -> str:
    """What decides about an output's bytes beside lumen itself."""
    info = Path("/proc/cpuinfo").read_text().split("\n\n")[0] if Path("/proc/cpuinfo").exists() else ""
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.splitlines())}
    names = (facts.get("vendor_id", platform.machine()), facts.get("cpu family", ""), facts.get("model", ""))
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    tags = (
        subprocess.run(["exiftool", "-ver"], capture_output=True, text=True).stdout if shutil.which("exiftool") else ""
    )
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return " · ".join(
        ("-".join(names), "+".join(f for f in FLAGS if f in flags), *versions, f"exiftool {tags.strip()}")
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none" if name != "opencv-python" else _version("opencv-python-headless")


def run(root: Path, commands: dict[str, str]) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """The exit code and the JSON lines of each command; `lumen` runs in `root`, in one process on one thread."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LUMEN_", "XDG_"))}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment |= {f"XDG_{name}_HOME": str(root / f"home-{name}") for name in ("DATA", "STATE", "CACHE", "CONFIG")}
    arguments = {name: [*command.split(), "--json", "--device", "cpu"] for name, command in commands.items()}
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=root,
        env=environment,
        text=True,
        input=json.dumps(arguments),
        stderr=subprocess.PIPE,
    )
    assert ended.returncode == 0, ended.stderr
    lines = {name: [json.loads(line) for line in (root / f"{name}.out").read_text().splitlines()] for name in commands}
    return json.loads((root / "codes.json").read_text()), lines


def anywhere(lines: list[dict[str, Any]], root: Path) -> dict[str, Any]:
    """What JSON lines hold on every machine: no times, no whole paths, no sizes of files, no wording."""
    kept: dict[str, Any] = {}
    for line in lines:
        facts = {key: line[key] for key in ("status", "why", "width", "height", "seen") if line.get(key) is not None}
        facts |= {"keys": ",".join(sorted(line)), "reason": bool(line.get("reason"))}
        facts |= {key: len(line.get(key) or ()) for key in ("warnings", "notices")}
        source = Path(line["input"]).relative_to(root).as_posix()
        kept[source] = json.dumps(facts, sort_keys=True)
    return kept


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def records(manifest: Path) -> list[dict[str, Any]]:
    """The lines of a manifest without the times of files."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("time_ns")} for line in lines]


def outputs(folder: Path) -> dict[str, Any]:
    """The hash of each file below a folder of outputs, of a manifest the hash of its lines without times."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = json.dumps(records(path)).encode() if path.name == MANIFEST else path.read_bytes()
        found[path.relative_to(folder.parent).as_posix()] = digest(data)
    return found


def compare(section: str, part: str, found: dict[str, Any]) -> None:
    """Assert that all is as recorded; with LUMEN_RECORD_GOLDEN=1 record it."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if RECORD:
        golden.setdefault(section, {})[part] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        return
    if section not in golden:
        pytest.skip("no outputs are recorded for this kind of machine; LUMEN_RECORD_GOLDEN=1 records them")
    known = golden[section].get(part, {})
    different = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))
    detail = "".join(f"\n  {name}: {known.get(name)} → {found.get(name)}" for name in different)
    assert not different, f"{part}: {len(different)} of {len(known)} differ{detail}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    write_inputs(root)
    if EXTRAS:
        write_extras(root / "extras")
    return root


@pytest.mark.parametrize("group", GROUPS)
def test_outputs_stay_the_same_bytes(group: str, inputs: Path, tmp_path: Path) -> None:
    if group == "extras" and not EXTRAS:
        pytest.skip("pillow-heif and pyjpegxl are not installed")
    root = tmp_path / "run"
    shutil.copytree(inputs, root)
    commands = {name: f"{command} --no-stamp -o out/{name}" for name, command in GROUPS[group].items()}
    codes, lines = run(root, commands)
    reported = {name: {"exit code": codes[name], **anywhere(lines[name], root)} for name in commands}
    compare(
        "everywhere",
        group,
        {f"{name}: {key}": value for name, facts in reported.items() for key, value in facts.items()},
    )
    compare(machine(), group, outputs(root / "out"))
