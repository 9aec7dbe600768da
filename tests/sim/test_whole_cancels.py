"""Rollouts of models whose cancels take back one whole order: nothing is lost, and nothing depends on the batch."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import chex
import jax
import numpy as np
import pytest

from marsjax.agents.noise import NoiseSpec
from marsjax.core import int64
from marsjax.core.records import Kind, Status
from marsjax.market import exchange
from marsjax.model.llama import OrderModel
from marsjax.observers import trace_tables
from marsjax.observers.trace import Log
from marsjax.observers.trace_tables import Table
from marsjax.sim import initial, rollout
from marsjax.sim.initial import Start
from marsjax.sim.rollout import Hooks
from marsjax.sim.scheduler import Given
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.tokens import bins
from tests.sim import test_rollout as plain
from tests.sim import test_rollout_agents as crowd

pytestmark = pytest.mark.quick

BATCH = 8
NOISE = NoiseSpec(volumes=(100, 300), volume_weights=(1, 1))
"""Of two volumes, so that many orders are alike."""


@functools.cache
def begin(crowded: bool) -> Start:
    warmup = initial.Warmup(start_ns=plain.WARM_NS, duration_ns=plain.START_NS - plain.WARM_NS)
    orders = initial.noise(plain.MARKET, NOISE, warmup, seed=0)[1][0]
    return initial.from_feed(crowd.MARKET if crowded else plain.MARKET, plain.tables()[0], plain.feed(orders),
                             plain.START_NS, plain.MODEL.context_length, chunk_orders=256)


def model(whole: bool = True) -> OrderModel:
    return OrderModel(dataclasses.replace(plain.MODEL, whole_cancels=whole), plain.params().weights())


def run(crowded: bool, on_trace: Any = None, **changes: Any) -> rollout.Rollout:
    options = {"trajectories": BATCH, "minutes": 1, "seed": 3, "chunk_steps": 16, "trace_room": 256} | changes
    simulator = Simulator(model(), *plain.tables(), crowd.SPEC if crowded else plain.SPEC)
    return rollout.rollout(simulator, begin(crowded), RolloutSpec(**options), hooks=Hooks(on_trace=on_trace))


@functools.cache
def traced(crowded: bool) -> tuple[rollout.Rollout, list[Log]]:
    logs: list[Log] = []
    return run(crowded, lambda who, log: logs.append(jax.tree.map(np.asarray, log))), logs


def joined(tables: list[Table], name: str) -> np.ndarray:
    return np.concatenate([table[name] for table in tables])


@pytest.mark.parametrize("crowded", [False, True])
def test_shares_and_cash_are_conserved(crowded: bool) -> None:
    result = traced(crowded)[0]
    lost = jax.tree.leaves(jax.vmap(exchange.conservation)(result.state.market))
    assert not any(np.asarray(x).any() for x in lost)
    assert result.ended == {"TIME": BATCH}


@pytest.mark.parametrize("crowded", [False, True])
def test_every_cancel_of_the_model_takes_back_all_that_is_left_of_one_order(crowded: bool) -> None:
    """What is left of an order is counted here from the tables of the trace: sent, less trades, less cancels."""
    result, logs = traced(crowded)
    start = begin(crowded).market.book
    first = {int(i): int(v) for i, v in zip(np.ravel(start.order_id), np.ravel(start.volume), strict=True) if v}
    sent, traded = ([of(log, np.arange(BATCH)) for log in logs] for of in (trace_tables.orders, trace_tables.trades))
    cancels = 0
    for b in range(BATCH):
        left, fills = dict(first), {}
        mine = joined(traded, "trajectory") == b
        for i, resting, volume in zip(*(joined(traded, x)[mine] for x in ("i", "resting_id", "volume")), strict=True):
            fills.setdefault(i, []).append((resting, volume))
        rows = zip(*(joined(sent, x)[joined(sent, "trajectory") == b] for x in (
            "i", "source", "type", "volume", "order_id", "cancel_id", "status", "traded")), strict=True)
        for i, source, kind, volume, number, taken, status, done in rows:
            if status != Status.ACCEPTED.name:
                continue
            if kind != "C":
                left[number] = volume - done
                for resting, shares in fills.get(i, ()):
                    left[resting] -= shares
                continue
            if source == 0:
                assert volume == left[taken] > 0
                cancels += 1
            left[taken] -= volume
        book = result.state.market.book
        numbers, volumes = (np.ravel(x[b]).tolist() for x in (book.order_id, book.volume))
        assert {n: v for n, v in left.items() if v} == {n: v for n, v in zip(numbers, volumes, strict=True) if v}
    assert cancels > 5 * BATCH


@pytest.mark.parametrize("crowded", [False, True])
def test_a_cancel_is_one_order_and_its_token_has_the_shares_that_were_taken(crowded: bool) -> None:
    _, logs = traced(crowded)
    found = 0
    for log in logs:
        event = log.events
        logged = np.arange(event.happened.shape[1]) < np.asarray(log.count)[:, None]
        is_cancel = logged & event.is_by_price & (event.status == Status.ACCEPTED)
        assert (event.order.kind[is_cancel] == Kind.CANCEL).all()
        assert (event.trades.count[is_cancel] == 1).all() and (event.orders[is_cancel] == 1).all()
        alone = is_cancel & event.encoded.is_new
        shares = jax.tree.map(lambda x, alone=alone: x[alone], event.trades.volume)
        expected = np.asarray(bins.lookup_int64(plain.tables()[0].volume, shares))
        np.testing.assert_array_equal(event.encoded.token.volume_bin[alone], expected)
        found += int((int64.to_numpy(shares) != event.order.volume[alone]).sum())
    assert found > BATCH  # often more or less than what was named


@pytest.mark.parametrize(("crowded", "numbers"), [(False, (0, 5)), pytest.param(True, (4,), marks=pytest.mark.slow)])
def test_a_trajectory_alone_and_in_other_chunks_equals_itself_in_a_batch(crowded: bool, numbers: tuple[int, ...]
                                                                         ) -> None:
    """Of trajectories whose books would be others if other words chose among orders alike."""
    for number in numbers:
        alone = run(crowded, trajectories=1, first=number, chunk_steps=64)
        expected = [x[number : number + 1] for x in plain.states(traced(crowded)[0])]
        chex.assert_trees_all_equal(plain.states(alone), expected)


def test_the_rule_is_that_of_the_model_whatever_simulates_it() -> None:
    """All else is the same, in the spec of the simulation too, and the markets are others."""
    assert not any("cancel" in field.name for field in dataclasses.fields(plain.SPEC))
    other = plain.run(start=begin(False))
    volumes = [np.asarray(result.state.market.book.volume[:BATCH]) for result in (traced(False)[0], other)]
    assert np.not_equal(*volumes).any(axis=(1, 2)).all()


def test_a_state_saved_by_one_rule_is_not_taken_up_by_the_other() -> None:
    """What a saved state belongs to differs by the model's spec alone."""
    given = Given(begin(False), np.arange(1), (), begin(False).time)
    of_whole, of_shares = (rollout._identity(Simulator(model(whole), *plain.tables(), plain.SPEC), RolloutSpec(1, 1),
                                             SimpleNamespace(given=given)) for whole in (True, False))
    assert [name for name in of_whole if of_whole[name] != of_shares[name]] == ["model_spec"]
