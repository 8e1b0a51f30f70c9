"""Plan where each picture's result goes: mirrored trees, no two results in one file, no input overwritten."""

from __future__ import annotations

import os
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lumen_cli.atomic import TEMPORARY_PREFIX, temporary_beside
from lumen_cli.errors import UsageError
from lumen_cli.files import Job, Source, is_tar_name, suffix_of
from lumen_cli.files.collisions import avoid_collisions, each_once, find_collisions, fold_case, protect_inputs
from lumen_cli.files.find import absolute, is_picture_name
from lumen_cli.files.places import ObjectPath
from lumen_cli.imaging.formats import ANIMATED_SUFFIXES, SUFFIXES, find_format, is_animated, is_clip_name, keep_suffix

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "stem": "the picture's name without its ending",
        "suffix": "the output's ending, with its dot",
        "parent": "the name of the folder the picture is in",
        "model": "the model's name",
        "seed": "the run's seed",
        "part": "the content of the file, where a picture becomes several",
    }
)
"""What a template may have in braces."""

ADDITION = "-enhanced"
"""What ends the name of an output that lies beside its input."""

_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f]")
_FILE_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}")
"""What ends the names of files rather than of folders ("2024.06", "v1.0")."""
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


@dataclass(frozen=True)
class NameTemplate:
    """A checked template for the names of outputs."""

    text: str
    values: Mapping[str, str] = field(default_factory=dict)
    """Values that are the same for every picture (model, seed)."""

    def name(self, **fields: str) -> str:
        """The name of one output. fields: the picture's own values (stem, suffix, parent, part).

        Raises:
            UsageError: the result is not a file name: it has a separator, or names a folder.
        """
        name = self.text.format_map({**self.values, **fields})
        if not _is_file_name(name, fields["suffix"]):
            raise UsageError(f"name template {self.text}: {name!r} is not a file name")
        return name

    def uses(self, name: str) -> bool:
        """Whether it has this field."""
        return any(part[1] == name for part in string.Formatter().parse(self.text))


def parse_template(text: str, **values: str) -> NameTemplate:
    """Check a template.

    Braces may only have plain fields: no attributes, no indices, no conversions, no formats. `{{` and `}}` are braces.

    Raises:
        UsageError: the template is empty, has an unknown field or a path separator, or does not end with {suffix}.
    """
    start = f"name template {text or '(empty)'}:"
    allowed = [name for name in FIELDS if name in values or name in ("stem", "suffix", "parent")]
    known = " ".join(f"{{{name}}}" for name in allowed)
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"{start} the braces do not match ({error}); fields: {known}") from None
    for literal, name, form, conversion in parts:
        if _NOT_IN_NAMES.search(literal):
            raise UsageError(f"{start} a file name has no path separator or a control character")
        if name is not None and (name not in allowed or form or conversion):
            asked = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise UsageError(f"{start} there is no field {{{asked}}}; fields: {known}")
    if not parts or parts[-1][1] != "suffix":
        raise UsageError(f"{start} has to end with {{suffix}}, the ending of the output's format", remedy="format")
    return NameTemplate(text, {name: _NOT_IN_NAMES.sub("_", value) for name, value in values.items()})


def _is_file_name(name: str, suffix: str) -> bool:
    """Whether it is a name on this system, with that ending, and not one of lumen's temporary files."""
    path = Path(name)
    return (
        "\0" not in name
        and path.parts == (name,)
        and name not in (os.curdir, os.pardir)
        and path.suffix == suffix
        and not name.startswith(TEMPORARY_PREFIX)
    )


def plan_outputs(
    sources: Sequence[Source],
    output: str | os.PathLike[str] | None,
    suffix: str | None,
    template: NameTemplate | None = None,
) -> list[Job]:
    """Name the output of every picture; nothing is written.

    Args:
        sources: from `find_pictures`.
        output: a folder or, for one picture named directly, a file. None: `photos` becomes `photos-enhanced` beside
            it, `a.jpg` becomes `a-enhanced.jpg` beside it. A string that ends with a separator is a folder.
        suffix: the ending of the results (".png"); None keeps each picture's own. Clips and tar files
            always keep theirs.
        template: the names of results; None: those of the pictures.

    Returns:
        One job a source, in the order of `sources`. No two targets are equal, even where the file system ignores case
        and Unicode spelling. A picture's name depends on the set of sources, not on their order.

    Raises:
        UsageError: an output would overwrite an input or lie in an input folder, two pictures would get one name,
            or `output` is not possible.
    """
    single = _single_file(sources, output, suffix)
    if single is not None and template is not None:
        raise UsageError(f"{single} names the output already; leave the template out", remedy="name_template")
    if single is not None:
        jobs = [Job(sources[0], single)]
    else:
        base = None if output is None else absolute(output)
        naming = _Naming(base, suffix, template, _name_roots(sources))
        jobs = [naming.job(source) for source in sources]
        if template is not None and not template.uses("stem"):
            for first, second, *_ in find_collisions(jobs):
                raise UsageError(
                    f"name template {template.text}: gives {jobs[first].source.path} and {jobs[second].source.path} "
                    "the same name; tell them apart with {stem}"
                )
        jobs = avoid_collisions(jobs)
    protect_inputs(jobs)
    return jobs


def check_writable(folder: Path) -> None:
    """Create a folder and check that a file can be written in it; a folder in a store needs neither.

    Raises:
        UsageError: which path is in the way, and why.
    """
    if isinstance(folder, ObjectPath):
        return
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
    """The file that `output` names; None where it names a folder."""
    if output is None:
        return None
    text = os.fspath(output)
    if text == "":
        raise UsageError("the output's name is empty")
    name = Path(text).name
    if Path(text).is_dir() or text.endswith(_SEPARATORS):
        return None
    is_one = len(sources) == 1 and sources[0].root is None
    if not _names_a_file(name):
        if is_one and _FILE_ENDING.fullmatch(Path(name).suffix):
            try:
                find_format(text)
            except UsageError as error:
                raise UsageError(f"{error}; for a folder of that name, {text}{os.sep}", remedy="output") from None
        return None
    if not is_one:
        raise UsageError(
            f"{text}: one file cannot take the {len(sources)} pictures of a folder or list; "
            f"name a folder (or, for a folder of that name, {text}{os.sep})"
        )
    given = sources[0].name
    moves, is_tar = is_clip_name(given), is_tar_name(given)
    if (moves, is_tar) != (is_clip_name(name), is_tar_name(name)):
        what = "a clip" if moves else "a tar file" if is_tar else "a picture"
        raise UsageError(f"{text}: {given} is {what}, and its output has to be one too", remedy="output")
    if moves or is_tar:
        return absolute(text)
    if not stays_animated(sources[0].path, Path(text)):
        find_format(text).require_package()
    if suffix is not None and not _same_format(Path(text).suffix, suffix):
        raise UsageError(f"{text}: the output's ending and the requested format ({suffix[1:]}) do not agree")
    return absolute(text)


class _Naming:
    """The names of results. base: the folder that is named, None where there is none; others: as in `plan_outputs`."""

    def __init__(
        self, base: Path | None, suffix: str | None, template: NameTemplate | None, root_names: dict[Path, Path]
    ) -> None:
        self._base, self._suffix, self._template, self._root_names = base, suffix, template, root_names
        self._endings: dict[str, str] = {}
        self._last: Source | None = None
        self._folder = Path()

    def job(self, source: Source) -> Job:
        """The job of a picture."""
        last = self._last
        if last is None or not (
            source.folder is last.folder and source.below is last.below and source.root is last.root
        ):
            self._folder, self._last = self._find_folder(source), source
        return Job.within(source, self._folder, self._name(source))

    def _find_folder(self, source: Source) -> Path:
        if self._base is not None:
            several = source.root is not None and len(self._root_names) > 1
            return self._base / (self._root_names[source.root] if several else Path()) / source.below  # type: ignore[index]
        return source.folder if source.root is None else folder_beside(source.root, ADDITION) / source.below

    def _name(self, source: Source) -> str:
        name = source.relative_name
        suffix = suffix_of(name)
        ending = self._endings.get(suffix)
        if ending is None:
            ending = self._endings[suffix] = self._ending(name, suffix)
        if self._suffix is None and suffix.lower() == ".gif" and stays_animated(source.path, Path(name)):
            ending = suffix
        stem = name[: -len(suffix)] if suffix else name
        if self._template is not None:
            return self._template.name(stem=stem, suffix=ending, parent=source.folder.name)
        if self._base is None and source.root is None:
            return f"{stem}{ADDITION}{ending}"
        return name if ending == suffix else f"{stem}{ending}"

    def _ending(self, name: str, suffix: str) -> str:
        """The ending of the results of still pictures, clips and tar files with an ending."""
        if is_clip_name(name) or is_tar_name(name):
            return suffix
        wanted = keep_suffix(suffix) if self._suffix is None else self._suffix
        return suffix if _same_format(suffix, wanted) else wanted


def _names_a_file(name: str) -> bool:
    return is_picture_name(name) or is_clip_name(name) or is_tar_name(name)


def folder_beside(root: Path, addition: str) -> Path:
    """The folder of the outputs of an input folder where none is named.

    Raises:
        UsageError: the input is the root of a disk or a whole bucket.
    """
    if not root.name or (isinstance(root, ObjectPath) and root.is_bucket):
        raise UsageError(f"{root}: no place beside this folder for the outputs; name a folder", remedy="output")
    return root.with_name(root.name + addition)


def _name_roots(sources: Iterable[Source]) -> dict[Path, Path]:
    """For each input folder its own name, with as many parents as tell it from the other folders."""
    names: dict[Path, Path] = {}
    waiting = set(each_once(source.root for source in sources if source.root is not None))
    length = 1
    while waiting:
        grouped: dict[str, list[Path]] = defaultdict(list)
        for root in waiting:
            parts = [part for part in root.parts if part != root.anchor]
            grouped[fold_case(Path(*parts[-length:]))].append(root)
        for roots in grouped.values():
            longest = max(len(root.parts) for root in roots) <= length
            if len(roots) == 1 or longest:
                for root in roots:
                    names[root] = Path(*[part for part in root.parts if part != root.anchor][-length:])
                    waiting.discard(root)
        length += 1
    return names


def stays_animated(source: Path, target: Path) -> bool:
    """Whether the output of a picture is an animation too. Of objects in stores only the first frame is read."""
    possible = target.suffix.lower() in ANIMATED_SUFFIXES and not isinstance(source, ObjectPath)
    return possible and is_animated(source)


def _same_format(one: str, other: str) -> bool:
    known = SUFFIXES.get(one.lower())
    return known is not None and known == SUFFIXES.get(other.lower())
