"""Forecasts by rollouts of an order model; the config says from where: configs/forecast.py."""

import time
from pathlib import Path

from ml_collections import ConfigDict

from marsjax.analysis import forecast, forecast_report
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.experiments import forecast_evaluation, launcher, setup
from marsjax.experiments.run_folder import output_folder, write_json
from marsjax.experiments.trace_files import TraceFiles
from marsjax.sim.rollout import Saving
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
    market, spec, labels_spec = (setup.market_spec(config), setup.spec_of(FuturesSpec, config),
                                 setup.spec_of(LabelSpec, config))
    start_ns = setup.noise_market(config).end_ns if config.source == "noise" else setup.time_ns(config, "time")
    check_time(market.session, start_ns, config.minutes)
    with output_folder(config.output, config.overwrite) as folder:
        prepared = setup.load_order_model(config)
        print(order_model.headline(prepared, config.model), flush=True)
        at = _start(config, market, prepared, start_ns)
        facts = forecasts.describe(market, at)
        print(f"{at.name} at {facts['time']}: mid {facts['mid'] / 10_000:g}, {facts['bids']} bids and {facts['asks']} "
              f"asks rest, the model sees {facts['orders_seen']} orders", flush=True)
        limit = threshold(labels_spec, market.session, at.past, 0, start_ns)
        prepared_s = time.perf_counter() - began
        saving = Saving(config.save_folder, config.save_every_s) if config.save_folder else None
        (run,) = futures.simulate(prepared, market, spec, [at.start], on_trace=TraceFiles(folder) if config.trace
                                 else None, saving=saving)
        labels = rollout_summary.labels(run)
        result = forecast.distribution(labels, limit, config.quantiles)
        summary = rollout_summary.summarize([run], [at.start])
        realized = forecasts.realized(at, config.minutes, limit)
        forecasts.label_table(run, labels).to_csv(folder / "labels.csv", index=False)
        forecast.minute_table(run.bars).to_csv(folder / "minutes.csv.gz", index=False)
        if config.picture:
            forecasts.fan(at, run, config.minutes, Path(config.model).name).savefig(folder / "fan.png", dpi=110)
        total_s = time.perf_counter() - began
        write_json(folder / "metrics.json", {
            "forecast": forecast_report.record(result), "threshold": limit, "realized": realized, "start": facts,
            "rollouts": summary, "seconds": {"prepared": prepared_s, "total": total_s},
            **setup.about(config, prepared)})
    print("\n".join(forecast_report.lines(result, limit, realized)))
    print(f"{rollout_summary.summary_line(summary, total_s)}; results in {config.output}")
    problems, cut = rollout_summary.problems(summary), summary["exceeded"]["truncated_lists"]
    if config.trace and cut:
        problems.append(f"the trades of {cut} orders are cut in the trace: raise config.trade_width")
    return launcher.finish(problems)


def _start(config: ConfigDict, market: MarketSpec, prepared: PreparedModel, start_ns: int) -> ForecastStart:
    """The state of the one market that the config names."""
    feeds = setup.open_noise_or_days(config, market)
    if len(feeds) > 1:
        raise InputError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in feeds)}")
    minutes = 0 if config.source == "noise" else config.minutes
    return forecasts.read_start(market, prepared, feeds[0], start_ns, minutes)


if __name__ == "__main__":
    launcher.run("forecast", main)
