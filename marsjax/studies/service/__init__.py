"""The order model as a service, without the network: each call is plain arrays or a checked record in, rows out.

The programs put HTTP before it (`marsjax.experiments.service`). The public names are modules, each imported when it is
first used.
  `next_orders`: windows of order tokens in, a drawn token of each out, in batches of few sizes.
  `wanted`: a request for futures as a checked record, from JSON or from tables.
  `parts`: the rows that a rollout has ready after each of its chunks.
  `whole_futures`: a request in, rows out while the futures are made, and what they came to.
"""

import importlib
from types import ModuleType

__all__ = ["next_orders", "parts", "wanted", "whole_futures"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
