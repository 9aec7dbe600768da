"""A day of orders, watched by an order model: which minutes its futures do not account for. configs/detect.py."""

import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from marsjax.analysis import detection_plots, detection_report
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data import made_days
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import detection, futures, manipulated_day, manipulations, order_model, rollout_summary
from marsjax.studies.detection import WatchSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.manipulated_day import ManipulatedDay
from marsjax.studies.manipulations import Manipulation
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.realism import SentOrders
from marsjax.studies.session_times import MINUTE_NS, continuous, spell


def main(config: ConfigDict) -> int:
    """Watches a day; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    spec = setup.spec_of(FuturesSpec, config)
    feed, market, end_ns = _day(config)
    watch = _watch_spec(config, market, end_ns)
    begins = watch.intervals(market)
    watch.is_clean(begins)
    manipulation, at_ns = _manipulation(config, market, watch, begins)
    prepared = setup.load_order_model(config)
    output = run_folder.of_config(config, f"detect_{config.source}")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        prepared = setup.adapted(config, prepared, market, feed, begins[0])
        case = _put_into(market, prepared, feed, manipulation, at_ns)
        day = detection.read(market, prepared, feed if case is None else case.injected.feed, begins, config.minutes)
        refused, problems = markets.refused(day.name, day.refused)
        sent = SentOrders()
        runs = futures.simulate(prepared, market, spec, day.starts, on_trace=sent, watch=setup.watching())
        count = sum(len(run.mid_twice_start) for run in runs)
        found = detection.watched(day, runs, sent.by_trajectory(count), config.minutes)
        rows = detection.table(begins, found, watch)
        tested = detection.day_test(rows, found, watch)
        truth = None if case is None else (case.from_ns, case.until_ns)
        summary = rollout_summary.summarize(runs, day.starts)
        rows.to_csv(folder / "intervals.csv", index=False)
        result: dict[str, Any] = detection_report.record(rows, tested, watch.rate, watch.minutes, truth)
        if case is not None:
            result["manipulation"] |= {"kind": config.inject, "orders": len(case.injected.sent.kind),
                                       "refused": case.injected.refused,
                                       "move_bp": manipulated_day.move_bp(case, day.events)}
        if config.picture:
            title = f"{day.name} in intervals of {config.minutes} minutes, order model {Path(config.model).name}"
            detection_plots.figure(rows, day.events, config.minutes, watch.rate, title, truth).savefig(
                folder / "detection.png", dpi=110)
        total_s = time.perf_counter() - began
        write_json(folder / "results.json", {"detection": result, "feed": refused, "rollouts": summary,
                                             "seconds": {"total": total_s}, **setup.about(config, prepared)})
    print("\n".join(detection_report.lines(result)))
    told = run_folder.told(output, "detection.png", config.picture)
    print(f"{rollout_summary.summary_line(summary, total_s)}; {told}")
    return launcher.finish((problems if case is None else []) + rollout_summary.problems(summary))


def _day(config: ConfigDict) -> tuple[DayFeed, MarketSpec, int]:
    """The day, its market, and when it ends."""
    accounts = manipulations.ACCOUNT + 1
    if config.source in made_days.NAMES:
        made = markets.made_day(config, config.source)
        return made.feed, markets.one_market(config, [made.feed], accounts), made.start_ns
    feeds = markets.open_feeds(config, or_else=made_days.NAMES)
    if len(feeds) > 1:
        raise InputError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in feeds)}")
    market = markets.one_market(config, feeds, accounts)
    return feeds[0], market, continuous(market.session)[-1].end_ns


def _watch_spec(config: ConfigDict, market: MarketSpec, end_ns: int) -> WatchSpec:
    setup.at_least(config, "minutes", 1)
    first_ns = continuous(market.session)[0].start_ns + config.minutes * MINUTE_NS
    if config.first_time:
        first_ns = setup.time_ns(config, "first_time")
    last_ns = min(setup.time_ns(config, "last_time"), end_ns) if config.last_time else end_ns
    clean_ns = first_ns
    if config.clean_until:
        clean_ns = setup.time_ns(config, "clean_until")
        if clean_ns <= first_ns:
            raise InputError(f"config.clean_until: expected a time after the first interval's begin, "
                             f"{spell(first_ns)}, got {config.clean_until!r}")
    return setup.spec_of(WatchSpec, config, first_ns=first_ns, last_ns=last_ns, clean_until_ns=clean_ns)


def _manipulation(config: ConfigDict, market: MarketSpec, watch: WatchSpec, begins: list[int]
                  ) -> tuple[Manipulation | None, int]:
    """What is put into the day, and when it begins: if nothing says so, in the middle interval that is not clean."""
    if not config.inject:
        if config.inject_time:
            raise InputError(f"config.inject_time: has no effect without config.inject, got {config.inject_time!r}")
        return None, 0
    with setup.named("config.inject"):
        found = Manipulation(config.inject, config.inject_size, config.inject_seconds, config.inject_direction)
    if not found.size:
        raise InputError("config.inject_size: expected shares above 0, got 0")
    wanted_ns = setup.time_ns(config, "inject_time") if config.inject_time else None
    with setup.named("config.inject_time, config.inject_seconds"):
        return found, manipulated_day.begin_ns(market, watch, begins, found, wanted_ns)


def _put_into(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, manipulation: Manipulation | None, at_ns: int
              ) -> ManipulatedDay | None:
    if manipulation is None:
        return None
    with setup.named("config.inject"):
        return manipulated_day.put_into(market, prepared, feed, manipulation, at_ns)


if __name__ == "__main__":
    launcher.run("detect", main)
