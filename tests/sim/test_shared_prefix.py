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
from marsjax.core.specs import CacheSpec
from marsjax.sim import rollout
from marsjax.sim import step as sim_step
from marsjax.sim.resume import Saving
from marsjax.sim.rollout import Hooks
from marsjax.sim.state import End
from tests.model.test_llama import random_params

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


def run(cache: CacheSpec, agents: bool = False, hooks: Hooks = rollout.NO_HOOKS, start: Any = None, **changes: Any
        ) -> rollout.Rollout:
    simulator, one = given(cache, agents)
    options = {"trajectories": TRAJECTORIES, "minutes": 1, "seed": 3, "chunk_steps": 16} | changes
    return marsjax.rollout(simulator, one if start is None else start, RolloutSpec(**options), hooks=hooks)


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


@pytest.mark.slow
def test_many_starts_have_nothing_in_common() -> None:
    _, start = given(SHARED)
    starts = jax.tree.map(lambda x: np.stack([x] * TRAJECTORIES), start)
    assert differing(run(SHARED, start=starts), run(OWN, start=starts)) == 0


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
