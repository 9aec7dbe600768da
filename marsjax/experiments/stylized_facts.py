"""Cont's eleven stylized facts of minute bars: tables, figures and verdicts. The config: configs/stylized_facts.py."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict

from marsjax.analysis import fact_plots, panel, stylized_facts, verdicts
from marsjax.analysis.panel import Exclusions
from marsjax.analysis.verdicts import Answer, Verdict
from marsjax.experiments import bar_sources, launcher, markets
from marsjax.experiments.futures import NOT_WHOLE
from marsjax.experiments.output import output_folder, write_json

_FILES = ("bars", "rollout_info")


def main(config: ConfigDict) -> int:
    """Writes the report; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    with output_folder(config.output, config.overwrite) as folder:
        gathered = bar_sources.gather(config)
        rollouts, left_out = panel.dense(gathered.bars, config.minutes)
        if not left_out.kept:
            raise ValueError("; ".join(left_out.lines()) + f": expected rollouts of {config.minutes} whole minutes")
        if config.source not in _FILES:
            bar_sources.save(gathered.bars, folder)
        tables = stylized_facts.tables(rollouts)
        found = verdicts.judge(rollouts, config.seed, config.resamples)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        pd.DataFrame([dataclasses.asdict(row) for row in left_out.rollouts],
                     columns=["source", "symbol", "rollout", "reason"]).to_csv(folder / "excluded.csv", index=False)
        if config.pictures:
            _draw(folder, tables)
        lines = verdicts.table_lines(found)
        (folder / "verdicts.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_json(folder / "verdicts.json", {
            "verdicts": [dataclasses.asdict(verdict) | {"answer": str(verdict.answer)} for verdict in found],
            "answers": _answers(found),
            "rollouts": left_out.kept, "excluded": left_out.counts(),
            "decay_exponents": stylized_facts.decay_exponents(tables["cont6"]), "input": gathered.about,
            "seconds": round(time.perf_counter() - began, 3), **markets.environment(), "config": config})
    _print(config, left_out, lines, found, time.perf_counter() - began)
    print("\n".join(gathered.complaints), file=sys.stderr, end="\n" if gathered.complaints else "")
    return NOT_WHOLE if gathered.complaints else 0


def _draw(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    for fact in fact_plots.FACTS:
        fact_plots.figure(fact, tables).savefig(folder / f"fact_{fact:02d}.png", dpi=110)


def _answers(found: list[Verdict]) -> dict[str, dict[str, int]]:
    """Source -> answer -> facts."""
    return {source: {answer.value: sum(x.answer == answer for x in found if x.source == source) for answer in Answer}
            for source in sorted({x.source for x in found})}


def _print(config: ConfigDict, left_out: Exclusions, lines: list[str], found: list[Verdict], seconds: float) -> None:
    print("\n".join([*left_out.lines(), *lines]))
    counts: dict[str, Any] = _answers(found)
    for source, answers in counts.items():
        print(f"{source}: " + ", ".join(f"{count} {answer}" for answer, count in answers.items()))
    print(f"paper: 9 present in both, 3 and 9 absent; intervals of 95%, margins in verdicts.json; {seconds:.1f} s; "
          f"results in {Path(config.output)}")


if __name__ == "__main__":
    launcher.run("stylized_facts", main)
