"""Days that a model writes: what is read of them is the state it wrote them to, and nothing else is in them."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax import testing
from marsjax.checkpoint import load
from marsjax.core import kernels, times
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days as files
from marsjax.data import sse
from marsjax.sim import initial, replayed
from marsjax.sim.initial import Start
from marsjax.sim.specs import RolloutSpec
from marsjax.studies import made_days, order_model, starts
from marsjax.studies.made_days import Made, MakingSpec
from marsjax.studies.order_model import PreparedModel
from tests.experiments.synthetic_day import write_day

SPEC = MakingSpec(settle_minutes=1, minutes=1, candidates=6, seed=5)


@functools.cache
def prepared() -> PreparedModel:
    return order_model.prepare(testing.tiny_model())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Start]:
    folder = tmp_path_factory.mktemp("real")
    write_day(folder)
    (day,) = sse.days(folder)
    market = day.venue.market(accounts=made_days.ACCOUNTS, capacity=256, trade_width=32)
    return market, starts.states_of_feed(market, prepared(), day, [times.of_clock("09:34:00")]).starts[0]


@pytest.fixture(scope="module")
def made(real: tuple[Any, Start]) -> Made:
    return made_days.make(prepared(), *real, SPEC)


def test_what_is_read_of_a_day_is_the_state_that_the_model_wrote_it_to(made: Made, tmp_path: Path) -> None:
    files.write(tmp_path, "mine", made.venue, made.start_ns, made.tables, made.about)
    day = files.open_day(tmp_path, "mine")
    market = day.feed.venue.market()
    of_gpu = dataclasses.replace(market, kernels=kernels.GPU)  # a CPU does it all the same
    states = starts.states_of_feed(of_gpu, prepared(), day.feed, [day.start_ns], on_host=True)
    found, passed, refused = states.starts, states.passed, states.refused
    assert refused.problems() == [] and not refused.counts
    expected = initial.resize(made.end, market.capacity)
    for name in ("price", "volume", "order_id"):
        np.testing.assert_array_equal(getattr(found[0].market.book, name), getattr(expected.market.book, name), name)
    assert int(found[0].market.book.last_price) == int(expected.market.book.last_price)
    assert int(times.to_ns(found[0].time)) == day.start_ns == int(times.to_ns(expected.time))
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path((found[0].window, found[0].count)),
                            jax.tree.leaves((expected.window, expected.count)), strict=True):
        np.testing.assert_array_equal(x, y, str(path))
    assert int(passed[0].counts.sum()) == made.about["orders"]


def test_no_order_of_the_exchange_is_left(made: Made, real: tuple[Any, Start]) -> None:
    book, orders = made.tables
    made_days.check(book, orders)
    left_out = made.about["others_left_out"]
    assert 0 < left_out["orders"] < left_out["of"] and len(book) == left_out["of"] - left_out["orders"]
    assert set(orders["order_id"]).isdisjoint(book["order_id"])
    # The clock is the day's own, and no order lies outside it.
    assert SPEC.begin_ns <= orders["time_ns"].min() and orders["time_ns"].max() <= made.start_ns


def test_a_day_ends_at_a_minute_at_which_little_goes_on(real: tuple[Any, Start], monkeypatch: pytest.MonkeyPatch
                                                        ) -> None:
    mid = np.array([100.0, 100, 100, 100, 100, 100, 130, 160, 160, 160, 160, 160])
    ask = np.array([50, 50, 50, 50, 50, 50, 50, 50, 50, 900, 50, 50.0])
    bid = np.array([70, 70, 70, 70, 70, 70, 70, 70, 70, 70, 2, 70.0])
    late = np.arange(12) > 7
    assert made_days.ordinary_minute(mid, (ask, bid), late) == 11
    assert made_days.ordinary_minute(mid, (ask, bid), late & (np.arange(12) < 11)) == 10
    assert made_days.ordinary_minute(mid, (ask, bid), np.ones(12, bool)) == 0
    assert made_days.ordinary_minute(np.where(late, np.nan, mid), (ask, bid), np.arange(12) > 6) == 7

    # A day cut short is the beginning of the long one, and so are its orders.
    made = {}
    for minutes in (3, 2):
        monkeypatch.setattr(made_days, "ordinary_minute", lambda *_, minutes=minutes: minutes - 1)
        made[minutes] = made_days.make(prepared(), *real, dataclasses.replace(SPEC, minutes=3))
        assert made[minutes].about["minutes"] == minutes
        assert made[minutes].start_ns == SPEC.begin_ns + minutes * 60 * SECOND_NS
    whole, cut = made[3].tables[1], made[2].tables[1]
    pd.testing.assert_frame_equal(cut, whole[whole["time_ns"] <= made[2].start_ns])
    assert len(cut) < len(whole)


@pytest.mark.parametrize(("change", "message"), [
    (lambda book, orders: (book.assign(order_id=book["order_id"] + 7), orders), "a book of ids 0 to"),
    (lambda book, orders: (book, orders.assign(order_id=orders["order_id"] - 1)), "orders of rising ids from"),
    (lambda book, orders: (book, orders.assign(cancel_id=orders["cancel_id"].where(orders["type"] != "C", 10**6))),
     "cancels of its own orders, got one of 1000000"),
])
def test_an_order_of_somebody_else_is_found(made: Made, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made_days.check(*change(*made.tables))


def test_the_same_numbers_make_the_same_day_and_others_another(made: Made, real: tuple[Any, Start]) -> None:
    again = made_days.make(prepared(), *real, SPEC)
    for one, other in zip(made.tables, again.tables, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert again.about == made.about


def test_a_trajectory_that_there_is_not_and_a_rollout_without_a_trace_are_refused(real: tuple[Any, Start]) -> None:
    market, start = real
    run = made_days._run(prepared(), market, start, RolloutSpec(2, 1, 0), SPEC)
    with pytest.raises(InputError, match="expected a trajectory of 0 to 1, got 2"):
        initial.after_rollout(run, start, 2)
    with pytest.raises(InputError, match="TraceObserver"):
        initial.after_rollout(dataclasses.replace(run, trace=type(run.trace)()), start, 0)


@pytest.mark.parametrize("name", files.NAMES)
def test_the_days_that_come_with_the_default_model_are_whole(name: str) -> None:
    """Read in full: the model's alone, nothing refused, a context filled, a book to trade in."""
    folder = load.folder_of(load.DEFAULT)
    place = folder / files.FOLDER
    book, orders = (pd.read_csv(place / f"{name}{part}.csv.gz") for part in ("_book", ""))
    made_days.check(book, orders)
    assert len(orders) > 1024 and (book["side"] == "ask").sum() > 50 < (book["side"] == "bid").sum()
    day = files.open_day(folder, name)
    run = replayed.replay_day(day.feed)
    assert not run.refused.problems() and int(times.to_ns(run.closing.time)) <= day.start_ns
    about = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))["about"]
    found = {key: about[key] for key in ("mid", "spread", "bids", "asks", "bid_volume", "ask_volume")}
    end = made_days.describe(run.market, Start(run.closing, None, None, None, None))
    assert end == found and end["bids"] > 100 < end["asks"]
    assert (day.start_ns - times.of_clock("09:30:00")) >= 15 * 60 * SECOND_NS
