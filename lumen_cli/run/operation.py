"""What a run does with its pictures: brighten them, or take them apart. All else about a run is the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lumen_cli.engine.batch import NetworkError, Notes, enhance_scenes, notes_of
from lumen_cli.engine.refine import refining_of
from lumen_cli.engine.scene import Scene, finish, scene_of
from lumen_cli.engine.tile_plan import TilePlan
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.rules import TagRules
from lumen_cli.run.budget import CARRIED_BYTES, WHOLE_BYTES
from lumen_cli.run.plan import Settings
from lumen_cli.run.save import Content

if TYPE_CHECKING:
    from lumen_cli.engine.colour_maps import Floats
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.engine.refine import Refining
    from lumen_cli.networks.base import LowLightModel


@dataclass(frozen=True)
class Fidelity:
    """How well R ∘ L rebuilds what was taken apart, on values in [0, 1].

    mae: mean absolute error; psnr: peak signal-to-noise ratio in dB, None where there is no error at all.
    """

    mae: float
    psnr: float | None


class Product(Protocol):
    """What the network made of one picture, on its way to the disk."""

    @property
    def picture(self) -> Picture:
        """A picture of the result's size."""

    @property
    def held(self) -> int:
        """Bytes it keeps in memory."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be said of how it was made, one line each."""

    def contents(self) -> Sequence[Content]:
        """What goes into the task's files, in the order of `Task.targets`."""

    def fidelity(self) -> Fidelity | None:
        """The error of the reconstruction, where one was asked for."""


class Work(Protocol):
    """A kind of run with its settings."""

    @property
    def doing(self) -> str:
        """What goes on meanwhile: "enhancing"."""

    @property
    def done(self) -> str:
        """What the pictures are then: "enhanced"."""

    @property
    def about(self) -> tuple[str, ...]:
        """The settings worth a word beside the model's name."""

    @property
    def quality(self) -> int | None:
        """Of lossy outputs, 1 to 100."""

    @property
    def tags(self) -> TagRules:
        """Which tags outputs get."""

    def fingerprint(self) -> str:
        """Everything but the source that decides about the outputs' bytes, in 32 hexadecimal digits."""

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that a decoded picture takes until it is written."""

    def scene(self, picture: Picture) -> Scene:
        """The picture with what the network sees of it."""

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> Sequence[Product | NetworkError]:
        """Put scenes of one `shape_of` through the network; digests: the `digest()` of their pictures."""


@dataclass(frozen=True, eq=False)
class Enhanced:
    """A scene and what the network made of it, h×w×3 float32; `contents` brings that to the picture's size."""

    scene: Scene
    result: Floats
    strength: float = 1.0
    keep_ratio: bool = False
    refining: Refining | None = None
    notes: tuple[str, ...] = ()

    @property
    def picture(self) -> Picture:
        """The original."""
        return self.scene.picture

    @property
    def held(self) -> int:
        """Bytes of the picture and of its result at full size."""
        return self.picture.nbytes + self.picture.samples.nbytes

    def contents(self) -> Sequence[Content]:
        """The brightened picture."""
        values = finish(
            self.scene,
            self.result,
            strength=self.strength,
            keep_ratio=self.keep_ratio,
            refining=self.refining,
        )
        return (dataclasses.replace(self.picture, values=values),)

    def fidelity(self) -> None:
        """Nothing was taken apart."""


@dataclass(frozen=True)
class Enhancement:
    """Brighten every picture: one file each."""

    settings: Settings
    tiles: TilePlan = field(default_factory=TilePlan, compare=False, repr=False)
    doing = "enhancing"
    done = "enhanced"

    @property
    def about(self) -> tuple[str, ...]:
        """Steps, seed and, where it was chosen, light."""
        settings = self.settings
        steps = (f"{settings.steps} steps",) if settings.steps else ()
        return *steps, f"seed {settings.seed}", *settings.light

    @property
    def quality(self) -> int | None:
        """As in the settings."""
        return self.settings.quality

    @property
    def tags(self) -> TagRules:
        """As in the settings."""
        return self.settings.tags

    def fingerprint(self) -> str:
        """The settings'."""
        return self.settings.fingerprint()

    @property
    def bytes_per_pixel(self) -> int:
        """See `budget`."""
        return WHOLE_BYTES if self.settings.detail == "whole" else CARRIED_BYTES

    def scene(self, picture: Picture) -> Scene:
        """See `scene_of`."""
        return scene_of(picture, self.settings.detail)

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> list[Enhanced | NetworkError]:
        """See `enhance_scenes`."""
        settings, notes = self.settings, Notes()
        outcomes = enhance_scenes(
            network,
            scenes,
            policy,
            digests=digests,
            seed=settings.seed,
            steps=settings.steps,
            brightness=settings.brightness,
            illumination_ratio=settings.illumination_ratio,
            plan=self.tiles,
            notes=notes,
        )
        return [
            outcome
            if isinstance(outcome, NetworkError)
            else Enhanced(
                scene,
                outcome,
                settings.strength,
                settings.brightness is not None,
                refining_of(scene, settings.detail, policy),
                notes_of(notes, index),
            )
            for index, (scene, outcome) in enumerate(zip(scenes, outcomes, strict=True))
        ]
