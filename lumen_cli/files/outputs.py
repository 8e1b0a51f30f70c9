"""Where each picture's result goes: mirrored trees, names that cannot collide, inputs that cannot be overwritten."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from lumen_cli.atomic import TEMPORARY_PREFIX, temporary_beside
from lumen_cli.errors import UsageError
from lumen_cli.files.find import Source, absolute, is_picture_name
from lumen_cli.imaging.formats import SUFFIX_FORMATS, format_for, kept_suffix, require_writable

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "stem": "the picture's name without its ending",
        "suffix": "the output's ending, with its dot",
        "parent": "the name of the folder the picture is in",
        "model": "the model's name",
        "seed": "the run's seed",
        "part": "what the file holds, where a picture becomes several",
    }
)
"""What may stand in braces."""

_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f]")


@dataclass(frozen=True)
class NameTemplate:
    """A checked template. values: what is the same for every picture (model, seed)."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)

    def name(self, **fields: str) -> str:
        """One output's name. fields: what is this picture's own (stem, suffix, parent, part).

        Raises:
            UsageError: the result is no file name: it has a separator in it, or is one that means a folder.
        """
        name = self.text.format_map({**self.values, **fields})
        if not _is_file_name(name, fields["suffix"]):
            raise UsageError(f"--name-template {self.text}: {name!r} is no file name")
        return name

    def uses(self, name: str) -> bool:
        """Whether a field stands in it."""
        return any(part[1] == name for part in string.Formatter().parse(self.text))


def name_template(text: str, **values: str) -> NameTemplate:
    """Check a template.

    Nothing but the plain fields is allowed in braces: no attributes, no indices, no conversions, no formats. `{{` and
    `}}` stand for braces.

    Raises:
        UsageError: the template is empty, has an unknown field or a path separator, or does not end with {suffix}.
    """

    def refused(why: str) -> UsageError:
        return UsageError(f"--name-template {text or '(empty)'}: {why}")

    known = "{" + "} {".join(name for name in FIELDS if name in values or name in ("stem", "suffix", "parent")) + "}"
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise refused(f"the braces do not fit ({error}); fields: {known}") from None
    for literal, name, form, conversion in parts:
        if not _is_piece(literal):
            raise refused("names files, and cannot hold a path separator or a control character")
        if name is not None and (name not in FIELDS or f"{{{name}}}" not in known or form or conversion):
            asked = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise refused(f"there is no field {{{asked}}}; fields: {known}")
    if not parts or parts[-1][1] != "suffix":
        raise refused("has to end with {suffix}, the ending that says the format (--format chooses it)")
    return NameTemplate(text, {name: _NOT_IN_NAMES.sub("_", value) for name, value in values.items()})


def _is_piece(text: str) -> bool:
    return _NOT_IN_NAMES.search(text) is None


def _is_file_name(name: str, suffix: str) -> bool:
    """Whether it is a name, on this system, with that ending, and none of lumen's temporary files'."""
    path = Path(name)
    return (
        "\0" not in name
        and path.parts == (name,)
        and name not in (os.curdir, os.pardir)
        and path.suffix == suffix
        and not name.startswith(TEMPORARY_PREFIX)
    )


ADDITION = "-enhanced"


@dataclass(frozen=True)
class Job:
    """One picture and the file its result will become."""

    source: Source
    target: Path
    """Absolute path of the file to write."""


def plan_outputs(
    sources: Sequence[Source],
    output: str | os.PathLike[str] | None,
    suffix: str | None,
    template: NameTemplate | None = None,
) -> list[Job]:
    """Name the output of every picture; nothing is written.

    Args:
        sources: what `find_pictures` found.
        output: a folder or, for one picture named directly, a file. None: `photos` becomes `photos-enhanced` beside
            it, `a.jpg` becomes `a-enhanced.jpg` beside it. A string may end with a separator to say "folder".
        suffix: the ending results shall have (".png"), or None to keep each picture's own.
        template: what results are called; None: as their pictures.

    Returns:
        One job a source, in the order of `sources`. No two targets are equal, even where the file system ignores case
        and Unicode spelling; which name a picture gets depends on the set of sources, not on their order.

    Raises:
        UsageError: an output would overwrite an input or lie in an input folder, two pictures would get one name,
            or `output` cannot be what it would have to be.
    """
    single = _single_file(sources, output, suffix)
    if single is not None and template is not None:
        raise UsageError(f"{single} names the output, and so does --name-template; leave one of the two out")
    if single is not None:
        jobs = [Job(sources[0], single)]
    else:
        base = None if output is None else absolute(output)
        names = _root_names(sources)
        jobs = [Job(s, _target(s, base, suffix, template, names)) for s in sources]
        if template is not None and not template.uses("stem"):
            _refuse_one_name(jobs, template)
        jobs = _without_collisions(jobs)
    protect_inputs(jobs)
    return jobs


def output_folders(jobs: Iterable[Job]) -> set[Path]:
    """The folders that results are written into."""
    return {job.target.parent for job in jobs}


def check_writable(folder: Path) -> None:
    """Create a folder and prove that a file can be written in it.

    Raises:
        UsageError: in one line, which path stands in the way and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_beside(folder / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except FileExistsError:
        raise UsageError(f"{folder}: a file of this name is in the way of the output folder") from None
    except NotADirectoryError:
        blocking = next((p for p in [folder, *folder.parents] if p.exists() and not p.is_dir()), folder)
        raise UsageError(f"{folder}: the output folder cannot be created, {blocking} is a file") from None
    except OSError as error:
        raise UsageError(f"{folder}: the output folder cannot be written to ({error.strerror or error})") from None


def _single_file(sources: Sequence[Source], output: str | os.PathLike[str] | None, suffix: str | None) -> Path | None:
    """The file `output` names, when it names one rather than a folder."""
    if output is None:
        return None
    text = os.fspath(output)
    if text == "":
        raise UsageError("the output's name is empty")
    is_folder = Path(text).is_dir() or text.endswith(tuple(filter(None, (os.sep, os.altsep))))
    if is_folder or not is_picture_name(Path(text).name):
        return None
    if len(sources) != 1 or sources[0].root is not None:
        raise UsageError(
            f"{text}: one file cannot take the {len(sources)} pictures of a folder or list; "
            f"name a folder (or, for a folder of that name, {text}{os.sep})"
        )
    require_writable(format_for(text))
    if suffix is not None and not _same_format(Path(text).suffix, suffix):
        raise UsageError(f"{text}: the output's ending and the format asked for ({suffix[1:]}) do not agree")
    return absolute(text)


def _target(
    source: Source, base: Path | None, suffix: str | None, template: NameTemplate | None, root_names: dict[Path, Path]
) -> Path:
    name = source.relative
    wanted = kept_suffix(name.suffix) if suffix is None else suffix
    if wanted != name.suffix and not _same_format(name.suffix, wanted):
        name = name.with_name(f"{name.stem}{wanted}")
    if template is not None:
        name = name.with_name(template.name(stem=name.stem, suffix=name.suffix, parent=source.path.parent.name))
    if base is not None:
        below = root_names[source.root] if source.root and len(root_names) > 1 else Path()
        return base / below / name
    if source.root is None:
        addition = "" if template else ADDITION
        return source.path.with_name(f"{name.stem}{addition}{name.suffix}")
    if not source.root.name:
        raise UsageError(f"{source.root}: name an output folder with -o, there is no place beside this one")
    return source.root.with_name(source.root.name + ADDITION) / name


def _root_names(sources: Iterable[Source]) -> dict[Path, Path]:
    """For each input folder its own name, with as many parents as tell it from the other folders."""
    names: dict[Path, Path] = {}
    waiting = {source.root for source in sources if source.root is not None}
    length = 1
    while waiting:
        grouped: dict[str, list[Path]] = defaultdict(list)
        for root in waiting:
            parts = [part for part in root.parts if part != root.anchor]
            grouped[folded(Path(*parts[-length:]))].append(root)
        for roots in grouped.values():
            longest = max(len(root.parts) for root in roots) <= length
            if len(roots) == 1 or longest:
                for root in roots:
                    names[root] = Path(*[part for part in root.parts if part != root.anchor][-length:])
                    waiting.discard(root)
        length += 1
    return names


def _without_collisions(jobs: list[Job]) -> list[Job]:
    """Rename where two results would share a file: first by the old ending (`a_jpg.png`), then by number."""
    jobs = list(jobs)
    for indices in _colliding(jobs):
        for i in indices:
            old = jobs[i].source.relative.suffix
            if old != jobs[i].target.suffix:
                jobs[i] = replace(jobs[i], target=_renamed(jobs[i].target, f"_{old[1:]}" if old else "_"))
    taken = {folded(job.target) for job in jobs}
    for indices in _colliding(jobs):
        # The name belongs to the picture that bears it; then names that differ in case or Unicode spelling only.
        ordered = sorted(indices, key=lambda i: (_is_renamed(jobs[i]), os.fsencode(jobs[i].target), _place(jobs[i])))
        if len({_place(jobs[i]) for i in indices}) < len(indices):
            first, second = sorted(os.fsdecode(jobs[i].source.path) for i in indices)[:2]
            raise UsageError(
                f"{first} and {second} would both be written to {jobs[indices[0]].target}; "
                "run them separately, name the folder that holds them, or tell them apart with "
                "--name-template {parent}-{stem}{suffix}"
            )
        for i in ordered[1:]:
            number = 2
            while folded(_renamed(jobs[i].target, f"_{number}")) in taken:
                number += 1
            jobs[i] = replace(jobs[i], target=_renamed(jobs[i].target, f"_{number}"))
            taken.add(folded(jobs[i].target))
    return jobs


def _refuse_one_name(jobs: Sequence[Job], template: NameTemplate) -> None:
    for first, second, *_ in _colliding(jobs):
        raise UsageError(
            f"--name-template {template.text}: gives {jobs[first].source.path} and {jobs[second].source.path} "
            "one name; tell them apart with {stem}"
        )


def _is_renamed(job: Job) -> bool:
    return job.source.relative.name != job.target.name


def _place(job: Job) -> bytes:
    """What numbers are given by: a picture's name in its folder, or in the tree that is searched."""
    return os.fsencode(job.source.relative)


def _colliding(jobs: Sequence[Job]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, job in enumerate(jobs):
        groups[folded(job.target)].append(i)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def protect_inputs(jobs: Sequence[Job]) -> None:
    """Refuse whatever would write into an input folder, over an input file, or a file where a folder is needed."""
    inputs = {os.path.realpath(job.source.path): job.source.path for job in jobs}
    identities = {identity: path for path in inputs.values() if (identity := _identity(path))}
    roots = {Path(os.path.realpath(job.source.root)): job.source.root for job in jobs if job.source.root}
    for folder in output_folders(jobs):
        real = Path(os.path.realpath(folder))
        for place in (real, *real.parents):
            if place in roots:
                where = "is" if place == real else "lies inside"
                raise UsageError(
                    f"{folder}: the output folder {where} the input folder {roots[place]}; name another with -o"
                )
    folders = {folded(parent): parent for folder in output_folders(jobs) for parent in (folder, *folder.parents)}
    for job in jobs:
        overwritten = inputs.get(os.path.realpath(job.target))
        if overwritten is None and (identity := _identity(job.target)):
            overwritten = identities.get(identity)
        if overwritten is not None:
            raise UsageError(
                f"{job.target}: the result of {job.source.path} would overwrite the input {overwritten}; "
                "name another output with -o"
            )
        if folded(job.target) in folders:
            raise UsageError(f"{job.target}: would have to be both a picture and a folder; name another output with -o")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _same_format(one: str, other: str) -> bool:
    known = SUFFIX_FORMATS.get(one.lower())
    return known is not None and known == SUFFIX_FORMATS.get(other.lower())


def _renamed(target: Path, addition: str) -> Path:
    return target.with_name(f"{target.stem}{addition}{target.suffix}")


def folded(path: Path) -> str:
    """The path as a file system would compare it that ignores case and Unicode spelling."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())
