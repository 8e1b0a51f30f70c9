"""A picture through a network. Here is what the command line names of it without importing PyTorch."""

from __future__ import annotations

from typing import Literal

SMALLEST_TILE = 512
"""Pixels a side: beyond its margins a tile has to have something of its own."""

Detail = Literal["auto", "fast", "whole"]
"""How large pictures reach their own size: "auto" and "fast" run the network on the reduced picture and carry its
result to full size, where "auto" also refines noisy ones; "whole" runs it at full size."""
METHOD = 3
"""Number of the way that results reach full size; another number makes earlier outputs outdated."""
Runtime = Literal["torch", "openvino"]
"""What runs the network; the rest of a run is PyTorch's in any case."""
