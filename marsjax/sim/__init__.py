"""Whole markets in motion: the event queue, the step, rollouts, the environment and replays.

What a user needs, each imported when it is first used:
  `Simulator`: an order model in a market beside other agents, made once; `SimulationSpec` is its static part.
  `rollout`: futures of starting states (`rollout.rollout`): a host loop over compiled chunks of steps.
  `RolloutSpec`: how many futures, how long, under which numbers.
  `Hooks`, `Saving`: progress, trace and the state on disk, between the chunks of a rollout.
  `Rollout`: what it came to.
  `control`: the same futures given a scenario or a curve of prices (`control.controlled`).
  `Environment`, `Outside`: the same engine with orders from outside (module `env`).
  `replay`: given orders through the exchange, and what happens as it happens (`replay.replay`).
  `replay_day`, `Replayed`: a day whole, and its tables.
  `Fees`: what a venue charges, for tables of accounts.
  `refusals`: what was refused of given orders, and which setting would have let it through.
  `initial`: starting states, from given orders or the noise agent.
  `Start`: one of these.
How it works, for those who change it:
  `state`: `SimState`, the one state of a simulation.
  `step`: predict, draw, plan; then all that happens until the order model is asked again. Start here.
  `event_loop`: events of many trajectories, in order of time.
  `event_queue`: which event of a trajectory is next, and what an agent sees and sends at it.
  `scheduler`: more trajectories than run at a time.
  `devices`: trajectories shared out over devices.
  `outcomes`: what rollouts keep on the host while they run.
  `checks`: what is checked before a rollout runs.
  `resume`, `saved_states`: the state of a rollout, and of any run, on disk.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marsjax.sim.env import Environment, Outside
    from marsjax.sim.frames import Fees
    from marsjax.sim.initial import Start
    from marsjax.sim.replayed import Replayed, replay_day
    from marsjax.sim.result import Rollout
    from marsjax.sim.resume import Saving
    from marsjax.sim.rollout import Hooks
    from marsjax.sim.simulator import Simulator
    from marsjax.sim.specs import RolloutSpec, SimulationSpec
    from marsjax.sim.state import SimState

__all__ = [
    "Environment", "Fees", "Hooks", "Outside", "Replayed", "Rollout", "RolloutSpec", "Saving", "SimState",
    "SimulationSpec", "Simulator", "Start", "checks", "control", "devices", "env", "event_loop", "event_queue",
    "initial", "outcomes", "refusals", "replay", "replay_day", "resume", "rollout", "saved_states", "scheduler",
    "state", "step",
]  # fmt: skip

# Where the records are; the other public names are modules.
_HOMES = {
    "Environment": "env", "Fees": "frames", "Hooks": "rollout", "Outside": "env", "Replayed": "replayed",
    "Rollout": "result", "RolloutSpec": "specs", "Saving": "resume", "SimState": "state", "SimulationSpec": "specs",
    "Simulator": "simulator", "Start": "initial", "replay_day": "replayed",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
