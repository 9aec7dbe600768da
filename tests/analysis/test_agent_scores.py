"""What executions cost: by hand, and intervals against the spread of repeated experiments."""

import dataclasses

import numpy as np
import pytest

from marsjax.analysis import agent_plots, agent_scores
from marsjax.analysis.agent_scores import MEASURES, ComparedAgents, Executions
from marsjax.core.errors import InputError


def some(name="agent", seeds=3, episodes=40, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    numbers = {each: rng.normal(shift, 1, (seeds, episodes)) for each in MEASURES}
    return Executions(name, **numbers, spread=rng.integers(1, 5, episodes).astype(float),
                      start=np.repeat(np.arange(episodes // 4), 4), block=np.repeat(np.arange(episodes // 4), 4))


def test_advantages_are_those_of_the_trades() -> None:
    """Two buys and a sell, by their trades one by one."""
    rng = np.random.default_rng(0)
    told = {name: np.zeros((1, 3)) for name in ("traded", "excess", "others_traded", "others_excess", "left",
                                                "left_excess", "buys", "start_price", "start_spread", "target", "tick")}
    expected = {name: [] for name in ("arrival_bp", "arrival_ticks", "vwap_bp", "vwap_ticks", "filled")}
    for e, is_buy in enumerate((True, True, False)):
        start, tick, price_at_end = 50_000 + 100 * e, 100, 50_700
        price, volume = rng.integers(495, 510, 6) * 100, rng.integers(1, 9, 6) * 100
        others, many = rng.integers(495, 510, 9) * 100, rng.integers(1, 9, 9) * 100
        left = 0 if e == 1 else 300
        target = int(volume.sum()) + left
        column = {"traded": volume.sum(), "excess": ((price - start) * volume).sum(), "others_traded": many.sum(),
                  "others_excess": ((others - start) * many).sum(), "left": left,
                  "left_excess": left * (price_at_end - start), "buys": is_buy, "start_price": start,
                  "start_spread": 1, "target": target, "tick": tick}
        for name, value in column.items():
            told[name][0, e] = value
        mean = ((price * volume).sum() + left * price_at_end) / target
        sign = -1 if is_buy else 1
        vwap = (others * many).sum() / many.sum()
        for name, value in (("arrival_bp", (mean - start) / start * 1e4), ("arrival_ticks", (mean - start) / tick),
                            ("vwap_bp", (mean - vwap) / start * 1e4), ("vwap_ticks", (mean - vwap) / tick)):
            expected[name].append(sign * value)
        expected["filled"].append(volume.sum() / target)
    found = agent_scores.executions("one", told, np.zeros((1, 3)), np.arange(3), np.arange(3))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name)[0], values, rtol=1e-9)
    told["others_traded"][:] = 0
    assert np.isnan(agent_scores.executions("one", told, np.zeros((1, 3)), np.arange(3), np.arange(3)).vwap_bp).all()


def test_an_interval_holds_the_spread_of_seeds_and_of_starts() -> None:
    def drawn(rng, seeds, starts, of_seed, of_start):
        start = np.repeat(np.arange(starts), 5)
        values = (rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_start, starts)[start]
                  + rng.normal(0, 0.1, (seeds, len(start))))
        return values, start

    for of_seed, of_start in ((1.0, 0.0), (0.0, 1.0)):
        rng = np.random.default_rng(0)
        truth = np.std([drawn(rng, 20, 30, of_seed, of_start)[0].mean() for _ in range(300)])
        widths = []
        for trial in range(20):
            found = agent_scores.interval(*drawn(rng, 20, 30, of_seed, of_start), 400, trial)
            assert found.low < found.value < found.high
            widths.append((found.high - found.low) / 2 / 1.96)
        assert np.mean(widths) == pytest.approx(truth, rel=0.15)


def test_intervals_of_episodes_that_overlap_hold_the_truth_by_blocks_of_time() -> None:
    """Costs are moves of a random walk over 300 s; 160 starts in 8,000 s overlap with the 11 before and after each."""
    rng, starts, held = np.random.default_rng(0), np.linspace(0, 7_999, 160).astype(int), {"starts": 0, "blocks": 0}
    by = {"starts": np.arange(160), "blocks": starts // 616}
    for trial in range(200):
        path = np.cumsum(rng.normal(0, 1, 8_300))
        values = np.repeat((path[starts + 300] - path[starts])[None], 2, axis=0)
        for name, block in by.items():
            found = agent_scores.interval(values, block, 200, trial)
            held[name] += found.low <= 0 <= found.high
    assert held["starts"] < 0.6 * 200 and held["blocks"] > 0.82 * 200, held


def test_an_interval_leaves_out_what_is_not_there_and_needs_blocks() -> None:
    few, enough = (agent_scores.interval(np.arange(20.0)[None], np.arange(20) % count, 50, 0) for count in (4, 5))
    assert few.value == enough.value == 9.5 and np.isnan([few.low, few.high]).all() and enough.low < enough.high
    values = np.array([[1.0, np.nan, 3.0], [5.0, np.nan, np.nan]])
    assert agent_scores.interval(values, np.arange(3), 100, 0).value == 3.0
    alone = agent_scores.interval(values, np.zeros(3), 100, 0)
    assert alone.value == 3.0 and np.isnan([alone.low, alone.high]).all()
    assert np.isnan(agent_scores.interval(np.full((1, 3), np.nan), np.arange(3), 10, 0)).all()


def test_rows_have_contenders_regimes_and_paired_differences() -> None:
    agent, other = some(), some("twap", seeds=1, shift=1.0, seed=1)
    other = dataclasses.replace(other, spread=agent.spread)
    rows = agent_scores.rows(ComparedAgents("replay", (agent, other)), draws=200, seed=0)
    assert [(row["contender"], row["against"]) for row in rows[::4]] == [("agent", ""), ("twap", ""), ("agent", "twap")]
    difference = rows[8]
    assert difference["arrival_bp"] == pytest.approx((agent.arrival_bp - other.arrival_bp).mean())
    assert difference["arrival_bp_low"] < difference["arrival_bp"] < difference["arrival_bp_high"]
    for row, chosen in zip(rows[:4], (agent.spread > 0, agent.spread == 1, agent.spread == 2, agent.spread > 2),
                           strict=True):
        assert row["blocks"] == row["starts"]
        assert row["episodes"] == chosen.sum() and row["starts"] == len(np.unique(agent.start[chosen]))
        assert row["filled"] == pytest.approx(agent.filled[:, chosen].mean())
    lines = agent_scores.lines(rows)
    assert len(lines) == 3 and "agent less twap" in lines[2]


def test_episodes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"Executions.filled: expected \[S, E\]"):
        dataclasses.replace(some(), filled=np.zeros((3, 4)))


def test_figures_show_all_contenders_and_seeds() -> None:
    rows = [row for market in ("replay", "model")
            for row in agent_scores.rows(ComparedAgents(market, (some(), some("twap", seeds=1))), draws=20, seed=0)]
    figure = agent_plots.comparison(rows, "title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["replay", "replay", "model", "model"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["agent", "twap"]
    reward = np.array([[np.nan, 1.0, 2.0], [np.nan, 3.0, np.nan]])
    figure = agent_plots.curves({"reward": reward, "entropy": reward, "explained": reward}, 100, "title")
    lines = figure.axes[0].get_lines()
    assert len(lines) == 3
    np.testing.assert_array_equal(lines[-1].get_ydata(), [np.nan, 2.0, 2.0])
    np.testing.assert_array_equal(lines[-1].get_xdata(), [100, 200, 300])
