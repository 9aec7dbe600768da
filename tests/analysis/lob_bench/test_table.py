"""The table of LOB-Bench: equal sources are 0 apart, figures have others beside them, or words in their place."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis.lob_bench import report, statistics, table
from marsjax.analysis.lob_bench.discriminator import DiscriminatorSpec
from marsjax.analysis.lob_bench.table import Parts, Sources, TableSpec
from marsjax.core.times import SECOND_NS
from tests.analysis.lob_bench.made_up import BEGIN_NS, parts

SPEC = TableSpec(1, 20, discriminators={"changes": DiscriminatorSpec(window=16, channels=8, width=3, steps=150)})
NO_NETWORKS = dataclasses.replace(SPEC, discriminators={})
KEYS = ["section", "statistic", "measure", "minute"]


def sources(name: str, real: Parts, generated: Parts, **others: Parts) -> Sources:
    begins = [BEGIN_NS + k * 120 * SECOND_NS for k in range(len(real))]
    return Sources(name, real, generated, begins, 2, real, begins, others)


def beside(found: pd.DataFrame, market: str) -> pd.DataFrame:
    return found[found["market"] == market].set_index(KEYS)


def test_equal_sources_are_0_apart_and_shifted_ones_are_not() -> None:
    real, other = parts(1, count=600), parts(2, count=420, rate=1.0)
    same = beside(table.table([sources("A", real, real, floor=other)], NO_NETWORKS), "A")
    whole = same.xs(0, level="minute")
    assert len(whole) == 2 * (3 + 21 + 3) + 6 and not same["note"].any()
    np.testing.assert_allclose(whole["value"], 0, atol=1e-12)
    unconditional = whole.loc["unconditional"]
    assert (unconditional["ceiling"] > 0).all() and (unconditional["floor"] > 0).all()
    assert whole["earlier"].isna().all() and whole["other_day"].isna().all()
    minutes = [same.xs(minute, level="minute") for minute in (1, 2)]
    assert [len(rows) for rows in minutes] == [21, 21]
    assert (minutes[0]["value"] > 0).all()  # one of the two minutes against both
    spreads = [rows.loc[("unconditional", "spread", "l1"), "generated_values"] for rows in (*minutes, whole)]
    assert spreads[0] + spreads[1] == spreads[2] and spreads[0] > spreads[1] > 0

    apart = beside(table.table([sources("A", real, other, floor=other)], NO_NETWORKS), "A")
    figures = apart.xs(0, level="minute").loc[["unconditional", "conditional", "response"]]
    np.testing.assert_allclose(figures["value"], figures["floor"])
    # Six stretches of each may have no decile of volatility in common.
    assert figures["value"].notna().sum() >= len(figures) - 2
    assert (figures["value"].isna() == (figures["note"] != "")).all()
    figures = figures.dropna(subset=["value"])
    assert ((figures["low"] <= figures["value"]) & (figures["value"] <= figures["high"])).all()
    time = apart.loc["unconditional", "log_inter_arrival_time", "l1", 0]
    assert time["value"] > 3 * time["ceiling"]


def test_summaries_are_those_of_the_rows() -> None:
    found = beside(table.table([sources("A", parts(1), parts(2, sequences=2), earlier=parts(3))], NO_NETWORKS), "A")
    for measure in ("l1", "wasserstein"):
        some = found.loc["unconditional"].xs((measure, 0), level=("measure", "minute"))
        assert len(some) == 21
        for column in ("value", "ceiling", "earlier"):
            values = np.sort(some[column])
            got = {name: found.loc["summary", name, measure, 0][column]
                   for name in ("interquartile mean", "mean", "median")}
            # 21 values have their quartiles on the sixth and the sixteenth.
            assert got == pytest.approx({"interquartile mean": values[5:16].mean(), "mean": values.mean(),
                                         "median": np.median(values)})
        assert found.loc["summary", "mean", measure, 0]["low"] < found.loc["summary", "mean", measure, 0]["value"]


def test_the_order_of_starts_and_trajectories_changes_no_figure() -> None:
    real, generated = parts(1), parts(2, sequences=3)
    mixed = [list(reversed(sequences)) for sequences in generated]
    one, other = (beside(table.table([sources("A", real, some)], NO_NETWORKS), "A")["value"]
                  for some in (generated, mixed))
    pd.testing.assert_series_equal(one, other)


@pytest.mark.parametrize(("changes", "statistic", "expected"), [
    ({"blocks": 1}, "ofi", "too few: real has values in 1 stretches, expected 2 at least"),
    ({"count": 12}, "vol_per_min", "too few: real has "),
    ({"ask": [110] * 300, "bid": [100] * 300}, "spread", "constant: real has the one value 10"),
    ({"count": 90}, "ofi", "too few: real has values in 0 stretches, expected 2 at least"),
])
def test_what_a_sample_cannot_give_has_no_figure_but_words(changes: dict[str, Any], statistic: str, expected: str
                                                           ) -> None:
    generated = parts(2, **{name: value for name, value in changes.items() if name == "blocks"})
    found = table.table([sources("A", parts(1, **changes), generated)], SPEC)
    rows = beside(found, "A").sort_index().loc["unconditional", statistic]
    assert rows[["value", "low", "high", "ceiling"]].isna().all(axis=None)
    assert all(note.startswith(expected) for note in rows["note"])
    assert any(line.startswith(f"{statistic:<26} {expected}") for line in report.lines(found))


def test_one_start_gives_nothing_at_all() -> None:
    found = table.table([sources("A", parts(1, blocks=1), parts(2, blocks=1))], SPEC)
    assert found["value"].isna().all() and found["note"].ne("").all()
    assert set(found.loc[found["section"] == "summary", "note"]) == {"too few: no statistic has a value"}


def test_means_are_over_the_markets_that_have_a_figure_and_name_the_others() -> None:
    full = sources("A", parts(1), parts(2))
    flat = sources("B", parts(3, ask=[110] * 300, bid=[100] * 300), parts(4))
    found = table.table([full, sources("C", parts(5), parts(6)), flat], NO_NETWORKS)
    mean, a, c = (beside(found, name) for name in ("mean", "A", "C"))
    spread = mean.loc["unconditional", "spread", "l1", 0]
    rows = [one.loc["unconditional", "spread", "l1", 0] for one in (a, c)]
    assert spread["value"] == pytest.approx(np.mean([row["value"] for row in rows]))
    assert spread["note"] == "without B (constant: real has the one value 10)"
    away = np.hypot(*(row["high"] - row["value"] for row in rows)) / 2
    assert spread["high"] == pytest.approx(spread["value"] + away)
    touch = mean.loc["unconditional", "ask_volume_touch", "l1", 0]
    assert touch["note"] == "" and touch["real_values"] == 3 * 6 * 300
    assert len(found) == 4 * len(a)
    known = beside(found, "B").loc["unconditional"].xs(("l1", 0), level=("measure", "minute"))["value"].notna().sum()
    assert known < 21 and a.loc["summary", "mean", "l1", 0]["note"] == ""
    assert mean.loc["summary", "mean", "l1", 0]["note"] == f"of {known} statistics"
    assert {row["statistic"] for row in report.record(found)} >= {*statistics.UNCONDITIONAL, *statistics.CONDITIONAL}


def test_the_network_has_its_row_with_what_stands_beside_it() -> None:
    real, other = parts(1, count=420), parts(2, count=420)
    wild = [[dataclasses.replace(one, volume=one.volume * 50, rest=one.rest * 50) for one in some] for some in other]
    found = table.table([sources("A", real, other, floor=wild)], SPEC)
    row = beside(found, "A").loc["discriminator", "changes", "auc", 0]
    assert abs(row["value"] - 0.5) < 0.2 and abs(row["ceiling"] - 0.5) < 0.3 and row["floor"] > 0.95
    assert np.isnan(row["earlier"]) and row["real_values"] == 6 * (419 // 16)
    (line,) = [line for line in report.lines(found) if line.startswith("changes")]
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in line


def test_no_markets_and_bad_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="lob_bench: expected at least one market, got none"):
        table.table([], SPEC)
    with pytest.raises(ValueError, match=r"TableSpec.resamples: expected 2 at least, got 1"):
        TableSpec(resamples=1)
