"""Two processes that train one model: other batches, one model, files written once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny import TINY

pytest.importorskip("accelerate")
SCRIPT = """
import sys
from pathlib import Path
import torch
from lumen_cli.datasets import find_training_files
from lumen_cli.training.data import Batches, Mix
from lumen_cli.training.run import Options, run_stage
from lumen_cli.training.loop import join_workers
from tests.training.tiny import TINY
torch.set_num_threads(1)
data, out = map(Path, sys.argv[1:])
workers = join_workers("cpu")
assert workers.count == 2
assert workers.agree(float(workers.rank)) == 0.0
own = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
own[0].grad = torch.full((2, 3), 1.0 + workers.rank)
own[1].grad = None if workers.rank else torch.full((4,), 3.0)
workers.share_gradients(own)
assert all(bool((p.grad == 1.5).all()) for p in own), [p.grad for p in own]
torch.manual_seed(0)
recipe = TINY["kind"]
model = recipe.build()
batches = Batches(find_training_files([data / "pairs", data / "bright"]), torch.device("cpu"), Mix(), 0)
run_stage(recipe, model, recipe.stages[0], batches, out, Options(torch.device("cpu"), torch.float32, workers=workers))
from safetensors.torch import save_file
save_file(model.state_dict(), out / f"{workers.rank}.safetensors")
"""


@pytest.mark.slow
def test_two_processes_train_one_model(data, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, str(data), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items()), "they drifted apart"
    assert len(list(tmp_path.glob("*.pt"))) == 1
    torch.manual_seed(0)
    started = TINY["kind"].build().state_dict()
    assert any(not torch.equal(value, started[key]) for key, value in first.items()), "nothing was learnt"
