"""The report over the executions of many states: as of one study, with one state's table in memory at a time."""

import weakref
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from experiments.fleet.summary_memory import made_up
from marsjax.core.errors import InputError
from marsjax.studies.fleet import executing

STATES, FUTURES, RATIOS, MINUTES = 5, 4, (0.1, 0.5), 2


def tables() -> list[pd.DataFrame]:
    return [made_up(3 * state, FUTURES, RATIOS, MINUTES) for state in range(STATES)]


def test_every_execution_is_beside_its_own_baseline() -> None:
    report, baselines = executing.report(tables(), MINUTES, 20, 0)
    every, count = pd.concat(tables()), STATES * FUTURES
    for kind, part in ((executing.SAME_DRAWS, slice(0, count)), (executing.OTHER_DRAWS, slice(count, None))):
        rows = every[every["kind"] == kind]
        np.testing.assert_array_equal(baselines.mids[part], np.stack(rows["mids"].to_list()))
        np.testing.assert_array_equal(baselines.seed[part], rows["state"])
    assert baselines.number.tolist() == list(range(2 * count))
    assert [group.ratio for group in report.groups] == list(RATIOS)
    without = np.stack(every[every["kind"] == executing.SAME_DRAWS]["mids"].to_list())
    for group in report.groups:
        mids = np.stack(every[every["ratio"] == group.ratio]["mids"].to_list())
        assert group.runs.number.tolist() == list(range(count))
        np.testing.assert_allclose(group.moved, (mids - without) / without[:, :1] * 1e4)


def test_one_table_is_held_at_a_time() -> None:
    held: list[weakref.ref[pd.DataFrame]] = []

    def one_by_one() -> Iterator[pd.DataFrame]:
        for number in range(STATES):
            table = made_up(number, FUTURES, RATIOS, MINUTES)
            held.append(weakref.ref(table))
            yield table
            del table
            assert sum(ref() is not None for ref in held) <= 1

    executing.report(one_by_one(), MINUTES, 20, 0)
    assert len(held) == STATES
    with pytest.raises(InputError, match="at least one state"):
        executing.report([], MINUTES, 20, 0)
