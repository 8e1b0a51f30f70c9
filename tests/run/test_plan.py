import dataclasses
import os
import sys
from pathlib import Path

import pytest

from lumen_cli.errors import UsageError
from lumen_cli.files import Job, Source
from lumen_cli.files.contents import hash_bytes, hash_file, read_state
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.run.existing import IfExists
from lumen_cli.run.manifest import MANIFEST_NAME, Manifest, Record
from lumen_cli.run.operation import Settings
from lumen_cli.run.plan import Plan, make_plan, output_root
from tests.conftest import write_dark

SETTINGS = Settings("tiny", {"gain": 2.0}, "0" * 64, steps=2)


def jobs_for(photos: Path, output: Path | None = None) -> list[Job]:
    return plan_outputs(find_pictures([str(photos)]), None if output is None else str(output), None)


def record_for(job: Job, fingerprint: str = SETTINGS.fingerprint(), output: bytes = b"done") -> Record:
    source = read_state(job.source.path)
    return Record(
        output=job.target.relative_to(output_root(job)).as_posix(),
        source=job.source.relative.as_posix(),
        source_size=source.size,
        source_mtime_ns=source.mtime_ns,
        source_ctime_ns=source.ctime_ns,
        source_hash=hash_file(job.source.path),
        content="c",
        settings=fingerprint,
        output_size=len(output),
        output_hash=hash_bytes(output),
    )


def pretend_done(jobs: list[Job], fingerprint: str = SETTINGS.fingerprint()) -> None:
    """Leave the folder as a finished run would, with other content."""
    for job in jobs:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_bytes(b"done")
        Manifest(output_root(job)).add(record_for(job, fingerprint))


def resume(jobs: list[Job], settings: Settings = SETTINGS) -> Plan:
    return make_plan(jobs, settings.fingerprint(), IfExists.RESUME)


def test_a_first_run_does_everything_in_order(photos: Path) -> None:
    jobs = jobs_for(photos)
    plan = make_plan(jobs, SETTINGS.fingerprint())
    assert [task.job for task in plan.todo] == jobs
    assert plan.kept == ()
    assert plan.recorded
    assert plan.roots == [photos.with_name("photos-enhanced")]
    assert {task.output for task in plan.todo} == {"a.png", "b.jpg", "c.webp", "night/d.png", "night/e.tif"}
    assert not plan.roots[0].exists()


def test_where_nothing_may_be_there_outputs_that_exist_are_refused(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs[:2])
    with pytest.raises(UsageError, match=r"2 of 5 outputs already exist in .*photos-enhanced.*overwrite"):
        make_plan(jobs, SETTINGS.fingerprint())


def test_resuming_keeps_what_is_finished_and_current(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs[:2])
    plan = resume(jobs)
    assert [task.job for task in plan.kept] == jobs[:2]
    assert [task.job for task in plan.todo] == jobs[2:]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"steps": 3},
        {"strength": 0.5},
        {"weights": "1" * 64},
        {"network": {"gain": 3.0}},
        {"quality": 80},
        {"precision": "bf16"},
        {"deep_precision": "bf16"},
        {"format": ".png"},
        {"architecture": "other"},
    ],
)
def test_other_settings_make_outputs_stale(change: dict[str, object], photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    plan = resume(jobs, dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]
    assert plan.kept == ()
    assert {task.why for task in plan.todo} == {"settings changed"}


def test_a_source_that_changed_makes_its_output_stale(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    write_dark(jobs[0].source.path, seed=9)
    plan = resume(jobs)
    assert [(task.job, task.why) for task in plan.todo] == [(jobs[0], "source changed")]


def test_a_source_that_was_touched_is_read_once_and_its_output_stays(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    os.utime(jobs[0].source.path, ns=(1, 1))
    plan = resume(jobs)
    assert plan.todo == ()
    assert plan.confirmed == ((output_root(jobs[0]), record_for(jobs[0])),)
    Manifest(output_root(jobs[0])).add(record_for(jobs[0]))
    assert resume(jobs).confirmed == ()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no time of change")
def test_an_edit_that_keeps_size_and_time_is_seen(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    source = jobs[0].source.path
    before = source.stat()
    content = bytearray(source.read_bytes())
    content[-5] ^= 1
    source.write_bytes(content)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [(task.job, task.why) for task in resume(jobs).todo] == [(jobs[0], "source changed")]


def test_what_an_older_lumen_recorded_counts_by_size_and_time(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    root = output_root(jobs[0])
    (root / MANIFEST_NAME).unlink()
    older = dataclasses.replace(record_for(jobs[0]), source_hash=None, source_ctime_ns=None, output_hash=None)
    Manifest(root).add(older)
    assert [task.job for task in resume(jobs[:1]).kept] == jobs[:1]
    os.utime(jobs[0].source.path, ns=(1, 1))
    (left,) = resume(jobs[:1]).left  # without a hash anyone's line could name the file
    assert "source changed, but no manifest holds the hash" in left.why


def test_pictures_that_changed_names_are_told_by_content(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    first, second = (Job(job.source, other.target) for job, other in ((jobs[0], jobs[1]), (jobs[1], jobs[0])))
    assert [task.why for task in resume([first, second]).todo] == ["made from another picture"] * 2
    jobs[0].source.path.rename(photos / "renamed.png")
    renamed = Job(Source(photos / "renamed.png", photos, Path("renamed.png")), jobs[0].target)
    assert [task.job for task in resume([renamed]).kept] == [renamed]


def test_an_empty_output_is_not_finished(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    jobs[0].target.write_bytes(b"")
    assert [(task.job, task.why) for task in resume(jobs).todo] == [(jobs[0], "unfinished")]


def test_an_output_that_somebody_changed_stays_and_is_never_replaced_silently(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    jobs[0].target.write_bytes(b"retouched by hand")
    jobs[1].target.write_bytes(b"sold")  # of the same size
    plan = resume(jobs)
    assert plan.todo == plan.left == ()
    assert "changed since lumen wrote it" in {task.why for task in plan.kept}
    plan = resume(jobs, dataclasses.replace(SETTINGS, seed=1))
    assert [task.job for task in plan.left] == jobs[:2]
    assert "settings changed, but" in plan.left[0].why
    assert "overwrite" in plan.left[0].remedy
    assert len(make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE).todo) == 5


def test_an_output_announced_without_a_hash_is_replaced_only_where_it_is_empty(photos: Path) -> None:
    """A run of an older lumen killed between renaming the picture and recording it, or a stranger's line."""
    jobs = jobs_for(photos)
    Path(output_root(jobs[0])).mkdir()
    Manifest(output_root(jobs[0])).add(Record("a.png", "a.png"))
    jobs[0].target.write_bytes(b"done")
    assert "unfinished, but no manifest holds the hash" in resume(jobs[:1]).left[0].why
    jobs[0].target.write_bytes(b"")
    assert [task.why for task in resume(jobs[:1]).todo] == ["unfinished"]


@pytest.mark.parametrize("there", [b"done", b"gone", b"longer"])
def test_a_run_killed_between_record_and_name_is_told_by_content(there: bytes, photos: Path) -> None:
    """The manifest knows what was there before and what was to come; which of them is there, or neither, decides."""
    jobs = jobs_for(photos)[:1]
    pretend_done(jobs, "older settings")
    jobs[0].target.write_bytes(there)
    root = output_root(jobs[0])
    Manifest(root).add(record_for(jobs[0], output=b"gone"))
    plan = resume(jobs)
    if there == b"done":
        assert [task.why for task in plan.todo] == ["settings changed"]
    elif there == b"gone":
        assert [task.why for task in plan.kept] == ["finished"]
    else:
        assert [task.why for task in plan.kept] == ["changed since lumen wrote it"]
    jobs[0].target.unlink()
    assert [task.why for task in resume(jobs).todo] == ["missing"]


@pytest.mark.parametrize(("there", "action"), [(b"done", "kept"), (b"more", "left")])
def test_where_a_line_is_damaged_the_content_tells_whether_an_earlier_one_describes_the_file(
    there: bytes, action: str, photos: Path
) -> None:
    job = jobs_for(photos)[0]
    pretend_done([job])
    manifest = Manifest(output_root(job))
    manifest.add(record_for(job, "others", b"more"))
    manifest.path.write_bytes(manifest.path.read_bytes()[:-9])
    job.target.write_bytes(there)  # of one size, so that no size tells
    plan = resume([job])
    assert [task.job for task in getattr(plan, action)] == [job]
    if action == "kept":
        ((_, confirmed),) = plan.confirmed
        assert confirmed == record_for(job)
    else:
        assert "is damaged" in plan.left[0].why
        manifest.reread().finish()
        assert [task.job for task in resume([job]).left] == [job], "sorting the manifest forgets nothing"


def test_files_of_unknown_origin_are_left_and_the_rest_goes_on(photos: Path) -> None:
    jobs = jobs_for(photos)
    jobs[0].target.parent.mkdir()
    jobs[0].target.write_bytes(b"somebody else's")
    plan = resume(jobs)
    assert [task.job for task in plan.left] == jobs[:1]
    assert "was not created by lumen" in plan.left[0].why
    assert [task.job for task in plan.todo] == jobs[1:]
    assert make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE).todo[0].why == "overwritten"
    plan = make_plan(jobs, SETTINGS.fingerprint(), IfExists.SKIP)
    assert [(task.job, task.why) for task in plan.kept] == [(jobs[0], "exists")]
    assert [task.job for task in plan.todo] == jobs[1:]


def test_links_and_devices_in_the_place_of_an_output_are_left(photos: Path) -> None:
    jobs = jobs_for(photos)
    jobs[0].target.parent.mkdir()
    jobs[0].target.symlink_to("nowhere.png")
    os.mkfifo(jobs[1].target)
    assert [task.job for task in resume(jobs).left] == jobs[:2]
    assert [task.job for task in make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE).left] == jobs[1:2]


def test_a_write_protected_output_is_not_replaced(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    jobs[0].target.chmod(0o444)
    assert resume(jobs).left == ()
    for plan in (
        resume(jobs, dataclasses.replace(SETTINGS, seed=1)),
        make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE),
    ):
        assert [task.job for task in plan.left] == jobs[:1]
        assert "write-protected" in plan.left[0].why


def test_overwriting_does_everything(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    assert len(make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE).todo) == 5


def test_a_folder_in_the_way_of_an_output_is_said_and_the_rest_goes_on(photos: Path) -> None:
    jobs = jobs_for(photos)
    jobs[0].target.mkdir(parents=True)
    plan = make_plan(jobs, SETTINGS.fingerprint(), IfExists.OVERWRITE)
    assert [task.job for task in plan.left] == jobs[:1]
    assert "a folder is in the way" in plan.left[0].why
    assert len(plan.todo) == 4


def test_a_picture_named_alone_leaves_no_manifest_unless_there_is_one(photos: Path, tmp_path: Path) -> None:
    alone = jobs_for(photos / "a.png", tmp_path / "bright.png")
    assert not make_plan(alone, SETTINGS.fingerprint()).recorded
    (tmp_path / MANIFEST_NAME).write_text("")
    assert make_plan(alone, SETTINGS.fingerprint()).recorded


def test_each_input_folder_has_its_own_manifest(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "x.png").write_bytes((photos / "a.png").read_bytes())
    jobs = plan_outputs(find_pictures([str(photos), str(other)]), None, None)
    plan = make_plan(jobs, SETTINGS.fingerprint())
    assert plan.roots == [tmp_path / "others-enhanced", tmp_path / "photos-enhanced"]
