"""The Python API: pictures in memory, or a model to do more with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from lumen_cli.engine import Detail
from lumen_cli.engine.device import choose_device
from lumen_cli.errors import UsageError
from lumen_cli.files.places import is_store, mask
from lumen_cli.imaging.colour.convert import convert_depth, to_unit
from lumen_cli.imaging.picture import Picture, read_picture
from lumen_cli.registry import DEFAULT_MODEL, GradingName, check_light, find_model, require_ability
from lumen_cli.registry.load import load
from lumen_cli.run.decompose import Decompose, Decomposed, MapSettings
from lumen_cli.run.operation import Enhance, Enhanced, Settings
from lumen_cli.run.run import Run

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from lumen_cli.engine.batch import Maps
    from lumen_cli.networks.base import LowLightModel
    from lumen_cli.run.operation import Output

    class _Options(TypedDict, total=False):
        """The other arguments of `enhance`."""

        steps: int | None
        seed: int
        strength: float
        brightness: float | None
        illumination_ratio: float | None
        detail: Detail
        grading: GradingName
        device: str
        precision: str
        network: LowLightModel | None


def load_model(
    name_or_folder: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    grading: GradingName = "photo",
) -> LowLightModel:
    """A model ready to run, in eval mode, float32 weights, without gradients.

    Args:
        name_or_folder: a name from `list_models()`, a model folder or `hf://org/name`.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: only checked against what the model supports; `enhance` applies it.
        grading: as in `enhance`.

    Raises:
        ModelError: no such model, or its folder or weights are not usable.
        UsageError: no such device here.
    """
    card = find_model(name_or_folder)
    return choose_device(device, precision, precisions=card.precisions, model=card.name).prepare(load(card, grading))


class SupportsDLPack(Protocol):
    """A tensor of another library, which PyTorch takes over by DLPack."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """See DLPack."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """See DLPack."""


Given = np.ndarray | str | os.PathLike[str]


@overload
def enhance(picture: Given, model: str | os.PathLike[str] = ..., **options: Unpack[_Options]) -> np.ndarray: ...


@overload
def enhance(
    picture: Tensor | SupportsDLPack, model: str | os.PathLike[str] = ..., **options: Unpack[_Options]
) -> Tensor: ...


@overload
def enhance(
    picture: list[Given] | tuple[Given, ...], model: str | os.PathLike[str] = ..., **options: Unpack[_Options]
) -> list[np.ndarray]: ...


def enhance(
    picture: Given | Tensor | SupportsDLPack | Sequence[Given],
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    steps: int | None = None,
    seed: int = 0,
    strength: float = 1.0,
    brightness: float | None = None,
    illumination_ratio: float | None = None,
    detail: Detail = "auto",
    grading: GradingName = "photo",
    device: str = "auto",
    precision: str = "auto",
    network: LowLightModel | None = None,
) -> np.ndarray | Tensor | list[np.ndarray]:
    """Brighten pictures as `lumen enhance` does with the same settings; the result is sRGB.

    >>> dark = np.linspace(2, 40, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    >>> bright = enhance(dark, "kind", device="cpu")
    >>> bright.shape, bright.dtype, bool(bright.mean() > dark.mean())
    ((24, 32, 3), dtype('uint8'), True)

    Several pictures, which share batches on a GPU, as an array N×H×W×3 or a list; a tensor has its channels first:

    >>> [each.shape for each in enhance([dark, dark[:20]], "kind", device="cpu")]
    [(24, 32, 3), (20, 32, 3)]
    >>> tensor = torch.from_numpy(dark).permute(2, 0, 1)
    >>> torch.equal(enhance(tensor, "kind", device="cpu"), torch.from_numpy(bright).permute(2, 0, 1))
    True

    Args:
        picture: a file; an array H×W×3 (RGB), H×W (grey) or N×H×W×3; a list of files and arrays; or a tensor 3×H×W or
            N×3×H×W of PyTorch or of a library with DLPack, on any device. Values are uint8, uint16 or floats in
            [0, 1]. They pass through the CPU's memory, because the noise depends on a hash of them.
        model: a name, a model folder or `hf://org/name`; its card decides about steps and precisions.
        steps: sampling steps, None for the model's own.
        seed: of the noise.
        strength: 0 returns the picture, 1 the full effect.
        brightness: mean linear light of the result as a multiple of the picture's own, 0.1 to 10; None lets the model
            choose. A result that would be brighter than white allows approaches white.
        illumination_ratio: the ratio α of KinD's papers, 0.1 to 10, for models with that ability; the result is then
            the network's alone. Not together with `brightness`.
        detail: how pictures above 0.4 megapixels reach their size: "auto" and "fast" run the network on the picture
            reduced and carry its result to full size, where "auto" also refines noisy ones; "whole" runs it at full
            size.
        grading: "photo", the model's own, or "lol", which knows the scenes of the data set LOL, for comparisons on it.
            A `network` keeps the grading that it was loaded with.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        network: the model that `load_model` returned, to load it once for many pictures.

    Returns:
        H×W×3, sRGB, upright; uint8 or uint16 as the picture was, float32 for floats. For several pictures as they were
        given: N×H×W×3 or a list. For a tensor a tensor of its shape, on its device.

    Raises:
        UsageError: an array or a tensor of another shape or type, a number out of range, an illumination ratio for a
            model without.
        PictureError: the file cannot be read.
        ModelError: the model cannot be used.
        LumenError: the network gave no usable result.
    """
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"strength has to be from 0 to 1, not {strength}")
    card = find_model(model)
    chosen_steps = card.steps_for(steps)
    check_light(card, brightness, illumination_ratio, grading)
    given, gather = _take_apart(picture)
    read = [_picture(each) for each in given]
    policy = choose_device(device, card.precision_for(precision), precisions=card.precisions, model=card.name)
    settings = Settings.with_model(
        card,
        policy,
        steps=chosen_steps,
        seed=seed,
        strength=strength,
        brightness=brightness,
        illumination_ratio=illumination_ratio,
        detail=detail,
        grading=grading,
    )
    outputs = Run(card, policy, Enhance(settings), network=network and policy.prepare(network)).compute(read)
    return gather([_result(*each) for each in zip(given, read, outputs, strict=True)])


def _result(given: Given, read: Picture, output: Output) -> np.ndarray:
    assert isinstance(output, Enhanced)
    result = output.values()
    floating = isinstance(given, np.ndarray) and np.issubdtype(given.dtype, np.floating)
    return to_unit(result) if floating or read.bit_depth == 32 else convert_depth(result, read.bit_depth)


Gather = Callable[[list[np.ndarray]], "np.ndarray | Tensor | list[np.ndarray]"]


def _take_apart(picture: Given | Tensor | SupportsDLPack | Sequence[Given]) -> tuple[list[Given], Gather]:
    """Single pictures, and the function that gives their results the form in which they came."""
    if isinstance(picture, list | tuple):
        return list(picture), list
    if isinstance(picture, np.ndarray) and picture.ndim == 4:
        return list(picture), np.stack
    if isinstance(picture, np.ndarray | str | os.PathLike):
        return [picture], lambda results: results[0]
    tensor = picture if isinstance(picture, Tensor) else torch.from_dlpack(picture)
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3 or not tensor.numel():
        raise UsageError(f"a tensor has to be of 3×H×W or N×3×H×W, not {'×'.join(map(str, tensor.shape))}")
    batch = tensor.detach() if tensor.ndim == 4 else tensor.detach()[None]
    host = (batch.float() if batch.is_floating_point() else batch).cpu().permute(0, 2, 3, 1).contiguous().numpy()

    def gather(results: list[np.ndarray]) -> Tensor:
        made = torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).contiguous().to(tensor.device)
        return made if tensor.ndim == 4 else made[0]

    return list(host), gather


def decompose(
    picture: np.ndarray | str | os.PathLike[str],
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    reconstruct: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    network: LowLightModel | None = None,
) -> Maps:
    """Take one picture apart; the numbers are those of `lumen decompose` in the formats npy and npz.

    >>> maps = decompose(np.linspace(0.0, 0.3, 24 * 32 * 3).reshape(24, 32, 3), "kind", reconstruct=True, device="cpu")
    >>> maps.reflectance.shape, maps.illumination.shape
    ((24, 32, 3), (24, 32))

    Args:
        picture: as in `enhance`.
        model: a name, a model folder or `hf://org/name`, of a model that decomposes.
        reconstruct: whether R ∘ L is wanted too; then `fidelity()` of the result gives its error.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        network: the model that `load_model` returned, to load it once for many pictures.

    Returns:
        Reflectance H×W×3 and illumination H×W, float32 in [0, 1], upright; for a model that decomposes a latent, the
        `latents` too, of which these are renderings.

    Raises:
        UsageError: an array of another shape or type.
        PictureError: the file cannot be read.
        ModelError: the model cannot be used, or cannot decompose.
        LumenError: the network gave no usable result.
    """
    card = find_model(model, "decompose")
    require_ability(card, "decompose")
    read = _picture(picture)
    policy = choose_device(device, precision, precisions=card.precisions, model=card.name)
    operation = Decompose(MapSettings.with_model(card, policy), reconstruct=reconstruct)
    (output,) = Run(card, policy, operation, network=network and policy.prepare(network)).compute([read])
    assert isinstance(output, Decomposed)
    return output.maps


def _picture(given: np.ndarray | str | os.PathLike[str]) -> Picture:
    if not isinstance(given, np.ndarray) and is_store(os.fspath(given)):
        raise UsageError(
            f"{mask(os.fspath(given))}: pictures in stores are for the command line; read it into an array"
        )
    return picture_from_array(given) if isinstance(given, np.ndarray) else read_picture(Path(given).absolute())


def picture_from_array(array: np.ndarray) -> Picture:
    """H×W×3 (RGB) or H×W (grey) as uint8, uint16 or floats in [0, 1] → the value that lumen works on."""
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] != 3):
        raise UsageError(f"a picture has to be an array of H×W×3 or H×W, not {'×'.join(map(str, array.shape))}")
    if array.dtype in (np.uint8, np.uint16):
        pixels, depth = array, 8 * array.dtype.itemsize
    elif np.issubdtype(array.dtype, np.floating):
        pixels, depth = array.astype(np.float32), 16
        if not (np.isfinite(pixels).all() and pixels.min() >= 0.0 and pixels.max() <= 1.0):
            raise UsageError("a picture of floats has to lie in [0, 1]")
    else:
        raise UsageError(f"a picture has to be of uint8, uint16 or floats, not {array.dtype}")
    grey = array.ndim == 2
    pixels = np.repeat(pixels[..., None], 3, axis=2) if grey else np.ascontiguousarray(pixels)
    return Picture(pixels, None, depth, grey, "png", None, None)
