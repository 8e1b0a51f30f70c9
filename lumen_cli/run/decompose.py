"""Taking pictures apart: reflectance and illumination of a batch, and the files they become."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lumen_cli.engine.batch import NetworkError, Notes, as_batch, cropped, in_parts, notes_of
from lumen_cli.engine.scene import Scene, scene_of
from lumen_cli.imaging.colour.convert import to_integers, to_unit
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.rules import KEEP_ALL, TagRules
from lumen_cli.run.budget import WHOLE_BYTES
from lumen_cli.run.operation import Fidelity
from lumen_cli.run.plan import digest_of, without_defaults
from lumen_cli.run.save import Content

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel, Retinex

LARGEST_PANEL = 1024
"""Pixels of a panel's longer side; larger pictures are reduced to that."""
_NARROWEST_PANEL = 288
_GAP = 12
_BACKGROUND, _INK = (24, 24, 24), (232, 232, 232)


def sheet(picture: Picture, maps: Maps) -> Picture:
    """Input, R, L and R ∘ L with captions: four in a row where the picture is upright, else two by two.

    Eight bits, in the picture's own profile. `maps` holds its reconstruction.
    """
    from PIL import Image, ImageDraw, ImageFont

    panels = [(caption, _panel(values)) for caption, values in _captioned(picture, maps)]
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


def _captioned(picture: Picture, maps: Maps) -> Iterator[tuple[str, np.ndarray]]:
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


@dataclass(frozen=True, eq=False)
class Maps:
    """One picture taken apart; all float32 in [0, 1], of the picture's size H×W.

    reflectance: H×W×3; illumination: H×W; latents: the maps of a model that decomposes a latent, each C×h×w with
    h, w smaller than H, W, of which the two pictures are renderings (see the model's `decompose`); reconstruction:
    R ∘ L, H×W×3, and prepared, the picture as the model took it apart, which it rebuilds; both only when asked for.
    """

    reflectance: np.ndarray
    illumination: np.ndarray
    latents: Mapping[str, np.ndarray] | None = None
    reconstruction: np.ndarray | None = None
    prepared: np.ndarray | None = None

    def fidelity(self) -> Fidelity | None:
        """The error of `reconstruction` against `prepared`; None where they were not asked for."""
        if self.reconstruction is None or self.prepared is None:
            return None
        difference = self.reconstruction - self.prepared
        square = float(np.square(difference, dtype=np.float64).mean())
        mae = float(np.abs(difference, out=difference).mean(dtype=np.float64))
        return Fidelity(mae, -10.0 * math.log10(square) if square > 0.0 else None)


def decompose_batch(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    reconstruct: bool = False,
    notes: Notes | None = None,
) -> list[Maps | NetworkError]:
    """Take pictures of one `shape_of` apart.

    Args:
        network: on the policy's device; one that decomposes.
        pictures: H×W×3 float32 in [0, 1] each; sizes may differ within the padded shape.
        policy: from `choose_device`.
        reconstruct: whether R ∘ L is wanted too.
        notes: takes what has to be said, by the picture's number.

    Returns:
        For each picture its maps, or the error of a picture whose maps have NaN or infinity.
    """

    def run(part: slice, precision: str) -> list[Maps | NetworkError]:
        group = pictures[part]
        with policy.running(precision):
            low = as_batch(group, network, policy)
            retinex = network.decompose(low)
            planes = {"reflectance": retinex.reflectance, "illumination": retinex.illumination}
            if reconstruct:
                planes |= {"reconstruction": retinex.reconstruction, "prepared": network.prepare(low)}
            return [_maps(planes, retinex, index, picture, low) for index, picture in enumerate(group)]

    return in_parts(run, pictures, policy, network=network, notes=notes)


def _maps(
    planes: Mapping[str, Tensor], retinex: Retinex, index: int, picture: Picture, low: Tensor
) -> Maps | NetworkError:
    arrays: dict[str, np.ndarray] = {}
    for name, plane in planes.items():
        array = cropped(plane[index].float(), picture)
        if isinstance(array, NetworkError):
            return array
        arrays[name] = array
    arrays["illumination"] = arrays["illumination"][:, :, 0]
    latents = None
    if retinex.latents is not None:
        height, width = low.shape[-2:]
        latents = {}
        for name, latent in retinex.latents.items():
            # The part that shows the picture; the rest is padding.
            rows = -(-picture.height * latent.shape[-2] // height)
            columns = -(-picture.width * latent.shape[-1] // width)
            latents[name] = latent[index, :, :rows, :columns].float().contiguous().cpu().numpy()
    return Maps(**arrays, latents=latents)


@dataclass(frozen=True)
class MapSettings:
    """Everything but the source that decides about the bytes of a picture's maps.

    network, weights, precision, deep_precision, tags: as in `Settings`; format: "png", "npy" or "npz"; depth: bits of
    PNG, 8 or 16.
    """

    architecture: str
    network: Mapping[str, Any]
    weights: str
    precision: str = "fp32"
    deep_precision: str = "fp32"
    format: str = "png"
    depth: int = 8
    tags: TagRules = KEEP_ALL


@dataclass(frozen=True)
class Decomposition:
    """Take every picture apart. side_by_side: with a sheet to look at; reconstruct: with R ∘ L and its error."""

    settings: MapSettings
    side_by_side: bool = False
    reconstruct: bool = False
    doing = "decomposing"
    done = "decomposed"
    about = ()
    quality = None
    bytes_per_pixel = WHOLE_BYTES

    @property
    def endings(self) -> dict[str, str]:
        """What stands behind a picture's name in the names of its files, by what they hold."""
        if self.settings.format == "npz":
            endings = {"maps": "-retinex.npz"}
        else:
            endings = {name: f"-{name}.{self.settings.format}" for name in ("reflectance", "illumination")}
        if self.reconstruct:
            endings["reconstruction"] = "-reconstructed.png"
        if self.side_by_side:
            endings["sheet"] = "-sheet.png"
        return endings

    def fingerprint(self) -> str:
        """The settings'. Sheet and reconstruction are further files and change no other."""
        return digest_of({"work": "decompose", **without_defaults(asdict(self.settings), self.settings.tags)})

    @property
    def tags(self) -> TagRules:
        """As in the settings."""
        return self.settings.tags

    def scene(self, picture: Picture) -> Scene:
        """The whole picture."""
        return scene_of(picture, "whole")

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> list[Decomposed | NetworkError]:
        """See `decompose_batch`; nothing here is random, so `digests` are not needed."""
        notes: Notes = {}
        pictures = [scene.picture for scene in scenes]
        wanted = self.reconstruct or self.side_by_side
        outcomes = decompose_batch(network, pictures, policy, reconstruct=wanted, notes=notes)
        return [
            outcome if isinstance(outcome, NetworkError) else Decomposed(picture, outcome, self, notes_of(notes, index))
            for index, (picture, outcome) in enumerate(zip(pictures, outcomes, strict=True))
        ]


@dataclass(frozen=True, eq=False)
class Decomposed:
    """A picture, its maps and the files they are to become."""

    picture: Picture
    maps: Maps
    work: Decomposition
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
        """One content for each of the work's `endings`."""
        return [self._content(name) for name in self.work.endings]

    def fidelity(self) -> Fidelity | None:
        """The error of R ∘ L, with `reconstruct`."""
        return self.maps.fidelity() if self.work.reconstruct else None

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
        if self.work.settings.format == "npy":
            return array
        return self._like_the_picture(array) if name == "reflectance" else self._as_grey(array)

    def _like_the_picture(self, pixels: np.ndarray) -> Picture:
        """With the picture's alpha and profile, and grey where it is."""
        return dataclasses.replace(self.picture, values=pixels, bit_depth=self.work.settings.depth, native=None)

    def _as_grey(self, illumination: np.ndarray) -> Picture:
        """A measure rather than a colour: one channel, and no profile to bend it."""
        pixels = np.broadcast_to(illumination[:, :, None], (*illumination.shape, 3))
        grey = dataclasses.replace(self._like_the_picture(pixels), grey=True, alpha=None, icc=None)
        return grey
