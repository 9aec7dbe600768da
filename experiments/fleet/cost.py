"""GPU hours of a day of futures at the paper's scale, by measured speeds and orders a minute.

    PYTHONPATH=. python experiments/fleet/cost.py data/sse

Counts the orders a minute of continuous trading of the days in a folder, and writes a table of hours by orders a minute
and by speed. Reaching the states (one pass over each day) is not in it.
"""

import sys

from marsjax.core import times
from marsjax.data import sources
from marsjax.studies.session_times import MINUTE_NS, continuous

STOCKS, STARTS, FUTURES, MINUTES = 500, 12, 128, 5
SPEEDS = {"1 x 16 (2M), 16,384 at once": 13_226_835, "1 x 16 (2M), 4,096 at once": 9_631_452,
          "24 x 1024, bfloat16, 128 at once": 44_930, "24 x 1024, bfloat16, 512 at once": 71_404}
"""Orders/s on one H200, docs/performance.md."""
MADE = {"quiet, futures": 30, "default, futures": 144, "busy, futures": 372}
"""Orders a minute, experiments/default_market/README.md."""


def orders_a_minute(folder: str) -> dict[str, float]:
    """Orders in continuous trading over its minutes, by day."""
    found = {}
    for feed in sources.open_days("sse", folder, [], ""):
        periods = continuous(feed.venue.session)
        at = [ns for chunk in feed.read() for ns in times.to_ns(chunk.orders.time).tolist()]
        inside = sum(any(period.start_ns <= ns <= period.end_ns for period in periods) for ns in at)
        found[f"{feed.name}, real"] = inside / sum((period.end_ns - period.start_ns) / MINUTE_NS for period in periods)
    return found


def main() -> None:
    """Prints the table."""
    futures = STOCKS * STARTS * FUTURES
    print(f"{STOCKS} stocks x {STARTS} starts x {FUTURES} futures = {futures:,} futures of {MINUTES} minutes a day")
    print(f"| market | orders a minute | orders a day of futures | {' | '.join(SPEEDS)} |")
    for name, rate in {**orders_a_minute(sys.argv[1]), **MADE}.items():
        orders = futures * MINUTES * rate
        hours = " | ".join(f"{orders / speed / 3600:.3g} h" for speed in SPEEDS.values())
        print(f"| {name} | {rate:.0f} | {orders / 1e6:,.0f} M | {hours} |")


if __name__ == "__main__":
    main()
