"""The compiled programs that orders pass through: markets together or in turn, and what they answer.

Their calls return before the work is done; `Stopwatch` adds up the seconds in which it was.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array, BookView, Order, Report, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.market import deep
from marsjax.market.process import Event, MarketState, hold_auction, open_state, process
from marsjax.sim.initial.one_by_one import How, PartWay, pass_in_parts, pass_whole

_WHOLE = 128
"""Orders that pass through the whole book when one had to, before it is parted again."""


class Answer(NamedTuple):
    """What came of one order."""

    report: Report
    view: BookView
    """After it; NOT_MADE if it is not asked for."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def open_markets(market: MarketSpec, first_id: int, count: int, with_view: bool) -> MarketState:
    """So many markets before their sessions, [S, ...], without tokens."""
    opened = open_state(market, first_id, with_view=with_view, with_tokens=False)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), opened)


def _answer_of(event: Event) -> Answer:
    report = Report(event.status, event.order_id, event.trades, event.order.price)
    return Answer(report, event.view)


@functools.partial(jax.jit, static_argnums=0)
def _no_answers(spec: MarketSpec, states: MarketState, chunk: Order) -> Answer:
    """Answers [S, N, ...] of zeros."""
    def one_order(state: MarketState, order: Order) -> Answer:
        return _answer_of(process(spec, None, state, order)[1])

    first = (jax.tree.map(lambda x: jnp.asarray(x)[0], states), jax.tree.map(lambda x: jnp.asarray(x)[0, 0], chunk))
    return jax.tree.map(lambda x: jnp.zeros((*chunk.kind.shape, *x.shape), x.dtype), jax.eval_shape(one_order, *first))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _run_together(spec: MarketSpec, states: MarketState, chunk: Order, counts: Array
                  ) -> tuple[MarketState, Answer]:
    """The first `counts` [S] of orders [S, N] through markets [S] -> the markets and the answers [S, N, ...]."""
    def one_order(state: MarketState, order: Order) -> tuple[MarketState, Answer]:
        state, event = process(spec, None, state, order)
        return state, _answer_of(event)

    def step(i: Array, carry: tuple[MarketState, Answer]) -> tuple[MarketState, Answer]:
        states, answer = jax.vmap(one_order)(carry[0], jax.tree.map(lambda x: jnp.asarray(x)[:, i], chunk))
        return states, jax.tree.map(lambda old, new: old.at[:, i].set(new), carry[1], answer)

    # A loop that ends at the last order, unlike a scan, passes over no padding.
    return jax.lax.fori_loop(0, jnp.max(counts), step, (states, _no_answers(spec, states, chunk)))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _run_in_turn(spec: MarketSpec, in_parts: bool, states: MarketState,
                 answers: Answer, chunk: Order, nexts: Array, lasts: Array) -> PartWay:
    """Orders [S, N] from `nexts` [S] to `lasts` [S] through markets [S], one after another."""
    # Without a batch axis the tests inside the book stay branches; under vmap both of their sides are computed.
    how, passes = How(spec, _answer_of), pass_in_parts if in_parts else pass_whole
    return jax.lax.map(lambda given: passes(how, *given), (PartWay(states, answers, nexts), chunk, lasts))


class Together:
    """All markets' orders in one call, batched; called with the markets, orders [S, N] and how many of them [S]."""

    def __init__(self, spec: MarketSpec, states: MarketState, empty: Order) -> None:
        self._run = _run_together.lower(spec, states, empty, np.zeros(len(empty.kind), np.int32)).compile()

    def __call__(self, states: MarketState, chunk: Order, counts: np.ndarray) -> tuple[MarketState, Answer]:
        """The markets after, and the answers [S, N, ...]; the states before are used up."""
        result: tuple[MarketState, Answer] = self._run(states, chunk, counts)
        return result


class InTurn:
    """One market after another; called as `Together`. What is not in need of the whole book passes without it."""

    def __init__(self, spec: MarketSpec, states: MarketState, empty: Order, watch: "Stopwatch") -> None:
        self._spec, self._watch = spec, watch
        self._in_parts = deep.is_worth(spec)
        self._compiled: dict[bool, jax.stages.Compiled] = {}
        none = np.zeros(len(empty.kind), np.int32)
        self._program(self._in_parts, states, _no_answers(spec, states, empty), empty, none, none)

    def __call__(self, states: MarketState, chunk: Order, counts: np.ndarray) -> tuple[MarketState, Answer]:
        """As of `Together`."""
        answers = _no_answers(self._spec, states, chunk)
        passed = self._pass(self._in_parts, states, answers, chunk, np.zeros_like(counts), counts)
        # Of a market in two parts it must be seen how far it came; a whole one comes to the end.
        while self._in_parts and np.any(passed.next < counts):
            nexts = np.asarray(passed.next)
            passed = self._pass(False, passed.state, passed.answers, chunk, nexts, np.minimum(nexts + _WHOLE, counts))
            passed = self._pass(True, passed.state, passed.answers, chunk, np.asarray(passed.next), counts)
        return passed.state, passed.answers

    def _pass(self, in_parts: bool, *arguments: Any) -> PartWay:
        passed: PartWay = self._program(in_parts, *arguments)(*arguments)
        return passed

    def _program(self, in_parts: bool, *arguments: Any) -> jax.stages.Compiled:
        if in_parts not in self._compiled:
            with self._watch.compiling():
                self._compiled[in_parts] = _run_in_turn.lower(self._spec, in_parts, *arguments).compile()
        return self._compiled[in_parts]


@functools.partial(jax.jit, static_argnums=0)
def hold_auctions(spec: MarketSpec, states: MarketState) -> tuple[MarketState, tuple[Uncross, BookView]]:
    """The next call auction of every market, and the views after it; NOT_MADE where there are none."""
    after, results = jax.vmap(functools.partial(hold_auction, spec))(states)
    return after, (results, after.view)


class Stopwatch:
    """Adds up the seconds in which calls were under way, those of several at once counted once; compilation apart."""

    def __init__(self) -> None:
        self.run_s = 0.0
        self.compile_s = 0.0
        self._since: float | None = None  # all before is counted; None: no call is under way
        self._under_way = 0

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """What is done inside is compilation, also where a call is under way."""
        began, before = time.perf_counter(), self.compile_s
        yield
        took = time.perf_counter() - began - (self.compile_s - before)  # less what was counted inside
        self.compile_s += took
        self._since = None if self._since is None else self._since + took

    def start(self) -> None:
        """A call is started now."""
        self._since = time.perf_counter() if self._since is None else self._since
        self._under_way += 1

    def wait(self, results: Any) -> None:
        """Waits for the results of a call."""
        jax.block_until_ready(results)
        now = time.perf_counter()
        self.run_s += now - (now if self._since is None else self._since)
        self._under_way -= 1
        self._since = now if self._under_way else None
