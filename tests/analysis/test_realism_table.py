"""The table of realism: history is its own equal, lost trajectories are left out, and its text says the same."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import quantities, realism, realism_report, realism_table
from marsjax.analysis.quantities import MINUTE_NS, OrderEvents
from marsjax.analysis.realism_table import Compared, Key
from marsjax.core.records import Kind
from marsjax.core.times import SECOND_NS


def check_table(table: pd.DataFrame) -> None:
    """Laws of any table of two markets."""
    known = table.dropna(subset=["similarity"])
    assert known["similarity"].between(0, 1).all() and table["floor"].dropna().between(0, 1).all()
    assert (known["similarity_low"] <= known["similarity"]).all()
    assert (known["similarity"] <= known["similarity_high"]).all()
    keys = ["of", "quantity", "minute"]
    mean = table[table["market"] == "mean"].set_index(keys)
    for name in ("similarity", "ceiling", "floor", "wasserstein", "accuracy"):
        expected = table[table["market"] != "mean"].groupby(keys)[name].mean()
        np.testing.assert_allclose(mean[name], expected.reindex(mean.index))
    assert mean.loc[("minute", "return_1", 0), "paper_similarity"] == 0.956
    assert mean.loc[("order", "spread", 0)].isna()["paper_similarity"]
    assert {quantity for _, quantity, _ in mean.index} == ({*quantities.OF_STRETCHES, *quantities.OF_ORDERS}
                                                           - {"return_3", "return_4", "return_5"})


def events(seed: int, mids: float = 100.0) -> OrderEvents:
    """Twenty minutes of random orders from 9:30 on."""
    rng, n = np.random.default_rng(seed), 2000
    time_ns = 34_200 * SECOND_NS + np.sort(rng.integers(0, 20 * MINUTE_NS, n))
    mid = mids + np.cumsum(rng.normal(size=n + 1)) / 50
    kind = rng.integers(0, 3, n)
    return OrderEvents(
        time_ns=time_ns, kind=kind, price=mid[1:], volume=100 * rng.integers(1, 50, n),
        traded=100 * rng.integers(0, 2, n),
        mid_before=mid[:-1], mid_after=mid[1:], spread=rng.normal(size=n), ask_volume=rng.integers(1, 900, n),
        bid_volume=rng.integers(1, 900, n), lifetime_ns=np.where(kind == Kind.CANCEL, rng.integers(0, 10**12, n), -1))


def compare(history: OrderEvents, simulated: OrderEvents, noise: OrderEvents, lost: int = 0) -> pd.DataFrame:
    """Five starts of two minutes from 9:40 on, three trajectories each."""
    begins = [34_800 * SECOND_NS + 2 * minute * MINUTE_NS for minute in range(5)]
    before = {length: np.arange(34_200, 34_800 - 60 * length + 1, 60) * SECOND_NS for length in (1, 2)}
    fixed = realism_table.fix(history, before, 2)
    real = [quantities.of_stretch(history, t, 2) for t in begins]
    nothing = dict.fromkeys(quantities.OF_STRETCHES, np.nan)
    made = [[realism_table.values(simulated, t, 2)] * (3 - lost) for t in begins]
    foretold = [[quantities.of_stretch(simulated, t, 2)] * (3 - lost) + [nothing] * lost for t in begins]
    past, floor = ([realism_table.values(one, t, 2) for t in begins] for one in (history, noise))
    one = Compared("A", fixed, past, made, past, floor, past, real, foretold, 3)
    return realism_table.table([one, dataclasses.replace(one, market="B")], 2, 0, 50)


def test_history_is_its_own_equal_and_lost_trajectories_are_left_out() -> None:
    own = compare(events(0), events(0), events(1))
    check_table(own)
    own = own.dropna(subset=["similarity"])
    np.testing.assert_allclose(own["similarity"], 1)
    np.testing.assert_allclose(own["wasserstein"].dropna(), 0, atol=1e-9)
    np.testing.assert_allclose(own["accuracy"].dropna(), 1)
    some, none = compare(events(0), events(1), events(1), lost=1), compare(events(0), events(1), events(1), lost=3)
    whole = some[some["minute"] == 0]
    np.testing.assert_allclose(whole["similarity"], whole["floor"])  # the noise is that simulated, twice over
    np.testing.assert_allclose(whole["earlier"], 1)  # history itself
    pd.testing.assert_series_equal(some["accuracy"], compare(events(0), events(1), events(1))["accuracy"])
    assert none["similarity"].isna().all() and none["accuracy"].isna().all() and none["floor"].notna().all()


def test_samples_of_one_value_or_one_start_have_no_figures_but_words() -> None:
    whole, other = events(0), events(1)
    flat = dataclasses.replace(whole, mid_before=np.full(2000, 100.0), mid_after=np.full(2000, 100.0))
    found = compare(flat, flat, other)
    rows = found[(found["of"] == "minute") & found["quantity"].isin(("return_1", "volatility"))]
    assert rows[["similarity", "similarity_low", "ceiling", "wasserstein", "accuracy", "floor"]].isna().all(axis=None)
    single = rows[rows["market"] != "mean"]
    assert len(single) > 4 and set(single["note"]) == {"constant: history has the one value 0"}
    said = [line for line in realism_report.lines(found) if line.startswith("minutes: return_1: ")]
    assert said == ["minutes: return_1: without A, B (constant: history has the one value 0)"]

    one = compare(whole, flat, other)
    rows = one[(one["market"] == "A") & (one["quantity"] == "return_1") & (one["minute"] == 0)].iloc[0]
    assert rows["note"] == "constant: what was simulated has the one value 0" and np.isnan(rows["similarity"])
    assert rows["floor"] > 0 and rows["ceiling"] > 0
    one = realism.sample([[1.0, 2.0], []])
    assert realism.too_few("it", one) == "too few: it has values after 1 start, expected 2 at least"
    assert not realism.too_few("it", realism.sample([[1.0], [2.0]]))


def test_returns_over_minutes_begin_on_each_whole_one() -> None:
    one, begin = events(2), 34_800 * SECOND_NS
    found = realism_table.values(one, begin, 5)
    mids = np.exp(np.cumsum([0, *found[Key("minute", "return_1", 0)]]))
    for length in (2, 5):
        np.testing.assert_allclose(found[Key("minute", f"return_{length}", 0)], np.log(mids[length:] / mids[:-length]))
    stretch = quantities.of_stretch(one, begin, 5)
    assert found[Key("minute", "return_5", 0)] == pytest.approx([stretch["return_5"]])
    np.testing.assert_array_equal(found[Key("minute", "buy_ratio", 0)][3:4], found[Key("minute", "buy_ratio", 4)])


def test_ceilings_by_weights_are_those_of_drawn_samples() -> None:
    rng = np.random.default_rng(0)
    history = realism.sample(list(rng.normal(size=(6, 1)) + rng.normal(size=(6, 15))))
    edges = realism.quantile_edges(rng.normal(size=500))
    slow = realism.ceiling(lambda a, b: realism.similarity(a, b, edges), history, (2, 40), 1, 400)
    np.testing.assert_allclose(realism.similarity_ceiling(history, edges, (2, 40), 2, 400)[0], slow[0], atol=0.02)
    slow = realism.ceiling(lambda a, b: realism.wasserstein(a, b, 2.0), history, (2, 40), 1, 400)
    np.testing.assert_allclose(realism.wasserstein_ceiling(history, 2.0, (2, 40), 2, 400)[0], slow[0], rtol=0.1)


def test_a_card_has_one_section_on_realism() -> None:
    card = "# A model\n\nWhat it is good for.\n"
    first, second = compare(events(0), events(1), events(1)), compare(events(0), events(0), events(1))
    written = realism_report.with_section(card, first)
    assert written.startswith(card) and written.count("## Realism") == 1
    mean = second[(second["market"] == "mean") & (second["minute"] == 0) & (second["of"] == "order")]
    again = realism_report.with_section(written, second)
    assert again == realism_report.with_section(card, second) != written
    low, ceiling = mean.set_index("quantity").loc["spread", ["similarity_low", "ceiling"]]
    assert f"| orders | spread | 1.000 [{low:.3f}, 1.000] | {ceiling:.3f} | 1.000 | " in again
