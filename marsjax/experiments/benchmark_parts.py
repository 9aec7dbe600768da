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

from marsjax import book as books
from marsjax import clock, decode, exchange, sampling, simulate, tokens
from marsjax.agents import background, cancels
from marsjax.model import LEVELS, Params
from marsjax.simulate import Simulation, SimulationSpec
from marsjax.tokens import DrawTables, Plan, TokenState, TokenTables
from marsjax.types import Array, Kind, Market, Order, Time, Token

Tables = tuple[TokenTables, DrawTables]


def bytes_moved(params: Params, spec: SimulationSpec, trajectories: int) -> dict[str, int]:
    """Bytes that one step reads and writes at least, were nothing read twice.

    Every slot of the cache counts, filled or not, since all are read. The logits stay on chip.
    """
    model, item = spec.model, jnp.dtype(spec.cache.compute.dtype).itemsize
    token = 2 * trajectories * model.layers * model.width * item
    market = jax.eval_shape(lambda: exchange.open_market(spec.market))
    return {
        "weights": _bytes(params.layers) + _bytes(params.norm), "head": _bytes(params.head),
        "head_again": trajectories * sampling.BLOCK * model.width * jnp.asarray(params.head).dtype.itemsize,
        "cache_read": token * model.max_orders, "cache_write": token, "markets": 2 * trajectories * _bytes(market)}


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def seconds(params: Params, spec: SimulationSpec, tables: Tables, state: Simulation, steps: int, repeats: int
            ) -> dict[str, float]:
    """Seconds a step of each part, compiled apart: the median of `repeats` loops of `steps`.

    `exchange` is everything from a token to the book after it: values drawn, planned order, views, match, cancels,
    accounts. `tokens` is what encoding adds to it.
    """
    hidden = jax.jit(decode.predict, static_argnums=(1, 2))(params, spec.model, spec.cache, state.cache)
    measured = functools.partial(_loop, steps=steps, repeats=repeats)
    # What is handed over is donated, and used up, so that the caches are changed in place as in a rollout.
    found = {"predict": measured(functools.partial(_predict, spec), (params, state.cache), hidden, donate=False),
             "head+draw": measured(functools.partial(_draw, spec), params, (hidden, state.trajectory), donate=False)}
    markets = state.market, state.token_state, state.time, state.trajectory
    without, whole = (measured(functools.partial(_handle, spec, encodes), tables, markets, donate=False)
                      for encodes in (False, True))
    found |= {"exchange": without, "tokens": whole - without}
    found["append"] = measured(functools.partial(_append, spec), params, state.cache, donate=True)
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


def _predict(spec: SimulationSpec, given: tuple[Params, decode.State], hidden: jax.Array, step: jax.Array) -> jax.Array:
    params, state = given
    state = dataclasses.replace(state, newest=hidden.astype(jnp.asarray(state.newest).dtype))
    return decode.predict(params, spec.model, spec.cache, state)


def _draw(spec: SimulationSpec, params: Params, carry: tuple[jax.Array, Array], step: jax.Array
          ) -> tuple[jax.Array, Array]:
    hidden, trajectory = carry
    words = simulate.draw(jnp.uint32(0), trajectory, step)
    token, _ = decode.sample(params, spec.cache, hidden, words.token, spec.temperature)
    # What is drawn goes into the next draw, or the loop would be no loop; it does not change the hidden states.
    return hidden + (token[:, None] * 1e-30).astype(hidden.dtype), trajectory


def _append(spec: SimulationSpec, params: Params, state: decode.State, step: jax.Array) -> decode.State:
    """The same for all trajectories, and never a multiple of the hop: re-encoding is in the times of whole steps."""
    batch = state.total.shape[0]
    row = jnp.full((batch, 1), step % 10, jnp.int32)
    token = Token(kind=row % 3, price_bin=row, volume_bin=row, interval_bin=row, volume_ratio=row, trade_ratio=row,
                  change=row, seconds=row, levels=jnp.broadcast_to(row[..., None], (batch, 1, LEVELS)))
    state = decode.append_all(params, spec.model, spec.cache, state, token, jnp.ones(batch, jnp.int32),
                              jnp.zeros(batch, bool), 1)
    # A context that has come to its end goes back a hop, so that none is cut here.
    back = jnp.where(jnp.asarray(state.length) >= spec.model.max_orders, spec.cache.hop, 0)
    return state if spec.cache.mode == "rolling" else dataclasses.replace(state, length=state.length - back)


def _handle(spec: SimulationSpec, encodes: bool, tables: Tables,
            carry: tuple[Market, TokenState, Time, Array], step: jax.Array) -> tuple[Market, TokenState, Time, Array]:
    """A token that hangs on the step and the trajectory alone goes through the exchange, and is encoded."""
    market, token_state, now, trajectory = carry
    words = simulate.draw(jnp.uint32(1), trajectory, step)
    number = clock.multiply_high(words.token[:, 0], jnp.uint32(spec.model.tokens.classes)).astype(jnp.int32)
    plan = tokens.draw_plan(spec.model.tokens, tables[1], number, words.values)
    one = functools.partial(_handle_one, spec, tables[0], encodes)
    return *jax.vmap(one)(market, token_state, now, plan, words.tie), trajectory


def _handle_one(spec: SimulationSpec, table: TokenTables, encodes: bool, market: Market, token_state: TokenState,
                now: Time, plan: Plan, tie: Array) -> tuple[Market, TokenState, Time]:
    before = books.view(spec.market, market.book)
    order: Order = background.planned_order(plan, before.mid_price, now, spec.owner)
    takes_back = background.is_cancel(order)
    limit = dataclasses.replace(order, kind=jnp.where(takes_back, jnp.int32(Kind.NONE), order.kind))
    after, report = exchange.submit(spec.market, market, limit)
    own = (market.book.owner >= 0) & (market.book.owner < spec.owns_below)
    take = cancels.nearest(market.book, own, order.price, order.volume, (tie & 1) == 1)
    after, _ = exchange.cancel_many(spec.market, after, jnp.where(takes_back, take, 0), order.time)
    view = books.view(spec.market, after.book)
    if encodes:
        token_state, encoded = tokens.encode(spec.market, table, token_state, order, report.trades, before, view,
                                             report.status == 0)
        # Whatever is read of a token keeps it from being optimised away.
        used = sum(jnp.sum(x) for x in jax.tree.leaves(encoded.token))
        token_state = dataclasses.replace(token_state, clipped=token_state.clipped + (used == -1))
    return after, token_state, order.time


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
