"""Futures of a model with linear attention: its step of one memory writes what the full model would write."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents import Twap
from marsjax.core.specs import CacheSpec
from marsjax.core.times import SECOND_NS
from marsjax.model import llama
from marsjax.sim import rollout
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from tests.model.test_llama import random_params
from tests.sim.test_rollout import states

WINDOW, TRAJECTORIES, START_NS = 320, 3, 36_000 * SECOND_NS


def run(mode: str, layers: int, agents: tuple[Twap, ...]) -> rollout.Rollout:
    """Half a minute of weights far from their start; the window is longer than all that they see."""
    tiny = testing.tiny_model()
    sizes = dataclasses.replace(tiny.spec, embed_dim=8, layers=layers, heads=2, context_length=WINDOW, mixer="linear")
    loaded, market = dataclasses.replace(tiny, model=random_params(sizes, scale=0.5)), testing.tiny_market()
    simulator = Simulator.of(loaded, market, agents=agents, cache=CacheSpec(mode=mode, append=2 if agents else 1),
                             end_ns=START_NS + 30 * SECOND_NS)
    return rollout.rollout(simulator, testing.random_start(market, loaded, START_NS),
                           RolloutSpec(trajectories=TRAJECTORIES, minutes=1, seed=3, chunk_steps=64))


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "agents"), [
    (1, ()), (2, (Twap(target=2000, start_ns=START_NS, total_seconds=24, passive_seconds=3, idle_seconds=3),))],
    ids=["alone", "beside an agent"])
def test_futures_of_the_recurrent_step_are_those_of_the_full_model(layers: int, agents: tuple[Twap, ...]) -> None:
    """Of the same random words the same orders, to the last one."""
    recurrent, full = (run(mode, layers, agents) for mode in ("recurrent", "recompute"))
    total = np.asarray(full.state.cache.total)
    assert total.max() < WINDOW, "the full model saw everything"
    assert np.asarray(recurrent.state.step).min() > 40
    np.testing.assert_array_equal(recurrent.state.cache.total, total)
    chex.assert_trees_all_equal(states(recurrent), states(full))
    assert all((np.asarray(each.sent) >= 2).all() for each in recurrent.state.agent_states)


def test_the_mode_of_a_model_is_that_of_its_kind() -> None:
    tiny = testing.tiny_model()
    linear = dataclasses.replace(tiny, model=llama.init(dataclasses.replace(tiny.spec, mixer="linear"),
                                                        jax.random.key(0)))
    assert Simulator.of(linear, testing.tiny_market()).spec.cache.mode == "recurrent"
    assert CacheSpec.usual_mode(dataclasses.replace(tiny.spec, layers=2)) == "refresh"
