"""Rollouts of one start whose common slots are read once: the same futures, alone, in turns, taken up again."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import marsjax
from marsjax import RolloutSpec, Simulator, testing
from marsjax.agents import Twap
from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model import kv_cache
from marsjax.sim import rollout
from marsjax.sim import step as sim_step
from marsjax.sim.resume import Saving
from marsjax.sim.rollout import Hooks
from marsjax.sim.state import End
from tests.model.test_llama import random_params
from tests.sim.test_rollout import inside_scans

pytestmark = pytest.mark.quick

OWN = CacheSpec("refresh", refresh_every=12, margin=4)
SHARED = dataclasses.replace(OWN, prefix="shared")
TRAJECTORIES = 8


@functools.cache
def given(cache: CacheSpec, agents: bool = False) -> tuple[Simulator, Any]:
    """A model of two layers whose context matters, with or without another agent, and a start."""
    tiny, market = testing.tiny_model(), testing.tiny_market()
    spec = dataclasses.replace(tiny.spec, layers=2, embed_dim=8)
    twap = Twap(target=1_000, start_ns=0, total_seconds=45)
    model = dataclasses.replace(tiny, model=random_params(spec))
    return Simulator.of(model, market, agents=[twap] * agents, cache=cache), testing.random_start(market, model)


def run(cache: CacheSpec, agents: bool = False, hooks: Hooks = rollout.NO_HOOKS, **changes: Any) -> rollout.Rollout:
    simulator, start = given(cache, agents)
    options = {"trajectories": TRAJECTORIES, "minutes": 1, "seed": 3, "chunk_steps": 16} | changes
    return marsjax.rollout(simulator, start, RolloutSpec(**options), hooks=hooks)


def states(result: rollout.Rollout) -> list[np.ndarray]:
    state = result.state
    kept = (result.bars, state.market, state.token_state, state.time, state.end, state.step)
    return [np.asarray(x) for x in jax.tree.leaves(kept)]


def differing(a: rollout.Rollout, b: rollout.Rollout) -> int:
    """Trajectories that are not the same, to the bit."""
    return int(np.sum(np.any([np.any((x != y).reshape(len(x), -1), axis=1)
                              for x, y in zip(states(a), states(b), strict=True)], axis=0)))


@functools.cache
def whole(cache: CacheSpec, agents: bool = False) -> rollout.Rollout:
    return run(cache, agents)


def test_a_shared_prefix_changes_no_future() -> None:
    """But where a draw falls between two numbers that differ by rounding: one of eight may.

    In turns: slots whose contexts have been refreshed begin again with the common ones.
    """
    own, shared = whole(OWN), run(SHARED, slots=3)
    assert own.state.step.min() > 3 * OWN.refresh_every
    assert differing(own, shared) <= 1
    assert own.state.cache.of_prefix is None
    np.testing.assert_array_equal(shared.state.cache.of_prefix, 0)


def test_every_trajectory_reads_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin where others have ended, too: with numbers in it that are none no draw has a law."""
    made = sim_step.shared_prefix
    monkeypatch.setattr(sim_step, "shared_prefix", lambda *given: jax.tree.map(lambda x: x * np.nan, made(*given)))
    damaged = run(SHARED, slots=3)
    np.testing.assert_array_equal(damaged.state.end, End.NOT_FINITE)
    np.testing.assert_array_equal(damaged.state.cache.of_prefix, OWN.kept(given(OWN)[0].model.spec))


@pytest.mark.slow
def test_a_trajectory_alone_and_in_turns_equals_itself_among_others() -> None:
    """To the bit."""
    assert differing(run(SHARED, slots=3), whole(SHARED)) == 0
    alone = run(SHARED, trajectories=1, first=5, chunk_steps=64)
    for x, y in zip(states(alone), states(whole(SHARED)), strict=True):
        np.testing.assert_array_equal(x[0], y[5])


@pytest.mark.slow
def test_a_shared_prefix_beside_another_agent() -> None:
    assert differing(whole(OWN, agents=True), whole(SHARED, agents=True)) <= 1
    assert differing(run(SHARED, agents=True, slots=3), whole(SHARED, agents=True)) == 0


def test_many_starts_have_nothing_in_common() -> None:
    simulator, start = given(SHARED)
    starts = jax.tree.map(lambda x: np.stack([x] * 2), start)
    inner, _ = rollout.scheduled(simulator, starts, RolloutSpec(trajectories=2, minutes=1), (), rollout.NO_HOOKS)
    assert inner.prefix is None


@pytest.mark.slow
def test_a_run_is_taken_up_with_its_prefix(tmp_path: pathlib.Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.steps >= 16:
            raise StopError

    with pytest.raises(StopError):
        run(SHARED, hooks=Hooks(stop, saving=Saving(tmp_path, every_s=0)), chunk_steps=8)
    assert differing(run(SHARED, hooks=Hooks(saving=Saving(tmp_path, every_s=0)), chunk_steps=8), whole(SHARED)) == 0


@pytest.mark.slow
def test_the_first_prediction_is_that_from_own_copies() -> None:
    simulator, start = given(SHARED)
    number, until = np.arange(3, dtype=np.int32), jax.tree.map(lambda x: np.repeat(x, 3), start.time)
    hidden = []
    for prefix in (None, sim_step.shared_prefix(simulator, start)):
        begun = jax.jit(functools.partial(sim_step.begin, until=until))(
            dataclasses.replace(simulator, prefix=prefix), start, number)
        hidden.append(jax.jit(kv_cache.predict, static_argnums=1)(simulator.model, SHARED, begun.cache, prefix))
    np.testing.assert_array_equal(begun.cache.of_prefix, SHARED.kept(simulator.model.spec))
    np.testing.assert_allclose(*hidden, atol=1e-5)


def test_each_layer_reads_the_prefix_once_a_step() -> None:
    """One in `predict`, the others where tokens are appended; with an agent and without."""
    for agents in (False, True):
        simulator, start = given(SHARED, agents)
        spec = dataclasses.replace(simulator.model.spec, layers=3, embed_dim=32, heads=2)
        model = random_params(spec).replace(compute=ComputeSpec(dtype="bfloat16"))
        cache = dataclasses.replace(SHARED, kernels=dataclasses.replace(kernels.GPU, head="xla"))
        simulator = dataclasses.replace(simulator, model=model).replace(cache=cache)
        simulator = dataclasses.replace(simulator, prefix=jax.eval_shape(sim_step.shared_prefix, simulator, start))
        until, number = jax.tree.map(lambda x: np.repeat(x, 2), start.time), np.arange(2, dtype=np.int32)
        state = jax.eval_shape(functools.partial(sim_step.begin, until=until), simulator, start, number)
        words = jax.eval_shape(sim_step.draw, np.uint32(0), number, number)
        traced = jax.make_jaxpr(sim_step.step)(simulator, state, words)
        assert [name for name, *_ in inside_scans(traced.jaxpr)].count("pallas_call") == 2 * 3


def test_the_prefix_is_no_part_of_a_state() -> None:
    """A simulator without one reads own copies; with one every array of the state has the trajectories in front."""
    simulator, start = given(SHARED)
    number = np.arange(TRAJECTORIES, dtype=np.int32)
    common = jax.eval_shape(sim_step.shared_prefix, simulator, start)
    assert [x.shape for x in (*common.keys, *common.values)] == [(1, 8, 64)] * 2 + [(1, 64, 8)] * 2
    until = jax.tree.map(lambda x: np.repeat(x, TRAJECTORIES), start.time)
    for prefix in (None, common):
        given_one = dataclasses.replace(simulator, prefix=prefix)
        state = jax.eval_shape(functools.partial(sim_step.begin, until=until), given_one, start, number)
        assert (state.cache.of_prefix is None) == (prefix is None)
        assert {x.shape[0] for x in jax.tree.leaves(state)} == {TRAJECTORIES}
