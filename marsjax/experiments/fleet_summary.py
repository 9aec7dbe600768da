"""The summary of a fleet's states: tables beside them, and metrics.json."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import evaluation_table, impact_report, realism_report
from marsjax.core.errors import InputError
from marsjax.experiments import fleet_work, run_folder
from marsjax.studies.fleet import comparing, executing, forecasting, results
from marsjax.studies.fleet.ledger import Ledger
from marsjax.studies.session_times import MINUTE_NS


def write(config: ConfigDict, book: Ledger, about: Mapping[str, Any]) -> list[str]:
    """Writes tables and metrics.json of the states that are done; the lines to be shown.

    `about` is what else metrics.json holds. An InputError where the states allow no summary becomes its note.
    """
    of_study = {fleet_work.FORECAST: _forecast, fleet_work.MARKET_IMPACT: _impact, fleet_work.REALISM: _realism}
    try:
        tables, facts, lines = of_study[config.study](config, book)
    except InputError as error:
        tables, facts, lines = {}, {"note": str(error)}, [f"no summary: {error}"]
    for name, table in tables.items():
        run_folder.write_whole(book.folder / f"{name}.csv", table.to_csv(index=False))
    run_folder.write_whole(book.folder / "metrics.json", run_folder.json_text({**about, **facts, "config": config}))
    return lines


_Summary = tuple[dict[str, pd.DataFrame], dict[str, Any], list[str]]
"""Tables by name, what goes into the metrics, and lines to be shown."""


def _forecast(config: ConfigDict, book: Ledger) -> _Summary:
    table = forecasting.summary(results.each(book), config.quantiles)
    same_day = table["time_ns"].diff()[table["market"] == table["market"].shift()]
    between = same_day.min() if len(same_day) else config.minutes * MINUTE_NS
    overlap = int(-(-config.minutes * MINUTE_NS // between)) - 1
    scores = evaluation_table.scores(table, config.quantiles, config.probability_edges, overlap)
    return {"forecasts": table}, {"scores": scores}, evaluation_table.lines(scores)


def _impact(config: ConfigDict, book: Ledger) -> _Summary:
    report, baselines = executing.report(results.each(book), config.minutes, config.resamples, config.seed)
    rows, laws = report.rows(), report.laws()
    minutes = report.minutes(is_even=config.strategy in ("twap", "vwap"))
    tables = impact_report.tables(report, rows, minutes, baselines)
    facts = {"groups": rows, "power_law": {side: law._asdict() for side, law in laws.items()}}
    return tables, facts, impact_report.lines(rows, laws)


def _realism(config: ConfigDict, book: Ledger) -> _Summary:
    table = comparing.table(results.each(book), config.minutes, config.seed, config.resamples)
    return {"realism": table}, {"realism": realism_report.record(table)}, realism_report.lines(table)
