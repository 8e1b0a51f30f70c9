"""A model folder's config.json as a checked value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen_cli.errors import ModelError, UsageError
from lumen_cli.registry.card_fields import (
    LARGEST_GRADING,
    LARGEST_NUMBER,
    NAME,
    Fields,
    are_files,
    are_members,
    each,
    is_count,
    is_duration,
    is_filled,
    is_grading,
    is_network,
    is_positive,
    is_range,
    is_sha256,
    is_text,
    is_web_address,
    is_weights_name,
    require_bounded,
    shown,
)

HUGGING_FACE = "hf://"
"""What the address of a model on Hugging Face starts with."""
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
"""What lumen calls the weights of the folders it makes; a config.json may name another file."""
CARD_FILE = "README.md"
"""The model card for people: origin, training, figures, licence."""
ABILITIES = ("enhance", "decompose", "illumination-ratio")
_OLD_ABILITIES = {"brightness": "illumination-ratio"}
"""What folders of the first version call them."""
PRECISIONS = ("fp32", "bf16", "fp16")
LARGEST_TEXT = 1 << 20
"""Bytes that a config.json or a README.md may have."""


@dataclass(frozen=True)
class ImportedFile:
    """A foreign checkpoint's file that a model was made of, and its checksum."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Member:
    """One of the models whose pictures a model averages: its name, the checksum of its weights, its share."""

    name: str
    sha256: str
    share: float = 1.0


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says about itself.

    `default_steps` and `steps_range` are None for a network that does not sample; `parameters` is None where the
    folder does not count them; texts that the folder leaves out are empty. `imported_from` names the files of others
    that the weights come from, if they do. `grading` has the arguments of the `Grading` of its pictures, if it
    has one. `members` are other models, found by name, whose pictures it averages: such a model has weights of its
    own for a grading alone, else an empty `weights_file`. `weights_sha256` stands for all that a result depends on,
    theirs too; `file_sha256` is that of `weights_file`. `weights_url` ("url" of "weights") is the https address of that
    file, where it is too large to come with the folder, and `weights_bytes` ("bytes") how large it is; empty and None
    where the folder does not say. `best_for`: when to choose it, in a few words; `seconds`: for a picture of 600×400
    pixels on two CPU cores.
    """

    folder: Path
    name: str
    architecture: str
    summary: str
    network: Mapping[str, Any]
    default_steps: int | None
    steps_range: tuple[int, int] | None
    default_precision: str
    precisions: tuple[str, ...]
    size_multiple: int
    tiling: bool
    abilities: tuple[str, ...]
    weights_file: str
    weights_sha256: str
    parameters: int | None
    trained_on: tuple[str, ...]
    licence: str
    paper_title: str
    paper_url: str
    official_checkpoint: str
    imported_from: tuple[ImportedFile, ...] = ()
    members: tuple[Member, ...] = ()
    grading: Mapping[str, int] | None = None
    file_sha256: str = ""
    weights_url: str = ""
    weights_bytes: int | None = None
    best_for: str = ""
    seconds: float | None = None

    @property
    def weights_path(self) -> Path:
        """Where the weights lie."""
        return self.folder / self.weights_file

    @property
    def to_pull(self) -> bool:
        """Whether the weights are not here yet, but the card says where they are."""
        return bool(self.weights_url) and not self.weights_path.exists()

    def precision_for(self, asked: str) -> str:
        """The precision to ask a device for: what was asked for, or the default in place of "auto"."""
        return self.default_precision if asked == "auto" else asked

    def steps_for(self, asked: int | None) -> int | None:
        """The steps to run: what was asked for, or the default; UsageError outside the model's range."""
        if asked is None:
            return self.default_steps
        if self.steps_range is None:
            raise UsageError(f"{self.name} does not sample: it runs in one pass and takes no steps (asked for {asked})")
        lowest, highest = self.steps_range
        if not lowest <= asked <= highest:
            raise UsageError(f"{self.name} takes from {lowest} to {highest} steps, not {asked}")
        return asked


def read_card(folder: Path) -> ModelCard:
    """Read and check `folder/config.json`; ModelError names the file, the field, what is expected and what is found."""
    path = folder / CONFIG_FILE
    try:
        if not path.is_file() and path.exists():
            raise ModelError(f"{path} is no ordinary file")
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise ModelError(f"{path} is larger than a {CONFIG_FILE} can be ({LARGEST_TEXT >> 20} MiB)")
        config = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG_FILE}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    require_bounded(path, config)
    if not isinstance(config, dict):
        raise ModelError(f"{path}: expected an object with fields, found {shown(config)}")
    fields = Fields(path, config)
    steps_range = fields.get("steps_range", is_range, "two whole numbers [lowest, highest] from 1 up", None)
    default_steps = fields.get("defaults.steps", is_positive, "a whole number from 1 up", None)
    if default_steps is not None and steps_range is None:
        steps_range = (default_steps, default_steps)
    if steps_range is not None:
        fields.get(
            "defaults.steps",
            lambda value: is_positive(value) and steps_range[0] <= value <= steps_range[1],
            f"a whole number from {steps_range[0]} to {steps_range[1]} (steps_range)",
        )
    members = tuple(
        Member(entry["model"], entry["sha256"], float(entry.get("share", 1.0)))
        for entry in fields.get(
            "members", are_members, "a list of 2 to 8 objects with a model's name, its weights' sha256 and a share", []
        )
    )
    grading = fields.get(
        "rendition" if "rendition" in config else "grading",
        is_grading,
        f"an object with channels and heads, whole numbers up to {LARGEST_GRADING}",
        None,
    )
    weights_file = file_sha256 = weights_url = ""
    weights_bytes = None
    if grading is not None or not members:
        weights_file = fields.get("weights.file", is_weights_name, "a *.safetensors file name inside the model folder")
        file_sha256 = fields.get("weights.sha256", is_sha256, "64 hexadecimal digits in lower case")
        weights_url = fields.get("weights.url", is_web_address, "an https address without user name and password", "")
        weights_bytes = fields.get("weights.bytes", is_count, "a whole number from 1 up", None)
    precisions = fields.get("precisions", each(PRECISIONS), f"a list of {', '.join(PRECISIONS)}", ["fp32"])
    return ModelCard(
        folder=folder,
        name=fields.get("name", lambda v: is_text(v) and NAME.fullmatch(v), "letters, digits and ._- without spaces"),
        architecture=fields.get("architecture", is_filled, "an architecture's name"),
        summary=fields.get("summary", is_text, "a text", ""),
        network=fields.get(
            "network",
            is_network,
            f"an object of hyper-parameters, numbers up to {LARGEST_NUMBER}",
            *([{}] if members else []),
        ),
        default_steps=default_steps,
        steps_range=None if steps_range is None else (steps_range[0], steps_range[1]),
        default_precision=fields.get(
            "defaults.precision", lambda v: v in ("auto", *precisions), f"one of auto, {', '.join(precisions)}", "auto"
        ),
        precisions=tuple(precisions),
        size_multiple=fields.get("size_multiple", is_positive, "a whole number from 1 up", 1),
        tiling=fields.get("tiling", lambda v: isinstance(v, bool), "true or false", False),
        abilities=tuple(
            _OLD_ABILITIES.get(ability, ability)
            for ability in fields.get(
                "abilities",
                each((*ABILITIES, *_OLD_ABILITIES)),
                f"a list of {', '.join(ABILITIES)}",
                ["enhance"],
            )
        ),
        weights_file=weights_file,
        weights_sha256=_digest(members, file_sha256) if members else file_sha256,
        parameters=fields.get("weights.parameters", is_count, "a whole number from 1 up", None),
        trained_on=tuple(fields.get("trained_on", each(), "a list of texts", [])),
        licence=fields.get("licence", is_text, "a text", ""),
        paper_title=fields.get("paper.title", is_text, "a text", ""),
        paper_url=fields.get("paper.url", is_text, "a text", ""),
        official_checkpoint=fields.get("official_checkpoint", is_text, "a text", ""),
        imported_from=tuple(
            ImportedFile(entry["file"], entry["sha256"])
            for entry in fields.get("imported_from", are_files, "a list of objects with a file and its sha256", [])
        ),
        members=members,
        grading=grading,
        file_sha256=file_sha256,
        weights_url=weights_url,
        weights_bytes=weights_bytes,
        best_for=fields.get("best_for", is_text, "a text", ""),
        seconds=fields.get("seconds", is_duration, "a number of seconds above 0", None),
    )


def _digest(members: tuple[Member, ...], own: str) -> str:
    """What stands for the weights of a model that averages others; `own`: the checksum of its own, if it has any."""
    lines = [f"{each.sha256} {each.share}" for each in members]
    return hashlib.sha256("\n".join([*lines, own] if own else lines).encode()).hexdigest()
