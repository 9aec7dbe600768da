"""Replayed days and their mirror images, and the bins fitted on them."""

import dataclasses
import pathlib
from collections import Counter

import jax
import numpy as np
import pytest

from marsjax.core import times
from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.tokens import bins, encoding
from marsjax.training import converters, days
from marsjax.training.days import ReplayedDay
from tests.training import short_day
from tests.training.short_day import MARKET
from tests.training.short_day import TOKENS as SPEC


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return short_day.write(tmp_path_factory.mktemp("day"))


@pytest.fixture(scope="module")
def replayed(file: pathlib.Path) -> list[ReplayedDay]:
    """A day and its image."""
    return days.replay_days(MARKET, [neutral.read(file), days.mirrored(neutral.read(file))], ["day", "image"])


def test_a_mirrored_day_is_the_same_market_upside_down(replayed: list[ReplayedDay]) -> None:
    day, image = (jax.tree.map(np.asarray, (x.orders, x.reports, x.views)) for x in replayed)
    np.testing.assert_array_equal(day[1].status, image[1].status)
    np.testing.assert_array_equal(day[1].trades.volume.lo, image[1].trades.volume.lo)
    limit = day[0].kind < 2
    assert limit.any() and (~limit).any()
    np.testing.assert_array_equal(day[0].kind[limit], 1 - image[0].kind[limit])
    centre = int(day[0].price[limit][0])
    for own, other in (("ask", "bid"), ("bid", "ask")):
        price, reflected = getattr(day[2], f"{own}_price"), getattr(image[2], f"{other}_price")
        np.testing.assert_array_equal(np.where(price > 0, 2 * centre - price, 0), reflected)
        np.testing.assert_array_equal(getattr(day[2], f"{own}_volume").lo, getattr(image[2], f"{other}_volume").lo)


def test_a_price_without_reflection_is_refused(file: pathlib.Path) -> None:
    def feed() -> object:
        for chunk in neutral.read(file):
            price = np.asarray(chunk.orders.price).copy()
            price[5:] += 2 * price[0]
            yield dataclasses.replace(chunk, orders=dataclasses.replace(chunk.orders, price=price))

    with pytest.raises(ValueError, match=r"mirrored day: price \d+ has no reflection about 101000 above 0"):
        list(days.mirrored(feed()))


def test_tokens_have_the_times_of_their_orders(replayed: list[ReplayedDay]) -> None:
    table = encoding.tables(SPEC, converters.fit(replayed, SPEC, 8))
    made = days.day_tokens(MARKET, SPEC, table, replayed[0])
    first_ns = 34_200 * SECOND_NS
    np.testing.assert_array_equal((made.time_ns - first_ns) // SECOND_NS, made.features[:, 4])
    assert (np.diff(made.time_ns) >= 0).all()


def test_a_time_limit_leaves_later_orders_out(replayed: list[ReplayedDay]) -> None:
    whole, early = replayed[0].quantities(), replayed[0].quantities(34_400 * SECOND_NS)
    for name in ("price-level", "order-volume", "order-interval"):
        assert 0 < len(early[name]) < len(whole[name])
        np.testing.assert_array_equal(early[name], whole[name][: len(early[name])])
    time_ns = np.asarray(replayed[0].orders.time.s, np.int64)
    assert len(early["order-volume"]) == int((time_ns < 34_400).sum()) - 1


class _Quantities(ReplayedDay):
    """A day that is nothing but its quantities."""

    def __init__(self, name: str, wait: np.ndarray) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "wait", wait)

    def quantities(self, until_ns: int | None = None) -> dict[str, np.ndarray]:
        spread = np.arange(300.0) if len(self.wait) else self.wait
        return {"price-level": spread, "order-volume": spread, "order-interval": self.wait, "lob-volume": spread}


def test_slow_and_busy_days_weigh_the_same_and_keep_their_means() -> None:
    rng = np.random.default_rng(0)
    busy, slow = np.round(rng.exponential(0.2, 50_000), 2), np.round(rng.exponential(3.0, 2_000), 2)
    slow[7] = 5400.0  # the lunch break
    found = converters.fit([_Quantities("busy", busy), _Quantities("slow", slow)], SPEC, 8)["order-interval"]
    assert found.edges[-1] < 100
    by_order = bins.fit(np.concatenate([busy, np.delete(slow, 7)]), SPEC.intervals)
    for day, tolerance in ((busy, 0.3), (np.delete(slow, 7), 0.1)):
        drawn, as_published = (drawn_mean(converter, day) for converter in (found, by_order))
        assert drawn == pytest.approx(day.mean(), rel=tolerance)
    assert as_published < 0.5 * slow.mean()  # of the slow day: its waits are in the last bin, by its smallest values


def drawn_mean(converter: bins.Converter, values: np.ndarray) -> float:
    """Mean of draws from the bins that values fall into."""
    share = np.bincount(bins.index(converter, values), minlength=converter.num_bins) / len(values)
    means = [float(v @ p) if len(v) else 0.0 for v, p in zip(converter.values, converter.probabilities, strict=True)]
    return float(share @ means)


def test_a_day_without_orders_to_fit_is_named() -> None:
    with pytest.raises(ValueError, match="converters: empty has no value of price-level to fit"):
        converters.fit([_Quantities("full", np.arange(300.0)), _Quantities("empty", np.zeros(0))], SPEC)


def test_bins_of_next_to_nothing_split_the_tail_instead() -> None:
    """701 fills no bin of its own kind: its edge goes to the values above 10,000, where two stocks differ."""
    values = np.concatenate([np.repeat([100.0, 200.0, 500.0, 700.0, 1000.0], 300), [701.0] * 3,
                             np.linspace(1100, 10_000, 300), np.linspace(10_100, 400_000, 200)])
    edges = np.array([50.0, 100, 200, 500, 700, 701, 1000, 10_000, 400_000])
    found = converters.finer_tail(edges, values)
    np.testing.assert_array_equal(found, [50, 100, 200, 500, 700, 1000, 10_000, 63_200, 400_000])
    assert round(np.sqrt(10_000 * 400_000), -2) == 63_200
    full = np.array([50.0, 100, 200, 500, 700, 1000, 10_000, 400_000])
    np.testing.assert_array_equal(converters.finer_tail(full, values), full)  # every bin holds its share


def test_orders_that_nobody_sent_teach_nothing(file: pathlib.Path, replayed: list[ReplayedDay]) -> None:
    """A reader's own orders change the book, and make neither tokens nor values for bins."""
    status = replayed[0].reports.status
    kind = replayed[0].orders.kind
    flagged = (np.arange(len(kind)) % 7 == 3) & (kind < 2) & (status == 0)

    def feed() -> object:
        at = 0
        for chunk in neutral.read(file, chunk_rows=100):
            count = len(chunk.orders.kind)
            yield dataclasses.replace(chunk, is_synthetic=flagged[at:at + count] if at else None)
            at += count

    flagged[:100] = False
    day, _ = days.replay_days(MARKET, [feed(), days.mirrored(neutral.read(file))])
    np.testing.assert_array_equal(day.continuous, replayed[0].continuous & ~flagged)
    volumes = [x.orders.volume[x.continuous & (x.reports.status == 0)] for x in (replayed[0], day)]
    for found, expected in zip((replayed[0], day), volumes, strict=True):
        np.testing.assert_array_equal(found.quantities()["order-volume"], expected[1:])
    table = encoding.tables(SPEC, converters.fit(replayed, SPEC, 8))
    whole, part = (days.day_tokens(MARKET, SPEC, table, x) for x in (replayed[0], day))
    assert flagged.sum() > 5
    assert len(part.features) == len(whole.features) - flagged.sum()
    taken = Counter(np.asarray(times.to_ns(day.orders.time))[flagged].tolist())
    assert Counter(part.time_ns.tolist()) == Counter(whole.time_ns.tolist()) - taken
    # What is left sees the same books, those after the reader's orders included.
    assert not Counter(map(bytes, part.features[:, 5:])) - Counter(map(bytes, whole.features[:, 5:]))
