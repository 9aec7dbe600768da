"""The orders of one market one after another, on one core: loops that are compiled as one function each."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from marsjax.core import kernels as ways
from marsjax.core.one_function import as_one_function
from marsjax.core.records import Array, Order
from marsjax.core.specs import MarketSpec
from marsjax.market import deep
from marsjax.market.process import Event, MarketState, process

_BLOCK = 128
"""Orders of a market in two parts in one loop; between two loops what they answered is copied."""
_Answers = TypeVar("_Answers")


class How(NamedTuple):
    """How one order passes."""

    spec: MarketSpec
    answer_of: Callable[[Event], Any]
    """What is kept of an event."""

    @property
    def kernels(self) -> ways.Kernels:
        """The ways of one book alone."""
        return dataclasses.replace(ways.chosen(self.spec.kernels), shift="laid")

    @property
    def own_spec(self) -> MarketSpec:
        """The sizes, with these ways."""
        return dataclasses.replace(self.spec, kernels=self.kernels)


class PartWay(NamedTuple):
    """A market with some orders behind it."""

    state: MarketState
    answers: Any
    """Arrays [N, ...]; of orders that have not passed they mean nothing."""
    next: Array
    """int32 [], number of the first order that has not passed."""


def pass_whole(how: How, passed: PartWay, sent: Order, last: Array) -> PartWay:
    """Orders [N] from `passed.next` to `last` through the whole book; not under `vmap`."""
    def step(i: Array, carry: tuple[MarketState, Any]) -> tuple[MarketState, Any]:
        state, event = process(how.own_spec, None, carry[0], _entry(sent, i))
        return state, _put(carry[1], i, how.answer_of(event))

    def loop(passed: PartWay, sent: Order, last: Array) -> tuple[MarketState, Any]:
        return jax.lax.fori_loop(passed.next, last, step, (passed.state, passed.answers))

    return PartWay(*as_one_function(how.kernels, loop, passed, sent, last), last)


class _Stand(NamedTuple):
    parts: deep.Deep
    answers: Any
    next: Array
    parted: Array  # int32, the order before which the book was parted
    is_stuck: Array


def pass_in_parts(how: How, passed: PartWay, sent: Order, last: Array) -> PartWay:
    """Orders [N] from `passed.next` on through the two parts of a book; not under `vmap`.

    It ends at `last`, or before the first order that must pass through the whole book (`PartWay.next` says which).
    """
    spec, size = how.own_spec, sent.kind.shape[0]
    block = min(_BLOCK, size)

    def step(begin: Array, sent: Order, carry: Any) -> Any:
        i, parts, answers, _ = carry
        parts, event, took = deep.process_near(spec, None, parts, _entry(sent, i))
        return i + took, parts, _put(answers, i - begin, how.answer_of(event)), took

    def loop(begin: Array, sent: Order, first: Array, parts: deep.Deep, answers: Any, until: Array) -> Any:
        return jax.lax.while_loop(lambda carry: (carry[0] < until) & carry[3], lambda carry: step(begin, sent, carry),
                                  (first, parts, answers, jnp.ones((), bool)))[:3]

    def some(stand: _Stand) -> _Stand:
        begin = jnp.minimum(stand.next, size - block)
        until = jnp.minimum(begin + block, last)
        reached, parts, written = as_one_function(how.kernels, loop, begin, sent, stand.next, stand.parts,
                                                  _part(stand.answers, begin, block), until)
        is_stuck = (reached < until) & (reached == stand.parted)
        parts_anew = (reached < until) & ~is_stuck
        # A loop, not a branch: what a loop carries stays where it is.
        parts, _ = jax.lax.while_loop(
            lambda carry: carry[1], lambda carry: (deep.split(spec, deep.join(spec, carry[0])), jnp.zeros((), bool)),
            (parts, parts_anew))
        return _Stand(parts, _put_part(stand.answers, begin, written), reached,
                      jnp.where(parts_anew, reached, stand.parted), is_stuck)

    start = _Stand(deep.split(spec, passed.state), passed.answers, passed.next, passed.next, jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda stand: (stand.next < last) & ~stand.is_stuck, some, start)
    return PartWay(deep.join(spec, end.parts), end.answers, end.next)


def _entry(tree: Any, at: Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, at, keepdims=False), tree)


def _put(tree: Any, at: Array, new: Any) -> Any:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, at, 0), tree, new)


def _part(tree: Any, at: Array, size: int) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, size), tree)


def _put_part(tree: Any, at: Array, new: Any) -> Any:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at, 0), tree, new)
