"""The token of the last order, for who writes tokens down step by step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core.records import Array, BookView, Market, Time, Token
from marsjax.market.process import Event
from marsjax.tokens import encoding


class Newest(NamedTuple):
    """What the last event of one trajectory made, or [B] of many."""

    token: Token
    """[]; has no meaning where there is none."""
    made: Array
    """bool [], it is a token of its own."""
    replaces: Array
    """bool [], it takes the place of the one before (a merged cancel)."""


@dataclasses.dataclass(frozen=True)
class LastToken:
    """The observer that keeps `Newest`: of a market where each step is one event, of that step."""

    def begin(self, market: Market, view: BookView, time: Time) -> Newest:
        """No token yet."""
        del market, view, time
        none = jnp.zeros((), bool)
        return Newest(encoding.no_tokens(()), none, none)

    def update(self, state: Newest, event: Event) -> Newest:
        """The event's token; where nothing happened there is none."""
        token = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), event.encoded.token, state.token)
        return Newest(token, event.happened & event.encoded.is_new, event.happened & event.encoded.replaces)

    def end(self, state: Newest, market: Market, view: BookView, time: Time) -> Newest:
        """The state."""
        del market, view, time
        return state
