import json
import sys
from pathlib import Path

import pytest
import torch

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry import find_model, list_models, scan_models
from lumen_cli.registry.card import read_card, write_schema
from lumen_cli.registry.load import load
from tests.conftest import MakeModel

WEIGHTS = {"file": "network.safetensors", "sha256": "0" * 64}
MEMBERS = [{"model": "a", "sha256": "0" * 64}] * 2
SIZE = {"channels": 8, "heads": 1}


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def test_a_model_is_found_by_its_name_and_by_its_folder(make_model: MakeModel) -> None:
    folder = make_model("tiny")
    assert find_model("tiny").folder == folder
    assert find_model(str(folder)) == find_model("tiny")
    assert "tiny" in [card.name for card in list_models()]


def test_the_card_says_what_the_config_says(make_model: MakeModel) -> None:
    card = find_model(make_model("tiny", abilities=["enhance", "decompose"], paper={"title": "T", "url": "U"}))
    assert (card.defaults.steps, card.steps_range, card.precisions) == (2, (1, 10), ("fp32", "bf16"))
    assert (card.abilities, card.paper.title, card.paper.url) == (("enhance", "decompose"), "T", "U")
    assert [card.path(file).is_file() for file in card.files.values()] == [True]


def test_a_users_model_wins_by_name_over_others(
    make_model: MakeModel, models_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("the user's data folder is set by XDG_DATA_HOME on Linux only")
    users = tmp_path / "data-home" / "lumen" / "models"
    make_model("tiny", root=users, summary="the user's")
    assert find_model("tiny").summary == "the user's"
    make_model("tiny", summary="from LUMEN_MODELS")
    assert find_model("tiny").summary == "from LUMEN_MODELS"
    assert [card.name for card in list_models()].count("tiny") == 1


def test_an_unknown_name_gets_the_nearest_one_and_the_list(make_model: MakeModel) -> None:
    make_model("nightowl")
    make_model("tiny")
    expected = r"unknown model 'nigthowl'\. Did you mean nightowl\? Known models: .*nightowl.*tiny"
    with pytest.raises(ModelError, match=expected):
        find_model("nigthowl")


def test_a_folder_without_config_is_no_model(tmp_path: Path, models_root: Path) -> None:
    with pytest.raises(ModelError, match=r"is no model folder: it has no config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(ModelError, match="there is no model folder"):
        find_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("address", ["hf://", "hf://name", "hf://a/b/c", "hf:///name"])
def test_a_hugging_face_address_needs_organisation_and_name(address: str, models_root: Path) -> None:
    with pytest.raises(ModelError, match="expected hf://organisation/name"):
        find_model(address)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ...}, r'"name" is missing: expected letters'),
        ({"name": "two words"}, r'"name": expected letters.* found "two words"'),
        ({"architecture": 3}, r'"architecture": expected an architecture\'s name, found 3'),
        ({"network": [1]}, r'"network": expected an object .*, found \[1\]'),
        ({"steps_range": [5, 1]}, r'"steps_range": expected two whole numbers .*, found \[5, 1\]'),
        ({"steps_range": [0, 4]}, r'"steps_range": .* from 1 up, found \[0, 4\]'),
        ({"defaults": {"steps": "four"}}, r'"defaults\.steps": expected a whole number from 1 up, found "four"'),
        ({"defaults": {"steps": 11}}, r'"defaults\.steps": expected a whole number from 1 to 10 .*, found 11'),
        (
            {"defaults": {"steps": 2, "precision": "fp16"}},
            r'"defaults\.precision": expected one of auto.* found "fp16"',
        ),
        ({"defaults": 4}, r'"defaults": expected an object with steps and precision, found 4'),
        ({"precisions": ["fp8"]}, r'"precisions": expected a list of fp32, bf16, fp16, found \["fp8"\]'),
        ({"size_multiple": 0}, r'"size_multiple": expected a whole number from 1 up, found 0'),
        ({"size_multiple": True}, r'"size_multiple": expected a whole number from 1 up, found true'),
        ({"tiling": "no"}, r'"tiling": expected true or false, found "no"'),
        (
            {"abilities": ["fly"]},
            r'"abilities": expected a list of enhance, decompose, illumination-ratio, found \["fly"\]',
        ),
        ({"weights": {"sha256": "0" * 64}}, r'"weights\.file" is missing'),
        ({"weights": 5}, r'"weights": expected an object with network and grading, found 5'),
        ({"weights": {}}, r'"weights\.network" is missing: expected an object with file and sha256'),
        ({"weights": {"network": "x"}}, r'"weights\.network": expected an object with file and sha256, found "x"'),
        (
            {"weights": {"network": {"file": "a.bin"}}},
            r'"weights\.network\.file": expected a \*\.safetensors .* "a\.bin"',
        ),
        (
            {"weights": {"network": WEIGHTS, "grading": WEIGHTS}},
            r'"grading" is missing: expected an object with channels',
        ),
        ({"members": MEMBERS}, r'"weights\.network": expected nothing beside members, found "network\.safetensors"'),
        ({"members": MEMBERS, "weights": {}, "grading": SIZE}, r'"weights\.grading" is missing'),
        ({"members": MEMBERS[:1]}, r'"members": expected a list of 2 to 8 objects'),
        ({"weights": {"file": "../../x.safetensors"}}, r'"weights\.file": .* inside the model folder, found'),
        ({"weights": {"file": "model.bin"}}, r'"weights\.file": expected a \*\.safetensors file name'),
        ({"weights": {"file": "m.safetensors", "sha256": "abc"}}, r'"weights\.sha256": expected 64 hex.* found "abc"'),
        ({"trained_on": "LOL"}, r'"trained_on": expected a list of texts, found "LOL"'),
        ({"licence": 1}, r'"licence": expected a text, found 1'),
    ],
)
def test_a_bad_field_is_named_with_file_expectation_and_finding(
    fields: dict[str, object], complaint: str, make_model: MakeModel
) -> None:
    folder = make_model("tiny")
    change(folder, **fields)
    with pytest.raises(ModelError, match=complaint) as caught:
        read_card(folder)
    assert str(caught.value).startswith(str(folder / "config.json"))
    assert "\n" not in str(caught.value)


def test_the_schema_in_the_docs_is_current() -> None:
    stored = Path(__file__).parents[2] / "docs" / "model-config.json"
    assert stored.read_text(encoding="utf-8") == write_schema(), "write it again with registry.card.write_schema"


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\ufeffx"])
def test_a_config_that_is_no_object_is_one_clear_error(text: str, make_model: MakeModel) -> None:
    folder = make_model("tiny")
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_card(folder)


def test_one_broken_folder_hides_no_other_model_but_says_so_when_named(make_model: MakeModel) -> None:
    make_model("tiny")
    broken = make_model("broken")
    change(broken, network=None)
    cards, problems = scan_models()
    assert "tiny" in [card.name for card in cards]
    assert [folder for folder, _ in problems] == [broken]
    with pytest.raises(ModelError, match='"network" is missing'):
        find_model("broken")


def test_loading_gives_the_network_ready_to_run_in_float32(make_model: MakeModel) -> None:
    network = load(find_model(make_model("tiny", network={"gain": 3.0})))
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())
    low = torch.full((1, 3, 8, 8), 0.1)
    assert network.enhance(low, noise=torch.zeros(1, 3, 1, 1)).mean() > 0.2


def test_damaged_weights_are_refused_with_both_checksums(make_model: MakeModel) -> None:
    card = find_model(make_model("tiny"))
    path = card.path(card.files["network"])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"model tiny: .*network\.safetensors is damaged: expected SHA-256") as caught:
        load(card)
    import hashlib

    assert card.weights_sha256 in str(caught.value)
    assert hashlib.sha256(bytes(content)).hexdigest() in str(caught.value)


def test_an_unknown_architecture_is_named_with_those_that_are_known(make_model: MakeModel) -> None:
    card = find_model(make_model("tiny", architecture="transformer9000"))
    with pytest.raises(
        ModelError, match=r'"architecture": expected one of .*lightendiffusion.*tiny.*"transformer9000"'
    ):
        load(card)


def test_hyper_parameters_that_the_network_does_not_take_are_an_error_of_the_config(make_model: MakeModel) -> None:
    folder = make_model("tiny")
    change(folder, network={"gian": 2.0})
    with pytest.raises(ModelError, match=r"config\.json: \"network\" does not fit the architecture tiny: .*gian"):
        load(find_model("tiny"))


def test_a_wrong_size_multiple_is_found_out(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match=r'"size_multiple": expected 8 .*, found 4'):
        load(find_model(make_model("tiny", size_multiple=4)))


def test_steps_outside_the_models_range_are_refused(make_model: MakeModel) -> None:
    card = find_model(make_model("tiny"))
    assert (card.steps_for(None), card.steps_for(7)) == (2, 7)
    with pytest.raises(UsageError, match="tiny takes from 1 to 10 steps, not 11"):
        card.steps_for(11)
    one_pass = find_model(make_model("onepass", defaults={}, steps_range=None))
    assert one_pass.steps_for(None) is None
    with pytest.raises(UsageError, match="does not sample"):
        one_pass.steps_for(1)


def test_the_default_is_the_best_for_each_task() -> None:
    assert find_model("auto").name == "lumen"
    assert find_model("auto", "decompose").name == "kind"
