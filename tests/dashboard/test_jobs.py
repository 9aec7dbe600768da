"""Jobs: how they end, how they are stopped, what they say; what errors are called in a page."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from marsjax.core.errors import InputError
from marsjax.dashboard import jobs, pieces
from marsjax.dashboard.jobs import Job, Stage
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
