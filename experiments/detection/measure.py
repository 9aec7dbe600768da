"""Figures of experiments/detection/README.md.

    python experiments/detection/measure.py cases --day=default --out=experiments/detection/cases_default.csv
    python experiments/detection/measure.py days --folder=data/sse --symbol=600761 --out=experiments/detection

`cases`: manipulations in markets of the order model, which reacts to them, and how well detectors find them.
`days`: a real day's hours from 13:00 on, clean ones and with manipulations put into the minutes after 14:00.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import marsjax
from marsjax.analysis import detection as tests
from marsjax.analysis import interval_features, roc
from marsjax.analysis.roc import CaseScores
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import sources
from marsjax.data.feed import DayFeed
from marsjax.studies import detection, futures, manipulated_day, manipulations, order_model, places
from marsjax.studies.detection import Watched, WatchSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.injected import NothingSentError
from marsjax.studies.manipulations import CasesSpec, Manipulation
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.realism import SentOrders
from marsjax.studies.session_times import MINUTE_NS

RATE = 0.05
SIZES = {"default": {"spoofing": (5_000, 20_000, 80_000), "layering": (20_000, 80_000),
                     "pump": (4_000, 16_000, 64_000), "wash": (3_000, 12_000, 48_000)},
         "quiet": {"spoofing": (50_000, 200_000), "layering": (50_000, 200_000), "pump": (10_000, 40_000),
                   "wash": (30_000, 120_000)}}


def cases(given: argparse.Namespace) -> None:
    """Cases in a day of the model."""
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    made = places.made_day("default", given.day)
    market = places.market_of(prepared, made.feed.venue, manipulations.ACCOUNT + 1)
    begins = [made.start_ns - minutes * MINUTE_NS for minutes in range(2 * given.starts, 0, -2)]
    day = detection.read(market, prepared, made.feed, begins, given.minutes)
    tables, shares = [], []
    for kind in given.kinds.split(","):
        sizes = tuple(map(int, given.sizes.split(","))) if given.sizes else SIZES[given.day][kind]
        began = time.perf_counter()
        spec = CasesSpec(Manipulation(kind, sizes[0], given.seconds), sizes, given.cases,
                         FuturesSpec(given.trajectories, given.minutes, seed=given.seed))
        found = manipulations.simulate(prepared, market, spec, day.starts, begins, [day.known] * len(begins))
        for combination in tests.COMBINATIONS:
            scores = manipulations.score(found, begins, combination)
            rows = manipulations.table(found, scores, spec, RATE)
            rows["combination"] = combination
            tables.append(rows)
            p = manipulations.p_values(found, combination)
            for number, size in enumerate((0, *sizes)):
                known = ~np.isnan(p[:, number])
                starts = np.broadcast_to(np.arange(len(p))[:, None], known.shape)
                found_share = tests.share(p[:, number][known] <= RATE, starts[known])
                shares.append({"kind": kind, "size": size, "combination": combination, "cases": int(known.sum()),
                               **found_share._asdict()})
        pd.concat(tables).to_csv(given.out, index=False)
        pd.DataFrame(shares).to_csv(str(given.out).replace(".csv", "_alarms.csv"), index=False)
        print(f"{kind}: {time.perf_counter() - began:.0f} s", flush=True)
        print(pd.concat(tables[-3:]).to_string(index=False), flush=True)
    print(pd.DataFrame(shares).to_string(index=False))


def days(given: argparse.Namespace) -> None:
    """A real day."""
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    feeds = sources.open_days("sse", given.folder, [given.symbol], given.date)
    (feed,) = feeds
    market = places.market_of(prepared, feed.venue, manipulations.ACCOUNT + 1)
    spec = WatchSpec(given.minutes, times.of_clock("13:02:00"), times.of_clock("14:56:00"), times.of_clock("14:00:00"))
    begins = spec.intervals(market)
    began = time.perf_counter()
    day = detection.read(market, prepared, feed, begins, given.minutes)
    sent = SentOrders()
    runs = futures.simulate(prepared, market, FuturesSpec(given.trajectories, given.minutes), day.starts, on_trace=sent)
    found = detection.watched(day, runs, sent.by_trajectory(given.trajectories * len(begins)), given.minutes)
    rows = detection.table(begins, found, spec)
    name = f"{given.out}/{feed.name}"
    rows.to_csv(f"{name}.csv", index=False)
    tested = detection.day_test(rows, found, spec)
    late = rows[~rows["is_clean"]]
    said = {"intervals": len(late), "by_clean": int((late["p_clean"] <= RATE).sum()),
            "by_futures": int((late["p_futures"] <= RATE).sum()), "attained": tested.attained,
            "count_p": tested.count_p, "least_p": tested.least_p, "overlap": float(late["spread_overlap"].mean()),
            "seconds": time.perf_counter() - began}
    print(json.dumps(said), flush=True)
    made: list[dict[str, Any]] = []
    for row in put_into(given, prepared, Seen(market, feed, spec, begins, found, rows)):
        made.append(row)
        strange = pd.DataFrame(made)
        strange.to_csv(f"{name}_manipulated.csv", index=False)
        print(*(row.get(key) for key in ("kind", "share", "clock", "move_bp", "p_clean")), flush=True)
    summary = areas(late, strange)
    summary.to_csv(f"{name}_areas.csv", index=False)
    print(summary.to_string(index=False))
    pathlib.Path(f"{name}.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


class Seen(NamedTuple):
    """A clean day, watched."""

    market: MarketSpec
    feed: DayFeed
    spec: WatchSpec
    begins: list[int]
    found: Watched
    rows: pd.DataFrame


def put_into(given: argparse.Namespace, prepared: PreparedModel, seen: Seen) -> Iterator[dict[str, Any]]:
    """Intervals after 14:00 with a manipulation in them, or without numbers where it sent no order."""
    market, feed, spec, begins, found, rows = seen
    late = np.flatnonzero(~rows["is_clean"].to_numpy())
    chosen = late[np.linspace(0, len(late) - 1, given.cases).astype(int)]
    mean = float(np.mean(interval_features.column(found.real, "traded_volume")))
    for kind in manipulations.KINDS:
        for share in (0.5, 2.0):
            size = max(int(mean * share) // 1_000 * 1_000, 1_000)
            for at in chosen:
                begin = begins[at]
                manipulation = Manipulation(kind, size, given.seconds)
                row = {"kind": kind, "share": share, "size": size, "clock": rows["clock"].iloc[at], "orders_sent": 0}
                try:
                    case = manipulated_day.put_into(market, prepared, feed, manipulation, begin + SECOND_NS)
                except NothingSentError as error:
                    print(error, flush=True)
                    yield row
                    continue
                again = detection.read(market, prepared, case.injected.feed, [begin], given.minutes)
                real = found.real.copy()
                real[at] = interval_features.of_interval(again.events, begin, given.minutes)
                changed = found._replace(real=real, spread_overlap=found.spread_overlap.copy())
                changed.spread_overlap[at] = np.nan
                yield {**row, "orders_sent": len(case.injected.sent.kind),
                       "move_bp": manipulated_day.move_bp(case, again.events),
                       **detection.table(begins, changed, spec).iloc[at]}


def areas(clean: pd.DataFrame, strange: pd.DataFrame) -> pd.DataFrame:
    """A row a kind, size and detector."""
    made = []
    sent = strange[strange["orders_sent"] > 0]
    for (kind, share), some in sent.groupby(["kind", "share"], sort=False):
        for name, sign in (("p_clean", -1), ("distance", 1), ("volume_score", 1), ("cancel_score", 1)):
            of = [CaseScores(sign * each[name].to_numpy(), each["time_ns"].to_numpy()) for each in (clean, some)]
            made.append({"kind": kind, "share": share, "size": some["size"].iloc[0],
                         "move_bp": some["move_bp"].abs().mean(), "detector": name,
                         "alarms": int(some["alarm"].sum()), "cases": len(some),
                         **roc.area(*of)._asdict()})
    return pd.DataFrame(made)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("cases", "days"))
    parser.add_argument("--day", default="default")
    parser.add_argument("--kinds", default=",".join(manipulations.KINDS))
    parser.add_argument("--sizes", default="", help="shares, separated by commas; by default those of SIZES")
    parser.add_argument("--folder", default="data/sse")
    parser.add_argument("--symbol", default="600761")
    parser.add_argument("--date", default="")
    parser.add_argument("--out", default="experiments/detection")
    for name, number in (("starts", 8), ("cases", 8), ("trajectories", 40), ("minutes", 2), ("seconds", 60),
                         ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args()
    cases(given) if given.what == "cases" else days(given)


if __name__ == "__main__":
    main()
