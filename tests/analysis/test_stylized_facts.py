"""Tables of stylized facts against a plain loop over the formulas, and laws that hold for any prices."""

import dataclasses
import functools
import math
import types

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import fact_plots, stylized_facts, verdicts
from marsjax.analysis.panel import Panel

SYMBOLS, ROLLOUTS, MINUTES = 3, 4, 13


@functools.cache
def panel(seed: int = 0) -> Panel:
    """Two sources of few, short rollouts; some jumps are over the limits of facts 2, 3 and 7."""
    rng = np.random.default_rng(seed)
    size = 2 * SYMBOLS * ROLLOUTS
    step = 0.01 * rng.standard_t(3, (size, MINUTES)) * rng.choice([1, 30], (size, MINUTES), p=[0.97, 0.03])
    return Panel(
        source=np.repeat(["Replay", "Simulation"], SYMBOLS * ROLLOUTS),
        symbol=np.tile(np.repeat([f"{i:06d}" for i in range(SYMBOLS)], ROLLOUTS), 2),
        rollout=np.tile(np.arange(ROLLOUTS), 2 * SYMBOLS),
        # Ten o'clock passes within most rollouts, and many share clock times.
        start=np.datetime64("2024-03-06T09:50", "m") + rng.integers(0, 9, size) + 1440 * rng.integers(0, 3, size),
        price=np.exp(10 + np.cumsum(step, axis=1)), volume=np.round(rng.lognormal(8, 1, (size, MINUTES))))


def r(one: Panel, row: int, i: int, dt: int) -> float:
    return math.log(one.price[row, i + dt] / one.price[row, i])


def pairs(one: Panel, rows: list[int], tau: int, dt: int = 1) -> list[tuple[int, int, int]]:
    last = one.price.shape[1] - 1
    return [(row, i, i + tau) for row in rows for i in range(1, last + 1)
            if i + dt <= last and 0 <= i + tau and i + tau + dt <= last]


def looped(one: Panel) -> dict[str, dict[tuple, float]]:
    """The formulas of the reference, a pair and a return at a time."""
    groups = {(s, y): [k for k in range(len(one.source)) if (one.source[k], one.symbol[k]) == (s, y)]
              for s, y in zip(one.source.tolist(), one.symbol.tolist(), strict=True)}
    found: dict[str, dict[tuple, float]] = {f"cont{n}": {} for n in (1, 2, 3, 5, 6, 7, 9, 10, 11)}

    def corr(x: list[float], y: list[float]) -> float:
        return pd.Series(x, dtype=float).corr(pd.Series(y, dtype=float))

    by_clock: dict[tuple, list[float]] = {}
    for dt in range(1, 21):
        for row, i, _ in pairs(one, list(range(len(one.source))), 0, dt):
            clock = (one.source[row], dt, str(one.start[row] + i)[11:])
            by_clock.setdefault(clock, []).append(r(one, row, i, dt))
    # Returns of half and more are no part of fact 7.
    deviation = {key: pd.Series([x for x in values if abs(x) < 0.5], dtype=float).std()
                 for key, values in by_clock.items()}
    for (source, symbol), rows in groups.items():
        for tau in range(1, 21):
            both = pairs(one, rows, tau)
            x, y = [r(one, k, i, 1) for k, i, _ in both], [r(one, k, j, 1) for k, _, j in both]
            size = [abs(v) for v in y]
            if tau <= 10:
                found["cont1"][source, tau, symbol] = corr(x, y)
            found["cont6"][source, tau, symbol] = corr([abs(v) for v in x], size)
            found["cont9"][source, tau, symbol] = corr(x, size)
            found["cont10"][source, tau, symbol] = corr([one.volume[k, i] for k, i, _ in both], size)
        for tau in range(-10, 11):
            both = pairs(one, rows, tau, 5)
            fine = [sum(abs(r(one, k, i + m, 1)) for m in range(5)) for k, i, _ in both]
            found["cont11"][source, tau, symbol] = corr(fine, [abs(r(one, k, j, 5)) for k, _, j in both])
        for dt in range(1, 21):
            returns = {(k, i): r(one, k, i, dt) for k, i, _ in pairs(one, rows, 0, dt)}
            heavy = {key: v for key, v in returns.items() if abs(v) < 0.5}
            found["cont2"][source, dt, symbol] = pd.Series(list(heavy.values()), dtype=float).kurt()
            found["cont3"][source, dt, symbol] = pd.Series([v for v in returns.values() if abs(v) < 0.05],
                                                           dtype=float).skew()
            scaled = [v / deviation[source, dt, str(one.start[k] + i)[11:]] for (k, i), v in heavy.items()]
            found["cont7"][source, dt, symbol] = pd.Series(scaled, dtype=float).kurt()
        size = {(k, i): abs(r(one, k, i, 1)) for k, i, _ in pairs(one, rows, 0)}
        limit = pd.Series(list(size.values())).quantile(0.99)
        hours: dict[str, int] = {}
        for (k, i), value in size.items():
            hour = str(one.start[k] + i)[:13]
            hours[hour] = hours.get(hour, 0) + int(value > limit)
        counts = pd.Series(list(hours.values()), dtype=float)
        found["cont5"][source, symbol] = counts.var() / counts.mean()
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_tables_equal_a_loop_over_the_formulas(seed: int) -> None:
    expected, got = looped(panel(seed)), stylized_facts.tables(panel(seed))
    for name, values in expected.items():
        keys = [column for column in got[name] if column in ("source", "lag", "delta_t", "symbol")]
        mine = got[name].set_index(keys)[got[name].columns[-1]]
        assert len(mine) == len(values) and mine.index.is_monotonic_increasing
        order = [values[key] for key in mine.index]
        np.testing.assert_allclose(mine, order, rtol=1e-9, atol=1e-12, err_msg=name)
        assert np.isfinite(order).sum() >= 5, name


def test_units_of_price_and_volume_do_not_matter() -> None:
    scaled = dataclasses.replace(panel(), price=panel().price * 7, volume=panel().volume * 3)
    for name, table in stylized_facts.tables(panel()).items():
        np.testing.assert_allclose(stylized_facts.tables(scaled)[name].iloc[:, -1], table.iloc[:, -1], atol=1e-7,
                                   err_msg=name)


def test_prices_upside_down_turn_skewness_and_leverage_and_nothing_else() -> None:
    upside_down = stylized_facts.tables(dataclasses.replace(panel(), price=1 / panel().price))
    for name, table in stylized_facts.tables(panel()).items():
        sign = -1 if name in ("cont3", "cont9") else 1
        np.testing.assert_allclose(upside_down[name].iloc[:, -1], sign * table.iloc[:, -1], atol=1e-7, err_msg=name)


def test_a_clock_time_with_equal_returns_makes_its_symbols_undefined() -> None:
    # Both rollouts rise by a tenth in minute 2, at one clock time: a deviation of zero, returns that are infinite.
    price = np.tile([1.0, 2.0, 4.0, 4.4, 8.8, 8.0, 9.0, 7.0], (2, 1))
    price[1, 5:] = [9, 11, 6]
    both = Panel(np.array(["Replay"] * 2), np.array(["A", "B"]), np.zeros(2, int),
                 np.full(2, np.datetime64("2024-01-02", "m")), price / 100 + 1, np.ones((2, 8)))
    assert stylized_facts.tables(both)["cont7"].query("delta_t == 1")["kurtosis"].isna().all()


def test_returns_as_large_as_the_quantile_are_not_extreme() -> None:
    """All returns are of one size but for one rise, which is above the 99% quantile of 60 only where it is alone."""
    price = np.where(np.arange(8) % 2, 2.0, 1.0) * np.ones((10, 1))
    one = Panel(np.full(10, "Replay"), np.full(10, "A"), np.arange(10),
                np.datetime64("2024-01-02", "m") + 60 * np.arange(10), price, np.ones((10, 8)))
    assert stylized_facts.fano(one)["mean_extreme_count"].tolist() == [0]
    price[3, 3:] *= 4
    assert stylized_facts.fano(one)["mean_extreme_count"].tolist() == [0.1]


def test_summaries_leave_out_what_is_undefined() -> None:
    table = pd.DataFrame({"source": "Replay", "lag": [1, 1, 1, 2], "symbol": list("ABCA"),
                          "corr": [0.1, 0.3, np.nan, np.inf]})
    got = stylized_facts.summary(table)
    assert got["symbols"].tolist() == [2, 0] and got["mean"][0] == pytest.approx(0.2) and np.isnan(got["mean"][1])
    assert got["high"][0] - got["mean"][0] == pytest.approx(1.96 * 0.1)


def test_the_exponent_of_a_power_law_comes_back() -> None:
    lags = np.arange(1, 21)
    table = pd.concat([pd.DataFrame({"source": source, "lag": lags, "symbol": "A", "corr": corr})
                       for source, corr in (("Replay", 0.4 * lags**-0.3), ("Simulation", np.cos(lags)))])
    assert stylized_facts.decay_exponents(table) == {"Replay": pytest.approx(0.3), "Simulation": None}


def test_no_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one rollout, got none"):
        stylized_facts.tables(panel().of("nowhere"))


@pytest.mark.parametrize("fact", fact_plots.FACTS)
def test_a_figure_has_every_source_with_its_means(fact: int) -> None:
    tables = stylized_facts.tables(panel())
    axes = fact_plots.figure(fact, tables).axes[0]
    assert axes.get_title().startswith(f"{fact}. ")
    if fact == 5:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["Replay", "Simulation"]
        return
    labels = axes.get_legend_handles_labels()[1]
    assert labels[:2] == ["Replay", "Simulation"] and len(labels) == (4 if fact == 11 else 2)
    name = {4: "cont2", 8: "cont6"}.get(fact, f"cont{fact}")
    means = stylized_facts.summary(tables[name]).query("source == 'Simulation'")["mean"]
    if fact == 8:
        return  # on a logarithmic axis: below
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), means)


def test_one_picture_has_all_facts_with_the_verdicts_of_each_source() -> None:
    rollouts = panel()
    answers = list(verdicts.Conclusion)
    found = [types.SimpleNamespace(fact=rule.fact, source=source, answer=answers[(rule.fact + i) % len(answers)])
             for i, source in enumerate(("Replay", "Simulation")) for rule in verdicts.RULES]
    *places, last = fact_plots.overview(stylized_facts.tables(rollouts), found).axes
    assert [axes.get_title(loc="left") for axes in places] == [f"{rule.fact}. {rule.name}" for rule in verdicts.RULES]
    said = [[text.get_text() for text in axes.texts] for axes in places]
    assert said == [[str(each.answer) for each in found if each.fact == fact] for fact in fact_plots.FACTS]
    assert {"Replay", "Simulation"} <= {text.get_text() for text in last.texts}


def test_a_logarithmic_axis_shows_means_above_its_foot_and_marks_the_others() -> None:
    tables = stylized_facts.tables(panel())
    axes = fact_plots.figure(8, tables).axes[0]
    rows = stylized_facts.summary(tables["cont6"]).query("source == 'Simulation'")
    means, is_above = rows["mean"].to_numpy(), rows["mean"].to_numpy() > 1e-3
    line = next(each for each in axes.containers if each.get_label() == "Simulation").lines[0]
    np.testing.assert_array_equal(line.get_ydata(), means[is_above])
    marked = [each for each in axes.lines if each.get_marker() == "v"]
    assert len(marked[1].get_ydata()) == (means <= 1e-3).sum() > 0 < is_above.sum()
    assert all(np.asarray(each.get_ydata(), float).min() >= 0.999e-3 for each in axes.lines if len(each.get_ydata()))
