"""Cases of manipulation whose truth is known: by name, in simulated markets beside markets without them.

In a simulated market the order model reacts to the manipulator. Every case has a twin: the same start and the same
draws without the manipulator, so that what it did to the mid is known. `studies.injected` puts one into a recorded day.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from marsjax.agents import PumpAndDump, Spoofing, WashTrades
from marsjax.analysis import detection, interval_features, order_events, quantities, roc
from marsjax.analysis.interval_features import FEATURES
from marsjax.analysis.order_events import Arrivals
from marsjax.analysis.roc import CaseScores
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.specs import MarketSpec
from marsjax.sim.initial import Start, resize
from marsjax.sim.rollout import Hooks
from marsjax.studies import detection as watching
from marsjax.studies import futures, rollout_summary
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import Batch, FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.realism import SentOrders
from marsjax.studies.session_times import MINUTE_NS

KINDS = ("spoofing", "layering", "pump", "wash")
ACCOUNT = futures.ACCOUNT + 1
"""Of the manipulator."""
_LAYERS, _MOVE_TICKS, _REACH_TICKS = 5, 10, 5
_MOST_USUAL = 16
"""Futures of each start that say what is usual."""


@dataclasses.dataclass(frozen=True)
class Manipulation:
    """A manipulation by its name and what matters most of it; `agent` has the rest.

    Examples:
      >>> Manipulation("layering", size=5_000, seconds=60).agent(36_000 * 10**9, tick=100).levels
      5
    """

    kind: str
    """Of KINDS."""
    size: int
    """Shares: of all false orders, of the pump, or traded with itself; a multiple of 100."""
    seconds: int
    """From its first order to its last, even."""
    direction: str = "buy"
    """buy drives the price up, sell down."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"Manipulation.kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        limits.check_whole("Manipulation.seconds", self.seconds, 2, 7_200)
        if self.seconds % 2:
            raise InputError(f"Manipulation.seconds: expected an even number, got {self.seconds}")
        self.agent(0, 100)

    def agent(self, start_ns: int, tick: int) -> Any:
        """Who does it from a time on, in a market of this tick.

        Spoofers have a real order of a tenth of their size; who washes takes a level of twice its size at most.
        """
        common: dict[str, Any] = {"size": self.size, "start_ns": start_ns, "direction": self.direction,
                                  "account": ACCOUNT, "name": self.kind}
        if self.kind == "pump":
            return PumpAndDump(pump_seconds=self.seconds // 2, dump_seconds=self.seconds // 2,
                               price_change=_REACH_TICKS * tick, **common)
        if self.kind == "wash":
            return WashTrades(total_seconds=self.seconds, most_swept=min(max(2 * self.size, 2_000), 2**29), **common)
        return Spoofing(total_seconds=self.seconds, levels=1 if self.kind == "spoofing" else _LAYERS,
                        real_size=self.size // 1_000 * 100, move_ticks=_MOVE_TICKS, **common)


@dataclasses.dataclass(frozen=True)
class CasesSpec:
    """How many cases of which sizes, each beside how many futures."""

    manipulation: Manipulation
    """Its size is not read."""
    sizes: tuple[int, ...]
    """Shares, of the cases."""
    cases: int
    """Of each size after each start, and as many clean ones."""
    futures: FuturesSpec
    """Its trajectories are the futures that a case is ranked among; its minutes an interval."""
    delay_seconds: int = 1
    """From the beginning of an interval to the manipulation's."""

    def __post_init__(self) -> None:
        check_numbers(self, cases=(1, limits.TRAJECTORIES), delay_seconds=(0, 60 * limits.MINUTES))
        for size in self.sizes:
            dataclasses.replace(self.manipulation, size=size)
        if not self.sizes or 0 in self.sizes:
            raise InputError(f"CasesSpec.sizes: expected one size above 0 at least, got {self.sizes}")
        if self.delay_seconds + self.manipulation.seconds > 60 * self.futures.minutes:
            raise InputError(f"CasesSpec: expected a manipulation that ends in its interval of {self.futures.minutes} "
                             f"minutes, got one of {self.manipulation.seconds} s after {self.delay_seconds} s")

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and numbers of the trajectories after a start: the futures, clean cases, and those of each size."""
        count = self.futures.trajectories
        sizes = np.concatenate([np.zeros(count + self.cases, int), np.repeat(self.sizes, self.cases)])
        own = count + np.arange(self.cases)
        return sizes, np.concatenate([np.arange(count), np.tile(own, 1 + len(self.sizes))])


class Cases(NamedTuple):
    """What came of the cases of S starts, C a start; NaN of lost trajectories, and moves of those with a lost twin."""

    pool: np.ndarray
    """float64 [S, K, F], futures without a manipulator."""
    cases: np.ndarray
    """float64 [S, 1 + sizes, C, F]; the first are clean."""
    moves_bp: np.ndarray
    """float64 [S, sizes, C], how far the mid lay beside its twin's, the manipulator's way: the mean over its time.
    Twins part by chance in both directions: what a manipulator does is the mean over many."""


def simulate(prepared: PreparedModel, market: MarketSpec, spec: CasesSpec, given: Sequence[Start],
             begins_ns: Sequence[int], known: Sequence[Arrivals]) -> Cases:
    """Cases after starts; `known` are the orders that may have rested at each. The market has an account for them."""
    capacity = futures.first_capacity(spec.futures, given)
    found = [_after(prepared, dataclasses.replace(market, capacity=capacity), spec, resize(one, capacity), begin, own,
                    number) for number, (one, begin, own) in enumerate(zip(given, begins_ns, known, strict=True))]
    return Cases(*(np.stack(part) for part in zip(*found, strict=True)))


def _after(prepared: PreparedModel, market: MarketSpec, spec: CasesSpec, start: Start, begin_ns: int, known: Arrivals,
           number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cases of one start."""
    # One record for all starts, each with a time of its own: a record is a constant of what is compiled.
    agent = dataclasses.replace(spec.manipulation, size=max(spec.sizes)).agent(0, market.tick)
    begins = begin_ns + spec.delay_seconds * 10**9
    sizes, numbers = spec.rows
    first = number * (spec.futures.trajectories + spec.cases)
    sent = SentOrders()
    batch = Batch(start, len(sizes), numbers=first + numbers, slots=futures.slots_of(prepared, spec.futures),
                  agents=(agent,), agent_starts=(agent.starts(sizes, spec.manipulation.direction == "buy", begins),))
    run = futures.simulate_batch(prepared, market, spec.futures, batch, Hooks(on_trace=sent))
    if (run.status[:, Status.SIDE_FULL] > 0).any():
        raise InputError(f"rollout_capacity: a side was full with {market.capacity} slots: set more")
    lost, minutes = rollout_summary.is_lost(run), spec.futures.minutes
    made = [order_events.of_trace(rows, known) for rows in sent.by_trajectory(len(sizes))]
    rows = np.stack([np.full(len(FEATURES), np.nan) if is_lost else
                     interval_features.of_interval(events, begin_ns, minutes)
                     for events, is_lost in zip(made, lost, strict=True)])
    count = spec.futures.trajectories
    seconds = spec.delay_seconds + np.arange(spec.manipulation.seconds + 1)
    grid = begin_ns + seconds * 10**9
    mids = np.stack([np.full(len(grid), np.nan) if is_lost else quantities.mids(events, grid)
                     for events, is_lost in zip(made[count:], lost[count:], strict=True)])
    mids = mids.reshape(1 + len(spec.sizes), spec.cases, -1)
    moves = _moves_bp(mids, is_up=spec.manipulation.direction == "buy")
    return rows[:count], rows[count:].reshape(1 + len(spec.sizes), spec.cases, -1), moves


def _moves_bp(mids: np.ndarray, is_up: bool) -> np.ndarray:
    """`Cases.moves_bp` of mids [1 + sizes, C, seconds]; NaN where a case or its twin has none."""
    moves = (1 if is_up else -1) * 1e4 * (mids[1:] / mids[0] - 1)
    known = ~np.isnan(moves)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, moves, 0).sum(axis=-1) / known.sum(axis=-1))



def score(cases: Cases, begins_ns: Sequence[int], combination: str = "ranks", usual_minutes: float = 30.0
          ) -> dict[str, list[CaseScores]]:
    """Detector -> scores of the clean cases, and of those of each size; the blocks are the starts.

    `futures` is the distance of a case among the futures of its start; the simple detectors go by what is usual in the
    futures of all starts about that time of day.
    """
    starts, kinds, count = cases.cases.shape[:3]
    block = np.repeat(np.arange(starts), count)
    by_futures = _tests(cases, combination)[..., 1]
    found = {"futures": [CaseScores(by_futures[:, kind].ravel(), block) for kind in range(kinds)]}
    at = np.asarray(begins_ns)
    width = round(usual_minutes * MINUTE_NS)
    for name, feature in watching.SIMPLE.items():
        usual = interval_features.column(cases.pool[:, :_MOST_USUAL], feature)
        clean = (usual.ravel(), np.repeat(at, usual.shape[1]))
        values = interval_features.column(cases.cases, feature)
        found[name] = [CaseScores(detection.of_time_of_day(values[:, kind].ravel(), np.repeat(at, count), clean, width),
                              block) for kind in range(kinds)]
    return found


def p_values(cases: Cases, combination: str = "ranks") -> np.ndarray:
    """float64 [S, 1 + sizes, C], of each case among the futures of its start; the first are clean."""
    return np.asarray(_tests(cases, combination)[..., 0])


def _tests(cases: Cases, combination: str) -> np.ndarray:
    """p-value and distance of each case, [S, 1 + sizes, C, 2], among the futures that were not lost."""
    evened = interval_features.evened
    pools = [pool[~np.isnan(pool).all(axis=1)] for pool in evened(cases.pool)]
    return np.array([[[detection.rank_test(case, pool, combination)[:2] for case in of] for of in kind]
                     for kind, pool in zip(evened(cases.cases), pools, strict=True)])


def table(cases: Cases, scores: dict[str, list[CaseScores]], spec: CasesSpec, rate: float, seed: int = 0
          ) -> pd.DataFrame:
    """A row a size and detector: kind, size, move_bp (mean and standard error), area and its interval, found.

    `found` is the share of cases above a threshold that at most `rate` of the clean cases pass; `area` is that under
    the curve, with an interval over starts (`roc.area`).
    """
    rows = []
    for number, size in enumerate(spec.sizes):
        moves = cases.moves_bp[:, number].ravel()
        moves = moves[~np.isnan(moves)]
        for name, (clean, *strange) in scores.items():
            found = roc.area(clean, strange[number], seed)
            rows.append({
                "kind": spec.manipulation.kind, "size": size, "cases": len(strange[number].values),
                "move_bp": moves.mean(), "move_se": moves.std(ddof=1) / np.sqrt(len(moves)) if len(moves) > 1 else
                float("nan"), "detector": name, "area": found.value, "area_low": found.low, "area_high": found.high,
                "found": roc.found_at(clean, strange[number], rate)})
    return pd.DataFrame(rows)
