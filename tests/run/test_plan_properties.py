"""Whatever happens to a folder between runs, nothing that is not lumen's is replaced, and a run leaves it current."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from lumen_cli.errors import UsageError
from lumen_cli.files import Source
from lumen_cli.files.contents import Original, hash_bytes, hash_file, read_original
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import parse_template, plan_outputs
from lumen_cli.run import Task
from lumen_cli.run.decompose import plan_parts
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest
from lumen_cli.run.plan import Plan, make_plan
from lumen_cli.run.save import Written, record_files, record_of
from tests.files.test_find import plan_in_any_order, sources_below

NAMES = ("a.png", "b.png", "c.png")


class KilledError(BaseException):
    """The run ended here."""


class Folder:
    """A folder of sources and one of outputs, worked on as a run does, and what people put among the outputs."""

    def __init__(self, root: Path) -> None:
        self.sources, self.outputs = root / "in", root / "out"
        self.sources.mkdir()
        self.outputs.mkdir()
        self.peoples: set[bytes] = set()
        self.number = 0
        for name in NAMES:
            self.edit_source(name)

    def fresh(self, what: str) -> bytes:
        """Content that was never there; often of the same size as other content."""
        self.number += 1
        return f"{what} {self.number % 10} {self.number // 10:04}".encode()

    def edit_source(self, name: str) -> None:
        (self.sources / name).write_bytes(self.fresh("source"))

    def edit_quietly(self, name: str) -> None:
        before = (self.sources / name).stat()
        self.edit_source(name)
        os.utime(self.sources / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    def touch(self, name: str) -> None:
        os.utime(self.sources / name)

    def put(self, name: str) -> None:
        content = self.fresh("people")
        self.peoples.add(content)
        (self.outputs / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self.outputs / name).unlink(missing_ok=True)

    def cut_manifest(self, name: str) -> None:
        path = self.outputs / MANIFEST_NAME
        if path.exists():
            path.write_bytes(path.read_bytes()[: -(self.number % 40) or None])

    def forget(self, name: str) -> None:
        (self.outputs / MANIFEST_NAME).unlink(missing_ok=True)

    def plan(self, seed: str, existing: IfExists = IfExists.RESUME) -> Plan:
        return make_plan(plan_outputs(find_pictures([self.sources]), f"{self.outputs}/", None), seed, existing)

    def run(self, seed: str, killed: str | None = None, existing: IfExists = IfExists.RESUME) -> None:
        """What a run does with its outputs' names; killed: the picture at which it ends, before it is renamed."""
        plan = self.plan(seed, existing)
        manifest = Manifest(self.outputs)
        for task in plan.todo:
            original = read_original(task.job.source.path)
            try:
                self._write(task, original, manifest, seed, killed == task.output)
            except KilledError:
                return
        for _, record in plan.confirmed:
            manifest.add(record)
        if killed is None:
            manifest.finish()

    def _write(self, task: Task, original: Original, manifest: Manifest, seed: str, killed: bool) -> None:
        result = self.made(task.output, seed)
        written = Written(task.job.target, len(result), hash_bytes(result))
        record = record_of(task, original, original.content, seed)
        context = record_files(task, record, original, manifest, [written])
        context.__enter__()
        if killed:
            raise KilledError
        task.job.target.write_bytes(result)
        context.__exit__(None, None, None)

    def made(self, name: str, seed: str) -> bytes:
        """A result: of one size whatever the settings."""
        return f"made {seed} {hash_file(self.sources / name)}".encode()


edits = st.sampled_from(["edit_source", "edit_quietly", "touch", "put", "remove", "cut_manifest", "forget"])
steps = st.one_of(
    st.tuples(edits, st.sampled_from(NAMES)),
    st.tuples(st.just("run"), st.sampled_from(["1", "2"]), st.sampled_from([None, None, *NAMES])),
    st.tuples(st.just("skip"), st.just("1"), st.sampled_from([None, *NAMES])),
)


@given(st.lists(steps, max_size=10))
@settings(max_examples=60, deadline=None)
def test_nothing_of_anybodys_is_lost_and_after_a_run_all_is_current(happening: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        for what, name, *more in happening:
            before = {path.read_bytes() for path in folder.outputs.glob("*.png")} & folder.peoples
            if what in ("run", "skip"):
                folder.run(name, more[0], IfExists.RESUME if what == "run" else IfExists.SKIP)
                after = {path.read_bytes() for path in folder.outputs.glob("*.png")}
                assert before <= after, "a run replaced what was not lumen's"
            else:
                getattr(folder, what)(name)
        folder.run("1")
        again = folder.plan("1")
        assert again.todo == ()
        for task in (*again.kept, *again.left):
            content = task.job.target.read_bytes()
            ours = content == folder.made(task.output, "1")
            assert ours or content in folder.peoples or task in again.left
        folder.run("2", existing=IfExists.OVERWRITE)
        assert {path.name: path.read_bytes() for path in folder.outputs.glob("*.png")} == {
            name: folder.made(name, "2") for name in NAMES
        }


part = st.sampled_from(["a", "A", "a-sheet", "a_jpg", "é", "é"])
files = st.builds(str.__add__, part, st.sampled_from([".jpg", ".png", ".tif", ""]))
roots = st.sampled_from(["/lumen-test/in", "/lumen-test/In", "/lumen-test/x/in", ""])
ENDINGS = {"reflectance": "-reflectance.png", "illumination": "-illumination.png", "sheet": "-sheet.png"}


@given(
    st.lists(st.tuples(roots, files), min_size=1, max_size=6, unique=True),
    st.sampled_from([None, "/lumen-test/out/"]),
    st.sampled_from([None, "{stem}-{part}{suffix}", "{part}{stem}{suffix}", "{parent}{part}{stem}{suffix}"]),
    st.randoms(),
)
@settings(max_examples=300, deadline=None)
def test_no_two_files_of_any_pictures_meet_and_none_falls_on_a_source(
    named: list[tuple[str, str]], output: str | None, text: str | None, random: Random
) -> None:
    template = None if text is None else parse_template(text, part="")
    sources = sources_below(named)

    def planned(order: list[Source]) -> dict[Path, list[Path]] | None:
        try:
            jobs, parts = plan_parts(order, output, ENDINGS, template=template)
        except UsageError:
            return None
        return {job.source.path: [part.path for part in of] for job, of in zip(jobs, parts, strict=True)}

    plan = plan_in_any_order(planned, sources, random)
    if plan is None:
        return
    every = [path for paths in plan.values() for path in paths]
    folded = {unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold()) for path in every}
    assert len(folded) == len(ENDINGS) * len(sources)
    assert not set(every) & set(plan)
