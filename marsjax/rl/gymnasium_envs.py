"""The same environments for learners outside JAX: Gymnasium's single and vector environments, of NumPy arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.rl.base import Task
from marsjax.rl.env import MarketEnv, Params

try:
    import gymnasium
except ImportError:  # said when an environment is made
    gymnasium = None  # type: ignore[assignment]

_Env: Any = object if gymnasium is None else gymnasium.Env
_VectorEnv: Any = object if gymnasium is None else gymnasium.vector.VectorEnv


class GymnasiumMarket(_Env):
    """One market."""

    def __init__(self, env: MarketEnv, params: Params | None = None) -> None:
        self._env, self._params = env, env.default_params if params is None else params
        self.action_space, self.observation_space = _spaces(env.task)
        self._key = jax.random.key(0)
        self._state: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        """The start of an episode, of a seed or as the draws go on; no options."""
        super().reset(seed=seed)
        self._key, key = jax.random.split(self._key if seed is None else jax.random.key(seed))
        observation, self._state = self._env.reset(key, self._params)
        return np.asarray(observation), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; after the last one of an episode `reset` begins the next."""
        self._key, key = jax.random.split(self._key)
        _, self._state, reward, terminated, truncated, info = self._env.step(key, self._state, int(action),
                                                                             self._params)
        found = {name: np.asarray(value) for name, value in info.items()}
        return found.pop("final_observation"), float(reward), bool(terminated), bool(truncated), found


class GymnasiumMarkets(_VectorEnv):
    """Many markets in one compiled step. An episode that is over is begun anew in the same step."""

    def __init__(self, env: MarketEnv, num_envs: int, params: Params | None = None) -> None:
        limits.check_whole("GymnasiumMarkets.num_envs", num_envs, 1, limits.TRAJECTORIES)
        self.num_envs, self._params = num_envs, env.default_params if params is None else params
        self.single_action_space, self.single_observation_space = _spaces(env.task)
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self._reset, self._step = jax.jit(jax.vmap(env.reset, (0, None))), jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
        self._key = jax.random.key(0)
        self._state: Any = None

    def reset(self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        """The starts of all episodes, of one seed or as the draws go on; no options."""
        if isinstance(seed, list):
            raise InputError("GymnasiumMarkets.reset: expected one seed for all markets, got a list")
        self._key, key = jax.random.split(self._key if seed is None else jax.random.key(seed))
        observation, self._state = self._reset(jax.random.split(key, self.num_envs), self._params)
        return np.asarray(observation), {}

    def step(self, actions: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of all; where an episode is over, `final_obs` is what it led to, and `_final_obs` says where."""
        self._key, key = jax.random.split(self._key)
        observation, self._state, reward, terminated, truncated, info = self._step(
            jax.random.split(key, self.num_envs), self._state, jnp.asarray(actions, jnp.int32), self._params)
        found = {name: np.asarray(value) for name, value in info.items()}
        final, over = found.pop("final_observation"), np.asarray(terminated) | np.asarray(truncated)
        found |= {"final_obs": final, "_final_obs": over}
        return np.asarray(observation), np.asarray(reward), np.asarray(terminated), np.asarray(truncated), found


def _spaces(task: Task) -> tuple[Any, Any]:
    """Of actions and observations; InputError where Gymnasium is not installed."""
    if gymnasium is None:
        raise InputError("rl: Gymnasium is not installed: pip install 'marsjax[rl]'")
    return (gymnasium.spaces.Discrete(task.actions),
            gymnasium.spaces.Box(-task.most, task.most, (task.features,), np.float32))
