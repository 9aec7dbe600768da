"""Futures of starts: labels of what is lost, larger books where a side was full, and draws that no two share."""

import dataclasses
import types
from typing import Any

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.core import int64, kernels, times
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.specs import CacheSpec, MarketSpec, ModelSpec
from marsjax.market import exchange
from marsjax.sim import initial
from marsjax.sim.step import End
from marsjax.studies import futures, order_model, rollout_summary
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import PreparedModel, held_out_losses
from marsjax.studies.progress import Watching
from marsjax.tokens import encoding


def test_lost_trajectories_have_no_label_and_overflow_is_named() -> None:
    orders, total = np.array([[1], [1], [0], [1]]), np.full((4, 1), 210)
    bars = types.SimpleNamespace(mid_twice_sum=int64.from_numpy(total), orders=orders)
    ended = types.SimpleNamespace(end=np.array([End.TIME, End.NO_MID, End.TIME, End.NOT_FINITE]))
    run: Any = types.SimpleNamespace(bars=bars, mid_twice_start=np.full(4, 200), state=ended)
    np.testing.assert_array_equal(rollout_summary.labels(run), [0.05, np.nan, np.nan, np.nan])
    summary = {"ended": {"TIME": 2, "NO_MID": 1, "NOT_FINITE": 1}, "lost": 2, "trajectories": 4, "capacity": 128,
            "rejected": {"SIDE_FULL": 3, "BAD_PRICE": 1}, "conserved": False, "exceeded": {"trace_dropped": 2}}
    first, second, dropped, third = rollout_summary.problems(summary)
    assert dropped == "2 events found no room in the trace"
    assert first == "2 of 4 trajectories lost, not part of any number: {'NO_MID': 1, 'NOT_FINITE': 1}"
    assert second == "3 orders refused, a side was full: set rollout_capacity above 128"
    assert third == "shares or cash were not conserved"
    complete = {"ended": {"TIME": 4}, "rejected": {"BAD_PRICE": 1}, "conserved": True, "exceeded": {}}
    assert not rollout_summary.problems(summary | complete)


def test_a_start_whose_book_gets_full_is_run_again_in_twice_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    market = MarketSpec(capacity=8, accounts=2)
    opened = jax.tree.map(np.asarray, exchange.open_market(market))
    nothing = jax.tree.map(np.asarray, encoding.start())
    first = initial.Start(opened, nothing, None, None, times.from_ns(34_200 * 10**9))  # type: ignore[arg-type]
    asked: list[int] = []

    def rollout_of(simulator: Any, start: Any, spec: Any, **named: Any) -> Any:
        capacity = simulator.spec.market.capacity
        asked.append(capacity)
        assert start.market.book.price.shape in ((2, capacity), (spec.trajectories, 2, capacity))
        rejected = {"SIDE_FULL": 3} if capacity < 600 else {}
        status = np.zeros((spec.trajectories, len(Status)), np.int32)
        status[0, Status.SIDE_FULL] = rejected.get("SIDE_FULL", 0)
        result = types.SimpleNamespace(rejected=rejected, status=status, part=lambda which: result)
        return result

    monkeypatch.setattr(futures.rollout, "rollout", rollout_of)
    monkeypatch.setattr(futures, "_ROOM", 384)
    model: Any = types.SimpleNamespace(model=None, spec=ModelSpec())
    tables: Any = None
    prepared = PreparedModel(model, CacheSpec(mode="rolling", append=1, kernels=kernels.CPU), tables, tables, None)
    spec = FuturesSpec(trajectories=4, minutes=1, chunk_steps=8, most_at_once=8)
    runs = futures.simulate(prepared, market, spec, [first, first, first])
    assert asked == [384, 768, 768] and [run.rejected for run in runs] == [{}, {}, {}]
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(futures, "_numbered", lambda on_trace, first: on_trace)
    told = Watching(on_begin=lambda first, count: begun.append((first, count)))
    traced = {"on_trace": lambda who, log: None}
    assert [run.rejected for run in futures.simulate(prepared, market, spec, [first] * 3, watch=told, **traced)
            ] == [{}, {}, {}], "who is told that they begin again may see them again"
    assert begun == [(0, 2), (0, 2), (2, 1)]
    assert futures.simulate(prepared, market, spec, [first], **traced)[0].rejected == {"SIDE_FULL": 3}
    fixed = dataclasses.replace(spec, rollout_capacity=64)
    assert [run.rejected for run in futures.simulate(prepared, market, fixed, [first])] == [{"SIDE_FULL": 3}]


@pytest.mark.parametrize(("field", "value", "message"), [
    ("trajectories", 0, "expected at least 1, got 0"), ("seed", -1, "expected 0 to 2147483647, got -1"),
    ("temperature", float("inf"), "expected a number above 0, got inf"),
    ("rollout_capacity", -1, "expected at least 0, got -1")])
def test_numbers_out_of_range_are_named_by_field(field: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=rf"FuturesSpec\.{field}: {message}"):
        FuturesSpec(**({"trajectories": 1, "minutes": 1} | {field: value}))


def test_only_numbers_of_held_out_data_are_quoted() -> None:
    about = {"source": "days", "steps": 9, "held_out": {"nats": 7.5, "days": ["a"], "ok": True},
             "x": {"held_out_loss": 1}}
    assert held_out_losses(about) == {"held_out.nats": 7.5, "x.held_out_loss": 1.0}


@pytest.mark.parametrize(("about", "expected"), [
    ({"losses": {"held_out": {"model": {"all": {"order": 7.067, "type": 0.9}, "a day": {"order": 6.0}},
                              "frequencies": {"all": {"order": 8.17}}}}},
     "held-out loss 7.07 nats an order, of frequencies alone 8.17"),
    ({"held_out": {"nats": 7.5}}, "held-out loss 7.50 nats an order"),
    ({"source": "somewhere"}, "no held-out loss in its checkpoint"),
])
def test_a_run_begins_with_one_short_line_about_its_model(about: dict[str, Any], expected: str) -> None:
    tiny = testing.tiny_model()
    prepared = order_model.prepare(dataclasses.replace(tiny, about=about))
    line = order_model.headline(prepared, "mine")
    assert line.endswith(f"orders; {expected}") and line.startswith("model mine: ") and len(line) < 160


def test_longer_futures_get_larger_books_at_first() -> None:
    market, model = testing.tiny_market(), testing.tiny_model()
    start = testing.random_start(market, model)
    five, long = (futures.first_capacity(FuturesSpec(4, minutes), [start]) for minutes in (5, 26))
    assert 600 <= five < 1300 and long >= 26 * 120
    assert futures.first_capacity(FuturesSpec(4, 26, rollout_capacity=64), [start]) == 64
