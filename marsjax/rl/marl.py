"""Learners of one market by name, with the interface of JaxMARL: dictionaries of observations, actions, rewards."""

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from marsjax.core.records import Array
from marsjax.rl import env as environments
from marsjax.rl.env import Core, EpisodeState, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class MarlEnv:
    """One learner or several in a market. A step sends their orders one learner after the other, in their sequence.

    An episode is over when all have done their tasks, or its time is; a new one begins at once.
    """

    core: Core = dataclasses.field(metadata={"static": True})
    default_params: Params

    @property
    def agents(self) -> list[str]:
        """Names of the tasks, numbered where several have one name."""
        names = [task.name for task in self.core.tasks]
        often, seen = collections.Counter(names), collections.Counter[str]()
        found = []
        for name in names:
            found.append(f"{name}_{seen[name]}" if often[name] > 1 else name)
            seen[name] += 1
        return found

    @property
    def num_agents(self) -> int:
        """A."""
        return len(self.core.tasks)

    @property
    def agent_classes(self) -> dict[str, list[str]]:
        """Learners by the name of their task."""
        found: dict[str, list[str]] = {}
        for task, name in zip(self.core.tasks, self.agents, strict=True):
            found.setdefault(task.name, []).append(name)
        return found

    @property
    def observation_spaces(self) -> dict[str, Any]:
        """Of each learner."""
        return {name: self.observation_space(name) for name in self.agents}

    @property
    def action_spaces(self) -> dict[str, Any]:
        """Of each learner."""
        return {name: self.action_space(name) for name in self.agents}

    def get_avail_actions(self, state: EpisodeState) -> dict[str, jax.Array]:
        """bool, of each learner's actions: all may be taken at any time."""
        del state
        return {name: jnp.ones(task.actions, bool) for task, name in zip(self.core.tasks, self.agents, strict=True)}

    @property
    def name(self) -> str:
        """Of the background."""
        return type(self.core.background).__name__.lower()

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[dict[str, jax.Array], EpisodeState]:
        """The start of an episode: an observation of each learner, float32 [F], and the state."""
        found, state = environments.reset(self.core, key, self.default_params if params is None else params)
        return dict(zip(self.agents, found, strict=True)), state

    def step(self, key: jax.Array, state: EpisodeState, actions: dict[str, Array], params: Params | None = None
             ) -> tuple[dict[str, jax.Array], EpisodeState, dict[str, Array], dict[str, Array], dict[str, Any]]:
        """One step: observations, state, rewards, dones (with `__all__`), infos by learner."""
        params = self.default_params if params is None else params
        chosen = tuple(jnp.asarray(actions[name], jnp.int32) for name in self.agents)
        found = environments.step(self.core, key, state, chosen, params)
        dones = dict(zip(self.agents, found.done, strict=True)) | {"__all__": found.terminated | found.truncated}
        infos = {name: info | {"final_observation": final} for name, info, final
                 in zip(self.agents, found.infos, found.finals, strict=True)}
        return (dict(zip(self.agents, found.observations, strict=True)), found.state,
                dict(zip(self.agents, found.rewards, strict=True)), dones, infos)

    def action_space(self, agent: str) -> Any:
        """gymnax's `Discrete` of a learner; InputError without the extra `rl`."""
        return environments.spaces().Discrete(self.core.tasks[self.agents.index(agent)].actions)

    def observation_space(self, agent: str) -> Any:
        """gymnax's `Box` of a learner; InputError without the extra `rl`."""
        return environments.box(self.core.tasks[self.agents.index(agent)])
