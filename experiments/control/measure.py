"""Replayed curves and scenarios on stretches of real days that no model was trained on.

    python experiments/control/measure.py replay FOLDER_OF_SSE_FILES OUT.jsonl --trajectories=64
    python experiments/control/measure.py scenarios FOLDER_OF_SSE_FILES OUT.jsonl
    python experiments/control/measure.py table OUT.jsonl

`replay` takes stretches of five minutes after 14:00 that do not overlap and in which the mid moved by 15 bp and more,
four of a day at most, and runs uncontrolled futures, futures controlled by the curve that came, and the same with a
TWAP that buys a tenth of the volume, and futures led by the order-batch model and the ensemble (`--told`, 0: none).
`scenarios` runs a drop, a rise and a reversal of 30 bp from 14:00. A line of JSON each; what is in the file already is
not made again. `table` sums up.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marsjax
from marsjax.analysis import forecast, order_events, quantities, realism
from marsjax.analysis.quantities import OrderEvents
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.data import DayFeed, sources
from marsjax.observers.features import Features
from marsjax.sim.control import ControlModels, ControlSpec, CurveGuide, Guide, scenarios
from marsjax.sim.initial import Start
from marsjax.studies import (
    adapted,
    control,
    control_comparison,
    control_models,
    control_report,
    executions,
    futures,
    order_model,
    starts,
)
from marsjax.studies.control import ControlledMarket
from marsjax.studies.control_comparison import ControlledExecution, FuturesKind
from marsjax.studies.executions import StrategySpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, spell

FIRST_NS, LAST_NS = times.of_clock("14:00:00"), times.of_clock("14:51:00")
MINUTES, LEAST_BP, PAPER_BP, MOST_STRETCHES = 5, 15.0, (30.0, 50.0), 4
GRID_NS = 10 * 10**9
SCALE_BP = 2.5
SCENARIOS = ("drop", "rise", "reversal")
LED = "led"
CANDIDATES = 64


class Leading(NamedTuple):
    """What leads futures, and how loudly; None: nothing does."""

    models: ControlModels | None
    told: float


class Day(NamedTuple):
    """A real day after 14:00."""

    feed: DayFeed
    market: MarketSpec
    prepared: PreparedModel
    states: dict[int, Start]
    """At every minute."""
    events: OrderEvents
    seen: forecast.History
    spec: FuturesSpec
    """Of one size of books for all of the day, so that its runs share what is compiled."""

    def place(self, begin: int) -> ControlledMarket:
        """Where futures start."""
        return ControlledMarket(self.prepared, self.market, self.states[begin])

    def curve_bp(self, begin: int) -> np.ndarray:
        """The mid by the minute after a start, basis points against it, without the start."""
        mids = forecast.minute_mids(self.seen, begin, MINUTES)
        return 1e4 * (mids[1:] / mids[0] - 1)

    def stretches(self) -> list[int]:
        """Those that do not overlap and in which the mid moves enough, the largest moves first."""
        moves = {begin: self.curve_bp(begin)[-1] for begin in self.states}
        kept: list[int] = []
        for begin in sorted(moves, key=lambda each: -abs(moves[each])):
            is_apart = all(abs(begin - other) >= MINUTES * MINUTE_NS for other in kept)
            if abs(moves[begin]) >= LEAST_BP and is_apart and len(kept) < MOST_STRETCHES:
                kept.append(begin)
        return kept


def read(prepared: PreparedModel, feed: DayFeed, trajectories: int) -> Day:
    """A day in one pass; the model learns from it before 14:00 if it does not know it."""
    market = feed.venue.market(accounts=executions.EXECUTOR + 1, trade_width=32)
    own, _ = adapted.to_day(prepared, market, feed, FIRST_NS, 40)
    begins = list(range(FIRST_NS, LAST_NS + 1, MINUTE_NS))
    found = starts.states_of_feed(market, own, feed, [*begins, LAST_NS + MINUTES * MINUTE_NS])
    spec = FuturesSpec(trajectories, MINUTES, seed=0)
    spec = dataclasses.replace(spec, rollout_capacity=futures.first_capacity(spec, found.starts))
    return Day(feed, market, own, dict(zip(begins, found.starts, strict=False)), order_events.of_passed(found.sent),
               forecast.history(found.passed), spec)


def mids_every(events: OrderEvents, begin: int) -> np.ndarray:
    """Mids every ten seconds from a start on."""
    grid = np.arange(begin, begin + MINUTES * MINUTE_NS + 1, GRID_NS)
    mids = np.concatenate([events.mid_before[:1], events.mid_after])
    return mids[np.searchsorted(events.time_ns, grid, side="right")]


def fine_correlation(kind: FuturesKind, real: np.ndarray, begin: int) -> float:
    """Mean correlation of futures with what came, every ten seconds."""
    found = [np.corrcoef(mids, real)[0, 1] for events in kind.events if events is not None
             if np.ptp(mids := mids_every(events, begin)) > 0]
    return float(np.mean(found)) if found else float("nan")


def likeness(day: Day, kind: FuturesKind, begin: int) -> dict[str, float]:
    """Similarity of a kind's orders to those that came, over bins of the day's orders before 14:00."""
    before = quantities.of_orders(day.events.between(0, FIRST_NS))
    came = quantities.of_orders(day.events.between(begin, begin + MINUTES * MINUTE_NS))
    made = [quantities.of_orders(events) for events in kind.events if events is not None]
    found = {}
    for name, values in came.items():
        parts = [each[name] for each in made]
        if name != "cancel_lifetime_s" and len(values) and any(len(part) for part in parts):
            edges = realism.quantile_edges(before[name])
            found[name] = realism.similarity(realism.sample(parts), realism.sample([values]), edges)
    return found


def facts(kind: FuturesKind, guide: Guide) -> dict[str, Any]:
    """Fit, ancestors and speed."""
    fit = control.fit(kind.run, guide)
    return {name: getattr(fit, name) for name in ("correlation", "rmse_bp", "terminal_error_bp", "share_near")} | {
        "ancestors": int(kind.run.distinct[-1].sum()), "orders": kind.run.decisions,
        "seconds": round(kind.run.rollout.run_s, 2), "lost": int(kind.is_lost.sum()),
        "refused": kind.run.rollout.rejected, "distinct": control_report.distinct(kind).tolist()}


def led(day: Day, begin: int, guide: Guide, leading: Leading) -> list[FuturesKind]:
    """Futures that are led from a start, none of which is copied."""
    if leading.models is None:
        return []
    models = control_models.with_past(leading.models, day.market, day.feed, begin)
    how = ControlSpec(way="batch", told=leading.told, candidates=CANDIDATES)
    return [control_comparison.kind_of(LED, day.place(begin)._replace(models=models), day.spec, how, guide,
                                       lambda progress: None)]


def stretch(day: Day, begin: int, leading: Leading) -> dict[str, Any]:
    """All kinds of futures of one stretch."""
    curve = day.curve_bp(begin)
    guide = CurveGuide(tuple(curve.tolist()), SCALE_BP)
    execution = ControlledExecution(StrategySpec("twap"), "buy", 0.1)
    made = control_comparison.compare(day.place(begin), day.spec, ControlSpec(), guide, begin, execution)
    real = mids_every(day.events.between(begin, begin + MINUTES * MINUTE_NS), begin)
    alone, *others = every = [*made.kinds, *led(day, begin, guide, leading)]
    kinds = {kind.name: facts(kind, guide) for kind in every}
    for kind in (alone, *(kind for kind in others if kind.name != control_comparison.EXECUTED)):
        kinds[kind.name] |= {"correlation_10s": fine_correlation(kind, real, begin),
                             "likeness": likeness(day, kind, begin)}
    return {"day": day.feed.name, "what": spell(begin), "move_bp": round(float(curve[-1]), 2),
            "curve_bp": curve.tolist(), "execution": {"target": made.shares, "done": float(made.done.mean())},
            "kinds": kinds}


def scenario(day: Day, name: str, how: ControlSpec) -> dict[str, Any]:
    """Futures from 14:00 left alone, and controlled."""
    intervals = how.intervals(MINUTES)
    nothing = Features(*(np.zeros(intervals) for _ in Features._fields))
    guide = scenarios.of(name, 30.0, intervals, nothing)
    made = control_comparison.compare(day.place(FIRST_NS), day.spec, how, guide, FIRST_NS)
    rows = control_report.realism(made, 0).drop(columns="said").to_dict("records")
    return {"day": day.feed.name, "what": name, "kinds": {kind.name: facts(kind, guide) for kind in made.kinds},
            "realism": rows}


def records(prepared: PreparedModel, feeds: Sequence[DayFeed], trajectories: int, what: str,
            done: set[tuple[str, str]], asked: tuple[Leading, ControlSpec]) -> Iterator[dict[str, Any]]:
    """A record a stretch, or a day and scenario."""
    for feed in feeds:
        if what == "scenarios" and all((feed.name, name) in done for name in SCENARIOS):
            continue
        day = read(prepared, feed, trajectories)
        for begin in day.stretches() if what == "replay" else ():
            if (feed.name, spell(begin)) not in done:
                yield stretch(day, begin, asked[0])
        for name in SCENARIOS if what == "scenarios" else ():
            if (feed.name, name) not in done:
                yield scenario(day, name, asked[1])


def table(path: Path) -> None:
    """Prints means with bootstrap intervals over stretches, and scenarios by day."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    groups = {"0.3 to 0.5%": [row for row in rows if PAPER_BP[0] <= abs(row.get("move_bp", 0)) <= PAPER_BP[1]],
              "all": rows}
    if "move_bp" not in rows[0]:
        groups = {name: [row for row in rows if row["what"] == name] for name in SCENARIOS}
    rng = np.random.default_rng(0)
    for group, some in groups.items():
        for kind in some[0]["kinds"] if some else ():
            said = [f"{group}: {len(some)} | {kind}"]
            for name in ("correlation", "correlation_10s", "rmse_bp", "terminal_error_bp", "share_near", "ancestors"):
                values = np.array([row["kinds"][kind].get(name, np.nan) for row in some], float)
                if np.isfinite(values).all():
                    drawn = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
                    low, high = np.quantile(drawn, (0.025, 0.975))
                    said.append(f"{name} {values.mean():.3g} [{low:.3g}, {high:.3g}]")
            print(" | ".join(said))
        for kind in (name for name, fact in some[0]["kinds"].items() if "likeness" in fact) if some else ():
            names = some[0]["kinds"][kind]["likeness"]
            print(f"{group} | {kind} | likeness to what came: " + ", ".join(
                f"{name} {np.mean([row['kinds'][kind]['likeness'].get(name, np.nan) for row in some]):.3f}"
                for name in names))


def main() -> None:
    """Measures, or sums up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("replay", "scenarios", "table"))
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--trajectories", type=int, default=64)
    parser.add_argument("--days", default="", help="names joined by commas; all by default")
    parser.add_argument("--every_s", type=int, default=60, help="seconds between two times of control, of scenarios")
    parser.add_argument("--told", type=float, default=4.0, help="of led futures; 0: none are made")
    given = parser.parse_args()
    if given.what == "table":
        table(given.paths[0])
        return
    folder, out = given.paths
    before = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    done = {(row["day"], row["what"]) for row in map(json.loads, before)}
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    leading = Leading(control_models.load("default", prepared)[0] if given.told else None, given.told)
    feeds = sources.open_days("sse", str(folder))
    if given.days:
        feeds = [next(feed for feed in feeds if feed.name == name) for name in given.days.split(",")]
    for record in records(prepared, feeds, given.trajectories, given.what, done, (leading, ControlSpec(given.every_s))):
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print({key: value for key, value in record.items() if key not in ("kinds", "realism")}, flush=True)
        for name, fact in record["kinds"].items():
            print(f"  {name}: {fact}", flush=True)


if __name__ == "__main__":
    main()
