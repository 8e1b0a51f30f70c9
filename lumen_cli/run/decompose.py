"""Taking pictures apart: the operation, the names of the files that a picture becomes, and the sheet to look at."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lumen_cli.errors import UsageError
from lumen_cli.files import Job, Source
from lumen_cli.files.collisions import fold_case, protect_inputs
from lumen_cli.files.find import PICTURE_SUFFIXES
from lumen_cli.files.outputs import NameTemplate, folder_beside, plan_outputs
from lumen_cli.imaging.colour.convert import to_integers, to_unit
from lumen_cli.imaging.picture import Picture
from lumen_cli.run import Part
from lumen_cli.run.operation import WHOLE_BYTES, ModelSettings
from lumen_cli.run.save import Content

if TYPE_CHECKING:
    from PIL import Image

    from lumen_cli.engine.batch import Fidelity, Maps
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.engine.parts import NetworkError
    from lumen_cli.engine.scene import Scene
    from lumen_cli.networks.base import LowLightModel

ADDITION = "-decomposed"
_STAND_IN = ".lumen-maps"
"""An ending no picture has, while names are sought that do not collide."""
LARGEST_PANEL = 1024
"""Pixels of a panel's longer side; larger pictures are reduced to that."""
_NARROWEST_PANEL = 288
_GAP = 12
_BACKGROUND, _INK = (24, 24, 24), (232, 232, 232)


@dataclass(frozen=True)
class MapSettings(ModelSettings):
    """The settings of a picture's maps. format: "png", "npy" or "npz"; depth: bits of PNG, 8 or 16."""

    format: str = "png"
    depth: int = 8

    def fields(self) -> dict[str, Any]:
        """As in `ModelSettings`."""
        return {"work": "decompose", **super().fields()}

    def words(self) -> tuple[str, ...]:
        """As in `ModelSettings`."""
        return ("decomposed",)


@dataclass(frozen=True)
class Decompose:
    """Take every picture apart. side_by_side: with a sheet to look at; reconstruct: with R ∘ L and its error.

    Both are further files and do not change the others, so the settings do not hold them.
    """

    settings: MapSettings
    side_by_side: bool = False
    reconstruct: bool = False
    doing = "decomposing"
    done = "decomposed"
    about = ()
    bytes_per_pixel = WHOLE_BYTES

    @property
    def endings(self) -> dict[str, str]:
        """What follows the picture's name in the name of each file, by what the file holds."""
        if self.settings.format == "npz":
            endings = {"maps": "-retinex.npz"}
        else:
            endings = {name: f"-{name}.{self.settings.format}" for name in ("reflectance", "illumination")}
        if self.reconstruct:
            endings["reconstruction"] = "-reconstructed.png"
        if self.side_by_side:
            endings["sheet"] = "-sheet.png"
        return endings

    def name(
        self, sources: Sequence[Source], output: str | None, template: NameTemplate | None
    ) -> tuple[list[Job], list[tuple[Part, ...]]]:
        """See `plan_parts`."""
        return plan_parts(sources, output, self.endings, template=template)

    def check_clips(self) -> None:
        """Maps are of pictures only."""
        raise UsageError("a clip; only pictures are taken apart")

    def scene(self, picture: Picture) -> Scene:
        """The whole picture."""
        from lumen_cli.engine.scene import scene_of

        return scene_of(picture, "whole")

    def prepare(self, scene: Scene, network: LowLightModel, policy: DevicePolicy, digest: bytes) -> Scene:
        """The scene itself: maps take longer than preparing it would save."""
        return scene

    def launch(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> Callable[[], list[Decomposed | NetworkError]]:
        """As `run`, which waits."""
        made = self.run(network, scenes, policy, digests)
        return lambda: made

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> list[Decomposed | NetworkError]:
        """See `decompose_batch`. Nothing here is random, so `digests` are not used."""
        from lumen_cli.engine.batch import decompose_batch
        from lumen_cli.engine.parts import NetworkError

        pictures = [scene.picture for scene in scenes]
        wanted = self.reconstruct or self.side_by_side
        results = decompose_batch(network, pictures, policy, reconstruct=wanted)
        return [
            result.value
            if isinstance(result.value, NetworkError)
            else Decomposed(picture, result.value, self, result.notes)
            for picture, result in zip(pictures, results, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Decomposed:
    """A picture, its maps and the operation that names their files."""

    picture: Picture
    maps: Maps
    operation: Decompose
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> int:
        """Bytes of the picture and its maps."""
        maps, picture = self.maps, self.picture
        arrays = [
            picture.samples,
            picture.alpha,
            maps.reflectance,
            maps.illumination,
            maps.reconstruction,
            maps.prepared,
        ]
        return sum(array.nbytes for array in (*arrays, *(maps.latents or {}).values()) if array is not None)

    def contents(self) -> Sequence[Content]:
        """One content for each of the operation's `endings`."""
        return [self._content(name) for name in self.operation.endings]

    def fidelity(self) -> Fidelity | None:
        """The error of R ∘ L, with `reconstruct`."""
        return self.maps.fidelity() if self.operation.reconstruct else None

    def _content(self, name: str) -> Content:
        maps = self.maps
        if name == "maps":
            return maps.latents or {"reflectance": maps.reflectance, "illumination": maps.illumination}
        if name == "sheet":
            return sheet(self.picture, maps)
        if name == "reconstruction":
            assert maps.reconstruction is not None
            return self._like_the_picture(maps.reconstruction)
        array = maps.reflectance if name == "reflectance" else maps.illumination
        if self.operation.settings.format == "npy":
            return array
        return self._like_the_picture(array) if name == "reflectance" else self._as_grey(array)

    def _like_the_picture(self, pixels: np.ndarray) -> Picture:
        """With the picture's alpha and profile, and grey where the picture is."""
        return dataclasses.replace(self.picture, values=pixels, bit_depth=self.operation.settings.depth, native=None)

    def _as_grey(self, illumination: np.ndarray) -> Picture:
        """A measure, not a colour: one channel without a profile."""
        pixels = np.broadcast_to(illumination[:, :, None], (*illumination.shape, 3))
        grey = dataclasses.replace(self._like_the_picture(pixels), grey=True, alpha=None, icc=None)
        return grey


def plan_parts(
    sources: Sequence[Source],
    output: str | None,
    endings: Mapping[str, str],
    template: NameTemplate | None = None,
) -> tuple[list[Job], list[tuple[Part, ...]]]:
    """Name the files of every picture: `a.jpg` → `a-reflectance.png`, `a-illumination.png`. Nothing is written.

    Args:
        sources: what `find_pictures` found.
        output: a folder. None: `photos` becomes `photos-decomposed` beside it, the files of `a.jpg` lie beside it.
        endings: what follows the picture's name in each file's name, by what the file holds.
        template: pattern of the files' names; None: the picture's name and the ending. It has to use {part} where there
            are several.

    Returns:
        One job a source, in the order of `sources`, whose target is the first of its parts, and the parts of each.

    Raises:
        UsageError: as in `plan_outputs`, or `output` names a file.
    """
    if template is not None and len(endings) > 1 and not template.uses("part"):
        raise UsageError(
            f"{template.text}: one picture becomes several files; add {{part}} to their names", remedy="name_template"
        )
    bases = _bases(sources, output)
    planned = []
    for source, base in zip(sources, bases, strict=True):
        parts = (Part(name, base.with_name(_name(source, base, ending, template))) for name, ending in endings.items())
        planned.append(tuple(parts))
    jobs = [Job(source, parts[0].path) for source, parts in zip(sources, planned, strict=True)]
    every = [Job(job.source, part.path) for job, parts in zip(jobs, planned, strict=True) for part in parts]
    _refuse_collisions(every)
    protect_inputs(every)
    return jobs, planned


def _name(source: Source, base: Path, ending: str, template: NameTemplate | None) -> str:
    if template is None:
        return f"{base.stem}{ending}"
    part, dot, suffix = ending.removeprefix("-").partition(".")
    return template.name(stem=base.stem, suffix=dot + suffix, parent=source.path.parent.name, part=part)


def _bases(sources: Sequence[Source], output: str | None) -> list[Path]:
    """For each source the path, without its ending, that the names of its parts begin with."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        groups[_folder(source) if output is None else _as_folder(output)].append(source)
    bases = {}
    for folder, group in groups.items():
        bases.update({job.source.path: job.target for job in plan_outputs(group, folder, _STAND_IN)})
    return [bases[source.path] for source in sources]


def _folder(source: Source) -> str:
    if source.root is None:
        return f"{source.path.parent}{os.sep}"
    return f"{folder_beside(source.root, ADDITION)}{os.sep}"


def _as_folder(output: str) -> str:
    if output == "":
        raise UsageError("the output's name is empty")
    if output.endswith(tuple(filter(None, (os.sep, os.altsep)))) or Path(output).is_dir():
        return output
    if Path(output).suffix.lower() in PICTURE_SUFFIXES | {".npy", ".npz"}:
        raise UsageError(f"{output}: a picture becomes several files; name a folder (for one of this name, {output}/)")
    return f"{output}{os.sep}"


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    """Two input folders may still have one output folder, and a template may give one name twice."""
    owners: dict[str, Job] = {}
    for job in jobs:
        other = owners.setdefault(fold_case(job.target), job)
        if other is not job:
            raise UsageError(
                f"{other.source.path} and {job.source.path} would both be written to {job.target}; run them "
                "separately, or give them different names",
                remedy="name_template",
            )


def sheet(picture: Picture, maps: Maps) -> Picture:
    """Input, R, L and R ∘ L with captions: in one row for upright pictures, else two by two.

    Eight bits, in the picture's own profile. `maps` holds its reconstruction.
    """
    from PIL import Image, ImageDraw, ImageFont

    panels = [(caption, _panel(values)) for caption, values in _caption(picture, maps)]
    width = max(_NARROWEST_PANEL, panels[0][1].width)
    height = panels[0][1].height
    size = max(14, width // 32)
    font, caption_height = ImageFont.load_default(size), 2 * size
    columns = 4 if picture.height > picture.width else 2
    rows = len(panels) // columns
    whole = (columns * (width + _GAP) + _GAP, rows * (caption_height + height + _GAP) + _GAP)
    canvas = Image.new("RGB", whole, _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, (caption, panel) in enumerate(panels):
        left = _GAP + number % columns * (width + _GAP)
        top = _GAP + number // columns * (caption_height + height + _GAP)
        draw.text((left, top + size // 4), caption, _INK, font)
        canvas.paste(panel, (left + (width - panel.width) // 2, top + caption_height))
    colour_profile = picture.icc if picture.icc and picture.icc[16:20] == b"RGB " else None
    return dataclasses.replace(
        picture,
        values=to_unit(np.asarray(canvas)),
        alpha=None,
        bit_depth=8,
        grey=False,
        format="png",
        icc=colour_profile,
        native=None,
    )


def _caption(picture: Picture, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
    assert maps.reconstruction is not None
    assert maps.prepared is not None
    decoded, enlarged = (", decoded", ", a latent enlarged") if maps.latents else ("", "")
    stretched = "" if np.array_equal(maps.prepared, picture.pixels) else " (of the stretched input)"
    yield "input", picture.pixels
    yield f"R: reflectance{decoded}", maps.reflectance
    yield f"L: illumination{enlarged}", np.broadcast_to(maps.illumination[:, :, None], maps.reflectance.shape)
    yield f"R * L{decoded}{stretched}", maps.reconstruction


def _panel(values: np.ndarray) -> Image.Image:
    from PIL import Image

    panel = Image.fromarray(to_integers(values, 8))
    scale = min(1.0, LARGEST_PANEL / max(panel.size))
    if scale == 1.0:
        return panel
    reduced = max(1, round(panel.width * scale)), max(1, round(panel.height * scale))
    return panel.resize(reduced, Image.Resampling.LANCZOS, reducing_gap=3.0)
