"""Workers of Ray that die, fail or are killed with their driver: nothing is lost, nothing is made twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from marsjax.core.errors import InputError
from marsjax.studies.fleet import actors, alone, ledger, states
from marsjax.studies.fleet.actors import ActorSpec
from marsjax.studies.fleet.states import DayTimes, Grid, Part
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import Work

pytest.importorskip("pyarrow")
pytest.importorskip("ray")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CALL = "experiments.fleet.pretended:open_worker"
GRID = Grid(tuple(DayTimes(name, tuple(range(10))) for name in "ABCD"))
WORKERS = ActorSpec(workers=2)
DRIVER = """
import sys
sys.path.insert(0, {root!r})
from tests.studies.fleet import test_actors
test_actors.go(sys.argv[1], seconds=float(sys.argv[2]), diary=sys.argv[3])
"""


def go(folder: str | Path, spec: ActorSpec = WORKERS, **given: object) -> Tally:
    """A fleet of 40 states that goes on where it was."""
    book, tally = ledger.open_ledger(folder, {}), Tally()
    done = book.done(GRID.count)
    jobs = states.jobs(GRID, Part(), 5, lambda number: bool(done[number]))
    actors.run(Work(CALL, {"seconds": 0.0, **given}, folder=str(ROOT)), book, jobs, tally, spec)
    return tally


def files(folder: Path) -> dict[int, bytes]:
    book = ledger.known_ledger(folder)
    return {number: book.path(number).read_bytes() for number in book.numbers()}


@pytest.fixture(scope="module")
def without_faults(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "out"
    jobs = states.jobs(GRID, Part(), 64, lambda number: False)
    alone.run(Work(CALL, {"seconds": 0.0}), ledger.open_ledger(folder, {}), jobs, Tally())
    return files(folder)


def lines(diary: Path) -> list[tuple[int, int]]:
    """Number and process of each state that was begun."""
    return [(int(number), int(pid)) for number, pid in map(str.split, diary.read_text().splitlines())] if (
        diary.exists()) else []


def wait_for(diary: Path, count: int) -> list[tuple[int, int]]:
    until = time.monotonic() + 120
    while len(lines(diary)) < count and time.monotonic() < until:
        time.sleep(0.02)
    return lines(diary)


def test_a_worker_that_is_killed_costs_the_state_it_was_at(tmp_path: Path, without_faults: dict[int, bytes]) -> None:
    diary, killed = tmp_path / "diary", list[int]()

    def kill() -> None:
        killed.append(wait_for(diary, 12)[-1][1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tally = go(tmp_path / "out", seconds=0.1, diary=str(diary))
    killer.join()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert files(tmp_path / "out") == without_faults
    assert (tally.made, tally.failed, tally.lost_workers) == (40, 0, 1)
    begun = Counter(number for number, _ in lines(diary))
    assert set(begun) == set(range(40)) and sum(begun.values()) <= 41
    twice = [number for number, count in begun.items() if count > 1]
    assert all((number, killed[0]) in lines(diary) for number in twice)


def test_a_driver_that_is_killed_goes_on(tmp_path: Path, without_faults: dict[int, bytes]) -> None:
    diary, out = tmp_path / "diary", tmp_path / "out"
    words = [sys.executable, "-c", DRIVER.format(root=str(ROOT)), str(out), "0.1", str(diary)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, cwd=tmp_path) as driver:
        workers = {pid for _, pid in wait_for(diary, 12)}
        driver.kill()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]  # they end with their driver
    before, begun = files(out), len(lines(diary))
    assert 0 < len(before) < 40
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")  # Ray says nothing of its own
    assert files(out) == without_faults
    again = Counter(number for number, _ in lines(diary)[begun:])
    assert set(again) == set(range(40)) - set(before) and set(again.values()) == {1}


def test_a_state_that_kills_its_workers_fails_alone(tmp_path: Path, without_faults: dict[int, bytes]) -> None:
    tally = go(tmp_path / "out", dies_of=(7,), fails=(12,))
    assert files(tmp_path / "out") == {number: data for number, data in without_faults.items() if number not in (7, 12)}
    assert (tally.made, tally.failed, tally.lost_workers) == (38, 2, 1 + WORKERS.tries)
    assert tally.reasons[7].startswith("3 workers died of it: ActorDiedError")
    assert tally.reasons[12] == "B: expected another state than 12"


def test_a_worker_is_replaced_after_its_jobs(tmp_path: Path, without_faults: dict[int, bytes]) -> None:
    diary = tmp_path / "diary"
    tally = go(tmp_path / "out", ActorSpec(workers=1, most_jobs=3), diary=str(diary))
    assert files(tmp_path / "out") == without_faults
    assert (tally.made, tally.failed, tally.lost_workers) == (40, 0, 0)
    assert list(Counter(pid for _, pid in lines(diary)).values()) == [15, 15, 10]  # eight jobs of five states


def test_a_fault_of_the_program_ends_the_fleet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="non-negative") as caught:
        go(tmp_path / "out", seconds=-1.0)
    assert not isinstance(caught.value, InputError)


def test_what_cannot_begin_is_one_line(tmp_path: Path) -> None:
    book = ledger.open_ledger(tmp_path / "out", {})
    jobs = states.jobs(GRID, Part(), 5, lambda number: False)
    with pytest.raises(InputError, match=r"^work: no module marsjax\.nowhere$"):
        actors.run(Work("marsjax.nowhere:x"), book, jobs, Tally(), WORKERS)
    with pytest.raises(InputError, match=r"ActorSpec\.address: expected auto or HOST:PORT, got 'ray://here'"):
        ActorSpec(address="ray://here")
    with pytest.raises(InputError, match=r"^address: no Ray cluster at 127\.0\.0\.1:9: "):
        actors.run(Work(CALL), book, jobs, Tally(), ActorSpec(address="127.0.0.1:9"))
    with pytest.raises(InputError, match=r"workers died one after the other, and no job was finished"):
        go(tmp_path / "out", dies_of=tuple(range(40)))
