"""A fleet's jobs on workers of a Ray cluster: one for each GPU, or for some processor cores.

A worker is a Ray actor that lives for many jobs. JAX starts inside it alone. It has one job at a time, so what
waits in the driver and in Ray does not grow with the states. Ray is imported when a fleet begins
(pip install 'marsjax[ray]').
"""

import collections
import contextlib
import dataclasses
import logging
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from marsjax.core.errors import InputError, brief
from marsjax.core.limits import check_whole
from marsjax.studies.fleet import work
from marsjax.studies.fleet.ledger import Ledger
from marsjax.studies.fleet.states import Job
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import StateOutcome, Work, Worker

_LEAST_DEATHS = 10
"""Of workers in a row, none of which made a state, before the fleet ends; with many workers more."""
_STORE_BYTES = 80 * 2**20
"""Of a local cluster's object store: only numbers and texts pass through it."""
_PATIENCE_S = 10.0
"""For a cluster's address to answer."""


@dataclasses.dataclass(frozen=True)
class ActorSpec:
    """Which workers there are."""

    address: str = ""
    """Of a Ray cluster (auto: the one that this machine is in; host:port); empty: one of this machine, for the time of
    the fleet."""
    workers: int = 0
    """0: as many as the cluster has GPUs, or if it has none, as its processor cores make."""
    cores: int = 1
    """Processor cores of a worker, which are as many threads of the compiled programs on a CPU."""
    tries: int = 3
    """Workers that may die of one state before it counts as failed."""
    most_jobs: int = 256
    """After which a worker is replaced: each program that it has compiled keeps some megabytes."""

    def __post_init__(self) -> None:
        for name, low, high in (("workers", 0, 4096), ("cores", 1, 1024), ("tries", 1, 100), ("most_jobs", 1, 10**9)):
            check_whole(f"ActorSpec.{name}", getattr(self, name), low, high)
        if self.address not in ("", "auto") and not re.fullmatch(r"[^\s/:]+:\d{1,5}", self.address):
            raise InputError(f"ActorSpec.address: expected auto or HOST:PORT, got {self.address!r}")


def run(given: Work, ledger: Ledger, jobs: Iterable[Job], tally: Tally, spec: ActorSpec) -> None:
    """Does the jobs; a worker that dies is replaced, and of its job only states that are not done are made again.

    These are then made one by one, so that a state that kills workers fails alone, after `spec.tries` of them.
    InputError where there is no Ray or no such cluster, where no machine has what a worker needs, where the work cannot
    be begun, and where workers die one after the other before they make anything.
    """
    own = len(os.sched_getaffinity(0))
    if not spec.address and spec.cores > own:
        raise InputError(f"cores: expected at most the {own} processor cores of this machine for a worker, got "
                         f"{spec.cores}: give fewer (--config.cores={own})")
    with _cluster(spec) as nodes:
        doing = _Jobs(given, ledger, tally, spec, workers_of(nodes, spec))
        doing.hire()
        doing.work_off(iter(jobs))


class FleetWorker:
    """What runs in a worker's process."""

    def __init__(self, given: Work, ledger: Ledger, threads: int) -> None:
        self._given, self._ledger, self._threads = given, ledger, threads
        self._worker: Worker | None = None

    def begin(self) -> None:
        """Gets ready; errors are those of `Work.open`."""
        # XLA reads it when its first device starts, and makes a pool of so many threads.
        os.environ["NPROC"] = os.environ["OMP_NUM_THREADS"] = str(self._threads)
        self._worker = self._given.open()

    def perform(self, job: Job) -> list[StateOutcome]:
        """As `work.perform`."""
        if self._worker is None:
            raise RuntimeError("FleetWorker.perform: expected begin before it")
        return work.perform(self._worker, self._ledger, job)


class Node(NamedTuple):
    """What a machine of a cluster has."""

    cores: int
    gpus: int


class Crew(NamedTuple):
    """How many workers there are, and the GPUs of each."""

    workers: int
    gpus: int


def workers_of(nodes: Sequence[Node], spec: ActorSpec) -> Crew:
    """The workers of a cluster: `spec.workers`, or as many as have room on its machines.

    InputError where no machine has room for one: Ray would wait for such a machine without an end.

    Examples:
      >>> workers_of([Node(cores=8, gpus=0), Node(cores=3, gpus=0)], ActorSpec(cores=2))
      Crew(workers=5, gpus=0)
      >>> workers_of([Node(cores=8, gpus=2), Node(cores=64, gpus=0)], ActorSpec(cores=2))
      Crew(workers=2, gpus=1)
    """
    gpus = int(any(node.gpus for node in nodes))
    room = sum(min(node.cores // spec.cores, node.gpus if gpus else node.cores) for node in nodes)
    if not room:
        have = ", ".join(f"{node.cores} with {node.gpus} GPUs" for node in sorted(set(nodes), reverse=True)[:4])
        raise InputError(f"cores: expected at most the processor cores of a machine{' with a GPU' if gpus else ''} for "
                         f"a worker, got {spec.cores}; machines of the cluster have {have or 'none'}: give fewer "
                         "(--config.cores)")
    return Crew(spec.workers or room, gpus)


@contextlib.contextmanager
def _cluster(spec: ActorSpec) -> Iterator[list[Node]]:
    """Joins a cluster, or begins one that ends with the block; its machines."""
    ray = _ray()
    # Ray's own handlers of signals would take the place of the program's.
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    given: dict[str, Any] = {"address": spec.address} if spec.address else {
        "address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES,
        "num_cpus": max(len(os.sched_getaffinity(0)), spec.workers * spec.cores)}
    try:
        if spec.address not in ("", "auto"):  # Ray itself looks for minutes
            host, _, port = spec.address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
        with warnings.catch_warnings():
            # Ray's processes begin by a fork that another program follows at once: no thread of JAX is needed in it.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            ray.init(**given, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(f"address: no Ray cluster at {spec.address or 'this machine'}: {brief(error, 300)}") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in found]
    finally:
        ray.shutdown()


def _ray() -> Any:
    """The package; what it says on its own is kept off the terminal."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # a paragraph for each worker that dies
    try:
        import ray
    except ImportError as error:
        raise InputError("address: a fleet of several workers needs Ray: pip install 'marsjax[ray]', or run processes "
                         "of your own (--config.part=1/2, --config.part=2/2)") from error
    return ray


@dataclasses.dataclass
class _Hired:
    """A worker's actor, and how many jobs it has done."""

    actor: Any
    jobs: int = 0


class _Jobs:
    """The workers, and who does what."""

    def __init__(self, given: Work, ledger: Ledger, tally: Tally, spec: ActorSpec, crew: Crew) -> None:
        self._ray, self._ledger, self._tally, self._spec, self._crew = _ray(), ledger, tally, spec, crew
        # Sent once, however many workers there are.
        self._given = self._ray.put((given, ledger, spec.cores))
        self._busy: dict[Any, tuple[_Hired, Job]] = {}
        """By what they will answer: workers, and their jobs (none for those that get ready)."""
        self._idle: list[_Hired] = []
        self._again: collections.deque[Job] = collections.deque()
        """Taken before, one state each where its worker died."""
        self._deaths: collections.Counter[int] = collections.Counter()
        """Of workers, by the state that they had alone."""
        self._in_a_row = 0

    def hire(self) -> None:
        """Begins with all workers; each gets jobs once it is ready."""
        for _ in range(self._crew.workers):
            self._hire_one()

    def work_off(self, jobs: Iterator[Job]) -> None:
        """Until no job is left; a job is taken from `jobs` when a worker is free for it."""
        while True:
            while self._idle and (job := self._again.popleft() if self._again else next(jobs, None)):
                worker = self._idle.pop()
                if worker.jobs < self._spec.most_jobs:
                    self._busy[worker.actor.perform.remote(job)] = worker, job
                else:
                    self._again.appendleft(job)
                    self._ray.kill(worker.actor)
                    self._hire_one()
            if self._idle and not any(job for _, job in self._busy.values()):
                return
            ready, _ = self._ray.wait(list(self._busy), num_returns=1)
            for answer in ready:
                self._take(answer, *self._busy.pop(answer))

    def _hire_one(self) -> None:
        actor = self._ray.remote(_RemoteWorker).options(
            num_cpus=self._spec.cores, num_gpus=self._crew.gpus, max_restarts=0, max_task_retries=0)
        worker = _Hired(actor.remote(self._given))
        self._busy[worker.actor.begin.remote()] = worker, ()

    def _take(self, answer: Any, worker: _Hired, job: Job) -> None:
        """What a worker answers; in place of one that died there is another."""
        errors = self._ray.exceptions
        try:
            outcomes = self._ray.get(answer)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            first_sentence = str(error).partition("\n")[0].partition(". ")[0]
            self._lose(worker, job, f"{type(error).__name__}: {brief(first_sentence, 120)}")
            return
        self._idle.append(worker)
        if job:
            worker.jobs += 1
            self._in_a_row = 0
            self._tally(outcomes)

    def _lose(self, worker: _Hired, job: Job, reason: str) -> None:
        self._ray.kill(worker.actor)  # it may only be out of reach
        self._tally.lose_worker()
        self._in_a_row += 1
        if self._in_a_row > max(_LEAST_DEATHS, 3 * self._crew.workers):
            raise InputError(f"{self._in_a_row} workers died one after the other, and no job was finished between them "
                             f"(memory, drivers?); the last: {reason}")
        for state in job:
            if len(job) == 1:
                self._deaths[state.number] += 1
            if self._ledger.is_done(state.number):
                self._tally([StateOutcome(state.number, problems=self._ledger.problems(state.number) or ())])
            elif self._deaths[state.number] >= self._spec.tries:
                deaths = self._deaths.pop(state.number)
                self._tally([StateOutcome(state.number, f"{deaths} workers died of it: {reason}")])
            else:
                self._again.append((state,))
        self._hire_one()


class _RemoteWorker(FleetWorker):
    """A `FleetWorker` of arguments that were put into the cluster's store."""

    def __init__(self, given: tuple[Work, Ledger, int]) -> None:
        super().__init__(*given)
