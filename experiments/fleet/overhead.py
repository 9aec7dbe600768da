"""What a fleet costs beside its work: states that sleep, on a Ray cluster of this machine.

    PYTHONPATH=. python experiments/fleet/overhead.py --states=10000 --seconds=0.01 --workers=2

Prints the wall time from the first state to the last, that of as many plain processes which only sleep as often, the
overhead a state by the difference, the processor time that a state takes (it says more where other programs share the
cores), and the memory of the driver while it ran. Linux.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from marsjax.studies.fleet import actors, ledger, states
from marsjax.studies.fleet.actors import ActorSpec
from marsjax.studies.fleet.states import DayTimes, Grid, Job, Part
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import StateOutcome, Work

CALL = "experiments.fleet.pretended:open_worker"


def resident_mib() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def processor_s() -> float:
    """Processor time of this process and of all below it, Ray's own too."""
    parents, seconds = dict[int, int](), dict[int, float]()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(fields[1])
            seconds[int(place.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_own(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_own(parents[pid]))

    return sum(spent for pid, spent in seconds.items() if is_own(pid))


class TimedTally(Tally):
    """Knows when the last states came to an end, and how much processor time all took until then."""

    ended = spent = 0.0
    states = 0

    def __call__(self, outcomes: Sequence[StateOutcome]) -> None:
        """Counts, and looks at the clocks."""
        super().__call__(outcomes)
        self.ended = time.perf_counter()
        if self.made == self.states:
            self.spent = processor_s()


def slept(states: int, seconds: float, workers: int) -> float:
    """Wall time of plain processes that share the sleeping."""
    code = "import sys, time\nfor _ in range(int(sys.argv[1])):\n    time.sleep(float(sys.argv[2]))"
    began = time.perf_counter()
    processes = [subprocess.Popen([sys.executable, "-c", code, str(states // workers), str(seconds)])
                 for _ in range(workers)]
    for process in processes:
        process.wait()
    return time.perf_counter() - began


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    times = tuple(range(given.states // given.days))
    grid = Grid(tuple(DayTimes(f"day_{number}", times) for number in range(given.days)))
    tally, memory, began, spent = TimedTally(), list[tuple[int, float]](), list[float](), list[float]()
    tally.states = grid.count

    def watched(jobs: Iterator[Job]) -> Iterator[Job]:
        """Jobs as they are taken: when the first was, and how much memory the driver has."""
        for number, job in enumerate(jobs):
            if not began:
                began.append(time.perf_counter())
                spent.append(processor_s())
            if number % 20 == 0:
                memory.append((tally.made, resident_mib()))
            yield job

    with tempfile.TemporaryDirectory() as folder:
        book = ledger.open_ledger(Path(folder) / "fleet", {"states": grid.count})
        work = Work(CALL, {"seconds": given.seconds})
        entered = time.perf_counter()
        with tally.shown(0, grid.count):
            jobs = watched(states.jobs(grid, Part(), given.batch, lambda number: False))
            actors.run(work, book, jobs, tally, ActorSpec(workers=given.workers))
        files = len(book.numbers())
    wall = tally.ended - began[0]
    plain = slept(grid.count, given.seconds, given.workers)
    overhead_ms, above_ms = ((wall - other) * given.workers / grid.count * 1000
                             for other in (plain, grid.count * given.seconds / given.workers))
    print(f"{tally.made} states, {files} files, {given.workers} workers, batch {given.batch}: {wall:.2f} s from the "
          f"first job to the last answer; the cluster and its workers began in {began[0] - entered:.1f} s")
    print(f"processor time of driver, workers and Ray: {(tally.spent - spent[0]) / grid.count * 1000:.2f} ms a state")
    print(f"plain processes that only sleep: {plain:.2f} s; overhead {overhead_ms:.2f} ms a state, workers x (wall - "
          f"theirs) / states; {above_ms:.2f} ms above {given.seconds * 1000:g} ms")
    print("driver, MiB by states made: " + ", ".join(f"{made}: {mib:.1f}" for made, mib in memory))


if __name__ == "__main__":
    main()
