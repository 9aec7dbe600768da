"""What backgrounds and tasks are: a market that goes on step by step, and what a learner is to do in it.

A environment (`rl.env`) is one background and a task for each of A traders. Every function here is of one market;
`vmap` maps them over thousands.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core import int64
from marsjax.core.records import EMPTY_PRICE, NO_ID, Array, Book, BookView, Int64, Order, Time
from marsjax.core.specs import MarketSpec

_Tree = TypeVar("_Tree")

ROOM = 2
"""R, own resting orders of a trader that are seen, of each side; `rl.quotes` never leaves more of them."""


class MarketSeen(NamedTuple):
    """What all traders see between two steps."""

    time: Time
    """The clock: of the last message, or of the end of the step's span."""
    view: BookView
    depth: Int64
    """[2], shares of all orders of a `Side`."""
    tick: Array
    """int32, 1e-4 of the currency."""


class TraderFills(NamedTuple):
    """What came of one trader's orders in a step."""

    bought: Array
    """int32 shares."""
    sold: Array
    """int32 shares."""
    cash: Int64
    """Change of its cash, 1e-4 of the currency."""
    value: Int64
    """Sum of price x volume of its trades, bought and sold, 1e-4 of the currency."""
    accepted: Array
    """int32, orders that the exchange took, cancels among them."""
    refused: Array
    """int32, orders that it did not."""


class StepTrades(NamedTuple):
    """All trades of the market in a step, those of the traders among them."""

    volume: Int64
    """Shares."""
    value: Int64
    """Sum of price x volume, 1e-4 of the currency."""


class Stepped(NamedTuple):
    """A market after a step, and what happened in it."""

    state: Any
    """The background's."""
    seen: MarketSeen
    resting: tuple[Resting, ...]
    """Of each trader, R orders a side."""
    fills: tuple[TraderFills, ...]
    """Of each trader."""
    trades: StepTrades
    is_over: Array
    """bool: the market cannot go on."""


class Begun(NamedTuple):
    """A market at the start of an episode."""

    state: Any
    seen: MarketSeen
    resting: tuple[Resting, ...]


class Background(Protocol):
    """A market without its learners: a frozen, hashable record. What it reads is `data`, a pytree of arrays."""

    @property
    def market(self) -> MarketSpec:
        """Its sizes and session."""

    @property
    def accounts(self) -> tuple[int, ...]:
        """Of the A traders from outside."""

    @property
    def most_orders(self) -> int:
        """K, orders of one trader in a step."""

    def begin(self, data: Any, key: jax.Array) -> Begun:
        """A start drawn by the key, and the market there."""

    def step(self, data: Any, state: Any, sent: Order) -> Stepped:
        """Sends orders [A, K], one trader after the other, and goes on by a step."""

    def renew(self, data: Any, key: jax.Array, done: Array, old: Begun) -> Begun:
        """Where `done`, what `begin` gives, else what was."""


class Judged(NamedTuple):
    """What a task makes of a step."""

    state: Any
    """The task's."""
    reward: Array
    """float32."""
    is_done: Array
    """bool: there is nothing left to do."""
    info: dict[str, Array]


class Task(Protocol):
    """What one learner does: a frozen, hashable record. What may change between runs is `params`, a pytree."""

    @property
    def name(self) -> str:
        """Names the learner, where there are several."""

    @property
    def actions(self) -> int:
        """Of its discrete actions, 0 to actions - 1."""

    @property
    def features(self) -> int:
        """F, of its observation."""

    @property
    def most(self) -> float:
        """No feature is larger, nor smaller than its negative."""

    @property
    def most_orders(self) -> int:
        """K, orders of a step."""

    def default_params(self) -> Any:
        """What may change, as arrays."""

    def begin(self, params: Any, key: jax.Array, seen: MarketSeen) -> Any:
        """Its state at the start of an episode."""

    def orders(self, params: Any, state: Any, seen: MarketSeen, resting: Resting, action: Array) -> Order:
        """What an action sends, [K]: time, id and account are filled in by the background."""

    def judge(self, params: Any, state: Any, seen: MarketSeen, fills: TraderFills, trades: StepTrades,
              is_last: Array) -> Judged:
        """After a step; `is_last`, bool: the episode's time is over with it, not the market before its time."""

    def observe(self, params: Any, state: Any, seen: MarketSeen, passed: tuple[Array, Array]) -> jax.Array:
        """float32 [F]; `passed` are the steps made and the steps of an episode."""


def see(spec: MarketSpec, book: Book, view: BookView, time: Time) -> MarketSeen:
    """What all traders see of a book."""
    return MarketSeen(time, view, int64.total(book.volume), jnp.int32(spec.tick))


def resting_of(book: Book, account: int, room: int = ROOM) -> Resting:
    """A trader's own resting orders, the first `room` of each side by priority, [2, room]."""
    own = (jnp.asarray(book.account) == account) & (jnp.asarray(book.volume) > 0)
    rank = jnp.cumsum(own, axis=-1) - 1
    here = own[:, None, :] & (rank[:, None, :] == jnp.arange(room)[:, None])

    def taken(x: Array, nothing: int) -> jax.Array:
        found = jnp.sum(jnp.where(here, jnp.asarray(x)[:, None, :], 0), axis=-1, dtype=jnp.int32)
        return jnp.where(jnp.any(here, axis=-1), found, nothing)

    return Resting(taken(book.price, EMPTY_PRICE), taken(book.volume, 0), taken(book.order_id, NO_ID))


def where(condition: Array, new: _Tree, old: _Tree) -> _Tree:
    """`new` where a bool [] holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)  # type: ignore[no-any-return]


def addressed(sent: Order, account: int, time: Time) -> Order:
    """A trader's orders [K] as the exchange takes them: with its account, a time, and ids to be given."""
    shape = jnp.shape(sent.kind)
    return dataclasses.replace(
        sent, time=jax.tree.map(lambda x: jnp.broadcast_to(x, shape), time),
        order_id=jnp.full(shape, NO_ID, jnp.int32), account=jnp.full(shape, account, jnp.int32))


def start_and_words(key: jax.Array, starts: int) -> tuple[jax.Array, jax.Array]:
    """Which of the starts an episode begins at, int32, each as likely as the others, and uint32 [2] for its draws."""
    return (jax.random.randint(jax.random.fold_in(key, 0), (), 0, starts),
            jax.random.bits(jax.random.fold_in(key, 1), (2,), jnp.uint32))


def key_of(words: jax.Array) -> jax.Array:
    """The typed key of an episode's words, uint32 [..., 2]."""
    return jax.random.wrap_key_data(words, impl="threefry2x32")
