"""Environments as learners in JAX expect them: gymnax's interface, over a market and one task or several.

    env, params = rl.make("execution", background="noise")
    observation, state = jax.vmap(env.reset, (0, None))(keys, params)
    observation, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
        keys, state, actions, params)

All that is read while steps are made (messages, starting books, weights of an order model, the numbers of a task) is in
`params`, so that a compiled program takes it as an argument; what is static is in the environment, which is a pytree
too, and hashable by identity.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.keys import typed
from marsjax.core.records import Array, Order
from marsjax.market import orders as make
from marsjax.rl.base import Background, Begun, Judged, Stepped, Task, start_and_words, where

MOST_STEPS = 2**24
"""Of an episode: float32 counts them."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """What may change between runs of one compiled program."""

    background: Any
    """What the background reads."""
    tasks: tuple[Any, ...]
    """Of each learner."""
    max_steps_in_episode: Array | int
    """int32 steps."""

    def replace(self, **changes: Any) -> "Params":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EpisodeState:
    """One environment in an episode."""

    market: Begun
    """The background's state, and what is seen of it."""
    tasks: tuple[Any, ...]
    """Of each learner."""
    time: Array
    """int32, steps made."""

    def replace(self, **changes: Any) -> "EpisodeState":
        """The same with other fields."""
        return dataclasses.replace(self, **changes)


class Transition(NamedTuple):
    """What a step gives A learners."""

    observations: tuple[jax.Array, ...]
    """float32 [F] each: of the new episode, where one has begun."""
    state: EpisodeState
    rewards: tuple[Array, ...]
    """float32."""
    terminated: Array
    """bool: all is done, or the episode's steps are."""
    truncated: Array
    """bool: the market could not go on."""
    done: tuple[Array, ...]
    """bool, whose task is done, or whose episode is over."""
    finals: tuple[jax.Array, ...]
    """float32 [F] each: the observations that the step led to, before a new episode."""
    infos: tuple[dict[str, Array], ...]


@dataclasses.dataclass(frozen=True)
class Core:
    """A background, and a task for each of A learners: the static part of an environment, hashable."""

    background: Background
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.tasks or len(self.tasks) != len(self.background.accounts):
            raise InputError(f"rl: expected a task for each of the background's {len(self.background.accounts)} "
                             f"accounts, got {len(self.tasks)}")
        for task in self.tasks:
            if task.most_orders > self.background.most_orders:
                raise InputError(f"rl: task {task.name}: expected at most the background's most_orders="
                                 f"{self.background.most_orders} orders a step, got {task.most_orders}")

    def default_params(self, data: Any, steps: int) -> Params:
        """The tasks' own params, with what the background reads."""
        limits.check_whole("max_steps_in_episode", steps, 1, MOST_STEPS)
        return Params(data, tuple(task.default_params() for task in self.tasks), jnp.int32(steps))

    def reset(self, key: jax.Array, params: Params) -> tuple[tuple[jax.Array, ...], EpisodeState]:
        """The start of an episode."""
        key_market, key_tasks = jax.random.split(typed(key))
        begun = self.background.begin(params.background, key_market)
        state = self._at_start(key_tasks, params, begun)
        return self._observe(params, state), state

    def start_number(self, key: jax.Array, params: Params) -> jax.Array:
        """int32, which of the background's starts `reset` begins at with this key."""
        return start_and_words(jax.random.split(typed(key))[0], params.background.start_count)[0]

    def step(self, key: jax.Array, state: EpisodeState, actions: tuple[Array, ...], params: Params) -> Transition:
        """One step; where an episode is over by it, a new one begins.

        Args:
          key: of this step alone: it draws the next start, if there is one.
          state: before.
          actions: int32 scalars, of each learner.
          params: as given to `reset`.
        """
        key_market, key_tasks = jax.random.split(typed(key))
        sent = [task.orders(given, mine, state.market.seen, resting, action) for task, given, mine, resting, action
                in zip(self.tasks, params.tasks, state.tasks, state.market.resting, actions, strict=True)]
        sent = [_padded(orders, self.background.most_orders) for orders in sent]
        every = jax.tree.map(lambda *x: jnp.stack(x), *sent)
        after = self.background.step(params.background, state.market.state, every)
        time = state.time + 1
        # What is left is charged where the time is up alone: the value of a truncated episode is estimated.
        is_late = jnp.asarray(time >= params.max_steps_in_episode)
        judged = self._judged(params, state, after, is_late)
        all_done = functools.reduce(jnp.logical_and, [one.is_done for one in judged])
        terminated = jnp.asarray(all_done | is_late)
        truncated = jnp.asarray(after.is_over & ~terminated)
        over = terminated | truncated

        market = Begun(after.state, after.seen, after.resting)
        ended = EpisodeState(market, tuple(one.state for one in judged), time)
        finals = self._observe(params, ended)
        market = self.background.renew(params.background, key_market, over, market)
        fresh = self._at_start(key_tasks, params, market)
        begun = EpisodeState(market, where(over, fresh.tasks, ended.tasks), jnp.where(over, 0, time))
        observations = where(over, self._observe(params, begun), finals)
        return Transition(observations, begun, tuple(one.reward for one in judged), terminated, truncated,
                          tuple(one.is_done | over for one in judged), finals, tuple(one.info for one in judged))

    def _at_start(self, key: jax.Array, params: Params, begun: Begun) -> EpisodeState:
        tasks = tuple(task.begin(given, jax.random.fold_in(key, i), begun.seen)
                      for i, (task, given) in enumerate(zip(self.tasks, params.tasks, strict=True)))
        return EpisodeState(begun, tasks, jnp.zeros((), jnp.int32))

    def _judged(self, params: Params, state: EpisodeState, after: Stepped, is_last: Array) -> tuple[Judged, ...]:
        return tuple(task.judge(given, mine, after.seen, fills, after.trades, is_last) for task, given, mine, fills
                     in zip(self.tasks, params.tasks, state.tasks, after.fills, strict=True))

    def _observe(self, params: Params, state: EpisodeState) -> tuple[jax.Array, ...]:
        passed = (state.time, jnp.asarray(params.max_steps_in_episode))
        return tuple(task.observe(given, mine, state.market.seen, passed)
                     for task, given, mine in zip(self.tasks, params.tasks, state.tasks, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def reset(core: Core, key: jax.Array, params: Params) -> tuple[tuple[jax.Array, ...], EpisodeState]:
    """`Core.reset`, compiled."""
    return core.reset(key, params)


@functools.partial(jax.jit, static_argnums=0)
def step(core: Core, key: jax.Array, state: EpisodeState, actions: tuple[Array, ...], params: Params) -> Transition:
    """`Core.step`, compiled."""
    return core.step(key, state, actions, params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class MarketEnv:
    """One learner in a market, with the interface of a gymnax environment; `vmap` it over thousands.

    `terminated` means that the task is done or its time is over, which its reward and its observation know of;
    `truncated` that the market could not go on (a recording has no more messages), for which nothing is charged. Either
    way a new episode begins at once: `info["final_observation"]` is what the step led to.
    """

    core: Core = dataclasses.field(metadata={"static": True})
    default_params: Params

    def __post_init__(self) -> None:
        if len(self.core.tasks) != 1:
            raise InputError(f"MarketEnv: expected one task, got {len(self.core.tasks)}; see rl.marl for several")

    @property
    def task(self) -> Task:
        """What is to be done."""
        return self.core.tasks[0]

    @property
    def name(self) -> str:
        """Of the task and its background."""
        return f"{self.task.name}-{type(self.core.background).__name__.lower()}"

    @property
    def num_actions(self) -> int:
        """Of the task."""
        return self.task.actions

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[jax.Array, EpisodeState]:
        """The start of an episode: an observation, float32 [F], and the state."""
        (observation,), state = reset(self.core, key, self.default_params if params is None else params)
        return observation, state

    def step(self, key: jax.Array, state: EpisodeState, action: Array | int, params: Params | None = None
             ) -> tuple[jax.Array, EpisodeState, Array, Array, Array, dict[str, Any]]:
        """One step: observation, state, reward, terminated, truncated, info."""
        params = self.default_params if params is None else params
        found = step(self.core, key, state, (jnp.asarray(action, jnp.int32),), params)
        info = found.infos[0] | {"terminated": found.terminated, "truncated": found.truncated,
                                 "discount": 1 - found.terminated.astype(jnp.float32),
                                 "final_observation": found.finals[0]}
        return found.observations[0], found.state, found.rewards[0], found.terminated, found.truncated, info

    def action_space(self, params: Params | None = None) -> Any:
        """gymnax's `Discrete`; InputError without the extra `rl`."""
        del params
        return spaces().Discrete(self.num_actions)

    def observation_space(self, params: Params | None = None) -> Any:
        """gymnax's `Box`; InputError without the extra `rl`."""
        del params
        return box(self.task)

    def state_space(self, params: Params | None = None) -> Any:
        """gymnax's `Dict` of the one number that all states have, the steps made; InputError without the extra."""
        steps = (self.default_params if params is None else params).max_steps_in_episode
        return spaces().Dict({"time": spaces().Discrete(int(steps) + 1)})


def spaces() -> Any:
    """gymnax's module of spaces; InputError where it is not installed."""
    try:
        from gymnax.environments import spaces as found
    except ImportError as error:
        raise InputError("rl: spaces of actions and observations are gymnax's, which is not installed: "
                         "pip install 'marsjax[rl]'") from error
    return found


def box(task: Task) -> Any:
    """The space of a task's observations."""
    return spaces().Box(-task.most, task.most, (task.features,), jnp.float32)


def _padded(orders: Order, count: int) -> Order:
    """Orders [K] filled up with none."""
    missing = count - orders.kind.shape[0]
    nothing = make.no_order()
    return jax.tree.map(lambda x, none: jnp.concatenate([x, jnp.broadcast_to(none, (missing,))]), orders, nothing)
