"""What an observer is: pure functions that are fed with every event of a trajectory (reference: trade infos)."""

from typing import Any, Protocol

from marsjax.core.records import BookView, Market, Time
from marsjax.market.process import Event


class Observer(Protocol):
    """Keeps something of every trajectory. A frozen, hashable record; its functions see one trajectory.

    Examples:
      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> from marsjax import RolloutSpec, Simulator, rollout, testing
      >>> @dataclasses.dataclass(frozen=True)
      ... class OrderCount:
      ...     def begin(self, market, view, time):
      ...         return jnp.int32(0)
      ...
      ...     def update(self, state, event):
      ...         return state + jnp.where(event.happened, event.orders, 0)
      ...
      ...     def end(self, state, market, view, time):
      ...         return state
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> simulator = Simulator.of(model, market, observers=[OrderCount()])
      >>> run = rollout(simulator, testing.random_start(market, model), RolloutSpec(trajectories=4, minutes=1))
      >>> int(run.observed[0].sum()) == run.order_count
      True
    """

    def begin(self, market: Market, view: BookView, time: Time) -> Any:
        """Its state, a pytree of arrays, at the start of a trajectory."""

    def update(self, state: Any, event: Event) -> Any:
        """Its state after an event; must leave it as it is where nothing happened."""

    def end(self, state: Any, market: Market, view: BookView, time: Time) -> Any:
        """What is returned with the rollout, of the state after the last event; most return `state`."""
