"""The execution in slices: what is due, what waits, what reaches out, and what it is worth."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.rl import sliced
from marsjax.rl.env import Core, MarketEnv
from marsjax.rl.execution import Execution
from marsjax.rl.sliced import SlicedExecution
from tests.rl.markets import replay_env

pytestmark = pytest.mark.quick

TASK = SlicedExecution(target=1_350, lot=100, slices=4, alpha=2.0)


@functools.cache
def env() -> MarketEnv:
    made = replay_env()
    core = Core(made.core.background, (TASK,))
    return MarketEnv(core, core.default_params(made.default_params.background, TASK.slices))


def test_what_is_due_rises_by_whole_lots_to_the_target() -> None:
    params = TASK.default_params()
    found = [int(sliced._due(params, jnp.int32(step))) for step in range(6)]
    lots = math.ceil(TASK.target / TASK.lot)
    assert found == [min(math.ceil(lots * min(k + 1, 4) / 4) * TASK.lot, TASK.target) for k in range(6)]
    assert found[3:] == [TASK.target] * 3


def test_an_action_says_how_much_waits_and_how_far_the_rest_reaches() -> None:
    params = env().default_params
    _, state = env().reset(jax.random.key(0))
    seen = state.market.seen
    ask, bid = int(seen.view.ask_price[0]), int(seen.view.bid_price[0])
    send = jax.jit(TASK.orders)
    for ratio in range(sliced.RATIOS):
        for reach in (0, 3, 5):
            sent = send(params.tasks[0], state.tasks[0], seen, state.market.resting[0],
                        jnp.int32(ratio * sliced.REACHES + reach))
            kind, price, volume = (np.asarray(x)[-2:] for x in (sent.kind, sent.price, sent.volume))
            waits = 4 * ratio // 10 * 100  # four lots of 14 are due
            assert np.where(kind == Kind.BUY, volume, 0).tolist() == [waits, 400 - waits]
            assert (not waits or price[0] == bid) and (waits == 400 or price[1] == ask + 100 * reach)


def test_the_largest_target_in_the_smallest_lots_waits_in_whole() -> None:
    _, state = env().reset(jax.random.key(0))
    task = SlicedExecution(target=2**30, lot=1, slices=1)
    for ratio in range(sliced.RATIOS):
        sent = task.orders(task.default_params(), state.tasks[0], state.market.seen, state.market.resting[0],
                           jnp.int32(ratio * sliced.REACHES))
        waits, rest = (int(x) for x in np.asarray(sent.volume)[-2:])
        assert (waits, rest) == (2**30 * ratio // 10, 2**30 - 2**30 * ratio // 10)


@pytest.mark.parametrize(("make", "said"), [
    (lambda: SlicedExecution(alpha=math.nan), "SlicedExecution.alpha"),
    (lambda: Execution(drift_weight=math.nan), "Execution.drift_weight"),
    (lambda: Execution(reward_unit=math.inf), "Execution.reward_unit")])
def test_numbers_that_are_not_finite_are_refused(make, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.slow
def test_rewards_add_up_and_no_more_is_traded_than_is_to_be() -> None:
    made = env()
    batch = 6
    step = jax.jit(jax.vmap(made.step, (0, 0, 0, None)))
    _, state = jax.vmap(made.reset, (0, None))(jax.random.split(jax.random.key(1), batch), made.default_params)
    random, total, better = np.random.default_rng(1), np.zeros(batch), np.zeros(batch)
    account = made.core.background.accounts[0]
    for number in range(TASK.slices):
        action = jnp.asarray(random.integers(0, made.num_actions, batch))
        before = state
        _, state, reward, terminated, _, info = step(
            jax.random.split(jax.random.key(number), batch), state, action, made.default_params)
        live = before.time == number  # of the first episode
        total += np.where(live, reward, 0)
        better += np.where(live, info["advantage"], 0)
        book = state.market.state.market.book
        own = (book.account == account) & (book.volume > 0)
        rests = np.where(own, book.volume, 0).sum(axis=(-1, -2))
        assert (rests + np.asarray(state.tasks[0].filled) <= TASK.target).all()
        assert (own.sum(axis=(-1, -2)) <= 2).all() and not np.asarray(info["refused"]).any()
        if np.asarray(terminated & live).any():
            over = np.asarray(terminated & live)
            fulfilment = np.asarray(info["fulfilment"])
            np.testing.assert_allclose(total[over], 2 * fulfilment[over] + better[over], rtol=1e-4)
            np.testing.assert_array_equal((info["filled"] + info["unfilled"])[over], TASK.target)
    assert np.asarray(terminated).any() and (better != 0).any()
