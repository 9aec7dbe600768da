"""Which states are simulated together, and the numbers that key their draws."""

import dataclasses
import types

import numpy as np
import pytest

from marsjax.studies import executions
from marsjax.studies.executions import ExecutionSpec, StrategySpec
from marsjax.studies.fleet import reached
from marsjax.studies.fleet.reached import ReachedStates
from marsjax.studies.fleet.states import FleetState
from marsjax.studies.futures import FuturesSpec

SPEC = FuturesSpec(trajectories=4, minutes=1, most_at_once=13)
JOB = tuple(FleetState(number, "A", 10 * number) for number in (0, 1, 2, 3, 6, 7, 9))


@pytest.mark.parametrize(("slots", "sizes"), [(64, [3, 1, 2, 1]), (None, [3, 3, 3, 3])])
def test_states_of_one_batch_follow_one_another_and_on_an_accelerator_it_is_full(slots: int | None, sizes: list[int]
                                                                               ) -> None:
    found = list(reached.together(JOB, types.SimpleNamespace(slots=slots), SPEC))
    assert [[state.number for state in some] for some, _ in found] == [[0, 1, 2], [3], [6, 7], [9]]
    assert [size for _, size in found] == sizes
    some, size = found[2]
    states = ReachedStates({6: "six", 7: "seven"}, [], [], {})
    assert reached.filled(states, some, size) == ["six", "seven", "seven"][:size]


def test_a_batch_has_one_state_at_least() -> None:
    few = dataclasses.replace(SPEC, most_at_once=1)
    assert [size for _, size in reached.together(JOB, types.SimpleNamespace(slots=None), few)] == [1] * len(JOB)


def test_executions_are_numbered_from_a_first_one_on() -> None:
    spec = ExecutionSpec(StrategySpec("twap"), SPEC, seeds=1, ratios=(0.1, 0.5), first=80)
    own = dataclasses.replace(spec, first=0)
    for jobs, other in ((executions.jobs_without(spec), executions.jobs_without(own)),
                        (executions.jobs_of(spec, 5000.0), executions.jobs_of(own, 5000.0))):
        np.testing.assert_array_equal(jobs.number, other.number + 80)
        for name in ("seed", "sign", "ratio", "target"):
            np.testing.assert_array_equal(getattr(jobs, name), getattr(other, name))
    assert executions.jobs_without(spec).number.tolist() == list(range(80, 88))
