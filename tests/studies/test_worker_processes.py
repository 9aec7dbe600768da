"""Processes beside a program: they work on the CPU, on one core each, and do not outlive it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from marsjax.studies import worker_processes

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import os, time
from marsjax.studies import worker_processes
if __name__ == "__main__":
    with worker_processes.started(1) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        executor.submit(time.sleep, 600)
        time.sleep(600)
"""
MANY = """
import os
from marsjax.studies import worker_processes
if __name__ == "__main__":
    worker_processes._TASKS = 2
    print(*worker_processes.results([os.getpid] * 9, 2))
"""


def lives(pid: int) -> bool:
    """Whether a process goes on; one that nobody has waited for yet does not."""
    path = pathlib.Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def command(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def test_more_calls_than_processes_may_take_come_to_an_end() -> None:
    """Each process takes few calls, then others take over: of nine calls the last is made by the third lot."""
    made = subprocess.run(command(MANY), env=environment(), stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    found = [int(pid) for pid in made.stdout.split()]
    assert len(found) == 9 and not set(found[:4]) & set(found[4:8]) and found[8] not in found[:8]


def test_a_killed_program_leaves_no_process(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen(command(PROGRAM), env=environment(), stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert lives(pid) and pid != program.pid
        program.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not lives(pid)


def test_a_process_computes_on_one_core_of_the_cpu() -> None:
    with worker_processes.started(1) as executor:
        assert executor.submit(jax.default_backend).result() == "cpu"
        assert executor.submit(os.getenv, "NPROC").result() == "1"
        assert executor.submit(os.getpid).result() != os.getpid()
