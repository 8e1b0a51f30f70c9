"""Pulled models: what comes, what is checked, what is left alone, and what is never left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lumen_cli.atomic import temporary_beside
from lumen_cli.errors import LumenError, ModelError
from lumen_cli.networks.grading import Grading
from lumen_cli.registry import fetch as fetching
from lumen_cli.registry import find_model, list_models, user_models
from lumen_cli.registry.download import pull_model
from lumen_cli.registry.load import load, save_weights
from tests.conftest import MakeModel, folder_bytes
from tests.web import Site, endless, redirect, serving

Publish = Callable[..., str]
README = "# night\n"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(fetching, "PAUSES", (0.0,) * 4)
    with serving() as site:
        yield site


@pytest.fixture
def publish(site: Site, make_model: MakeModel, tmp_path: Path) -> Publish:
    """Put a model folder on the server, its weights in a release elsewhere; returns its address."""

    def at(name: str = "night", weights: dict[str, Any] | None = None, gain: float = 2.0, **changes: Any) -> str:
        folder = make_model("made", root=tmp_path / f"made-{len(site.files)}", network={"gain": gain})
        config = json.loads((folder / "config.json").read_text()) | {"name": name} | changes
        content = (folder / "network.safetensors").read_bytes()
        if gain != 2.0:  # other weights, still those of a tiny network
            content = content[:-1] + bytes([content[-1] ^ 1])
            config["weights"]["network"]["sha256"] = hashlib.sha256(content).hexdigest()
        file = config["weights"]["network"] | {
            "url": f"{site.address}/release/{name}.safetensors",
            "bytes": len(content),
        }
        config["weights"]["network"] = {k: v for k, v in (file | (weights or {})).items() if v is not None}
        site.files |= {
            f"/{name}/config.json": json.dumps(config).encode(),
            f"/{name}/README.md": README.encode(),
            f"/{name}/network.safetensors": content,
            f"/release/{name}.safetensors": content,
        }
        return f"{site.address}/{name}"

    return at


@pytest.fixture
def listed(publish: Publish, site: Site, models_root: Path) -> Path:
    """A model in the list whose weights are on the server; its folder."""
    publish()
    folder = models_root / "night"
    folder.mkdir()
    for name in ("config.json", "README.md"):
        (folder / name).write_bytes(site.files[f"/night/{name}"])  # type: ignore[arg-type]
    site.asked.clear()
    return folder


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Pull, assert one line of error and that no file has come or gone; returns the line."""

    def check(source: str, *arguments: Path, **options: Any) -> str:
        before = folder_bytes(tmp_path)
        with pytest.raises(LumenError) as caught:
            pull_model(source, *arguments, **options)
        assert "\n" not in str(caught.value)
        assert "lumen-" not in str(caught.value).replace("lumen-tests", ""), "a temporary place tells nobody anything"
        assert folder_bytes(tmp_path) == before
        assert not list(tmp_path.rglob(".lumen-*"))
        return str(caught.value)

    return check


def test_the_weights_of_a_listed_model_are_fetched_and_it_is_found_with_them(listed: Path, site: Site) -> None:
    with pytest.raises(
        ModelError, match=r"model night: its weights are not here yet \(.*\): run `lumen models pull night`"
    ):
        load(find_model("night"))
    pulled = pull_model("night")
    assert pulled.card.folder == user_models() / "night"
    assert (pulled.kept, pulled.notes, pulled.weights_from) == (
        False,
        (),
        (f"{site.address}/release/night.safetensors",),
    )
    assert site.paths() == ["/release/night.safetensors"]
    assert folder_bytes(pulled.card.folder) == {
        "config.json": (listed / "config.json").read_bytes(),
        "README.md": README.encode(),
        "network.safetensors": site.files["/night/network.safetensors"],
    }
    assert find_model("night") == pulled.card, "it goes before the one without weights, whose folder is looked at first"
    load(find_model("night"))


@pytest.mark.parametrize("ending", ["", "/", "/config.json", "/config.json?download=true"])
def test_a_model_folder_at_an_address(ending: str, publish: Publish, site: Site) -> None:
    address = publish()
    pulled = pull_model(address + ending)
    assert pulled.card == find_model("night")
    assert (pulled.card.folder / "README.md").read_text() == README
    load(pulled.card)
    assert site.paths() == ["/night/config.json", "/night/README.md", "/release/night.safetensors"]


def test_weights_without_an_address_lie_beside_the_config(publish: Publish, site: Site, tmp_path: Path) -> None:
    address = publish(weights={"url": None, "bytes": None, "file": "a #1.safetensors"})
    site.files["/night/a%20%231.safetensors"] = site.files["/night/network.safetensors"]
    pulled = pull_model(address, tmp_path / "elsewhere")
    assert pulled.card.folder == tmp_path / "elsewhere"
    assert pulled.card.files["network"].file == "a #1.safetensors"
    assert "night" not in [card.name for card in list_models()]
    load(pulled.card)


def test_a_model_from_hugging_face_is_copied_from_its_cache(
    publish: Publish, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(weights={"url": None})
    cache = tmp_path / "cache" / "models--organisation--night"
    (cache / "refs").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for ref in ("main", "v1"):
        (cache / "refs" / ref).write_text("0" * 40)
    for name in ("config.json", "network.safetensors"):
        (cache / "blobs" / name).write_bytes(site.files[f"/night/{name}"])  # type: ignore[arg-type]
        (cache / "snapshots" / ("0" * 40) / name).symlink_to(cache / "blobs" / name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pulled = pull_model("hf://organisation/night@v1")
    assert pulled.card.folder == user_models() / "night"
    assert not any(path.is_symlink() for path in pulled.card.folder.iterdir())
    assert ["README.md" in note for note in pulled.notes] == [True]
    load(find_model("night"))
    config = json.loads((cache / "blobs" / "config.json").read_text())
    config["name"], config["weights"]["network"]["sha256"] = "other", "0" * 64
    (cache / "blobs" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is not the weights file of other: expected SHA-256 0000") as caught:
        pull_model("hf://organisation/night")
    assert "hf://organisation/night/network.safetensors" in str(caught.value)


def test_a_cut_download_goes_on_and_the_checksum_is_that_of_the_whole(listed: Path, site: Site) -> None:
    site.cuts["/release/night.safetensors"] = [100, 100]
    load(pull_model("night").card)
    assert [asked for _, asked in site.asked] == [None, "bytes=100-", "bytes=200-"]


def test_a_new_grading_is_fetched_without_the_network(publish: Publish, site: Site, tmp_path: Path) -> None:
    address = publish()
    config = json.loads(site.files["/night/config.json"])  # type: ignore[arg-type]
    config["grading"] = {"channels": 8, "heads": 1}

    def publish_grading(seed: int) -> None:
        torch.manual_seed(seed)
        entry = save_weights(Grading(8, 1).state_dict(), tmp_path / "grading.safetensors")
        site.files["/night/grading.safetensors"] = (tmp_path / "grading.safetensors").read_bytes()
        config["weights"]["grading"] = entry
        site.files["/night/config.json"] = json.dumps(config).encode()

    publish_grading(0)
    pulled = pull_model(address)
    assert pulled.weights_from == (f"{site.address}/release/night.safetensors", f"{address}/grading.safetensors")
    assert load(pulled.card).grading is not None
    publish_grading(1)
    site.asked.clear()
    again = pull_model(address, overwrite=True)
    assert "/release/night.safetensors" not in site.paths()
    assert again.card.weights_sha256 != pulled.card.weights_sha256
    load(again.card)
    site.files["/night/grading.safetensors"] = b"damaged"
    config["weights"]["grading"]["sha256"] = "0" * 64
    site.files["/night/config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=r"grading\.safetensors"):
        pull_model(address, overwrite=True)
    load(again.card)


def test_other_weights_are_refused_with_both_checksums(listed: Path, site: Site, refused: Callable[..., str]) -> None:
    content = site.files["/release/night.safetensors"][:-1] + b"\x55"  # type: ignore[index]
    site.files["/release/night.safetensors"] = content
    said = refused("night")
    assert hashlib.sha256(content).hexdigest() in said
    assert find_model("night").files["network"].sha256 in said
    assert f"{site.address}/release/night.safetensors" in said


@pytest.mark.parametrize("path", ["/night/config.json", "/release/night.safetensors"])
def test_what_is_not_there(path: str, publish: Publish, site: Site, refused: Callable[..., str]) -> None:
    address = publish()
    del site.files[path]
    assert f"{site.address}{path}: the server answers 404 Not Found" in refused(address)


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_a_text_without_end(name: str, publish: Publish, site: Site, refused: Callable[..., str]) -> None:
    address = publish()
    site.files[f"/night/{name}"] = endless
    assert f"/night/{name} is larger than 1 MiB" in refused(address)


def test_weights_without_end(listed: Path, site: Site, refused: Callable[..., str]) -> None:
    site.files["/release/night.safetensors"] = endless
    assert "bytes that config.json says: it was not downloaded" in refused("night")


def test_a_redirection_out_of_https(publish: Publish, site: Site, refused: Callable[..., str]) -> None:
    address = publish()
    site.files["/release/night.safetensors"] = redirect("http://example.org/night.safetensors")
    assert "leads to another address: http://example.org/night.safetensors is not https" in refused(address)
    assert "is not https" in refused("http://example.org/night")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "../up"}, '"name": expected letters'),
        ({"name": "/etc/up"}, '"name": expected letters'),
        (
            {"weights": {"file": "../up.safetensors"}},
            '"weights.network.file": expected a *.safetensors file name',
        ),
        ({"weights": {"file": "/tmp/up.safetensors"}}, '"weights.network.file": expected'),
        ({"weights": {"file": "a\nb.safetensors"}}, '"weights.network.file": expected'),
        ({"weights": {"file": "\ud800.safetensors"}}, "half a character"),
        ({"weights": {"file": "config.json"}}, '"weights.network.file": expected'),
        ({"weights": {"url": "file:///etc/passwd"}}, '"weights.network.url": expected an https address'),
        ({"weights": {"url": "http://example.org/w"}}, '"weights.network.url": expected an https address'),
        ({"weights": {"url": "https://me:secret@example.org/w"}}, '"weights.network.url": expected an https address'),
        ({"weights": {"url": ["https://example.org/w"]}}, '"weights.network.url": expected an https address'),
        ({"weights": {"bytes": 0}}, '"weights.network.bytes": expected a whole number from 1 up'),
        ({"weights": {"bytes": "9"}}, '"weights.network.bytes": expected a whole number from 1 up'),
        ({"network": {"gain": 1e12}}, '"network": expected'),
        ({"network": {"gian": 2.0}}, '"network" does not fit the architecture tiny'),
        ({"architecture": "owl"}, '"architecture": expected one of'),
        ({"size_multiple": 4}, '"size_multiple": expected 8'),
        (
            {"architecture": "kind", "network": {"restoration_channels": 9999}, "size_multiple": 1},
            "do not fit the network of config.json",
        ),
    ],
    ids=str,
)
def test_what_a_strangers_config_cannot_do(
    changes: dict[str, Any], says: str, publish: Publish, site: Site, refused: Callable[..., str]
) -> None:
    address = publish("night")
    config = json.loads(site.files["/night/config.json"])  # type: ignore[arg-type]
    weights = {"network": config["weights"]["network"] | changes.get("weights", {})}
    site.files["/night/config.json"] = json.dumps(config | changes | {"weights": weights}).encode()
    said = refused(address)
    assert says in said
    assert address in said


def test_a_file_that_is_no_safetensors(publish: Publish, site: Site, refused: Callable[..., str]) -> None:
    content = b"\x80\x04 a pickle"
    address = publish(weights={"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)})
    site.files["/release/night.safetensors"] = content
    assert "is not a safetensors file" in refused(address)


def test_a_missing_model_card_is_said(publish: Publish, site: Site) -> None:
    address = publish()
    del site.files["/night/README.md"]
    (note,) = pull_model(address).notes
    assert note.startswith("it has no README.md")


def test_a_model_that_is_here_is_not_fetched_again(publish: Publish, site: Site) -> None:
    address = publish()
    before = folder_bytes(pull_model(address).card.folder)
    for source in (address, "night"):
        site.asked.clear()
        assert pull_model(source).kept
        assert "/release/night.safetensors" not in site.paths()
        assert folder_bytes(user_models() / "night") == before
    publish(summary="the same in other words")
    site.asked.clear()
    pulled = pull_model(address)
    assert pulled.kept
    assert "it is kept unless you overwrite it" in pulled.notes[0]
    assert pull_model(address, overwrite=True).card.summary == "the same in other words"
    assert "/release/night.safetensors" not in site.paths(), "the weights were there"


def test_another_model_gives_way_when_told_to_and_when_the_new_one_is_complete(
    publish: Publish, site: Site, refused: Callable[..., str]
) -> None:
    pull_model(publish())
    former = find_model("night").weights_sha256
    address = publish(gain=3.0)
    assert f"holds another model (SHA-256 {former}, not " in refused(address)
    content = site.files.pop("/release/night.safetensors")
    assert "404" in refused(address, overwrite=True)
    load(find_model("night"))
    site.files["/release/night.safetensors"] = content
    card = pull_model(address, overwrite=True).card
    assert card.weights_sha256 != former
    load(card)


def test_damaged_weights_are_replaced_when_told_to(publish: Publish, refused: Callable[..., str]) -> None:
    address = publish()
    card = pull_model(address).card
    card.path(card.files["network"]).write_bytes(b"damaged")
    assert "is damaged: replace it (argument overwrite)" in refused(address)
    assert "is damaged: replace it (argument overwrite)" in refused("night")
    load(pull_model("night", overwrite=True).card)


def test_nothing_but_a_model_folder_is_replaced(publish: Publish, tmp_path: Path, refused: Callable[..., str]) -> None:
    address = publish()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"dear to me")
    assert "choose another" in refused(address, tmp_path / "photos", overwrite=True)
    assert "not a folder" in refused(address, tmp_path / "photos" / "a.jpg", overwrite=True)
    assert "cannot be written" in refused(address, tmp_path / "photos" / "a.jpg" / "night")
    (tmp_path / "empty").mkdir()
    load(pull_model(address, tmp_path / "empty").card)


def test_a_stranger_does_not_take_another_models_name_unasked(
    publish: Publish, make_model: MakeModel, tmp_path: Path, refused: Callable[..., str]
) -> None:
    address = publish("kind")
    assert "another model is called kind here already" in refused(address)
    assert pull_model(address, tmp_path / "theirs").card.name == "kind"
    assert find_model("kind").architecture == "kind"
    pull_model(address, overwrite=True)
    assert find_model("kind").architecture == "tiny"
    make_model("kind")  # in LUMEN_MODELS
    assert any("has the same name and goes before it" in note for note in pull_model(address, overwrite=True).notes)


def test_a_mean_needs_its_members_and_no_weights(
    publish: Publish, site: Site, make_model: MakeModel, refused: Callable[..., str]
) -> None:
    make_model("one")
    members = [
        {"model": "one", "sha256": find_model("one").weights_sha256},
        {"model": "night", "sha256": find_model("one").weights_sha256},
        {"model": "dusk", "sha256": "0" * 64},
    ]
    config = {"name": "both", "architecture": "mean", "members": members, "size_multiple": 8}
    site.files["/both/config.json"] = json.dumps(config).encode()
    assert "there is no model night and no model dusk here, which it averages" in refused(f"{site.address}/both")
    pull_model(publish())
    del members[2]
    site.files["/both/config.json"] = json.dumps(config).encode()
    pulled = pull_model(f"{site.address}/both")
    assert (pulled.weights_from, pulled.card.files) == ((), {})
    load(find_model("both"))
    shutil.rmtree(user_models() / "night")
    with pytest.raises(ModelError, match="there is no model night here"):
        pull_model("both")


def test_a_member_without_weights_is_said(listed: Path, site: Site, make_model: MakeModel) -> None:
    make_model("one")
    members = [{"model": name, "sha256": find_model(name).weights_sha256} for name in ("one", "night")]
    config = {"name": "both", "architecture": "mean", "members": members, "size_multiple": 8}
    site.files["/both/config.json"] = json.dumps(config).encode()
    assert any(
        "night has no weights here yet: run `lumen models pull night`" in note
        for note in pull_model(f"{site.address}/both").notes
    )


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_interrupted_pull_leaves_nothing(how: str, listed: Path, tmp_path: Path) -> None:
    from lumen_cli.cli import ending_cleanly

    def interrupt(*_: object) -> None:
        if how == "Ctrl-C":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)

    before = folder_bytes(tmp_path)
    with pytest.raises(KeyboardInterrupt if how == "Ctrl-C" else SystemExit), ending_cleanly():
        pull_model("night", progress=interrupt)
    assert folder_bytes(tmp_path) == before
    assert not list(tmp_path.rglob(".lumen-*"))


def test_what_a_killed_pull_left_is_swept_and_never_listed(listed: Path) -> None:
    name = temporary_beside(user_models() / "night").name
    left = user_models() / name.replace(f"-{os.getpid()}-", "-999999999-")
    left.parent.mkdir(parents=True)
    shutil.copytree(listed, left)
    assert find_model("night").folder == listed
    pull_model("night")
    assert [entry.name for entry in user_models().iterdir()] == ["night"]


def test_a_model_whose_weights_are_nowhere(make_model: MakeModel, refused: Callable[..., str]) -> None:
    (make_model("tiny") / "network.safetensors").unlink()
    assert 'has no network.safetensors, and its config.json no "url"' in refused("tiny")


def test_models_without_their_weights_are_not_chosen_by_themselves(listed: Path, site: Site) -> None:
    from lumen_cli.benchmark.speed import speed_cases
    from lumen_cli.benchmark.speed_request import SpeedRequest

    config = json.loads((listed / "config.json").read_text()) | {"name": "lightendiffusion"}
    (listed / "config.json").write_text(json.dumps(config))
    assert find_model("lightendiffusion").to_pull
    assert find_model("auto").name != "lightendiffusion"
    assert "lightendiffusion" not in [case.model for case in speed_cases(SpeedRequest(models=("all",)))]


def test_an_unknown_name(models_root: Path, refused: Callable[..., str]) -> None:
    assert "unknown model 'nigth'" in refused("nigth")
