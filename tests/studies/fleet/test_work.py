"""Jobs in this process: what is done is not done again, and what fails fails alone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.studies.fleet import alone, ledger, results, states, work
from marsjax.studies.fleet.states import DayTimes, Grid, Job, Part
from marsjax.studies.fleet.tally import MOST_TOLD, Tally
from marsjax.studies.fleet.work import MadeState, Work

pytest.importorskip("pyarrow")

CALL = "experiments.fleet.pretended:open_worker"
GRID = Grid((DayTimes("A", tuple(range(10))), DayTimes("B", tuple(range(5)))))


def left(book: ledger.Ledger, batch: int = 4) -> Iterator[Job]:
    done = book.done(GRID.count)
    return states.jobs(GRID, Part(), batch, lambda number: bool(done[number]))


def numbers(diary: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for line in diary.read_text().splitlines())


def test_every_state_is_made_once_and_a_second_run_makes_none(tmp_path: Path) -> None:
    book, diary, tally = ledger.open_ledger(tmp_path / "out", {}), tmp_path / "diary", Tally()
    given = Work(CALL, {"seconds": 0.0, "diary": str(diary)})
    for _ in range(2):
        alone.run(given, book, left(book), tally)
    assert numbers(diary) == Counter(range(15)) and (tally.made, tally.failed) == (15, 0)
    table = results.read(tmp_path / "out").to_table().to_pandas()
    assert table["state"].tolist() == list(range(15)) and table["market"].tolist() == ["A"] * 10 + ["B"] * 5


def test_a_state_that_fails_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    book, diary, tally = ledger.open_ledger(tmp_path / "out", {}), tmp_path / "diary", Tally()
    alone.run(Work(CALL, {"seconds": 0.0, "diary": str(diary), "fails": (5, 6)}), book, left(book), tally)
    assert (tally.made, tally.failed, tally.incomplete) == (13, 2, 0)
    assert tally.reasons == {number: f"A: expected another state than {number}" for number in (5, 6)}
    assert book.numbers() == [number for number in range(15) if number not in (5, 6)]
    # Those behind the first that failed are made one by one, those before it not again.
    assert {number: count for number, count in numbers(diary).items() if count > 1} == {5: 2}
    alone.run(Work(CALL, {"seconds": 0.0}), book, left(book), tally)
    assert book.numbers() == list(range(15))


def test_an_error_that_is_not_a_states_ends_the_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = ledger.open_ledger(tmp_path / "out", {})

    def faulty(job: Job) -> Iterator[MadeState]:
        yield MadeState(job[0].number, {"state": np.zeros(1)})
        raise ZeroDivisionError

    (job, *_) = left(book)
    with pytest.raises(ZeroDivisionError):
        work.perform(faulty, book, job)
    assert book.numbers() == [0]
    with pytest.raises(RuntimeError, match=r"left out the states \[1, 2, 3\]"):
        work.perform(lambda job: iter(()), book, job)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger.Ledger, "write", full)
    with pytest.raises(OSError, match="No space left"):
        work.perform(Work(CALL, {"seconds": 0.0}).open(), book, job)


def test_a_state_that_a_device_has_no_memory_for_fails_alone(tmp_path: Path) -> None:
    book = ledger.open_ledger(tmp_path / "out", {})
    reason = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes"

    def large(job: Job) -> Iterator[MadeState]:
        for state in job:
            if state.number == 1:
                raise jax.errors.JaxRuntimeError(reason)
            yield MadeState(state.number, {"state": np.zeros(1)})

    (job, *_) = left(book)
    outcomes = {one.number: one.error for one in work.perform(large, book, job)}
    assert outcomes == {0: "", 1: reason, 2: "", 3: ""} and book.numbers() == [0, 2, 3]
    reason = "INTERNAL: a fault"
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        work.perform(large, book, job)


@pytest.mark.parametrize(("given", "expected"), [
    (Work("marsjax.nowhere:x"), "no module marsjax.nowhere"), (Work("marsjax.studies.fleet.work:no"), "has no 'no'"),
    (Work(CALL, folder="/no/such/folder"), "cannot enter the folder /no/such/folder")])
def test_work_that_cannot_be_begun(given: Work, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        given.open()


def test_reasons_are_bounded() -> None:
    tally = Tally()
    tally([work.StateOutcome(number, error="x") for number in range(1000)])
    tally([work.StateOutcome(1000, problems=("y",))])
    assert (tally.made, tally.failed, tally.incomplete) == (1, 1000, 1) and len(tally.reasons) == MOST_TOLD
