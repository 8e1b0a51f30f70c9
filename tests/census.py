"""Compare every tag of every picture of a folder before and after: `python -m tests.census FOLDER`.

It runs `lumen enhance --strength 0` over the folder and prints each difference that neither `rules.CHANGES` nor a
warning explains. The exit code is the number of pictures with such a difference, at most 100.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lumen_cli.imaging.formats import recognise
from lumen_cli.imaging.tags.arguments import LISTING
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.imaging.tags.transfer import Tags, find_differences, parse_listing

_AT_ONCE = 100
_SHOWN = 60


def main() -> int:
    """Print the differences for each folder."""
    parser = argparse.ArgumentParser(prog="census", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--format", help="the results' format (default: each picture keeps its own)")
    parser.add_argument("--model", default="kind")
    parser.add_argument("--lines", action="store_true", help="also print the run's lines and failures")
    options = parser.parse_args()
    different = 0
    for folder in options.folder:
        with tempfile.TemporaryDirectory() as scratch:
            results = list(run(folder, Path(scratch), options.format, options.model))
            different += census(folder, [result for result in results if result["status"] == "done"])
            for result in results if options.lines else ():
                for line in [result["reason"]] if result["reason"] else [*result["notices"], *result["warnings"]]:
                    print(f"# {Path(result['input']).relative_to(folder.absolute())}: {line}")
    return min(different, 100)


def run(folder: Path, scratch: Path, format: str | None, model: str) -> Iterator[dict[str, Any]]:
    """Run `lumen enhance` over a folder; one record a picture."""
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(folder), "-o", str(scratch / "out"), "-m", model]
    command += ["--strength", "0", "--json", "--quiet", *(["--format", format] if format else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if "Traceback" in done.stderr:
        print(done.stderr)
    for line in done.stdout.splitlines():
        yield json.loads(line)


def census(folder: Path, results: list[dict[str, Any]]) -> int:
    """Print the differences; how many pictures have one."""
    tags = list_all([path for result in results for path in (result["input"], result["output"])])
    different = 0
    for result in results:
        source, target = result["input"], result["output"]
        lines = [*result["notices"], *result["warnings"]]
        formats = [name_format(Path(path)) for path in (source, target)]
        rules = TagRules("keep", "lumen")
        found = find_differences(tags.get(source, {}), tags.get(target, {}), rules, *formats, lines)
        different += bool(found)
        for name, (before, after) in found.items():
            values = " → ".join("—" if value is None else str(value)[:_SHOWN] for value in (before, after))
            print(f"{Path(source).relative_to(folder.absolute())}: {name}: {values}")
    return different


def name_format(path: Path) -> str:
    with path.open("rb") as file:
        format = recognise(file)
    return "" if format is None else format.name


def list_all(paths: list[str]) -> dict[str, Tags]:
    """The tags of each file by its path."""
    found: dict[str, Tags] = {}
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        done = subprocess.run(["exiftool", *map(bytes.decode, LISTING), *some], capture_output=True, text=True)
        if done.stdout:
            names = [entry["SourceFile"] for entry in json.loads(done.stdout)]
            found.update(zip(names, parse_listing(done.stdout), strict=True))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
