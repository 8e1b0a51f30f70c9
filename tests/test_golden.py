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
from PIL import Image

from tests.golden_pictures import eight, exif, write_extras, write_inputs

FIGURES = Path(__file__).parent / "figures"
GOLDEN = FIGURES / "golden.json"
RECORD = os.environ.get("LUMEN_RECORD_GOLDEN") == "1"
MANIFEST = ".lumen-manifest.jsonl"
EXTRAS = all(importlib.util.find_spec(module) for module in ("pillow_heif", "pyjpegxl", "rawpy"))
RUN = {
    "out": "enhance in -m kind --precision fp32 --no-stamp -o out",
    "maps": "decompose in -m kind --precision fp32 --no-stamp -o maps",
}
"""Commands whose outputs and manifests are stored in figures/golden_run."""
MODELS = ("anlightendiff", "diffll", "kind", "lightendiffusion", "lldiffusion", "lumen")
LIBRARIES = ("torch", "numpy", "opencv-python", "pillow", "tifffile", "pillow_heif", "pyjpegxl", "rawpy")
FOREIGN = ("LUMEN_", "XDG_", "ATEN_", "ONEDNN_", "DNNL_", "MKL_", "OMP_")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")

GROUPS: dict[str, dict[str, str]] = {
    # name of the output folder: arguments; outputs are not stamped, as a stamp holds lumen's version
    "large": {
        "samples": "enhance samples",
        "auto": "enhance large -m diffll --detail auto",
        "fast": "enhance large -m lumen --detail fast",
        "whole": "enhance large -m kind --detail whole",
        "wide": "enhance wide -m kind --detail fast",
    },
    "models": {name: f"enhance night -m {name}" for name in MODELS},
    "options": {
        "strength": "enhance night -m lumen --strength 0.4",
        "unchanged": "enhance mixed -m kind --strength 0",
        "brightness": "enhance night -m lumen --brightness 3",
        "brightness-kind": "enhance night -m kind --brightness 0.5",
        "ratio": "enhance night -m kind --illumination-ratio 2",
        "steps": "enhance night -m diffll --steps 3",
        "seed": "enhance night -m lightendiffusion --seed 7",
        "fp32": "enhance night -m lumen --precision fp32",
        "tile": "enhance samples/palace.jpg -m lightendiffusion --tile 512",
        "tile-kind": "enhance samples/palace.jpg -m kind --tile 512",
        "template": "enhance night -m kind --name-template {stem}-{model}-{seed}{suffix}",
        "maps": "decompose samples/astronaut.jpg formats/turned-6.jpg -m kind --side-by-side --reconstruct",
        "maps-npy": "decompose night -m kind --format npy",
        "maps-16": "decompose night -m kind --depth 16",
        "maps-latent": "decompose night -m lightendiffusion --format npz",
        "maps-bf16": "decompose formats/p3.jpg -m kind --precision bf16",
    },
    "formats": {
        "formats": "enhance formats -m kind",
        "png": "enhance mixed -m kind --format png",
        "jpg": "enhance mixed -m kind --format jpg --quality 80",
        "tiff": "enhance mixed -m kind --format tiff",
        "webp": "enhance mixed -m kind --format webp",
        "avif": "enhance mixed -m kind --format avif",
        "private": "enhance tagged -m kind --metadata private",
        "credits": "enhance tagged -m kind --metadata private --keep-credits",
        "strip": "enhance tagged -m kind --metadata strip",
        "stamp": "enhance tagged -m kind",  # holds lumen's version
    },
    "extras": {
        "extras": "enhance extras -m kind",
        "heic": "enhance mixed -m kind --format heic",
        "jxl": "enhance mixed -m kind --format jxl --quality 90",
    },
    "settings": {name: f"enhance tiny --precision fp32 -m {name}" for name in MODELS}
    | {
        "look": "enhance tiny --precision fp32 -m diffll --steps 3 --seed 5 --strength 0.4 --brightness 2",
        "files": "enhance tiny --precision fp32 -m kind --format webp --quality 70 --metadata private --keep-credits",
        "ratio": "enhance tiny --precision fp32 -m kind --illumination-ratio 2 --metadata strip --detail fast",
        "tiles": "enhance tiny --precision fp32 -m kind --detail whole --tile 512",
        "maps": "decompose tiny --precision fp32 -m kind --depth 16",
        "arrays": "decompose tiny --precision fp32 -m lightendiffusion --format npz",
    },
    "batch": {
        "broken": "enhance broken -m kind",
        "broken-again": "enhance broken -m kind -o out/broken",
        "limit": "enhance mixed night/a.png -m kind --max-pixels 4000",
        "first": "enhance mixed -m kind",
        "again": "enhance mixed -m kind -o out/first",
        "changed": "enhance mixed -m kind --seed 1 -o out/first --dry-run",
        "overwrite": "enhance mixed -m kind -o out/first --overwrite",
        "skip": "enhance mixed -m kind --seed 1 -o out/first --skip-existing",
        "foreign": "enhance foreign/grey.png -m kind -o own",
        "beside": "enhance foreign/rgb.bmp -m kind -o foreign",
        "same-name": "enhance foreign/grey.png own/grey.png -m kind",
        "list": "enhance --from-file list.txt -m kind",
        "glob": "enhance night/**/*.png formats/4*.jpg -m kind",
        "file": "enhance night/a.png -m kind -o out/named.jpg",
        "unknown": "enhance formats/rgb.ppm -m kind",
        "missing": "enhance nothing.png -m kind",
        "no-steps": "enhance night -m kind --steps 0",
        "no-model": "enhance night -m nothing",
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
    asked = subprocess.run(["exiftool", "-ver"], capture_output=True, text=True) if shutil.which("exiftool") else None
    versions = [f"{name} {_version(name)}" for name in LIBRARIES] + [f"exiftool {asked.stdout.strip()}"] * bool(asked)
    return " · ".join(("-".join(names), "+".join(flag for flag in FLAGS if flag in flags), *versions))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none" if name != "opencv-python" else _version("opencv-python-headless")


def environment(root: Path) -> dict[str, str]:
    """One thread, no folders but those in `root`, and nothing else that changes what libraries compute."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    variables |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    return variables | {f"XDG_{name}_HOME": str(root / f"home-{name}") for name in ("DATA", "STATE", "CACHE", "CONFIG")}


def run(root: Path, commands: dict[str, str]) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """The exit code and the JSON lines of each command; `lumen` runs in `root`, in one process on one thread."""
    arguments = {name: [*command.split(), "--json", "--device", "cpu"] for name, command in commands.items()}
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=root,
        env=environment(root),
        input=json.dumps(arguments).encode(),
        stderr=subprocess.PIPE,
    )
    print(ended.stderr.decode())  # pytest shows it where the test fails
    assert ended.returncode == 0
    lines = {name: [json.loads(line) for line in (root / f"{name}.out").read_text().splitlines()] for name in commands}
    return json.loads((root / "codes.json").read_text()), lines


def anywhere(lines: list[dict[str, Any]], root: Path) -> dict[str, str]:
    """What JSON lines hold on every machine: no times, no whole paths, no sizes of files, no reasons in words."""
    facts = {"fields": " ".join(sorted({key for line in lines for key in line}))} if lines else {}
    for line in lines:
        why = line["why"] if line["status"] != "left" else "…"
        targets = line.get("outputs") or {"": line["output"] or ""}
        named = [f"{part} {target.removeprefix(f'{root}/')}".strip() for part, target in targets.items()]
        counts = [f"{len(line[key])} {key}" for key in ("warnings", "notices") if line.get(key)]
        size = [str(side) for side in (line.get("width"), line.get("height"), *(line.get("seen") or ())) if side]
        facts[line["input"].removeprefix(f"{root}/")] = " ".join((line["status"], f"({why}) →", *named, *size, *counts))
    return facts


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
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if RECORD:
        golden.setdefault(section, {})[part] = found
        text = json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False)
        GOLDEN.write_text(f"{text}\n", encoding="utf-8")
    elif section not in golden:
        pytest.skip("no outputs are recorded for this kind of machine; LUMEN_RECORD_GOLDEN=1 records them")
    known = golden[section].get(part, {})
    stale = {name for name, value in known.items() if value is None}  # changed since this kind was recorded
    names = (known.keys() | found.keys()) - stale
    different = sorted(name for name in names if known.get(name) != found.get(name))
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
        pytest.skip("pillow-heif, pyjpegxl and rawpy are not installed")
    root = tmp_path / "run"
    shutil.copytree(inputs, root)
    commands = {
        name: command + " --no-stamp" * (name != "stamp") + f" -o out/{name}" * (" -o " not in command)
        for name, command in GROUPS[group].items()
    }
    codes, lines = run(root, commands)
    assert group == "batch" or not any(codes.values()), codes
    found = {}
    for name, command in commands.items():
        found[f"{name}: exit code"] = codes[name]
        found |= {f"{name}: {key}": value for key, value in anywhere(lines[name], root).items()}
        manifest = root / "out" / name / MANIFEST
        if "fp32" in command and manifest.exists():  # auto depends on the processor
            found[f"{name}: settings"] = " ".join(sorted({line["settings"] for line in records(manifest)}))
    compare("everywhere", group, found)
    compare(machine(), group, outputs(root / "out"))


def test_a_stored_run_is_up_to_date(tmp_path: Path) -> None:
    if RECORD and not (FIGURES / "golden_run").exists():
        write_run(FIGURES / "golden_run")
    root = tmp_path / "run"
    shutil.copytree(FIGURES / "golden_run", root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != MANIFEST}
    known = {folder: records(root / folder / MANIFEST) for folder in RUN}
    codes, lines = run(root, RUN)
    assert codes == dict.fromkeys(RUN, 0)
    assert [line["status"] for name in RUN for line in lines[name]] == ["kept"] * 4
    assert {path: path.read_bytes() for path in before} == before
    assert {folder: records(root / folder / MANIFEST) for folder in RUN} == known


def write_run(folder: Path) -> None:
    """Record small pictures with the outputs and the manifests of two commands; remove the folder to renew it."""
    (folder / "in").mkdir(parents=True)
    Image.fromarray(eight(16, 20)).save(folder / "in/a.png")
    Image.fromarray(eight(16, 20, 1)).save(folder / "in/b.jpg", exif=exif(6))
    codes, _ = run(folder, RUN)
    assert codes == dict.fromkeys(RUN, 0)
    for path in (*folder.glob("*.out"), folder / "codes.json"):
        path.unlink()


def test_a_picture_through_the_standard_streams(inputs: Path) -> None:
    arguments = (sys.executable, "-m", "lumen_cli", "enhance", "-", "-m", "kind", "--no-stamp")
    picture = (inputs / "formats/turned-6.jpg").read_bytes()
    ended = subprocess.run(arguments, cwd=inputs, env=environment(inputs), input=picture, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    compare(machine(), "standard streams", {"turned-6.jpg": digest(ended.stdout)})
