"""Whether what a day teaches a model depends on the number of threads: a hash of the weights.

    for threads in 1 2; do NPROC=$threads PYTHONPATH=. python experiments/fleet/threads.py --folder=data/sse; done
"""

import argparse
import os

from marsjax.core import times
from marsjax.experiments import config as configs
from marsjax.experiments import fleet_work, setup
from marsjax.studies import adapted, order_model


def main() -> None:
    """Teaches the default model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="data/sse")
    parser.add_argument("--symbol", default="600519")
    parser.add_argument("--date", default="20230201")
    parser.add_argument("--before", default="09:40:00")
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    path, arg = configs.find(f"fleet:forecast,folder={given.folder},symbol={given.symbol},date={given.date}")
    config = configs.load(path, arg)
    prepared = setup.load_order_model(config)
    ((market, feed),) = fleet_work.days_of(config).values()
    own, said = adapted.to_day(prepared, market, feed, times.of_clock(given.before), given.steps)
    print(f"NPROC={os.environ.get('NPROC', '')}, {len(os.sched_getaffinity(0))} cores: {said}; sha256 "
          f"{order_model.parameters_hash(own.model.model)[:12]}")


if __name__ == "__main__":
    main()
