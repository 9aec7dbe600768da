"""Rollouts with an ensemble: those without one until something is told, and then only where it is told."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import marsjax
from marsjax import RolloutSpec, Simulator, testing
from marsjax.agents import Twap
from marsjax.core import times
from marsjax.core.order_images import OrderBatchSpec
from marsjax.model import ensemble, kv_cache
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch import tokenizer
from marsjax.model.order_batch.specs import TokenizerSpec
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.state import SimState

BOOK = tokenizer.init(TokenizerSpec(OrderBatchSpec(2, volume_edges=(100,)), compress=2, codes=5, code_dim=3, width=4,
                                    blocks=1), jax.random.key(5))
SPEC = EnsembleSpec.of(4, BOOK.spec, width=4, heads=1, layers=1)
CODES = np.array([[0, 1], [4, 3], [1, 1], [0, 4]])
SEED = jnp.uint32(3)


@pytest.fixture(scope="module")
def learnt() -> Ensemble:
    """One that changes much."""
    weights = ensemble.init(SPEC, jax.random.key(0), BOOK).weights()
    return Ensemble(SPEC, {**weights, "exit": 3 * jax.random.normal(jax.random.key(1), (4, 4)),
                           "shift": jax.random.normal(jax.random.key(2), (SPEC.inputs, 4))}, BOOK)


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.of(testing.tiny_model(), testing.tiny_market())


@pytest.fixture(scope="module")
def start() -> Start:
    return testing.random_start(testing.tiny_market(), testing.tiny_model())


def same(a: Any, b: Any) -> None:
    """All of two states but for what they are told."""
    chex.assert_trees_all_equal(dataclasses.replace(a, guide=None), dataclasses.replace(b, guide=None))


TWAP = Twap(target=1_000, start_ns=0, total_seconds=45)


@pytest.mark.parametrize(("agents", "slots"), [
    ((), 4), pytest.param((), 5, marks=pytest.mark.slow), pytest.param((TWAP,), 5, marks=pytest.mark.slow)])
def test_until_something_is_told_rollouts_are_those_without_an_ensemble(agents: tuple[Any, ...], slots: int,
                                                                         learnt: Ensemble, start: Start) -> None:
    simulator = Simulator.of(testing.tiny_model(), testing.tiny_market(), agents=agents)
    spec = RolloutSpec(trajectories=5, minutes=1, seed=1, chunk_steps=16, slots=slots)
    with_one, without = (marsjax.rollout(dataclasses.replace(simulator, ensemble=each), start, spec)
                         for each in (learnt, None))
    same(with_one.state, without.state)
    chex.assert_trees_all_equal(with_one.bars, without.bars)
    assert without.state.guide is None


def stepped(simulator: Simulator, start: Start, told: Any, count: int) -> SimState:
    """The states of 4 trajectories after so many steps."""
    until = jax.tree.map(lambda x: jnp.broadcast_to(x, 4), times.of_ns(times.to_ns(start.time) + 60 * 10**9))
    state = jax.jit(sim_step.begin)(simulator, start, jnp.arange(4), (), until)
    state = dataclasses.replace(state, guide=told)

    @jax.jit
    def run(simulator: Simulator, state: SimState) -> SimState:
        def one(state: SimState, _: None) -> tuple[SimState, None]:
            return sim_step.step(simulator, state, sim_step.draw(SEED, state.trajectory, state.step))[0], None

        return jax.lax.scan(one, state, None, length=count)[0]

    return run(simulator, state)


def test_only_trajectories_that_are_told_something_change(simulator: Simulator, learnt: Ensemble, start: Start) -> None:
    with_one = dataclasses.replace(simulator, ensemble=learnt)
    told = learnt.prepared(CODES, jnp.array([0.0, 1.0, 0.0, 1.0]))
    alone, some = stepped(simulator, start, None, 24), stepped(with_one, start, told, 24)
    times_of = [np.asarray(state.time.s) for state in (alone, some)]
    assert (times_of[0] != times_of[1]).tolist() == [False, True, False, True]
    for row in (0, 2):
        same(*(jax.tree.map(lambda x, row=row: x[row], dataclasses.replace(state, guide=None))
               for state in (alone, some)))
    chex.assert_trees_all_equal(some.guide, told)


def test_the_token_is_drawn_at_the_changed_hidden_state(simulator: Simulator, learnt: Ensemble, start: Start) -> None:
    told, cache = learnt.prepared(CODES), simulator.spec.cache
    state = stepped(dataclasses.replace(simulator, ensemble=learnt), start, told, 3)
    words = sim_step.draw(SEED, state.trajectory, state.step)
    asked = jnp.ones(4, bool)
    found, _ = sim_step.decide(dataclasses.replace(simulator, ensemble=learnt), state, words, asked)
    hidden = kv_cache.predict(simulator.model, cache, state.cache)
    expected, _ = kv_cache.sample(simulator.model, cache, learnt(hidden, told), words.token, 1.0)
    plain, _ = kv_cache.sample(simulator.model, cache, hidden, words.token, 1.0)
    np.testing.assert_array_equal(found.token, expected)
    assert (found.token != plain).any()


def test_a_state_without_an_ensemble_has_no_array_more(simulator: Simulator, learnt: Ensemble, start: Start) -> None:
    plain, told = (jax.eval_shape(sim_step.begin, dataclasses.replace(simulator, ensemble=each), start, jnp.arange(4),
                                  (), jax.tree.map(lambda x: jnp.broadcast_to(x, 4), start.time))
                   for each in (None, learnt))
    assert len(jax.tree.leaves(told)) == len(jax.tree.leaves(plain)) + 4
    assert [x.shape[0] for x in jax.tree.leaves(told.guide)] == [4, 4, 4, 4]


def test_an_ensemble_of_another_model_and_a_damaged_one_are_refused(simulator: Simulator, learnt: Ensemble,
                                                                    start: Start) -> None:
    other = ensemble.init(dataclasses.replace(SPEC, hidden=8), jax.random.key(0), BOOK)
    damaged = Ensemble(SPEC, {**learnt.weights(), "place": jnp.full((2, 4), jnp.nan)}, BOOK)
    for of, message in ((other, r"expected one for hidden states of 4 .* got one for 8; train it with this model"),
                        (damaged, r"rollout: ensemble: weights\.place: expected finite numbers")):
        with pytest.raises(ValueError, match=message):
            marsjax.rollout(dataclasses.replace(simulator, ensemble=of), start, RolloutSpec(trajectories=2, minutes=1))
