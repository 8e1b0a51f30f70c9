"""Measures the models on this machine's CUDA device and writes the table in docs/gpu.md. Part of `make gpu`.

python docs/make_gpu_table.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).resolve().parent / "gpu.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
COMMAND = "lumen benchmark --speed --model all --device cuda:0 --batch 1,8,16,64 --pipeline --pictures 200"
HEADINGS = (
    "model",
    "precision",
    "batch",
    "ms a picture",
    "pictures/s, network",
    "pictures/s, folder",
    "busy",
    "memory",
)


def make_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown from JSON lines of `lumen benchmark --speed`, with where and how they were measured."""
    first = rows[0]
    lines = [
        f"{first['device_name']}, PyTorch {first['torch']}, pictures of {first['width']}×{first['height']}:",
        f"`{COMMAND}`.",
        "Folder: JPEGs with tags from disk to disk; busy: share of that time in which a batch was on the device.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"| {' | '.join('---' for _ in HEADINGS)} |",
    ]
    for row in rows:
        cells = [row["model"], row["precision"], str(row["batch"])]
        if row["error"] is not None:
            cells += [row["error"].replace("|", "/")] + [""] * (len(HEADINGS) - len(cells) - 1)
        else:
            folder, memory = row["pipeline"], row["device_memory"]
            cells += [f"{1000 * row['seconds']['median']:.2f}", f"{row['images_per_second']:.0f}"]
            cells += ["–", "–"] if folder is None else [f"{folder['images_per_second']:.0f}", f"{folder['busy']:.0%}"]
            cells += ["–" if memory is None else f"{memory / 2**30:.1f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def put_table(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"docs/gpu.md has lost the marks {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{table}{END}{after}"


def main() -> None:
    """Measure and write, where there is a CUDA device."""
    if not torch.cuda.is_available():
        print("no CUDA device here; docs/gpu.md stays as it is")
        return
    arguments = [sys.executable, "-m", "lumen_cli", *COMMAND.split()[1:], "--json"]
    lines = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    rows = [row for row in map(json.loads, lines) if row["type"] == "speed"]
    if not rows:
        raise SystemExit("the benchmark gave no rows; docs/gpu.md stays as it is")
    PAGE.write_text(put_table(PAGE.read_text(encoding="utf-8"), make_table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
