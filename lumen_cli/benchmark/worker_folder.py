"""A folder of pictures from disk to disk, by the run that `lumen enhance` uses."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lumen_cli.benchmark.speed_request import Pipeline, SpeedCase
from lumen_cli.errors import LumenError
from lumen_cli.files.find import find_pictures
from lumen_cli.run.operation import Enhance, Settings
from lumen_cli.run.run import Run, RunOptions

if TYPE_CHECKING:
    from lumen_cli.engine.device import DevicePolicy
    from lumen_cli.networks.base import LowLightModel

_GRAIN = 8.0


def time_folder(
    case: SpeedCase, network: LowLightModel, policy: DevicePolicy, steps: int | None, alone: float
) -> Pipeline:
    """Enhance `case.request.pictures` generated JPEGs of the case's size, in a folder that is removed afterwards.

    Args:
        case: the row of the table.
        network: on the policy's device, warm.
        policy: its batch size is the case's.
        steps: sampling steps.
        alone: seconds a picture of the network alone.

    Raises:
        LumenError: a picture failed.
    """
    settings = Settings(case.architecture, {}, "", steps=steps, precision=policy.precision, detail=case.request.detail)
    with tempfile.TemporaryDirectory(prefix="lumen-speed-") as place:
        source, target = Path(place, "dark"), Path(place, "bright")
        write_pictures(source, case.request.pictures, case.width, case.height)
        with Run(None, policy, Enhance(settings), RunOptions(f"{target}{os.sep}"), network=network) as run:
            started = time.perf_counter()
            results = list(run.results(run.plan(find_pictures([str(source)]))))
            wall = time.perf_counter() - started
    failed = [result for result in results if result.status != "done"]
    if failed or len(results) != case.request.pictures:
        raise LumenError(f"the folder's pictures failed: {failed[0].reason if failed else 'some are missing'}")
    running = sum(result.timings.run for result in results)
    return Pipeline(case.request.pictures, wall, running / wall, alone * case.request.pictures / wall)


def write_pictures(folder: Path, count: int, width: int, height: int) -> None:
    """Write dark JPEGs with a camera's grain, all different, into `folder`."""
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    ramp = np.linspace(5.0, 60.0, width)[None, :, None] * np.linspace(0.3, 1.0, height)[:, None, None]
    for number in range(count):
        grain = generator.normal(0.0, _GRAIN, (height, width, 3))
        pixels = np.clip(ramp * generator.uniform(0.5, 1.0, 3) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=92)
