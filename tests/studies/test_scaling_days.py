"""Real days as amounts of orders: each holds those before it, of every day a like share, and nothing held out."""

import itertools

import numpy as np
import pytest

from marsjax import testing
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.studies import order_model, scaling_days
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.scaling import Orders
from marsjax.training.split import Span

HELD_NS = times.of_clock("14:00:00")
LENGTH = 10
AMOUNTS = (3, 6, 15)


@pytest.fixture(scope="module")
def prepared() -> PreparedModel:
    return order_model.prepare(testing.tiny_model())


def day(name: str, count: int, until_ns: int, seed: int) -> DayFeed:
    """Orders of the minute before a time."""
    return DayFeed(name, "", lambda: iter([FeedChunk.of(testing.random_orders(until_ns, count, seed))]))


def orders(prepared: PreparedModel, days: list[DayFeed], amounts: tuple[int, ...] = AMOUNTS) -> Orders:
    market = days[0].venue.market(capacity=512, trade_width=1)
    return scaling_days.of_days(prepared, market, days, LENGTH, amounts, HELD_NS)


DAYS = [day("short", 100, HELD_NS + 15 * SECOND_NS, 1), day("long", 200, HELD_NS + 15 * SECOND_NS, 2)]
MORNING = day("morning", 100, HELD_NS - SECOND_NS, 3)


@pytest.fixture(scope="module")
def found(prepared: PreparedModel) -> Orders:
    return orders(prepared, DAYS)


def rows(spans: list[Span]) -> list[np.ndarray]:
    return [span.features[span.first : span.last] for span in spans]


def places(found: Orders, part: np.ndarray) -> tuple[str, int]:
    """The day of a stretch and its first row there."""
    whole = {span.name: span.features for span in found.held_out}
    hits = [(name, at) for name, day in whole.items() for at in range(len(day) - len(part) + 1)
            if np.array_equal(day[at : at + len(part)], part)]
    assert len(hits) == 1
    return hits[0]


def test_amounts_hold_one_another_and_a_like_share_of_every_day(found: Orders) -> None:
    chosen = [[places(found, part) for part in amount.training] for amount in found.amounts]
    assert [len(places) for places in chosen] == list(AMOUNTS)
    for few, more in itertools.pairwise(chosen):
        assert set(few) < set(more)
    before = {name: min(span.first for span in found.held_out if span.name == name) for name in ("short", "long")}
    counts = {name: first // LENGTH for name, first in before.items()}
    assert 2 * counts["short"] - 3 < counts["long"] < 2 * counts["short"] + 3
    for amount in chosen:
        for name, count in counts.items():
            own = sorted(at for day, at in amount if day == name)
            assert own == list(range(0, LENGTH * len(own), LENGTH))
            assert abs(len(own) - len(amount) * count / sum(counts.values())) <= 1


def test_what_validates_follows_and_what_is_held_out_is_apart(found: Orders) -> None:
    for amount in found.amounts:
        assert len(amount.validation) == max(len(amount.training) // 8, 1)
        trained = {places(found, part) for part in amount.training}
        assert not trained & {places(found, part) for part in rows(amount.validation)}
    ends: dict[str, int] = {}
    for span in found.held_out:
        assert LENGTH <= span.count < 3 * LENGTH
        # One after the other, to the end of the day.
        assert ends.setdefault(span.name, span.first) == span.first
        ends[span.name] = span.last
    assert ends == {span.name: len(span.features) for span in found.held_out}
    used = [*found.amounts[-1].validation]
    for name, at in [places(found, part) for part in found.amounts[-1].training] + [(x.name, x.first) for x in used]:
        assert at + LENGTH <= min(span.first for span in found.held_out if span.name == name)


def test_a_day_without_orders_to_hold_out_is_left_out(found: Orders, prepared: PreparedModel) -> None:
    other = orders(prepared, [*DAYS, MORNING])
    assert {span.name for span in other.held_out} == {"short", "long"}
    for mine, its in zip(found.amounts, other.amounts, strict=True):
        np.testing.assert_array_equal(mine.training, its.training)
    with pytest.raises(InputError, match="of 1 days none has orders from 14:00:00 on"):
        orders(prepared, [MORNING])
    with pytest.raises(InputError, match=r"expected 1 to .* stretches of 10 orders"):
        orders(prepared, DAYS, (1000,))
