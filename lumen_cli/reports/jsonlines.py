"""The JSON lines of all commands, every kind; docs/make_schema.py makes their schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from typing_extensions import dataclass_transform

from lumen_cli import __version__

SCHEMA = "lumen/1"
"""The version of all lines. It changes if a field goes or changes its meaning; fields and kinds may be added to it."""


RECORDS: list[type[Record]] = []
"""Every kind of line."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Value:
    """Part of a line. Its subclasses become frozen dataclasses, whose fields are named when one is made."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"use_attribute_docstrings": True}

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)


class Record(Value):
    """One line. `type` names its kind; `extends` names a class whose fields the line has too."""

    type: ClassVar[str]
    extends: ClassVar[str]

    def __init_subclass__(cls, type: str, extends: str = "") -> None:
        super().__init_subclass__()
        cls.type, cls.extends = type, extends
        RECORDS.append(cls)

    def line(self, base: Mapping[str, Any] | None = None) -> str:
        """The line, strict JSON in ASCII: NaN and infinity become null. base: the values of `extends`."""
        head = {"schema": SCHEMA, "type": self.type, "lumen": __version__}
        return json.dumps(strict({**head, **(base or {}), **asdict(self)}), allow_nan=False)


class RunFacts(Value):
    """What all pictures of a run share."""

    model: str
    weights: str
    """The first digits of the SHA-256 that stands for all weights."""
    seed: int | None
    """null for decompose, which draws no noise."""
    device: str
    settings: dict[str, Any]
    """The settings that decide about the outputs, wherever they were set."""


class Seconds(Value):
    """Seconds spent on one picture; a batch's run time is divided evenly."""

    read: float = 0.0
    run: float = 0.0
    write: float = 0.0
    tags: float = 0.0


class Reconstruction(Value):
    """Error of R × L on values from 0 to 1."""

    mae: float
    """Mean absolute error."""
    psnr: float | None
    """In dB; null where there is no error."""


class ClipFigures(Value):
    """What is special about a clip or an animation."""

    frames: int
    key_frames: int
    """Frames that went through the network."""
    fps: float | None
    """Its mean frame rate; null where that is not known."""
    speed: float
    """Frames per second that were made."""


class PictureLine(Record, RunFacts, type="picture"):
    """A picture of `lumen enhance` or `lumen decompose`. All fields are always present."""

    status: Literal["done", "kept", "left", "skipped", "failed", "planned"]
    """kept: its outputs are current; left: lumen did not write the outputs that exist; skipped: not wanted (see
    reason); planned: with --dry-run."""
    input: str
    """"-" for standard input."""
    output: str | None = None
    outputs: dict[str, str] | None = None
    """The files of a picture that becomes several, by content."""
    why: str | None = None
    """Why it is processed or not: "new", "source changed", "finished"."""
    reason: str | None = None
    """Why it failed, was left or skipped."""
    width: int | None = None
    height: int | None = None
    seen: list[int] | None = None
    """Width and height that the network saw; smaller where the result was carried to full size."""
    bytes: int | None = None
    """Of the outputs."""
    seconds: Seconds = Seconds()
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    reconstruction: Reconstruction | None = None
    sidecars: list[str] = field(default_factory=list)
    """Copied sidecar files."""
    precision: str | None = None
    """What the picture was computed in; null where it was not computed."""
    clip: ClipFigures | None = None
    """null for a picture that does not move."""


class PageLine(Record, type="page"):
    """The page of a run, after its pictures (`lumen enhance --page`)."""

    status: Literal["written"] = "written"
    page: str
    pictures: int


class ModelLine(Record, type="model", extends="lumen_cli.registry.card:ModelCard"):
    """A model: the fields of its config.json (docs/model-config.json) and these."""

    folder: str
    weights_sha256: str
    """Stands for all weights, as in manifests."""
    to_pull: bool
    """Whether weights are missing that `lumen models pull` fetches."""


class ReleaseLine(Record, type="release", extends="lumen_cli.registry.architectures:Release"):
    """The authors' own weights of an architecture of which no model is installed."""

    installed: Literal[False] = False
    architecture: str
    command: str
    """The command that imports them."""


class ImportLine(Record, type="import"):
    """A checkpoint that became a model folder."""

    status: Literal["imported"] = "imported"
    name: str
    architecture: str
    folder: str
    same_shapes_as: str | None
    network: dict[str, Any]
    averaged: bool
    parts: dict[str, dict[str, int]]
    """Tensors and parameters by part of the network."""
    matched: int
    rebuilt: list[str]
    ignored: dict[str, list[str]]
    """Names by reason."""
    parameters: int | None
    bytes: int
    weights_sha256: str
    imported_from: list[dict[str, Any]]
    licence: str


class PullLine(Record, type="pull"):
    """A model that was fetched, or was here before ("kept")."""

    status: Literal["pulled", "kept"]
    name: str
    architecture: str
    folder: str
    source: str
    weights_from: list[str]
    parameters: int | None
    bytes: int | None
    weights_sha256: str
    licence: str
    notes: list[str]


class ExportLine(Record, type="export"):
    """A model that was written as a file for another runtime."""

    status: Literal["exported"] = "exported"
    name: str
    folder: str
    bytes: int
    facts: dict[str, Any]
    """The content of the folder's export.json."""


class ModelPathLine(Record, type="model-path"):
    """Where a model is (`lumen models path`), or was (`lumen models remove`)."""

    status: Literal["found", "removed"]
    name: str
    folder: str


class Version(Value):
    """One version of a compared picture, or of all."""

    version: str
    file: str | None = None
    metrics: dict[str, float | Literal["inf", "-inf"] | None]
    """null where a metric is not defined, "inf" for the PSNR of equal pictures."""


class ComparedLine(Record, type="comparison"):
    """A picture of `lumen compare`: its versions, or why it is left out."""

    status: Literal["compared", "failed"]
    picture: str
    reason: str | None = None
    width: int | None = None
    height: int | None = None
    versions: list[Version]


class MeansLine(Record, type="means"):
    """The last line of `lumen compare`: the means of each version, and the files that were written."""

    status: Literal["means"] = "means"
    pictures: int
    reference: str
    versions: list[Version]
    page: str | None
    sheet: str | None


class QualityLine(Record, type="quality"):
    """A model of `lumen benchmark`: means with intervals, the figures of every picture, data set, settings, machine."""

    dataset: dict[str, Any]
    machine: dict[str, Any]
    model: str
    kind: str
    architecture: str | None
    settings: dict[str, Any]
    n: int
    figures: dict[str, dict[str, Any]]
    """By metric: mean, lower, upper, n, best, published, source."""
    pictures: list[dict[str, Any]]
    """Name, width, height, seconds, reason, and a value for each metric."""


class OutputLine(Record, type="output"):
    """An output of `lumen status` that is not done."""

    state: Literal["missing", "changed", "stale", "new", "failed", "done"]
    """missing: recorded, and no longer there; changed: since lumen wrote it; stale: its input has changed since; new:
    an input without output; failed: the last attempt failed."""
    input: str
    """Below the input folder."""
    output: str | None
    """Below the output folder."""
    reason: str | None
    """Why it failed."""
    shard: str | None
    """"3/8" where a part of a run recorded it, "whole" where a whole run did; null for a new input."""


class StatusLine(Record, type="status"):
    """The last line of `lumen status`."""

    folder: str
    states: dict[str, int]
    """How many outputs are in each state."""
    shards: dict[str, dict[str, int]]
    """The same for each shard."""


class LeakLine(Record, type="leak"):
    """A test picture of `lumen benchmark --check-leak` and the most similar training picture."""

    test: str
    train: str
    side: str
    score: float
    correlation: float
    gradients: float
    mirrored: bool
    verdict: str | None
    """null: not similar."""


class SpeedLine(Record, type="speed", extends="lumen_cli.benchmark.speed_request:SpeedResult"):
    """A row of `lumen benchmark --speed`. seconds: per picture; memory: bytes; gflops: 10⁹ operations per picture."""

    pipeline: dict[str, float | None] | None
    """With --pipeline: pictures, seconds, busy, against_alone, images_per_second."""
    images_per_second: float | None
    megapixels_per_second: float | None
    ratio: float | None
    """Time of the reference implementation over ours, by the medians."""


class Loser(Value):
    """A value that another source overrides."""

    value: Any
    source: str
    loses_to: str


class SettingLine(Record, type="setting"):
    """An option that a file or a variable sets (`lumen config`)."""

    command: str
    """The command's name, "" for options of all commands."""
    option: str
    value: Any
    source: str
    """The variable, or the file and line."""
    overrides: list[Loser]


class ConfigFileLine(Record, type="config-file"):
    """Where a configuration file is looked for (`lumen config path`); the first one that is used wins."""

    path: str
    used: bool
    reason: str | None
    """Why it is not used."""


class CheckLine(Record, type="check"):
    """A check of `lumen doctor`."""

    status: Literal["ok", "limited", "broken"]
    """limited: lumen works, but slower or with less; broken: exit code 1."""
    area: str
    """What is checked: "processor", "format", "model", "self-test"."""
    name: str
    found: str
    advice: str | None
    """What to do about it."""
    facts: dict[str, Any]
    """Numbers and names, by what the check is about: cores, bytes, version, path."""


def strict(value: Any) -> Any:
    """The same value with null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
