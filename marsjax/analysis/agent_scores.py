"""What executions cost, with intervals over the seeds of their training and over where they started."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from marsjax.analysis.intervals import UNKNOWN, Interval, percentiles
from marsjax.core.errors import InputError

MEASURES = ("arrival_bp", "arrival_ticks", "vwap_bp", "vwap_ticks", "filled", "reward")
"""Of an execution; of all of them more is better."""
REGIMES = ("all", "1 tick", "2 ticks", "wider")
"""By the spread at the start."""
LEAST_BLOCKS = 5
"""Of an interval."""


@dataclasses.dataclass(frozen=True, eq=False)
class Executions:
    """Executions by one contender: S seeds of its training (1 of a rule), the same E episodes of each."""

    name: str
    arrival_bp: np.ndarray
    """float64 [S, E], advantage against the mid at the start, basis points; what was not traded counts as traded at the
    best price of the other side at the end."""
    arrival_ticks: np.ndarray
    """float64 [S, E], the same in ticks a share."""
    vwap_bp: np.ndarray
    """float64 [S, E], advantage against the mean price of what others traded among themselves in the whole time of the
    episode, also after the execution was done; NaN where they did not."""
    vwap_ticks: np.ndarray
    """float64 [S, E]."""
    filled: np.ndarray
    """float64 [S, E], share of the target that was traded."""
    reward: np.ndarray
    """float64 [S, E], of the environment."""
    spread: np.ndarray
    """float64 [E], at the start, ticks; NaN where a side was empty."""
    start: np.ndarray
    """int [E], number of the start."""
    block: np.ndarray
    """int [E], number of the block of time that the start is of: episodes of one block are not independent."""

    def __post_init__(self) -> None:
        if self.block.shape != self.start.shape:
            raise InputError(f"Executions.block: expected one of each of {self.start.shape} episodes, got "
                             f"{self.block.shape}")
        for name in MEASURES:
            found = getattr(self, name)
            if found.ndim != 2 or found.shape != self.reward.shape or found.shape[1:] != self.start.shape:
                raise InputError(f"Executions.{name}: expected [S, E] with {self.start.shape} episodes, got "
                                 f"{found.shape}")


def executions(name: str, told: Mapping[str, np.ndarray], reward: np.ndarray, start: np.ndarray, block: np.ndarray
               ) -> Executions:
    """From what `rl.baselines.Measured` told.

    Args:
      name: of the contender.
      told: float [S, E] each: sums over an episode of traded, excess, others_traded, others_excess, left, left_excess;
        and buys, start_price, start_spread, target, tick.
      reward: [S, E].
      start: int [E].
      block: int [E].

    Examples:
      >>> told = {"traded": 300, "excess": 30_000, "left": 100, "left_excess": 30_000, "others_traded": 500,
      ...         "others_excess": 100_000, "buys": 1, "start_price": 100_000, "start_spread": 2, "target": 400,
      ...         "tick": 100}
      >>> one = executions("twap", {k: np.full((1, 1), float(v)) for k, v in told.items()}, np.zeros((1, 1)),
      ...                  np.zeros(1, int), np.zeros(1, int))
      >>> one.arrival_ticks.item(), one.arrival_bp.item(), one.vwap_ticks.item(), one.filled.item()
      (-1.5, -15.0, 0.5, 0.75)
    """
    of = {key: np.asarray(x, np.float64) for key, x in told.items()}
    sign = np.where(of["buys"] > 0, -1.0, 1.0)
    # Prices less that of the start, 1e-4 of the currency.
    own = (of["excess"] + of["left_excess"]) / of["target"]
    others = np.divide(of["others_excess"], of["others_traded"], out=np.full_like(own, np.nan),
                       where=of["others_traded"] > 0)
    in_bp = 1e4 / of["start_price"]
    return Executions(name, sign * own * in_bp, sign * own / of["tick"], sign * (own - others) * in_bp,
                      sign * (own - others) / of["tick"], of["traded"] / of["target"], np.asarray(reward, np.float64),
                      of["start_spread"][0], np.asarray(start), np.asarray(block))


def interval(values: np.ndarray, block: np.ndarray, draws: int, seed: int) -> Interval:
    """The mean of [S, E] and its interval: seeds (where there are two or more) and blocks are drawn anew, each whole.

    NaN values are left out. With fewer than LEAST_BLOCKS blocks there is no interval, NaN.
    """
    there = ~np.isnan(values)
    if not there.any():
        return UNKNOWN
    _, group = np.unique(block[there.any(0)], return_inverse=True)
    values, there = values[:, there.any(0)], there[:, there.any(0)]
    rows, groups = len(values), group.max() + 1
    sums, counts = np.zeros((rows, groups)), np.zeros((rows, groups))
    np.add.at(sums.T, group, np.where(there, values, 0.0).T)
    np.add.at(counts.T, group, there.T.astype(float))
    rng = np.random.default_rng(seed)
    of_seed = rng.multinomial(rows, np.full(rows, 1 / rows), draws).astype(float)
    of_group = rng.multinomial(groups, np.full(groups, 1 / groups), draws).astype(float)
    total, count = (np.einsum("ds,sg,dg->d", of_seed, x, of_group) for x in (sums, counts))
    drawn = np.divide(total, count, out=np.full(draws, np.nan), where=count > 0)
    low, high = percentiles(drawn) if groups >= LEAST_BLOCKS else (np.nan, np.nan)
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


class ComparedAgents(NamedTuple):
    """Contenders in one market."""

    market: str
    contenders: tuple[Executions, ...]
    """Of the same episodes."""


def in_regime(regime: str, spread: np.ndarray) -> np.ndarray:
    """bool [E], which episodes began in a regime."""
    ticks = np.round(spread)
    return {"all": np.ones(len(spread), bool), "1 tick": ticks == 1, "2 ticks": ticks == 2,
            "wider": ticks > 2}[regime]


def rows(compared: ComparedAgents, draws: int, seed: int) -> list[dict[str, Any]]:
    """A row of each contender in each regime, and of the difference of each pair of the first one with another.

    Args:
      compared: the first contender is the one that the others are measured against.
      draws: of the bootstrap.
      seed: of the draws.

    Returns rows with market, contender, against (empty, or what is subtracted, episode by episode), regime, episodes,
    starts, blocks, and of each of MEASURES its mean, and NAME_low and NAME_high, the ends of its interval.
    """
    first, *others = compared.contenders
    found = []
    for contender, against in [(each, None) for each in compared.contenders] + [(first, each) for each in others]:
        for regime in REGIMES:
            chosen = in_regime(regime, contender.spread)
            row: dict[str, Any] = {
                "market": compared.market, "contender": contender.name, "against": against.name if against else "",
                "regime": regime, "episodes": int(chosen.sum()), "starts": len(np.unique(contender.start[chosen])),
                "blocks": len(np.unique(contender.block[chosen]))}
            for name in MEASURES:
                values = getattr(contender, name) - (getattr(against, name) if against else 0.0)
                ends = interval(values[:, chosen], contender.block[chosen], draws, seed) if chosen.any() else UNKNOWN
                row |= {name: ends.value, f"{name}_low": ends.low, f"{name}_high": ends.high}
            found.append(row)
    return found


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The rows of all regimes together, as text."""
    shown = []
    for row in found:
        if row["regime"] == "all":
            what = f"{row['contender']} less {row['against']}" if row["against"] else row["contender"]
            shown.append(
                f"{row['market']:<8} {what:<28} arrival {_spelt(row, 'arrival_bp')} bp, VWAP {_spelt(row, 'vwap_bp')} "
                f"bp, filled {row['filled']:.1%}")
    return shown


def _spelt(row: dict[str, Any], name: str) -> str:
    if np.isnan(row[f"{name}_low"]):
        return f"{row[name]:+.2f} (no interval, {row['blocks']} blocks of time)"
    return f"{row[name]:+.2f} ({row[f'{name}_low']:+.2f} to {row[f'{name}_high']:+.2f})"
