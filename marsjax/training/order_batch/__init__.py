"""From minutes of orders to an order-batch model: images -> tokenizer -> batch model -> readout.

  `data`: replayed days and rollouts -> images of minutes, and what each minute did. Start here.
  `codebook`: trains a tokenizer.
  `batches`: trains a batch model on the codes of minutes one after the other.
  `reading`: fits the map from an image to what the minute did.
  `report`: how good the parts are, beside baselines.
"""

import importlib
from types import ModuleType

__all__ = ["batches", "codebook", "data", "reading", "report"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
