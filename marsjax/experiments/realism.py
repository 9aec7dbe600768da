"""Realism of an order model by numbers: rollouts against the real minutes that they begin with. configs/realism.py."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from marsjax.analysis import realism_plots, realism_report, realism_table
from marsjax.analysis.lob_bench import report as bench_report
from marsjax.analysis.lob_bench import table as bench_table
from marsjax.analysis.lob_bench.table import TableSpec
from marsjax.core import files, limits
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.observers.trace import Log
from marsjax.sim.result import Rollout
from marsjax.studies import futures, lob_bench, order_model, realism, rollout_summary, starts
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.lob_bench import SentMessages
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.realism import Day, Floor, StretchSpec
from marsjax.studies.session_times import hours, spell

TRAINED = "trained"
"""Symbol that stands for the days that the checkpoint names."""
_MOST_CARD_BYTES = 2**22


def main(config: ConfigDict) -> int:
    """Compares; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    spec, stretch = setup.spec_of(FuturesSpec, config), _stretch_spec(config)
    prepared = setup.load_order_model(config)
    feeds, missing = _open_days(config, prepared)
    market = markets.one_market(config, feeds, futures.ACCOUNT + 1)
    session = hours(market.session, *feeds)
    times = stretch.times(session)
    noise_minutes = setup.at_least(config, "noise_minutes", 1, limits.MINUTES)
    noise_times = realism.noise_times(session, config.minutes, noise_minutes, len(times))
    if missing:
        raise _missing(config, missing)
    output = run_folder.of_config(config, "realism")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        own = [setup.adapted(config, prepared, market, feed, times[0]) for feed in feeds]
        days = [realism.read(market, each, feed, stretch, session) for each, feed in zip(own, feeds, strict=True)]
        refused = {day.name: markets.refused(day.name, day.refused) for day in days}
        print(f"{', '.join(day.name for day in days)}: {len(times)} starts each, {spell(times[0])} to "
              f"{spell(times[-1])}; bins by the orders before {spell(times[0])}", flush=True)
        agent = starts.noise_agent(config.init_price, config.interval_s)
        floor = realism.read_noise(dataclasses.replace(market, session=session), prepared, agent, noise_times,
                                   config.noise_seed)
        states, sent = [one for day in days for one in day.starts], _Sent(config.lob_bench)
        seconds = {"prepared": time.perf_counter() - began}
        runs = _rollouts(own, days, market, spec, sent)
        seconds["simulated"] = time.perf_counter() - began
        summary = rollout_summary.summarize(runs, states) | {
            "cancels_not_listed": sent.orders.unlisted,
            "feeds": {name: record for name, (record, _) in refused.items()}}
        facts, said = _compared(config, folder, _Found(days, runs, sent, floor))
        seconds["total"] = time.perf_counter() - began
        write_json(folder / "metrics.json", facts | {
            "markets": [day.name for day in days], "starts": len(times), "rollouts": summary, "seconds": seconds,
            "bins": realism.bin_counts(days), **setup.about(config, prepared)})
    print("\n".join(said))
    if sent.orders.unlisted:
        print(f"{sent.orders.unlisted} cancels not listed, part of no number: a higher config.trade_width lists them")
    told = run_folder.told(output, "realism.png", config.picture)
    print(f"{rollout_summary.summary_line(summary, seconds['total'])}; {told}")
    return launcher.finish([problem for _, lost in refused.values() for problem in lost]
                           + rollout_summary.problems(summary))


class _Sent:
    """The orders of rollouts, and where they are wanted the books around them."""

    def __init__(self, with_books: bool) -> None:
        self.orders = realism.SentOrders()
        self.messages = SentMessages() if with_books else None

    def __call__(self, numbers: np.ndarray, log: Log) -> None:
        self.orders(numbers, log)
        if self.messages is not None:
            self.messages(numbers, log)


def _rollouts(own: Sequence[PreparedModel], days: Sequence[Day], market: MarketSpec, spec: FuturesSpec, sent: _Sent
              ) -> list[Rollout]:
    """Futures of the starts of all days, each day's by its model; days of one model are run together."""
    runs: list[Rollout] = []
    watch = setup.watching()
    for _, some in itertools.groupby(zip(own, days, strict=True), key=lambda pair: id(pair[0])):
        models, of = zip(*some, strict=True)
        states = [one for day in of for one in day.starts]
        runs += futures.simulate(models[0], market, spec, states, first=len(runs), on_trace=sent, watch=watch)
    return runs


class _Found(NamedTuple):
    """What is compared."""

    days: list[Day]
    runs: list[Rollout]
    sent: _Sent
    floor: Floor


def _compared(config: ConfigDict, folder: Path, found: _Found) -> tuple[dict[str, Any], list[str]]:
    """Writes tables, picture and card; what goes into the metrics, and the lines to be shown."""
    count = sum(len(run.mid_twice_start) for run in found.runs)
    compared = realism.compare(found.days, found.runs, found.sent.orders.by_trajectory(count), found.floor,
                               config.minutes)
    table = realism_table.table(compared, config.minutes, config.seed, config.resamples)
    table.to_csv(folder / "realism.csv", index=False)
    facts: dict[str, Any] = {"realism": realism_report.record(table)}
    lines = realism_report.lines(table)
    if config.picture:
        title = f"{config.model} against history, mean over {len(found.days)} markets"
        realism_plots.figure(table, title).savefig(folder / "realism.png", dpi=110)
    if config.card:
        card = files.read_text(config.card, _MOST_CARD_BYTES)
        run_folder.write_whole(config.card, realism_report.with_section(card, table))
    if found.sent.messages is not None:
        sources = lob_bench.of_rollouts(found.days, found.runs, found.sent.messages.by_trajectory(count), found.floor,
                                        config.minutes)
        bench = bench_table.table(sources, TableSpec(config.seed, config.resamples))
        bench.to_csv(folder / "lob_bench.csv", index=False)
        facts["lob_bench"] = bench_report.record(bench)
        lines += ["", *bench_report.lines(bench)]
    return facts, lines


def _stretch_spec(config: ConfigDict) -> StretchSpec:
    if config.card and not Path(config.card).exists():
        raise FileNotFoundError(f"config.card: no file {config.card}")
    if config.card:  # it is written to at the end of a long run
        with setup.named("config.card"):
            files.read_text(config.card, _MOST_CARD_BYTES)
    setup.at_least(config, "resamples", 2, limits.RESAMPLES)
    last_ns = setup.time_ns(config, "last_time") if config.last_time else None
    return setup.spec_of(StretchSpec, config, first_ns=setup.time_ns(config, "first_time"), last_ns=last_ns)


def _open_days(config: ConfigDict, prepared: PreparedModel) -> tuple[list[DayFeed], list[str]]:
    """The days that the config names, or by `trained` those that the checkpoint says it is trained on.

    And of these the names of days that are not there; the first list is not empty.
    """
    if config.symbol != TRAINED:
        return markets.open_feeds(config), []
    names = order_model.trained_days(prepared.model.about)
    if not names:
        raise InputError(f"config.symbol: the checkpoint {config.model} names no days that it is trained on "
                         "(<symbol>_<date>): name the symbols to compare, symbol=A+B or symbol=all")
    chosen = config.copy_and_resolve_references()
    chosen.symbol = "all"
    found = [feed for feed in markets.open_feeds(chosen) if feed.name in names]
    missing = sorted(set(names) - {feed.name for feed in found})
    if not found:
        raise _missing(config, missing)
    return found, missing


def _missing(config: ConfigDict, names: Sequence[str]) -> FileNotFoundError:
    return FileNotFoundError(f"config.folder {config.folder}: no {', '.join(names)}, which the checkpoint "
                             f"{config.model} is trained on: name the symbols to compare, symbol=A+B or symbol=all")


if __name__ == "__main__":
    launcher.run("realism", main)
