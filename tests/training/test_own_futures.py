"""A model taught by its own futures: the parts against their formulas, and that what was apart comes nearer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.checkpoint.load import LoadedModel
from marsjax.core import times
from marsjax.core.sessions import Period, Phase, Session
from marsjax.core.specs import ModelSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.data.feed import DayFeed
from marsjax.sim.initial import resize
from marsjax.sim.last_token import LastToken
from marsjax.studies import order_model
from marsjax.studies import own_futures as study
from marsjax.tokens import encoding
from marsjax.training import gaps, loop, own_futures, prepare, statistics, structured
from marsjax.training.gaps import Beginning, Targets
from marsjax.training.loss import Factored
from marsjax.training.own_futures import FuturesTraining
from marsjax.training.prepare import Feed, Prepared
from marsjax.training.structured import Structured
from tests.training import short_day

SPEC = ModelSpec(embed_dim=8, heads=2, context_length=32, tokens=dataclasses.replace(short_day.TOKENS, signals=True),
                 whole_cancels=True)
MARKET = short_day.MARKET
UNTIL_NS = (9 * 3600 + 34 * 60) * SECOND_NS
K = len(statistics.NAMES)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[DayFeed, Prepared]:
    file = short_day.write(tmp_path_factory.mktemp("day"))
    feed = DayFeed("noise", "1", lambda: neutral.read(file))
    data = prepare.prepare(MARKET, SPEC.tokens, [Feed("noise_1", feed.read(), feed.read(), False)], level_bins=8,
                           validation_from_ns=UNTIL_NS - 30 * SECOND_NS, held_from_ns=UNTIL_NS, length=32)
    return feed, data


@pytest.fixture(scope="module")
def weights(day: tuple[DayFeed, Prepared]) -> Structured:
    return structured.init(SPEC, jax.random.key(0), day[1].frequencies(SPEC.tokens, day[1].split.refit))


@pytest.fixture(scope="module")
def given(day: tuple[DayFeed, Prepared], weights: Structured) -> list[Beginning]:
    feed, data = day
    model = LoadedModel(structured.expand(weights), data.converters, {})
    return study.of_days(MARKET, model, [feed], data.split.refit, UNTIL_NS, every_minutes=1)


def test_states_have_the_tokens_around_them(day: tuple[DayFeed, Prepared], given: list[Beginning]) -> None:
    tokens = day[1].split.refit
    assert len(given) == 6 and {one.market for one in given} == {"noise"}  # 9:31 to 9:33, and their images
    for place, one in enumerate(given):
        whole, count = tokens[place // 3], int(one.start.token_state.count)
        assert len(whole) > count >= 32 and one.until_ns == UNTIL_NS
        window = np.asarray(encoding.to_array(SPEC.tokens, one.start.window))
        np.testing.assert_array_equal(window, whole[count - 32 : count])
        np.testing.assert_array_equal(one.after, whole[count:])


def simulator(day: tuple[DayFeed, Prepared], weights: Structured) -> order_model.Simulator:
    model = LoadedModel(structured.expand(weights), day[1].converters, {})
    return order_model.prepare(model).simulator(MARKET).replace(observers=(LastToken(),))


def batch(given: list[Beginning], places: list[int]) -> object:
    return jax.tree.map(lambda *x: np.stack([np.asarray(leaf) for leaf in x]),
                        *(resize(given[place].start, MARKET.capacity) for place in places))


def test_a_future_is_the_same_beside_others_and_its_tokens_are_those_drawn(
        day: tuple[DayFeed, Prepared], weights: Structured, given: list[Beginning]) -> None:
    own = simulator(day, weights)
    until = times.from_ns(np.full(3, UNTIL_NS))
    many = own_futures.roll(48, own, batch(given, [0, 1, 3]), jnp.array([5, 6, 7], jnp.int32), np.uint32(1), until)
    again = own_futures.roll(48, own, batch(given, [1, 2, 0]), jnp.array([6, 8, 9], jnp.int32), np.uint32(1),
                             until)
    count = int(many.made[1])
    assert count == int(again.made[0]) and 24 < count <= 48
    np.testing.assert_array_equal(many.features[1, :count], again.features[0, :count])
    for row in range(3):
        rows = slice(int(many.made[row]))
        drawn, made = (encoding.unpack(SPEC.tokens, x) for x in (many.drawn[row, rows], many.features[row, rows, 0]))
        np.testing.assert_array_equal(drawn[0], made[0])  # the kind
        limit = np.asarray(drawn[0]) < 2
        np.testing.assert_array_equal(np.asarray(drawn[2])[limit], np.asarray(made[2])[limit])  # the volume bin


def test_a_merged_cancel_takes_the_place_of_the_token_before_it() -> None:
    # Decisions: replaces what came before, makes, refused, makes, replaces, replaces, makes.
    made = jnp.array([[0, 1, 0, 1, 0, 0, 1]], bool)
    replaces = jnp.array([[1, 0, 0, 0, 1, 1, 0]], bool)
    written = own_futures._in_places(jnp.arange(7)[None, :, None], 10 + jnp.arange(7)[None], made, replaces)
    assert int(written.made[0]) == 3
    np.testing.assert_array_equal(written.features[0, :3, 0], [1, 5, 6])
    np.testing.assert_array_equal(written.drawn[0, :3], [11, 13, 16])


def test_last_tokens_are_those_of_the_next_tokens(day: tuple[DayFeed, Prepared], weights: Structured) -> None:
    windows = np.stack([day[1].split.refit[0][at : at + 33] for at in (0, 100)])
    whole = structured.next_token(weights, windows, chunk=16)
    last = structured.last_tokens(weights, windows[:, :-1], windows[:, -12:, 0], chunk=4)
    np.testing.assert_allclose(last, whole[:, -12:], rtol=1e-5, atol=1e-5)


def test_returns_are_their_formula() -> None:
    rng = np.random.default_rng(0)
    values, pull = rng.normal(size=(2, 9, K)).astype(np.float32), rng.normal(size=(2, K)).astype(np.float32)
    count = np.array([9, 5])
    found = np.asarray(own_futures.returns(values, count, pull))
    discount = np.where(statistics.SLOW, 0.997, 0.98)
    for row in range(2):
        for t in range(9):
            expected = -sum((discount ** (u - t) * pull[row] * values[row, u]).sum() for u in range(t, count[row]))
            assert found[row, t] == pytest.approx(expected, abs=1e-4)


def test_advantages_are_beside_the_futures_of_the_same_start() -> None:
    found = np.arange(24, dtype=np.float64).reshape(4, 6) ** 1.5
    count = np.array([6, 4, 6, 6])
    gained = own_futures.advantages(found, count, 2)
    used = np.arange(6) < count[:, None]
    np.testing.assert_array_equal(gained[~used], 0)
    np.testing.assert_allclose((gained * used).reshape(2, 2, 6).sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(gained[2] - gained[3], found[2] - found[3])


def test_gaps_are_means_under_each_history_and_only_those_that_turn_alike() -> None:
    rng = np.random.default_rng(1)
    history = np.c_[np.ones(4), rng.normal(size=(4, len(statistics.HISTORY) - 1))]
    of = Targets(None, np.zeros((4, 1, 1)), np.array([0, 0, 1, 1]), np.full(4, 9), rng.normal(size=(4, K)), history,
                 np.zeros(4, int), np.abs(rng.normal(size=(2, K))) + 1)
    chosen = np.array([0, 0, 1, 3])
    np.testing.assert_allclose(gaps.gaps(of, chosen, of.mean[chosen], np.full(4, 9)), 0)
    means = rng.normal(size=(4, K))
    orders = np.array([9, 3, 6, 5])
    found = gaps.gaps(of, chosen, means, orders)
    direction, touch = statistics.NAMES.index("direction"), statistics.NAMES.index("touch")
    for k, name, is_kept in ((touch, "one", True), (touch, "touch", True), (touch, "tilt", False),
                             (touch, "interval", False), (direction, "one", True), (direction, "touch", False),
                             (direction, "tilt", True)):
        j = statistics.HISTORY.index(name)
        apart = (means - of.mean[chosen])[:3, k] / of.spread[0, k] * history[chosen[:3], j]
        assert found[0, j, k] == pytest.approx(np.average(apart, weights=orders[:3]) if is_kept else 0)
    assert found[1, 0, touch] == pytest.approx((means[3] - of.mean[3])[touch] / of.spread[1, touch])


def test_of_the_direction_the_real_mean_counts_as_none(given: list[Beginning]) -> None:
    of = gaps.targets(SPEC.tokens, 64, given)
    assert not of.mean[:, statistics.NAMES.index("direction")].any()
    np.testing.assert_array_equal(of.came, [min(64, len(one.after)) for one in given])
    np.testing.assert_allclose(of.history[:, 1:].mean(axis=0), 0, atol=1e-9)


def test_a_window_holds_what_was_known_when_its_orders_were_drawn() -> None:
    training, length, orders = FuturesTraining(orders=20, scored=4), 8, 20
    # Token t of trajectory b is 1000 b + t, and the class drawn for order n is that of its token, length + n.
    whole = jnp.arange(3)[:, None, None] * 1000 + jnp.arange(length + orders)[None, :, None]
    made = own_futures._Round(np.arange(3), whole, whole[:, length:, 0], np.full(3, orders), None)
    worth = np.asarray(whole[:, length:, 0], np.float64)
    given, drawn, gained = own_futures._batch(training, made, worth, np.array([2, 0]), np.array([20, 4]))
    np.testing.assert_array_equal(given[..., 0], [2000 + 19 + np.arange(8), 3 + np.arange(8)])
    # Each class comes one after the token that it is predicted from, and the last four are scored.
    np.testing.assert_array_equal(drawn, given[:, -4:, 0] + 1)
    np.testing.assert_array_equal(gained, drawn)


def test_an_update_makes_likelier_what_was_worth_more(day: tuple[DayFeed, Prepared], weights: Structured) -> None:
    training = FuturesTraining(rounds=20, orders=32, scored=4, windows=2, weight=100.0)
    windows = np.stack([day[1].split.refit[0][at : at + 33] for at in (0, 100)])
    worth = jnp.array([[0.0, 0.0, 0.0, 1.0]] * 2)
    batch = jnp.asarray(windows[:, :-1]), jnp.asarray(windows[:, -4:, 0]), worth
    real = jnp.asarray(day[1].split.refit[0]), jnp.asarray(loop.first_tokens(32, day[1].split.refit[:1]))
    learner = own_futures._Learner(*(jax.tree.map(jnp.copy, weights) for _ in range(2)),
                                   own_futures._optimizer(training).init(weights))
    before = structured.last_tokens(weights, *batch[:2])
    for number in range(12):
        learner, _ = own_futures._update(training, Factored(chunk=16), learner, real, batch, jax.random.key(number))
    after = structured.last_tokens(learner.weights, *batch[:2])
    assert (np.asarray(after - before)[:, -1] < -0.01).all()


@pytest.mark.slow
def test_what_was_apart_comes_nearer(day: tuple[DayFeed, Prepared], weights: Structured, given: list[Beginning]
                                     ) -> None:
    training = FuturesTraining(rounds=40, starts=6, trajectories=16, orders=64, updates=2, scored=32, windows=4,
                               weight=4.0, rate=3e-3)
    _, rows = study.teach(training, MARKET, day[1].converters, weights, Factored(chunk=16), given, day[1].split.refit)
    # Real orders alone do not bring it.
    _, without = study.teach(dataclasses.replace(training, weight=0.0), MARKET, day[1].converters, weights,
                             Factored(chunk=16), given, day[1].split.refit)
    last, other = (np.mean([row["gap"] for row in some[-10:]]) for some in (rows, without))
    assert rows[0]["gap"] == without[0]["gap"] and last < 0.85 * other


def test_what_cannot_be_done_is_said(day: tuple[DayFeed, Prepared], given: list[Beginning]) -> None:
    with pytest.raises(ValueError, match="at least 2 starts of noise, got 1"):
        gaps.targets(SPEC.tokens, 64, given[:1])
    with pytest.raises(ValueError, match="expected tokens with signals"):
        gaps.targets(short_day.TOKENS, 64, given)
    with pytest.raises(ValueError, match="has 32 orders before it and 0 after: expected 32 and at least 1"):
        gaps.targets(SPEC.tokens, 64, [one._replace(after=one.after[:0]) for one in given])
    with pytest.raises(ValueError, match="scored: expected at least 1, got 0"):
        FuturesTraining(scored=0)
    with pytest.raises(ValueError, match="trajectories: expected at least 2, got 1"):
        FuturesTraining(trajectories=1)
    feed, data = day
    with pytest.raises(ValueError, match="expected tokens of 1 days, or of these and their mirror images, got 3"):
        study.of_days(MARKET, None, [feed], [*data.split.refit, data.split.refit[0]], UNTIL_NS)


def test_a_state_whose_tokens_are_not_those_of_the_day_is_refused(
        day: tuple[DayFeed, Prepared], weights: Structured) -> None:
    model = LoadedModel(structured.expand(weights), day[1].converters, {})
    with pytest.raises(ValueError, match="noise_1: the tokens before 09:32:00 are not those of the day"):
        study.beginnings(MARKET, model, day[0], day[1].split.refit[0][3:], UNTIL_NS, every_minutes=2)


def test_futures_and_what_came_end_with_their_period(day: tuple[DayFeed, Prepared], weights: Structured) -> None:
    model = LoadedModel(structured.expand(weights), day[1].converters, {})
    minute = 60 * SECOND_NS
    begin, noon = 9 * 3600 * SECOND_NS + 30 * minute, 9 * 3600 * SECOND_NS + 32 * minute + 30 * SECOND_NS
    session = Session((Period(Phase.CONTINUOUS, begin, noon),
                       Period(Phase.CONTINUOUS, noon + 1, begin + 5 * minute)))
    market = dataclasses.replace(MARKET, session=session)
    tokens = day[1].split.refit[0]
    found = study.beginnings(market, model, day[0], tokens, UNTIL_NS, every_minutes=1)
    whole = study.beginnings(MARKET, model, day[0], tokens, UNTIL_NS, every_minutes=1)
    first = found[0]
    assert first.until_ns == noon and len(first.after) < len(whole[0].after)
    np.testing.assert_array_equal(first.after, whole[0].after[: len(first.after)])
    assert len(found) == 1 < len(whole) and whole[-1].until_ns == UNTIL_NS  # a minute before either end at least
    own = simulator(day, weights)
    until = times.from_ns(np.array([noon, UNTIL_NS, times.to_ns(first.start.time) + SECOND_NS]))
    made = own_futures.roll(48, own, batch([first], [0, 0, 0]), jnp.array([5, 5, 5], jnp.int32), np.uint32(1), until)
    assert int(made.made[2]) < int(made.made[1])
