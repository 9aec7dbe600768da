"""Every statistic of LOB-Bench against a plain slow reading of its definition, and some by hand."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from marsjax.analysis.lob_bench import statistics
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.records import Kind, Side
from marsjax.core.times import SECOND_NS
from tests.analysis.lob_bench.made_up import BEGIN_NS, made


def rows(messages: OrderMessages) -> list[dict[str, int]]:
    names = statistics_fields()
    return [dict(zip(names, values, strict=True))
            for values in zip(*(getattr(messages, name).tolist() for name in names), strict=True)]


def statistics_fields() -> list[str]:
    return ["time_ns", "kind", "side", "price", "volume", "traded", "rest", "order_id", "level", "ask", "bid",
            "ask_volume", "bid_volume", "ask_total", "bid_total"]


def slow_mid(row: dict[str, int]) -> float:
    return (row["ask"] + row["bid"]) / 2 if row["ask"] and row["bid"] else math.nan


def slow_flow(all_rows: list[dict[str, int]]) -> dict[int, float]:
    """Message -> mean over the last 100 of what each added to the bid and took from the ask."""
    changes = {}
    for i in range(1, len(all_rows)):
        before, now = all_rows[i - 1], all_rows[i]
        bids = [row["bid"] or -math.inf for row in (before, now)]
        asks = [row["ask"] or math.inf for row in (before, now)]
        total = 0
        total += now["bid_volume"] if bids[1] >= bids[0] else 0
        total -= before["bid_volume"] if bids[1] <= bids[0] else 0
        total -= now["ask_volume"] if asks[1] <= asks[0] else 0
        total += before["ask_volume"] if asks[1] >= asks[0] else 0
        changes[i] = total
    return {i: sum(changes[j] for j in range(i - 99, i + 1)) / 100 for i in range(100, len(all_rows))}


def slow_flow_before(all_rows: list[dict[str, int]], move: int) -> list[float]:
    flow, found = slow_flow(all_rows), []
    for i in range(100, len(all_rows) - 1):
        change = slow_mid(all_rows[i + 1]) - slow_mid(all_rows[i])
        if not math.isnan(change) and (change > 0) - (change < 0) == move:
            found.append(flow[i])
    return found


def slow_volume_per_minute(all_rows: list[dict[str, int]]) -> list[float]:
    trades = [row for row in all_rows if row["traded"]]
    first, last, found = trades[0]["time_ns"], trades[-1]["time_ns"], []
    for second in sorted({row["time_ns"] // SECOND_NS for row in trades}):
        begin, end = max(second * SECOND_NS, first), min((second + 1) * SECOND_NS, last)
        if end - begin >= SECOND_NS // 10:
            total = sum(row["traded"] for row in trades if row["time_ns"] // SECOND_NS == second)
            found.append(60 * total / ((end - begin) / SECOND_NS))
    return found


def slow_time_to_cancel(all_rows: list[dict[str, int]]) -> list[float]:
    found = []
    for i, row in enumerate(all_rows):
        if row["kind"] == Kind.CANCEL:
            came = [j for j in range(i) if all_rows[j]["rest"] and all_rows[j]["order_id"] == row["order_id"]]
            cancels = [j for j in range(i) if all_rows[j]["kind"] == Kind.CANCEL
                       and all_rows[j]["order_id"] == row["order_id"] and came and j > came[-1]]
            if came and not cancels:
                found.append(math.log((row["time_ns"] - all_rows[came[-1]]["time_ns"]) / SECOND_NS or 1e-9))
    return found


def slow_depth(all_rows: list[dict[str, int]], sign: int, cancels: bool) -> list[float]:
    some = [row for row in all_rows if (row["kind"] == Kind.CANCEL if cancels else row["rest"] > 0)]
    away = [sign * (row["price"] - slow_mid(row)) for row in some]
    return [x for x in away if x > 0]


def slow_levels(all_rows: list[dict[str, int]], side: Side, cancels: bool) -> list[float]:
    return [row["level"] for row in all_rows if row["side"] == side and row["level"]
            and (row["kind"] == Kind.CANCEL if cancels else row["rest"] > 0)]


Slow = Callable[[list[dict[str, int]]], list[float]]
SLOW: dict[str, Slow] = {
    "spread": lambda all_rows: [r["ask"] - r["bid"] if r["ask"] and r["bid"] else math.nan for r in all_rows],
    "orderbook_imbalance": lambda all_rows: [
        (r["bid_volume"] - r["ask_volume"]) / (r["bid_volume"] + r["ask_volume"])
        if r["bid_volume"] + r["ask_volume"] else math.nan for r in all_rows],
    "log_inter_arrival_time": lambda all_rows: [
        math.log((b["time_ns"] - a["time_ns"]) / 1e6 or 1e-9)
        for a, b in itertools.pairwise(all_rows)],
    "log_time_to_cancel": slow_time_to_cancel,
    "ask_volume_touch": lambda all_rows: [r["ask_volume"] for r in all_rows],
    "bid_volume_touch": lambda all_rows: [r["bid_volume"] for r in all_rows],
    "ask_volume": lambda all_rows: [r["ask_total"] for r in all_rows],
    "bid_volume": lambda all_rows: [r["bid_total"] for r in all_rows],
    "limit_ask_order_depth": lambda all_rows: slow_depth(all_rows, 1, cancels=False),
    "limit_bid_order_depth": lambda all_rows: slow_depth(all_rows, -1, cancels=False),
    "ask_cancellation_depth": lambda all_rows: slow_depth(all_rows, 1, cancels=True),
    "bid_cancellation_depth": lambda all_rows: slow_depth(all_rows, -1, cancels=True),
    "limit_ask_order_levels": lambda all_rows: slow_levels(all_rows, Side.ASK, cancels=False),
    "limit_bid_order_levels": lambda all_rows: slow_levels(all_rows, Side.BID, cancels=False),
    "ask_cancellation_levels": lambda all_rows: slow_levels(all_rows, Side.ASK, cancels=True),
    "bid_cancellation_levels": lambda all_rows: slow_levels(all_rows, Side.BID, cancels=True),
    "vol_per_min": slow_volume_per_minute,
    "ofi": lambda all_rows: list(slow_flow(all_rows).values()),
    "ofi_up": lambda all_rows: slow_flow_before(all_rows, 1),
    "ofi_stay": lambda all_rows: slow_flow_before(all_rows, 0),
    "ofi_down": lambda all_rows: slow_flow_before(all_rows, -1),
}


def test_the_names_are_those_of_the_paper() -> None:
    assert list(statistics.UNCONDITIONAL) == list(SLOW) and len(SLOW) == 21
    assert list(statistics.CONDITIONAL) == ["ask_volume | spread", "spread | time", "spread | volatility"]


@pytest.mark.parametrize("name", SLOW)
def test_a_statistic_is_that_of_its_slow_reading(name: str) -> None:
    for seed in (1, 2):
        messages = made(seed, 260)
        expected = SLOW[name](rows(messages))
        assert len(expected) >= 10
        np.testing.assert_allclose(statistics.UNCONDITIONAL[name].values(messages), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2, 100, 101])
def test_short_sequences_have_few_values_and_no_fault(count: int) -> None:
    messages = made(3, 300).between(0, int(made(3, 300).time_ns[count]) - 1) if count else made(3, 0)
    sizes = {name: len(statistic.values(messages)) for name, statistic in statistics.UNCONDITIONAL.items()}
    assert sizes["spread"] == len(messages) and sizes["ofi"] == max(len(messages) - 100, 0)
    for conditional in statistics.CONDITIONAL.values():
        assert len(conditional.values(messages)) == len(conditional.given(messages)) == len(messages)


def test_volatility_is_that_of_returns_between_neighbouring_tenths_of_a_second() -> None:
    tenth = SECOND_NS // 10
    times = BEGIN_NS + np.array([1, 2, tenth + 5, 2 * tenth + 5, 7 * tenth, 8 * tenth])
    mids = np.array([100, 110, 121, 121, 100, 90]) * 100
    messages = made(0, 6, time_ns=times, ask=mids + 50, bid=mids - 50)
    # The last mid of each tenth is 110, 121, 121, then nothing for four tenths, 100, 90.
    returns = np.log([121 / 110, 1.0, 90 / 100])
    np.testing.assert_allclose(statistics.volatility(messages), [returns.std(ddof=1)] * 6)
    assert statistics.volatility(made(0, 1)).tolist() == [0]


def test_hours_are_whole_ones_of_the_day() -> None:
    messages = made(0, 3, time_ns=np.array([3600, 7199, 7200]) * SECOND_NS)
    assert statistics.hour(messages).tolist() == [1, 1, 2]


def test_volume_in_a_first_second_that_is_too_short_is_left_out_and_else_scaled() -> None:
    times = BEGIN_NS + np.array([0.95, 1.2, 1.7, 2.5]) * SECOND_NS
    messages = made(0, 4, time_ns=times, traded=[100, 200, 300, 50])
    np.testing.assert_allclose(statistics.volume_per_minute(messages), [60 * 500, 60 * 50 / 0.5])
