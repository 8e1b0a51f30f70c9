"""Enhances and decomposes pictures of equal padded shape; each is enhanced from its own noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lumen_cli.diffusion import picture_noise
from lumen_cli.engine import Detail
from lumen_cli.engine.device import DevicePolicy
from lumen_cli.engine.light import relight
from lumen_cli.engine.memory import TilePlan
from lumen_cli.engine.parts import Computed, NetworkError, in_parts, launch_parts, not_finite, shape_of
from lumen_cli.engine.scene import Scene, finish, refining_of, scene_of
from lumen_cli.networks.base import as_pixels, as_tensor, pad_to_multiple

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.imaging.picture import Picture
    from lumen_cli.networks.base import LowLightModel, Retinex


def enhance_batch(
    network: LowLightModel,
    pictures: Sequence[Picture],
    policy: DevicePolicy,
    *,
    detail: Detail = "auto",
    strength: float = 1.0,
    **options: Any,
) -> list[NDArray[Any] | NetworkError]:
    """Brighten pictures whose scenes have one `shape_of`: `enhance_scenes`, then `finish`.

    Returns:
        For each picture H×W×3, floats in [0, 1] or integers of the picture's depth, or the error of its result.
    """
    from lumen_cli.engine.carrier import carrier_of

    scenes = [scene_of(picture, detail) for picture in pictures]
    results = enhance_scenes(network, scenes, policy, **options)
    keep_ratio = options.get("brightness") is not None
    return [
        result.value
        if isinstance(result.value, NetworkError)
        else finish(
            scene,
            result.value,
            strength=strength,
            keep_ratio=keep_ratio,
            refining=refining_of(scene, detail, policy),
            carrier=carrier_of(policy),
        )
        for scene, result in zip(scenes, results, strict=True)
    ]


def prepare(scene: Scene, network: LowLightModel, policy: DevicePolicy, seed: int, content: bytes) -> Scene:
    """The scene with its `input` and `noise` for the network, so that another thread than the network's computes them.

    seed: the run's; content: the picture's `digest()`.
    """
    shape = shape_of(scene.seen, network, policy)
    wanted = network.noise_shape(shape.height, shape.width)
    noise = None if wanted is None else policy.stage(picture_noise(seed, content, wanted)[None])
    return replace(scene, input=_input_of(scene.seen, network, policy), noise=noise)


def _input_of(picture: Picture, network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """A picture on the CPU, as `_load` takes it.

    For a CPU 1×3×H×W float32 in [0, 1], padded. For other devices 1×3×h×w of the file's own bytes where they are sRGB:
    a quarter to travel, and the device pads and scales them.
    """
    raw = picture.values
    if not policy.single and raw is not None and raw.dtype == np.uint8:
        return policy.stage(as_tensor(np.require(raw, requirements="W")))  # PyTorch warns of others
    pixels = picture.pixels
    if raw is not None and np.may_share_memory(pixels, raw):  # floats: networks get a copy of their own
        pixels = pixels.copy()
    # The first stride of `as_tensor` is not that of a batch, and layers choose their kernels by it.
    low = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    padded = pad_to_multiple(low, network.size_multiple)
    return policy.stage(padded.contiguous(memory_format=torch.channels_last))


def _load(inputs: Sequence[Tensor], network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """What `_input_of` returned for pictures of one `shape_of` → B×3×H×W in [0, 1] on the device."""
    batch = [pad_to_multiple(_scale(each), network.size_multiple) for each in policy.upload(inputs)]
    return (batch[0] if policy.single else torch.cat(batch)).contiguous(memory_format=torch.channels_last)


def _scale(values: Tensor) -> Tensor:
    """uint8 → the floats that `to_unit` gives; floats as they are."""
    if values.dtype != torch.uint8:
        return values
    # CUDA multiplies by the reciprocal of a number, which is another float; it divides by a tensor.
    return values.float() / torch.full((1,), 255.0, device=values.device)


@dataclass(frozen=True, eq=False)
class Bright:
    """A scene and the network's result for it, before its light is decided; `pixels` may run in any thread.

    graded: 3×h×w float32 in [0, 1] on the CPU; residual: `LowLightModel.residual`, on the CPU, for a reduced picture;
    brightness: as in `compute_scenes`; alone: whether the result is the network's alone.
    """

    scene: Scene
    graded: Tensor
    residual: Tensor | None = None
    brightness: float | None = None
    alone: bool = False

    def pixels(self) -> NDArray[np.float32]:
        """The result, h×w×3 float32 in [0, 1]: `residual` added and `relight` applied."""
        with torch.inference_mode():
            pixels = as_pixels(self.graded)
            if self.alone:
                return pixels
            low, bright = as_tensor(self.scene.seen.pixels), as_tensor(pixels)
            if self.residual is not None:
                smooth = F.interpolate(self.residual, bright.shape[-2:], mode="bicubic", align_corners=False)
                bright = (bright + smooth).clamp(0.0, 1.0)
            return as_pixels(relight(low, bright, self.brightness))


def enhance_scenes(
    network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, **options: Any
) -> list[Computed[np.ndarray]]:
    """As `compute_scenes`, but with the `pixels` of each result."""
    return [
        Computed(result.value if isinstance(result.value, NetworkError) else result.value.pixels(), result.notes)
        for result in compute_scenes(network, scenes, policy, **options)
    ]


def compute_scenes(
    network: LowLightModel, scenes: Sequence[Scene], policy: DevicePolicy, **options: Any
) -> list[Computed[Bright]]:
    """As `launch_scenes`, and wait."""
    return launch_scenes(network, scenes, policy, **options)()


def launch_scenes(
    network: LowLightModel,
    scenes: Sequence[Scene],
    policy: DevicePolicy,
    *,
    digests: Sequence[bytes] | None = None,
    seed: int = 0,
    steps: int | None = None,
    brightness: float | None = None,
    illumination_ratio: float | None = None,
    plan: TilePlan | None = None,
) -> Callable[[], list[Computed[Bright]]]:
    """Run the network on the scenes of pictures, all of one `shape_of`.

    A CUDA device may still compute when this returns, so that the next scenes can be launched meanwhile.

    Args:
        network: on the policy's device.
        scenes: from `scene_of`, perhaps through `prepare`; sizes may differ within the padded shape.
        policy: from `choose_device`.
        digests: the pictures' `digest()`, where they are already known.
        seed: the run's seed; each picture's noise depends only on it and on the picture's content.
        steps: sampling steps, None for the network's own.
        brightness: target mean linear light, as a multiple of the picture's own; None leaves it to the model.
        illumination_ratio: KinD's α, the ratio of target to source illumination, for networks that take one. The
            result is then the network's alone: no grading, no rule of `light`. None asks for nothing.
        plan: which pictures run in tiles; None: those that do not fit into memory.

    Returns:
        A function that waits and returns for each scene its result, or the error of a picture whose result has NaN or
        infinity even in float32. How batches are split: see `launch_parts`.
    """
    contents = digests or [scene.picture.digest() for scene in scenes]
    if brightness is not None and illumination_ratio is not None:
        raise ValueError("brightness and illumination_ratio cannot be combined")
    knobs: dict[str, Any] = {} if illumination_ratio is None else {"illumination_ratio": illumination_ratio}
    plan = TilePlan() if plan is None else plan
    pictures = [scene.seen for scene in scenes]
    shape = shape_of(pictures[0], network, policy)

    def noise_of(index: int) -> Tensor | None:
        wanted = network.noise_shape(shape.height, shape.width)
        ready = scenes[index].noise
        return ready if ready is not None or wanted is None else picture_noise(seed, contents[index], wanted)[None]

    def input_of(index: int) -> Tensor:
        ready = scenes[index].input
        return _input_of(pictures[index], network, policy) if ready is None else ready

    def run(part: slice, precision: str) -> Callable[[], list[Bright | NetworkError]]:
        group = range(len(scenes))[part]
        sizes = [(pictures[i].height, pictures[i].width) for i in group]
        with policy.running(precision):
            low = _load([input_of(i) for i in group], network, policy)
            drawn = policy.upload([noise for i in group if (noise := noise_of(i)) is not None])
            bright = network(low, sizes=sizes, noise=torch.cat(drawn) if drawn else None, steps=steps, **knobs).float()
        with torch.inference_mode():
            residuals = [
                network.residual(_crop(low[at], *size), _crop(bright[at], *size)) if has_residual(i) else None
                for at, (i, size) in enumerate(zip(group, sizes, strict=True))
            ]
            fetch = policy.fetch([bright, *(residual for residual in residuals if residual is not None)])

        def finish() -> list[Bright | NetworkError]:
            fetched, *rest = fetch()
            results: list[Bright | NetworkError] = []
            for at, (i, (height, width)) in enumerate(zip(group, sizes, strict=True)):
                graded, residual = fetched[at, :, :height, :width], None if residuals[at] is None else rest.pop(0)
                results.append(bright_of(i, graded, residual) if is_finite(graded) else not_finite())
            return results

        return finish

    def has_residual(index: int) -> bool:
        return not scenes[index].whole and illumination_ratio is None

    def bright_of(index: int, graded: Tensor, residual: Tensor | None) -> Bright:
        scene = replace(scenes[index], input=None, noise=None)
        return Bright(scene, graded, residual, brightness, illumination_ratio is not None)

    def run_tiled(index: int, precision: str, side: int) -> Bright | NetworkError:
        from lumen_cli.engine.tile import enhance_tiled  # few pictures need it

        noise = noise_of(index)
        low = pictures[index].pixels
        sample_whole = plan.whole_sample_fits(network, policy, shape, precision)
        with policy.running(precision):
            made = enhance_tiled(
                network,
                low,
                None if noise is None else noise[0],
                side,
                device=policy.device,
                steps=steps,
                sample_whole=sample_whole,
                **knobs,
            )
        if not np.isfinite(made).all():
            return not_finite()
        graded, residual = as_tensor(made), None
        if has_residual(index):
            with torch.inference_mode():
                residual = network.residual(as_tensor(low).to(policy.device), graded.to(policy.device))
        return bright_of(index, graded[0], None if residual is None else residual.cpu())

    return launch_parts(run, pictures, policy, network=network, plan=plan, run_tiled=run_tiled)


def is_finite(values: Tensor) -> bool:
    """Whether all values are finite numbers."""
    # A sum is not finite where one of them is not, and takes a tenth of the time.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def _crop(padded: Tensor, height: int, width: int) -> Tensor:
    """C×H×W → 1×C×height×width, with the strides that `as_tensor` gives."""
    return padded[:, :height, :width].permute(1, 2, 0).contiguous().permute(2, 0, 1)[None]


def as_batch(pictures: Sequence[Picture], network: LowLightModel, policy: DevicePolicy) -> Tensor:
    """Pictures of one `shape_of` → B×3×H×W in [0, 1] on the device, padded to the network's multiple."""
    padded = [pad_to_multiple(as_tensor(picture.pixels), network.size_multiple) for picture in pictures]
    return torch.cat(padded).to(policy.device).contiguous(memory_format=torch.channels_last)


def cropped(result: Tensor, picture: Picture) -> np.ndarray | NetworkError:
    """C×H×W of the padded shape → H×W×C of the picture's size, or an error where the result is not finite."""
    pixels = as_pixels(result[:, : picture.height, : picture.width])
    return pixels if np.isfinite(pixels).all() else not_finite()


@dataclass(frozen=True)
class Fidelity:
    """The error of R ∘ L against the decomposed picture, on values in [0, 1].

    mae: mean absolute error; psnr: peak signal-to-noise ratio in dB, None without any error.
    """

    mae: float
    psnr: float | None


@dataclass(frozen=True, eq=False)
class Maps:
    """One decomposed picture; all maps are float32 in [0, 1], of the picture's size H×W.

    reflectance: H×W×3; illumination: H×W; latents: the maps of a model that decomposes a latent, each C×h×w with
    h, w smaller than H, W, of which the two pictures are renderings (see the model's `decompose`); reconstruction:
    R ∘ L, H×W×3, and prepared, the picture that the model decomposed; both only where requested.
    """

    reflectance: np.ndarray
    illumination: np.ndarray
    latents: Mapping[str, np.ndarray] | None = None
    reconstruction: np.ndarray | None = None
    prepared: np.ndarray | None = None

    def fidelity(self) -> Fidelity | None:
        """The error of `reconstruction` against `prepared`; None where they were not requested."""
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
) -> list[Computed[Maps]]:
    """Decompose pictures of one `shape_of`.

    Args:
        network: on the policy's device; one that decomposes.
        pictures: H×W×3 float32 in [0, 1] each; sizes may differ within the padded shape.
        policy: from `choose_device`.
        reconstruct: whether to compute R ∘ L too.

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

    return in_parts(run, pictures, policy, network)


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
