from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lumen_cli
from lumen_cli.errors import LumenError, ModelError, PictureError, UsageError
from tests.accelerator import accelerator
from tests.conftest import Finished, MakeModel, dark_pixels, read_pixels


@pytest.fixture(autouse=True)
def tiny(make_model: MakeModel) -> Path:
    return make_model("tiny")


def test_a_file_gives_the_pixels_the_command_writes(photos: Path, lumen: Callable[..., Finished]) -> None:
    pixels = lumen_cli.enhance(photos / "a.png", "tiny", seed=3)
    lumen("enhance", photos / "a.png", "-m", "tiny", "--seed", "3", "-o", photos.parent / "out.png")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, read_pixels(photos.parent / "out.png"))


def test_an_array_gives_the_pixels_of_the_file_with_its_content(photos: Path) -> None:
    assert np.array_equal(
        lumen_cli.enhance(read_pixels(photos / "a.png"), "tiny"), lumen_cli.enhance(str(photos / "a.png"), "tiny")
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_the_type_of_an_array_comes_back(kind: type) -> None:
    eight = dark_pixels(20, 30)
    array = (
        (eight / 255).astype(kind)
        if np.issubdtype(kind, np.floating)
        else eight.astype(kind) * (257 if kind is np.uint16 else 1)
    )
    bright = lumen_cli.enhance(array, "tiny")
    assert bright.shape == (20, 30, 3)
    assert bright.dtype == (np.float32 if np.issubdtype(kind, np.floating) else kind)
    assert bright.mean() > 1.3 * array.mean()


def test_a_grey_array_and_strength_0() -> None:
    grey = dark_pixels(20, 30)[..., 0]
    assert np.array_equal(lumen_cli.enhance(grey, "tiny", strength=0.0), np.repeat(grey[..., None], 3, axis=2))


def test_lists_and_batches_give_what_each_picture_gives_alone() -> None:
    pictures = [dark_pixels(20, 30, 1), dark_pixels(20, 30, 2), dark_pixels(33, 25, 3)]
    alone = [lumen_cli.enhance(each, "tiny", device="cpu") for each in pictures]
    together = lumen_cli.enhance(pictures, "tiny", device="cpu")
    assert [np.array_equal(one, other) for one, other in zip(together, alone, strict=True)] == [True] * 3
    assert np.array_equal(lumen_cli.enhance(np.stack(pictures[:2]), "tiny", device="cpu"), np.stack(alone[:2]))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.bfloat16])
def test_a_tensor_gives_the_pixels_of_the_array_on_its_device(kind: torch.dtype) -> None:
    dark = torch.from_numpy(np.stack([dark_pixels(20, 30, seed) for seed in range(2)])).permute(0, 3, 1, 2)
    batch = dark if kind == torch.uint8 else (dark / 255).to(kind)
    bright = lumen_cli.enhance(batch, "tiny", device="cpu")
    assert bright.shape == (2, 3, 20, 30)
    assert bright.dtype == (torch.uint8 if kind == torch.uint8 else torch.float32)
    for one, given in zip(bright, batch, strict=True):
        array = (given if kind == torch.uint8 else given.float()).permute(1, 2, 0).numpy()
        assert np.array_equal(one.permute(1, 2, 0).numpy(), lumen_cli.enhance(array, "tiny", device="cpu"))
        assert torch.equal(lumen_cli.enhance(given, "tiny", device="cpu"), one)
    with accelerator("cuda"):
        moved = lumen_cli.enhance(batch.to("cuda:0"), "tiny", device="cpu")
        assert moved.device.type == "cuda"
        assert torch.equal(moved.cpu(), bright)


def test_a_tensor_of_another_library_comes_by_dlpack() -> None:
    class Foreign:
        """As JAX and CuPy hand their arrays on."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    dark = np.ascontiguousarray(dark_pixels(20, 30).transpose(2, 0, 1))
    bright = lumen_cli.enhance(Foreign(dark), "tiny", device="cpu")
    assert torch.equal(bright, lumen_cli.enhance(torch.from_numpy(dark), "tiny", device="cpu"))
    with pytest.raises(UsageError, match="3×H×W or N×3×H×W, not 20×30×3"):
        lumen_cli.enhance(torch.zeros(20, 30, 3), "tiny")


def test_a_loaded_model_is_used_again() -> None:
    network = lumen_cli.load_model("tiny", device="cpu")
    picture = dark_pixels(20, 30)
    assert np.array_equal(
        lumen_cli.enhance(picture, "tiny", device="cpu", network=network),
        lumen_cli.enhance(picture, "tiny", device="cpu"),
    )
    assert network.largest_batch == 1


def test_models_are_listed() -> None:
    assert "tiny" in [card.name for card in lumen_cli.list_models()]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((4, 5, 4), np.uint8), "4×5×4"),
        (np.zeros((0, 5, 3), np.uint8), "0×5×3"),
        (np.zeros((4, 5, 3), np.int32), "int32"),
        (np.full((4, 5, 3), 1.5), r"\[0, 1\]"),
        (np.full((4, 5, 3), np.nan), r"\[0, 1\]"),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        lumen_cli.enhance(array, "tiny")


def test_errors_are_lumens_own(tmp_path: Path, make_model: MakeModel) -> None:
    with pytest.raises(PictureError):
        lumen_cli.enhance(tmp_path / "gone.png", "tiny")
    with pytest.raises(UsageError, match="strength"):
        lumen_cli.enhance(dark_pixels(4, 4), "tiny", strength=1.5)
    with pytest.raises(UsageError, match="from 1 to 10 steps"):
        lumen_cli.enhance(dark_pixels(4, 4), "tiny", steps=99)
    make_model("fragile", network={"fails_above": 0.0})
    with pytest.raises(LumenError, match="not finite"):
        lumen_cli.enhance(dark_pixels(4, 4), "fragile")


def test_there_is_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="no attribute enhanse"):
        lumen_cli.enhanse  # noqa: B018


def test_a_picture_is_taken_apart_into_the_numbers_the_command_writes(
    make_model: MakeModel, photos: Path, lumen: Callable[..., Finished]
) -> None:
    make_model("able", abilities=["enhance", "decompose"])
    maps = lumen_cli.decompose(photos / "a.png", "able", reconstruct=True)
    lumen("decompose", photos / "a.png", "-m", "able", "--format", "npy")
    assert np.array_equal(maps.reflectance, np.load(photos / "a-reflectance.npy"))
    assert np.array_equal(maps.illumination, np.load(photos / "a-illumination.npy"))
    fidelity = maps.fidelity()
    assert fidelity is not None
    assert fidelity.mae < 1e-6
    assert lumen_cli.decompose(dark_pixels(20, 30), "able").reconstruction is None
    with pytest.raises(ModelError, match=r"tiny cannot decompose pictures; models that can: .*able"):
        lumen_cli.decompose(photos / "a.png", "tiny")
