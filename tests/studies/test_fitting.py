"""How many futures fit the memory of a device is found before they run."""

import dataclasses

import pytest

from marsjax import testing
from marsjax.core.errors import InputError
from marsjax.sim import checks, rollout
from marsjax.sim.checks import Memory
from marsjax.sim.specs import RolloutSpec
from marsjax.studies import futures, order_model
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.progress import Watching

SPEC = FuturesSpec(trajectories=1, minutes=1, chunk_steps=4, rollout_capacity=64)


def test_as_many_fit_as_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    start, prepared = testing.random_start(market, model), order_model.prepare(model, platform="tpu")
    simulator = prepared.simulator(dataclasses.replace(market, capacity=64))

    def needed(count: int) -> int:
        found = rollout.memory(simulator, start, RolloutSpec(count, 1, chunk_steps=4))
        assert found is not None
        return found.needed

    there = needed(1_000)
    monkeypatch.setattr(checks, "_memory", lambda: there)
    count = futures.fitting(prepared, market, SPEC, start)
    assert count % 128 == 0
    assert 0.75 * there < needed(count) <= there
    few = needed(100)
    monkeypatch.setattr(checks, "_memory", lambda: few)
    plain, traced = (futures.fitting(prepared, market, SPEC, start, is_traced) for is_traced in (False, True))
    assert 60 < traced < plain <= 100
    monkeypatch.setattr(checks, "_memory", lambda: None)
    with pytest.raises(InputError, match=r"trajectories, most_at_once: expected numbers, as the device does not say"):
        futures.fitting(prepared, market, SPEC, start)


def test_where_rows_are_decoded_in_turn_two_rounds_of_them_are_enough() -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    prepared, start = order_model.prepare(model), testing.random_start(market, model)
    assert prepared.slots
    assert futures.fitting(prepared, market, SPEC, start) == 2 * prepared.slots


def test_memory_is_told_before_anything_runs() -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    seen: list[object] = []
    watch = Watching(on_chunk=lambda progress: seen.append("chunk"), on_memory=seen.append)
    futures.simulate(order_model.prepare(model), market, dataclasses.replace(SPEC, trajectories=2),
                     [testing.random_start(market, model)], watch=watch)
    first, *rest = seen
    assert isinstance(first, Memory) and first.trajectories == 2 and first.needed > first.fixed > 0
    assert rest and set(rest) == {"chunk"}


def test_starts_run_together_as_far_as_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, market = testing.tiny_model(), testing.tiny_market()
    begun: list[tuple[int, int]] = []
    watch = Watching(on_begin=lambda first, count: begun.append((first, count)))
    monkeypatch.setattr(futures, "fitting", lambda *given: 5)
    spec = dataclasses.replace(SPEC, trajectories=2, most_at_once=0)
    futures.simulate(order_model.prepare(model), market, spec, [testing.random_start(market, model)] * 3, watch=watch)
    assert begun == [(0, 2), (2, 1)]
