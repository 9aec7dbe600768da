"""The parts of a rollout's step, compiled apart: their times, and the bytes that a step has to move."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from marsjax.agents import background
from marsjax.core import int64, kernels
from marsjax.core.records import Array, Time, Token
from marsjax.market import exchange
from marsjax.market.process import NOT_MADE, MarketState, process
from marsjax.model import kv_cache, sampling
from marsjax.model.layers import LEVELS, SIGNALS
from marsjax.sim import step as sim_step
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import SimState
from marsjax.tokens import encoding
from marsjax.tokens.encoding import SampledOrder


def bytes_moved(simulator: Simulator, trajectories: int) -> dict[str, int]:
    """Bytes that one step reads and writes at least, were nothing read twice.

    Every slot of the cache counts, filled or not, where all are read; of contexts that the kernel reads those that are
    filled on average between two refreshes, and where a prefix is shared those of a step before the first of them. The
    logits stay on chip.
    """
    model, cache = simulator.model, simulator.spec.cache
    spec, by_kernel = model.spec, kernels.chosen(cache.kernels).attention == "kernel"
    in_8_bits = cache.cache_dtype == "int8"
    vector = spec.embed_dim + 4 * spec.heads if in_8_bits else spec.embed_dim * jnp.dtype(model.compute.dtype).itemsize
    token, slots = 2 * trajectories * spec.layers * vector, float(spec.context_length)
    common = cache.kept(spec) if cache.prefix == "shared" else 0
    if by_kernel and cache.mode == "refresh":
        slots = cache.kept(spec) - common + (cache.refresh_every + 1) / 2
    of_prefix = 2 * common * spec.layers * spec.embed_dim * jnp.dtype(model.compute.dtype).itemsize
    market = jax.eval_shape(lambda: exchange.open_market(simulator.spec.market))
    return {
        "weights": _bytes(model.layers) + _bytes(model.norm), "head": _bytes(model.head),
        "head_again": 0 if spec.pair_width else (
            trajectories * sampling.BLOCK * _bytes(model.head) // spec.tokens.classes),
        "cache_read": round(token * slots), "prefix_read": of_prefix, "cache_write": token,
        "markets": 2 * trajectories * _bytes(market)}


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def seconds(simulator: Simulator, state: SimState, steps: int, repeats: int) -> dict[str, float]:
    """Seconds a step of each part, compiled apart: the median of `repeats` loops of `steps`.

    `exchange` is everything from a token to the book after it: values drawn, planned order, views, match, cancels,
    accounts. `tokens` is what encoding adds to it.
    """
    hidden = jax.jit(kv_cache.predict, static_argnums=1)(simulator.model, simulator.spec.cache, state.cache)
    prepared = jax.jit(Simulator.prepared)(simulator)
    measured = functools.partial(_loop, steps=steps, repeats=repeats)
    # What is handed over is donated, and used up, so that the caches are changed in place as in a rollout.
    found = {"predict": measured(_predict, (prepared, state.cache), hidden, donate=False),
             "head+draw": measured(_draw, prepared, (hidden, state.trajectory), donate=False)}
    markets = MarketState(state.market, state.view, state.token_state)
    without, both = (measured(_handle, simulator, (one, state.time, state.trajectory), donate=False)
                     for one in (dataclasses.replace(markets, token_state=NOT_MADE), markets))
    found |= {"exchange": without, "tokens": both - without}
    found["append"] = measured(_append, prepared, state.cache, donate=True)
    return {name: found[name] for name in ("append", "predict", "head+draw", "exchange", "tokens")}


def _loop(step: Callable[[Any, Any, jax.Array], Any], given: Any, carry: Any, *, steps: int, repeats: int,
          donate: bool) -> float:
    def loop(given: Any, carry: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda i, c: step(given, c, i), carry)

    run = jax.jit(loop, donate_argnums=(1,) if donate else ())
    carry, times = jax.block_until_ready(run(given, carry)), []
    for _ in range(repeats):
        began = time.perf_counter()
        carry = jax.block_until_ready(run(given, carry))
        times.append(time.perf_counter() - began)
    return statistics.median(times) / steps


def _predict(given: tuple[Simulator, kv_cache.State], hidden: jax.Array, step: jax.Array) -> jax.Array:
    simulator, state = given
    state = dataclasses.replace(state, newest=hidden.astype(jnp.asarray(state.newest).dtype))
    return kv_cache.predict(simulator.model, simulator.spec.cache, state, simulator.prefix)


def _draw(simulator: Simulator, carry: tuple[jax.Array, Array], step: jax.Array) -> tuple[jax.Array, Array]:
    hidden, trajectory = carry
    words = sim_step.draw(jnp.uint32(0), trajectory, step)
    token, _ = kv_cache.sample(simulator.model, simulator.spec.cache, hidden, words.token, simulator.spec.temperature,
                               simulator.weights)
    # What is drawn goes into the next draw, or the loop would be no loop; it does not change the hidden states.
    return hidden + (token[:, None] * 1e-30).astype(hidden.dtype), trajectory


def _append(simulator: Simulator, state: kv_cache.State, step: jax.Array) -> kv_cache.State:
    """The same for all trajectories, and never at a refresh: re-encoding is in the times of complete steps."""
    cache, batch = simulator.spec.cache, state.total.shape[0]
    row = jnp.full((batch, 1), step % 10, jnp.int32)
    token = Token(kind=row % 3, price_bin=row, volume_bin=row, interval_bin=row, volume_ratio=row, trade_ratio=row,
                  change=row, seconds=row, levels=jnp.broadcast_to(row[..., None], (batch, 1, LEVELS)),
                  signals=jnp.zeros((batch, 1, SIGNALS), jnp.int32))
    state = kv_cache.append_all(simulator.model, cache, state, token, jnp.ones(batch, jnp.int32),
                                jnp.zeros(batch, bool), 1, simulator.prefix)
    # A context that has come to its end goes back, so that none is refreshed here.
    back = jnp.where(jnp.asarray(state.length) >= simulator.model.spec.context_length, cache.refresh_every, 0)
    return state if cache.mode == "rolling" else dataclasses.replace(state, length=state.length - back)


def _handle(simulator: Simulator, carry: tuple[MarketState, Time, Array], step: jax.Array
            ) -> tuple[MarketState, Time, Array]:
    """A token that hangs on the step and the trajectory alone goes through the exchange, and is encoded if wanted."""
    markets, now, trajectory = carry
    words = sim_step.draw(jnp.uint32(1), trajectory, step)
    tokens = simulator.model.spec.tokens
    number = int64.multiply_high(words.token[:, 0], jnp.uint32(tokens.classes)).astype(jnp.int32)
    plan = encoding.draw_plan(tokens, simulator.draws, number, words.values)
    return *jax.vmap(functools.partial(_handle_one, simulator))(markets, now, plan, words.tie), trajectory


def _handle_one(simulator: Simulator, market: MarketState, now: Time, plan: SampledOrder, tie: Array
                ) -> tuple[MarketState, Time]:
    spec = simulator.spec
    order = background.planned_order(plan, market.view.mid_price, now, spec.account)
    by_price = background.by_price(simulator.model.spec, order, spec.owns_below, tie)
    after, event = process(spec.market, simulator.table, market, order, by_price=by_price)
    if event.encoded is not NOT_MADE:
        # Whatever is read of a token keeps it from being optimised away.
        used = sum(jnp.sum(x) for x in jax.tree.leaves(event.encoded.token))
        clipped = after.token_state.clipped + (used == -1)
        after = dataclasses.replace(after, token_state=dataclasses.replace(after.token_state, clipped=clipped))
    return after, order.time


def table(rows: list[dict[str, Any]]) -> str:
    """The parts of all rows, us a step."""
    rows = [row for row in rows if "us_of_parts" in row]
    if not rows:
        return ""
    names = list(rows[0]["us_of_parts"])
    lines = [f"{row['model']:>8} {row['trajectories']:>12} " + " ".join(
        f"{row['us_of_parts'][name]:>9.1f}" for name in names) for row in rows]
    return "\n".join(["parts, compiled apart, us a step:", f"{'model':>8} {'trajectories':>12} "
                      + " ".join(f"{name:>9}" for name in names), *lines])
