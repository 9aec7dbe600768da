"""How many windows a second token shards give, to no model at all, and the memory that this takes.

    python experiments/token_shards/stream_rate.py runs/shards --days 200 --batch 16 --steps 2000
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

from marsjax.studies import token_shards
from marsjax.training import loop
from marsjax.training.stored import StreamedDays
from marsjax.training.stream import WindowStream
from tests.peak_memory import peak_bytes


def main(arguments: list[str]) -> None:
    """Reads the windows of some steps."""
    parser = argparse.ArgumentParser(description="windows a second")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=200, help="the first ones")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--together", type=int, default=8, help="steps of a call")
    given = parser.parse_args(arguments)
    every = token_shards.opened(given.folder, check=False).split.training
    days = StreamedDays(every[: given.days], "", given.together)
    for path in (day.path for day in days):
        with path.open("rb") as file:  # so that windows come from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    windows = int(loop.window_counts(given.length, days).sum())
    numbers = np.asarray(loop.drawn(jax.random.key(0), np.arange(given.steps), given.batch, windows))
    calls = [numbers[first : first + given.together, None] for first in range(0, given.steps, given.together)]
    for name in ("from the disk", "again"):
        before, computed = time.perf_counter(), time.process_time()
        stream = WindowStream(days, given.length, calls, None)
        for _ in calls:
            stream.next(None)
        stream.close()
        seconds, computed = time.perf_counter() - before, time.process_time() - computed
        size = numbers.size * (given.length + 1) * days[0].columns * 4 / 1e6
        print(f"{name}: {len(days)} days, {numbers.size:,} windows, {numbers.size / seconds:,.0f} a second "
              f"({size / seconds:,.0f} MB/s), {computed / numbers.size * 1e6:.0f} us of computing each; "
              f"at most {peak_bytes() / 1e9:.2f} GB")


if __name__ == "__main__":
    main(sys.argv[1:])
