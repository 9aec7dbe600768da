"""The part of the forecast program that evaluates: `evaluate` in the argument of configs/forecast.py."""

import time
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import evaluation_table, forecast, forecast_plots
from marsjax.core.errors import InputError
from marsjax.experiments import launcher, markets, run_folder, setup, table_files
from marsjax.experiments.run_folder import write_json
from marsjax.studies import forecast_evaluation, futures, order_model, rollout_summary
from marsjax.studies.forecast_evaluation import EvaluationSpec, LabelSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.session_times import hours, spell


def main(config: ConfigDict) -> int:
    """Evaluates; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    if config.source == "noise":
        raise InputError("config.evaluate: expected real days (forecast.py:sse,evaluate), got config.source='noise'")
    if config.trace or config.save_folder:
        raise InputError("config.trace, config.save_folder: expected none with evaluate, which keeps neither")
    setup.at_least(config, "trajectories", 1)  # how many fit depends on the start, and these are compared
    spec = setup.spec_of(FuturesSpec, config)
    labels, evaluation = setup.spec_of(LabelSpec, config), setup.spec_of(EvaluationSpec, config)
    table_files.check_form(config.tables)
    days = [(feed, group.market, evaluation.times(hours(group.market.session, feed)))
            for group in markets.groups(config, markets.open_feeds(config), futures.ACCOUNT + 1)
            for feed in group.feeds]
    prepared = setup.load_order_model(config)
    output = run_folder.of_config(config, f"forecast_{config.source}_evaluate")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        tables: list[pd.DataFrame] = []
        summaries: dict[str, dict[str, Any]] = {}
        problems: list[str] = []
        watch = setup.watching()
        for feed, market, times in days:
            own = setup.adapted(config, prepared, market, feed, int(times[1][0]))
            day = forecast_evaluation.read_day(market, own, feed, labels, times)
            print(f"{day.name}: {len(day.starts)} starts from {spell(times[1][0])} on, threshold "
                  f"{day.threshold * 1e4:.3f} bp by {len(day.fit_ns)} labels before it", flush=True)
            runs = futures.simulate(own, market, spec, day.starts, first=len(summaries) * len(day.starts),
                                    watch=watch)
            refused, lost = markets.refused(day.name, day.refused)
            summaries[day.name] = rollout_summary.summarize(runs, day.starts)
            problems += lost + [f"{day.name}: {problem}" for problem in rollout_summary.problems(summaries[day.name])]
            summaries[day.name] |= {"feed": refused}
            forecasts = [forecast.distribution(rollout_summary.labels(run), day.threshold, labels.quantiles)
                         for run in runs]
            tables.append(forecast_evaluation.forecast_table(day, forecasts, labels, spec.trajectories))
        table = pd.concat(tables, ignore_index=True)
        report = evaluation_table.scores(table, labels.quantiles, evaluation.probability_edges, evaluation.overlap)
        table_files.write_table(folder, "evaluation", table, config.tables)
        problems += [f"no scores: {report['note']}"] if report["note"] else []
        if config.picture and not report["note"]:
            forecast_plots.evaluation(table, report, config.minutes).savefig(folder / "evaluation.png", dpi=110)
        write_json(folder / "metrics.json", {
            "scores": report, "rollouts": summaries, "seconds": round(time.perf_counter() - began, 3),
            **setup.about(config, prepared)})
    print("\n".join([*evaluation_table.lines(report), run_folder.told(output, 'evaluation.png', config.picture)]))
    return launcher.finish(problems)
