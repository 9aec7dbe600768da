"""Images of a rollout made on the device against those of its recorded orders, and against a slow copy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marsjax
from marsjax import RolloutSpec, Simulator, testing
from marsjax.core import order_images, times
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Kind
from marsjax.market import book, exchange
from marsjax.observers.order_images import OrderImageObserver
from marsjax.observers.trace import TraceObserver
from marsjax.sim.rollout import Hooks
from marsjax.training.order_batch import data

SPEC = OrderBatchSpec(price_slots=8, volume_edges=(100, 500, 800), most=9, every_s=7)
MINUTES = 1
INTERVALS = 60 // SPEC.every_s


def slow(spec: OrderBatchSpec, orders: list[tuple[int, int, int, int, int, int]], tick: int, count: int) -> np.ndarray:
    """Images of (interval, kind, price, volume, mid before, mid at the beginning), mids doubled, in plain Python."""
    found = np.zeros((count, *spec.shape), int)
    for interval, kind, price, volume, before, first in orders:
        row = sum(volume > edge for edge in spec.volume_edges)
        for half, mid in enumerate((before, first)):
            ticks = (price - mid / 2) / tick / spec.price_ticks_per_slot
            column = min(max(int(np.floor(ticks)) + spec.price_slots // 2, 0), spec.price_slots - 1)
            pixel = interval, kind, half * spec.volume_slots + row, column
            found[pixel] = min(found[pixel] + 1, spec.most)
    return found


def random_rows(count: int = 300) -> list[tuple[int, int, int, int, int, int]]:
    rng = np.random.default_rng(0)
    mids = 2 * 100_000 + 100 * rng.integers(-5, 6, (count, 2))
    columns = (np.sort(rng.integers(0, 3, count)), rng.integers(0, 3, count),
               100_000 + 100 * rng.integers(-8, 9, count), rng.choice([100, 101, 500, 900], count), *mids.T)
    return [tuple(row) for row in np.stack(columns, axis=1).tolist()]


def test_recorded_orders_lie_where_a_slow_copy_puts_them() -> None:
    rows = random_rows()
    interval, kind, price, volume, before, first = (np.array(x) for x in zip(*rows, strict=True))
    expected = slow(SPEC, rows, 100, 3)
    assert expected.max() == SPEC.most
    found = order_images.of_orders(SPEC, (kind, price, volume), (before, first), 100, interval, 3)
    np.testing.assert_array_equal(found, expected)


def test_orders_one_by_one_make_the_same_image() -> None:
    rows = [row for row in random_rows() if row[0] == 1]

    def one(image: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return order_images.add(SPEC, image, (row[1], row[2], row[3]), (row[4], row[5]), 100), None

    found, _ = jax.lax.scan(one, jnp.zeros(SPEC.shape, jnp.uint8), jnp.asarray(rows, jnp.int32))
    np.testing.assert_array_equal(found, slow(SPEC, rows, 100, 2)[1])


def test_an_order_without_a_mid_or_of_no_kind_has_no_place() -> None:
    image = jnp.zeros(SPEC.shape, jnp.uint8)
    for kind, before, first, counts in ((0, -1, 200_000, True), (0, 200_000, -1, True), (3, 200_000, 200_000, True),
                                        (0, 200_000, 200_000, False)):
        found = order_images.add(SPEC, image, (jnp.int32(kind), jnp.int32(100_000), jnp.int32(100)),
                                 (jnp.int32(before), jnp.int32(first)), 100, counts)
        assert not found.any()
    assert order_images.add(SPEC, image, (jnp.int32(0), jnp.int32(100_000), jnp.int32(100)),
                            (jnp.int32(200_000), jnp.int32(200_000)), 100).sum() == 2


@pytest.fixture(scope="module")
def rolled() -> tuple[OrderImageObserver, list[data.SeenOrders], object, int]:
    """Four futures of a minute: the observer, their orders as the trace has them, its states, the time of the start."""
    model, market = testing.tiny_model(), testing.tiny_market()
    observer = OrderImageObserver(SPEC, market.tick, keep=INTERVALS)
    start = testing.random_start(market, model)
    parts: list[list[data.SeenOrders]] = [[] for _ in range(4)]

    def on_trace(who: np.ndarray, log: object) -> None:
        for row in np.flatnonzero(who >= 0):
            events = jax.tree.map(lambda x: np.asarray(x)[row, : int(log.count[row])], log.events)  # noqa: B023
            parts[who[row]].append(data.of_event(events))

    simulator = Simulator.of(model, market, observers=[observer])
    run = marsjax.rollout(simulator, start, RolloutSpec(trajectories=4, minutes=MINUTES, seed=1),
                          hooks=Hooks(on_trace=on_trace))
    seen = [data.SeenOrders(*(np.concatenate(x) for x in zip(*part, strict=True))) for part in parts]
    begin_ns = int(times.to_ns(jax.tree.map(np.asarray, start.time)))
    return observer, seen, run.observed[0], begin_ns


def test_images_of_a_rollout_are_those_of_its_trace(rolled: tuple) -> None:
    observer, seen, states, begin_ns = rolled
    found = jax.vmap(lambda state: observer.last(state, jnp.int32(INTERVALS)))(states)
    np.testing.assert_array_equal(found.known, [INTERVALS] * 4)
    for place, orders in enumerate(seen):
        minutes = data.minutes(SPEC, orders, observer.tick, (begin_ns, begin_ns + 60 * 10**9), "future")
        assert set(orders.kind.tolist()) == {Kind.SELL, Kind.BUY, Kind.CANCEL} and minutes.images.sum() > 100
        np.testing.assert_array_equal(found.images[place], minutes.images)


def test_the_last_images_before_an_earlier_interval_come_first_from_what_was_before_the_start(rolled: tuple) -> None:
    observer, _, states, _ = rolled
    state = jax.tree.map(lambda x: x[0], states)
    found = observer.last(state, jnp.int32(3))
    assert found.known == 3 and not found.images[:-3].any() and found.images[-3:].any(axis=(1, 2, 3)).all()
    before = observer.begin(None, dataclasses.make_dataclass("View", ["mid_price_twice"])(jnp.int32(5)),  # type: ignore[arg-type]
                            times.of_ns(0))
    given = np.random.default_rng(0).integers(0, 9, (2, *SPEC.shape)).astype(np.uint8)
    seeded = observer.last(observer.seeded(before, given), jnp.int32(0))
    assert seeded.known == 2 and not seeded.images[:-2].any()
    np.testing.assert_array_equal(seeded.images[-2:], given)
    later = observer.last(observer.seeded(before, given), jnp.int32(INTERVALS - 1))
    assert later.known == INTERVALS
    np.testing.assert_array_equal(later.images[:1], given[1:])
    assert not later.images[1:].any()


def test_an_interval_without_orders_is_empty_and_the_next_one_begins_at_its_own_mid() -> None:
    market = testing.tiny_market()
    observer = OrderImageObserver(SPEC, market.tick, keep=3)
    opened = exchange.open_market(market)
    view = book.view(market, opened.book)
    template = jax.tree.map(lambda x: x[0], TraceObserver(market, 1).begin(opened, view, times.of_ns(0)).events)

    def event(second: int, price: int, mid_twice: int) -> object:
        order = dataclasses.replace(template.order, time=times.of_ns(second * 10**9), kind=jnp.int32(Kind.BUY),
                                    price=jnp.int32(price), volume=jnp.int32(100))
        return dataclasses.replace(template, happened=jnp.bool_(True), order=order, before=dataclasses.replace(
            template.before, mid_price_twice=jnp.int32(mid_twice)))

    state = observer.begin(opened, view, times.of_ns(0))
    rows = [(0, 100_000, 200_000), (6, 100_300, 200_600), (28, 100_300, 200_600), (29, 100_300, 200_000)]
    for row in rows:
        state = observer.update(state, event(*row))
    found = observer.last(state, jnp.int32(5))
    expected = slow(SPEC, [(0, 1, 100_000, 100, 200_000, 200_000), (0, 1, 100_300, 100, 200_600, 200_000),
                           (4, 1, 100_300, 100, 200_600, 200_600), (4, 1, 100_300, 100, 200_000, 200_600)], 100, 5)
    np.testing.assert_array_equal(found.images, expected[2:])
    assert not found.images[:2].any()
    np.testing.assert_array_equal(observer.last(state, jnp.int32(6)).known, 3)


@pytest.mark.parametrize(("values", "match"), [
    ({"volume_edges": ()}, "volume_edges"), ({"volume_edges": (5, 5)}, "rising"), ({"price_slots": 1}, "price_slots"),
    ({"most": 300}, "most"), ({"every_s": 0}, "every_s")])
def test_a_wrong_size_is_named(values: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        OrderBatchSpec(**values)
