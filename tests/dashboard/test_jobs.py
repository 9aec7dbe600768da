"""Jobs: how they end, how they are stopped, what they say; what errors are called in a page."""

import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.experiments.pages import impact_run, jobs, pieces
from marsjax.experiments.pages.jobs import Job, Stage
from marsjax.sim.rollout import RolloutProgress


@pytest.fixture
def queue() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as found:
        yield found


def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise TimeoutError("5 s")


def progress(passed: float) -> RolloutProgress:
    found: Any = np.array([passed])
    return RolloutProgress(64, 1, passed, 1000, 2.0, lambda: found)


def test_a_job_gives_its_result() -> None:
    job: Job[int] = Job()
    assert job.stage == Stage.WAITING
    with ThreadPoolExecutor(1) as queue:
        job.submit(queue, lambda own: 7)
    assert job.stage == Stage.OVER and job.outcome() == (7, "")


@pytest.mark.parametrize(("error", "said"), [
    (InputError("FuturesSpec.seed: expected\n 0"), "FuturesSpec.seed: expected 0"),
    (FileNotFoundError("no day 'x'"), "no day 'x'"), (MemoryError(), "MemoryError")])
def test_what_comes_from_outside_is_said_in_one_line(queue: ThreadPoolExecutor, error: Exception, said: str) -> None:
    def work(job: Job[int]) -> int:
        raise error

    job: Job[int] = Job[int]().submit(queue, work)
    until(lambda: job.stage == Stage.OVER)
    assert job.outcome() == (None, said)


def test_a_bug_is_logged_and_not_shown(queue: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    job: Job[float] = Job[float]().submit(queue, lambda own: 1 / 0)
    until(lambda: job.stage == Stage.OVER)
    result, why = job.outcome()
    assert result is None and "a bug" in why and "ZeroDivisionError" not in why
    assert "ZeroDivisionError" in caplog.text


def test_a_job_waits_for_the_one_before_and_one_that_is_stopped_never_begins(queue: ThreadPoolExecutor) -> None:
    go, began = threading.Event(), []
    first: Job[bool] = Job[bool]().submit(queue, lambda own: go.wait(5))
    second: Job[None] = Job[None]().submit(queue, lambda own: began.append(1))
    third: Job[None] = Job[None]().submit(queue, lambda own: began.append(2))
    until(lambda: first.stage == Stage.RUNNING)
    assert second.stage == Stage.WAITING
    second.stop()
    go.set()
    until(lambda: third.stage == Stage.OVER)
    assert began == [2] and second.outcome() == (None, jobs.STOPPED) and first.outcome() == (True, "")


def test_a_stop_takes_a_last_look_and_ends_the_run_between_two_chunks(queue: ThreadPoolExecutor) -> None:
    """The looks before are no more than one in a while; the share counts starts that were done before."""
    chunks: list[float] = []

    def work(job: Job[None]) -> None:
        watch = job.watch(4, lambda found: float(found[0]), done=2)  # type: ignore[arg-type, index]
        watch.begin(0, 2)
        assert watch.on_chunk and "compiling" in job.said and job.share == 0.5
        for chunk in range(9):
            watch.on_chunk(progress(chunk / 10))
            chunks.append(job.latest)
            if chunk == 4:
                job.stop()

    job: Job[None] = Job[None]().submit(queue, work)
    until(lambda: job.stage == Stage.OVER)
    assert chunks == [0.0] * 5 and job.latest == 0.5 and job.share == 0.75
    assert job.said == "1,000 orders, 500 a second; 1 futures have ended; about 2 s left"
    assert job.outcome() == (None, jobs.STOPPED)


def test_a_job_that_nobody_waits_for_any_more_ends(queue: ThreadPoolExecutor) -> None:
    there = [True]

    def work(job: Job[int]) -> int:
        job.say("one")
        there[0] = False
        job.say("two")
        return 1

    job: Job[int] = Job(lambda: there[0])
    job.submit(queue, work)
    until(lambda: job.stage == Stage.OVER)
    assert job.said == "one" and job.outcome() == (None, jobs.STOPPED)


@pytest.mark.parametrize(("error", "said"), [
    ("FuturesSpec.trajectories: expected at least 1, got 0", "Rollouts: expected at least 1, got 0"),
    ("ExecutionSpec.ratios: expected\nnumbers", "Volume ratios: expected numbers"),
    ("FuturesSpec.most_at_once: expected", "most_at_once: expected")])
def test_errors_have_the_names_of_the_page(error: str, said: str) -> None:
    assert pieces.explained(InputError(error)) == said


def test_what_is_run_again_in_larger_books_leaves_nothing_of_the_first_time() -> None:
    job: Job[int] = Job()
    watch = job.watch(2, lambda found: found)
    watch.begin(0, 2)
    assert watch.on_chunk is not None
    watch.on_chunk(progress(1.0))
    assert job.latest is not None
    watch.begin(0, 2)
    assert job.latest is None
    watch.on_chunk(progress(1.0))
    watch.begin(1, 1)  # others: what there is of the first ones stays
    assert job.latest is not None


def test_executions_that_are_run_again_are_not_taken_for_markets_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Any = types.SimpleNamespace(spec=types.SimpleNamespace(count=2))
    monkeypatch.setattr(impact_run.executions, "runs_of", lambda jobs, found: types.SimpleNamespace(
        number=np.arange(len(jobs.target))))
    followed, found = impact_run._Followed(ask), types.SimpleNamespace(passed_ns=np.zeros(1))
    jobs = {name: types.SimpleNamespace(target=np.array(target)) for name, target in (
        ("without", [0, 0, 0, 0]), ("again", [0]), ("with", [100, 100, 100, 100]), ("with again", [100]))}
    for name in ("without", "again", "with", "with again"):
        followed.begin(jobs[name])
        shown = followed.shown(found)
        # The last markets without an execution were not all of them, so there are none to compare with.
        assert shown is None, name
    whole = impact_run._Followed(ask)
    for name in ("without", "with"):
        whole.begin(jobs[name])
        shown = whole.shown(found)
    assert shown is not None and len(shown.baselines.number) == 4
