"""Rollouts that are not whole are left out, named and counted; what is left is what would be there without them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import bars, panel
from marsjax.analysis.bars import MinuteBars
from marsjax.analysis.panel import Reason
from tests.helpers import fixture_folder

GOLDEN = bars.read(fixture_folder() / "stylized_facts" / "minutes.csv.gz").frame()
BAD = ("Replay", "000003", 2)
ROWS = np.flatnonzero((GOLDEN[["source", "symbol", "rollout"]] == BAD).all(axis=1))
Change = Callable[[pd.DataFrame], pd.DataFrame]


def put(column: str, value: Any, row: int = 9) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[ROWS[row], column] = value
        return table

    return change


def as_bars(table: pd.DataFrame) -> MinuteBars:
    return bars.from_frame(table)


CHANGES: dict[str, tuple[Reason, Change]] = {
    "twice": (Reason.DUPLICATE, lambda table: pd.concat([table, table.loc[ROWS[4:5]]])),
    "twice, not alike": (Reason.DUPLICATE, lambda table: pd.concat([table, table.loc[ROWS[4:5]].assign(volume=1.0)])),
    "gap": (Reason.GAP, lambda table: table.drop(ROWS[11])),
    "gap of 26 bars": (Reason.GAP, put("time", GOLDEN["time"][ROWS[25]] + pd.Timedelta("1min"), 25)),
    "fewer": (Reason.FEWER, lambda table: table.drop(ROWS[25])),
    "more": (Reason.MORE, lambda table: pd.concat([table, table.loc[ROWS[25:]].assign(
        time=lambda row: row["time"] + pd.Timedelta("1min"))])),
    "no price": (Reason.NO_PRICE, put("price_last", np.nan)),
    "price 0": (Reason.NO_PRICE, put("price_last", 0.0)),
    "price infinite": (Reason.NO_PRICE, put("price_last", np.inf)),
    "no volume": (Reason.NO_VOLUME, put("volume", np.nan)),
    "volume below 0": (Reason.NO_VOLUME, put("volume", -1.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bad_rollout_is_left_out_and_said_and_the_rest_is_as_without_it(name: str) -> None:
    reason, change = CHANGES[name]
    got, told = panel.dense(as_bars(change(GOLDEN)))
    assert [(x.source, x.symbol, x.rollout, x.reason) for x in told.rollouts] == [(*BAD, reason)]
    assert told.counts() == {"Replay": {str(reason): 1}} and told.kept == len(got.rollout) == 299
    assert told.lines() == ["299 rollouts; left out 1:", f"  Replay: 1 ({reason})"]
    without, clean = panel.dense(as_bars(GOLDEN.drop(ROWS)))
    assert clean.rollouts == () and clean.lines() == ["299 rollouts, none left out"]
    for field in ("source", "symbol", "rollout", "start", "price", "volume", "group", "first"):
        np.testing.assert_array_equal(getattr(got, field), getattr(without, field))


def test_a_symbol_whose_price_never_changes_is_left_out_in_that_source() -> None:
    flat = (GOLDEN["source"] == "Simulation") & (GOLDEN["symbol"] == "000007")
    got, told = panel.dense(as_bars(GOLDEN.assign(price_last=GOLDEN["price_last"].where(~flat, 10.0))))
    assert told.counts() == {"Simulation": {str(Reason.CONSTANT): 6}} and told.kept == 294
    assert "000007" not in got.of("Simulation").symbol and "000007" in got.of("Replay").symbol
    one = flat & (GOLDEN["rollout"] > 0)
    assert panel.dense(as_bars(GOLDEN.assign(price_last=GOLDEN["price_last"].where(~one, 10.0))))[1].kept == 300


def test_several_bad_rollouts_are_counted_apart() -> None:
    table = put("price_last", np.nan)(GOLDEN).drop(index=np.flatnonzero(GOLDEN["rollout"] == 5)[3])
    told = panel.dense(as_bars(table))[1]
    assert sum(sum(reasons.values()) for reasons in told.counts().values()) == len(told.rollouts) == 2
    assert told.kept == 298


def test_the_order_of_rows_does_not_matter() -> None:
    expected = panel.dense(as_bars(GOLDEN))[0]
    got = panel.dense(as_bars(GOLDEN.sample(frac=1, random_state=0)))[0]
    np.testing.assert_array_equal(got.price, expected.price)
    np.testing.assert_array_equal(got.symbol, expected.symbol)
    assert len(expected.first) == 50 and expected.group.tolist() == np.repeat(np.arange(50), 6).tolist()


def test_nothing_left_is_no_error_here() -> None:
    got, told = panel.dense(as_bars(GOLDEN), minutes=20)
    assert got.price.shape == (0, 20)
    assert told.counts() == {source: {str(Reason.MORE): 150} for source in ("Replay", "Simulation")}
    assert panel.dense(as_bars(GOLDEN[:0]))[1].kept == 0
    with pytest.raises(ValueError, match="expected at least 3 minutes a rollout, got 2"):
        panel.dense(as_bars(GOLDEN), minutes=2)


def test_the_usual_number_of_minutes_is_that_of_most_rollouts() -> None:
    def of(*counts: int) -> int:
        rows = [(number, minute) for number, count in enumerate(counts) for minute in range(count)]
        number, minute = np.array(rows, np.int64).reshape(-1, 2).T
        ones = np.ones(len(rows))
        time = np.datetime64("2024-01-02T09:30:00", "s") + minute * np.timedelta64(60, "s")
        names = [np.full(len(rows), name) for name in ("A", "S")]
        return panel.usual_minutes(MinuteBars(names[0], number, names[1], time, ones, ones, ones, ones, ones))

    assert (of(31, 31, 5), of(4, 5), of(1, 1, 2), of()) == (31, 5, panel.MINUTES, panel.MINUTES)
