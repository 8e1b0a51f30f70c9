"""Numbers that bound a run, for the command line to name without importing what keeps to them."""

from __future__ import annotations

DEFAULT_TIMEOUT = 120.0
"""Seconds that a picture may take to decode in a helper process."""
SMALLEST_TILE = 512
"""Pixels a side: beyond its margins a tile has to have something of its own."""
