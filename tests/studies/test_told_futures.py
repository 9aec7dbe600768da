"""Futures to train an ensemble on: every order lies in the interval whose image it is a part of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import Simulator, testing
from marsjax.core import times
from marsjax.core.order_images import OrderBatchSpec
from marsjax.model import kv_cache
from marsjax.observers.order_images import OrderImageObserver
from marsjax.sim import step as sim_step
from marsjax.studies import told_futures

SECOND = times.SECOND_NS


def orders_of(images: np.ndarray) -> np.ndarray:
    """As the only code of an image the number of its orders, each of which it counts twice."""
    return np.asarray(images, np.int32).sum(axis=(1, 2, 3))[:, None] // 2


@pytest.mark.slow
def test_orders_lie_in_the_intervals_of_their_images() -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    start = testing.random_start(market, model)
    starts = jax.tree.map(lambda x: np.stack([np.asarray(x)] * 3), start)
    until = jax.tree.map(jnp.asarray, times.from_ns(times.to_ns(starts.time) + np.array([50, 50, 25]) * SECOND))
    observer = OrderImageObserver(OrderBatchSpec(every_s=20), market.tick, keep=4)
    simulator = Simulator.of(model, market, observers=[observer])
    rolled = told_futures.roll(simulator, starts, np.arange(3, dtype=np.int32), 7, until, orders_of)
    found = rolled.orders
    assert rolled.full_books == 0
    assert found.codes.shape == (6, 1) and (np.diff(found.batch) >= 0).all()
    assert np.flatnonzero(found.counts).tolist() == [0, 1, 2, 3, 4]  # the last has 25 s, one interval
    accepted = found.codes[:5, 0]  # cancels that find no order of their own make no mark
    assert (accepted <= found.counts[:5]).all() and accepted.sum() > 0.6 * found.counts.sum()
    state = sim_step.begin(simulator, starts, jnp.arange(3), (), until)
    hidden = kv_cache.predict(model.model, simulator.spec.cache, state.cache)
    first = np.flatnonzero(np.diff(found.batch // 2, prepend=-1))
    np.testing.assert_allclose(found.hidden[first], hidden, rtol=1e-4, atol=1e-5)
    words = sim_step.draw(jnp.uint32(7), state.trajectory, state.step)
    drawn, _ = kv_cache.sample(model.model, simulator.spec.cache, hidden, words.token, 1.0)
    np.testing.assert_array_equal(found.label[first], drawn)


def test_a_simulator_without_images_is_refused() -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    start = testing.random_start(market, model)
    with pytest.raises(ValueError, match="expected an OrderImageObserver as the last observer, got no observer"):
        told_futures.roll(Simulator.of(model, market), start, np.arange(1), 0, start.time, orders_of)
