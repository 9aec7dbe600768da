"""Runs a command and says how long it took and how much memory it held at most, its processes together.

    python experiments/token_shards/measure.py marsjax prepare --config=prepare:default,folder=long/sse

Memory is the resident set, looked at five times a second; what processes share counts for each, so it is an upper
bound. `--kill-at FILE` ends the command by SIGKILL as soon as there is such a file.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> int:
    """Returns the command's exit code."""
    parser = argparse.ArgumentParser(description="time and memory of a command")
    parser.add_argument("--kill-at", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    began, most, most_of_one = time.perf_counter(), 0, 0
    process = subprocess.Popen(given.command)
    while process.poll() is None:
        held = [resident(pid) for pid in family(process.pid)]
        most, most_of_one = max(most, sum(held)), max(most_of_one, *held, 0)
        if given.kill_at and given.kill_at.exists():
            process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
    computed = sum(os.times()[2:4])
    print(f"{time.perf_counter() - began:.0f} s, {computed:.0f} s of computing; at most {most / 1e9:.2f} GB, "
          f"{most_of_one / 1e9:.2f} GB in one process; exit code {process.returncode}")
    return process.returncode


def family(pid: int) -> list[int]:
    """A process and all those that it and its own have started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def resident(pid: int) -> int:
    """Bytes; 0 where the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
