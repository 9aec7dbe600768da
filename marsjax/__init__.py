"""Whole financial markets as arrays: order books, agents and an order model in one jitted step."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsjax.order_model import LoadedModel, load_order_model

__version__ = "0.1.0"

__all__ = ["LoadedModel", "load_order_model"]

# Where the public names are; they are imported when they are first asked for, so that importing marsjax is cheap.
_HOMES = {"LoadedModel": "marsjax.order_model", "load_order_model": "marsjax.order_model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'marsjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
