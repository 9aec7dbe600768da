"""Steps a second of environments for learners, under a random policy.

    python experiments/rl_speed/speed.py --background=noise --envs=64,1024,4096 --messages=1,100

Prints a line of JSON for each number of environments and of messages a step. A compiled call makes `--unroll` steps,
actions drawn inside; what is counted are whole calls of at least `--seconds`, after one that is not counted.
"""

import argparse
import functools
import json
import time
from typing import Any

import jax
import numpy as np

from marsjax import MarketSpec, load_order_model, rl
from marsjax.checkpoint import load
from marsjax.core.sessions import continuous_session
from marsjax.data import made_days
from marsjax.rl.env import EpisodeState, MarketEnv, Params
from marsjax.sim import initial
from marsjax.sim.simulator import Simulator


def replay(capacity: int, messages: int, starts: int) -> tuple[MarketEnv, Params]:
    """A made day of the default model, from its start to its end."""
    day = made_days.open_day(load.folder_of("default"), "default")
    market = day.feed.venue.market(capacity=capacity)
    last_ns = max(int(chunk.orders.time.s[-1]) for chunk in day.feed.read()) * 10**9
    return rl.make("execution", background="replay", feed=day.feed, between_ns=(last_ns - 600 * 10**9, last_ns),
                   starts=starts, stride=rl.Stride(messages), market=market, steps=8 if messages > 10 else 64)


def noise(capacity: int, messages: int, starts: int) -> tuple[MarketEnv, Params]:
    """Books after half an hour of the noise agent."""
    market = MarketSpec(capacity=capacity, accounts=2, session=continuous_session(0, 86_399 * 10**9))
    return rl.make("execution", background="noise", market=market, starts=starts, stride=rl.Stride(messages))


def model(capacity: int, messages: int, starts: int) -> tuple[MarketEnv, Params]:
    """The default order model, from the start of its made day; a step is so many tenths of a second."""
    loaded = load_order_model("default")
    day = made_days.open_day(load.folder_of("default"), "default")
    market = day.feed.venue.market(accounts=3, capacity=capacity)
    table = Simulator.of(loaded, market).table
    times_ns = [day.start_ns + 10**9 * i for i in range(starts)]
    found = [start for start, _ in initial.from_feed_at(market, table, day.feed.read(), times_ns,
                                                        loaded.spec.context_length)]
    return rl.make("execution", background="model", model=loaded, market=market, starts=found,
                   step_ns=10**8 * messages)


MADE = {"replay": replay, "noise": noise, "model": model}


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(env: Any, steps: int, key: jax.Array, state: EpisodeState, params: Params) -> tuple[EpisodeState, jax.Array]:
    """So many steps of all environments under random actions, and the mean reward."""
    count = state.time.shape[0]

    def one(carry: tuple[EpisodeState, jax.Array], _: None) -> tuple[tuple[EpisodeState, jax.Array], jax.Array]:
        state, key = carry
        key, key_act, key_step = jax.random.split(key, 3)
        action = jax.random.randint(key_act, (count,), 0, env.num_actions)
        _, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(key_step, count), state, action, params)
        return (state, key), reward.mean()

    (state, _), reward = jax.lax.scan(one, (state, key), None, steps)
    return state, reward.mean()


def measured(env: MarketEnv, params: Params, count: int, given: argparse.Namespace) -> dict[str, float]:
    """Steps a second of `count` environments."""
    state = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jax.random.key(0), count), params)[1]
    began = time.perf_counter()
    state, _ = jax.block_until_ready(run(env, given.unroll, jax.random.key(1), state, params))
    compile_s, calls, began = time.perf_counter() - began, 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < given.seconds:
        state, reward = run(env, given.unroll, jax.random.key(2 + calls), state, params)
        jax.block_until_ready(reward)
        calls += 1
    return {"steps_per_s": calls * given.unroll * count / passed, "first_call_s": compile_s,
            "state_mib": sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state)) / 2**20}


def main() -> None:
    """Measures what the flags say."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--background", choices=sorted(MADE), required=True)
    flags.add_argument("--envs", default="64", help="numbers of environments, separated by commas")
    flags.add_argument("--messages", default="1", help="messages a step, separated by commas")
    flags.add_argument("--capacity", type=int, default=1024, help="slots a side of a book")
    flags.add_argument("--starts", type=int, default=16)
    flags.add_argument("--unroll", type=int, default=16, help="steps of a compiled call")
    flags.add_argument("--seconds", type=float, default=5.0)
    given = flags.parse_args()
    for messages in map(int, given.messages.split(",")):
        env, params = MADE[given.background](given.capacity, messages, given.starts)
        for count in map(int, given.envs.split(",")):
            row = {"background": given.background, "envs": count, "messages": messages, "capacity": given.capacity,
                   "device": jax.devices()[0].device_kind, "jax": jax.__version__}
            print(json.dumps(row | measured(env, params, count, given)), flush=True)


if __name__ == "__main__":
    main()
