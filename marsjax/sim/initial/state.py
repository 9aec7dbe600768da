"""Where a trajectory starts, as one record."""

import dataclasses

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Array, Market, Status, Time, Token
from marsjax.tokens.encoding import TokenState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Start:
    """Where a trajectory starts; scalars and [W] tokens, or [B, ...]."""

    market: Market
    token_state: TokenState
    window: Token
    """[W], the last tokens, oldest first; W is at most `ModelSpec.context_length`."""
    count: Array
    """[], how many of them there are, from the first on."""
    time: Time
    """Of the first decision."""

    @property
    def refused(self) -> dict[str, int]:
        """Orders that were refused on the way to it, by the name of their `Status`; of a batch all together."""
        counts = np.asarray(self.market.counters.status).reshape(-1, len(Status)).sum(axis=0)
        return {status.name: int(counts[status]) for status in Status if status.is_refusal and counts[status]}


def resize(start: Start, capacity: int) -> Start:
    """The same state, its book in `capacity` slots a side (`MarketSpec.capacity`); empty slots cost time.

    InputError if more orders rest.

    Examples:
      >>> from marsjax import testing
      >>> start = testing.random_start(testing.tiny_market(), testing.tiny_model())
      >>> resize(start, 128).market.book.price.shape
      (2, 128)
    """
    book = start.market.book
    used = int(np.max(np.sum(np.asarray(book.volume) > 0, axis=-1)))
    if used > capacity:
        raise InputError(f"start: {used} orders rest on a side: expected a capacity of at least that, got {capacity}")

    def fit(slots: Array, nothing: int) -> np.ndarray:
        kept = np.asarray(slots)[..., :capacity]
        width = [(0, 0)] * (kept.ndim - 1) + [(0, capacity - kept.shape[-1])]
        return np.pad(kept, width, constant_values=nothing)

    resized = dataclasses.replace(
        book, price=fit(book.price, EMPTY_PRICE), volume=fit(book.volume, 0), order_id=fit(book.order_id, NO_ID),
        account=fit(book.account, NO_ACCOUNT))
    return dataclasses.replace(start, market=dataclasses.replace(start.market, book=resized))

