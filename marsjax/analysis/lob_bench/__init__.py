"""LOB-Bench (Nagy et al. 2025, arXiv 2502.09172): how far generated orders are from real ones, statistic by statistic.

The public names are modules, each imported when it is first used.
What is compared:
  `messages`: the orders of real days, and of rollouts with a trace, with the book around each.
  `statistics`: the 21 statistics that stand alone, and the three given another.
How:
  `distances`: L1 of histograms and Wasserstein-1, their intervals, and what a perfect source would get.
  `response`: price responses by kind of event.
  `discriminator`: a small network that is trained to tell generated windows of orders from real ones.
And what comes of it:
  `table`, `report`: the table of several markets, and its text.
"""

import importlib
from types import ModuleType

__all__ = ["discriminator", "distances", "messages", "report", "response", "statistics", "table"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
