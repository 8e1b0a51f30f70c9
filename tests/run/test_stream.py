import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lumen_tiny import Tiny

from lumen_cli.engine.device import DevicePolicy, choose_device
from lumen_cli.engine.memory import TilePlan
from lumen_cli.files.find import find_pictures
from lumen_cli.files.outputs import plan_outputs
from lumen_cli.imaging.tags import TagWriter
from lumen_cli.run import Result, RunEndedError, stages
from lumen_cli.run.existing import IfExists
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.plan import Plan, make_plan
from lumen_cli.run.run import Run, RunOptions
from tests.conftest import folder_bytes, read_pixels, write_dark

CPU = choose_device("cpu", "fp32")
SETTINGS = Settings("tiny", {}, "0" * 64, steps=1)


class Batching(DevicePolicy):
    """The CPU taken for a GPU: batches of three."""

    @property
    def single(self) -> bool:
        return False


@pytest.fixture
def tags() -> Iterator[TagWriter]:
    with TagWriter("pillow") as writer:
        yield writer


def planned(folder: Path, output: Path, existing: IfExists = IfExists.REFUSE) -> Plan:
    return make_plan(plan_outputs(find_pictures([str(folder)]), f"{output}/", None), SETTINGS.fingerprint(), existing)


def start(
    plan: Plan,
    tags: TagWriter,
    network: Tiny | None = None,
    policy: DevicePolicy = CPU,
    tiles: TilePlan | None = None,
    jobs: int = 2,
    budget: int | None = None,
    **how: Any,
) -> Generator[Result, None, None]:
    operation = Enhance(SETTINGS, tiles or TilePlan())
    options = RunOptions(jobs=jobs, budget=budget)
    return Run(None, policy, operation, options, network=(network or Tiny()).eval(), tags=tags).results(plan, **how)


def run(plan: Plan, tags: TagWriter, network: Tiny | None = None, **options: Any) -> list[Result]:
    return list(start(plan, tags, network, **options))


def test_every_picture_comes_out_brighter_under_its_own_name(photos: Path, tmp_path: Path, tags: TagWriter) -> None:
    results = run(planned(photos, tmp_path / "out"), tags)
    assert {result.status for result in results} == {"done"}
    for source in (path for path in photos.rglob("*") if path.is_file()):
        target = tmp_path / "out" / source.relative_to(photos)
        assert read_pixels(target).shape == read_pixels(source).shape
        assert read_pixels(target).mean() > 1.3 * read_pixels(source).mean()


def test_a_result_says_size_and_time(photos: Path, tmp_path: Path, tags: TagWriter) -> None:
    results = run(planned(photos, tmp_path / "out"), tags)
    first = next(result for result in results if result.task.output == "a.png")
    assert (first.width, first.height) == (32, 24)
    assert first.size == (tmp_path / "out" / "a.png").stat().st_size
    assert min(first.timings.read, first.timings.run, first.timings.write) > 0


def test_what_cannot_be_read_is_one_failure_and_the_rest_goes_on(photos: Path, tmp_path: Path, tags: TagWriter) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:300])
    (photos / "text.png").write_text("not a picture")
    (photos / "link.png").symlink_to(tmp_path / "nowhere.png")
    results = run(planned(photos, tmp_path / "out"), tags)
    failed = {result.task.output: result.reason for result in results if result.status == "failed"}
    assert set(failed) == {"empty.png", "cut.jpg", "text.png", "link.png"}
    assert all(reason and "\n" not in reason and "fault of lumen" not in reason for reason in failed.values())
    assert len(results) == 9
    assert not {"empty.png", "cut.jpg", "text.png"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_network_without_a_result_fails_that_picture(photos: Path, tmp_path: Path, tags: TagWriter) -> None:
    from PIL import Image

    Image.new("RGB", (32, 24), (250, 250, 250)).save(photos / "white.png")
    results = run(planned(photos, tmp_path / "out"), tags, Tiny(fails_above=0.9))
    assert [result.task.output for result in results if result.status == "failed"] == ["white.png"]
    assert not (tmp_path / "out" / "white.png").exists()


def test_a_fault_in_the_network_fails_its_pictures_and_not_the_run(
    photos: Path, tmp_path: Path, tags: TagWriter
) -> None:
    class Faulty(Tiny):
        def enhance(self, low, **options):  # type: ignore[no-untyped-def]
            if low.shape[-2] > 32:
                raise RuntimeError("sizes of tensors must match")
            return super().enhance(low, **options)

    results = run(planned(photos, tmp_path / "out"), tags, Faulty())
    failed = [result for result in results if result.status == "failed"]
    assert 0 < len(failed) < len(results) == 5
    assert all("RuntimeError: sizes of tensors must match" in (result.reason or "") for result in failed)


def test_a_device_that_no_longer_computes_ends_the_run_in_one_line(
    photos: Path, tmp_path: Path, tags: TagWriter
) -> None:
    absent = DevicePolicy("cuda:9", "a GPU that is gone", "fp32", "fp32", "as asked")
    assert CPU.works()
    assert not absent.works()
    with pytest.raises(RunEndedError, match=r"^cuda:9 no longer computes \(.*\); what is finished is kept: .*$"):
        run(planned(photos, tmp_path / "out"), tags, policy=absent)


def test_a_folder_that_vanishes_during_the_run_fails_its_pictures(
    photos: Path, tmp_path: Path, tags: TagWriter
) -> None:
    def vanish(doing: str) -> None:
        if (tmp_path / "out" / "night").exists():
            (tmp_path / "out" / "night").rmdir()

    results = run(planned(photos, tmp_path / "out"), tags, now=vanish)
    failed = {result.task.output for result in results if result.status == "failed"}
    assert failed == {"night/d.png", "night/e.tif"}


def test_the_order_of_work_and_the_number_of_threads_change_no_byte(
    photos: Path, tmp_path: Path, tags: TagWriter
) -> None:
    run(planned(photos, tmp_path / "one"), tags, jobs=1)
    run(planned(photos, tmp_path / "four"), tags, jobs=4, budget=1)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "four")


def test_batches_hold_pictures_of_one_shape_and_leave_none_behind(tmp_path: Path, tags: TagWriter) -> None:
    for index in range(11):
        write_dark(tmp_path / "in" / f"{index}.png", 24 if index % 3 else 40, 32, seed=index)
    policy = Batching("cpu", "as if a GPU", "fp32", "fp32", "as asked", memory=1 << 30, batch_size=3)
    network = Tiny()
    results = run(planned(tmp_path / "in", tmp_path / "batched"), tags, network, policy=policy)
    assert len(results) == 11
    assert network.largest_batch == 3
    run(planned(tmp_path / "in", tmp_path / "single"), tags)
    for index in range(11):
        batched, single = (read_pixels(tmp_path / folder / f"{index}.png") for folder in ("batched", "single"))
        assert np.abs(batched.astype(int) - single).max() <= 1


def test_few_pictures_are_in_memory_at_once_however_many_there_are(
    tmp_path: Path, tags: TagWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(40):
        write_dark(tmp_path / "in" / f"{index}.png", seed=index)
    read, lock, alive, most = stages.read_picture, threading.Lock(), [0], [0]
    import weakref

    def gone() -> None:
        with lock:
            alive[0] -= 1

    def counting(path: Path, **options: object):  # type: ignore[no-untyped-def]
        picture = read(path, **options)
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        weakref.finalize(picture, gone)
        return picture

    monkeypatch.setattr(stages, "read_picture", counting)
    run(planned(tmp_path / "in", tmp_path / "out"), tags, Tiny(seconds=0.01), jobs=2)
    assert 1 <= most[0] <= 12  # four waiting, two being decoded, one in the network, those in the hands of the encoders


def test_a_stop_ends_the_run_with_whole_files_and_a_true_manifest(tmp_path: Path, tags: TagWriter) -> None:
    for index in range(20):
        write_dark(tmp_path / "in" / f"{index}.png", seed=index)
    stop = threading.Event()
    plan = planned(tmp_path / "in", tmp_path / "out")
    done = []
    for result in start(plan, tags, Tiny(seconds=0.02), stop=stop):
        done.append(result.task.output)
        if len(done) == 3:
            stop.set()
    assert 3 <= len(done) < 20
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert written == set(done)
    again = planned(tmp_path / "in", tmp_path / "out", IfExists.RESUME)
    assert {task.output for task in again.kept} == written
    assert sum(result.status == "kept" for result in run(again, tags)) == len(written)
    run(planned(tmp_path / "in", tmp_path / "unbroken"), tags)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "unbroken")


def test_leaving_the_iterator_early_leaves_no_thread_and_no_temporary_file(tmp_path: Path, tags: TagWriter) -> None:
    for index in range(20):
        write_dark(tmp_path / "in" / f"{index}.png", seed=index)
    stream = start(planned(tmp_path / "in", tmp_path / "out"), tags, Tiny(seconds=0.01))
    next(stream)
    stream.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lumen-")]
    hidden = [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert hidden == [".lumen-manifest.jsonl"]


@pytest.mark.parametrize("where", ["decoded_bytes", "record_of", "failure"])
def test_a_thread_that_ends_by_a_fault_of_ours_ends_the_run_and_keeps_what_is_finished(
    where: str, tmp_path: Path, tags: TagWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        write_dark(tmp_path / "in" / f"{index:02}.png", seed=index)
    if where == "failure":
        (tmp_path / "in" / "09.png").write_text("no picture, and saying so goes wrong")
    right, calls = getattr(stages, where), [0]

    def faulty(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] > 8 or where == "failure":
            raise ZeroDivisionError("a mistake of ours")
        return right(*arguments, **options)

    monkeypatch.setattr(stages, where, faulty)
    stream = start(planned(tmp_path / "in", tmp_path / "out"), tags, Tiny(seconds=0.01), jobs=1)
    done = []
    with pytest.raises(RunEndedError, match=r"fault of lumen, please report it: .*a mistake of ours"):
        done += [result.task.output for result in stream]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lumen-")]
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert written >= set(done)
    monkeypatch.undo()
    again = planned(tmp_path / "in", tmp_path / "out", IfExists.RESUME)
    assert {task.output for task in again.kept} == written


def test_how_a_picture_was_made_is_told_with_its_result(tmp_path: Path, tags: TagWriter) -> None:
    write_dark(tmp_path / "in" / "large.png", 40, 700)
    write_dark(tmp_path / "in" / "small.png")
    results = run(planned(tmp_path / "in", tmp_path / "out"), tags, tiles=TilePlan(512))
    said = {result.task.output: result.notices for result in results}
    assert said == {"large.png": ("run in tiles of 512 pixels: requested",), "small.png": ()}
