"""Controlled futures, beside uncontrolled ones of the same numbers; the config says which: configs/control.py."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.experiments import control_target, launcher, markets, run_folder, setup, table_files
from marsjax.experiments.control_target import ControlTarget
from marsjax.experiments.markets import Where
from marsjax.experiments.run_folder import write_json
from marsjax.sim.control import ControlModels, ControlSpec
from marsjax.studies import (
    control,
    control_comparison,
    control_models,
    control_report,
    executions,
    forecasts,
    futures,
    order_model,
    rollout_summary,
)
from marsjax.studies.control_comparison import Comparison, ControlledExecution, Point
from marsjax.studies.executions import StrategySpec
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import check_time, spell

_KEYS = {"ControlSpec.": "", "RolloutSpec.": ""}
"""Beginnings of keys of the config by records whose fields they are (`setup.keyed`)."""


def main(config: ConfigDict) -> int:
    """Runs controlled futures; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    spec, how = setup.spec_of(FuturesSpec, config), _control(config)
    table_files.check_form(config.tables)
    execution = _execution(config)
    _check_sweep(config)
    control_target.check(config, how)
    where = _where(config, execution)
    if execution:
        with setup.named(f"config, keys of {config.execute} and config.minutes = {config.minutes}"):
            control_comparison.strategy_of(execution, spec, where.time_ns)
    prepared = setup.load_order_model(config)
    models = _models(config, how, prepared)
    output = run_folder.of_config(config, f"control_{config.source}")
    with output as folder:
        print(order_model.headline(prepared, config.model), flush=True)
        if where.goes_on:
            prepared = setup.adapted(config, prepared, where.market, where.feeds[0], where.time_ns)
        at = markets.start_of(config, prepared, where)
        _, problems = markets.refused(at.name, at.refused)
        facts = forecasts.describe(where.market, at)
        wanted = control_target.wanted(config, how, at)
        print(f"{at.name} at {facts['time']}: mid {facts['mid'] * float(where.market.units.price):g}, "
              f"{facts['bids']} bids and {facts['asks']} asks rest; wanted: {wanted.words}", flush=True)
        if models:
            models = control_models.with_past(models, where.market, markets.feed_of(config, where), where.time_ns)
        place = control.ControlledMarket(prepared, where.market, at.start, models=models)
        with setup.keyed(_KEYS):
            found = control_comparison.compare(place, spec, how, wanted.guide, at.time_ns, execution,
                                               config.realism, setup.watching())
        record, said, given_up = _written(config, folder, _Made(place, spec, how, wanted, found, at))
        runs = [kind.run.rollout for kind in found.kinds]
        summary = rollout_summary.summarize(runs, [at.start] * len(runs))
        total_s = time.perf_counter() - began
        write_json(folder / "results.json", record | {
            "wanted": wanted.words, "start": facts, "rollouts": summary, "seconds": total_s,
            "control_models": control_models.describe(models) if models else None,
            **setup.about(config, prepared)})
    print("\n".join(said))
    print(f"{rollout_summary.summary_line(summary, total_s)}; "
          f"{run_folder.told(output, 'control.png', config.picture)}")
    return launcher.finish(problems + rollout_summary.problems(summary) + control_report.problems(found) + given_up)


class _Made(NamedTuple):
    """What was asked for, and what came of it."""

    place: control.ControlledMarket
    spec: FuturesSpec
    how: ControlSpec
    wanted: ControlTarget
    found: Comparison
    at: ForecastStart


def _written(config: ConfigDict, folder: Path, made: _Made) -> tuple[dict[str, Any], list[str], list[str]]:
    """Writes tables and picture; the record of the results, the lines to be shown, and what was given up."""
    found, at, market, form = made.found, made.at, made.place.market, config.tables
    by_interval = control_report.intervals(found, market, at.time_ns, config.minutes)
    table_files.write_table(folder, "intervals", by_interval, form)
    table_files.write_table(folder, "features", control.feature_table(
        control.ControlStudy(found.guide, found.controlled.run, found.free.run), at.time_ns), form)
    table_files.write_table(folder, "minutes", control_report.minutes(found, market, at.time_ns, config.prices), form,
                            ".csv.gz")
    cost = control_report.realism(found, config.seed)
    table_files.write_table(folder, "realism", cost, form)
    record = control_report.record(found) | {"realism": cost.to_dict("records")}
    said = control_report.lines(found, cost)
    if config.picture:
        title = f"{at.name} from {spell(at.time_ns)}, order model {Path(config.model).name}: {made.wanted.words}"
        control_report.picture(found, at, config.minutes, title).savefig(folder / "control.png", dpi=110)
    points, given_up = _swept(config, made)
    if points:
        table = control_report.sweep_table(found, points)
        table_files.write_table(folder, "sweep", table, form)
        record["sweep"] = table.to_dict("records")
        said += ["sweep:", table.to_string(index=False, float_format=lambda x: f"{x:.3g}")]
    return record, said, given_up


def _swept(config: ConfigDict, made: _Made) -> tuple[list[Point], list[str]]:
    """The points of the sweep up to one that was given up, and why it was."""
    counts, points = [count for count in config.counts if count], list[Point]()
    if len(config.strengths) < 2 and not counts:
        return [], []
    try:
        with setup.keyed(_KEYS):
            for point in control_comparison.sweep(made.place, made.spec, made.how, made.found.guide, config.strengths,
                                                  counts, setup.watching()):
                points.append(point)
    except InputError as error:  # what was run before is not to be lost
        return points, [f"sweep: given up after {len(points)} of {len(config.strengths) + len(counts)} runs: {error}"]
    return points, []


def _control(config: ConfigDict) -> ControlSpec:
    if not config.strengths:
        raise InputError("config.strengths: expected a number at least, got none")
    specs = [setup.spec_of(ControlSpec, config, strength=strength) for strength in config.strengths]
    island = specs[0].island
    if island and config.way != "batch" and config.trajectories % island:
        raise InputError(f"config.island: expected a number that divides config.trajectories, {config.trajectories}, "
                         f"got {island}")
    if not specs[0].strength:
        raise InputError("config.strengths: expected the first one above 0, which is shown, got 0.0")
    if len(specs) > 1 and config.way == "batch":
        raise InputError("config.strengths: expected one with way=batch, where which batch is nearest, and so all, is "
                         f"the same for each, got {len(specs)}")
    return specs[0]


def _models(config: ConfigDict, how: ControlSpec, prepared: PreparedModel) -> ControlModels | None:
    """What leads the futures, where the config has them led."""
    if not how.is_led:
        return None
    models, _ = control_models.load(config.model, prepared)
    with setup.keyed(_KEYS):
        models.check(how.every_s, config.trajectories)
    if config.minutes * 60 % how.every_s:
        raise InputError(f"config.minutes: expected whole intervals of config.every_s, {how.every_s} s, where futures "
                         f"are led (way), got {config.minutes}")
    return models


def _check_sweep(config: ConfigDict) -> None:
    for count in config.counts:
        limits.check_whole("config.counts", count, 0, limits.TRAJECTORIES)
        if config.island and config.way != "batch" and count % config.island:
            raise InputError(f"config.counts: expected multiples of config.island, {config.island}, got {count}")


def _execution(config: ConfigDict) -> ControlledExecution | None:
    """The execution that the config names, if it names one."""
    if not config.execute:
        return None
    if config.execute not in executions.STRATEGIES:
        raise InputError(f"config.execute: expected {', '.join(executions.STRATEGIES)} or nothing, got "
                         f"{config.execute!r}")
    strategy = setup.spec_of(StrategySpec, config, strategy=config.execute)
    return setup.spec_of(ControlledExecution, config, strategy=strategy)


def _where(config: ConfigDict, execution: ControlledExecution | None) -> Where:
    """The market, the day that is read (none: the noise agent makes one), and the time of the start."""
    where = markets.where(config, (executions.EXECUTOR if execution else futures.ACCOUNT) + 1)
    check_time(where.market.session, where.time_ns, config.minutes)
    if len(where.feeds) > 1:
        raise InputError(f"config.symbol, config.date: expected one day of one symbol, got {config.symbol!r} and "
                         f"{config.date!r}: {', '.join(each.name for each in where.feeds)}")
    if config.replay and not where.goes_on:
        raise InputError(f"config.replay: expected a real day, of which it is known what came, got {config.source}")
    return where


if __name__ == "__main__":
    launcher.run("control", main)
