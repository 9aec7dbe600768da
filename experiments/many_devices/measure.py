"""The same futures on one device and on several of this process: time, and whether they are equal.

    python experiments/many_devices/measure.py --made=8 --trajectories=1024    # 8 devices made of this CPU
    python experiments/many_devices/measure.py --trajectories=8192             # the accelerators that are there

Forecasts of the default model from its day `default`, with the same draws each time, on one device and on all, in turn.
Prints a line of JSON: seconds of the rollouts (medians, compilation apart), their ratio, and whether every minute of
every trajectory, every counter and every label is the same.
"""

import argparse
import hashlib
import json
import os
import statistics
from typing import Any


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--made", type=int, default=0, help="so many devices made of this CPU")
    parser.add_argument("--trajectories", type=int, default=1024)
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.made:  # before JAX starts
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = (f"{os.environ.get('XLA_FLAGS', '')} "
                                   f"--xla_force_host_platform_device_count={given.made}").strip()
    print(json.dumps(measured(given.trajectories, given.minutes, given.repeats)))


def measured(trajectories: int, minutes: int, repeats: int) -> dict[str, Any]:
    """What is printed."""
    import jax
    import numpy as np

    import marsjax
    from marsjax.checkpoint import load
    from marsjax.data import made_days
    from marsjax.studies import futures, order_model, rollout_summary, starts
    from marsjax.studies.futures import FuturesSpec

    day = made_days.open_day(load.folder_of("default"), "default")
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    market = day.feed.venue.market(capacity=8192, accounts=futures.ACCOUNT + 1, trade_width=32)
    (start,) = starts.states_of_feed(market, prepared, day.feed, [day.start_ns]).starts
    counts = (1, len(jax.local_devices()))
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    found = set()
    for _ in range(repeats):
        for count in counts:
            spec = FuturesSpec(trajectories, minutes, devices=count)
            (run,) = futures.simulate(prepared, market, spec, [start])
            seconds[count].append(run.run_s)
            leaves = jax.tree.leaves((run.bars, run.status, rollout_summary.labels(run)))
            found.add(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest())
    medians = {count: statistics.median(each) for count, each in seconds.items()}
    one, several = (medians[count] for count in counts)
    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "devices": counts[1],
            "trajectories": trajectories, "minutes": minutes, "orders": run.order_count,
            "seconds": {str(count): [round(x, 3) for x in each] for count, each in seconds.items()},
            "seconds_of_several_over_one": round(several / one, 3), "equal": len(found) == 1}


if __name__ == "__main__":
    main()
