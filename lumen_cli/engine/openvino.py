"""Networks run by OpenVINO on the CPU: the same results within 1/255; grading and everything else stay PyTorch's."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lumen_cli.atomic import temporary_folder
from lumen_cli.errors import ModelError, UsageError
from lumen_cli.networks.base import LowLightModel, Mean
from lumen_cli.registry import export
from lumen_cli.text import duration

if TYPE_CHECKING:
    from torch import Tensor

    from lumen_cli.engine.device import DevicePolicy

_log = logging.getLogger("lumen")


def check_runtime(policy: DevicePolicy) -> None:
    """UsageError where OpenVINO is not installed, or the run is not one on a CPU in fp32."""
    export.require_packages("openvino")
    if not policy.single:
        raise UsageError(f"OpenVINO runs on the CPU here, not on {policy.device}", remedy="device=cpu")
    if policy.precision != "fp32":
        raise UsageError(f"OpenVINO runs in fp32 here, not in {policy.precision}", remedy="precision=fp32")


def accelerate(network: LowLightModel, steps: int | None, name: str) -> LowLightModel:
    """The network, run by OpenVINO at these steps (None: its own); a mean of networks that are.

    Raises:
        ModelError: it has no graph for all sizes, see `registry.export`.
    """
    started = time.perf_counter()
    try:
        fast = _accelerate(network, steps).eval()
    except ModelError as error:
        raise ModelError(f"{name} does not run in OpenVINO: {error}", remedy="runtime=torch") from error
    _log.info("%s compiled for OpenVINO in %s", name, duration(time.perf_counter() - started))
    return fast


def _accelerate(network: LowLightModel, steps: int | None) -> LowLightModel:
    if not network.members:
        return Accelerated(network, steps)
    parts = [_accelerate(member.network, member.steps) for member in network.members]
    mean = Mean(parts, [member.share for member in network.members], [member.steps for member in network.members])
    mean.grading = network.grading
    return mean


class Accelerated(LowLightModel):
    """Runs `enhance` of another network by OpenVINO, in fp32 and for single pictures of any size.

    It does not run in tiles: their arguments are not part of the graph.
    """

    def __init__(self, network: LowLightModel, steps: int | None) -> None:
        super().__init__()
        self.grading = network.grading
        self.size_multiple = network.size_multiple
        self.steps = steps
        self._noise_shape = network.noise_shape
        if obstacle := network.obstacle_to_export:
            raise ModelError(obstacle)
        sides = export.noise_sides(network)
        self._sides = sides if network.is_random else None
        graph = export.Graph(network, steps, None if self._sides else sides, graded=False).eval()
        with temporary_folder() as folder:
            file = Path(folder) / "model.onnx"
            export.write_onnx(graph, file, self._sides, {})
            self._run = export.openvino_runner(file)
        export.check(graph, self._run, self._sides)

    @property
    def tiles(self) -> bool:
        """False; see the class."""
        return False

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """See `LowLightModel.noise_shape`."""
        return self._noise_shape(height, width)

    def enhance(self, low: Tensor, *, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """See `LowLightModel.enhance`; one picture, at the steps that it was built for."""
        if len(low) != 1 or steps not in (None, self.steps):
            raise ValueError(f"it is built for one picture at {self.steps} steps, not {len(low)} at {steps}")
        inputs = {"picture": low.float()}
        if self._sides is not None:
            assert noise is not None
            inputs["noise"] = noise
        return self._run(inputs)
