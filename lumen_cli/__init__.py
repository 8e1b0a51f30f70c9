"""lumen brightens dark photographs in batches with published low-light models.

The Python API, imported when it is first used:

    from lumen_cli import decompose, enhance, list_models, load_model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "decompose", "enhance", "list_models", "load_model"]

if TYPE_CHECKING:
    from lumen_cli.api import decompose, enhance, load_model
    from lumen_cli.registry import list_models

_HOMES = {
    "decompose": "lumen_cli.api",
    "enhance": "lumen_cli.api",
    "load_model": "lumen_cli.api",
    "list_models": "lumen_cli.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
