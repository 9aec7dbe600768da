"""What an execution does to the price, and what it costs. The config says which: configs/market_impact.py."""

import time
from typing import Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import impact_report
from marsjax.analysis.intervals import LEVEL
from marsjax.core import limits, times
from marsjax.core.specs import MarketSpec
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.markets import Where
from marsjax.experiments.run_folder import write_json
from marsjax.observers import market_tables
from marsjax.sim.initial import Start
from marsjax.studies import executions, order_model, rollout_summary, starts
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, check_time


def main(config: ConfigDict) -> int:
    """Runs the study; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    where = markets.where(config, executions.EXECUTOR + 1)
    market, start_ns, spec = where.market, where.time_ns, _spec(config, len(where.feeds))
    check_time(market.session, start_ns, spec.minutes)
    with setup.named(f"config, keys of {config.strategy} and config.minutes = {config.minutes}"):
        executions.metered_strategy(spec, start_ns)
    prepared = setup.load_order_model(config)
    output = run_folder.of_config(config, f"market_impact_{config.strategy}")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        states, refused = _starts(config, prepared, where)
        seconds = {"prepared": time.perf_counter() - began}
        study = executions.study(prepared, market, spec, states, start_ns, setup.watching())
        report = impact_report.report(study.without.runs, study.executed.runs, config.minutes, config.bootstrap,
                                      config.seed)
        rows, laws = report.rows(), report.laws()
        minutes = report.minutes(is_even=config.strategy in ("twap", "vwap"))
        summary = rollout_summary.summarize(study.rollouts, study.starts)
        agent = executions.agent_counts(study.rollouts)
        for name, table in impact_report.tables(report, rows, minutes, study.without.runs).items():
            _timed(table, market, start_ns).to_csv(folder / f"{name}.csv", index=False)
        if config.picture:
            for name, figure in impact_report.figures(report, rows, laws, minutes).items():
                figure.savefig(folder / f"{name}.png", dpi=110)
        seconds["total"] = time.perf_counter() - began
        write_json(folder / "metrics.json", {
            "groups": rows, "power_law": {side: law._asdict() for side, law in laws.items()},
            "mean_volume_without": study.mean_volume, "rollouts": summary, "agent": agent, "seconds": seconds,
            "feeds": {name: record for name, (record, _) in refused.items()},
            **setup.about(config, prepared)})
    shown = "none" if study.mean_volume is None else f"{study.mean_volume:.0f}"
    print(f"mean volume without the {config.strategy}: {shown} shares in {config.minutes} minutes; means with "
          f"{LEVEL:.0%} intervals over rollouts")
    print("\n".join(impact_report.lines(rows, laws)))
    told = run_folder.told(output, "impact.png", config.picture)
    print(f"{rollout_summary.summary_line(summary, seconds['total'])}; {told}")
    lost = [problem for _, problems in refused.values() for problem in problems]
    return launcher.finish(lost + rollout_summary.problems(summary) + _problems(config, agent))


def _timed(table: pd.DataFrame, market: MarketSpec, start_ns: int) -> pd.DataFrame:
    """A table with the time of the starts, or of the ends of its minutes, the phase then, the status and the units.

    A row of one rollout is WHOLE or LOST, one of several a MEAN.
    """
    minute = table["minute"].to_numpy() if "minute" in table else np.zeros(len(table), np.int64)
    at = start_ns + minute.astype(np.int64) * MINUTE_NS
    unit = f"{market.units.price} {market.units.currency}".strip()
    status = np.where(table["lost"], "LOST", "WHOLE") if "number" in table else "MEAN"
    phases = market_tables.phases(market.session, at)
    return table.assign(time_ns=at, clock=times.clock(at), phase=phases, status=status, price_unit=unit,
                        volume_unit=market.units.volume)


def _starts(config: ConfigDict, prepared: PreparedModel, where: Where
            ) -> tuple[list[Start], dict[str, tuple[dict[str, Any], list[str]]]]:
    """The starting states, and of days of orders what was refused before them, by name."""
    if not where.feeds:
        return starts.noise_starts(where.market, setup.noise_market(config), prepared, config.seeds), {}
    found = {feed.name: starts.states_of_feed(where.market, prepared, feed, [where.time_ns]) for feed in where.feeds}
    return ([each.starts[0] for each in found.values()],
            {name: markets.refused(name, each.refused) for name, each in found.items()})


def _spec(config: ConfigDict, days: int) -> ExecutionSpec:
    setup.at_least(config, "bootstrap", 1, limits.RESAMPLES)
    strategy, futures = setup.spec_of(StrategySpec, config), setup.spec_of(FuturesSpec, config)
    seeds = {"seeds": days} if days else {}
    return setup.spec_of(ExecutionSpec, config, strategy=strategy, futures=futures, **seeds)


def _problems(config: ConfigDict, counts: dict[str, Any]) -> list[str]:
    lost = {name: counts[name] for name in ("unsent", "late_wakes") if counts[name]}
    return [f"{config.strategy}: orders or wake-ups that did not fit: {lost}"] if lost else []


if __name__ == "__main__":
    launcher.run("market_impact", main)
