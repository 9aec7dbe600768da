"""Processes that share a machine's cores for work on a CPU: each computes on one core, and ends with its parent."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

_CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""Settings of JAX that a process has from its parent."""
_TASKS = 64
"""Of one process, on average: JAX keeps some megabytes of each replay that it compiled, so others take over in time."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def results(calls: Sequence[Callable[[], Any]], count: int) -> Iterator[Any]:
    """What the calls return, as it comes, made by so many processes at a time; the first error ends it.

    After some calls new processes take over. `max_tasks_per_child` of the executor is not used for that: with all
    calls submitted at once it starts no process in place of those that have ended (Python 3.11 and 3.12).
    """
    together = _TASKS * count
    for first in range(0, len(calls), together):
        part = calls[first : first + together]
        with started(min(count, len(part))) as executor:
            for done in concurrent.futures.as_completed([executor.submit(call) for call in part]):
                yield done.result()


@contextlib.contextmanager
def started(count: int) -> Iterator[concurrent.futures.Executor]:
    """So many processes, started when there is work for them; JAX works on the CPU there.

    They are new processes and import what the work needs: a script that calls this needs
    `if __name__ == "__main__":`. When the block is left by an exception, work that has not begun is given up.
    """
    settings = {name: getattr(jax.config, name) for name in _CACHE}
    executor = concurrent.futures.ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin, (settings,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(settings: dict[str, object]) -> None:
    """In a new process, before its first work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    # XLA reads both when it makes its threads, at the first computation.
    os.environ["NPROC"] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    for name, value in {**settings, "jax_platforms": "cpu"}.items():
        jax.config.update(name, value)


def _end_with_parent() -> None:
    """A killed parent tells its processes nothing: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
