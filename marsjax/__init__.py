"""Whole financial markets as arrays: order books, agents and an order model in one jitted step.

The nouns that most programs need; the rooms below hold the rest, each with its own list of names.

- `load_order_model`, `LoadedModel`: an order model from a folder or the Hugging Face Hub.
- `MarketSpec`: sizes and session of a market.
- `Simulator`: a model in a market, beside other agents.
- `rollout`, `RolloutSpec`, `Rollout`: futures of a starting state, and what they came to.
- `Environment`: the same engine, driven from outside.
- `InputError`: what is raised where something from outside does not fit.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsjax.checkpoint.load import LoadedModel, load_order_model
    from marsjax.core.errors import InputError
    from marsjax.core.specs import MarketSpec
    from marsjax.sim.env import Environment
    from marsjax.sim.result import Rollout
    from marsjax.sim.rollout import rollout
    from marsjax.sim.simulator import Simulator
    from marsjax.sim.specs import RolloutSpec

__version__ = "0.1.0"

__all__ = ["Environment", "InputError", "LoadedModel", "MarketSpec", "Rollout", "RolloutSpec", "Simulator",
           "load_order_model", "rollout"]

# Where the public names are; they are imported when they are first asked for, so that importing marsjax is cheap.
_HOMES = {
    "Environment": "marsjax.sim.env", "InputError": "marsjax.core.errors", "LoadedModel": "marsjax.checkpoint.load",
    "MarketSpec": "marsjax.core.specs", "Rollout": "marsjax.sim.result", "RolloutSpec": "marsjax.sim.specs",
    "Simulator": "marsjax.sim.simulator", "load_order_model": "marsjax.checkpoint.load",
    "rollout": "marsjax.sim.rollout"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'marsjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
