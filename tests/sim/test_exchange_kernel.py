"""Rollouts whose exchange is computed by the kernels, interpreted, are those of the plain way, to the bit."""

import dataclasses

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.twap import Twap
from marsjax.core import kernels
from marsjax.core.times import SECOND_NS
from marsjax.sim.rollout import rollout
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec

START_S = 36_000


@pytest.mark.slow
def test_rollouts_beside_an_agent_are_the_same() -> None:
    model = testing.tiny_model()
    market = testing.tiny_market()
    agents = [Twap(600, (START_S + 2) * SECOND_NS, 30)]
    found = []
    for way in ("xla", "interpreted"):
        simulator = Simulator.of(model, market, agents=agents, end_ns=(START_S + 40) * SECOND_NS,
                                 kernels=dataclasses.replace(kernels.CPU, book=way))
        start = testing.random_start(market, model, START_S * SECOND_NS)
        found.append(rollout(simulator, start, RolloutSpec(3, 1, chunk_steps=16)))
    (state, status), (other, other_status) = ((x.state, x.status) for x in found)
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(x) for x in (state, other)), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
    np.testing.assert_array_equal(status, other_status)
    assert np.sum(status) > 150 and np.sum(state.agent_states[0].sent) > 3
