"""Replayed messages as a background: without orders of a learner it is the replay, with them it is still a market."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.requoting import shortened
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Kind, Status
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.market import exchange, orders
from marsjax.rl import named
from marsjax.rl.execution import Execution
from marsjax.rl.passing import Stride, left_of
from marsjax.rl.replay import LARGEST_ID, Recording, record
from marsjax.sim import replay
from marsjax.sim.env import no_orders
from tests.rl.markets import BEGIN_NS, END_NS, SPEC, STEPS, feed, messages, replay_env

pytestmark = pytest.mark.quick


def all_views() -> tuple[np.ndarray, object, object]:
    """Whether each order of the day was taken, the views after each, and the market at the end, by `sim.replay`."""
    *parts, end = list(replay.replay(SPEC, [feed().read()], chunk_orders=64, until_ns=END_NS))
    parts = [part for part in parts if isinstance(part, replay.Stretch)]
    status = np.concatenate([part.reports.status for part in parts])
    return status == Status.ACCEPTED, jax.tree.map(lambda *x: np.concatenate(x), *[p.views for p in parts]), end.markets


def test_without_orders_of_its_own_it_is_the_replay() -> None:
    taken, views, closing = all_views()
    assert not taken.all()  # some were refused, which the recording leaves out
    views = jax.tree.map(lambda x: x[taken], views)
    env = replay_env()
    params = env.default_params.replace(max_steps_in_episode=jnp.int32(2**20))
    data = params.background
    skipped = int(taken.sum()) - data.message_count
    step = jax.jit(env.step)
    for seed in (0, 3):
        _, state = env.reset(jax.random.key(seed), params)
        for number in range(200):
            at = skipped + int(state.market.state.next) - 1
            chex.assert_trees_all_equal(jax.tree.map(np.asarray, state.market.seen.view),
                                        jax.tree.map(lambda x, at=at: x[at], views))
            last = state
            _, state, reward, terminated, truncated, info = step(jax.random.key(number), state, 0, params)
            if truncated:
                break
        assert truncated and int(last.market.state.next) + 5 >= data.message_count
        # Its value is estimated by who learns, so that it is not charged too.
        assert not terminated and float(reward) == float(info["unfilled"]) == 0
    # The last books are those of a market without a learner, order by order.
    after = env.core.background.step(data, last.market.state, jax.tree.map(lambda x: x[None], no_orders(4)))
    chex.assert_trees_all_equal(after.state.market.book, jax.tree.map(lambda x: x[0], closing.book))


def test_ids_of_a_learner_s_orders_are_beyond_those_of_the_day() -> None:
    env = replay_env()
    largest = int(max(messages().order_id.max(), messages().cancel_id.max()))
    _, state = env.reset(jax.random.key(0))
    _, state, *_ = env.step(jax.random.key(0), state, 12)
    own = np.asarray(state.market.resting[0].order_id)
    assert (own[own != NO_ID] > largest).all() and (own != NO_ID).any()


def test_orders_without_ids_are_cancelled_by_the_ids_that_they_were_given() -> None:
    """Ids given by the exchange are the places here, so a day without them is the same day."""
    sent = messages()
    bare = dataclasses.replace(sent, order_id=np.full_like(sent.order_id, NO_ID))
    taken = all_views()[0]
    assert taken[:12].all()
    cut = jax.tree.map(lambda x: x[:12], sent)
    day = DayFeed("MADE", "", lambda: iter([FeedChunk.of(jax.tree.map(lambda x: x[:12], bare))]), feed().venue)
    start = BEGIN_NS - 120 * SECOND_NS - 1
    found = record(SPEC, day, [start], END_NS)
    np.testing.assert_array_equal(np.asarray(found.messages)[:, 5], cut.order_id)


@pytest.mark.parametrize(("change", "message"), [
    ({"between_ns": (END_NS, END_NS + 1)}, "messages after"),
    ({"steps": 10_000}, "messages after a start"),
    ({"between_ns": (END_NS, BEGIN_NS)}, "between_ns"),
    ({"stride": Stride(0, 100 * SECOND_NS)}, "at least 8 steps"),
])
def test_what_does_not_fit_is_said(change: dict, message: str) -> None:
    given = {"steps": STEPS, "feed": feed(), "between_ns": (BEGIN_NS, END_NS), "stride": Stride(5)} | change
    with pytest.raises(InputError, match=message):
        named.make(Execution(), background="replay", **given)


def test_a_start_before_any_order_has_no_price_and_is_refused() -> None:
    begin = BEGIN_NS - 200 * SECOND_NS
    given = {"steps": STEPS, "feed": feed(), "between_ns": (begin, END_NS), "stride": Stride(5), "starts": 4}
    assert named.replayed(**given)[1].start_count == 4  # whoever calls this may take them out
    with pytest.raises(InputError, match="starts: expected an order or a trade before each, got none before number 0"):
        named.make(Execution(), background="replay", **given)


def test_ids_too_large_are_refused() -> None:
    sent = messages(30)
    large = dataclasses.replace(sent, order_id=sent.order_id + LARGEST_ID - 40,
                                kind=np.where(sent.kind == Kind.CANCEL, Kind.NONE, sent.kind))
    day = DayFeed("MADE", "", lambda: iter([FeedChunk.of(large)]), feed().venue)
    with pytest.raises(InputError, match="number the orders of the feed anew"):
        record(SPEC, day, [BEGIN_NS - 120 * SECOND_NS - 1], END_NS)


@pytest.mark.parametrize("starts", [[], [2, 1], [END_NS]])
def test_starts_that_do_not_rise_are_refused(starts: list[int]) -> None:
    with pytest.raises(InputError, match="starts_ns"):
        record(SPEC, feed(), starts, END_NS)


def test_a_recording_says_how_much_it_holds() -> None:
    found = replay_env().default_params.background
    assert isinstance(found, Recording) and found.start_count == len(found.first) >= 2
    assert (np.asarray(found.first) + 5 * STEPS <= found.message_count).all()


def test_a_message_cancels_no_more_than_a_learner_has_left_of_its_order() -> None:
    market = exchange.open_market(SPEC)
    book = dataclasses.replace(market.book, order_id=market.book.order_id.at[1, 0].set(7),
                               volume=market.book.volume.at[1, 0].set(200))
    market = dataclasses.replace(market, book=book)
    for sent, volume in ((orders.cancel_order(1, 7, 300), 200), (orders.cancel_order(1, 7, 100), 100),
                         (orders.cancel_order(1, 8, 300), 300), (orders.limit_order(Kind.BUY, 100_000, 300), 300)):
        sent = dataclasses.replace(sent, cancel_side=jnp.int32(1))
        assert int(shortened(sent, left_of(market, sent))) == volume
