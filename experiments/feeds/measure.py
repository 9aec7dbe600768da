"""How fast a feed is read, and read and replayed, and the most memory that takes; each in a process of its own.

    python experiments/feeds/measure.py lobster long/lobster --lines 10000000
    python experiments/feeds/measure.py sse long/sse --lines 10000000 --only read

Prints a row of the table in README.md: lines/s and orders/s of the reader alone, orders/s of reader and exchange
together (compilation left out), and the peak of resident memory of each.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from marsjax.data import sources
from marsjax.sim import replay


def main(arguments: list[str]) -> None:
    """Measures one feed."""
    parser = argparse.ArgumentParser(description="rates and memory of a feed")
    parser.add_argument("source", choices=sources.names())
    parser.add_argument("path", type=Path)
    parser.add_argument("--lines", type=int, required=True, help="messages of the files, for the rate")
    parser.add_argument("--only", choices=("read", "replay"))
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    given = parser.parse_args(arguments)
    if given.here:
        print(json.dumps(_measure(given.source, given.path, given.only)))
        return
    for what in ("read", "replay"):
        if given.only in (None, what):
            command = [sys.executable, __file__, given.source, str(given.path), "--lines", str(given.lines), "--here",
                       "--only", what]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"| {given.source} | {what} | {given.lines:,} | {found['orders']:,} | {found['seconds']:.1f} | "
                  f"{found['cpu_s']:.1f} | "
                  f"{given.lines / found['seconds']:,.0f} | {found['orders'] / found['seconds']:,.0f} | "
                  f"{found['peak_gb']:.2f} | {found['note']}", flush=True)


def _measure(source: str, path: Path, what: str) -> dict[str, object]:
    (day,) = sources.open_days(source, path)
    began, began_cpu, orders, note, compile_s = time.perf_counter(), time.process_time(), 0, "", 0.0
    if what == "read":
        for chunk in day.read():
            orders += len(chunk.orders.kind)
    else:
        refused: dict[int, int] = {}
        for event in replay.replay(day.venue.market(), [day.read()]):
            if isinstance(event, replay.Stretch):
                orders += len(event.orders.kind)
                for status in event.reports.status.tolist():
                    refused[status] = refused.get(status, 0) + 1
            elif isinstance(event, replay.Closing):
                compile_s = event.compile_s
        note = f"refused {sum(count for status, count in refused.items() if status)}"
    seconds = time.perf_counter() - began - compile_s
    cpu_s = time.process_time() - began_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"orders": orders, "seconds": seconds, "cpu_s": cpu_s, "peak_gb": peak / 1e9, "note": note}


if __name__ == "__main__":
    main(sys.argv[1:])
