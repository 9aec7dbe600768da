"""Agents trained by reinforcement in a market: many seeds at once, a look at how far they are now and then."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.rl import agent_files, ppo, sliced
from marsjax.rl.agent_files import SavedAgent
from marsjax.rl.base import Task
from marsjax.rl.env import MarketEnv, Params
from marsjax.rl.policy import NetworkSpec, Policy
from marsjax.rl.ppo import PPOSpec
from marsjax.rl.sliced import SlicedParams

_OF_NETWORK = ("width", "layers", "memory")
_OF_PPO = ("envs", "length", "epochs", "minibatches", "rate", "anneal", "discount", "trace", "clip", "entropy")
PPO_KEYS = ("train_steps", *_OF_PPO, *_OF_NETWORK)
"""What `ppo_spec` takes."""
_TRAINING = 0x7061
"""Folded into the seed's key."""


@dataclasses.dataclass(frozen=True)
class AgentTraining:
    """How agents are trained."""

    ppo: PPOSpec
    seeds: int = 4
    """Agents, which differ in all draws."""
    seed: int = 0
    looks: int = 10
    """Times at most that it is told how far the training is; no result depends on it where `alpha_factor` is 1."""
    alpha_factor: float = 1.0
    """What the alpha of a sliced execution (`rl.sliced`) is multiplied by at a look, where 95% were fulfilled since the
    one before; other tasks have none."""

    def __post_init__(self) -> None:
        limits.check_whole("AgentTraining.seeds", self.seeds, 1, 1024)
        limits.check_whole("AgentTraining.seed", self.seed, 0, limits.SEED)
        limits.check_whole("AgentTraining.looks", self.looks, 1, 2**16)
        if not 0 < self.alpha_factor <= 1:
            raise InputError(f"AgentTraining.alpha_factor: expected above 0 and at most 1, got {self.alpha_factor!r}")

    def parts(self) -> list[int]:
        """Updates between two looks: all alike but for the last part, which may have fewer; all `ppo.updates` together.

        Examples:
          >>> AgentTraining(PPOSpec(steps=10_000, envs=4, length=128), looks=4).parts()
          [5, 5, 5, 4]
        """
        each = -(-self.ppo.updates // self.looks)
        whole, rest = divmod(self.ppo.updates, each)
        return [each] * whole + [rest] * (rest > 0)

    def keys(self) -> jax.Array:
        """[S], of each agent; no other draw with the same seed is of these."""
        return jax.random.split(jax.random.fold_in(jax.random.key(self.seed), _TRAINING), self.seeds)


class TrainedAgents(NamedTuple):
    """S agents and how they came about."""

    policies: tuple[Policy, ...]
    curves: dict[str, np.ndarray]
    """float32 [S, U] each, by the names of `ppo.learn`."""
    spec: PPOSpec
    """As it was trained."""

    def table(self) -> pd.DataFrame:
        """A row of each seed and update: seed, update, steps of the environment, and the curves."""
        seeds, updates = self.curves["reward"].shape
        each = self.spec.envs * self.spec.length
        columns = {"episode_steps" if name == "steps" else name: x.ravel() for name, x in self.curves.items()}
        return pd.DataFrame({"seed": np.repeat(np.arange(seeds), updates),
                             "update": np.tile(np.arange(1, updates + 1), seeds),
                             "steps": np.tile(np.arange(1, updates + 1) * each, seeds), **columns})


def train(training: AgentTraining, env: MarketEnv, params: Params, on_line: Callable[[str], None] = lambda line: None,
          on_look: Callable[[dict[str, np.ndarray]], None] = lambda curves: None) -> TrainedAgents:
    """Trains agents in an environment.

    Args:
      training: how.
      env: the environment.
      params: its parameters.
      on_line: told how far it is.
      on_look: given the curves up to there, as of `TrainedAgents`; what either raises ends the training.

    InputError where the weights are no finite numbers any more.
    """
    spec, done = training.ppo, 0
    learner: Any = ppo.begin(spec, env, params, training.keys())
    found: list[dict[str, np.ndarray]] = []
    for count in training.parts():
        learner, curves = ppo.learn(spec, env, params, learner, count)
        done += count
        found.append({name: np.asarray(x) for name, x in curves.items()})
        if not np.isfinite(found[-1]["value_loss"]).all():
            raise InputError(f"agent training: the loss is no finite number after update {done}; lower the rate "
                             f"({spec.rate})")
        params = _with_alpha(params, found[-1], training.alpha_factor)
        reward = found[-1]["reward"]
        there = reward[~np.isnan(reward)]
        on_look(_joined(found))
        shown = f"{there.mean():+.4f}" if there.size else "no episode ended"
        on_line(f"steps {done * spec.envs * spec.length}: reward {shown}, entropy "
                f"{found[-1]['entropy'].mean():.3f}")
    of_seed = jax.jit(ppo.of_seed)  # else each of its hundred arrays is a program of its own
    policies = tuple(ppo.policy_of(spec, env, params, of_seed(learner, seed)) for seed in range(training.seeds))
    return TrainedAgents(policies, _joined(found), spec)


def _with_alpha(params: Params, told: Mapping[str, np.ndarray], factor: float) -> Params:
    """With the lower alpha of a sliced execution, if it is time for it."""
    (task,) = params.tasks
    ended = told.get("fulfilment", np.zeros(0))
    ended = ended[~np.isnan(ended)]
    if not isinstance(task, SlicedParams) or not ended.size:
        return params
    alpha = sliced.lowered(task.alpha, float(ended.mean()), factor)
    return dataclasses.replace(params, tasks=(dataclasses.replace(task, alpha=alpha),))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Curves [S, U] of parts of a training, one after the other."""
    return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}


def ppo_spec(keys: Mapping[str, Any]) -> PPOSpec:
    """A spec of plain values by the names of PPO_KEYS; InputError names one as config.KEY."""
    try:
        network = NetworkSpec(**{name: keys[name] for name in _OF_NETWORK})
        return PPOSpec(keys["train_steps"], **{name: keys[name] for name in _OF_PPO}, network=network)
    except InputError as error:
        text = str(error).replace("PPOSpec.steps", "config.train_steps")
        raise InputError(text.replace("PPOSpec.", "config.").replace("NetworkSpec.", "config.")) from error


def save(folder: pathlib.Path, trained: TrainedAgents, about: Mapping[str, Any]) -> None:
    """Writes the agent of each seed into a folder of its own: agent, agent_2, agent_3 ..."""
    said = json.loads(json_text_of(about, lambda value: value))
    for number, policy in enumerate(trained.policies, 1):
        agent_files.save(folder / (f"agent_{number}" if number > 1 else "agent"), policy, {**said, "seed": number - 1})


def load(folder: str | pathlib.Path, name: str, task: Task) -> SavedAgent:
    """The agent of a folder, to be used for a task of this name.

    Errors are those of `agent_files.load`; InputError where it was trained for another task.
    """
    found = agent_files.load(folder)
    spec, own = found.policy.spec, found.about.get("task")
    fits = (spec.observations, spec.choices) == (task.features, (task.actions,))
    if not fits or own not in (None, name):
        raise InputError(f"{folder}: expected an agent for {name}, which sees {task.features} numbers and has "
                         f"{task.actions} actions, got one for {own or 'another task'} of {spec.observations} and "
                         f"{', '.join(map(str, spec.choices))}")
    return found
