"""Numbers of states, parts that make a whole, and jobs of one day each."""

import itertools

import pytest

from marsjax.core.errors import InputError
from marsjax.studies.fleet.states import DayTimes, Grid, Part, jobs

GRID = Grid((DayTimes("A", (10, 20, 30)), DayTimes("B", (10, 20)), DayTimes("C", (5,))))


def test_a_number_leads_to_the_same_state_in_any_range() -> None:
    whole = list(GRID.states())
    assert [state.number for state in whole] == list(range(GRID.count)) == list(range(6))
    for first, end in itertools.combinations(range(7), 2):
        assert list(GRID.states(first, end)) == whole[first:end]


@pytest.mark.parametrize("parts", [1, 2, 4, 6, 9])
def test_the_parts_are_all_states_and_none_twice(parts: int) -> None:
    found = [job for number in range(1, parts + 1) for job in jobs(GRID, Part(number, parts), 2, lambda number: False)]
    assert [state.number for job in found for state in job] == list(range(6))


def test_a_job_is_of_one_day_and_of_what_is_left() -> None:
    found = list(jobs(GRID, Part(), 2, lambda number: number in (1, 4)))
    assert [[state.number for state in job] for job in found] == [[0, 2], [3], [5]]
    assert all(len({state.day for state in job}) == 1 for job in jobs(GRID, Part(), 64, lambda number: False))


def test_jobs_are_made_as_they_are_asked_for() -> None:
    asked: list[int] = []
    next(jobs(GRID, Part(), 1, lambda number: bool(asked.append(number))))
    assert len(asked) == 2  # one more, which does not fit


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/2/3", "1/99999999999"])
def test_a_part_counts_from_one(text: str) -> None:
    with pytest.raises(InputError, match=r"part: expected K/N with K of 1 to N"):
        Part.of(text)


@pytest.mark.parametrize(("days", "expected"), [
    ((DayTimes("A", (1,)), DayTimes("A", (2,))), "each day once, got A"),
    ((DayTimes("A", (2, 2)),), "rising times"), ((), "at least one state"), ((DayTimes("A", ()),), "at least one")])
def test_a_grid_that_is_none_is_refused(days: tuple[DayTimes, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        Grid(days)
