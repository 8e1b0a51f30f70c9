"""README and example of an export; both need neither lumen nor PyTorch."""

from __future__ import annotations

from typing import Any

_README = """# {model}

{model} ({architecture}) for {runtime}, written by lumen {lumen}: it brightens dark photographs.

    pip install {packages} pillow
    python example.py dark.jpg bright.png

| | name | type | shape | values |
| --- | --- | --- | --- | --- |
{rows}

* Any height and width from 1 up; the graph pads the picture and crops the result. Batches have one picture.
* {noise}
* {steps}
* {grading}
* Checked against PyTorch at two other sizes: within 1/255.
* Large photographs: the network was made for pictures up to about 0.4 megapixels. `lumen enhance` shows it larger ones
  reduced and carries the result to full size, leaves bright pictures alone, and keeps colours, bits and tags; a program
  that runs this file does none of that.

`export.json` has all this for programs, and the SHA-256 of the model's files.

## Origin

* Weights: SHA-256 {weights_sha256}
* Licence: {licence}
* Paper: {paper}
* Trained on: {trained_on}
* The model's own card, where it has one: MODEL-CARD.md
"""


def readme_text(facts: dict[str, Any]) -> str:
    """The README of an export, Markdown; `facts`: the content of its export.json."""
    ports = [("input", each) for each in facts["inputs"]] + [("output", each) for each in facts["outputs"]]
    rows = "\n".join(
        f"| {kind} | `{port['name']}` | {port['type']} | {'×'.join(map(str, port['shape']))} | "
        f"{port['values']}{', from 0 to 1' if 'range' in port else ''} |"
        for kind, port in ports
    )
    noise = {
        "input": "Noise: {}. Other noise gives another result, which differs in fine texture only.",
        "fixed": "Noise: the graph has its own, always the same, so a picture always gives the same result.",
        "without effect": "Noise: none; the result depends on the picture alone.",
        None: "Noise: none; the result depends on the picture alone.",
    }[facts["noise"]]
    paper = " ".join(filter(None, facts["paper"].values())) or "none"
    runtime = "ONNX Runtime" if facts["format"] == "onnx" else "OpenVINO"
    return _README.format(
        model=facts["model"],
        architecture=facts["architecture"],
        runtime=f"{runtime} (opset {facts['opset']})" if facts["opset"] else runtime,
        lumen=facts["lumen"],
        packages="onnxruntime" if facts["format"] == "onnx" else "openvino",
        rows=rows,
        noise=noise.format(side_rule(facts)),
        steps=f"Sampling steps: {facts['steps']}, fixed."
        if facts["steps"]
        else "One pass, or each member's own steps.",
        grading="The grading (final light and colour) is part of the graph; it reads the picture without padding."
        if facts["grading"]
        else "The model has no grading: the result is the network's.",
        weights_sha256=facts["weights_sha256"],
        licence=facts["licence"] or "not stated",
        paper=paper,
        trained_on="; ".join(facts["trained_on"]) or "not stated",
    )


def side_rule(facts: dict[str, Any]) -> str:
    """The sides of the noise in words; empty where it is no input."""
    side = next((each["side"] for each in facts["inputs"] if "side" in each), None)
    if side is None:
        return ""
    length = "H" if not side["add"] else f"(H + {side['add']})"
    rule = f"{length} rounded up to a multiple of {side['multiple']}"
    rule += f", divided by {side['divide']}" if side["divide"] > 1 else ""
    rule += f", at least {side['least']}" if side["least"] * side["divide"] > side["multiple"] else ""
    return f"standard normal, its height is that of the picture, {rule}; likewise its width"


_EXAMPLE = '''"""Brighten a picture: python example.py dark.jpg bright.png (needs {packages} and pillow)."""

import json
import pathlib
import sys

import numpy as np
{imports}
from PIL import Image

folder = pathlib.Path(__file__).parent
{load}

with Image.open(sys.argv[1]) as file:
    picture = np.asarray(file.convert("RGB"), np.float32) / 255.0
inputs = {{"picture": picture.transpose(2, 0, 1)[None]}}  # height, width, RGB -> 1, RGB, height, width

for port in json.loads((folder / "export.json").read_text(encoding="utf-8"))["inputs"]:
    if port["name"] == "noise":
        side = port["side"]
        height, width = (
            max(-(-(length + side["add"]) // side["multiple"]) * side["multiple"] // side["divide"], side["least"])
            for length in picture.shape[:2]
        )
        shape = (1, port["shape"][1], height, width)
        inputs["noise"] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

{run}
pixels = (result[0].transpose(1, 2, 0) * 255.0).round().astype(np.uint8)
Image.fromarray(pixels).save(sys.argv[2])
'''
_PARTS = {
    "onnx": {
        "packages": "onnxruntime",
        "imports": "import onnxruntime",
        "load": 'session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])',
        "run": '(result,) = session.run(["result"], inputs)',
    },
    "openvino": {
        "packages": "openvino",
        "imports": "import openvino",
        "load": 'model = openvino.Core().compile_model(folder / "model.xml", "CPU")',
        "run": 'result = model(inputs)["result"]',
    },
}


def example_text(facts: dict[str, Any]) -> str:
    """The example of an export, a Python program."""
    return _EXAMPLE.format(**_PARTS[facts["format"]])
