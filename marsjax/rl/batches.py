"""Functions that take a whole batch in one go, called for one market under `vmap`.

An order model's contexts must not go through a loop that `vmap` has batched, which copies them in every pass. Here
`vmap` is told to call the batched function in place of batching the single one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

_Result = TypeVar("_Result")


def by_whole_batches(together: Callable[..., _Result]) -> Callable[..., _Result]:
    """`f(shared, *given)` of one market, by `together(shared, *given)` of `given` [B, ...] and results [B, ...].

    `shared` (weights, starts) is not batched; where a `vmap` batches it all the same, the markets go one by one.
    """
    @jax.custom_batching.custom_vmap
    def many(shared: Any, *given: Any) -> Any:
        return together(shared, *given)

    @jax.custom_batching.custom_vmap
    def one(shared: Any, *given: Any) -> Any:
        found = together(shared, *jax.tree.map(lambda x: x[None], given))
        return jax.tree.map(lambda x: x[0], found)

    @one.def_vmap
    def _of_batch(size: int, is_batched: Any, shared: Any, *given: Any) -> tuple[Any, Any]:
        if _any(is_batched[0]):
            return _in_turn(one, size, is_batched, (shared, *given))
        return _all_batched(many(shared, *_widened(size, is_batched[1:], given)))

    @many.def_vmap
    def _of_batches(size: int, is_batched: Any, shared: Any, *given: Any) -> tuple[Any, Any]:
        if _any(is_batched[0]):
            return _in_turn(many, size, is_batched, (shared, *given))
        merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), _widened(size, is_batched[1:], given))
        found = many(shared, *merged)
        return _all_batched(jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), found))

    return lambda *given: one(*jax.tree.map(jnp.asarray, given))


def _any(is_batched: Any) -> bool:
    return any(jax.tree.leaves(is_batched))


def _widened(size: int, is_batched: Any, given: Any) -> Any:
    return jax.tree.map(lambda batched, x: x if batched else jnp.broadcast_to(x, (size, *jnp.shape(x))),
                        tuple(is_batched), given)


def _in_turn(function: Callable[..., Any], size: int, is_batched: Any, given: Any) -> tuple[Any, Any]:
    """One after the other."""
    every = _widened(size, is_batched, given)
    return _all_batched(jax.lax.map(lambda each: function(*each), every))


def _all_batched(found: Any) -> tuple[Any, Any]:
    return found, jax.tree.map(lambda _: True, found)
