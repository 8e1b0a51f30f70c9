"""All checks of `lumen doctor`: the machine, then lumen's own parts, then a self-test."""

from __future__ import annotations

import importlib.util
import io
import shutil
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lumen_cli.doctor import machine
from lumen_cli.doctor.machine import Check, Checks
from lumen_cli.errors import LumenError, ModelError, UsageError, explain
from lumen_cli.text import duration, printable

if TYPE_CHECKING:
    import numpy as np

    from lumen_cli.registry.card import ModelCard

_NEED_TORCH = ("memory", "device", "package", "model", "self-test")
"""Areas that have nothing to add where PyTorch cannot be imported."""
_REPAIRS = {"torch": "install PyTorch again, without a GPU its CPU build: pytorch.org/get-started/locally"}
_TRAPS = {
    "cv2": "pip uninstall opencv-python; pip install opencv-python-headless (it needs no system libraries)",
    "pytorch_wavelets": "pip install pytorch_wavelets PyWavelets 'setuptools<81'",
}
"""Packages that are known to be installed and not to work, and what helps."""


def run_checks(*, self_test: bool = True) -> Checks:
    """All checks, each as soon as it is done; none raises. The self-test takes about 5 seconds."""
    areas: list[tuple[str, Callable[[], Checks]]] = [
        ("python", machine.check_python),
        ("processor", machine.check_processor),
        ("torch", machine.check_torch),
        ("memory", machine.check_memory),
        ("device", machine.check_devices),
        ("package", _check_packages),
        ("format", _check_formats),
        ("exiftool", _check_exiftool),
        ("model", _check_models),
        ("folder", machine.check_folders),
    ]
    if self_test:
        areas.append(("self-test", _test_itself))
    has_torch = True
    for area, check in areas:
        if area in _NEED_TORCH and not has_torch:
            continue
        try:
            yield from check()
        except Exception as error:  # a broken installation can fail in any way; that is what is looked for
            has_torch = has_torch and area != "torch"
            yield Check(area, area, "broken", _in_words(error), _REPAIRS.get(area, ""))


def _in_words(error: Exception) -> str:
    if isinstance(error, LumenError | MemoryError):
        return printable(explain(error))
    return printable(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _check_packages() -> Checks:
    for name, advice in _TRAPS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pytorch_wavelets asks for pkg_resources
                module = importlib.import_module(name)
        except Exception as error:
            yield Check("package", name, "broken", _in_words(error), advice)
        else:
            version = str(getattr(module, "__version__", ""))
            yield Check("package", name, "ok", "works", facts={"version": version})
    yield from _check_optional()


def _check_optional() -> Checks:
    """The packages of what not everybody needs: missing ones are no fault."""
    from lumen_cli.files.places import KINDS

    optional = [("accelerate", "cluster", "training on several devices")]
    optional += [("onnxruntime", "onnx", "export to ONNX"), ("openvino", "openvino", "export to OpenVINO")]
    optional += [(kind.package, kind.extra, f"pictures in {kind.title}") for kind in dict.fromkeys(KINDS.values())]
    for package, extra, what in optional:
        if package == "fsspec":
            continue  # comes with each of the others
        here = importlib.util.find_spec(package) is not None
        found = "works" if here else f"not installed; for {what}: pip install 'lumen-cli[{extra}]'"
        yield Check("package", package, "ok", found, facts={"extra": extra, "installed": here})


def _check_formats() -> Checks:
    from lumen_cli.imaging.formats import ANIMATED_SUFFIXES, FORMATS, load_format

    for name, entry in FORMATS.items():
        format = load_format(name)
        facts: dict[str, Any] = {"format": name, "endings": list(entry.suffixes)}
        package = format.package
        if package is not None and importlib.util.find_spec(package.module) is None:
            advice = package.explanation(format.title).partition(": ")[2]
            facts |= {"read": False, "written": False, "package": package.name}
            yield Check("format", format.title, "limited", f"not read: it needs {package.name}", advice, facts)
            continue
        try:
            if package is not None:
                package.load(format.title)
            if format.encode is not None:
                _round_trip(format)
        except Exception as error:
            yield Check("format", format.title, "broken", _in_words(error), facts=facts | {"read": False})
            continue
        written = format.encode is not None
        still = "of still ones " if set(entry.suffixes) & set(ANIMATED_SUFFIXES) else ""
        found = "read and written" if written else f"read; outputs {still}are {format.output.title}"
        yield Check("format", format.title, "ok", found, facts=facts | {"read": True, "written": written})
    yield _check_clips()


def _check_clips() -> Check:
    from lumen_cli.imaging.formats import CLIP_SUFFIXES, require_pyav

    facts: dict[str, Any] = {"format": "video", "endings": sorted(CLIP_SUFFIXES)}
    try:
        require_pyav()
    except UsageError as error:
        found, _, advice = error.message.partition(": ")
        return Check("format", "video", "limited", f"not read: {found}", advice, facts | {"read": False})
    import av

    facts |= {"version": av.__version__, "read": True, "written": True}
    return Check("format", "video", "ok", "read and written", facts=facts)


def _round_trip(format: Any) -> None:
    """Write a small picture and read it again; raises where that fails."""
    import numpy as np

    from lumen_cli.imaging.formats.format import Raster

    values = np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    decoded = format.decode(io.BytesIO(format.encode(Raster(values, 8))), 0)
    difference = np.abs(decoded.values[..., :3].astype(float) - values).mean()
    if decoded.values.shape[:2] != (32, 32) or difference > 8:
        raise LumenError(f"a picture written as {format.title} comes back different")


def _check_exiftool() -> Checks:
    from lumen_cli.imaging.tags import INSTALL, UNSAFE, ExifToolPool, UnusableExifToolError, is_unsafe

    path = shutil.which("exiftool")
    if path is None:
        found = "not installed: tags of JPEG, PNG and WebP that keep their format are kept, of others only EXIF"
        yield Check("exiftool", "exiftool", "limited", found, INSTALL)
        return
    pool = ExifToolPool(seconds=20)
    try:
        version = pool.version()
    except UnusableExifToolError as error:
        yield Check("exiftool", "exiftool", "broken", str(error), INSTALL, {"path": path})
        return
    finally:
        pool.close()
    facts = {"path": path, "version": version}
    if is_unsafe(version):
        yield Check("exiftool", "exiftool", "limited", f"{version} {UNSAFE}", facts=facts)
    else:
        yield Check("exiftool", "exiftool", "ok", f"{version}, {printable(path)}", facts=facts)


def _check_models() -> Checks:
    import torch

    from lumen_cli.engine.refine import load_refining
    from lumen_cli.registry import bundled_models, scan_models
    from lumen_cli.registry.load import load_lol_grading

    cards, broken = scan_models()
    for folder, error in broken:
        yield Check("model", folder.name, "broken", error.message, facts={"folder": str(folder)})
    for card in cards:
        facts = {"folder": str(card.folder), "weights_sha256": card.weights_sha256}
        try:
            advice = _check_model(card)
        except (ModelError, OSError) as error:
            ours = card.folder.parent == bundled_models()
            yield Check("model", card.name, "broken", _in_words(error), "install lumen again" if ours else "", facts)
            continue
        found = "weights are not here yet" if advice else "checksums match"
        yield Check("model", card.name, "limited" if advice else "ok", found, advice, facts)
    shared: dict[str, Callable[[], object]] = {
        "lol-grading": load_lol_grading,
        "refiner": lambda: load_refining(torch.float32),
    }
    for name, load in shared.items():
        try:
            load()
        except ModelError as error:
            yield Check("model", name, "broken", error.message, "install lumen again")
        else:
            yield Check("model", name, "ok", "checksums match", facts={"folder": str(bundled_models() / name)})
    if not cards:
        yield Check("model", "models", "broken", f"there are none in {bundled_models()}", "install lumen again")


def _check_model(card: ModelCard) -> str:
    """The command that fetches missing weights, or ""; ModelError or OSError where a file or a member is wrong."""
    from lumen_cli.files.contents import checksum
    from lumen_cli.registry import pull_command
    from lumen_cli.registry.load import find_members

    if card.to_pull:
        return pull_command(card)
    if card.members:
        find_members(card)
    for file in card.files.values():
        path = card.path(file)
        if not path.is_file():
            raise ModelError(f"{path} is missing")
        found = checksum(path)
        if found != file.sha256:
            raise ModelError(f"{path} is damaged: expected SHA-256 {file.sha256}, found {found}")
    return ""


def _test_itself() -> Checks:
    """Enhance a made picture and check the result, and that another device agrees with the processor."""
    import numpy as np

    from lumen_cli.api import enhance, load_model
    from lumen_cli.engine.device import choose_device
    from lumen_cli.registry import find_model

    card, dark = find_model("auto"), make_picture()
    policy = choose_device(precisions=card.precisions)
    network = load_model(card.folder)
    bright = enhance(dark, card.folder, network=network)
    started = time.perf_counter()
    again = enhance(dark, card.folder, network=network)
    seconds = time.perf_counter() - started
    gain = float(bright.mean() / dark.mean())
    alike = float(np.corrcoef(dark.mean(axis=2).ravel(), bright.mean(axis=2).ravel())[0, 1])
    problems = []
    if gain < 1.5:
        problems.append(f"the result is {gain:.2f} times as bright as the picture, expected at least 1.5")
    if alike < 0.8:
        problems.append(f"the result does not show the picture (correlation {alike:.2f}, expected at least 0.8)")
    if not np.array_equal(bright, again):
        problems.append("the same picture and seed give different pixels")
    if policy.device != "cpu":
        own, other = (enhance(dark, card.folder, device=each, precision="fp32") for each in (policy.device, "cpu"))
        apart = float(np.abs(own.astype(float) - other).mean())
        if apart > 1.0:
            problems.append(f"{policy.device} and the processor differ by {apart:.1f} of 255 levels")
    size = f"{dark.shape[1]}×{dark.shape[0]}"
    facts = {"model": card.name, "device": policy.device, "precision": policy.precision, "seconds": round(seconds, 4)}
    facts |= {"gain": round(gain, 3), "correlation": round(alike, 3)}
    where = f"{size} pixels by {card.name} on {policy.device} in {policy.precision}: {duration(seconds)}"
    advice = "please report it, with the output of lumen doctor --json" if problems else ""
    found = "; ".join(problems) or f"{where}, {gain:.1f} times as bright"
    yield Check("self-test", "enhance", "broken" if problems else "ok", found, advice, facts)


def make_picture() -> np.ndarray:
    """A dark scene, 400×600×3 uint8: sky, a wall with windows, a lamp, and the noise of a camera."""
    import numpy as np

    rows, columns = np.mgrid[0:400, 0:600].astype(np.float32)
    scene = np.stack([8 + rows / 40, 10 + rows / 36, 16 + rows / 30], axis=2)
    scene[150:, 120:480] = (22, 16, 12)
    windows = (rows > 180) & (rows % 60 > 25) & (columns > 150) & (columns < 450) & (columns % 75 > 40)
    scene[windows] = (52, 44, 26)
    lamp = 120 * np.exp(-((rows - 120) ** 2 + (columns - 540) ** 2) / 900)
    noise = np.random.default_rng(0).normal(0, 1.5, scene.shape)
    return np.clip(scene + lamp[:, :, None] + noise, 0, 255).astype(np.uint8)
