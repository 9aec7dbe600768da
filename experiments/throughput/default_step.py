"""A step of the default model and of its parts, from the day that comes with it, on this machine's device.

    python experiments/throughput/default_step.py                    # 128 trajectories
    python experiments/throughput/default_step.py --trajectories=4096

Prints a line of JSON: milliseconds of a whole step (median and quartiles of `--repeats` stretches of `--steps`), and of
its parts, each compiled apart (`studies.benchmark_parts`).
"""

import argparse
import dataclasses
import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

import marsjax
from marsjax.checkpoint import load
from marsjax.core import times
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days
from marsjax.sim import step as sim_step
from marsjax.sim.initial import resize
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import SimState
from marsjax.studies import benchmark_book, benchmark_parts, futures, order_model, starts


def begin(day_name: str, trajectories: int, exchange: str = "") -> tuple[Simulator, SimState]:
    """A simulator and the states at the day's end, with as many slots as a forecast gives them."""
    day = made_days.open_day(load.folder_of("default"), day_name)
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    market = day.feed.venue.market(capacity=8192, accounts=futures.ACCOUNT + 1, trade_width=32)
    (start,) = starts.states_of_feed(market, prepared, day.feed, [day.start_ns]).starts
    capacity = futures.first_capacity(futures.FuturesSpec(trajectories, 5), [start])
    market = dataclasses.replace(market, capacity=capacity)
    simulator = prepared.simulator(market).replace(account=futures.ACCOUNT)
    if exchange:
        market = dataclasses.replace(market, kernels=benchmark_book.ways_of(exchange))
        simulator = simulator.replace(market=market)
    start = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], trajectories, axis=0), resize(start, capacity))
    until = times.from_ns(np.full(trajectories, day.start_ns + 3600 * SECOND_NS))
    return simulator, jax.jit(sim_step.begin)(simulator, start, np.arange(trajectories, dtype=np.int32), (), until)


@functools.partial(jax.jit, static_argnums=2)
def several(simulator: Simulator, state: SimState, steps: int) -> SimState:
    """The states some steps later."""
    prepared = simulator.prepared()

    def one(_: jax.Array, state: SimState) -> SimState:
        return sim_step.step(prepared, state, sim_step.draw(jnp.uint32(0), state.trajectory, state.step))[0]

    found: SimState = jax.lax.fori_loop(0, steps, one, state)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--day", choices=made_days.NAMES, default="default")
    parser.add_argument("--exchange", default="", help="xla or kernel; by default the device's way")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    simulator, state = begin(given.day, given.trajectories, given.exchange)
    taken = []
    state = jax.block_until_ready(several(simulator, state, given.steps))
    for _ in range(given.repeats):
        began = time.perf_counter()
        state = jax.block_until_ready(several(simulator, state, given.steps))
        taken.append((time.perf_counter() - began) / given.steps * 1000)
    parts = benchmark_parts.seconds(simulator, state, given.steps, 5)
    low, median, high = np.percentile(taken, (25, 50, 75))
    print(json.dumps({
        "device": jax.devices()[0].device_kind, "jax": jax.__version__, "trajectories": given.trajectories,
        "capacity": simulator.spec.market.capacity, "ms": round(median, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "orders_per_s": round(given.trajectories / median * 1000),
        "parts_ms": {name: round(1000 * value, 3) for name, value in parts.items()}}))


if __name__ == "__main__":
    main()
