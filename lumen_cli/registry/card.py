"""A model folder's config.json as a checked value."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic.json_schema import GenerateJsonSchema

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry import CONFIG_FILE, read_config, show

LARGEST_NUMBER = 10_000
"""No network has so many channels, layers or steps; a stranger's folder must not make lumen build one for ever."""
_LONGEST_LIST = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Plain http to these is safe: what is sent does not leave the machine."""
_SINGLE_FILES = {
    "3afd2a5ff94e7ce9f3eb5baf0299b703e35db07173135ac938a57b8eb78c46e8": (
        "a31a18d5c57a7e0bebd956756ef04e478100bcebf0db11fc878a11d1e1cde3de"  # anlightendiff
    ),
    "0a0d97cc666a88377fff201a976bb1acb755546d27d9aadbad62f21b59758747": (
        "546aed7d50a598326ebbd1a0833fb98e3a887c0b298b91863423166f5d3e9ba3"  # diffll
    ),
    "41178f778c1e18cdc182a0f875ca756087bd0c24ec86e4fd3aef9689167250c3": (
        "07906f5d2c0bc749bf0a278c91d25ccf498c7331b283b34ca7505092406e5e8d"  # kind
    ),
    "eced1bed33d9d2f960a583614cd99f8177ff539d8d869156555d08961c5ecb2c": (
        "181b4415dc990217d45e24e030f6aa25467362516ddb768016b3fb775e46001f"  # lightendiffusion
    ),
    "65cc39448ae6cfd349dda015e8ab84b6287bc71031aaaf397dcad4c76c9b837d": (
        "902eef6ebf77fd9324ccb1b2dceb6b666abcfef0154f1e420f4b841c93f3ad99"  # lldiffusion
    ),
}
"""Digest of a network's and a grading's checksums → checksum of the single file that held both in earlier versions.
It keeps standing for these weights, so that outputs and members from that time stay valid."""


def is_web_address(text: str) -> bool:
    """Whether a text is an https address, or plain http to this machine, without user name and password."""
    if not text.isprintable() or " " in text or len(text) > 2000:
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port  # checked when it is read
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS)
    return secure and bool(parts.hostname) and "@" not in parts.netloc


def _is_file_name(text: str) -> bool:
    """A bare name: a stranger's folder must not name files elsewhere."""
    return text.endswith(".safetensors") and text.isprintable() and len(text) <= 200 and not set("/\\:") & set(text)


def _is_modest(value: Any) -> bool:
    """Whether a hyper-parameter has a size that occurs; infinity and NaN do not."""
    if isinstance(value, dict | list):
        return len(value) <= _LONGEST_LIST and all(
            map(_is_modest, value.values() if isinstance(value, dict) else value)
        )
    return not isinstance(value, int | float) or -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def _require(accepts: Any) -> AfterValidator:
    def check(value: Any) -> Any:
        if not accepts(value):
            raise ValueError
        return value

    return AfterValidator(check)


# The text in each type is what messages give as "expected".
Precision = Literal["fp32", "bf16", "fp16"]
Ability = Literal["enhance", "decompose", "illumination-ratio"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
ABILITIES: tuple[str, ...] = get_args(Ability)
_LIST = Field(strict=False)  # JSON has no tuples
_Text = Annotated[str, "a text"]
_Texts = Annotated[tuple[str, ...], _LIST, "a list of texts"]
_Count = Annotated[int, Field(ge=1), "a whole number from 1 up"]
_Positive = Annotated[int, Field(ge=1, le=LARGEST_NUMBER), "a whole number from 1 up"]
_Width = Annotated[int, Field(ge=1, le=256), "a whole number from 1 to 256"]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$"), "64 hexadecimal digits in lower case"]
_Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$"), "letters, digits and ._- without spaces"]
_FileName = Annotated[str, _require(_is_file_name), "a *.safetensors file name inside the model folder"]
_Address = Annotated[str, _require(is_web_address), "an https address without user name and password"]
_Range = Annotated[
    tuple[_Positive, _Positive],
    _LIST,
    _require(lambda pair: pair[0] <= pair[1]),
    "two whole numbers [lowest, highest] from 1 up",
]
_Network = Annotated[
    dict[str, Any], _require(_is_modest), f"an object of hyper-parameters, numbers up to {LARGEST_NUMBER}"
]


class _Fields(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, fields: Any) -> Any:
        return {name: v for name, v in fields.items() if v is not None} if isinstance(fields, dict) else fields


class Defaults(_Fields):
    """What a run takes where the user asks for nothing else."""

    steps: _Positive | None = None
    """Sampling steps; none for a network that does not sample."""
    precision: _Text = "auto"
    """One of `precisions`, or auto: the device decides."""


class WeightsFile(_Fields):
    """A safetensors file."""

    file: _FileName
    sha256: _Sha256
    url: _Address | None = None
    """Where `lumen models pull` fetches the file if it does not come with the folder."""
    bytes: _Count | None = None


class Weights(_Fields):
    """The weights files. A model that averages others has only a grading, or none."""

    network: Annotated[WeightsFile, "an object with file and sha256"] | None = None
    grading: Annotated[WeightsFile, "an object with file and sha256"] | None = None
    parameters: _Count | None = None
    """Number of parameters, those of members included."""


class GradingSize(_Fields):
    """Arguments of the `Grading`."""

    model_config = ConfigDict(extra="forbid")
    channels: _Width
    heads: _Width


class Paper(_Fields):
    """The paper that describes the network."""

    title: _Text = ""
    url: _Text = ""


class ImportedFile(_Fields):
    """A file of the authors' checkpoint that the weights come from."""

    file: Annotated[str, Field(pattern=r"\S")]
    sha256: _Sha256


class Member(_Fields):
    """A model whose results are averaged: its name, the checksum that stands for its weights, its share."""

    model: _Name
    sha256: _Sha256
    share: Annotated[float, Field(gt=0, le=LARGEST_NUMBER)] = 1.0


class ModelCard(_Fields):
    """What config.json says about a model. Unknown fields are ignored, a null counts as a missing field."""

    name: _Name
    architecture: Annotated[str, Field(pattern=r"\S"), "an architecture's name"]
    summary: _Text = ""
    best_for: _Text = ""
    """When to choose the model, in a few words."""
    seconds: Annotated[float, Field(gt=0, le=86400), "a number of seconds above 0"] | None = None
    """For a picture of 600×400 pixels on two CPU cores."""
    network: _Network
    """Hyper-parameters: arguments of the architecture's network."""
    members: Annotated[
        tuple[Member, ...],
        _LIST,
        Field(max_length=8),
        _require(lambda members: len(members) != 1),
        "a list of 2 to 8 objects with a model's name, its weights' sha256 and a share",
    ] = ()
    """The models whose results this model averages; each is found by name."""
    defaults: Annotated[Defaults, "an object with steps and precision"] = Defaults()
    steps_range: _Range | None = None
    """Fewest and most sampling steps; none for a network that does not sample."""
    size_multiple: _Positive = 1
    """The network takes sides that are multiples of it; lumen pads pictures."""
    precisions: Annotated[tuple[Precision, ...], _LIST, f"a list of {', '.join(PRECISIONS)}"] = ("fp32",)
    tiling: Annotated[bool, "true or false"] = False
    """Whether tiles give the untiled result."""
    abilities: Annotated[tuple[Ability, ...], _LIST, f"a list of {', '.join(ABILITIES)}"] = ("enhance",)
    weights: Annotated[Weights, "an object with network and grading"] = Weights()
    grading: Annotated[GradingSize, "an object with channels and heads"] | None = None
    """The size of the `Grading` of the results, if there is one."""
    trained_on: _Texts = ()
    licence: _Text = ""
    paper: Annotated[Paper, "an object with title and url"] = Paper()
    official_checkpoint: _Text = ""
    """Where the authors publish their weights."""
    imported_from: Annotated[tuple[ImportedFile, ...], _LIST, "a list of objects with a file and its sha256"] = ()
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self._folder

    @property
    def files(self) -> dict[str, WeightsFile]:
        """The weights files by part: "network", "grading". A folder of an earlier version has both in the former."""
        parts = {"network": self.weights.network, "grading": self.weights.grading}
        return {part: file for part, file in parts.items() if file is not None}

    @property
    def weights_sha256(self) -> str:
        """The checksum that stands for all weights, those of members included, in manifests and members."""
        own = [file.sha256 for file in self.files.values()]
        if len(own) == 2:
            both = _digest(own)
            own = [_SINGLE_FILES.get(both, both)]
        return _digest([*(f"{each.sha256} {each.share}" for each in self.members), *own]) if self.members else own[0]

    @property
    def to_pull(self) -> bool:
        """Whether a weights file is not here yet, but the card says where it is."""
        return any(file.url and not self.path(file).exists() for file in self.files.values())

    def path(self, file: WeightsFile) -> Path:
        """Where a weights file lies."""
        return self.folder / file.file

    def precision_for(self, asked: str) -> str:
        """The precision to ask a device for: `asked`, or the default in place of "auto"."""
        return self.defaults.precision if asked == "auto" else asked

    def steps_for(self, asked: int | None) -> int | None:
        """The steps to run: `asked`, or the default; UsageError outside the model's range."""
        if asked is None:
            return self.defaults.steps
        if self.steps_range is None:
            raise UsageError(f"{self.name} does not sample: it runs in one pass and takes no steps (asked for {asked})")
        lowest, highest = self.steps_range
        if not lowest <= asked <= highest:
            raise UsageError(f"{self.name} takes from {lowest} to {highest} steps, not {asked}")
        return asked


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_card(folder: Path) -> ModelCard:
    """Read and check `folder/config.json`; ModelError names the file, the field, what is expected and what is found."""
    config = read_config(folder)
    current = _update(config)
    try:
        card = ModelCard.model_validate(current)
        problem = next(_contradictions(card), None)
    except ValidationError as error:
        problem = _locate(error, current)
    if problem is not None:
        name, expected, found = problem
        if "weights" in config and current["weights"] is not config["weights"]:
            name = re.sub(r"^weights\.(network|grading)", "weights", name)
        verdict = " is missing: expected {}" if found is None else ": expected {}, found {}"
        raise ModelError(f'{folder / CONFIG_FILE}: "{name}"' + verdict.format(expected, show(found)))
    card._folder = folder
    return card


def _update(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other fields, and translate fields of earlier versions."""
    current = {"grading" if name == "rendition" else name: value for name, value in config.items()}
    averages, graded = bool(current.get("members")), current.get("grading") is not None
    if averages and current.get("network") is None:
        current["network"] = {}
    defaults, weights, abilities = (current.get(name) for name in ("defaults", "weights", "abilities"))
    if isinstance(defaults, dict) and isinstance(defaults.get("steps"), int) and current.get("steps_range") is None:
        current["steps_range"] = [defaults["steps"]] * 2
    if isinstance(abilities, list):
        current["abilities"] = ["illumination-ratio" if each == "brightness" else each for each in abilities]
    if isinstance(weights, dict) and {"file", "sha256"} & weights.keys():  # one file, not one a part
        file = {name: value for name, value in weights.items() if name != "parameters"}
        part = {"grading" if averages else "network": file} if graded or not averages else {}
        current["weights"] = {**part, "parameters": weights.get("parameters")}
    return current


Problem = tuple[str, str, Any]
"""A field, what is expected in it and what is found: None if it is missing."""


def _contradictions(card: ModelCard) -> Iterator[Problem]:
    """Fields that do not fit each other."""
    steps, precision = card.defaults.steps, card.defaults.precision
    if steps is not None and card.steps_range is not None and not card.steps_range[0] <= steps <= card.steps_range[1]:
        yield "defaults.steps", "a whole number from {} to {} (steps_range)".format(*card.steps_range), steps
    if precision not in ("auto", *card.precisions):
        yield "defaults.precision", f"one of auto, {', '.join(card.precisions)}", precision
    if not card.members and "network" not in card.files:
        yield "weights.network", "an object with file and sha256", None
    if card.members and "network" in card.files:
        yield "weights.network", "nothing beside members", card.files["network"].file
    if card.members and card.grading and "grading" not in card.files:
        yield "weights.grading", "an object with file and sha256", None
    if "grading" in card.files and not card.grading:
        yield "grading", "an object with channels and heads", None


def _locate(error: ValidationError, config: Any) -> Problem:
    """The first field that is wrong: the innermost that has a name."""
    model: Any = ModelCard
    names, expected, found = [], "", config
    for part in error.errors(include_url=False)[0]["loc"]:
        if part not in getattr(model, "model_fields", ()):
            break
        field = model.model_fields[part]
        inner = get_args(field.annotation)
        names.append(str(part))
        texts = [*field.metadata, *(text for each in inner for text in getattr(each, "__metadata__", ()))]
        expected = next(text for text in texts if isinstance(text, str))
        found = found.get(part)
        types = (field.annotation, *(getattr(each, "__origin__", each) for each in inner))
        model = next((each for each in types if hasattr(each, "model_fields")), None)
    return ".".join(names), expected, found


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def write_schema() -> str:
    """The JSON schema of config.json, the content of docs/model-config.json."""
    schema = ModelCard.model_json_schema(schema_generator=_Untitled)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
