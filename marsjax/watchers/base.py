"""What a watcher is, and the event that it is fed with (reference: trade infos)."""

import dataclasses
from typing import Any, Protocol

import jax

from marsjax.tokens import Encoded
from marsjax.types import Array, BookView, Market, Order, Report, Time


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Event:
    """One order of one trajectory and what it did; the cancels of one decision of the background agent are one."""

    happened: Array
    """bool; the rest has no meaning where it did not."""
    source: Array
    """int32, 0 for the background agent, 1 + i for `SimulationSpec.agents[i]`."""
    order: Order
    """As it reached the exchange."""
    is_bulk: Array
    """bool, a cancel that names a price and a volume, resolved into cancels of single orders."""
    report: Report
    """Of a single order."""
    cancelled: Report
    """Of a cancel by price, [2, ...]: its cancels on each side."""
    orders: Array
    """int32, accepted orders, each cancel counted."""
    before: BookView
    view: BookView
    """After it."""
    encoded: Encoded
    """The token that it made."""


class Watcher(Protocol):
    """Keeps something of every trajectory. A frozen, hashable record; its functions see one trajectory."""

    def begin(self, market: Market, view: BookView, time: Time) -> Any:
        """Its state, a pytree of arrays, at the start of a trajectory."""

    def update(self, state: Any, event: Event) -> Any:
        """Its state after an event; must leave it as it is where nothing happened."""

    def end(self, state: Any, market: Market, view: BookView, time: Time) -> Any:
        """What is returned with the rollout, of the state after the last event; most return `state`."""
