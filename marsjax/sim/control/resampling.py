"""Which trajectories of an island go on, and in whose places: systematic resampling of weighted futures.

All functions are of I islands of n trajectories, arrays [I, n], and what becomes of an island does not depend on the
others: sums are taken of one island at a time, as XLA adds up [I, n] in an order that depends on I. A trajectory that
goes on stays at its place, and only the others are written over: the copies of a state are as few as they can be, and
made in place.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from marsjax.core.records import Array

_Tree = TypeVar("_Tree")
_FIRST_KEY = 2**32 - 1
"""Draws of resampling are keyed by it; those of trajectories by their numbers, which are smaller."""
_LEAST_ROWS, _PARTS = 16, 16
"""Trajectories that are copied at a time: so many, or such a part of all; it bounds what copies take of the memory."""


class Weighed(NamedTuple):
    """What weights come to."""

    weight: jax.Array
    """float32 [I, n], the sum of an island is 1, or 0 where no trajectory has a weight."""
    ess: jax.Array
    """float32 [I], effective sample size over n: 1 where all weights are equal, 0 where there are none."""
    is_even: jax.Array
    """bool [I], all weights are the same, or all are 0: there is nothing to resample."""
    log_mean: jax.Array
    """float32 [I], log of the mean of the weights as they are given."""


def weigh(log_weights: Array) -> Weighed:
    """Weights of log-weights, which may be -inf."""
    def of_island(log_weights: jax.Array) -> Weighed:
        count, highest = len(log_weights), jnp.max(log_weights)
        is_there = highest > -jnp.inf
        raw = jnp.where(is_there, jnp.exp(log_weights - jnp.where(is_there, highest, 0.0)), 0.0)
        total, squares = jnp.sum(raw), jnp.sum(raw * raw)
        ess = total * total / (jnp.maximum(squares, jnp.float32(1e-30)) * count)
        total = jnp.maximum(total, jnp.float32(1e-30))
        return Weighed(raw / total, ess, jnp.all(log_weights == log_weights[0]), highest + jnp.log(total / count))

    found: Weighed = jax.lax.map(of_island, jnp.asarray(log_weights, jnp.float32))
    return found


def uniform(seed: Array, interval: Array, number: Array) -> jax.Array:
    """One uniform number for each island, float32 [I], by the numbers of their first trajectories, int32 [I]."""
    of_all = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), jnp.uint32(_FIRST_KEY))
    of_interval = jax.random.fold_in(of_all, interval)
    return jax.vmap(lambda one: jax.random.uniform(jax.random.fold_in(of_interval, one)))(jnp.asarray(number))


def offspring(weight: Array, uniform: Array) -> jax.Array:
    """How many trajectories each one becomes, int32 [I, n], n in all; floor or ceil of n times its weight, or so.

    One without weight becomes none. `uniform` is [I], of [0, 1).
    """
    def of_island(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        weight, uniform = given
        count = len(weight)
        reached = jnp.ceil(jnp.cumsum(weight) * count - uniform)
        # The last one with weight reaches all; rounding may leave its sum short of that.
        later = jnp.cumsum(weight[::-1] > 0)[::-1] - (weight > 0)
        reached = jnp.where(later == 0, count, jnp.clip(reached, 0, count))
        reached = jax.lax.cummax(reached).astype(jnp.int32)
        found = jnp.where(weight > 0, jnp.diff(reached, prepend=0), 0)
        # What rounding leaves over or takes too much of is a place or so: the heaviest has it.
        left = count - jnp.sum(found)
        return jnp.where(jnp.arange(count) == jnp.argmax(weight), found + left, found)

    found: jax.Array = jax.lax.map(of_island, (jnp.asarray(weight), jnp.asarray(uniform)))
    return found


def ancestors(count: Array) -> jax.Array:
    """Places that trajectories are copied from, int32 [I, n], of the numbers that each one becomes, [I, n].

    Who becomes one or more stays at its place; the others' places go to the further copies, in order.
    """
    count = jnp.asarray(count)
    places = jnp.arange(count.shape[1])

    def of_island(count: jax.Array) -> jax.Array:
        further = jnp.cumsum(jnp.maximum(count - 1, 0))
        turn = jnp.cumsum(count == 0) - 1
        source = jnp.searchsorted(further, turn, side="right")
        return jnp.where(count == 0, source, places).astype(jnp.int32)

    return jax.vmap(of_island)(count)


def copied(tree: _Tree, source: Array) -> _Tree:
    """Arrays [B, ...] whose row b is that of source[b], int32 [B], as `ancestors` gives them, in place.

    A row that is anyone's source must be its own.
    """
    batch = source.shape[0]
    source, together = jnp.asarray(source), max(_LEAST_ROWS, batch // _PARTS)

    def some(carry: tuple[_Tree, jax.Array]) -> tuple[_Tree, jax.Array]:
        tree, left = carry
        to = jnp.nonzero(left, size=together, fill_value=batch)[0]
        rows = jnp.take(source, to, mode="clip")
        tree = jax.tree.map(lambda x: x.at[to].set(x[rows], mode="drop"), tree)
        return tree, left.at[to].set(False, mode="drop")

    left = source != jnp.arange(batch)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), some, (tree, left))[0]
