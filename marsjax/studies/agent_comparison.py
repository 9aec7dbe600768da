"""A trained agent against executions by rule: the same market, starts, sides and draws; its orders alone differ."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from marsjax.analysis import agent_scores
from marsjax.analysis.agent_scores import ComparedAgents, Executions
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.rl import evaluation
from marsjax.rl.baselines import MOST_WEIGHT, ExecutionRule, Immediately, Measured, Participating, Scheduled
from marsjax.rl.env import Core, MarketEnv, Params
from marsjax.rl.evaluation import Actor, Constant
from marsjax.rl.policy import Policy
from marsjax.studies.agent_markets import AgentMarket

_EPISODES, _RULES = 0x6570, 0x7275
"""Folded into the seed's key."""
RULES = ("twap", "patient_twap", "vwap", "participation", "immediate")
AGENT = "agent"


@dataclasses.dataclass(frozen=True)
class ComparisonSpec:
    """Which episodes contenders are compared on."""

    episodes: int = 1024
    """Of each contender, the same of all."""
    rules: tuple[str, ...] = RULES
    """Of RULES. patient_twap waits at the best price of its own side for `patience` steps before it trades."""
    patience: int = 6
    bootstrap: int = 1000
    seed: int = 1
    is_greedy: bool = False
    """Whether the agent takes its likeliest action rather than draws one."""

    def __post_init__(self) -> None:
        limits.check_whole("ComparisonSpec.episodes", self.episodes, 1, limits.TRAJECTORIES)
        limits.check_whole("ComparisonSpec.patience", self.patience, 1, limits.STEPS_OF_A_CALL)
        limits.check_whole("ComparisonSpec.bootstrap", self.bootstrap, 1, limits.RESAMPLES)
        limits.check_whole("ComparisonSpec.seed", self.seed, 0, limits.SEED)
        if len(set(self.rules)) < len(self.rules) or not set(self.rules) <= set(RULES):
            raise InputError(f"ComparisonSpec.rules: expected some of {', '.join(RULES)}, got {self.rules!r}")

    def keys(self, of_rules: bool = False) -> jax.Array:
        """Of the episodes, or of those in which rules learn what others trade; no other draw is of these."""
        return episode_keys(self.seed, self.episodes, of_rules)


def episode_keys(seed: int, episodes: int, of_rules: bool = False) -> jax.Array:
    """Typed keys of the episodes of a comparison, or of those in which rules learn; no other draw is of these."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), _RULES if of_rules else _EPISODES), episodes)


def rules(spec: ComparisonSpec, market: AgentMarket) -> tuple[ExecutionRule, ...]:
    """The rules to compare with in a market.

    What a rule has to know of the market beforehand (VWAP its volume by step, participation the ratio that comes to the
    target) comes from the starts that are trained on, and from other draws than those of the comparison. InputError
    where others trade nothing there.
    """
    volumes = _volumes(spec, market) if {"vwap", "participation"} & set(spec.rules) else None
    target = int(np.asarray(market.held.tasks[0].target))
    return tuple(rule_of(name, spec.patience, volumes, target) for name in spec.rules)


def compared(spec: ComparisonSpec, market: AgentMarket, policies: Sequence[Policy], against: Sequence[ExecutionRule]
             ) -> ComparedAgents:
    """Agents of S seeds (the first contender) and rules in the held-out starts of a market."""
    agents = [dataclasses.replace(policy, is_greedy=spec.is_greedy) for policy in policies]
    contenders = [_executions(spec, AGENT, market, (), agents)]
    contenders += [_executions(spec, rule.name, market, tuple(against), [Constant(number)])
                   for number, rule in enumerate(against)]
    return ComparedAgents(market.name, tuple(contenders))


def rule_of(name: str, patience: int, volumes: np.ndarray | None, target: int) -> ExecutionRule:
    """A rule by name; `volumes` float [K] are those that others trade by step, in the mean."""
    if name == "twap":
        return Scheduled()
    if name == "patient_twap":
        return Scheduled(patience=patience, name=name)
    if name == "immediate":
        return Immediately()
    if volumes is None or not volumes.sum() > 0:
        raise InputError(f"agent comparison: {name}: expected trades of others at the starts of the training, got none")
    if name == "vwap":
        parts = np.floor(volumes / volumes.sum() * MOST_WEIGHT).astype(int)
        return Scheduled(profile=tuple(int(x) for x in parts), name=name)
    return Participating(float(min(target / volumes.sum(), 1.0)))


def _measured(market: AgentMarket, rules: tuple[ExecutionRule, ...], params: Params) -> MarketEnv:
    task = Measured(market.core.tasks[0], int(params.max_steps_in_episode), rules)
    return MarketEnv(Core(market.core.background, (task,)), params)


def _volumes(spec: ComparisonSpec, market: AgentMarket) -> np.ndarray:
    """What others trade in each step, in the mean, float [K], where nobody executes."""
    steps = int(market.train.max_steps_in_episode)
    told = evaluation.by_step(_measured(market, (), market.train), market.train, Constant(),
                              spec.keys(of_rules=True), steps)
    return np.asarray(told["others_traded"], np.float64).mean(axis=1)


def _executions(spec: ComparisonSpec, name: str, market: AgentMarket, rules: tuple[ExecutionRule, ...],
                actors: Sequence[Actor]) -> Executions:
    env, steps, keys = _measured(market, rules, market.held), int(market.held.max_steps_in_episode), spec.keys()
    found: list[Any] = [evaluation.episodes(env, market.held, actor, keys, steps, draw=number)
                        for number, actor in enumerate(actors)]
    start = np.asarray(evaluation.start_numbers(env, market.held, keys))
    summed = ("traded", "excess", "others_traded", "others_excess", "left", "left_excess")
    fixed = ("buys", "start_price", "start_spread", "target", "tick")
    told = {key: np.stack([np.asarray(one.sums[key]) for one in found]) for key in summed}
    told |= {key: np.stack([np.asarray(one.last[key]) for one in found]) for key in fixed}
    return agent_scores.executions(name, told, np.stack([np.asarray(one.reward) for one in found]), start,
                                   market.blocks[start])
