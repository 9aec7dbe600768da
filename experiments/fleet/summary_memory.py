"""Memory of the summary of market impact in many states, of made-up rollouts.

    PYTHONPATH=. python experiments/fleet/summary_memory.py --states=400

Prints by how much the largest memory of the process grew while the report was made. Linux.
"""

import argparse
import resource
from collections.abc import Sequence

import numpy as np
import pandas as pd

from marsjax.studies.fleet import executing


def made_up(state: int, futures: int, ratios: Sequence[float], minutes: int) -> pd.DataFrame:
    """The table of a state, as `executing.impacts` describes it."""
    rng = np.random.default_rng(state)
    groups = [(executing.SAME_DRAWS, 0, 0.0), (executing.OTHER_DRAWS, 0, 0.0),
              *((executing.EXECUTED, 1, ratio) for ratio in ratios)]
    kinds, signs, sizes = zip(*groups, strict=True)
    rows = futures * len(groups)
    mids = 1e6 + 100.0 * rng.integers(-9, 10, (rows, minutes + 1)).cumsum(axis=1)
    mids[:, 0] = 1e6
    volume, shares, cash = (list(rng.integers(1, 10_000, (rows, minutes))) for _ in range(3))
    return pd.DataFrame({
        "state": np.full(rows, state), "market": "600519_20230201", "time_ns": 36_000 * 10**9,
        "kind": np.repeat(kinds, futures), "trajectory": np.tile(np.arange(futures, dtype=np.int32), len(groups)),
        "sign": np.repeat(signs, futures), "ratio": np.repeat(sizes, futures), "target": np.full(rows, 10_000),
        "lost": np.zeros(rows, bool), "mids": list(mids), "volume": volume, "shares": shares, "cash": cash})


def largest_mib() -> float:
    """Memory of this process when it was largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=400)
    count = parser.parse_args().states
    made_up(0, 128, (0.1, 0.3, 0.5), 5)
    before = largest_mib()
    executing.report((made_up(state, 128, (0.1, 0.3, 0.5), 5) for state in range(count)), 5, 20, 0)
    grown = largest_mib() - before
    print(f"{count} states: {grown:.0f} MiB more, {grown * 1024 / count:.0f} KiB a state")


if __name__ == "__main__":
    main()
