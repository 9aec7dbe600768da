"""Market making by rule, in the environment that a policy is trained in: the same starts, clock, account and reward.

    core = Core(background, (RuledMaking(rule=StoikovRule(risk_aversion=0.05), steps=60),))

An action is not read, so any actor will do, as `evaluation.Constant`.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax.numpy as jnp

from marsjax.agents import avellaneda_stoikov as stoikov
from marsjax.agents import quotes as prices
from marsjax.agents.avellaneda_stoikov import Risk
from marsjax.agents.base import Resting
from marsjax.agents.requoting import two_sided
from marsjax.core import limits
from marsjax.core.records import Array, Order
from marsjax.rl.base import MarketSeen
from marsjax.rl.market_making import MakingParams, MakingState, MarketMaking, within_market


class MakingProgress(NamedTuple):
    """What a rule goes by; scalars."""

    ask: Array
    """int32, best price of the others, 1e-4 of the currency."""
    bid: Array
    """int32, likewise."""
    tick: Array
    """int32."""
    held: Array
    """float32 lots, below 0 where it is short."""
    left: Array
    """int32 steps to the end."""
    variance: Array
    """float32 ticks squared a step, of the mid as it was seen."""


class MakingRule(Protocol):
    """Market making by rule: a frozen, hashable record."""

    @property
    def name(self) -> str:
        """In tables."""

    @property
    def lots(self) -> int:
        """Of a quote."""

    def quoted(self, progress: MakingProgress) -> tuple[Array, Array]:
        """Bid and ask, int32, 1e-4 of the currency."""


@dataclasses.dataclass(frozen=True)
class StoikovRule:
    """The quotes of Avellaneda and Stoikov (`agents.avellaneda_stoikov.quoted`); time is in steps."""

    risk_aversion: float = 0.05
    """gamma, per tick and lot."""
    fill_decay: float = 0.5
    """k, per tick."""
    volatility: float | None = None
    """sigma, ticks by the root of a step; None: as it was seen."""
    lots: int = 1
    name: str = "avellaneda_stoikov"

    def __post_init__(self) -> None:
        stoikov.check_risk("StoikovRule", self.risk_aversion, self.fill_decay, self.volatility)
        limits.check_whole("StoikovRule.lots", self.lots, 1, 2**15)

    def quoted(self, progress: MakingProgress) -> tuple[Array, Array]:
        """Around the reservation price."""
        variance = progress.variance if self.volatility is None else self.volatility**2
        return stoikov.quoted(Risk(self.risk_aversion, self.fill_decay, variance), progress.ask + progress.bid,
                              progress.tick, progress.held, progress.left)


@dataclasses.dataclass(frozen=True)
class FixedRule:
    """Always as far from the best prices of the others, whatever is held."""

    away: int = 0
    """Ticks behind them."""
    lots: int = 1
    name: str = "fixed"

    def __post_init__(self) -> None:
        limits.check_whole("FixedRule.away", self.away, 0, 2**15)
        limits.check_whole("FixedRule.lots", self.lots, 1, 2**15)

    def quoted(self, progress: MakingProgress) -> tuple[Array, Array]:
        """The best prices, or behind them."""
        return progress.bid - self.away * progress.tick, progress.ask + self.away * progress.tick


@dataclasses.dataclass(frozen=True)
class RuledMaking(MarketMaking):
    """Market making by a rule in place of actions; all else is the task's."""

    rule: MakingRule = dataclasses.field(default_factory=StoikovRule)
    steps: int = 64
    """Of an episode."""

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check_whole("RuledMaking.steps", self.steps, 1, limits.STEPS_OF_A_CALL)

    def orders(self, params: MakingParams, state: MakingState, seen: MarketSeen, resting: Resting, action: Array
               ) -> Order:
        """What the rule sends."""
        del action
        known = state.mid_twice // (2 * seen.tick) * seen.tick
        ask, bid = prices.others_best(seen.view, resting, seen.tick, known)
        progress = MakingProgress(ask, bid, seen.tick, state.inventory.astype(jnp.float32) * (1 / params.lot),
                                  jnp.maximum(self.steps - state.step, 0), state.variance)
        allowed = within_market(params, state, seen, (ask, bid), self.rule.quoted(progress))
        volume = self.rule.lots * params.lot
        return two_sided(resting, (allowed.bid, jnp.minimum(volume, allowed.bid_room)),
                         (allowed.ask, jnp.minimum(volume, allowed.ask_room)))


def ruled(task: MarketMaking, rule: MakingRule, steps: int) -> RuledMaking:
    """The task, by a rule."""
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(MarketMaking)}
    return RuledMaking(**fields, rule=rule, steps=steps)
