"""Model folders of strangers: what their config.json may hold, and which names they may take."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry import find_model, scan_models
from lumen_cli.registry.card import read_card
from lumen_cli.registry.download import pull_model
from tests.conftest import Finished, MakeModel
from tests.registry.test_download import Publish, publish, site  # noqa: F401  (fixtures)

Lumen = Callable[..., Finished]


def nested(depth: int, inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


BAD: dict[str, dict[str, Any]] = {
    "900 deep": {"network": {"a": nested(900)}},
    "17 deep elsewhere": {"extra": nested(17)},
    "a number of 400 digits": {"size_multiple": 10**400},
    "a number of 400 digits elsewhere": {"extra": 10**400},
    "400 digits of bytes": {"weights": {"network": {"file": "a.safetensors", "sha256": "0" * 64, "bytes": 10**400}}},
    "400 digits of a share": {"members": [{"model": "a", "sha256": "0" * 64, "share": 10**400}] * 2},
    "200,000 entries": {"trained_on": ["x"] * 200_000},
    "200,000 fields": {"extra": dict.fromkeys(map(str, range(60_000)), 1)},
    "a text of a megabyte": {"summary": "x" * 900_000},
    "a name of a megabyte": {"name": "x" * 900_000},
    "a key of a megabyte": {"network": {"x" * 900_000: 1}},
    "half a character": {"summary": "\ud800"},
    "a size of a petabyte": {"size_multiple": 1 << 40},
    "a trillion steps": {"steps_range": [1, 10**12]},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_config_beyond_all_bounds_costs_one_line_and_no_command(
    make_model: MakeModel, lumen: Lumen, kind: str
) -> None:
    folder = make_model("stranger")
    make_model("tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | BAD[kind]))
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        read_card(folder)
    assert time.monotonic() - started < 2
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert [path for path, _ in scan_models()[1]] == [folder]
    assert find_model("tiny").name == "tiny"
    for command in (["models"], ["models", "info", "tiny"]):
        finished = lumen(*command)
        assert finished.code == 0, finished.err
        assert "Traceback" not in finished.err


@pytest.mark.parametrize("kind", BAD)
def test_such_a_config_is_refused_before_a_pull_installs_it(publish: Publish, site: Any, kind: str) -> None:  # noqa: F811
    address = publish()
    before = scan_models()
    config = json.loads(site.files["/night/config.json"])
    site.files["/night/config.json"] = json.dumps(config | BAD[kind]).encode()
    with pytest.raises(ModelError):
        pull_model(address)
    assert scan_models() == before


@pytest.mark.parametrize("name", ["auto", "Auto", "AUTO"])
def test_a_name_that_means_something_else_is_taken_by_no_model(publish: Publish, name: str) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="cannot be called"):
        pull_model(publish(name=name), overwrite=True)


@pytest.mark.parametrize("name", ["kind", "Kind", "LUMEN", "lightendiffusion"])
def test_a_built_in_models_name_is_taken_only_where_it_is_asked_for(publish: Publish, name: str) -> None:  # noqa: F811
    address = publish(name=name)
    with pytest.raises(UsageError, match="is called"):
        pull_model(address)
    assert pull_model(address, overwrite=True).card.name == name


def test_the_weights_of_a_built_in_model_with_another_config_do_not_take_its_name(
    publish: Publish,  # noqa: F811
    site: Any,  # noqa: F811
) -> None:
    built_in = find_model("kind")
    publish()
    config = json.loads((built_in.folder / "config.json").read_text())
    config["network"]["target_light"] = 0.9
    site.files["/night/config.json"] = json.dumps(config).encode()
    site.files |= {f"/night/{file.file}": built_in.path(file).read_bytes() for file in built_in.files.values()}
    with pytest.raises(UsageError, match="another model is called kind"):
        pull_model(f"{site.address}/night")
    assert find_model("kind").folder == built_in.folder


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["name", "architecture", "network", "defaults", "steps_range", "precisions", "size_multiple", "tiling"]
FIELDS += [
    "abilities",
    "weights",
    "grading",
    "members",
    "rendition",
    "trained_on",
    "licence",
    "paper",
    "official_checkpoint",
    "imported_from",
    "summary",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3), st.sampled_from(FIELDS))
def test_a_config_is_a_card_or_one_line(tmp_path: Path, changes: dict[str, object], missing: str) -> None:
    config: dict[str, object] = {
        "name": "tiny",
        "architecture": "tiny",
        "network": {},
        "steps_range": [1, 10],
        "defaults": {"steps": 2},
        "weights": {"network": {"file": "network.safetensors", "sha256": "0" * 64}},
    }
    config |= changes
    if missing in changes:
        config.pop(missing)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        card = read_card(tmp_path)
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", card.name)
        assert all(card.path(file).parent == tmp_path for file in card.files.values())
