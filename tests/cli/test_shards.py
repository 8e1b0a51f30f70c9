"""Several runs share a folder, and `lumen status` tells of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished, MakeModel, folder_bytes, write_dark

Lumen = Callable[..., Finished]
DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def photos(tmp_path: Path, make_model: MakeModel) -> Path:
    make_model("tiny")
    for index in range(9):
        write_dark(tmp_path / "in" / f"{index}.png", seed=index)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return tmp_path / "in"


def test_parts_run_side_by_side_and_status_tells_of_all(photos: Path, lumen: Lumen) -> None:
    out = photos.with_name("out")
    command = [sys.executable, "-m", "lumen_cli", "enhance", str(photos), "-o", str(out), "-m", "tiny", "-q"]
    runs = [subprocess.Popen([*command, "--shard", f"{n}/3"], stderr=subprocess.PIPE, text=True) for n in (1, 2, 3)]
    errors = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 0, 1], errors
    assert len([name for name in folder_bytes(out) if name.endswith(".png")]) == 9
    told = lumen("status", out)
    assert told.code == 1
    rows = {line.split()[0]: line.split()[1:] for line in told.out.splitlines() if line.strip()}
    assert {"1/3", "2/3", "3/3"} <= set(rows)
    assert rows["all"] == ["9", "1"]
    assert "broken.jpg: " in told.out
    *failures, totals = map(json.loads, lumen("status", out, "--json").out.splitlines())
    assert [(line["type"], line["state"], line["input"]) for line in failures] == [("output", "failed", "broken.jpg")]
    assert failures[0]["shard"] in ("1/3", "2/3", "3/3")
    assert totals["states"] == {"done": 9, "missing": 0, "changed": 0, "stale": 0, "new": 0, "failed": 1}
    assert sum(part["done"] for part in totals["shards"].values()) == 9


def test_the_failed_picture_alone_is_tried_again(photos: Path, lumen: Lumen) -> None:
    out = photos.with_name("out")
    assert lumen("enhance", photos, "-o", out, "-m", "tiny").code == 1
    write_dark(photos / "later.png")
    write_dark(photos / "broken.jpg")
    again = lumen("enhance", photos, "-o", out, "-m", "tiny", "--retry-failed", "--json")
    assert again.code == 0
    assert [json.loads(line)["output"] for line in again.out.splitlines()] == [str(out / "broken.jpg")]
    assert "later.png" in (told := lumen("status", out, "--input", photos)).out
    assert told.code == 1
    assert lumen("enhance", photos, "-o", out, "-m", "tiny").code == 0
    told = lumen("status", out, "--input", photos)
    assert told.code == 0
    assert "all" in told.out
    nothing = lumen("enhance", photos, "-o", out, "-m", "tiny", "--retry-failed")
    assert nothing.code == 0
    assert "no picture failed in the last attempt" in nothing.err


def test_shards_of_a_job_array(photos: Path, lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> None:
    out = photos.with_name("out")
    (photos / "broken.jpg").unlink()
    made: list[str] = []
    for index in (0, 1):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        run = lumen("enhance", photos, "-o", out, "-m", "tiny", "--json", "--shard", "auto/2")
        assert run.code == 0
        made += [json.loads(line)["output"] for line in run.out.splitlines()]
    assert sorted(made) == [str(out / f"{index}.png") for index in range(9)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "4/3"], "shard 4/3: the number must lie between 1 and 3"),
        (["--shard", "half"], "shard half: expected NUMBER/COUNT, such as 2/8, or auto"),
        (["--shard", "auto"], "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
        (["-o", "-", "--shard", "1/2"], "-o - and --shard cannot be combined"),
    ],
)
def test_bad_shards_are_one_line(photos: Path, lumen: Lumen, arguments: list[str], message: str) -> None:
    run = lumen("enhance", photos / "0.png", "-m", "tiny", *arguments)
    assert run.code == 2
    assert message in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_status_of_a_folder_that_lumen_did_not_write(tmp_path: Path, lumen: Lumen) -> None:
    run = lumen("status", tmp_path)
    assert run.code == 2
    assert run.err.strip().endswith("lumen recorded no outputs here; name the folder that it wrote to")
    assert not list(tmp_path.rglob("*.jsonl"))


def test_the_slurm_script_runs_its_part(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lumen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lumen_cli "$@"\n')
    (tmp_path / "bin" / "lumen").chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    (photos / "broken.jpg").unlink()
    for number in ("1", "2"):
        command = [DEPLOY / "slurm.sh", photos, tmp_path / "out", "--model", "tiny"]
        subprocess.run(command, env=environment | {"SLURM_ARRAY_TASK_ID": number}, check=True)
    assert len(list((tmp_path / "out").glob("*.png"))) == 9
    told = subprocess.run([DEPLOY / "slurm.sh"], capture_output=True, text=True)
    assert told.returncode == 2
    assert "usage: sbatch" in told.stderr


def test_the_kubernetes_job_has_a_part_for_each_index() -> None:
    import yaml

    job = yaml.safe_load((DEPLOY / "kubernetes-job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert f"--shard auto/{job['spec']['completions']} " in command
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/photos", "/bright"} == mounts
    assert all(mount in command for mount in mounts)
