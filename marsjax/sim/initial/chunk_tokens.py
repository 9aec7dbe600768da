"""The tokens of orders that have passed an exchange, made a chunk at a time where the views lie."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array, BookView, Order, Report
from marsjax.core.specs import MarketSpec
from marsjax.sim.initial.given_orders import Chunk, opening
from marsjax.tokens import encoding
from marsjax.tokens.encoding import Encoded, TokenState, TokenTables


class Between(NamedTuple):
    """What the tokens of the next chunk of one market depend on."""

    state: TokenState
    before: BookView
    """Before its first order."""


def before_all(market: MarketSpec) -> Between:
    """Before a market's first order."""
    opened = opening(market)
    return Between(opened.token_state, opened.view)


def tokens_of(market: MarketSpec, table: TokenTables, between: Between, chunk: Chunk, place: int, makes: np.ndarray
              ) -> tuple[Between, Encoded]:
    """The tokens of one market's orders in a chunk.

    Args:
      market: its tick.
      table: bins to encode with.
      between: what came before the chunk.
      chunk: orders of S markets and their answers.
      place: which of them.
      makes: bool [N], which of its orders make tokens if they were accepted: those that somebody sent in continuous
        trading.

    Returns:
      What the next chunk takes up, and the tokens, NumPy arrays [N, ...].
    """
    count = len(chunk.orders[place].kind)
    padded = np.zeros(chunk.padded.kind.shape[1], bool)
    padded[:count] = makes
    between, encoded = _encode(market, table, between, chunk.padded, chunk.answers.report, chunk.answers.view,
                               np.array([place, count], np.int32), padded)
    return between, jax.tree.map(lambda x: np.asarray(x)[:count], encoded)


@functools.partial(jax.jit, static_argnums=0)
def _encode(market: MarketSpec, table: TokenTables, between: Between, orders: Order, reports: Report, views: BookView,
            which: Array, makes: Array) -> tuple[Between, Encoded]:
    """Of answers [S, N]; `which` is the market and how many orders it has, `makes` bool [N]."""
    place, count = which[0], which[1]
    sent, reports, views = jax.tree.map(lambda x: jnp.asarray(x)[place], (orders, reports, views))
    state, encoded = encoding.encode_stream(market, table, between.state, sent, reports, views, between.before, makes)
    last = jax.tree.map(lambda new, old: jnp.where(count > 0, new[jnp.maximum(count - 1, 0)], old), views,
                        between.before)
    return Between(state, last), encoded
