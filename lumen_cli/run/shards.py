"""Parts of a run for several machines, and what the manifests of a folder say of its outputs."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from lumen_cli.errors import UsageError
from lumen_cli.files.contents import hash_file, known_state
from lumen_cli.run.existing import is_unchanged

if TYPE_CHECKING:
    from pathlib import Path

    from lumen_cli.files import Source
    from lumen_cli.run.manifest import Record

_SPELLING = re.compile(r"(\d{1,9})/(\d{1,9})")
_INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the pictures; number: from 1 to `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, key: PurePath) -> bool:
        """Whether a picture belongs to this part.

        A hash of the picture's path below its input folder decides, so that other pictures, their order and the machine
        change nothing.

        >>> [number for number in range(1, 5) if Shard(number, 4).holds(PurePath("night/a.jpg"))]
        [3]
        """
        digest = hashlib.blake2b(os.fsencode(key.as_posix()), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1

    @property
    def manifest_name(self) -> str:
        """The name of its manifest among those of the folder's parts."""
        digits = len(str(self.count))
        return f"{self.number:0{digits}}-of-{self.count}.jsonl"


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """A part from its spelling.

    Args:
        text: "2/8"; "auto", in a Slurm job array; or "auto/8", in a job array of 8 or an indexed Kubernetes job of 8.
        environment: variables, those of the process by default.

    Raises:
        UsageError: it is no such spelling, a number is out of range, or a variable is missing.

    >>> parse_shard("2/8")
    Shard(number=2, count=8)
    >>> parse_shard("auto/8", {"JOB_COMPLETION_INDEX": "0"})
    Shard(number=1, count=8)
    """
    if text == "auto" or text.startswith("auto/"):
        return _from_environment(text, os.environ if environment is None else environment)
    found = _SPELLING.fullmatch(text)
    if found is None:
        raise UsageError(f"shard {text}: expected NUMBER/COUNT, such as 2/8, or auto")
    return _in_range(text, int(found[1]), int(found[2]))


def _in_range(text: str, number: int, count: int) -> Shard:
    if not 1 <= number <= count:
        raise UsageError(f"shard {text}: the number must lie between 1 and {max(count, 1)}, not be {number}")
    return Shard(number, count)


def _from_environment(text: str, environment: Mapping[str, str]) -> Shard:
    name = next((name for name in _INDEX_VARIABLES if environment.get(name)), None)
    if name is None:
        raise UsageError(f"shard {text}: neither {' nor '.join(_INDEX_VARIABLES)} is set; name the part, such as 2/8")
    try:
        number = int(environment[name])
        if name == "SLURM_ARRAY_TASK_ID":
            first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{part}") or 1) for part in ("MIN", "STEP"))
            number = (number - first) // step + 1 if "SLURM_ARRAY_TASK_MIN" in environment else number
            count = environment.get("SLURM_ARRAY_TASK_COUNT", "")
        else:
            number, count = number + 1, ""
        if text != "auto":
            count = text.removeprefix("auto/")
        if not count:
            raise UsageError(f"shard {text}: {name} does not tell the number of parts; name it, such as auto/8")
        return _in_range(f"{text} ({name} is {environment[name]})", number, int(count))
    except ValueError:
        raise UsageError(
            f"shard {text}: expected auto, or auto/COUNT, and whole numbers in {name} and others"
        ) from None


State = Literal["done", "missing", "changed", "stale", "new", "failed"]
STATES: Mapping[State, str] = {
    "done": "complete, as lumen wrote it",
    "missing": "recorded, and no longer there",
    "changed": "changed since lumen wrote it",
    "stale": "its input has changed since",
    "new": "an input without output",
    "failed": "the last attempt failed",
}
"""The states of an output, and what each means."""


@dataclass(frozen=True)
class OutputState:
    """output: name below the folder, "" where the input has none yet; source: as in `Record`; reason: of a failure;
    manifest: the name of the manifest that records it.
    """

    output: str
    source: str
    state: State
    manifest: str = ""
    reason: str = ""


def find_states(root: Path, sources: Sequence[Source] | None = None) -> list[OutputState]:
    """What the manifests of a folder say of its outputs, sorted by name.

    Args:
        root: the folder.
        sources: the inputs, to find new and changed ones; None: only what is recorded.

    Raises:
        UsageError: the folder has no manifest.
        LumenError: a manifest cannot be read.
    """
    from lumen_cli.run.manifest import last_records

    inputs = None if sources is None else {source.relative.as_posix(): source.path for source in sources}
    records = last_records(root)
    if not records and not inputs:
        raise UsageError(f"{root}: lumen recorded no outputs here; name the folder that it wrote to")
    found: dict[str, OutputState] = {}
    for manifest, record in records:
        known = found.get(record.output)
        # The part that wrote the file speaks for it, where the number of parts changed between runs.
        if known is None or known.state != "done":
            state = _state_of(root, record, None if inputs is None else inputs.get(record.source))
            found[record.output] = OutputState(record.output, record.source, state, manifest, record.failure or "")
    recorded = {state.source for state in found.values()}
    new = [OutputState("", name, "new") for name in inputs or () if name not in recorded]
    return [*(found[name] for name in sorted(found)), *sorted(new, key=lambda state: state.source)]


def count_states(states: Sequence[OutputState]) -> dict[str, Counter[State]]:
    """How many outputs are in each state, by the name of the manifest that records them."""
    counts: dict[str, Counter[State]] = {}
    for state in states:
        counts.setdefault(state.manifest, Counter())[state.state] += 1
    return counts


def _state_of(root: Path, record: Record, source: Path | None) -> State:
    if record.failure:
        return "failed"
    try:
        size = known_state(root / record.output).size
    except OSError:
        return "missing"
    if size != record.output_size:
        return "changed"
    if source is not None and record.source_size is not None:
        try:
            if is_unchanged(record, known_state(source)):
                return "done"
            if known_state(source).size != record.source_size or hash_file(source) != record.source_hash:
                return "stale"  # else it was only touched or copied
        except OSError:
            return "done"
    return "done"
