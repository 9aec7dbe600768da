"""Forecasts by rollouts of an order model; the config says from where: configs/forecast.py."""

import dataclasses
import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from marsjax.analysis import forecast, forecast_report
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.experiments import forecast_evaluation, launcher, markets, run_folder, setup, table_files
from marsjax.experiments.markets import Where
from marsjax.experiments.run_folder import write_json
from marsjax.experiments.trace_files import TraceFiles
from marsjax.sim.result import Rollout
from marsjax.sim.resume import Saving
from marsjax.sim.saved_states import SavedStates
from marsjax.studies import forecasts, futures, order_model, rollout_summary
from marsjax.studies.forecast_evaluation import LabelSpec, threshold
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import check_time


def main(config: ConfigDict) -> int:
    """Runs a forecast, or an evaluation of many; returns 0, or INCOMPLETE with the reasons on stderr."""
    if config.evaluate:
        return forecast_evaluation.main(config)
    began = time.perf_counter()
    setup.at_least(config, "trajectories", 0)
    spec = setup.spec_of(FuturesSpec, config, trajectories=config.trajectories or 1)
    labels_spec = setup.spec_of(LabelSpec, config)
    table_files.check_form(config.tables)
    where = _where(config)
    market, start_ns = where.market, where.time_ns
    prepared = setup.load_order_model(config)
    _check_saving(config)
    output = run_folder.of_config(config, f"forecast_{config.source}")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        if where.goes_on and config.save_folder and config.adapt_steps:
            print("save_folder: the model is not adapted, as a state is taken up by the same weights alone", flush=True)
        elif where.goes_on:
            prepared = setup.adapted(config, prepared, market, where.feeds[0], start_ns)
        at = markets.start_of(config, prepared, where)
        refused, problems = markets.refused(at.name, at.refused)
        facts = forecasts.describe(market, at) | {"feed": refused}
        mid = facts["mid"] * float(market.units.price)
        print(f"{at.name} at {facts['time']}: mid {mid:g}, {facts['bids']} bids and {facts['asks']} asks rest, the "
              f"model sees {facts['orders_seen']} orders", flush=True)
        limit = threshold(labels_spec, market.session, at.past, 0, start_ns)
        if not config.trajectories:
            spec = dataclasses.replace(spec, trajectories=futures.fitting(
                prepared, market, spec, at.start, config.trace))
        prepared_s = time.perf_counter() - began
        run = _run(config, market, prepared, spec, at, folder)
        labels = rollout_summary.labels(run)
        result = forecast.distribution(labels, limit, config.quantiles)
        summary = rollout_summary.summarize([run], [at.start])
        realized = forecasts.realized(at, config.minutes, limit)
        _write_tables(config, market, start_ns, run, labels, folder)
        if config.picture:
            title = f"{at.name} from {facts['time']}, order model {Path(config.model).name}"
            forecasts.fan(at, run, config.minutes, limit, title, float(market.units.price)).savefig(
                folder / "fan.png", dpi=110)
        total_s = time.perf_counter() - began
        write_json(folder / "metrics.json", {
            "forecast": forecast_report.record(result), "threshold": limit, "realized": realized, "start": facts,
            "rollouts": summary, "seconds": {"prepared": prepared_s, "total": total_s},
            **setup.about(config, prepared)})
    print("\n".join(forecast_report.lines(result, limit, realized)))
    print(f"{rollout_summary.summary_line(summary, total_s)}; {run_folder.told(output, 'fan.png', config.picture)}")
    cut = summary["exceeded"]["truncated_lists"]
    if config.trace and cut:
        problems.append(f"the trades of {cut} orders are cut in the trace: raise config.trade_width")
    return launcher.finish(problems + rollout_summary.problems(summary))


def _where(config: ConfigDict) -> Where:
    """The market, the day that is read (none: the noise agent makes one), and the time of the start."""
    where = markets.where(config, futures.ACCOUNT + 1)
    check_time(where.market.session, where.time_ns, config.minutes)
    if len(where.feeds) > 1:
        raise InputError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in where.feeds)}")
    return where


def _run(config: ConfigDict, market: MarketSpec, prepared: PreparedModel, spec: FuturesSpec, at: ForecastStart,
         folder: Path) -> Rollout:
    """The futures, with their trace in the folder if it is asked for."""
    where = Path(config.save_folder) if config.save_folder else folder
    trace = TraceFiles(where, market, config.prices) if config.trace else None
    saving = Saving(config.save_folder, config.save_every_s, trace) if config.save_folder else None
    (run,) = futures.simulate(prepared, market, spec, [at.start], on_trace=trace, saving=saving,
                              watch=setup.watching())
    if trace and saving:
        trace.copy_to(folder)
    if trace and config.tables == table_files.PARQUET:
        for name in trace.names():
            table_files.as_parquet(folder, name)
    return run


def _write_tables(config: ConfigDict, market: MarketSpec, start_ns: int, run: Rollout, labels: np.ndarray, folder: Path
                  ) -> None:
    """A row a trajectory, and a row a minute of each."""
    by_label, by_minute = forecasts.label_table(run, labels, market, start_ns), forecasts.minute_table(
        run, market, start_ns, config.prices)
    table_files.write_table(folder, "labels", by_label, config.tables)
    table_files.write_table(folder, "minutes", by_minute, config.tables, ".csv.gz")


def _check_saving(config: ConfigDict) -> None:
    """Before anything takes time: whether states can be kept where the config says, by this run alone."""
    if config.save_folder:
        with setup.named("config.save_every_s"):
            Saving(config.save_folder, config.save_every_s)
        with setup.named("config.save_folder"), SavedStates(config.save_folder):
            pass


if __name__ == "__main__":
    launcher.run("forecast", main)
