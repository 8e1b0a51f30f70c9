"""Makes the pictures of README and site from sample_images/, with lumen itself and a headless Chromium.

    python docs/make_pictures.py            # all; strip, models, refiner, slider or overview: only these

Outputs: docs/strip.jpg, docs/slider.webp, docs/overview.jpg, docs/models/pictures/*.jpg.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

DOCS = Path(__file__).resolve().parent
SAMPLES = DOCS.parent / "sample_images"
STRIP = ("astronaut.jpg", "coffee-16bit.png", "palace.jpg", "cat-turned.jpg")
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
MODELS: dict[str, tuple[tuple[str, Box], tuple[str, Box]]] = {
    "lumen": (("coffee-16bit.png", WHOLE), ("launch.webp", WHOLE)),
    "lightendiffusion": (("astronaut.jpg", WHOLE), ("launch.webp", (0.3, 0.2, 1.0, 1.0))),
    "diffll": (("launch.webp", WHOLE), ("camera-grey.png", (0.0, 0.3, 0.45, 0.75))),
    "anlightendiff": (("cat-turned.jpg", WHOLE), ("launch.webp", WHOLE)),
    "lldiffusion": (("palace.jpg", WHOLE), ("flower-alpha.png", (0.22, 0.15, 0.75, 0.9))),
    "kind": (("palace.jpg", WHOLE), ("launch.webp", (0.0, 0.0, 0.6, 1.0))),
}
"""For each model a sample that it does well and one that it does not, each with the part that is shown."""


def lumen(*arguments: str | Path) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "lumen_cli", *map(str, arguments), "--quiet"], check=True)


def load(path: Path) -> Image.Image:
    """Upright, 8 bits, RGB; transparency on dark grey."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode == "RGBA":
        ground = Image.new("RGB", picture.size, (40, 40, 40))
        ground.paste(picture, mask=picture.getchannel("A"))
        picture = ground
    return picture.convert("RGB")


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """A part, in shares of width and height."""
    width, height = picture.size
    return picture.crop((round(box[0] * width), round(box[1] * height), round(box[2] * width), round(box[3] * height)))


def side_by_side(pictures: list[Image.Image], width: int, path: Path, gap: int = 6) -> None:
    """Pictures of equal shape in a row, each `width` pixels wide."""
    height = round(pictures[0].height * width / pictures[0].width)
    row = Image.new("RGB", (len(pictures) * (width + gap) - gap, height), "white")
    for index, picture in enumerate(pictures):
        row.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (index * (width + gap), 0))
    row.save(path, quality=86, optimize=True, progressive=True)


def make_strip(work: Path) -> None:
    """Four samples, above as they are, below as lumen brightens them."""
    lumen("enhance", *(SAMPLES / name for name in STRIP), "-o", work / "strip")
    width, height, gap = 316, 220, 4
    strip = Image.new("RGB", (len(STRIP) * (width + gap) - gap, 2 * height + gap), "white")
    for column, name in enumerate(STRIP):
        for row, root in enumerate((SAMPLES, work / "strip")):
            picture = ImageOps.fit(load(root / name), (width, height), centering=(0.5, 0.2))
            strip.paste(picture, (column * (width + gap), row * (height + gap)))
    strip.save(DOCS / "strip.jpg", quality=86, optimize=True, progressive=True)


def make_models(work: Path) -> None:
    """A good and a failing sample of each model."""
    folder = DOCS / "models" / "pictures"
    for model, samples in MODELS.items():
        for kind, (name, box) in zip(("good", "failing"), samples, strict=True):
            lumen("enhance", SAMPLES / name, "-o", work / model, "--model", model)
            pictures = [crop(load(root / name), box) for root in (SAMPLES, work / model)]
            side_by_side(pictures, 480, folder / f"{model}-{kind}.jpg")


def make_refiner(work: Path) -> None:
    """A part of make_large.py's picture, enlarged to 200 %."""
    large = work / "table-12mp.jpg"
    subprocess.run([sys.executable, SAMPLES / "make_large.py", large], check=True)
    versions = [large]
    for detail in ("fast", "auto"):
        lumen("enhance", large, "-o", work / f"{detail}.jpg", "--detail", detail)
        versions.append(work / f"{detail}.jpg")
    left, top = 1930, 1270
    pictures = [load(path).crop((left, top, left + 200, top + 200)) for path in versions]
    side_by_side(pictures, 400, DOCS / "models" / "pictures" / "refiner.jpg")


def make_slider(work: Path) -> None:
    """The compare page's slider, drawn from right to left and back."""
    from playwright.sync_api import sync_playwright

    photos = work / "photos"
    photos.mkdir(exist_ok=True)
    for name in ("palace.jpg", "astronaut.jpg", "launch.webp"):
        shutil.copy(SAMPLES / name, photos / name)
    lumen("enhance", photos)
    lumen("compare", photos, work / "photos-enhanced", "-o", work / "compare.html")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    frames = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 840})
        page.goto((work / "compare.html").as_uri())
        page.locator("#next").click()
        page.locator("#next").click()
        page.wait_for_timeout(500)
        box = page.locator("#frame").bounding_box()
        assert box
        viewer = page.locator("#viewer").bounding_box()
        assert viewer
        clip = {"x": 0, "y": viewer["y"] - 8, "width": 900, "height": box["y"] + box["height"] + 16 - viewer["y"]}
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.down()
        for step in range(48):
            share = 0.5 + 0.44 * np.sin(2 * np.pi * step / 48)
            page.mouse.move(box["x"] + float(share) * box["width"], middle)
            frames.append(Image.open(BytesIO(page.screenshot(clip=clip))).convert("RGB"))
        browser.close()
    small = [frame.resize((720, round(frame.height * 720 / frame.width)), Image.Resampling.LANCZOS) for frame in frames]
    small[0].save(
        DOCS / "slider.webp", save_all=True, append_images=small[1:], duration=70, loop=0, quality=80, method=5
    )


def make_overview(work: Path) -> None:
    """All pictures of a page, sorted by the change of their brightness, with marks."""
    from playwright.sync_api import sync_playwright

    photos = work / "shoot"
    photos.mkdir(exist_ok=True)
    for path in SAMPLES.iterdir():
        if path.suffix in (".jpg", ".png", ".webp"):
            shutil.copy(path, photos / path.name)
    lumen("enhance", photos, "--page")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 640}, device_scale_factor=1)
        page.goto((work / "shoot-enhanced.html").as_uri())
        page.keyboard.press("o")
        page.select_option("#sort", "change")
        page.locator("#tiles button").first.focus()
        for key in ("Shift+K", "Shift+K", "Shift+X", "Shift+K"):
            page.keyboard.press(key)
        page.wait_for_timeout(500)
        shot = Image.open(BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    shot.save(DOCS / "overview.jpg", quality=85)


MAKERS = {
    "strip": make_strip,
    "models": make_models,
    "refiner": make_refiner,
    "slider": make_slider,
    "overview": make_overview,
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for wanted in sys.argv[1:] or MAKERS:
            MAKERS[wanted](Path(folder))
