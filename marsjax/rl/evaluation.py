"""How well a policy does: whole episodes, one from each key, and what they added up to."""

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from marsjax.core import limits
from marsjax.core.records import Array
from marsjax.rl.env import MarketEnv
from marsjax.rl.ppo import GymnaxEnvironment

_NO_NUMBERS = ("terminated", "truncated", "final_observation")


class Actor(Protocol):
    """What acts: a `Policy`, or whatever has these two; a pytree."""

    def begin(self, count: int) -> Any:
        """The memory of B trajectories that begin, [B, ...]."""

    def act(self, memory: Any, seen: jax.Array, begins: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        """Memory and actions of B trajectories; see `Policy.act`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Constant:
    """Takes the same action always: number 0 is to do nothing, or what a task does by itself.

    Examples:
      >>> Constant(3).act((), jnp.zeros((2, 4)), jnp.ones(2, bool), jax.random.key(0))[1].tolist()
      [3, 3]
    """

    action: Array | int = 0

    def begin(self, count: int) -> tuple[()]:
        """It remembers nothing."""
        del count
        return ()

    def act(self, memory: tuple[()], seen: jax.Array, begins: jax.Array, key: jax.Array
            ) -> tuple[tuple[()], jax.Array]:
        """The action, of B trajectories."""
        del begins, key
        return memory, jnp.full(seen.shape[:1], self.action, jnp.int32)


class Episodes(NamedTuple):
    """B whole episodes."""

    reward: jax.Array
    """float32 [B], the sum."""
    steps: jax.Array
    """int32 [B]."""
    is_whole: jax.Array
    """bool [B], whether they came to an end in the steps that there were."""
    sums: dict[str, jax.Array]
    """float32 [B], what `info` told, added up."""
    last: dict[str, jax.Array]
    """float32 [B], what it told at the last step."""


class _Keys(NamedTuple):
    episode: jax.Array
    """[B]."""
    draw: jax.Array
    """int32, folded into those of the actions."""


class _Now(NamedTuple):
    state: Any
    seen: jax.Array
    memory: Any
    step: jax.Array
    found: Episodes


def episodes(env: GymnaxEnvironment, params: Any, actor: Actor, keys: jax.Array, most_steps: int, draw: int = 0
             ) -> Episodes:
    """An episode from each of B keys, all in one compiled call.

    The same key has the same start and the same draws, whatever the other keys are.

    Args:
      env: of gymnax's interface; one that is a pytree is an argument of the compiled call.
      params: its parameters.
      actor: who acts.
      keys: [B].
      most_steps: after which all end.
      draw: number that is folded into the keys of the actions alone: with another one the same episodes have other
        draws of the actor.
    """
    limits.check_whole("most_steps", most_steps, 1, limits.STEPS_OF_A_CALL)
    if jax.tree_util.all_leaves([env]):
        return _of_constant(env, most_steps, params, actor, _Keys(keys, jnp.int32(draw)))
    return _of_pytree(most_steps, env, params, actor, _Keys(keys, jnp.int32(draw)))


def by_step(env: GymnaxEnvironment, params: Any, actor: Actor, keys: jax.Array, steps: int) -> dict[str, jax.Array]:
    """What `info` tells in each of so many steps, float32 [K, B]; those after an episode's end are of the next one."""
    limits.check_whole("steps", steps, 1, limits.STEPS_OF_A_CALL)
    if jax.tree_util.all_leaves([env]):
        return jax.jit(_by_step, static_argnums=(0, 4))(env, params, actor, _Keys(keys, jnp.int32(0)), steps)
    return jax.jit(_by_step, static_argnums=4)(env, params, actor, _Keys(keys, jnp.int32(0)), steps)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_constant(env: GymnaxEnvironment, most_steps: int, params: Any, actor: Actor, keys: _Keys) -> Episodes:
    return _episodes(env, params, actor, keys, most_steps)


@functools.partial(jax.jit, static_argnums=0)
def _of_pytree(most_steps: int, env: GymnaxEnvironment, params: Any, actor: Actor, keys: _Keys) -> Episodes:
    return _episodes(env, params, actor, keys, most_steps)


def _episodes(env: GymnaxEnvironment, params: Any, actor: Actor, keys: _Keys, most_steps: int) -> Episodes:
    def one(now: _Now) -> tuple[_Now, dict[str, jax.Array]]:
        return _stepped(env, params, actor, keys, now)

    first = _first(env, params, actor, keys.episode)
    empty = dict.fromkeys(jax.eval_shape(one, first)[1], jnp.zeros(len(keys.episode)))
    first = first._replace(found=first.found._replace(sums=empty, last=empty))
    return jax.lax.while_loop(lambda now: (now.step < most_steps) & ~jnp.all(now.found.is_whole),
                              lambda now: one(now)[0], first).found


def _by_step(env: GymnaxEnvironment, params: Any, actor: Actor, keys: _Keys, steps: int) -> dict[str, jax.Array]:
    def one(now: _Now, _: None) -> tuple[_Now, dict[str, jax.Array]]:
        after, told = _stepped(env, params, actor, keys, now)
        return after._replace(found=now.found), told

    return jax.lax.scan(one, _first(env, params, actor, keys.episode), None, length=steps)[1]


def _first(env: GymnaxEnvironment, params: Any, actor: Actor, keys: jax.Array) -> _Now:
    seen, state = starts(env, params, keys)
    count, nothing = len(keys), jnp.zeros(len(keys))
    return _Now(state, seen, actor.begin(count), jnp.int32(0),
                Episodes(nothing, jnp.zeros(count, jnp.int32), jnp.zeros(count, bool), {}, {}))


def starts(env: GymnaxEnvironment, params: Any, keys: jax.Array) -> tuple[Any, Any]:
    """The observations and states, [B, ...], that the episodes of `episodes` begin with."""
    return jax.vmap(lambda key: env.reset(jax.random.fold_in(key, 0), params))(keys)


def start_numbers(env: MarketEnv, params: Any, keys: jax.Array) -> jax.Array:
    """int32 [B], which of the background's starts the episodes of `episodes` begin at."""
    return jax.jit(jax.vmap(lambda key: env.core.start_number(jax.random.fold_in(key, 0), params)))(keys)


def _acted(actor: Actor, now: _Now, keys: jax.Array) -> tuple[Any, jax.Array]:
    """Memory and actions, each episode by itself with a key of its own [B]."""
    def one(memory: Any, seen: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        memory = jax.tree.map(lambda x: x[None], memory)
        return jax.tree.map(  # type: ignore[no-any-return]
            lambda x: x[0], actor.act(memory, seen[None], jnp.full(1, now.step == 0), key))

    return jax.vmap(one)(now.memory, now.seen, keys)


def _stepped(env: GymnaxEnvironment, params: Any, actor: Actor, keys: _Keys, now: _Now
             ) -> tuple[_Now, dict[str, jax.Array]]:
    """A step of all episodes, and what `info` told in it."""
    count, was = len(keys.episode), now.found
    drawn = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, now.step + 1)))(keys.episode)
    memory, action = _acted(actor, now, jax.vmap(jax.random.fold_in, (0, None))(drawn[:, 0], keys.draw))
    seen, state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        drawn[:, 1], now.state, action, params)
    goes_on = ~was.is_whole
    told = {name: jnp.asarray(x, jnp.float32) for name, x in info.items()
            if name not in _NO_NUMBERS and jnp.shape(x) == (count,)}
    found = Episodes(
        was.reward + jnp.where(goes_on, reward, 0.0), was.steps + goes_on, was.is_whole | terminated | truncated,
        {name: was.sums.get(name, 0.0) + jnp.where(goes_on, x, 0.0) for name, x in told.items()},
        {name: jnp.where(goes_on, x, was.last.get(name, 0.0)) for name, x in told.items()})
    return _Now(state, seen, memory, now.step + 1, found), told
