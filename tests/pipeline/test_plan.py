import dataclasses
import os
from pathlib import Path

import pytest

from lumen_cli.errors import UsageError
from lumen_cli.imaging.files import Job, find_pictures, plan_outputs
from lumen_cli.pipeline.manifest import MANIFEST_NAME, Manifest, Record
from lumen_cli.pipeline.plan import Existing, Plan, Settings, make_plan, output_root

SETTINGS = Settings("tiny", {"gain": 2.0}, "0" * 64, steps=2)


def jobs_for(photos: Path, output: Path | None = None) -> list[Job]:
    return plan_outputs(find_pictures([str(photos)]), None if output is None else str(output), None)


def pretend_done(jobs: list[Job], fingerprint: str = SETTINGS.fingerprint()) -> None:
    """Leave the folder as a finished run would, with other content."""
    for job in jobs:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_bytes(b"done")
        root = output_root(job)
        manifest = Manifest(root)
        source = job.source.path.stat()
        name = job.target.relative_to(root).as_posix()
        manifest.begin([])
        manifest.add(
            Record(name, job.source.relative.as_posix(), source.st_size, source.st_mtime_ns, "c", fingerprint, 4)
        )


def resume(jobs: list[Job], settings: Settings = SETTINGS) -> Plan:
    return make_plan(jobs, settings.fingerprint(), Existing.RESUME)


def test_a_first_run_does_everything_in_order(photos: Path) -> None:
    jobs = jobs_for(photos)
    plan = make_plan(jobs, SETTINGS.fingerprint())
    assert [task.job for task in plan.todo] == jobs
    assert plan.kept == ()
    assert plan.recorded
    assert plan.roots == [photos.with_name("photos-enhanced")]
    assert {task.output for task in plan.todo} == {"a.png", "b.jpg", "c.webp", "night/d.png", "night/e.tif"}
    assert not plan.roots[0].exists()


def test_outputs_that_exist_are_refused_with_the_two_ways_on(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs[:2])
    with pytest.raises(UsageError, match=r"2 of 5 outputs already exist in .*photos-enhanced.*--resume.*--overwrite"):
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
    os.utime(jobs[0].source.path, ns=(1, 1))
    plan = resume(jobs)
    assert [(task.job, task.why) for task in plan.todo] == [(jobs[0], "source changed")]


def test_an_output_of_another_size_is_not_finished(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    jobs[0].target.write_bytes(b"cut")
    assert [(task.job, task.why) for task in resume(jobs).todo] == [(jobs[0], "unfinished")]


def test_an_announced_output_is_this_programs_to_replace(photos: Path) -> None:
    """A run killed between renaming the picture and recording it."""
    jobs = jobs_for(photos)
    Path(output_root(jobs[0])).mkdir()
    Manifest(output_root(jobs[0])).begin([Record("a.png", "a.png")])
    jobs[0].target.write_bytes(b"done")
    assert len(resume(jobs).todo) == 5


def test_resuming_does_not_replace_files_of_unknown_origin(photos: Path) -> None:
    jobs = jobs_for(photos)
    jobs[0].target.parent.mkdir()
    jobs[0].target.write_bytes(b"somebody else's")
    with pytest.raises(UsageError, match=r"no manifest says that lumen wrote .*a\.png"):
        resume(jobs)
    assert make_plan(jobs, SETTINGS.fingerprint(), Existing.OVERWRITE).todo[0].why == "overwritten"


def test_overwriting_does_everything(photos: Path) -> None:
    jobs = jobs_for(photos)
    pretend_done(jobs)
    assert len(make_plan(jobs, SETTINGS.fingerprint(), Existing.OVERWRITE).todo) == 5


def test_a_folder_in_the_way_of_an_output_is_refused(photos: Path) -> None:
    jobs = jobs_for(photos)
    jobs[0].target.mkdir(parents=True)
    with pytest.raises(UsageError, match=r"a\.png: a folder of that name is in the way"):
        make_plan(jobs, SETTINGS.fingerprint(), Existing.OVERWRITE)


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
