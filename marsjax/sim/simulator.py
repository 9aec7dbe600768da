"""An order model in a market, made once: all that a simulation needs beside its state."""

import dataclasses
from collections.abc import Sequence

import jax

from marsjax.agents.base import Agent
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import kernels as ways
from marsjax.core.kernels import Kernels
from marsjax.core.specs import CacheSpec, MarketSpec
from marsjax.model import head_kernel, kv_cache
from marsjax.model.ensemble import Ensemble
from marsjax.model.llama import OrderModel
from marsjax.model.prefix import Prefix
from marsjax.observers.base import Observer
from marsjax.sim.specs import SimulationSpec
from marsjax.tokens import encoding
from marsjax.tokens.encoding import DrawTables, TokenTables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Simulator:
    """A pytree: its arrays are arguments of compiled calls, its spec is static.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> from marsjax.agents import Twap
      >>> twap = Twap(target=1_000, start_ns=36_000 * 10**9, total_seconds=45)
      >>> simulator = Simulator.of(testing.tiny_model(), testing.tiny_market(), agents=[twap])
      >>> simulator.spec.cache.mode, [agent.name for agent in simulator.spec.agents]
      ('rolling', ['twap'])
    """

    model: OrderModel
    table: TokenTables
    """Bins to encode orders with."""
    draws: DrawTables
    """Bins to draw orders from."""
    spec: SimulationSpec = dataclasses.field(metadata={"static": True})
    weights: head_kernel.Weights | None = None
    """What `prepared` made of the model's head; None: each step makes it, if it needs it."""
    prefix: Prefix | None = None
    """What the contexts of all trajectories begin with (`step.shared_prefix`, `CacheSpec.prefix`); None where they have
    nothing in common, or each reads its own copy."""
    ensemble: Ensemble | None = None
    """By which trajectories are told of the orders to come (`SimState.guide`); None: they never are. They begin with
    nothing told, and are then those without an ensemble."""

    @classmethod
    def of(cls, loaded: LoadedModel, market: MarketSpec, *, agents: Sequence[Agent] = (),
           observers: Sequence[Observer] = (), cache: CacheSpec | None = None, end_ns: int | None = None,
           temperature: float = 1.0, kernels: Kernels | None = None) -> "Simulator":
        """A simulator around a loaded model.

        Args:
          loaded: an order model with its bin converters.
          market: sizes and session; accounts for the background agent (0 and 1) and for the other agents.
          agents: who else trades.
          observers: what is kept of every event.
          cache: how the model remembers; by default as `CacheSpec.usual_mode` says.
          end_ns: no order is sent after it, nanoseconds since midnight; None: rollouts say when they end.
          temperature: of the draws.
          kernels: the ways of the compiled programs; by default those of JAX's device.

        InputError where an agent has no account, a converter is missing, or the model cannot remember so.
        """
        kernels = ways.chosen(kernels)
        if cache is None:
            cache = CacheSpec(mode=CacheSpec.usual_mode(loaded.spec))
        spec = SimulationSpec(
            dataclasses.replace(market, kernels=market.kernels or kernels),
            dataclasses.replace(cache, kernels=cache.kernels or kernels), end_ns=end_ns, temperature=temperature,
            agents=tuple(agents), observers=tuple(observers), kernels=kernels)
        return cls(loaded.model, encoding.tables(loaded.spec.tokens, loaded.converters),
                   encoding.draw_tables(loaded.spec.tokens, loaded.converters), spec)

    def prepared(self) -> "Simulator":
        """The same for a compiled program of many steps: what they all make of the model alone is made before them.

        Its layers, one by one, and what is read of its head.
        """
        return dataclasses.replace(self, model=self.model.with_layers_apart(),
                                   weights=kv_cache.prepared(self.model, self.spec.cache))

    def replace(self, **changes: object) -> "Simulator":
        """The same with other fields of its spec."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, **changes))  # type: ignore[arg-type]
