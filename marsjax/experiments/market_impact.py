"""What an execution does to the price, and what it costs. The config says which: configs/market_impact.py."""

import time
from typing import Any

from ml_collections import ConfigDict

from marsjax.analysis import impact_report
from marsjax.analysis.intervals import LEVEL
from marsjax.core.errors import InputError
from marsjax.experiments import launcher, setup
from marsjax.experiments.run_folder import output_folder, write_json
from marsjax.studies import executions, order_model, rollout_summary, starts
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.session_times import check_time


def main(config: ConfigDict) -> int:
    """Runs the study; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    spec = _spec(config)
    market, noise = setup.market_spec(config, executions.EXECUTOR + 1), setup.noise_market(config)
    check_time(market.session, noise.end_ns, spec.minutes)
    with setup.named(f"config, keys of {config.strategy} and config.minutes = {config.minutes}"):
        executions.metered_strategy(spec, noise.end_ns)
    with output_folder(config.output, config.overwrite) as folder:
        prepared = setup.load_order_model(config)
        print(order_model.headline(prepared, config.model), flush=True)
        states = starts.noise_starts(market, noise, prepared, spec.seeds)
        seconds = {"prepared": time.perf_counter() - began}
        study = executions.study(prepared, market, spec, states, noise.end_ns)
        report = impact_report.report(study.without.runs, study.executed.runs, config.minutes, config.bootstrap,
                                      config.seed)
        rows, laws = report.rows(), report.laws()
        minutes = report.minutes(is_even=config.strategy in ("twap", "vwap"))
        summary = rollout_summary.summarize(study.rollouts, study.starts)
        agent = executions.agent_counts(study.rollouts)
        for name, table in impact_report.tables(report, rows, minutes, study.without.runs).items():
            table.to_csv(folder / f"{name}.csv", index=False)
        if config.picture:
            for name, figure in impact_report.figures(report, rows, laws, minutes).items():
                figure.savefig(folder / f"{name}.png", dpi=110)
        seconds["total"] = time.perf_counter() - began
        write_json(folder / "metrics.json", {
            "groups": rows, "power_law": {side: law._asdict() for side, law in laws.items()},
            "mean_volume_without": study.mean_volume, "rollouts": summary, "agent": agent, "seconds": seconds,
            **setup.about(config, prepared)})
    shown = "none" if study.mean_volume is None else f"{study.mean_volume:.0f}"
    print(f"mean volume without the {config.strategy}: {shown} shares in {config.minutes} minutes; means with "
          f"{LEVEL:.0%} intervals over rollouts")
    print("\n".join(impact_report.lines(rows, laws)))
    print(f"{rollout_summary.summary_line(summary, seconds['total'])}; results in {config.output}")
    return launcher.finish(rollout_summary.problems(summary) + _problems(config, agent))


def _spec(config: ConfigDict) -> ExecutionSpec:
    if config.session != "continuous":
        raise InputError(f"config.session: expected continuous, got {config.session!r}")
    setup.at_least(config, "bootstrap", 1)
    strategy, futures = setup.spec_of(StrategySpec, config), setup.spec_of(FuturesSpec, config)
    return setup.spec_of(ExecutionSpec, config, strategy=strategy, futures=futures)


def _problems(config: ConfigDict, counts: dict[str, Any]) -> list[str]:
    lost = {name: counts[name] for name in ("unsent", "late_wakes") if counts[name]}
    return [f"{config.strategy}: orders or wake-ups that did not fit: {lost}"] if lost else []


if __name__ == "__main__":
    launcher.run("market_impact", main)
