import dataclasses
import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lumen_tiny import Tiny

from lumen_cli.benchmark import worker
from lumen_cli.benchmark.speed import run_speed, speed_cases
from lumen_cli.benchmark.speed_request import SpeedCase, SpeedRequest, SpeedResult
from lumen_cli.benchmark.worker import Busy
from lumen_cli.engine.memory import peak_resident
from lumen_cli.errors import LumenError, ModelError, UsageError
from tests.conftest import MakeModel

REQUEST = SpeedRequest(("tiny",), sizes=((64, 48),), precisions=("fp32",), device="cpu", repeat=3)

DYING = """
import os, signal, torch
from lumen_tiny import Tiny

class Dying(Tiny):
    def enhance(self, low, **knobs):
        if torch.is_grad_enabled():
            os.kill(os.getpid(), signal.SIGKILL)
        print("a library that talks")
        return super().enhance(low, **knobs)
"""


def case(**changes: object) -> SpeedCase:
    batches = (changes.pop("batch", 1),)
    (only,) = speed_cases(dataclasses.replace(REQUEST, batches=batches, **changes))  # type: ignore[arg-type]
    return only


@pytest.fixture
def dying(tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose process is killed as soon as it is run the plain way; it comes as a plug-in of its own."""
    plugin = tmp_path / "plugin"
    about = plugin / "lumen_dying-1.0.dist-info"
    about.mkdir(parents=True)
    (plugin / "lumen_dying.py").write_text(DYING)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lumen-dying\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[lumen.architectures]\ndying = lumen_dying:Dying\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plugin), os.environ["PYTHONPATH"]]))
    return make_model("dying", architecture="dying")


def test_every_case_is_a_row(make_model: MakeModel) -> None:
    make_model("tiny")
    make_model("other")
    request = SpeedRequest(("other", "tiny"), ((8, 8), (16, 8)), ("fp32", "bf16"), (1, 4))
    cases = speed_cases(request)
    assert len(cases) == 16
    assert [(row.model, row.width, row.precision, row.batch) for row in cases[:3]] == [
        ("other", 8, "fp32", 1),
        ("other", 8, "fp32", 4),
        ("other", 8, "bf16", 1),
    ]


def test_all_and_published_name_what_there_is(make_model: MakeModel) -> None:
    make_model("tiny")
    assert "tiny" in {row.model for row in speed_cases(SpeedRequest(("all",)))}
    published = speed_cases(SpeedRequest(("all",), published=True))
    assert {"published:diffll", "published:kind"} <= {row.model for row in published}
    assert all(row.folder is None for row in published)
    (own,) = speed_cases(SpeedRequest(("tiny", "published:tiny"), published=True))
    assert (own.model, own.architecture) == ("published:tiny", "tiny")


def test_a_name_that_is_none_ends_it_before_anything_is_timed() -> None:
    with pytest.raises(ModelError, match="nothing-of-the-kind"):
        run_speed(SpeedRequest(("nothing-of-the-kind",)))
    with pytest.raises(UsageError, match="unknown architecture"):
        run_speed(SpeedRequest(("published:nothing",)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_none_ends_it_before_anything_is_timed(make_model: MakeModel) -> None:
    make_model("tiny")
    with pytest.raises(UsageError, match="CUDA"):
        run_speed(dataclasses.replace(REQUEST, device="cuda"))


def test_a_measured_case_has_all_its_figures(make_model: MakeModel) -> None:
    make_model("tiny")
    row = worker.measure(case(batch=2, plain=True, pipeline=True, pictures=3, steps=4))
    assert (row.model, row.width, row.height, row.precision, row.batch, row.steps) == ("tiny", 64, 48, "fp32", 2, 4)
    assert (row.device, row.torch, row.repeat, row.warmup, row.error) == ("cpu", torch.__version__, 3, 1, None)
    assert row.threads == torch.get_num_threads()
    assert row.parameters == 84
    assert row.gflops == pytest.approx(2 * 64 * 48 * 3 * 3 * 9 / 1e9), "a picture's, not a batch's"
    assert row.device_memory is None
    assert row.host_memory is not None
    assert 1 << 20 < row.host_memory <= peak_resident()
    assert row.seconds is not None
    seconds = row.seconds
    assert 0.0 < seconds.least <= seconds.lower <= seconds.median <= seconds.upper <= seconds.most
    assert row.plain is not None
    assert row.ratio == pytest.approx(row.plain.seconds.median / seconds.median)
    assert row.plain.difference == pytest.approx(0.0, abs=1e-6)
    assert row.pipeline is not None
    assert row.pipeline.pictures == 3
    assert 0.0 < row.pipeline.busy <= 1.0
    assert row.pipeline.against_alone > 0.0


def test_seconds_are_of_a_picture(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks once a look: every call takes a second, ours for four pictures, the papers' for one."""
    ticks = itertools.count()
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    make_model("tiny")
    row = worker.measure(case(batch=4, plain=True))
    assert row.seconds is not None
    assert row.plain is not None
    assert (row.seconds.median, row.plain.seconds.median, row.ratio) == (0.25, 1.0, 4.0)


def test_ours_and_the_papers_way_take_turns() -> None:
    order: list[str] = []
    returned = torch.zeros(1)
    ours, theirs = (lambda: (order.append("ours"), returned)[1]), (lambda: (order.append("theirs"), returned)[1])
    seconds = worker.alternate([ours, theirs], 3, "cpu")
    assert order == ["ours", "theirs"] * 3
    assert [len(own) for own in seconds] == [3, 3]


def test_where_the_plain_way_fails_our_figures_stand(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the papers' attention matrix does not fit."""
    from lumen_tiny import Tiny

    real = Tiny.enhance

    def hungry(self: Tiny, low: torch.Tensor, **knobs: object) -> torch.Tensor:
        return torch.empty(1 << 60) if torch.is_grad_enabled() else real(self, low, **knobs)  # type: ignore[arg-type]

    make_model("tiny")
    monkeypatch.setattr(Tiny, "enhance", hungry)
    row = worker.measure(case(plain=True))
    assert row.seconds is not None
    assert (row.plain, row.ratio, row.error) == (None, None, None)
    assert row.plain_error == "too little memory"


def test_a_folders_failure_is_an_error(make_model: MakeModel) -> None:
    make_model("tiny", network={"fails_above": -1.0})
    with pytest.raises(LumenError, match="not finite"):
        worker.measure(case(pipeline=True, pictures=2))


def test_the_published_network_has_the_papers_size() -> None:
    """KinD: the sizes of its released files."""
    assert sum(parameter.numel() for parameter in worker.published_network("kind").parameters()) == 8_016_008


def test_what_a_model_does_not_support_is_a_row_without_figures(make_model: MakeModel) -> None:
    make_model("tiny")
    done: list[SpeedResult] = []
    request = dataclasses.replace(REQUEST, precisions=("fp16",))
    (wrong,) = run_speed(request, done=done.append)
    (steps,) = run_speed(dataclasses.replace(REQUEST, steps=99))
    assert wrong.error is not None
    assert "fp16" in wrong.error
    assert steps.error is not None
    assert "from 1 to 10 steps" in steps.error
    assert (wrong.seconds, wrong.width, done) == (None, 64, [wrong])


@pytest.mark.slow
def test_a_crash_is_one_row_and_the_rest_goes_on(dying: Path, make_model: MakeModel) -> None:
    """Each in a process of its own: one whose plain way is killed, one with damaged weights, one that is well."""
    damaged = make_model("damaged") / "network.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x99")
    make_model("tiny")
    begun: list[str] = []
    request = dataclasses.replace(REQUEST, models=("dying", "damaged", "tiny"), plain=True, threads=1, repeat=1)
    killed, unreadable, well = run_speed(request, begun=lambda row: begun.append(row.model))
    assert begun == ["dying", "damaged", "tiny"]
    assert killed.error is None, "only its plain way fails"
    assert killed.seconds is not None
    assert killed.plain is None
    assert killed.plain_error is not None
    assert "SIGKILL" in killed.plain_error
    assert unreadable.error is not None
    assert "checksum" in unreadable.error or "SHA-256" in unreadable.error
    assert "\n" not in unreadable.error
    assert unreadable.seconds is None
    assert well.error is None
    assert well.plain is not None
    assert well.threads == 1


@pytest.mark.slow
def test_a_row_that_takes_too_long_is_ended(make_model: MakeModel) -> None:
    make_model("tiny", network={"seconds": 60.0})
    (row,) = run_speed(dataclasses.replace(REQUEST, timeout=1.0))
    assert row.error == "took longer than 1 s"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_busy_time_is_that_of_the_networks_calls(device: str) -> None:
    from tests.accelerator import accelerator

    network = Tiny(seconds=0.05).eval().requires_grad_(False)
    with accelerator():
        network.to(device)
        low = torch.full((1, 3, 8, 8), 0.1).to(device)
        busy = Busy(device)
        started = time.perf_counter()
        with busy.watch(network), torch.inference_mode():
            for _ in range(2):
                network(low)
            time.sleep(0.05)
        whole = time.perf_counter() - started
        assert 0.1 <= busy.seconds <= whole - 0.05
        with torch.inference_mode():
            network(low)
        assert busy.seconds <= whole - 0.05
