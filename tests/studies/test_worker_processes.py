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


def lives(pid: int) -> bool:
    """Whether a process goes on; one that nobody has waited for yet does not."""
    path = pathlib.Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_killed_program_leaves_no_process(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
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
