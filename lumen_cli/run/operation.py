"""What a run does with its pictures: brighten them, or take them apart. Everything else about a run is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from lumen_cli import __version__
from lumen_cli.engine import METHOD, Detail, Runtime
from lumen_cli.engine.memory import TilePlan
from lumen_cli.errors import UsageError
from lumen_cli.files.outputs import NameTemplate, plan_outputs
from lumen_cli.imaging.formats import require_pyav
from lumen_cli.imaging.picture import Picture
from lumen_cli.imaging.tags.rules import KEEP_ALL, Keeping, TagRules
from lumen_cli.registry import LOL_GRADING_SHA256, GradingName
from lumen_cli.run.save import Content

if TYPE_CHECKING:
    import numpy as np

    from lumen_cli.engine.batch import Bright, Fidelity
    from lumen_cli.engine.carrier import Carrier
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.engine.parts import NetworkError
    from lumen_cli.engine.refine import Refining
    from lumen_cli.engine.scene import Scene
    from lumen_cli.files import Job, Source
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.registry.card import ModelCard
    from lumen_cli.run import Part

WHOLE_BYTES = 7 * 4
"""Of a pixel, where the whole picture goes through the network: channels in float32, and alpha in the worst case."""
CARRIED_BYTES = 12
"""Of a pixel, where the network sees the picture reduced: 8 or 16 bits a channel, twice."""
LARGEST_PREPARED = 1 << 20
"""Most pixels of what a network sees that is prepared ahead of its turn."""
_DIGITS = 12
"""Of the weights' SHA-256, in a stamp."""


class Output(Protocol):
    """What the network made of one picture, on its way to the disk."""

    @property
    def picture(self) -> Picture:
        """A picture of the result's size."""

    @property
    def held(self) -> int:
        """Bytes it keeps in memory."""

    @property
    def notes(self) -> Sequence[str]:
        """How it was computed, where that is worth a line; complete after `contents`."""

    def contents(self) -> Sequence[Content]:
        """What goes into the task's files, in the order of `Task.targets`."""

    def fidelity(self) -> Fidelity | None:
        """The error of the reconstruction, where one was asked for."""


class Operation(Protocol):
    """A kind of run with its settings."""

    @property
    def doing(self) -> str:
        """The verb for progress: "enhancing"."""

    @property
    def done(self) -> str:
        """The verb for reports: "enhanced"."""

    @property
    def about(self) -> tuple[str, ...]:
        """The settings that reports show beside the model's name."""

    @property
    def settings(self) -> ModelSettings:
        """What decides about the outputs' bytes."""

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that a decoded picture takes until it is written."""

    def name(
        self, sources: Sequence[Source], output: str | None, template: NameTemplate | None
    ) -> tuple[list[Job], list[tuple[Part, ...]] | None]:
        """A job for each source, and the parts of each where pictures become several files; see `plan_outputs`."""

    def check_clips(self) -> None:
        """UsageError where it takes no clips."""

    def scene(self, picture: Picture) -> Scene:
        """The picture with what the network sees of it."""

    def prepare(self, scene: Scene, network: LowLightModel, policy: DevicePolicy, digest: bytes) -> Scene:
        """The scene with what `run` would compute of it alone; called in another thread, where there is time."""

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> Sequence[Output | NetworkError]:
        """Put scenes of one `shape_of` through the network; digests: the `digest()` of their pictures."""

    def launch(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> Callable[[], Sequence[Output | NetworkError]]:
        """Begin what `run` does; the function waits for its end."""


Settled = TypeVar("Settled", bound="ModelSettings")


@dataclass(frozen=True)
class ModelSettings:
    """Everything but the source that decides about the bytes of an output; the settings of all operations.

    weights: SHA-256; network: its hyper-parameters; precision, deep_precision: what 8-bit and 16-bit pictures are
    computed in; tags: which of the original's tags are kept, and lumen's stamp.
    """

    architecture: str
    network: Mapping[str, Any]
    weights: str
    precision: str = "fp32"
    deep_precision: str = "fp32"
    tags: TagRules = KEEP_ALL
    quality: ClassVar[int | None] = None
    grading: ClassVar[GradingName] = "photo"
    runtime: ClassVar[Runtime] = "torch"
    steps: ClassVar[int | None] = None

    @classmethod
    def with_model(
        cls: type[Settled],
        card: ModelCard,
        policy: DevicePolicy,
        *,
        metadata: Keeping = "keep",
        credits: bool = False,
        stamped: bool = False,
        **chosen: Any,
    ) -> Settled:
        """The settings for a model on a device. metadata, credits: see `tag_rules`; chosen: the other fields."""
        model = card.architecture, card.network, card.weights_sha256
        settings = cls(*model, policy.precision, policy.deep_precision, **chosen)
        return replace(settings, tags=tag_rules(metadata, settings.stamp(card.name) if stamped else None, credits))

    def load(self, card: ModelCard) -> LowLightModel:
        """The card's network as these settings run it, on the CPU; ModelError where that is not possible."""
        from lumen_cli.registry.load import load  # PyTorch; plans do without it

        network = load(card, self.grading)
        if self.runtime == "openvino":
            from lumen_cli.engine.acceleration import accelerate

            network = accelerate(network, self.steps, card.name)
        return network

    def fingerprint(self) -> str:
        """The settings in 32 hexadecimal digits."""
        text = json.dumps(self.fields(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def fields(self) -> dict[str, Any]:
        """What the fingerprint depends on. Outputs made before a setting existed stay current: defaults are left out.

        The list of what private tags keep has changed since, so such outputs count as made under other settings.
        """
        fields = asdict(self)
        if self.tags == KEEP_ALL:
            del fields["tags"]
        elif self.tags.metadata != "private":
            fields["tags"].pop("credits")
        return fields

    def stamp(self, model: str) -> str:
        """The text in ProcessingSoftware: "lumen 0.1.0, model kind (weights 0123456789ab), seed 0, …, fp32"."""
        weights = f" (weights {self.weights[:_DIGITS]})" if self.weights else ""
        deep = "" if self.deep_precision == self.precision else f" (16-bit pictures {self.deep_precision})"
        return ", ".join((f"lumen {__version__}, model {model}{weights}", *self.words(), self.precision + deep))

    def words(self) -> tuple[str, ...]:
        """What the stamp says about the operation."""
        raise NotImplementedError


@dataclass(frozen=True)
class Settings(ModelSettings):
    """The settings of a brightened picture.

    steps: None for a network that does not sample; strength: 0 to 1; format: a suffix, None keeps each picture's;
    quality: 1 to 100, None for each format's default; brightness: light of the result as a multiple of the picture's
    own, None where the model chooses; illumination_ratio: KinD's α, None where none is given; detail: how large
    pictures reach their size, see `scene`; grading: see `registry.load.load`; runtime: what runs the network.
    """

    steps: int | None = None  # type: ignore[misc]
    seed: int = 0
    strength: float = 1.0
    format: str | None = None
    quality: int | None = None  # type: ignore[misc]
    brightness: float | None = None
    illumination_ratio: float | None = None
    tile: int | None = None
    detail: Detail = "auto"
    grading: GradingName = "photo"  # type: ignore[misc]
    runtime: Runtime = "torch"  # type: ignore[misc]

    @property
    def light(self) -> tuple[str, ...]:
        """Brightness, illumination ratio and grading in words, where they were chosen."""
        chosen = {"brightness": self.brightness, "illumination ratio": self.illumination_ratio}
        numbers = (f"{name} {value:g}" for name, value in chosen.items() if value is not None)
        return *numbers, *(() if self.grading == "photo" else (f"grading {self.grading}",))

    def fields(self) -> dict[str, Any]:
        """As in `ModelSettings`."""
        fields = super().fields()
        fields["light"] = fields.pop("brightness")  # the first version's `brightness` was the illumination ratio
        for name in ("light", "illumination_ratio", "tile"):
            if fields[name] is None:
                del fields[name]
        if self.runtime == "torch":  # another one rounds differently, so its outputs are others
            del fields["runtime"]
        if self.grading == "photo":
            del fields["grading"]
        else:
            fields["grading_weights"] = LOL_GRADING_SHA256
        if self.detail != "whole":
            fields["full_resolution"] = METHOD
        else:
            del fields["detail"]
        return fields

    def words(self) -> tuple[str, ...]:
        """As in `ModelSettings`."""
        steps = (f"{self.steps} steps",) if self.steps else ()
        detail = "whole" if self.detail == "whole" else f"detail {self.detail}"
        runtime = () if self.runtime == "torch" else (f"runtime {self.runtime}",)
        return *steps, f"seed {self.seed}", f"strength {self.strength:g}", *self.light, detail, *runtime


def tag_rules(metadata: Keeping = "keep", stamp: str | None = None, credits: bool = False) -> TagRules:
    """The rules for tags; without any tags there is no stamp either.

    Raises:
        UsageError: title and rights are asked for (`credits`), but tags are not `private`.
    """
    if credits and metadata != "private":
        raise UsageError("title and rights can only be kept with private tags", remedy="metadata=private")
    return TagRules(metadata, None if metadata == "strip" else stamp, credits)


@dataclass(frozen=True, eq=False)
class Enhanced:
    """The network's result for a scene; `contents` decides its light and brings it to the picture's size."""

    bright: Bright
    strength: float = 1.0
    keep_ratio: bool = False
    refining: Refining | None = None
    notes: list[str] = field(default_factory=list)
    carrier: Carrier | None = None

    @property
    def picture(self) -> Picture:
        """The original."""
        return self.bright.scene.picture

    @property
    def held(self) -> int:
        """Bytes of the picture and of its result at full size."""
        return self.picture.nbytes + self.picture.samples.nbytes

    def values(self) -> np.ndarray:
        """The brightened picture, H×W×3: floats in [0, 1] or integers of the picture's depth."""
        from lumen_cli.engine.scene import finish

        return finish(
            self.bright.scene,
            self.bright.pixels(),
            strength=self.strength,
            keep_ratio=self.keep_ratio,
            refining=self.refining,
            carrier=self.carrier,
            warn=self.notes.append,
        )

    def contents(self) -> Sequence[Content]:
        """The brightened picture."""
        return (replace(self.picture, values=self.values()),)

    def fidelity(self) -> None:
        """There is no reconstruction."""


@dataclass(frozen=True)
class Enhance:
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
        runtime = () if settings.runtime == "torch" else (settings.runtime,)
        return *steps, f"seed {settings.seed}", *settings.light, *runtime

    @property
    def bytes_per_pixel(self) -> int:
        """Less where the network sees the picture reduced."""
        return WHOLE_BYTES if self.settings.detail == "whole" else CARRIED_BYTES

    def name(
        self, sources: Sequence[Source], output: str | None, template: NameTemplate | None
    ) -> tuple[list[Job], None]:
        """See `plan_outputs`."""
        return plan_outputs(sources, output, self.settings.format, template), None

    def check_clips(self) -> None:
        """UsageError where the network is to see whole frames, or PyAV is missing."""
        if self.settings.detail == "whole":
            raise UsageError("the network sees frames of a clip reduced, and never in tiles", remedy="detail=auto")
        require_pyav()

    def scene(self, picture: Picture) -> Scene:
        """See `scene_of`."""
        from lumen_cli.engine.scene import scene_of

        return scene_of(picture, self.settings.detail)

    def prepare(self, scene: Scene, network: LowLightModel, policy: DevicePolicy, digest: bytes) -> Scene:
        """See `batch.prepare`; large pictures wait as they are, since theirs takes up to twelve bytes a pixel more."""
        if scene.seen.height * scene.seen.width > LARGEST_PREPARED:
            return scene
        from lumen_cli.engine.batch import prepare

        return prepare(scene, network, policy, self.settings.seed, digest)

    def run(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> list[Enhanced | NetworkError]:
        """As `launch`, and wait."""
        return self.launch(network, scenes, policy, digests)()

    def launch(
        self, network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, digests: Sequence[bytes]
    ) -> Callable[[], list[Enhanced | NetworkError]]:
        """See `launch_scenes`."""
        from lumen_cli.engine.batch import launch_scenes
        from lumen_cli.engine.parts import NetworkError
        from lumen_cli.engine.scene import refining_of

        settings, carrier = self.settings, None
        if policy.overlaps:  # the CPU does without it
            from lumen_cli.engine.carrier import carrier_of

            carrier = carrier_of(policy)
        wait = launch_scenes(
            network,
            scenes,
            policy,
            digests=digests,
            seed=settings.seed,
            steps=settings.steps,
            brightness=settings.brightness,
            illumination_ratio=settings.illumination_ratio,
            plan=self.tiles,
        )
        return lambda: [
            result.value
            if isinstance(result.value, NetworkError)
            else Enhanced(
                result.value,
                settings.strength,
                settings.brightness is not None,
                refining_of(scene, settings.detail, policy),
                list(result.notes),
                carrier,
            )
            for scene, result in zip(scenes, wait(), strict=True)
        ]
