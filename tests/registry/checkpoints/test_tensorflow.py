"""KinD's networks in TensorFlow's checkpoints: names, layouts and sizes as the authors' files have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lumen_cli.registry.checkpoints.layouts import KIND, KIND_PLUS
from lumen_cli.registry.checkpoints.reading_process import published_networks
from lumen_cli.registry.checkpoints.tensorflow import read_bundle, read_index
from tests.registry.checkpoints.checkpoints import write_bundle

NAMES = [
    ("kind", "decom.g_conv1_1.weight", "DecomNet/g_conv1_1/weights"),
    ("kind", "decom.l_conv1_4.bias", "DecomNet/l_conv1_4/biases"),
    ("kind", "decom.g_up_2.weight", "DecomNet/g_up_2/weights"),
    ("kind", "restoration.up_9.weight", "Restoration_net/up_9/weights"),
    ("kind", "restoration.de_conv10.bias", "Restoration_net/de_conv10/biases"),
    ("kind", "adjust.en_conv_4.weight", "Illumination_adjust_net/en_conv_4/weights"),
    ("kind-plus", "decom.g_conv10.weight", "DecomNet/g_conv10/weights"),
    ("kind-plus", "adjust.en_conv_4.weight", "I_enhance_Net/conv_4/weights"),
    ("kind-plus", "restoration.de_conv4_2.bias", "Denoise_Net/de_conv4_2/biases"),
    ("kind-plus", "restoration.msia3.attention.weight", "Denoise_Net/de_conv3/conv/kernel"),
    ("kind-plus", "restoration.msia1.scale1.conv.weight", "Denoise_Net/de_conv1pu1/pu_conv/weights"),
    ("kind-plus", "restoration.msia2.scale4.norm.weight", "Denoise_Net/de_conv2pu4/batch_normalization/gamma"),
    ("kind-plus", "restoration.msia2.scale4.norm.bias", "Denoise_Net/de_conv2pu4/batch_normalization/beta"),
    (
        "kind-plus",
        "restoration.msia1.scale1.norm.running_mean",
        "Denoise_Net/de_conv1pu1/batch_normalization/moving_mean",
    ),
    (
        "kind-plus",
        "restoration.msia1.scale1.norm.running_var",
        "Denoise_Net/de_conv1pu1/batch_normalization/moving_variance",
    ),
    ("kind-plus", "restoration.msia1.scale2.up.weight", "Denoise_Net/de_conv1pu2/conv_up/weights"),
    ("kind-plus", "restoration.msia1.scale4.up1.bias", "Denoise_Net/de_conv1pu4/conv_up_1/biases"),
    ("kind-plus", "restoration.msia1.scale4.up2.bias", "Denoise_Net/de_conv1pu4/conv_up/biases"),
    ("kind-plus", "restoration.msia4.fuse.weight", "Denoise_Net/de_conv4multi_scale_feature/weights"),
]
SIZES = [
    ("kind", "decom", 943_504),
    ("kind", "adjust", 77_572),
    ("kind", "restoration", 31_042_956),
    ("kind-plus", "restoration", 32_092_316),
]


@pytest.mark.parametrize(("architecture", "ours", "theirs"), NAMES)
def test_names_are_the_authors(architecture: str, ours: str, theirs: str) -> None:
    layout = {"kind": KIND, "kind-plus": KIND_PLUS}[architecture]
    assert layout.tensorflow_name is not None
    assert layout.tensorflow_name(ours) == theirs


@pytest.mark.parametrize(("architecture", "network", "size"), SIZES)
def test_without_an_index_the_size_tells_which_network_it_is(
    architecture: str, network: str, size: int, tmp_path: Path
) -> None:
    with (tmp_path / "model.ckpt.data-00000-of-00001").open("wb") as file:
        file.truncate(size)
    tensors = read_bundle(tmp_path / "model.ckpt", published_networks())
    published = dict(published_networks()[f"{architecture} {network}"].values())
    assert {name: tensor.shape for name, tensor in tensors.items()} == published


def test_without_an_index_tensors_lie_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Byte by byte: '/' before digits before '_', so that conv10 comes before conv1_1."""
    content = np.arange(943_504 // 4, dtype="<f4")
    content.tofile(tmp_path / "model.ckpt.data-00000-of-00001")
    tensors = read_bundle(tmp_path / "model.ckpt", published_networks())
    assert tensors["decom.g_conv10.bias"].tolist() == [0, 1, 2]
    # A kernel lies as height, width, in, out: one by one 32 → 3.
    assert tensors["decom.g_conv10.weight"][:, 1, 0, 0].tolist() == [6, 7, 8]
    assert tensors["decom.g_conv1_1.bias"][0] == 3 + 96


def test_an_index_tells_names_types_shapes_and_places(tmp_path: Path) -> None:
    arrays = {f"scope/layer_{number}/weights": np.full((2, number + 1), number) for number in range(50)}
    write_bundle(tmp_path / "model.ckpt", arrays)
    entries = read_index(tmp_path / "model.ckpt.index")
    assert list(entries) == sorted(arrays)
    content = np.fromfile(tmp_path / "model.ckpt.data-00000-of-00001", dtype="<f4")
    for name, entry in entries.items():
        assert entry.shape == arrays[name].shape
        start = entry.offset // 4
        assert (content[start : start + entry.size // 4] == arrays[name].ravel()).all()
