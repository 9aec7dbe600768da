"""Learning to trade: markets as environments with the interface that learners in JAX expect.

What a user needs, each imported when it is first used:
  `make`: an environment by name, and its params; `make_marl`: one of several learners.
  `MarketEnv`: one learner in a market: reset and step as of a gymnax environment; `Params` is what may change.
  `Execution`: a task: to buy or sell so many shares at good prices, by 13 actions.
  `SlicedExecution`: the same in slices, as in MarS's paper, by 66 actions.
  `MarketMaking`: quotes on both sides, with an inventory that may not grow too large.
  `Stride`: how far a step goes: so many messages, or a span of time.
  `MarlEnv`: one learner or several, with JaxMARL's dictionaries.
  `gymnasium_envs`: the same for Gymnasium, in NumPy (extra `rl`).
Backgrounds, the market without its learners:
  `Replay`: messages of a day as they came; `Recording` is what it reads, which `record` makes of a feed.
  `Noise`: the noise agent.
  `Model`: an order model, which answers to what a learner does.
Learners, and what they learn:
  `ppo`: proximal policy optimisation, compiled end to end, of many seeds; in environments of gymnax's interface.
  `policy`: a policy and its network, feed-forward or with a memory; `agent_files`: a policy in a folder.
  `evaluation`, `baselines`: whole episodes of a policy; executions by rule in the same episodes.
  `making_rules`: market making by rule, Avellaneda and Stoikov's among them.
  `as_agent`: a policy as an agent of any simulation.
To add to it:
  `Background`, `Task`: what they must have.
  `Core`: a background with a task for each of several learners.
  `quotes`: from what is to rest to the orders that make it so.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsjax.rl.base import Background, Task
    from marsjax.rl.env import Core, MarketEnv, Params
    from marsjax.rl.execution import Execution
    from marsjax.rl.market_making import MarketMaking
    from marsjax.rl.marl import MarlEnv
    from marsjax.rl.model import Model
    from marsjax.rl.named import make, make_marl
    from marsjax.rl.noise import Noise
    from marsjax.rl.passing import Stride
    from marsjax.rl.replay import Recording, Replay, record
    from marsjax.rl.sliced import SlicedExecution

# Where the records and functions are; the other public names are modules.
_HOMES = {
    "Background": "base", "Core": "env", "Execution": "execution", "MarketEnv": "env", "MarlEnv": "marl",
    "Model": "model", "Noise": "noise", "Params": "env", "Recording": "replay", "Replay": "replay",
    "MarketMaking": "market_making", "SlicedExecution": "sliced", "Stride": "passing", "Task": "base", "make": "named",
    "make_marl": "named", "record": "replay",
}

__all__ = ["Background", "Core", "Execution", "MarketEnv", "MarketMaking", "MarlEnv", "Model", "Noise", "Params",
           "Recording", "Replay", "SlicedExecution", "Stride", "Task", "agent_files", "as_agent", "baselines",
           "evaluation", "make", "make_marl", "making_rules", "policy", "ppo", "quotes", "record"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
