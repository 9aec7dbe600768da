"""What an observer is: pure functions that are fed with every event of a trajectory (reference: trade infos)."""

from typing import Any, Protocol

from marsjax.core.records import BookView, Market, Time
from marsjax.market.process import Event


class Observer(Protocol):
    """Keeps something of every trajectory. A frozen, hashable record; its functions see one trajectory."""

    def begin(self, market: Market, view: BookView, time: Time) -> Any:
        """Its state, a pytree of arrays, at the start of a trajectory."""

    def update(self, state: Any, event: Event) -> Any:
        """Its state after an event; must leave it as it is where nothing happened."""

    def end(self, state: Any, market: Market, view: BookView, time: Time) -> Any:
        """What is returned with the rollout, of the state after the last event; most return `state`."""
