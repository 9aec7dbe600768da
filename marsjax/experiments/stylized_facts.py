"""Cont's eleven stylized facts of minute bars: tables, figures and verdicts. The config: configs/stylized_facts.py."""

import dataclasses
import time
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import bars, fact_plots, panel, rollout_info, stylized_facts, verdicts
from marsjax.analysis.bars import MinuteBars
from marsjax.checkpoint import downloads
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.data import made_days, sources
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import bars as made_bars
from marsjax.studies import futures, order_model
from marsjax.studies.bars import Gathered
from marsjax.studies.futures import FuturesSpec

MADE = "default"
"""The source that is the days which come with the order model."""
_FILES = ("bars", "rollout_info")


def main(config: ConfigDict) -> int:
    """Writes the report; returns 0, or INCOMPLETE with the reasons on stderr."""
    began = time.perf_counter()
    setup.at_least(config, "resamples", 2, limits.RESAMPLES)
    setup.at_least(config, "seed", 0, limits.SEED)
    setup.at_least(config, "minutes", 0, limits.MINUTES)
    output = run_folder.of_config(config, f"stylized_facts_{config.source}")
    # Files are looked at before the output; what is simulated comes after it, as it takes time.
    read = gather(config) if config.source in _FILES else None
    with output as folder:
        gathered = read or gather(config)
        minutes = config.minutes or panel.usual_minutes(gathered.bars)
        rollouts, left_out = panel.dense(gathered.bars, minutes)
        if not left_out.kept:
            raise InputError("; ".join(left_out.lines()) + f": expected complete rollouts of {minutes} minutes")
        if config.source not in _FILES:
            bars.write(folder / "bars.csv.gz", gathered.bars)
        tables = stylized_facts.tables(rollouts)
        found = verdicts.judge(rollouts, config.seed, config.resamples)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        pd.DataFrame([dataclasses.asdict(row) for row in left_out.rollouts],
                     columns=["source", "symbol", "rollout", "reason"]).to_csv(folder / "excluded.csv", index=False)
        for fact in fact_plots.FACTS if config.pictures else ():
            fact_plots.figure(fact, tables).savefig(folder / f"fact_{fact:02d}.png", dpi=110)
        if config.pictures:
            fact_plots.all_facts(tables, found).savefig(folder / "facts.png", dpi=110)
        lines, answers = verdicts.table_lines(found), verdicts.counts(found)
        (folder / "verdicts.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        seconds = time.perf_counter() - began
        write_json(folder / "verdicts.json", {
            "verdicts": [dataclasses.asdict(verdict) | {"answer": str(verdict.answer)} for verdict in found],
            "answers": answers, "rollouts": left_out.kept, "minutes": minutes, "excluded": left_out.counts(),
            "decay_exponents": stylized_facts.decay_exponents(tables["cont6"]), "input": gathered.about,
            "seconds": round(seconds, 3), **setup.about(config)})
    print("\n".join([*left_out.lines(), *lines]))
    for source, counts in answers.items():
        print(f"{source}: " + ", ".join(f"{count} {answer}" for answer, count in counts.items()))
    print(f"paper: 9 present in both, 3 and 9 absent; intervals of 95%, margins in verdicts.json; {seconds:.1f} s; "
          + run_folder.told(output, "facts.png", config.pictures))
    return launcher.finish(gathered.problems)


def gather(config: ConfigDict) -> Gathered:
    """The bars that a config names; InputError or OSError where there are none."""
    readers = {MADE: _made, "bars": _files, "rollout_info": _archive, "noise": _noise,
               **dict.fromkeys(sources.names(), _days)}
    if config.source not in readers:
        raise InputError(f"config.source: expected {', '.join(readers)}, got {config.source!r}")
    return readers[config.source](config)


def _paths(config: ConfigDict) -> list[str]:
    if not config.file:
        raise InputError(f"config.file: expected a path, or several joined by + ({config.source},file=PATH), got ''")
    return str(config.file).split("+")


def _files(config: ConfigDict) -> Gathered:
    parts = {path: bars.read(path) for path in _paths(config)}
    return Gathered(bars.join(list(parts.values())), {"rows": {path: len(part) for path, part in parts.items()}}, [])


def _archive(config: ConfigDict) -> Gathered:
    """Of the files that are named, or else of those that `marsjax download` has fetched."""
    paths = _paths(config) if config.file else list(map(str, downloads.facts_files()))
    if not paths:
        raise InputError("config.file: expected the archive (rollout_info,file=PATH), got '', and none was downloaded "
                         "(marsjax download)")
    parts, empty = zip(*[rollout_info.read(path, config.pickle_module) for path in paths], strict=True)
    problems = [f"{sum(empty)} entries of the archive are empty, not part of any number"] if sum(empty) else []
    return Gathered(bars.join(parts), {"empty_entries": sum(empty)}, problems)


def _days(config: ConfigDict) -> Gathered:
    """Stretches of real days; with `config.trajectories` also futures of an order model from their beginnings."""
    groups = markets.groups(config, markets.open_feeds(config), futures.ACCOUNT + 1)
    prepared = setup.load_order_model(config) if config.trajectories else None
    about: dict[str, Any] = {"days": [feed.name for group in groups for feed in group.feeds], "feeds": {}}
    parts: list[MinuteBars] = []
    problems: list[str] = []
    for group in groups:
        real = made_bars.replayed(group.market, group.feeds, config.minutes, config.chunk_orders)
        parts += real.bars
        for name, refusals in real.refused.items():
            about["feeds"][name], lost = markets.refused(name, refusals)
            problems += lost
        if prepared:
            made = made_bars.of_days(group.market, prepared, _futures_spec(config), group.feeds, config.minutes,
                                     setup.watching())
            parts.append(made.bars)
            about |= _about(config, made, prepared)
            problems += made.problems
    return Gathered(bars.join(bars.numbered_on(parts)), about, problems)


def _made(config: ConfigDict) -> Gathered:
    """Futures from every day that comes with the order model, each a symbol."""
    prepared, parts, about, problems = setup.load_order_model(config), [], dict[str, Any](), []
    for name in made_days.NAMES:
        day = markets.made_day(config, name)
        market = markets.one_market(config, [day.feed], futures.ACCOUNT + 1)
        made = made_bars.of_times(market, prepared, _futures_spec(config), [(day.feed, [day.start_ns])],
                                  setup.watching())
        parts.append(made.bars)
        about[name] = made.about
        problems += made.problems
    return Gathered(bars.join(parts), {"days": about, "model": _model(config, prepared)}, problems)


def _noise(config: ConfigDict) -> Gathered:
    prepared = setup.load_order_model(config)
    made = made_bars.of_noise(markets.noise_spec(config, futures.ACCOUNT + 1), prepared, _futures_spec(config),
                              setup.noise_market(config), setup.at_least(config, "markets", 1), setup.watching())
    return made._replace(about=_about(config, made, prepared))


def _futures_spec(config: ConfigDict) -> FuturesSpec:
    """Times are rounded to minutes, the first of which is half as long: one minute less to simulate than bars."""
    return setup.spec_of(FuturesSpec, config, minutes=config.minutes - 1, nearest_minutes=True)


def _about(config: ConfigDict, made: Gathered, prepared: order_model.PreparedModel) -> dict[str, Any]:
    return made.about | {"model": _model(config, prepared)}


def _model(config: ConfigDict, prepared: order_model.PreparedModel) -> dict[str, Any]:
    return order_model.describe(prepared, config.model, config.revision)


if __name__ == "__main__":
    launcher.run("stylized_facts", main)
