"""A model that learns from a day before it goes on from it: by which orders, when not, and what is said of it."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.core import times
from marsjax.data import sources
from marsjax.data.feed import DayFeed
from marsjax.studies import adapted, order_model
from marsjax.studies.order_model import PreparedModel
from marsjax.training import adapt, days, structured
from marsjax.training.adapt import AdaptSpec
from tests.training import short_day

BEFORE_NS = times.of_clock("09:33:00")


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> DayFeed:
    (found,) = sources.open_days("csv", str(short_day.write(tmp_path_factory.mktemp("day"))), [])
    return found


def prepared(source: str, is_structured: bool = True) -> PreparedModel:
    loaded = testing.tiny_model()
    model: Any = loaded.model
    if is_structured:
        model = structured.expand(structured.init(loaded.spec, jax.random.key(0)))
    return order_model.prepare(dataclasses.replace(loaded, model=model, about={"source": source}))


def weights(of: PreparedModel) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(of.model.model)]


def test_it_learns_from_the_orders_before_the_time_and_no_others(feed: DayFeed) -> None:
    given, market = prepared("trained on ABC_20230101"), feed.venue.market(capacity=256, accounts=2)
    found, said = adapted.to_day(given, market, feed, BEFORE_NS, steps=3)
    (day,) = days.replay_days(market, [feed.read()], ["day"])
    tokens = days.day_tokens(market, given.model.spec.tokens, given.table, day)
    before = tokens.features[tokens.time_ns < BEFORE_NS]
    assert 32 < len(before) < len(tokens.features)
    expected = adapt.adapt(given.model.model, [before], AdaptSpec(steps=3))
    for got, wanted, old in zip(weights(found), map(np.asarray, jax.tree.leaves(expected)), weights(given),
                                strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.shape == old.shape
    assert any((x != y).any() for x, y in zip(weights(found), weights(given), strict=True))
    assert said == f"{feed.name}: the model is adapted in 3 steps to {len(before):,} orders before 09:33:00"


def test_it_stays_as_it_is_where_it_knows_the_day_or_is_not_to_learn(feed: DayFeed) -> None:
    market = feed.venue.market(capacity=256, accounts=2)
    known = dataclasses.replace(feed, symbol="ABC", date="20230101")
    for given, day, steps in ((prepared("trained on ABC_20230101"), known, 3),
                              (prepared("trained on ABC_20230101"), feed, 0), (prepared("elsewhere"), feed, 3)):
        assert adapted.to_day(given, market, day, BEFORE_NS, steps) == (given, "")


def test_where_it_cannot_learn_it_says_why(feed: DayFeed) -> None:
    market = feed.venue.market(capacity=256, accounts=2)
    given = prepared("trained on ABC_20230101")
    found, said = adapted.to_day(given, market, feed, times.of_clock("09:30:01"), 3)
    assert found is given and "the model is not adapted: adapt: expected a day of more than 16 orders" in said
    given = prepared("trained on ABC_20230101", is_structured=False)
    found, said = adapted.to_day(given, market, feed, BEFORE_NS, 3)
    assert found is given and "the model was trained with another head" in said
