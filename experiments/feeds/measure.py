"""How fast a feed is read, and read and replayed, and the most memory that takes; each in a process of its own.

    python experiments/feeds/measure.py lobster long/lobster --lines 10000000
    python experiments/feeds/measure.py sse long/sse --lines 10000000 --only read
    python experiments/feeds/measure.py sse data/sse --symbol 600536 --only replay

Prints a row for the reader alone, and one for reader and exchange together (compilation left out): lines, orders,
seconds of the clock and of computing, lines/s, orders/s, of a replay also the orders/s of the exchange alone, the peak
of resident memory in GB, and orders refused.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from marsjax.data import sources
from marsjax.sim import replay


def main(arguments: list[str]) -> None:
    """Measures one feed."""
    parser = argparse.ArgumentParser(description="rates and memory of a feed")
    parser.add_argument("source", choices=sources.names())
    parser.add_argument("path", type=Path)
    parser.add_argument("--symbol", default="", help="where the folder holds several")
    parser.add_argument("--lines", type=int, default=0, help="messages of the files, for the rate")
    parser.add_argument("--only", choices=("read", "replay"))
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    given = parser.parse_args(arguments)
    if given.here:
        print(json.dumps(_measure(given.source, given.path, given.symbol, given.only)))
        return
    for what in ("read", "replay"):
        if given.only in (None, what):
            command = [sys.executable, __file__, given.source, str(given.path), "--symbol", given.symbol, "--here",
                       "--only", what]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"| {given.source} | {what} | {given.lines:,} | {found['orders']:,} | {found['seconds']:.1f} | "
                  f"{found['cpu_s']:.1f} | "
                  f"{given.lines / found['seconds']:,.0f} | {found['orders'] / found['seconds']:,.0f} | "
                  f"{found['exchange_per_s']:,.0f} | {found['peak_gb']:.2f} | {found['refused']} |", flush=True)


def _measure(source: str, path: Path, symbol: str, what: str) -> dict[str, float]:
    (day,) = sources.open_days(source, path, [symbol] if symbol else [])
    began, began_cpu = time.perf_counter(), time.process_time()
    orders, refused, compile_s, run_s = 0, 0, 0.0, 0.0
    if what == "read":
        for chunk in day.read():
            orders += len(chunk.orders.kind)
    else:
        for event in replay.replay(day.venue.market(), [day.read()]):
            if isinstance(event, replay.Stretch):
                orders += len(event.orders.kind)
                refused += int(np.count_nonzero(event.reports.status))
            elif isinstance(event, replay.Closing):
                compile_s, run_s = event.compile_s, event.run_s
    return {"orders": orders, "seconds": time.perf_counter() - began - compile_s,
            "cpu_s": time.process_time() - began_cpu, "exchange_per_s": orders / run_s if run_s else 0.0,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "refused": refused}


if __name__ == "__main__":
    main(sys.argv[1:])
