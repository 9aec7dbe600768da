"""A trained market maker against market making by rule: the same market, starts and draws; its orders alone differ."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.analysis import agent_scores
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.rl import evaluation
from marsjax.rl.env import Core, MarketEnv
from marsjax.rl.evaluation import Actor, Constant
from marsjax.rl.making_rules import FixedRule, MakingRule, StoikovRule, ruled
from marsjax.rl.market_making import MarketMaking
from marsjax.rl.policy import Policy
from marsjax.studies.agent_comparison import AGENT, episode_keys
from marsjax.studies.agent_markets import AgentMarket

RULES = ("avellaneda_stoikov", "fixed")
MEASURES = ("reward", "profit", "traded", "held")
"""Of an episode: the reward; ticks x shares that were earned, less fees, before penalties; shares that were traded;
shares that were held, long or short, mean over its steps."""


@dataclasses.dataclass(frozen=True)
class MakerComparisonSpec:
    """Which episodes market makers are compared on, and the rules."""

    episodes: int = 1024
    """Of each contender, the same of all."""
    rules: tuple[str, ...] = RULES
    """Of RULES. fixed: a lot at the best price of each side."""
    risk_aversion: float = 0.05
    """gamma of avellaneda_stoikov, per tick and lot."""
    fill_decay: float = 0.5
    """k of avellaneda_stoikov, per tick."""
    bootstrap: int = 1000
    seed: int = 1
    is_greedy: bool = False
    """Whether the agent takes its likeliest action rather than draws one."""

    def __post_init__(self) -> None:
        limits.check_whole("MakerComparisonSpec.episodes", self.episodes, 1, limits.TRAJECTORIES)
        limits.check_whole("MakerComparisonSpec.bootstrap", self.bootstrap, 1, limits.RESAMPLES)
        limits.check_whole("MakerComparisonSpec.seed", self.seed, 0, limits.SEED)
        if len(set(self.rules)) < len(self.rules) or not set(self.rules) <= set(RULES):
            raise InputError(f"MakerComparisonSpec.rules: expected some of {', '.join(RULES)}, got {self.rules!r}")
        try:
            self.rule("avellaneda_stoikov")
        except InputError as error:
            raise InputError(str(error).replace("StoikovRule.", "MakerComparisonSpec.")) from None

    def rule(self, name: str) -> MakingRule:
        """One by name."""
        return FixedRule() if name == "fixed" else StoikovRule(self.risk_aversion, self.fill_decay)


class ComparedMaker(NamedTuple):
    """One contender."""

    name: str
    values: dict[str, np.ndarray]
    """float64 [S, E] each, by MEASURES: S seeds of its training (1 of a rule), the same E episodes."""


def rows(spec: MakerComparisonSpec, market: AgentMarket, policies: Sequence[Policy]) -> list[dict[str, Any]]:
    """Compares agents of S seeds with the rules in the held-out starts of a market.

    Returns a row of each contender, and of what the agent has more than each rule, episode by episode: market,
    contender, against (empty, or the rule), episodes, starts, and of each of MEASURES its mean, and NAME_low and
    NAME_high, the ends of its bootstrap interval over seeds and blocks of time (`AgentMarket.blocks`).
    """
    keys = episode_keys(spec.seed, spec.episodes)
    start = np.asarray(evaluation.start_numbers(market.env, market.held, keys))
    agents = [dataclasses.replace(policy, is_greedy=spec.is_greedy) for policy in policies]
    first = _compared(AGENT, market, None, agents, keys)
    others = [_compared(name, market, spec.rule(name), [Constant()], keys) for name in spec.rules]
    found = []
    for one, against in [(each, None) for each in (first, *others)] + [(first, each) for each in others]:
        row: dict[str, Any] = {"market": market.name, "contender": one.name, "against": against.name if against else "",
                               "episodes": spec.episodes, "starts": len(np.unique(start))}
        for name in MEASURES:
            values = one.values[name] - (against.values[name] if against else 0.0)
            ends = agent_scores.interval(values, market.blocks[start], spec.bootstrap, spec.seed)
            row |= {name: ends.value, f"{name}_low": ends.low, f"{name}_high": ends.high}
        found.append(row)
    return found


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as text."""
    shown = []
    for row in found:
        what = f"{row['contender']} less {row['against']}" if row["against"] else row["contender"]
        shown.append(f"{row['market']:<8} {what:<32} reward {row['reward']:+.3f} ({row['reward_low']:+.3f} to "
                     f"{row['reward_high']:+.3f}), profit {row['profit']:+.1f} ticks x shares, traded "
                     f"{row['traded']:.0f}, held {row['held']:.0f}")
    return shown


def _compared(name: str, market: AgentMarket, rule: MakingRule | None, actors: Sequence[Actor], keys: jax.Array
              ) -> ComparedMaker:
    steps, task = int(market.held.max_steps_in_episode), market.core.tasks[0]
    if not isinstance(task, MarketMaking):
        raise InputError(f"maker comparison: expected the task market_making, got {task.name}")
    task = ruled(task, rule, steps) if rule else task
    env = MarketEnv(Core(market.core.background, (task,)), market.held)
    told = [evaluation.episodes(env, market.held, actor, keys, steps, draw=number)
            for number, actor in enumerate(actors)]

    def of(key: str) -> np.ndarray:
        return np.stack([np.asarray(one.sums[key], np.float64) for one in told])

    values = {"reward": np.stack([np.asarray(one.reward, np.float64) for one in told]),
              "profit": of("profit") - of("fee"), "traded": of("traded"), "held": of("held") / steps}
    return ComparedMaker(name, values)
